'use strict';
// Records what hypercore 11 makes of manifests of every kind: which it makes and which it refuses to make, which it
// takes from a peer under a key, what each signer signs, how the parts of several signers are put together, and which
// signatures its verifier accepts.

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
const { Area, accept, refuse, bytes, versions } = require('./area');

const hex = (buffer) => Buffer.from(buffer).toString('hex');
const seed = (n) => Buffer.alloc(32, n);
const keyPair = (n) => crypto.keyPair(seed(n));
const publicKey = (n) => keyPair(n).publicKey;
const signer = (n, namespace) => ({ publicKey: publicKey(n), ...(namespace && { namespace }) });
const block = (n) => Buffer.alloc((n * 7) % 23, n);
const blocks = (from, to) => Array.from({ length: to - from }, (_, i) => block(from + i));

const area = new Area('manifests', {
  about: 'Manifests made and received, what their signers sign, multi-signatures assembled, accepted and refused, and feeds '
    + 'with a prologue; block n has (n * 7) % 23 bytes of the value n, and signer n grew from a seed of 32 bytes of the value n + 1',
  source: versions('hypercore'),
  kinds: {
    made: { about: 'The manifest that an application asks for, and its key, or that there can be none.', must: { accept: ['FEED-1', 'FEED-8', 'FEED-9'], refuse: ['FEED-11', 'FEED-12', 'FEED-13'] } },
    received: { about: 'Whether a manifest that a peer shows is that of the feed with this key.', must: { accept: ['FEED-2', 'FEED-14', 'FEED-15'], refuse: ['FEED-14'] } },
    signable: { about: 'What a signer signs for a tree on a fork, and its signature.', must: ['FEED-18', 'FEED-19'] },
    assembled: { about: 'How the parts of several signers, each over its own length, become one signature.', must: ['FEED-22', 'FEED-28'] },
    flipped: { about: 'Of a signature that holds, in which bytes the lowest bit may be another (1) and in which not (0).', must: ['FEED-26', 'FEED-27', 'FEED-30'] },
    multi_signature: { about: 'Whether a signature stands for the tree of the first blocks of a feed.', must: ['FEED-22', 'FEED-26'] },
    prologue: { about: 'A feed that begins with a prologue: what its writer may append, and what its reader takes.', must: ['FEED-32', 'FEED-33', 'FEED-34', 'FEED-35', 'FEED-36', 'FEED-37'] },
  },
});
// What the expectations of this file become.
const CONVERT = {
  made: ({ manifest, ...rest }) => (manifest ? accept({ manifest, ...rest }) : refuse('misuse')),
  received: ({ accepted, ...rest }) => (accepted ? accept(rest) : refuse('manifest')),
  signable: accept,
  assembled: ({ signature }) => accept({ signature }),
  flipped: ({ accepted }) => accept({ bytes: accepted }),
  multi_signature: ({ accepted }) => (accepted ? accept() : refuse('signature')),
  prologue: ({ length, proof }) => (length > 0 ? accept({ length, proof }) : refuse('prologue')),
};
const add = (kind, name, fields, expect, must = undefined) => {
  const as = kind === 'signature' ? 'multi_signature' : kind;
  area.add(as, name, fields, CONVERT[as](expect), { must });
};

// What a scenario of this name tests, if it is more than its kind says: the first that fits.
const tested = (list, name) => (list.find(([fits]) => fits.test(name)) || [])[1];
const RECEIVED = [
  [/unknown (hash|signature scheme)/, ['FEED-5']],
  [/^version 3/, ['FEED-6']],
  [/unknown type/, ['FEED-7']],
  [/^version 0, (laid out|one signer and)/, ['FEED-8', 'FEED-15']],
  [/unknown flag/, ['ENC-9', 'FEED-10', 'FEED-15']],
  [/longer form/, ['ENC-4', 'FEED-15']],
  [/quorum above|quorum without/, ['FEED-11', 'FEED-2']],
  [/linked feeds in version 1/i, ['FEED-12', 'FEED-14']],
  [/user data.*version 1/, ['FEED-13', 'FEED-14']],
  [/cut short|2\^53 blocks/, ['ENC-5', 'ENC-3']],
];
const SIGNED = [
  [/prologue: the tree itself/, ['FEED-32']],
  [/prologue: a part/, ['FEED-31']],
  [/prologue: (more than it, and no signers)/, ['FEED-33']],
  [/prologue: /, ['FEED-32', 'FEED-33']],
  [/quorum of nobody/, ['FEED-22', 'FEED-23']],
  [/patch: (right|on fork|of a tree|nodes in|a node too)/, ['FEED-28']],
  [/patch: /, ['FEED-28', 'FEED-29']],
  [/without leave/, ['FEED-30']],
  [/by (one|nobody)$/, ['FEED-24']],
  [/one, twice|one twice|signer that is not there|signer of 2/, ['FEED-25']],
  [/wrong one (first|after)/, ['FEED-26', 'FEED-27']],
  [/legacy/, ['FEED-2', 'FEED-19', 'FEED-22']],
];

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'record-manifest-'));
const opened = [];

