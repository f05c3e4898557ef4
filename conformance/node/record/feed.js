'use strict';
// Records what hypercore 11 makes of feeds: keys and manifests, trees and their signatures, proofs for all kinds of
// requests with how the request is refused where it is, and which signatures its verifier accepts.

const fs = require('fs');
const os = require('os');
const path = require('path');
const c = require('compact-encoding');
const crypto = require('hypercore-crypto');
const Hypercore = require('hypercore');
const { MerkleTree } = require('hypercore/lib/merkle-tree');
const Verifier = require('hypercore/lib/verifier');
const multisig = require('hypercore/lib/multisig');
const messages = require('hypercore/lib/messages');
const { Area, accept, refuse, versions } = require('./area');

const hex = (buffer) => Buffer.from(buffer).toString('hex');
const seed = (n) => Buffer.alloc(32, n);
const keyPair = (n) => crypto.keyPair(seed(n));

// Block n has (n * 7) % 23 bytes of the value n; so some are empty.
const block = (n) => Buffer.alloc((n * 7) % 23, n);
const blocks = (from, to) => Array.from({ length: to - from }, (_, i) => block(from + i));

const area = new Area('feeds', {
  about: 'Manifests and keys, trees with their signatures, proofs and who takes them, of feeds whose block n has (n * 7) % 23 '
    + 'bytes of the value n and whose writer grew from a seed of 32 bytes of the value 1; a proof is the data message of request 0',
  source: versions('hypercore'),
  kinds: {
    manifest: { about: 'What a manifest says, and the key of the feed that has it.', must: ['FEED-1', 'FEED-8'] },
    tree: { about: 'The roots, the hash and the signature of the tree of the first blocks of a feed.', must: ['FEED-18', 'FEED-19', 'FEED-22'] },
    prove: { about: 'What a writer answers to a request, or that it can not be answered.', must: { accept: ['REPL-26', 'REPL-28'], refuse: ['REPL-29'] } },
    verify: { about: 'Whether a reader that has nothing yet takes a proof, and what it has then.', must: { accept: ['FEED-63', 'FEED-64'], refuse: ['FEED-60', 'FEED-63', 'FEED-67', 'REPL-38'] } },
    signature: { about: 'Whether a signature stands for the tree of the first blocks of the feed with this manifest.', must: { accept: ['FEED-19', 'FEED-22'], refuse: ['FEED-22', 'FEED-26'] } },
  },
});
const add = (...args) => area.add(...args);

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'record-feed-'));
const opened = [];

async function open(key, options) {
  const core = new Hypercore(path.join(folder, String(opened.length)), key, options);
  opened.push(core);
  await core.ready();
  return core;
}

const node = ({ index, size, hash }) => ({ index, size, hash: hex(hash) });

function recordKeys() {
  const [one, two] = [keyPair(1), keyPair(2)];
  const signer = ({ publicKey }, namespace) => ({ publicKey, ...(namespace && { namespace }) });
  const prologue = { hash: seed(9), length: 5 };
  const manifests = {
    'a manifest of version 1 with one signer, the default': { version: 1, signers: [signer(one)] },
    'a manifest of version 0 with one signer': { version: 0, signers: [signer(one)] },
    'a manifest of version 1 with a namespace of its own': { version: 1, signers: [signer(one, seed(7))] },
    'a manifest of version 0 with a namespace of its own': { version: 0, signers: [signer(one, seed(7))] },
    'a manifest of version 1 with two signers, both needed': { version: 1, quorum: 2, signers: [signer(one), signer(two)] },
    'a manifest of version 0 with two signers': { version: 0, quorum: 1, signers: [signer(one), signer(two)] },
    'a manifest of version 0 that allows patches': { version: 0, allowPatch: true, signers: [signer(one), signer(two)] },
    'a manifest of version 1 that allows patches': { version: 1, allowPatch: true, signers: [signer(one), signer(two)] },
    'a static manifest of version 0': { version: 0, quorum: 0, signers: [], prologue: { hash: seed(9), length: 0 } },
    'a static manifest of version 1': { version: 1, quorum: 0, signers: [], prologue },
    'a manifest with prologue and signer': { version: 1, signers: [signer(one)], prologue },
    'a manifest of version 2 with linked feeds and user data': {
      version: 2, signers: [signer(one)], linked: [seed(3), seed(4)], userData: Buffer.from('of the app'),
    },
  };
  for (const [name, input] of Object.entries(manifests)) {
    const manifest = Verifier.createManifest(input);
    const key = Verifier.manifestHash(manifest);
    add('manifest', name, { manifest: hex(Verifier.encodeManifest(manifest)) }, accept({
      key: hex(key),
      discovery_key: hex(crypto.discoveryKey(key)),
      version: manifest.version,
      quorum: manifest.quorum,
      allow_patch: manifest.allowPatch,
      signers: manifest.signers.map(({ publicKey, namespace }) => ({ public_key: hex(publicKey), namespace: hex(namespace) })),
    }));
  }
}

