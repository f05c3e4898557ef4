'use strict';
// One peer: its cores by name, its connections, and what it does when told to. README.md lists the commands.

const NoiseSecretStream = require('@hyperswarm/secret-stream');
const { openCores } = require('./cores');
const { complete, describe, digest, held, reached, stored, treeHash } = require('./inspect');
const { block, dial, listen } = require('./lib');
const { measuring } = require('./measure');
const { partying } = require('./members');
const { talking } = require('./talk');

const APPEND_AT_ONCE = 8 * 1024 * 1024;

class Peer {
  constructor({ hypercore, replicate, store }, emit) {
    const mode = replicate || (hypercore === '11' ? 'store' : 'core');
    this.emit = emit;
    this.cores = openCores({ release: hypercore, mode, place: store });
    this.keyPair = NoiseSecretStream.keyPair();
    this.named = new Map();
    this.wanted = new Map();
    this.streams = new Set();
    this.extensions = new Map();
    this.membership = null;
    this.server = null;
    this.orders = {
      ...ORDERS,
      ...talking,
      ...partying,
      ...measuring({
        find: (name) => this.find(name),
        create: async (name) => this.remember(name, await this.cores.create('default')),
        open: async (name, key) => this.remember(name, await this.cores.open(bytes(key))),
      }),
    };
  }

  async obey(command) {
    if (!Object.hasOwn(this.orders, command.do)) throw new Error(`no such command: ${command.do}`);
    return this.orders[command.do].call(this, command);
  }

  async leave() {
    if (this.server) this.server.close();
    for (const stream of this.streams) stream.destroy();
    await this.cores.close();
  }

  connected(stream) {
    this.streams.add(stream);
    stream.on('error', (error) => this.emit('streamError', { code: error.code, message: error.message }));
    stream.on('close', () => {
      this.streams.delete(stream);
      this.emit('streamClosed');
    });
    stream.opened.then((ok) => {
      if (ok) this.emit('connected', { remotePublicKey: stream.remotePublicKey.toString('hex') });
    });
    if (this.membership) this.membership.connect(stream);
    else this.cores.replicate(stream);
  }

  remember(name, core) {
    this.named.set(name, core);
    core.on('peer-add', () => this.emit('peerAdded', { name }));
    core.on('peer-remove', () => this.emit('peerRemoved', { name }));
    core.on('verification-error', (error) => this.emit('verificationError', { name, message: error.message }));
    core.on('conflict', () => this.emit('conflict', { name }));
    return core;
  }

  /** Hypercore 11 has it below its sessions. */
  replicator(name) {
    const core = this.find(name);
    return core.replicator || core.core.replicator;
  }

  find(name) {
    if (!this.named.has(name)) throw new Error(`no core has the name ${name}`);
    return this.named.get(name);
  }

  /**
   * Wants every block of a core from now on. Once more means those that were cleared meanwhile, too: Hypercore does not
   * come back to a block that it has had.
   */
  want(name) {
    if (this.wanted.has(name)) this.wanted.get(name).destroy();
    this.wanted.set(name, this.find(name).download({ start: 0, end: -1 }));
  }

  /** Appends, so much at a time that memory holds it. */
  async fill(core, seed, count, size) {
    const atOnce = Math.max(1, Math.floor(APPEND_AT_ONCE / (size || 1)));
    const end = core.length + count;
    while (core.length < end) {
      const start = core.length;
      const length = Math.min(atOnce, end - start);
      await this.cores.append(core, Array.from({ length }, (_, i) => block(seed, start + i, size)));
    }
  }
}