async function open(key, options) {
  const core = new Hypercore(path.join(folder, String(opened.length)), key, options);
  opened.push(core);
  await core.ready();
  return core;
}

// ---- made: what an application asks for -------------------------------------------------------------------

function recordMade() {
  const prologue = { hash: seed(9), length: 5 };
  const inputs = {
    'one signer': { signers: [signer(1)] },
    'two signers: the quorum is both': { signers: [1, 2].map((n) => signer(n)) },
    'three signers: the quorum is two': { signers: [1, 2, 3].map((n) => signer(n)) },
    'four signers: the quorum is three': { signers: [1, 2, 3, 4].map((n) => signer(n)) },
    'one of three': { quorum: 1, signers: [1, 2, 3].map((n) => signer(n)) },
    'three of three that may patch': { quorum: 3, allowPatch: true, signers: [1, 2, 3].map((n) => signer(n)) },
    'one signer that may patch': { allowPatch: true, signers: [signer(1)] },
    'signers in namespaces of their own': { quorum: 2, signers: [signer(1, seed(7)), signer(2, seed(8))] },
    'version 0, one signer': { version: 0, signers: [signer(1)] },
    'version 0, one signer that may patch': { version: 0, allowPatch: true, signers: [signer(1)] },
    'version 0, two of three that may patch': { version: 0, quorum: 2, allowPatch: true, signers: [1, 2, 3].map((n) => signer(n)) },
    'version 1 by name': { version: 1, signers: [signer(1)] },
    'version 2 by name': { version: 2, signers: [signer(1)] },
    'a prologue alone': { prologue },
    'a prologue alone in version 2': { version: 2, prologue },
    'a prologue and a quorum': { prologue, quorum: 2, signers: [signer(1), signer(2)] },
    'user data makes it version 2': { signers: [signer(1)], userData: Buffer.from('of the app') },
    'user data of no bytes makes it version 2': { signers: [signer(1)], userData: Buffer.alloc(0) },
    'linked feeds make it version 2': { signers: [signer(1)], linked: [seed(3), seed(4)] },
    'no linked feeds leave it version 1': { signers: [signer(1)], linked: [] },
    'everything at once': {
      prologue, quorum: 2, allowPatch: true, signers: [signer(1), signer(2, seed(8)), signer(3)],
      linked: [seed(3)], userData: Buffer.alloc(300, 6),
    },
    'a quorum above the signers': { quorum: 3, signers: [signer(1), signer(2)] },
    'user data in version 1': { version: 1, signers: [signer(1)], userData: Buffer.from('x') },
    'user data in version 0': { version: 0, signers: [signer(1)], userData: Buffer.from('x') },
    'linked feeds in version 1': { version: 1, signers: [signer(1)], linked: [seed(3)] },
    'linked feeds in version 0': { version: 0, signers: [signer(1)], linked: [seed(3)] },
    'an unknown version': { version: 3, signers: [signer(1)] },
  };
  for (const [name, input] of Object.entries(inputs)) {
    let expect;
    try {
      const manifest = Verifier.createManifest(input);
      const encoded = Verifier.encodeManifest(manifest);
      Verifier.decodeManifest(encoded);
      const key = Verifier.manifestHash(manifest);
      expect = {
        manifest: bytes(encoded), key: hex(key), discovery_key: hex(crypto.discoveryKey(key)),
        version: manifest.version, quorum: manifest.quorum,
      };
    } catch {
      expect = { manifest: null };
    }
    add('made', name, {
      ...('version' in input && { version: input.version }),
      ...('quorum' in input && { quorum: input.quorum }),
      allow_patch: !!input.allowPatch,
      signers: (input.signers || []).map((one) => ({
        public_key: hex(one.publicKey), ...(one.namespace && { namespace: hex(one.namespace) }),
      })),
      ...(input.prologue && { prologue: { hash: hex(input.prologue.hash), length: input.prologue.length } }),
      linked: (input.linked || []).map(hex),
      ...(input.userData && { user_data: bytes(input.userData) }),
    }, expect);
  }
}

