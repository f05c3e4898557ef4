'use strict';
// A Hypercore peer that obeys commands. Standard input: one JSON command a line, `{"id": 1, "do": "create", ...}`.
// Standard output: one JSON event a line; the answer to a command bears its name and id. It ends with standard
// input, and after --timeout seconds in any case. README.md lists commands and events.

const NoiseSecretStream = require('@hyperswarm/secret-stream');
const { openCores } = require('./cores');
const { complete, describe, digest, held } = require('./inspect');
const { measuring } = require('./measure');
const { parseArguments, emit, serveCommands, limitLifetime, block, listen, dial, usage } = require('./lib');

const APPEND_AT_ONCE = 8 * 1024 * 1024;

const options = parseArguments({ hypercore: '11', replicate: '', store: 'memory', timeout: 120 });
limitLifetime(options.timeout);

const mode = options.replicate || (options.hypercore === '11' ? 'store' : 'core');
const cores = openCores({ release: options.hypercore, mode, place: options.store });
const keyPair = NoiseSecretStream.keyPair();
const named = new Map();
const streams = new Set();
const extensions = new Map();
let server = null;

serveCommands({
  async create({ name, kind = 'default', encryption }) {
    return describe(remember(name, await cores.create(kind, bytes(encryption))));
  },

  async open({ name, key, kind, encryption }) {
    return describe(remember(name, await cores.open(bytes(key), kind, bytes(encryption))));
  },

  async append({ name, seed, count, size, text }) {
    const core = find(name);
    if (text !== undefined) await core.append(Buffer.from(text));
    const atOnce = Math.max(1, Math.floor(APPEND_AT_ONCE / (size || 1)));
    const end = core.length + (text === undefined ? count : 0);
    while (core.length < end) {
      const start = core.length;
      const length = Math.min(atOnce, end - start);
      await core.append(Array.from({ length }, (_, i) => block(seed, start + i, size)));
    }
    return describe(core);
  },

  // Wants everything from now on, and answers when `length` blocks are stored without a gap.
  async follow({ name, length }) {
    const core = find(name);
    core.download({ start: 0, end: -1 });
    await complete(core, length);
    return describe(core);
  },

  async download({ name, from, to }) {
    const core = find(name);
    await core.download({ start: from, end: to }).done();
    return { ...describe(core), held: await held(core) };
  },

  async get({ name, index }) {
    const value = await find(name).get(index);
    return { hex: value.toString('hex') };
  },

  async seek({ name, bytes }) {
    const found = await find(name).seek(bytes);
    return { found };
  },

  // Messages of the extension `extension` come as events `said` from now on.
  async listenTo({ name, extension }) {
    const core = find(name);
    extensions.set(`${name} ${extension}`, core.registerExtension(extension, {
      encoding: 'binary',
      onmessage: (message, peer) => emit('said', {
        name, extension, hex: message.toString('hex'), by: peer.remotePublicKey.toString('hex'),
      }),
    }));
  },

  // To every peer that the core is replicated with; answers how many they were.
  async say({ name, extension, hex }) {
    extensions.get(`${name} ${extension}`).broadcast(Buffer.from(hex, 'hex'));
    return { peers: find(name).peers.length };
  },

  async allowPush({ name, allow = true }) {
    replicator(name).setAllowPush(allow);
  },

  async push({ name, index }) {
    await replicator(name).push(index);
  },

  // How many messages of each type went out and came in, for all peers of the core.
  async wire({ name }) {
    return { stats: replicator(name).stats };
  },

  async digest({ name, from = 0, to = find(name).length }) {
    return digest(find(name), from, to);
  },

  async info({ name }) {
    return { ...describe(find(name)), held: await held(find(name)) };
  },

  async listen() {
    server = await listen(keyPair, connected);
    return { port: server.address().port, publicKey: keyPair.publicKey.toString('hex') };
  },

  async dial({ port }) {
    const stream = dial(port, keyPair);
    connected(stream);
    if (!(await stream.opened)) throw new Error('the handshake failed');
    return { publicKey: stream.publicKey.toString('hex'), remotePublicKey: stream.remotePublicKey.toString('hex') };
  },

  // Ends every connection in good order; the peer stays for further commands.
  async hangup() {
    for (const stream of streams) stream.end();
  },

  async usage() {
    return usage();
  },

  ...measuring({
    find,
    create: async (name) => remember(name, await cores.create('default')),
    open: async (name, key) => remember(name, await cores.open(bytes(key))),
  }),
}, leave);

function connected(stream) {
  streams.add(stream);
  stream.on('error', (error) => emit('streamError', { code: error.code, message: error.message }));
  stream.on('close', () => {
    streams.delete(stream);
    emit('streamClosed');
  });
  stream.opened.then((ok) => ok && emit('connected', { remotePublicKey: stream.remotePublicKey.toString('hex') }));
  cores.replicate(stream);
}

function remember(name, core) {
  named.set(name, core);
  core.on('peer-add', () => emit('peerAdded', { name }));
  core.on('peer-remove', () => emit('peerRemoved', { name }));
  core.on('verification-error', (error) => emit('verificationError', { name, message: error.message }));
  core.on('conflict', () => emit('conflict', { name }));
  return core;
}

function bytes(hex) {
  return hex ? Buffer.from(hex, 'hex') : undefined;
}

// Hypercore 11 has it below its sessions.
function replicator(name) {
  const core = find(name);
  return core.replicator || core.core.replicator;
}

function find(name) {
  if (!named.has(name)) throw new Error(`no core has the name ${name}`);
  return named.get(name);
}

async function leave() {
  if (server) server.close();
  for (const stream of streams) stream.destroy();
  await cores.close();
  process.exit(0);
}