const ORDERS = {
  async create({ name, kind = 'default', encryption }) {
    return describe(this.remember(name, await this.cores.create(kind, bytes(encryption))));
  },

  async open({ name, key, kind, encryption }) {
    return describe(this.remember(name, await this.cores.open(bytes(key), kind, bytes(encryption))));
  },

  async close({ name }) {
    const core = this.find(name);
    this.named.delete(name);
    this.wanted.delete(name);
    await core.close();
  },

  async append({ name, seed, count, size, text }) {
    const core = this.find(name);
    if (text !== undefined) await this.cores.append(core, [Buffer.from(text)]);
    else await this.fill(core, seed, count, size);
    return describe(core);
  },

  async truncate({ name, length }) {
    const core = this.find(name);
    await core.truncate(length);
    return describe(core);
  },

  async clear({ name, from, to }) {
    const core = this.find(name);
    await core.clear(from, to);
    return describe(core);
  },

  async want({ name }) {
    this.want(name);
  },

  // Wants everything from now on, and answers when `length` blocks are stored without a gap.
  async follow({ name, length }) {
    const core = this.find(name);
    this.want(name);
    await complete(core, length);
    return describe(core);
  },

  async reach({ name, fork, length, runs }) {
    const core = this.find(name);
    await reached(core, { fork, length, runs });
    return describe(core);
  },

  async download({ name, from, to }) {
    const core = this.find(name);
    await core.download({ start: from, end: to }).done();
    return { ...describe(core), held: await held(core) };
  },

  async get({ name, index }) {
    const value = await this.find(name).get(index);
    return { hex: value.toString('hex') };
  },

  // All at once; or, with `inTurn`, each when the one before it has come.
  async gets({ name, indexes, inTurn }) {
    const core = this.find(name);
    if (!inTurn) await Promise.all(indexes.map((index) => core.get(index)));
    else for (const index of indexes) await core.get(index);
    return digest(core, indexes);
  },

  async seek({ name, bytes }) {
    const found = await this.find(name).seek(bytes);
    return { found };
  },

  // Messages of the extension `extension` come as events `said` from now on.
  async listenTo({ name, extension }) {
    const core = this.find(name);
    this.extensions.set(`${name} ${extension}`, core.registerExtension(extension, {
      encoding: 'binary',
      onmessage: (message, peer) => this.emit('said', {
        name, extension, hex: message.toString('hex'), by: peer.remotePublicKey.toString('hex'),
      }),
    }));
  },

  // To every peer that the core is replicated with; answers how many they were.
  async say({ name, extension, hex }) {
    this.extensions.get(`${name} ${extension}`).broadcast(Buffer.from(hex, 'hex'));
    return { peers: this.find(name).peers.length };
  },

  async allowPush({ name, allow = true }) {
    this.replicator(name).setAllowPush(allow);
  },

  async push({ name, index }) {
    await this.replicator(name).push(index);
  },

  // How many messages of each type went out and came in, for all peers of the core.
  async wire({ name }) {
    return { stats: this.replicator(name).stats };
  },

  async digest({ name, from = 0, to = this.find(name).length }) {
    return digest(this.find(name), Array.from({ length: to - from }, (_, i) => from + i));
  },

  async info({ name }) {
    return { ...describe(this.find(name)), held: await held(this.find(name)) };
  },

  async state({ name }) {
    const core = this.find(name);
    for (;;) {
      const { fork } = core;
      try {
        return { fork, length: core.length, treeHash: await treeHash(core), stored: await stored(core) };
      } catch (error) {
        // The core has gone to another fork meanwhile, and what was to be read is gone.
        if (core.fork === fork) throw error;
      }
    }
  },

  async listen() {
    this.server = await listen(this.keyPair, (stream) => this.connected(stream));
    return { port: this.server.address().port, publicKey: this.keyPair.publicKey.toString('hex') };
  },

  async dial({ port }) {
    const stream = dial(port, this.keyPair);
    this.connected(stream);
    if (!(await stream.opened)) throw new Error('the handshake failed');
    return { publicKey: stream.publicKey.toString('hex'), remotePublicKey: stream.remotePublicKey.toString('hex') };
  },

  // Ends every connection in good order; the peer stays for further commands.
  async hangup() {
    for (const stream of this.streams) stream.end();
  },

  // Ends every connection at once, whatever was on its way, and answers when they are gone.
  async cut() {
    for (const stream of this.streams) stream.destroy();
    await ORDERS.alone.call(this);
  },

  // Answers when every connection that there is has ended.
  async alone() {
    await Promise.all([...this.streams].map((stream) => new Promise((resolve) => stream.once('close', resolve))));
  },
};

function bytes(hex) {
  return hex ? Buffer.from(hex, 'hex') : undefined;
}

module.exports = { Peer };