// The feeds that trees and proofs are recorded from: one seed, three kinds.
const KINDS = {
  default: () => ({ keyPair: keyPair(1), manifest: { version: 1, signers: [{ publicKey: keyPair(1).publicKey }] } }),
  legacy: () => ({ keyPair: keyPair(1), compat: true }),
  version_0: () => ({ keyPair: keyPair(1), manifest: { version: 0, signers: [{ publicKey: keyPair(1).publicKey }] } }),
};

async function recordTrees() {
  for (const [kind, options] of Object.entries(KINDS)) {
    const core = await open(null, options());
    for (let length = 0; length <= 40; length++) {
      if (length > 0) await core.append(block(length - 1));
      const { roots, signature, fork } = core.state;
      const full = kind === 'default';
      if (!full && ![0, 1, 2, 3, 7, 40].includes(length)) continue;
      add('tree', `${kind}: the tree of ${length} blocks`, { feed: kind, length, fork }, accept({
        key: hex(core.key),
        byte_length: core.byteLength,
        tree_hash: hex(MerkleTree.hash(core.state)),
        roots: roots.map(node),
        signature: signature ? hex(signature) : '',
      }));
    }
  }
}

// A proof as hypercore writes it into a message: the data message without its request id.
function encodeProof(proof) {
  return hex(c.encode(messages.wire.data, { request: 0, ...proof }));
}

async function recordProofs() {
  const requests = (length) => {
    const list = [];
    for (const index of [0, 1, length - 1, length >> 1]) {
      for (const nodes of [0, 1, 2, 4]) list.push({ block: { index, nodes } });
    }
    for (const start of [0, 1, 3, length >> 1, length - 1]) {
      for (const end of [start + 1, length - 2, length]) {
        if (end > start) list.push({ upgrade: { start, length: end - start } });
      }
    }
    for (const [index, start, end] of [[0, 0, length], [length - 1, 0, length], [5, 4, length], [length - 1, 2, length],
      [3, 2, length - 1], [1, 4, length], [2, 0, 4], [6, 5, 7]]) {
      for (const nodes of [0, 1]) list.push({ block: { index, nodes }, upgrade: { start, length: end - start } });
    }
    for (const [index, nodes] of [[0, 0], [0, 1], [1, 0], [5, 1], [3, 1], [2 * length - 2, 0], [7, 0]]) {
      list.push({ hash: { index, nodes } });
    }
    list.push({ hash: { index: 9, nodes: 0 }, upgrade: { start: 4, length: length - 4 } });
    list.push({ hash: { index: 1, nodes: 0 }, upgrade: { start: 1, length: length - 1 } });
    list.push({ hash: { index: 1, nodes: 1 }, upgrade: { start: 4, length: length - 4 } });
    // What can't be answered.
    list.push({ upgrade: { start: length, length: 0 } });
    list.push({ upgrade: { start: 0, length: length + 1 } });
    list.push({ upgrade: { start: length, length: 1 } });
    list.push({ block: { index: 0, nodes: 40 } });
    list.push({ block: { index: length - 1, nodes: 4 }, upgrade: { start: 0, length: 4 } });
    list.push({ hash: { index: 2 * length, nodes: 0 } });
    list.push({ hash: { index: 15, nodes: 0 } });
    return list;
  };
  for (const length of [1, 2, 7, 8, 13, 22]) {
    const core = await open(null, KINDS.default());
    await core.append(blocks(0, length));
    const seen = new Set();
    for (const request of requests(length)) {
      const { block, hash, upgrade } = request;
      if ([block, hash, upgrade].some((part) => part && (part.index < 0 || part.start < 0 || part.length < 0))) continue;
      if (block && block.index >= length) continue;
      const name = `${length} blocks: ${JSON.stringify(request).replace(/"/g, '')}`;
      if (seen.has(name)) continue;
      seen.add(name);
      const manifest = !!upgrade && upgrade.start === 0;
      const input = { feed: 'default', length, request: { ...request, manifest } };
      const proof = await core.proof({ block: null, hash: null, seek: null, upgrade: null, ...structuredClone(request) })
        .catch(() => null);
      if (proof === null) {
        add('prove', name, input, refuse('request'));
        continue;
      }
      if (manifest) proof.manifest = core.manifest;
      add('prove', name, input, accept({ proof: encodeProof(proof) }));
      // Whether a reader that has nothing takes it. It can only if it is told of the whole tree.
      const reader = await open(core.key, {});
      const taken = await reader.applyProof(proof).then(() => true, () => false);
      const has = block ? { has: await reader.has(block.index) } : {};
      add('verify', name, { feed: 'default', proof: encodeProof(proof) },
        taken ? accept({ length: reader.length, ...has }) : refuse('proof', { length: 0, ...has }));
    }
  }
}

