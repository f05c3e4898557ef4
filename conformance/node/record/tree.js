'use strict';
// Records what hypercore 11 makes of byte offsets and forks: proofs with seeks in every combination and whether a
// reader takes them, changed ones too; where a seek ends in a feed that is stored in part; trees after truncating and
// appending; and how a reader follows a writer to a higher fork, proof by proof.

const fs = require('fs');
const os = require('os');
const path = require('path');
const c = require('compact-encoding');
const crypto = require('hypercore-crypto');
const Hypercore = require('hypercore');
const { MerkleTree } = require('hypercore/lib/merkle-tree');
const messages = require('hypercore/lib/messages');
const { Area, accept, refuse, versions } = require('./area');

const hex = (buffer) => Buffer.from(buffer).toString('hex');
const keyPair = crypto.keyPair(Buffer.alloc(32, 1));

// Block n of fork f has (7n + 3f) % 23 bytes of the value n + 100f.
const block = (n, fork) => Buffer.alloc((n * 7 + fork * 3) % 23, (n + 100 * fork) % 256);
const blocks = (from, to, fork = 0) => Array.from({ length: to - from }, (_, i) => block(from + i, fork));

const area = new Area('proofs', {
  about: 'Proofs with seeks, byte offsets, truncations and reorgs of feeds whose block n has (7n + 3f) % 23 bytes of the value '
    + 'n + 100f, where f is 0, and 1 for what was appended after a truncation, and whose writer grew from a seed of 32 bytes '
    + 'of the value 1; a proof is the data message of request 0',
  source: versions('hypercore'),
  kinds: {
    prove_seek: { about: 'What a writer answers to a request, with a seek, or that it can not be answered.', must: { accept: ['FEED-72', 'FEED-73'], refuse: ['FEED-74', 'FEED-75', 'REPL-29'] } },
    verify_seek: { about: 'What a reader that knows this much takes of a proof.', must: { accept: ['FEED-58', 'FEED-63', 'FEED-64', 'REPL-35'], refuse: ['FEED-58', 'FEED-63', 'REPL-38'] } },
    changed: { about: 'A proof in which one node was changed: nothing of it is stored that is not the writer\'s.', must: ['FEED-56', 'FEED-57', 'FEED-62', 'FEED-63'] },
    seek: { about: 'Where a search for a byte offset ends in a feed of which some blocks are stored.', must: ['FEED-71'] },
    offsets: { about: 'The byte offset at which each block begins.', must: ['FEED-71'] },
    truncated: { about: 'The tree and the signature after a truncation and more blocks.', must: ['FEED-76'] },
    reorg: { about: 'How a reader follows a writer to a higher fork, proof by proof, and what it keeps.', must: ['FEED-77', 'FEED-79'] },
    fork: { about: 'Whether a proof may begin a reorg.', must: ['FEED-77'] },
  },
});
let proofs = 0;
const add = (...args) => area.add(...args);
const brief = (value) => JSON.stringify(value).replace(/["{}]/g, '').replace(/:/g, ' ').replace(/,/g, ', ');

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'record-tree-'));
const opened = new Map();
let count = 0;

async function open(key, options = {}) {
  const place = path.join(folder, String(count++));
  const core = new Hypercore(place, key, options);
  opened.set(core, place);
  await core.ready();
  return core;
}

// A database takes up far more than a few blocks, so none is kept for longer than it is used.
async function drop(core) {
  await core.close();
  fs.rmSync(opened.get(core), { recursive: true, force: true });
  opened.delete(core);
}

// Those that are not appended to are shared.
const writers = new Map();
const written = (length) => {
  if (!writers.has(length)) writers.set(length, write(length));
  return writers.get(length);
};

async function write(length) {
  const core = await open(null, { keyPair, manifest: { version: 1, signers: [{ publicKey: keyPair.publicKey }] } });
  await core.append(blocks(0, length));
  return core;
}

// As core.proof, which ends its reading too early for a seek.
async function prove(core, request) {
  const parts = { block: null, hash: null, seek: null, upgrade: null, ...structuredClone(request) };
  const rx = core.state.storage.read();
  const proving = MerkleTree.proof(core.state, rx, parts);
  const plan = await proving;
  const value = parts.block ? rx.getBlock(parts.block.index) : null;
  rx.tryFlush();
  const proof = await plan.settle();
  if (value) proof.block.value = await value;
  if (request.manifest) proof.manifest = core.manifest;
  return proof;
}

