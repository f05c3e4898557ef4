'use strict';
// Cores that two of three signers must sign. Every signature is made here, as a test needs no secrets.

const hypercoreCrypto = require('hypercore-crypto');
const SIGNERS = 3;
const QUORUM = 2;

/** A module of the package of `release`. */
function part(release, name) {
  return require(`${release === '11' ? 'hypercore' : 'hypercore10'}/lib/${name}`);
}

/** Three key pairs, and the key and manifest of a core that two of them sign; `version` is that of the manifest. */
function threeSigners(release, version, Hypercore) {
  const signers = Array.from({ length: SIGNERS }, () => hypercoreCrypto.keyPair());
  const namespace = part(release, 'caps').DEFAULT_NAMESPACE;
  const declared = signers.map(({ publicKey }) => ({ signature: 'ed25519', namespace, publicKey }));
  const manifest =
    release === '11'
      ? { version, quorum: QUORUM, allowPatch: false, signers: declared }
      : { multipleSigners: { quorum: QUORUM, allowPatched: false, signers: declared } };
  return { signers, key: Hypercore.key(manifest), manifest };
}

/** Appends `blocks` to `core`, signed by the first and the last of its signers. */
async function appendSigned(release, core, signers, blocks) {
  const tree = release === '11' ? core.state.createTreeBatch() : core.core.tree.batch();
  for (const block of blocks) tree.append(block);
  const parts = [0, SIGNERS - 1].map((signer) => {
    const context = release === '11' ? core.core.verifier.signers[signer]._ctx() : part(release, 'caps').DEFAULT_NAMESPACE;
    const signature = hypercoreCrypto.sign(tree.signable(context), signers[signer].secretKey);
    return { signer, signature, patch: release === '11' ? 0 : null, nodes: null };
  });
  const signature = release === '11' ? core.core.verifier.assemble(parts) : part(release, 'multisig').assemble(parts);
  await core.append(blocks, { signature });
}

module.exports = { threeSigners, appendSigned };