// Signatures over the tree of three blocks, and whether hypercore's verifier takes them.
async function recordSignatures() {
  const core = await open(null, KINDS.default());
  await core.append(blocks(0, 3));
  const batch = core.state.createTreeBatch();
  const longer = await open(null, KINDS.default());
  await longer.append(blocks(0, 5));
  const longerBatch = longer.state.createTreeBatch();
  const patch = (await longer.proof({ upgrade: { start: 3, length: 2 } })).upgrade.nodes;
  const pairs = [1, 2, 3].map(keyPair);
  const signers = pairs.map(({ publicKey }) => ({ publicKey }));

  const attempt = (name, input, sign) => {
    const manifest = Verifier.createManifest(input);
    const verifier = new Verifier(Verifier.manifestHash(manifest), manifest);
    const by = (n, tree = batch) => verifier.signers[n].sign(tree, pairs[n]);
    const signature = sign({ by, verifier });
    let accepted;
    try {
      accepted = verifier.verify(batch, signature);
    } catch {
      accepted = false;
    }
    add('signature', name, {
      manifest: hex(Verifier.encodeManifest(manifest)), length: 3, fork: 0, signature: hex(signature),
    }, accepted ? accept() : refuse('signature'));
  };
  const part = (signer, signature, patched = 0) => ({
    signer, signature, patch: patched, nodes: patched ? patch : null,
  });

  const one = { version: 1, signers: signers.slice(0, 1) };
  attempt('version 1: signed by its signer', one, ({ by }) => multisig.assemble([part(0, by(0))]));
  attempt('version 1: a bare signature', one, ({ by }) => by(0));
  attempt('version 1: no signature at all', one, () => Buffer.alloc(0));
  attempt('version 1: signed by another', one, ({ verifier }) =>
    multisig.assemble([part(0, crypto.sign(batch.signable(verifier.manifestHash), pairs[1].secretKey))]));
  attempt('version 1: a second part beyond the quorum is not looked at', one, ({ by }) =>
    multisig.assemble([part(0, by(0)), part(5, Buffer.alloc(64))]));
  attempt('version 1: a signer that is not there', one, ({ by }) => multisig.assemble([part(1, by(0))]));
  attempt('version 1: bytes after the end are not looked at', one, ({ by }) =>
    Buffer.concat([multisig.assemble([part(0, by(0))]), Buffer.from('more')]));
  attempt('version 1: cut short', one, ({ by }) => multisig.assemble([part(0, by(0))]).subarray(0, 66));
  attempt('version 1: a patch where none is allowed is not looked at', one, ({ by }) =>
    multisig.assemble([part(0, by(0), 2)]));
  attempt('version 1: signed over the longer tree without leave to patch', one, ({ by }) =>
    multisig.assemble([part(0, by(0, longerBatch), 2)]));
  attempt('version 1: the signature of a legacy feed', one, () =>
    multisig.assemble([part(0, crypto.sign(batch.signableCompat(false), pairs[0].secretKey))]));

  const three = { version: 1, quorum: 2, signers };
  attempt('a quorum of two of three', three, ({ by }) => multisig.assemble([part(0, by(0)), part(2, by(2))]));
  attempt('a quorum of two by one', three, ({ by }) => multisig.assemble([part(0, by(0))]));
  attempt('a quorum of two by the same signer twice', three, ({ by }) => multisig.assemble([part(1, by(1)), part(1, by(1))]));
  attempt('a quorum of two, the second invalid', three, ({ by }) => multisig.assemble([part(0, by(0)), part(1, by(2))]));
  attempt('a quorum of two, a third invalid', three, ({ by }) =>
    multisig.assemble([part(0, by(0)), part(1, by(1)), part(2, by(0))]));

  const patched = { version: 1, quorum: 2, allowPatch: true, signers };
  attempt('a patch to the longer tree that one has signed', patched, ({ by }) =>
    multisig.assemble([part(0, by(0)), part(1, by(1, longerBatch), 2)]));
  attempt('a patch to another length than was signed', patched, ({ by }) =>
    multisig.assemble([part(0, by(0)), part(1, by(1, longerBatch), 1)]));
  attempt('a patch without its nodes', patched, ({ by }) =>
    multisig.assemble([part(0, by(0)), { ...part(1, by(1, longerBatch), 2), nodes: null }]));
  attempt('a patch of a million blocks', patched, ({ by }) =>
    multisig.assemble([part(0, by(0)), { ...part(1, by(1, longerBatch), 2), patch: 1e6 }]));

  attempt('a quorum of nobody', { version: 1, quorum: 0, signers }, ({ by }) => multisig.assemble([part(0, by(0))]));

  const old = { version: 0, signers: signers.slice(0, 1) };
  attempt('version 0: signed by its signer', old, ({ by }) => by(0));
  attempt('version 0: signed by its signer, in a namespace of its own',
    { version: 0, signers: [{ ...signers[0], namespace: seed(7) }] }, ({ by }) => by(0));
  attempt('version 0: as a multi-signature', old, ({ by }) => multisig.assemblev0([part(0, by(0))]));
  attempt('version 0: one byte too many', old, ({ by }) => Buffer.concat([by(0), Buffer.alloc(1)]));
  attempt('version 0: a quorum of two of three', { version: 0, quorum: 2, signers }, ({ by }) =>
    multisig.assemblev0([part(0, by(0)), part(2, by(2))]));
  attempt('version 0: a patch to the longer tree that one has signed', { version: 0, quorum: 2, allowPatch: true, signers },
    ({ by }) => multisig.assemblev0([part(0, by(0)), part(1, by(1, longerBatch), 2)]));
  attempt('version 0: a single signer that may patch', { version: 0, allowPatch: true, signers: signers.slice(0, 1) },
    ({ by }) => multisig.assemblev0([part(0, by(0, longerBatch), 2)]));

  const hash = MerkleTree.hash(core.state);
  attempt('a prologue needs no signature', { version: 1, quorum: 0, signers: [], prologue: { hash, length: 3 } },
    () => Buffer.alloc(0));
  attempt('another tree than the prologue', { version: 1, quorum: 0, signers: [], prologue: { hash: seed(9), length: 3 } },
    () => Buffer.alloc(0));
  attempt('a part of the prologue', { version: 1, quorum: 0, signers: [], prologue: { hash, length: 4 } },
    () => Buffer.alloc(0));
  attempt('beyond the prologue, signed', { ...one, prologue: { hash, length: 2 } },
    ({ by }) => multisig.assemble([part(0, by(0))]));
  attempt('beyond the prologue, not signed', { ...one, prologue: { hash, length: 2 } }, () => Buffer.alloc(0));
}

async function main() {
  recordKeys();
  await recordTrees();
  await recordProofs();
  await recordSignatures();
  for (const core of opened) await core.close();
  fs.rmSync(folder, { recursive: true, force: true });
  area.write();
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
