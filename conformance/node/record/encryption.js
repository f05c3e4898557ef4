'use strict';
// Records what hypercore 11, 10.31 and 10.19 store of encrypted blocks: the keys they derive, each block as it is stored,
// on several forks, and the feed that comes of it.

const fs = require('fs');
const os = require('os');
const path = require('path');
const sodium = require('sodium-universal');
const crypto = require('hypercore-crypto');
const ram = require('random-access-memory');
const { block } = require('../lib');
const { Area, accept } = require('./area');

const RELEASES = { 11: 'hypercore', 10: 'hypercore10', 1019: 'hypercore1019' };
const BLOCK_SEED = 5;
const WRITER = crypto.keyPair(Buffer.alloc(32, 1));
const KEY = Buffer.alloc(32, 0xe1);
const WRONG_KEY = Buffer.alloc(32, 0xe2);

const hex = (buffer) => Buffer.from(buffer).toString('hex');
const releases = Object.values(RELEASES).map((name) => require(`${name}/package.json`).version);
const area = new Area('encryption', {
  about: 'Encrypted blocks as they are stored, of feeds whose writer grew from a seed of 32 bytes of the value 1; block n of a '
    + `size is that of vectors/README.md with the seed ${BLOCK_SEED}`,
  source: `hypercore ${releases.join(', ')}`,
  kinds: {
    block_key: { about: 'The keys of a feed that come of an encryption key.', must: ['FEED-48'] },
    keys: { about: 'The keys of a feed that come of an encryption key.', must: ['FEED-48'] },
    block: { about: 'What is stored of a block, which opens to the block again, and the fork that its prefix tells.', must: ['FEED-50'] },
    wrong_key: { about: 'The prefix of a block under another key: it gives a number that is no fork.', must: ['FEED-53'] },
    encrypted_feed: { about: 'A feed of encrypted blocks, on several forks.', must: ['FEED-50', 'FEED-51'] },
  },
});
const add = (kind, name, fields, expect) => area.add(kind, name, fields, accept(expect));

// What is done to each feed: blocks of these sizes appended in one batch, truncations to a length and fork.
const STEPS = [
  { append: [0, 1, 7, 8, 9] },
  { append: [55, 56, 57, 63, 64, 65, 1000] },
  { append: [65_536, 65_537, 100_000] },
  { truncate: 13, fork: 1 },
  { append: [3, 65_537, 0] },
  { truncate: 4, fork: 300 },
  { append: [20, 0] },
];

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'record-encryption-'));
let made = 0;

/** The options under which `release` opens a feed of the kind `feed`, written by WRITER. */
function identity(release, feed) {
  const signer = { publicKey: WRITER.publicKey };
  if (release === '1019') return { keyPair: WRITER };
  if (feed === 'legacy') return { keyPair: WRITER, compat: true };
  if (release === '11') return { keyPair: WRITER, manifest: { version: feed === 'default' ? 1 : 0, signers: [signer] } };
  const namespace = require('hypercore10/lib/caps').DEFAULT_NAMESPACE;
  return { keyPair: WRITER, compat: false, manifest: { signer: { ...signer, signature: 'ed25519', namespace } } };
}

async function open(release, options) {
  const Hypercore = require(RELEASES[release]);
  const place = release === '11' ? path.join(folder, String(made++)) : ram;
  const core = new Hypercore(place, null, options);
  await core.ready();
  return core;
}

/** The bytes of block `index` as `core` stores them. */
async function stored(release, core, index) {
  if (release === '11') return core.get(index, { raw: true });
  const session = core.session();
  await session.ready();
  session.encryption = null;
  return session.get(index);
}

const short = (bytes) => (bytes.byteLength <= 128 ? { stored: hex(bytes) } : { stored: { length: bytes.byteLength, hash: hex(crypto.hash(bytes)) } });

/** The fork that the prefix of a stored block tells to who holds `keys`. */
function unblind(index, bytes, keys) {
  const nonce = Buffer.alloc(24);
  nonce.writeBigUInt64LE(BigInt(index));
  const prefix = Buffer.alloc(8);
  sodium.crypto_stream_xor(prefix, bytes.subarray(0, 8), nonce, keys.blindingKey);
  return prefix.readBigUInt64LE();
}

