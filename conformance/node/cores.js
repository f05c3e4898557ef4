'use strict';
// Opens cores of the three Hypercore releases under one roof: `create`, `open`, `replicate`, `close`.

const fs = require('fs');
const os = require('os');
const path = require('path');
const hypercoreCrypto = require('hypercore-crypto');
const Protomux = require('protomux');
const ram = require('random-access-memory');
const { threeSigners, appendSigned } = require('./quorum');

const PACKAGES = { 11: 'hypercore', 10: 'hypercore10', 1019: 'hypercore1019' };

/** Folders that go when their cores are closed, or the process ends. */
const temporary = new Set();
process.once('exit', () => temporary.forEach(remove));

/** A Corestore 7 on Hypercore 11: one database, and every core in it is offered on every connection. */
class StoreCores {
  constructor(directory) {
    const Corestore = require('corestore');
    this.directory = directory;
    this.store = new Corestore(directory);
    this.signers = new Map();
  }

  async create(kind, encryptionKey) {
    const { keyPair, signers, ...core } = identity('11', kind, require('hypercore'));
    const session = await opened(this.store.get({ ...core, keyPair, encryptionKey }));
    if (signers) this.signers.set(session, signers);
    return session;
  }

  append(session, blocks) {
    return append('11', session, this.signers.get(session), blocks);
  }

  async open(key, kind, encryptionKey) {
    return opened(this.store.get({ key, ...known('11', key, kind), encryptionKey }));
  }

  replicate(stream) {
    this.store.replicate(stream);
  }

  async close() {
    await this.store.close();
    remove(this.directory);
  }
}

/** Cores without a store, each in a folder of its own and attached to each connection by `core.replicate`. */
class SingleCores {
  constructor(release, directory) {
    this.release = release;
    this.Hypercore = require(PACKAGES[release]);
    this.directory = directory;
    this.cores = [];
    this.places = new Map();
    this.signers = new Map();
    this.streams = new Set();
  }

  async create(kind, encryptionKey) {
    const { key, manifest, keyPair, signers } = identity(this.release, kind, this.Hypercore);
    const options = { keyPair, manifest, compat: kind === 'compat', encryptionKey };
    const core = await this.attach(this.make(key, options));
    if (signers) this.signers.set(core, signers);
    return core;
  }

  append(core, blocks) {
    return append(this.release, core, this.signers.get(core), blocks);
  }

  async open(key, kind, encryptionKey) {
    return this.attach(this.make(key, { ...known(this.release, key, kind), encryptionKey }));
  }

  replicate(stream) {
    this.streams.add(stream);
    stream.once('close', () => this.streams.delete(stream));
    // As long as there is no core, nobody else reads the stream, and one that isn't read never closes.
    Protomux.from(stream);
    for (const core of this.cores) core.replicate(stream);
  }

  async close() {
    await Promise.all(this.cores.map((core) => core.close()));
    remove(this.directory);
  }

  /** What was closed is found again by its key, in the place that it had. */
  make(key, options) {
    const name = key.toString('hex');
    if (!this.places.has(name)) this.places.set(name, this.storage());
    const storage = this.places.get(name);
    return this.release === '1019' && options.keyPair
      ? new this.Hypercore(storage, options)
      : new this.Hypercore(storage, key, options);
  }

  storage() {
    if (this.directory !== null) return path.join(this.directory, String(this.places.size));
    return ram.reusable();
  }

  async attach(core) {
    this.cores.push(core);
    core.once('close', () => this.cores.splice(this.cores.indexOf(core), 1));
    await core.ready();
    for (const stream of this.streams) core.replicate(stream);
    return core;
  }
}

/**
 * Key, manifest and what signs it, of a fresh core. `default`: version 1, one signer, what Hypercore 11 makes by itself.
 * `compat`: the key is the public key; Corestore 7 ignores `compat: true`, so it is told by a version 0 manifest.
 * `manifest0`: a version 0 manifest that is hashed, what Hypercore 10 makes with `compat: false`. `multisig` and
 * `multisig0`: two of three signers, by a manifest of version 1 and 0.
 */
function identity(release, kind, Hypercore) {
  const keyPair = hypercoreCrypto.keyPair();
  const { publicKey } = keyPair;
  if (kind === 'compat') {
    return { key: publicKey, keyPair, manifest: release === '11' ? { version: 0, signers: [{ publicKey }] } : undefined };
  }
  if (release === '1019') throw new Error('hypercore 10.19.0 has compat cores only');
  if (kind === 'multisig0') return threeSigners(release, 0, Hypercore);
  if (release === '11') {
    if (kind === 'multisig') return threeSigners(release, 1, Hypercore);
    const manifest = { version: kind === 'default' ? 1 : 0, signers: [{ publicKey }] };
    if (kind === 'default' || kind === 'manifest0') return { key: Hypercore.key(manifest), manifest, keyPair };
  } else if (kind === 'manifest0') {
    const namespace = require('hypercore10/lib/caps').DEFAULT_NAMESPACE;
    const manifest = { signer: { signature: 'ed25519', publicKey, namespace } };
    return { key: Hypercore.key(manifest), manifest, keyPair };
  }
  throw new Error(`no cores of the kind ${kind} here`);
}

async function append(release, core, signers, blocks) {
  if (signers) await appendSigned(release, core, signers, blocks);
  else await core.append(blocks);
}

/**
 * What a reader of a core says of it besides its key. Hypercore 11 decrypts a compat core only if it is told that it is one:
 * it would derive the key anew when the first proof shows it, and fails to.
 */
function known(release, key, kind) {
  return release === '11' && kind === 'compat' ? { manifest: { version: 0, signers: [{ publicKey: key }] } } : {};
}

async function opened(core) {
  await core.ready();
  return core;
}

/**
 * `release` is 11, 10 or 1019, `mode` is store or core, `place` is memory or a folder. Hypercore 11 has no storage
 * in memory, so there `memory` is a folder that goes when the process ends.
 */
function openCores({ release, mode, place }) {
  if (!PACKAGES[release]) throw new Error(`no such release: ${release}`);
  let directory = place === 'memory' ? null : place;
  if (directory === null && release === '11') {
    directory = fs.mkdtempSync(path.join(os.tmpdir(), 'party-node-'));
    temporary.add(directory);
  }
  if (mode === 'core') return new SingleCores(release, directory);
  if (mode !== 'store' || release !== '11') throw new Error('a store needs --hypercore 11');
  return new StoreCores(directory);
}

function remove(directory) {
  if (temporary.delete(directory)) fs.rmSync(directory, { recursive: true, force: true });
}

module.exports = { openCores };