// ---- received: what a peer shows for a key ----------------------------------------------------------------

// What `Core._verifyBatchUpgrade` does with a manifest that came with a proof, before it looks at signatures.
function take(key, bytes) {
  try {
    const state = { start: 0, end: bytes.length, buffer: bytes };
    const manifest = messages.manifest.decode(state);
    const compat = Verifier.isCompat(key, manifest);
    if (!compat && !Verifier.isValidManifest(key, manifest)) return { accepted: false };
    Verifier.createManifest(manifest);
    return { accepted: true, compat, encoded: hex(Verifier.encodeManifest(manifest)), read: state.start };
  } catch {
    return { accepted: false };
  }
}

// A manifest by hand, so that it can say what `createManifest` would not.
function rawManifest({ version = 1, flags = 0, hash = 0, quorum = 1, signers = [1], scheme = 0, tail = [] }) {
  const out = [version, ...(version === 0 ? [hash, 2, flags] : [flags, hash]), quorum, signers.length];
  const parts = signers.map((n) => Buffer.concat([Buffer.from([scheme]), seed(7), publicKey(n)]));
  return Buffer.concat([Buffer.from(out), ...parts, ...tail]);
}

const hashOf = (bytes) => crypto.hash(Buffer.concat([crypto.namespace('hypercore', 4)[3], bytes]));

function recordReceived() {
  const show = (name, bytes, key = hashOf(bytes)) =>
    add('received', name, { key: hex(key), manifest: hex(bytes) }, take(key, bytes), tested(RECEIVED, name));
  const made = (input) => Verifier.encodeManifest(Verifier.createManifest(input));
  const prologue = { hash: seed(9), length: 5 };

  show('version 1', rawManifest({}));
  show('version 2', rawManifest({ version: 2 }));
  show('version 0', made({ version: 0, signers: [signer(1)] }));
  show('version 0, laid out for several signers though it has one', rawManifest({ version: 0 }));
  show('version 0, one signer and a quorum of nobody', rawManifest({ version: 0, quorum: 0 }));
  show('version 0, a static tree', made({ version: 0, signers: [], prologue }));
  show('version 0, an unknown type', Buffer.from([0, 0, 3, 0, 0]));
  show('version 3', rawManifest({ version: 3 }));
  show('an unknown hash', rawManifest({ hash: 1 }));
  show('an unknown hash in version 0', rawManifest({ version: 0, hash: 1 }));
  show('an unknown signature scheme', rawManifest({ scheme: 1 }));
  show('an unknown signature scheme in version 0', rawManifest({ version: 0, scheme: 1 }));
  show('another key', rawManifest({}), seed(5));
  show('no signers and no prologue', rawManifest({ quorum: 0, signers: [] }));
  show('a quorum of nobody', rawManifest({ quorum: 0, signers: [1, 2] }));
  show('a quorum of all', rawManifest({ quorum: 2, signers: [1, 2] }));
  show('a quorum above the signers', rawManifest({ quorum: 3, signers: [1, 2] }));
  show('a quorum without signers', rawManifest({ quorum: 1, signers: [] }));
  show('a signer that is named twice', rawManifest({ quorum: 2, signers: [1, 1] }));
  show('patches', rawManifest({ flags: 1 }));
  show('a prologue', rawManifest({ flags: 2, tail: [seed(9), Buffer.from([5])] }));
  show('a prologue of no blocks', rawManifest({ flags: 2, tail: [seed(9), Buffer.from([0])] }));
  show('a prologue of 2^53 - 1 blocks', rawManifest({ flags: 2, tail: [seed(9), Buffer.from('ffffffffffffff1f00', 'hex')] }));
  show('a prologue of 2^53 blocks', rawManifest({ flags: 2, tail: [seed(9), Buffer.from('ff00000000000020' + '00', 'hex')] }));
  show('a prologue that is cut short', rawManifest({ flags: 2, tail: [seed(9).subarray(1)] }));
  show('linked feeds in version 2', rawManifest({ version: 2, flags: 4, tail: [Buffer.from([1]), seed(3)] }));
  show('no linked feeds in version 2, but the flag', rawManifest({ version: 2, flags: 4, tail: [Buffer.from([0])] }));
  show('linked feeds in version 1', rawManifest({ flags: 4, tail: [Buffer.from([1]), seed(3)] }));
  show('no linked feeds in version 1, but the flag', rawManifest({ flags: 4, tail: [Buffer.from([0])] }));
  show('linked feeds that are cut short', rawManifest({ version: 2, flags: 4, tail: [Buffer.from([2]), seed(3)] }));
  show('user data in version 2', rawManifest({ version: 2, flags: 8, tail: [Buffer.from([2, 1, 2])] }));
  show('user data in version 1', rawManifest({ flags: 8, tail: [Buffer.from([2, 1, 2])] }));
  show('user data of no bytes in version 1', rawManifest({ flags: 8, tail: [Buffer.from([0])] }));
  show('user data of no bytes in version 2', rawManifest({ version: 2, flags: 8, tail: [Buffer.from([0])] }));
  show('user data that is cut short', rawManifest({ version: 2, flags: 8, tail: [Buffer.from([9, 1])] }));
  // What is hashed is what was understood, written anew.
  show('an unknown flag, under the hash of its bytes', rawManifest({ flags: 16 }));
  show('an unknown flag, under the hash without it', rawManifest({ flags: 16 }), hashOf(rawManifest({})));
  show('an unknown flag in version 0, under the hash without it', rawManifest({ version: 0, flags: 3, signers: [1, 2] }),
    hashOf(rawManifest({ version: 0, flags: 1, signers: [1, 2] })));
  show('an integer in a longer form, under the hash of the short one',
    Buffer.concat([Buffer.from([1, 0, 0, 0xfd, 1, 0]), rawManifest({}).subarray(4)]), hashOf(rawManifest({})));
  for (let cut = 0; cut < rawManifest({}).length; cut += 8) {
    show(`cut short after ${cut} bytes`, rawManifest({}).subarray(0, cut), hashOf(rawManifest({})));
  }
  // A legacy feed: the key is the only signer's.
  show('legacy: version 0', made({ version: 0, signers: [signer(1)] }), publicKey(1));
  show('legacy: version 1', rawManifest({}), publicKey(1));
  show('legacy: version 2 with user data', rawManifest({ version: 2, flags: 8, tail: [Buffer.from([0])] }), publicKey(1));
  show('legacy: with a prologue', rawManifest({ flags: 2, tail: [seed(9), Buffer.from([5])] }), publicKey(1));
  show('legacy: a quorum of nobody', rawManifest({ quorum: 0 }), publicKey(1));
  show('legacy: a quorum above the signers', rawManifest({ quorum: 2 }), publicKey(1));
  show('legacy: user data in version 1', rawManifest({ flags: 8, tail: [Buffer.from([0])] }), publicKey(1));
  show('legacy: linked feeds in version 1', rawManifest({ flags: 4, tail: [Buffer.from([1]), seed(3)] }), publicKey(1));
  show('legacy: another signer', rawManifest({ signers: [2] }), publicKey(1));
  show('legacy: the key is one of two signers', rawManifest({ signers: [1, 2] }), publicKey(1));
}

