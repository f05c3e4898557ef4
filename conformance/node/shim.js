'use strict';
// The shim of the party in JavaScript (party.js): it speaks the line protocol of conformance/SHIM.md.
//
//     cargo run -p conformance --bin conformance -- --shim 'node conformance/node/shim.js' --expected conformance/node/shim.expected

const fs = require('fs');
const net = require('net');
const os = require('os');
const path = require('path');
const readline = require('readline');
const Corestore = require('corestore');
const NoiseSecretStream = require('@hyperswarm/secret-stream');
const { Party, Rules, CODES } = require('./party');

const FEATURES = 'party write read labels clear truncate withdraw live exclude decoys finite';

function say(line) {
  process.stdout.write(line + '\n');
}

function tell(event) {
  say('event ' + event);
}

class Wrong extends Error {
  constructor(kind, text) {
    super(text);
    this.kind = kind;
  }
}

/** Tells of each question, and answers as it was told to. */
class Told extends Rules {
  constructor(name) {
    super();
    this.name = name;
    this.manners = new Map();
    this.brings = [];
    /** Cores of which the shim opens the channels, and those of which it answers opens. */
    this.released = new Set();
    this.permitted = new Set();
  }

  async act(rule) {
    const manner = this.manners.get(rule) || 'allow';
    if (manner === 'deny') throw new Error('told to');
    if (manner === 'hang') await new Promise(() => {});
  }

  async handshake(peer) {
    await this.act('handshake');
    for (const core of this.released) await peer.replicate(core);
  }

  async introduceFeeds(peer, feeds) {
    tell(['introduction', this.name, ...feeds.map(described)].join(' '));
    await this.act('introduce');
    return this.brings;
  }

  async findFeed(peer, key) {
    tell(`find ${this.name} ${hex(key)}`);
    await this.act('find');
    return [...this.released, ...this.permitted].find((core) => core.discoveryKey.equals(key)) || null;
  }

  async request(peer, { type, value }) {
    tell(`request ${this.name} ${hex(Buffer.from(type))} ${hex(value)}`);
    await this.act('request');
    return { type, value: Buffer.from(value).reverse() };
  }

  async ephemeral(peer, { type, value }) {
    tell(`ephemeral ${this.name} ${hex(Buffer.from(type))} ${hex(value)}`);
    await this.act('ephemeral');
  }
}

/** All that the shim has until it is told to forget it. */
class World {
  constructor() {
    /** Made when there is a feed to put into it. */
    this.folder = null;
    this.cached = null;
    this.keyPair = NoiseSecretStream.keyPair();
    this.parties = new Map();
    this.left = new Set();
    this.cores = new Map();
    this.servers = [];
    this.connections = new Set();
    this.streams = new Set();
    this.options = { padTo: 0, finite: false };
    this.nextId = 1;
    this.forgotten = false;
  }

  async forget() {
    this.forgotten = true;
    for (const server of this.servers) server.close();
    for (const stream of this.streams) stream.destroy();
    if (this.cached) await this.cached.close();
    if (this.folder) fs.rmSync(this.folder, { recursive: true, force: true });
  }

  get store() {
    if (!this.cached) {
      this.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'party-shim-'));
      this.cached = new Corestore(this.folder);
    }
    return this.cached;
  }

  tell(event) {
    if (!this.forgotten) tell(event);
  }

  connect(isInitiator, socket) {
    socket.setNoDelay(true);
    const stream = new NoiseSecretStream(isInitiator, socket, { keyPair: this.keyPair });
    this.streams.add(stream);
    let failed = false;
    stream.on('error', () => (failed = true));
    stream.on('close', () => {
      this.streams.delete(stream);
      this.tell(`ended ${failed ? 'misbehaved' : 'clean'}`);
    });
    stream.opened.then((isOpen) => isOpen && this.tell(`connected ${hex(stream.remotePublicKey)}`));
    const present = [...this.parties.values()].filter((party) => !this.left.has(party));
    const connection = present[0].connect(stream, this.options);
    // The others before anything is said.
    for (const party of present.slice(1)) stream.opened.then(() => connection.join(party));
    this.connections.add(connection);
    connection.on('close', () => this.connections.delete(connection));
  }

  party(name) {
    const party = this.parties.get(name);
    if (!party) throw new Wrong('usage', `no party is called ${name}`);
    return party;
  }

  core(name) {
    const core = this.cores.get(name);
    if (!core) throw new Wrong('usage', `no feed is called ${name}`);
    return core;
  }

  peer(name) {
    const peer = [...this.party(name).peers].pop();
    if (!peer) throw new Wrong('closed', 'nobody is there');
    return peer;
  }

  async remember(name, core) {
    await core.ready();
    this.cores.set(name, core);
    const changed = () => this.tell(`length ${name} ${core.length} ${core.fork}`);
    core.on('append', changed);
    core.on('truncate', changed);
    return `${hex(core.key)} ${hex(core.discoveryKey)}`;
  }

  answer(promise, describe) {
    const id = this.nextId++;
    promise.then(
      (answer) => this.tell(`answer ${id} ${describe(answer)}`),
      (error) => this.tell(`answer ${id} error ${kindOf(error)}`),
    );
    return id;
  }
}