const encode = (proof) => hex(c.encode(messages.wire.data, { request: 0, ...proof }));
const NOTHING = { fork: 0, block: null, hash: null, seek: null, upgrade: null, manifest: null };
const decode = (bytes) => {
  const { request, ...proof } = c.decode(messages.wire.data, Buffer.from(bytes, 'hex'));
  return proof;
};

// A reader that has the tree of the first `known` blocks, and those of the blocks that are listed.
async function readerOf(core, { known, stored }) {
  const reader = await open(core.key);
  if (known > 0) {
    const first = await written(known);
    const wants = [{ upgrade: { start: 0, length: known }, manifest: true }];
    for (const index of stored) wants.push({ block: { index } });
    for (const want of wants) {
      if (want.block) want.block.nodes = await MerkleTree.missingNodes(reader.state, 2 * want.block.index, known);
      if (!await reader.applyProof(await prove(first, want))) throw new Error('not taken');
    }
  }
  return reader;
}

// What becomes of a proof that a reader is given.
async function taken(core, start, proof) {
  const reader = await readerOf(core, start);
  const accepted = await reader.applyProof(proof).then((done) => done !== false, () => false);
  const outcome = { accepted, length: reader.length, block: proof.block ? await reader.has(proof.block.index) : null };
  await drop(reader);
  return outcome;
}

// What hypercore takes now and then, passing over what is wrong, and the specification doesn't: the sentence that says so.
function stricter(what, list) {
  if (what === 'a node twice' && list === 'upgrade') return 'FEED-62';
  if (what === 'another size' && list === 'hash') return 'FEED-56';
  return null;
}

const untouched = ({ known, stored }, { block }) =>
  ({ accepted: false, length: known, block: block ? stored.includes(block.index) : null });

// As an expectation: what is there afterwards.
function outcome({ accepted, length, block }) {
  const has = block === null ? {} : { has: block };
  return accepted ? accept({ length, ...has }) : refuse('proof', { length, ...has });
}

async function recordProofs() {
  for (const [length, known, stored] of [[8, 8, []], [13, 13, [2]], [13, 6, [1]], [13, 0, []], [22, 22, [9, 16]], [22, 16, []],
    [1, 0, []], [2, 1, []]]) {
    const core = await written(length);
    const offsets = [0, 1, core.byteLength, core.byteLength + 1, core.byteLength >> 1];
    for (let n = 1; n < length; n += 3) offsets.push(blocks(0, n).reduce((sum, one) => sum + one.length, 0));
    offsets.push(offsets[offsets.length - 1] + 2, (core.byteLength * 7) >> 3);
    const seen = new Set();
    const reader = await readerOf(core, { known, stored });
    for (const [i, bytes] of offsets.entries()) {
      const seek = { bytes, padding: i % 4 === 3 ? 1 : 0 };
      const requests = [{ seek }];
      const index = (i * 5) % length;
      const upgrade = known < length ? { start: known, length: length - known } : null;
      // Beyond its first root, hypercore 11.35 takes every offset for not-a-number and leaves out the seek.
      if (index < known && index < 2 ** Math.floor(Math.log2(length))) {
        const missing = await MerkleTree.missingNodes(reader.state, 2 * index, known);
        for (const nodes of new Set([missing, MerkleTree.maxMissingNodes(2 * index, known), 1])) {
          requests.push({ block: { index, nodes }, seek }, { hash: { index: 2 * index, nodes }, seek });
          if (upgrade) requests.push({ block: { index, nodes }, seek, upgrade }, { hash: { index: 2 * index, nodes }, seek, upgrade });
        }
        if (index % 2 === 0 && index + 1 < known) requests.push({ hash: { index: 2 * index + 1, nodes: 1 }, seek });
      }
      if (upgrade) {
        requests.push({ seek, upgrade }, { block: { index: length - 1, nodes: 0 }, seek, upgrade });
        if (upgrade.length > 2) requests.push({ seek, upgrade: { start: known, length: upgrade.length - 2 } });
      }
      for (const request of requests) {
        if (known === 0) request.manifest = true;
        const name = `${length} blocks to a reader of ${known} with ${stored.length}: ${brief(request)}`;
        if (seen.has(name)) continue;
        seen.add(name);
        const fields = { length, reader: { known, stored }, request };
        const proof = await prove(core, request).catch(() => null);
        if (proof === null) {
          add('prove_seek', name, { length, request }, refuse('request'));
          continue;
        }
        // hypercore makes a proof of nothing here. The specification wants a refusal.
        if (encode(proof) === encode(NOTHING)) {
          add('prove_seek', name, { length, request }, refuse('request'), { must: ['FEED-75'], source: 'party' });
        }
        else add('prove_seek', name, { length, request }, accept({ proof: encode(proof) }));
        add('verify_seek', name, { length, reader: { known, stored }, proof: encode(proof) },
          outcome(await taken(core, { known, stored }, decode(encode(proof)))));
        if (proofs++ % 9 === 0) await recordChanged(core, name, fields, encode(proof));
      }
    }
    await drop(reader);
  }
}