// ---- signatures -------------------------------------------------------------------------------------------

// Trees of up to 40 blocks on forks 0 and 2, with the nodes that lead from one length to another.
async function trees() {
  const core = await open(null, { keyPair: keyPair(1) });
  await core.append(blocks(0, 40));
  const batches = new Map();
  return {
    async batch(length, fork = 0) {
      const id = `${length} ${fork}`;
      if (!batches.has(id)) {
        const batch = core.state.createTreeBatch();
        await MerkleTree.truncate(core.state, length, batch, fork);
        batch.prologue = null;
        batches.set(id, batch);
      }
      return batches.get(id);
    },
    async nodes(from, to) {
      const shorter = await open(null, { keyPair: keyPair(1) });
      await shorter.append(blocks(0, to));
      return (await shorter.proof({ upgrade: { start: from, length: to - from } })).upgrade.nodes;
    },
  };
}

async function recordSignatures() {
  const { batch, nodes } = await trees();
  const pairs = [1, 2, 3, 4, 5].map(keyPair);

  // What each signer signs, and its signature.
  const sets = {
    'version 1': { signers: [signer(1)] },
    'version 1, three signers': { signers: [1, 2, 3].map((n) => signer(n)) },
    'version 2': { version: 2, signers: [signer(1), signer(2)], userData: Buffer.from('x') },
    'version 0': { version: 0, signers: [signer(1)] },
    'version 0, signers in two namespaces': { version: 0, signers: [signer(1, seed(7)), signer(2, seed(8))] },
    legacy: { legacy: true, version: 0, signers: [signer(1)] },
  };
  for (const [name, { legacy, ...input }] of Object.entries(sets)) {
    const manifest = Verifier.createManifest(input);
    const key = legacy ? publicKey(1) : Verifier.manifestHash(manifest);
    const verifier = new Verifier(key, manifest);
    for (const [length, fork] of [[1, 0], [3, 0], [13, 2]]) {
      const tree = await batch(length, fork);
      for (let n = 0; n < verifier.signers.length; n++) {
        const one = verifier.signers[n];
        const message = legacy ? tree.signableCompat(false) : tree.signable(one._ctx());
        const signature = one.sign(tree, pairs[n]);
        if (!crypto.verify(message, signature, pairs[n].publicKey)) throw new Error('not what is signed');
        add('signable', `${name}: what signer ${n} signs for ${length} blocks on fork ${fork}`,
          { key: hex(key), manifest: hex(Verifier.encodeManifest(manifest)), signer: n, seed: n + 1, length, fork },
          { tree_hash: hex(tree.hash()), message: hex(message), signature: hex(signature) });
      }
    }
  }

  // How parts are put together. Each is by a signer over its own length.
  const assembled = async (name, input, length, fork, parts) => {
    const manifest = Verifier.createManifest(input);
    const key = Verifier.manifestHash(manifest);
    const verifier = new Verifier(key, manifest);
    const inputs = [];
    for (const [n, to] of parts) {
      const signature = verifier.signers[n].sign(await batch(to, fork), pairs[n]);
      inputs.push({ signer: n, signature, patch: to - length, nodes: to > length ? await nodes(length, to) : null });
    }
    const plain = verifier.version === 0 && verifier.signers.length === 1 && !verifier.allowPatch;
    const signature = plain ? inputs[0].signature : verifier.assemble(inputs);
    add('assembled', name, {
      manifest: hex(Verifier.encodeManifest(manifest)), length, fork,
      parts: parts.map(([n, to]) => ({ signer: n, seed: n + 1, length: to })),
    }, { signature: hex(signature), accepted: verifier.verify(await batch(length, fork), signature) });
    return { verifier, key, manifest, signature };
  };
  const good = [];
  for (const v of [0, 1, 2]) {
    const three = { version: v, quorum: 2, signers: [1, 2, 3].map((n) => signer(n)) };
    const five = { version: v, quorum: 3, allowPatch: true, signers: [1, 2, 3, 4, 5].map((n) => signer(n)) };
    const keep = async (...args) => good.push([args[0], args[2], args[3], await assembled(...args)]);
    await keep(`version ${v}: one signer`, { version: v, signers: [signer(1)] }, 3, 0, [[0, 3]]);
    await keep(`version ${v}: one signer that may patch`, { version: v, allowPatch: true, signers: [signer(1)] }, 3, 0, [[0, 3]]);
    await keep(`version ${v}: one signer that may patch and did`,
      { version: v, allowPatch: true, signers: [signer(1)] }, 3, 0, [[0, 5]]);
    await keep(`version ${v}: two of three`, three, 7, 0, [[0, 7], [2, 7]]);
    await keep(`version ${v}: two of three, the last first`, three, 7, 2, [[2, 7], [1, 7]]);
    await keep(`version ${v}: one of three`, { ...three, quorum: 1 }, 7, 0, [[1, 7]]);
    await keep(`version ${v}: three of five, one signed more`, five, 13, 0, [[0, 13], [1, 22], [4, 13]]);
    await keep(`version ${v}: three of five, all signed more`, five, 5, 2, [[4, 40], [1, 6], [2, 11]]);
    await keep(`version ${v}: three of five, two signed the same that is more`, five, 8, 0, [[3, 21], [1, 8], [2, 21]]);
    await keep(`version ${v}: three of five, patches that share nodes`, five, 1, 0, [[0, 7], [1, 8], [2, 40]]);
  }

  const check = (verifier, tree, signature) => {
    try {
      return verifier.verify(tree, signature);
    } catch {
      return false;
    }
  };
  // The lowest bit of every byte flipped, one at a time: which of these are still accepted, as digits.
  for (const [name, length, fork, { verifier, manifest, key, signature }] of good) {
    if (!/one signer$|two of three$|signed more$|share/.test(name)) continue;
    let accepted = '';
    for (let at = 0; at < signature.length; at++) {
      const changed = Buffer.from(signature);
      changed[at] ^= 1;
      accepted += check(verifier, await batch(length, fork), changed) ? '1' : '0';
    }
    add('flipped', name, {
      key: hex(key), manifest: hex(Verifier.encodeManifest(manifest)), length, fork, signature: hex(signature),
    }, { accepted });
  }

  // What is accepted and what is refused. `by(n, length, fork)` is the signature of signer n.
  const attempt = async (name, input, sign, { length = 3, fork = 0, key = null } = {}) => {
    const manifest = Verifier.createManifest(input);
    key = key || Verifier.manifestHash(manifest);
    const verifier = new Verifier(key, manifest);
    const by = async (n, to = length, on = fork) => verifier.signers[n].sign(await batch(to, on), pairs[n]);
    const part = async (n, to = length, patch = to - length) => ({
      signer: n, signature: await by(n, to), patch, nodes: to > length ? await nodes(length, to) : null,
    });
    const signature = await sign({ by, part, join: (...parts) => verifier.assemble(parts), verifier });
    add('signature', name, {
      key: hex(key), manifest: hex(Verifier.encodeManifest(manifest)), length, fork, signature: hex(signature),
    }, { accepted: check(verifier, await batch(length, fork), signature) }, tested(SIGNED, name));
  };
  const spoil = (part, change) => {
    part.nodes = part.nodes.map((node) => ({ ...node }));
    change(part.nodes);
    return part;
  };

  for (const v of [0, 1, 2]) {
    const of = (count, quorum, more = {}) =>
      ({ version: v, quorum, signers: [1, 2, 3, 4, 5].slice(0, count).map((n) => signer(n)), ...more });
    const say = (text) => `version ${v}: ${text}`;
    await attempt(say('two of three, all pairs in any order'), of(3, 2), async ({ part, join }) => join(await part(2), await part(0)));
    await attempt(say('two of three by one'), of(3, 2), async ({ part, join }) => join(await part(1)));
    await attempt(say('two of three by nobody'), of(3, 2), async ({ join }) => join());
    await attempt(say('two of three by one, twice'), of(3, 2), async ({ part, join }) => join(await part(1), await part(1)));
    await attempt(say('two of three, one twice and then another'), of(3, 2),
      async ({ part, join }) => join(await part(1), await part(1), await part(2)));
    await attempt(say('two of three, a wrong one first'), of(3, 2),
      async ({ part, join, by }) => join({ ...await part(0), signature: await by(1) }, await part(1), await part(2)));
    await attempt(say('two of three, a wrong one after the quorum'), of(3, 2),
      async ({ part, join, by }) => join(await part(1), await part(2), { ...await part(0), signature: await by(1) }));
    await attempt(say('two of three, signatures exchanged'), of(3, 2),
      async ({ part, join, by }) => join({ ...await part(0), signature: await by(1) }, { ...await part(1), signature: await by(0) }));
    await attempt(say('two of three, a signer that is not there'), of(3, 2),
      async ({ part, join }) => join(await part(0), { ...await part(1), signer: 3 }));
    await attempt(say('two of three, a signer of 2^32'), of(3, 2),
      async ({ part, join }) => join(await part(0), { ...await part(1), signer: 2 ** 32 }));
    await attempt(say('two of three, one signed more without leave to patch'), of(3, 2),
      async ({ part, join }) => join(await part(0), await part(1, 5)));
    await attempt(say('two of three, one names a patch without leave but signed this length'), of(3, 2),
      async ({ part, join, by }) => join(await part(0), { ...await part(1, 5), signature: await by(1) }));
    await attempt(say('two of three, one signed another fork'), of(3, 2),
      async ({ part, join, by }) => join(await part(0), { ...await part(1), signature: await by(1, 3, 2) }));
    await attempt(say('two of three, one signed less'), of(3, 2, { allowPatch: true }),
      async ({ part, join, by }) => join(await part(0), { ...await part(1), signature: await by(1, 2) }));
    await attempt(say('three of three'), of(3, 3), async ({ part, join }) => join(await part(0), await part(1), await part(2)));
    await attempt(say('a quorum of nobody'), of(3, 0), async ({ part, join }) => join(await part(0)));
    await attempt(say('the plain signature of one of three'), of(3, 1), async ({ by }) => by(0));
    await attempt(say('one of one, as a multi-signature'), of(1, 1), async ({ part, join }) => join(await part(0)));
    await attempt(say('one of one, as a plain signature'), of(1, 1), async ({ by }) => by(0));
    await attempt(say('one signer and a quorum of nobody, as a multi-signature'), of(1, 0),
      async ({ part, join }) => join(await part(0)));
    await attempt(say('one signer and a quorum of nobody, as a plain signature'), of(1, 0), async ({ by }) => by(0));
    await attempt(say('the same key as two signers'), { ...of(2, 2), signers: [signer(1), signer(1)] },
      async ({ part, join, verifier }) => join(await part(0),
        { ...await part(0), signer: 1, signature: verifier.signers[1].sign(await batch(3), pairs[0]) }));
    await attempt(say('laid out as the other version'), of(3, 2),
      async ({ part }) => multisig[v === 0 ? 'assemble' : 'assemblev0']([await part(0), await part(2)]));

    const patch = of(3, 2, { allowPatch: true });
    await attempt(say('patch: right'), patch, async ({ part, join }) => join(await part(0), await part(1, 5)));
    await attempt(say('patch: not named'), patch, async ({ part, join }) => join(await part(0), await part(1, 5, 0)));
    await attempt(say('patch: one block less than was signed'), patch, async ({ part, join }) => join(await part(0), await part(1, 5, 1)));
    await attempt(say('patch: one block more than was signed'), patch, async ({ part, join }) => join(await part(0), await part(1, 5, 3)));
    await attempt(say('patch: 2^40 blocks'), patch, async ({ part, join }) => join(await part(0), await part(1, 5, 2 ** 40)));
    await attempt(say('patch: a wrong hash'), patch, async ({ part, join }) =>
      join(await part(0), spoil(await part(1, 13), (list) => { list[1].hash = seed(6); })));
    await attempt(say('patch: a wrong size'), patch, async ({ part, join }) =>
      join(await part(0), spoil(await part(1, 13), (list) => { list[1].size++; })));
    await attempt(say('patch: a node is missing'), patch, async ({ part, join }) =>
      join(await part(0), spoil(await part(1, 13), (list) => { list.splice(1, 1); })));
    await attempt(say('patch: a node too many'), patch, async ({ part, join }) =>
      join(await part(0), spoil(await part(1, 13), (list) => { list.push({ index: 100, size: 1, hash: seed(6) }); })));
    await attempt(say('patch: nodes in another order'), patch, async ({ part, join }) =>
      join(await part(0), spoil(await part(1, 13), (list) => { list.reverse(); })));
    await attempt(say('patch: a node at another place'), patch, async ({ part, join }) =>
      join(await part(0), spoil(await part(1, 13), (list) => { list[1].index += 2; })));
    await attempt(say('patch: no nodes at all'), patch, async ({ part, join }) =>
      join(await part(0), spoil(await part(1, 13), (list) => { list.splice(1); })));
    await attempt(say('patch: on fork 2'), patch, async ({ part, join }) => join(await part(2, 40), await part(1, 5)), { fork: 2 });
    await attempt(say('patch: of a tree of one block'), patch,
      async ({ part, join }) => join(await part(2, 40), await part(1, 2)), { length: 1 });
    await attempt(say('patch: of a tree of 32 blocks'), patch,
      async ({ part, join }) => join(await part(2, 40), await part(1, 33)), { length: 32 });
  }

  const hash = async (length) => hex((await batch(length)).hash());
  for (const v of [1, 2]) {
    const say = (text) => `version ${v}, prologue: ${text}`;
    const fixed = async (length, more = {}) =>
      ({ version: v, prologue: { hash: Buffer.from(await hash(length), 'hex'), length }, ...more });
    const nothing = async () => Buffer.alloc(0);
    await attempt(say('the tree itself'), await fixed(3), nothing);
    await attempt(say('the tree itself, on another fork'), await fixed(3), nothing, { fork: 2 });
    await attempt(say('the tree itself, with bytes that are no signature'), await fixed(3), async () => Buffer.from('no signature'));
    await attempt(say('a part of it'), await fixed(5), nothing);
    await attempt(say('more than it, and no signers'), await fixed(2), nothing);
    await attempt(say('another tree'), { version: v, prologue: { hash: seed(9), length: 3 } }, nothing);
    const signed = { quorum: 1, signers: [signer(1)] };
    await attempt(say('the tree itself, though there is a signer'), await fixed(3, signed), nothing);
    await attempt(say('a part of it, signed'), await fixed(5, signed), async ({ part, join }) => join(await part(0)));
    await attempt(say('another tree, signed'), { version: v, prologue: { hash: seed(9), length: 3 }, ...signed },
      async ({ part, join }) => join(await part(0)));
    await attempt(say('more than it, signed'), await fixed(2, signed), async ({ part, join }) => join(await part(0)));
    await attempt(say('more than it, not signed'), await fixed(2, signed), nothing);
    await attempt(say('more than another tree, signed'), { version: v, prologue: { hash: seed(9), length: 2 }, ...signed },
      async ({ part, join }) => join(await part(0)));
    const quorum = { quorum: 2, allowPatch: true, signers: [signer(1), signer(2)] };
    await attempt(say('more than it, by a quorum with a patch'), await fixed(2, quorum),
      async ({ part, join }) => join(await part(0), await part(1, 5)));
    await attempt(say('a part of it, by a quorum that signed more'), await fixed(5, quorum),
      async ({ part, join }) => join(await part(0, 7), await part(1, 7)));
  }

  const legacy = { key: publicKey(1) };
  const asLegacy = (name, input, sign) => attempt(`legacy: ${name}`, input, sign, legacy);
  const plain = async ({ by }) => by(0);
  await asLegacy('signed', { version: 0, signers: [signer(1)] }, plain);
  await asLegacy('signed, shown as version 1', { version: 1, signers: [signer(1)] }, plain);
  await asLegacy('signed, shown as one that may patch', { version: 1, allowPatch: true, signers: [signer(1)] }, plain);
  await asLegacy('signed, shown with a quorum of nobody', { version: 1, quorum: 0, signers: [signer(1)] }, plain);
  await asLegacy('signed, shown with a prologue', { version: 1, signers: [signer(1)], prologue: { hash: seed(9), length: 9 } }, plain);
  await asLegacy('not signed, shown with a prologue that is the tree',
    { version: 1, signers: [signer(1)], prologue: { hash: Buffer.from(await hash(3), 'hex'), length: 3 } },
    async () => Buffer.alloc(0));
  await asLegacy('as a multi-signature', { version: 0, signers: [signer(1)] },
    async ({ by }) => multisig.assemble([{ signer: 0, signature: await by(0), patch: 0 }]));
  await asLegacy('another fork', { version: 0, signers: [signer(1)] }, async ({ by }) => by(0, 3, 2));
  await asLegacy('signed as for version 0', { version: 0, signers: [signer(1)] }, async () =>
    crypto.sign((await batch(3)).signable(crypto.namespace('hypercore', 5)[4]), keyPair(1).secretKey));
  await asLegacy('signed without the namespace of trees', { version: 0, signers: [signer(1)] }, async () =>
    crypto.sign((await batch(3)).signableCompat(true), keyPair(1).secretKey));
}