function derive(release, core, encryptionKey) {
  if (release === '11') {
    const Encryption = require('hypercore/lib/default-encryption');
    return new Encryption(encryptionKey, core.key, { compat: core.core.compat });
  }
  const Encryption = require(`${RELEASES[release]}/lib/block-encryption`);
  return new Encryption(encryptionKey, core.key, { compat: core.core.compat });
}

async function recordFeed(release, feed) {
  const { version } = require(`${RELEASES[release]}/package.json`);
  const who = `hypercore ${version}, ${feed} feed`;
  const core = await open(release, { ...identity(release, feed), encryptionKey: KEY });
  const [keys, wrong] = [KEY, WRONG_KEY].map((key) => derive(release, core, key));
  const place = { feed, feed_key: hex(core.key) };
  add('keys', `${who}: the keys that it derives`, { ...place, encryption_key: hex(KEY) }, {
    block_key: hex(keys.blockKey), blinding_key: hex(keys.blindingKey),
  });
  for (const { append, truncate, fork } of STEPS) {
    if (append === undefined) {
      await core.truncate(truncate, release === '11' ? { fork } : fork);
      continue;
    }
    const start = core.length;
    await core.append(append.map((size, i) => block(BLOCK_SEED, start + i, size)));
    for (let index = start; index < core.length; index++) {
      const size = append[index - start];
      const bytes = await stored(release, core, index);
      const plain = await core.get(index);
      if (!plain.equals(block(BLOCK_SEED, index, size))) throw new Error('a block did not come back');
      add('block', `${who}: block ${index} of ${size} bytes on fork ${core.fork}`, {
        ...place, encryption_key: hex(KEY), index, fork: core.fork, size,
      }, { ...short(bytes), prefix_fork: String(unblind(index, bytes, keys)) });
      add('wrong_key', `${who}: block ${index} of ${size} bytes on fork ${core.fork}, with a wrong key`, {
        ...place, encryption_key: hex(WRONG_KEY), index, fork: core.fork, prefix: hex(bytes.subarray(0, 8)),
      }, { prefix_fork: String(unblind(index, bytes, wrong)) });
    }
  }
  const treeHash = release === '11' ? await core.treeHash() : core.core.tree.hash();
  add('encrypted_feed', `${who}: what comes of all these blocks`, { ...place, encryption_key: hex(KEY), steps: STEPS }, {
    length: core.length, fork: core.fork, byte_length: core.byteLength, tree_hash: hex(treeHash),
    padded_byte_length: core.byteLength + 8 * core.length,
  });
  await core.close();
}

function recordBlockKeys() {
  const Hypercore = require('hypercore');
  for (const n of [2, 3]) {
    const feed = Buffer.alloc(32, n);
    add('block_key', `a key for the feed ${n} alone`, { feed: 'default', feed_key: hex(feed), encryption_key: hex(KEY) }, {
      block_key: hex(Hypercore.blockEncryptionKey(feed, KEY)),
    });
  }
}

// Places that no core here has: the index and the fork are numbers of 64 bits.
function recordFarPlaces() {
  const Encryption = require('hypercore/lib/default-encryption');
  const feed = Buffer.alloc(32, 2);
  const { blockKey, blindingKey } = new Encryption(KEY, feed);
  for (const [index, fork] of [[2 ** 32 + 5, 0], [255, 2 ** 40 + 1], [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER]]) {
    const bytes = Buffer.concat([Buffer.alloc(8), block(BLOCK_SEED, index, 70)]);
    Encryption.encrypt(index, bytes, fork, blockKey, blindingKey);
    add('block', `block ${index} on fork ${fork}`, {
      feed: 'default', feed_key: hex(feed), encryption_key: hex(KEY), index, fork, size: 70,
    }, { ...short(bytes), prefix_fork: String(fork) });
  }
}

async function main() {
  recordBlockKeys();
  recordFarPlaces();
  await recordFeed('11', 'default');
  await recordFeed('11', 'version_0');
  await recordFeed('11', 'legacy');
  await recordFeed('10', 'version_0');
  await recordFeed('10', 'legacy');
  await recordFeed('1019', 'legacy');
  fs.rmSync(folder, { recursive: true, force: true });
  area.write();
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