// The proof with one thing about one node changed.
async function recordChanged(core, name, fields, proof) {
  const lists = ['block', 'hash', 'seek', 'upgrade'];
  const changes = {
    'another hash': (nodes, i) => { nodes[i].hash[0] ^= 1; },
    'another size': (nodes, i) => { nodes[i].size += 1; },
    'another index': (nodes, i) => { nodes[i].index += 4; },
    'a node left out': (nodes, i) => { nodes.splice(i, 1); },
    'a node twice': (nodes, i) => { nodes.splice(i, 0, nodes[i]); },
  };
  for (const list of lists) {
    const count = decode(proof)[list] ? decode(proof)[list].nodes.length : 0;
    for (const i of new Set([0, count - 1])) {
      if (count === 0) continue;
      for (const [what, change] of Object.entries(changes)) {
        const changed = decode(proof);
        change(changed[list].nodes, i);
        const tested = stricter(what, list);
        const came = await taken(core, fields.reader, changed);
        const more = came.accepted && tested ? { must: [tested, 'FEED-63'], source: 'party' } : {};
        add('changed', `${name}; ${what}, ${list} ${i}`, { length: fields.length, reader: fields.reader, proof: encode(changed) },
          outcome(more.must ? untouched(fields.reader, changed) : came), more);
      }
    }
  }
}

async function recordSeeks() {
  for (const [length, stored] of [[0, []], [1, [0]], [7, [0, 1, 2, 3, 4, 5, 6]], [13, []], [13, [4]], [22, [0, 7, 20]], [40, [11, 35]]]) {
    const core = await readerOf(await written(length), { known: length, stored });
    for (const padding of [0, 1]) {
      const end = core.byteLength - padding * length;
      for (let bytes = 0; bytes <= end + 2; bytes += 1 + (bytes * 3) % 7) {
        const seeker = MerkleTree.seek(core.state, bytes, padding);
        const found = await seeker.update();
        // Beyond the end, hypercore waits for the feed to grow.
        const within = seeker.start >= length ? { beyond: true } : { start: seeker.start, end: seeker.end };
        const expect = found ? { block: found[0], offset: found[1] } : within;
        add('seek', `${length} blocks, stored ${brief(stored)}: byte ${bytes} with padding ${padding}`,
          { length, stored, bytes, padding }, accept(expect));
      }
    }
    await drop(core);
  }
}

async function recordOffsets() {
  for (const length of [1, 2, 7, 8, 23]) {
    const core = await written(length);
    const offsets = [];
    for (let n = 0; n <= length; n++) {
      const offset = await MerkleTree.byteOffset(core.state, 2 * n);
      const sum = blocks(0, n).reduce((bytes, one) => bytes + one.length, 0);
      // hypercore 11.35 gives no number beyond the first root.
      if (offset !== sum && !Number.isNaN(offset)) throw new Error(`the offset of block ${n} of ${length}`);
      offsets.push(sum);
    }
    add('offsets', `the byte offsets of ${length} blocks`, { length }, accept({ offsets }));
  }
}

const FORKS = [[1, 0, 1], [2, 1, 3], [7, 4, 4], [8, 7, 1], [8, 4, 0], [8, 8, 5], [13, 5, 9], [13, 12, 1], [22, 16, 2], [22, 17, 20],
  [33, 0, 33], [40, 39, 1]];