// ---- feeds with a prologue, written and read by whole cores -----------------------------------------------

function encodeProof(proof) {
  return hex(c.encode(messages.wire.data, { request: 0, block: null, hash: null, seek: null, manifest: null, ...proof }));
}

async function recordPrologues() {
  const { batch } = await trees();
  for (const [name, signers, appends] of [
    ['a static feed', [], [3]],
    ['a static feed, filled in parts', [], [1, 2]],
    ['a static feed, one block too many', [], [4]],
    ['a signed feed, its prologue alone', [signer(1)], [3]],
    ['a signed feed, a part of its prologue', [signer(1)], [2]],
    ['a signed feed, beyond its prologue at once', [signer(1)], [5]],
    ['a signed feed, beyond its prologue in two steps', [signer(1)], [3, 4]],
  ]) {
    const prologue = { hash: Buffer.from((await batch(3)).hash()), length: 3 };
    const manifest = Verifier.createManifest({ version: 1, signers, prologue });
    const key = Verifier.manifestHash(manifest);
    const writer = await open(key, { manifest, ...(signers.length && { keyPair: keyPair(1) }) });
    const expect = { length: 0 };
    try {
      let from = 0;
      for (const count of appends) {
        await writer.append(blocks(from, from + count), { writable: true });
        from += count;
      }
      expect.written = true;
      const proof = await writer.proof({ upgrade: { start: 0, length: writer.length } });
      proof.manifest = manifest;
      expect.proof = encodeProof(proof);
      const reader = await open(key, {});
      await reader.applyProof(proof);
      expect.length = reader.length;
    } catch {
      expect.written = !!expect.proof;
    }
    add('prologue', name, { manifest: hex(Verifier.encodeManifest(manifest)), appends }, expect);
  }
}

async function main() {
  recordMade();
  recordReceived();
  await recordSignatures();
  await recordPrologues();
  for (const core of opened) await core.close();
  fs.rmSync(folder, { recursive: true, force: true });
  area.write();
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
