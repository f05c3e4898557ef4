'use strict';
// Opens cores of the three Hypercore releases under one roof: `create`, `open`, `replicate`, `close`.

const fs = require('fs');
const os = require('os');
const path = require('path');
const hypercoreCrypto = require('hypercore-crypto');
const ram = require('random-access-memory');

const PACKAGES = { 11: 'hypercore', 10: 'hypercore10', 1019: 'hypercore1019' };

/** A Corestore 7 on Hypercore 11: one database, and every core in it is offered on every connection. */
class StoreCores {
  constructor(directory) {
    const Corestore = require('corestore');
    this.store = new Corestore(directory);
  }

  async create(kind, encryptionKey) {
    const keyPair = hypercoreCrypto.keyPair();
    return opened(this.store.get({ ...identity(kind, keyPair, require('hypercore')), keyPair, encryptionKey }));
  }

  async open(key, kind, encryptionKey) {
    return opened(this.store.get({ key, ...known('11', key, kind), encryptionKey }));
  }

  replicate(stream) {
    this.store.replicate(stream);
  }

  async close() {
    await this.store.close();
  }
}

/** Cores without a store, each in a folder of its own and attached to each connection by `core.replicate`. */
class SingleCores {
  constructor(release, directory) {
    this.release = release;
    this.Hypercore = require(PACKAGES[release]);
    this.directory = directory;
    this.cores = [];
    this.streams = new Set();
  }

  async create(kind, encryptionKey) {
    const keyPair = hypercoreCrypto.keyPair();
    if (this.release === '1019') {
      if (kind !== 'compat') throw new Error('hypercore 10.19.0 has compat cores only');
      return this.attach(new this.Hypercore(this.storage(), { keyPair, encryptionKey }));
    }
    const { key, manifest } = identity(kind, keyPair, this.Hypercore);
    const options = { keyPair, manifest, compat: kind === 'compat', encryptionKey };
    return this.attach(new this.Hypercore(this.storage(), key, options));
  }

  async open(key, kind, encryptionKey) {
    return this.attach(new this.Hypercore(this.storage(), key, { ...known(this.release, key, kind), encryptionKey }));
  }

  replicate(stream) {
    this.streams.add(stream);
    stream.once('close', () => this.streams.delete(stream));
    for (const core of this.cores) core.replicate(stream);
  }

  async close() {
    await Promise.all(this.cores.map((core) => core.close()));
  }

  storage() {
    if (this.directory === null) return ram;
    return path.join(this.directory, String(this.cores.length));
  }

  async attach(core) {
    this.cores.push(core);
    await core.ready();
    for (const stream of this.streams) core.replicate(stream);
    return core;
  }
}

/**
 * Key and manifest of a fresh core. `default`: version 1, one signer, what Hypercore 11 makes by itself.
 * `compat`: the key is the public key; Corestore 7 ignores `compat: true`, so it is told by a version 0 manifest.
 * `manifest0`: a version 0 manifest that is hashed, what Hypercore 10 makes with `compat: false`.
 */
function identity(kind, keyPair, Hypercore) {
  const { publicKey } = keyPair;
  if (Hypercore === require('hypercore')) {
    const manifest = { version: kind === 'default' ? 1 : 0, signers: [{ publicKey }] };
    if (kind === 'compat') return { key: publicKey, manifest };
    if (kind === 'default' || kind === 'manifest0') return { key: Hypercore.key(manifest), manifest };
  } else {
    if (kind === 'compat') return { key: publicKey };
    const namespace = require('hypercore10/lib/caps').DEFAULT_NAMESPACE;
    const manifest = { signer: { signature: 'ed25519', publicKey, namespace } };
    if (kind === 'manifest0') return { key: Hypercore.key(manifest), manifest };
  }
  throw new Error(`no cores of the kind ${kind} here`);
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
    process.once('exit', () => fs.rmSync(directory, { recursive: true, force: true }));
  }
  if (mode === 'core') return new SingleCores(release, directory);
  if (mode !== 'store' || release !== '11') throw new Error('a store needs --hypercore 11');
  return new StoreCores(directory);
}

module.exports = { openCores };