const treeOf = (core) => ({
  length: core.length, byte_length: core.byteLength, fork: core.fork, tree_hash: hex(MerkleTree.hash(core.state)),
});

async function forked([length, kept, added]) {
  const core = await write(length);
  await core.truncate(kept);
  await core.append(blocks(kept, kept + added, 1));
  return core;
}

async function recordTruncated() {
  for (const [length, kept, added] of FORKS) {
    const core = await forked([length, kept, added]);
    add('truncated', `${length} blocks cut to ${kept}, then ${added} appended`, { length, kept, added }, accept({
      ...treeOf(core), signature: hex(core.state.signature),
    }));
    await drop(core);
  }
  const core = await write(9);
  await core.truncate(6, { fork: 7 });
  await core.append(blocks(6, 8, 1));
  add('truncated', '9 blocks cut to 6 on fork 7, then 2 appended', { length: 9, kept: 6, added: 2, fork: 7 }, accept({
    ...treeOf(core), signature: hex(core.state.signature),
  }));
}

async function recordReorgs() {
  for (const [length, kept, added] of FORKS) {
    const core = await forked([length, kept, added]);
    const all = Array.from({ length }, (_, i) => i);
    for (const stored of length > 2 ? [[], [0, length - 1], all] : [[], all]) {
      const reader = await readerOf(core, { known: length, stored });
      const first = await prove(core, { upgrade: { start: 0, length: core.length } });
      const name = `${length} blocks, ${stored.length} of them stored, cut to ${kept}, then ${added} appended`;
      const batch = await reader.core.verifyReorg(decode(encode(first)));
      const steps = [];
      while (!batch.finished) {
        const { start, end, nodes } = batch.want;
        const index = start + ((end - start) >> 1);
        const proof = await prove(core, { hash: { index: 2 * index, nodes } });
        steps.push({ start, end, block: index, nodes, proof: encode(proof) });
        await batch.update(decode(encode(proof)));
      }
      const { ancestors } = batch;
      await reader.core.reorg(batch);
      const has = [];
      for (let n = 0; n < reader.length; n++) if (await reader.has(n)) has.push(n);
      const fields = { length, stored, kept, added, proof: encode(first), proofs: steps.map(({ proof }) => proof) };
      const wants = steps.map(({ proof, ...want }) => want);
      add('reorg', name, fields, accept({ ...treeOf(reader), ancestors, has, wants }));
      await drop(reader);
    }
    await drop(core);
  }
  // What may not replace a tree.
  const core = await forked([13, 5, 9]);
  const first = await prove(core, { upgrade: { start: 0, length: core.length } });
  const attempt = async (name, change) => {
    const proof = decode(encode(first));
    change(proof);
    const reader = await readerOf(core, { known: 13, stored: [] });
    const accepted = await reader.core.verifyReorg(decode(encode(proof))).then(() => true, () => false);
    await drop(reader);
    add('fork', name, { length: 13, proof: encode(proof) }, accepted ? accept() : refuse('proof'));
  };
  await attempt('a fork as it was signed', () => {});
  await attempt('a fork above the one that was signed', (proof) => { proof.fork = 2; });
  await attempt('a fork with another signature', (proof) => { proof.upgrade.signature[10] ^= 1; });
  await attempt('a fork with another root', (proof) => { proof.upgrade.nodes[0].hash[0] ^= 1; });
  await attempt('a fork with a root of another size', (proof) => { proof.upgrade.nodes[1].size += 1; });
  await attempt('a fork with a root left out', (proof) => { proof.upgrade.nodes.splice(1, 1); });
  await attempt('a fork of a shorter length than was signed', (proof) => { proof.upgrade.length -= 1; });
  const old = await written(13);
  const other = await prove(old, { upgrade: { start: 0, length: 13 } });
  await attempt('the old tree under a higher fork', (proof) => { proof.upgrade = decode(encode(other)).upgrade; });
}

async function main() {
  await recordProofs();
  await recordSeeks();
  await recordOffsets();
  await recordTruncated();
  await recordReorgs();
  area.write();
}

// A closed database may leave a promise open for ever, so nothing waits for the last ones.
main().then(() => 0, (error) => {
  process.stderr.write(`${error.stack}\n`);
  return 1;
}).then((code) => {
  fs.rmSync(folder, { recursive: true, force: true });
  process.exit(code);
});