const commands = {
  ping() {},

  key(world, seed) {
    world.keyPair = NoiseSecretStream.keyPair(unhex(seed));
    return hex(world.keyPair.publicKey);
  },

  listen(world) {
    return new Promise((resolve, reject) => {
      const server = net.createServer((socket) => world.connect(false, socket));
      server.on('error', reject);
      server.listen(0, '127.0.0.1', () => resolve(server.address().port));
      world.servers.push(server);
    });
  },

  dial(world, port) {
    world.connect(true, net.connect(Number(port), '127.0.0.1'));
  },

  hangup(world) {
    for (const connection of world.connections) connection.close();
  },

  finite(world) {
    world.options.finite = true;
  },

  pad(world, count) {
    world.options.padTo = Number(count);
  },

  party(world, name, key, members) {
    if (members) return unsupported;
    let party = world.parties.get(name);
    if (!party) {
      party = new Party(unhex(key), new Told(name));
      party.on('peer', (peer) => world.tell(`admitted ${name} ${hex(peer.remotePublicKey)}`));
      party.on('peer-left', (peer) => world.tell(`left ${name} ${hex(peer.remotePublicKey)}`));
      world.parties.set(name, party);
    }
    world.left.delete(party);
    for (const connection of world.connections) if (connection.mux) connection.join(party);
    return undefined;
  },

  leave(world, name) {
    const party = world.party(name);
    world.left.add(party);
    for (const connection of world.connections) connection.leave(party);
  },

  exclude(world, name, key) {
    world.party(name).exclude(unhex(key));
  },

  readmit(world, name, key) {
    world.party(name).readmit(unhex(key));
  },

  rule(world, name, rule, manner) {
    world.party(name).rules.manners.set(rule, manner);
  },

  bring(world, name, ...feeds) {
    world.party(name).rules.brings = feeds.map(introduced);
  },

  introduce(world, name, ...feeds) {
    const asked = world.peer(name).introduceFeeds(feeds.map(introduced));
    return world.answer(asked, (feeds) => ['feeds', ...feeds.map(described)].join(' '));
  },

  request(world, name, type, value) {
    const asked = world.peer(name).request(unhex(type).toString(), unhex(value));
    return world.answer(asked, (answer) => `custom ${hex(Buffer.from(answer.type))} ${hex(answer.value)}`);
  },

  ephemeral(world, name, type, value) {
    world.peer(name).sendEphemeral(unhex(type).toString(), unhex(value));
  },

  create(world, name, kind) {
    if (kind) return unsupported;
    return world.remember(name, world.store.get({ name }));
  },

  add(world, name, key) {
    return world.remember(name, world.store.get({ key: unhex(key) }));
  },

  async append(world, name, ...blocks) {
    const core = world.core(name);
    await core.append(blocks.map(unhex));
    return core.length;
  },

  async truncate(world, name, length) {
    const core = world.core(name);
    await core.truncate(Number(length));
    return core.fork;
  },

  async clear(world, name, start, end) {
    await world.core(name).clear(Number(start), Number(end));
  },

  state(world, name) {
    const core = world.core(name);
    return `${core.length} ${core.fork}`;
  },

  async get(world, name, index) {
    const core = world.core(name);
    const block = Number(index) < core.length && (await core.has(Number(index))) ? await core.get(Number(index), { wait: false }) : null;
    return block ? hex(block) : 'absent';
  },

  download(world, name, start, end) {
    const download = world.core(name).download({ start: Number(start), end: end === '*' ? -1 : Number(end) });
    if (end === '*') return;
    download.done().then(
      () => world.tell(`downloaded ${name} ${start} ${end}`),
      () => {},
    );
  },

  async release(world, feed, name) {
    const core = world.core(feed);
    const party = world.party(name);
    party.rules.released.add(core);
    for (const peer of party.peers) await peer.replicate(core);
  },

  permit(world, feed, name) {
    world.party(name).rules.permitted.add(world.core(feed));
  },

  async withdraw(world, feed, name) {
    const core = world.core(feed);
    const party = world.party(name);
    party.rules.released.delete(core);
    party.rules.permitted.delete(core);
    for (const peer of party.peers) await peer.withdraw(core);
  },
};

const unsupported = Symbol('unsupported');

function kindOf(error) {
  if (error.code === CODES.TIMEOUT || /in time/.test(error.message)) return 'timeout';
  if (error.code !== undefined) return 'refused';
  return 'closed';
}

function introduced(word) {
  const [key, label] = word.split('=');
  return { key: unhex(key), label: label ? unhex(label).toString() : '' };
}

function described({ key, label }) {
  return label ? `${hex(key)}=${hex(Buffer.from(label))}` : hex(key);
}

function hex(bytes) {
  return bytes.byteLength === 0 ? '-' : Buffer.from(bytes).toString('hex');
}

function unhex(word) {
  const bytes = word === '-' ? Buffer.alloc(0) : Buffer.from(word, 'hex');
  if (word !== '-' && (word === '' || bytes.byteLength * 2 !== word.length)) throw new Wrong('usage', 'no bytes in hex');
  return bytes;
}

async function obey(state, line) {
  const [name, ...words] = line.split(' ');
  if (name === 'hello') return words[0] === '1' ? `1 party.js ${FEATURES}` : Promise.reject(new Wrong('usage', 'no such version'));
  if (name === 'reset' || name === 'quit') {
    await state.world.forget();
    if (name === 'reset') state.world = new World();
    return undefined;
  }
  return Object.hasOwn(commands, name) ? commands[name](state.world, ...words) : unsupported;
}

async function main() {
  const state = { world: new World() };
  // One after the other, and each is answered before the next is begun.
  for await (const line of readline.createInterface({ input: process.stdin })) {
    try {
      const answer = await obey(state, line);
      if (answer === unsupported) say('unsupported');
      else say(answer === undefined ? 'ok' : `ok ${answer}`);
    } catch (error) {
      say(`error ${error.kind || 'other'} ${String(error.message).replace(/\s+/g, ' ')}`);
    }
    if (line === 'quit') process.exit(0);
  }
  await state.world.forget();
}

// What a peer causes in the packages must not end the process unseen.
process.on('unhandledRejection', (error) => process.stderr.write(`${error && error.stack}\n`));
main();
