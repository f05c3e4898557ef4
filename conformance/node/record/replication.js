'use strict';
// Records what real readers say on a feed channel, message by message, and what the writer answers. The two ends are joined by
// hand, and a reader asks for one thing after the other, so that nothing depends on time.

const { EventEmitter } = require('events');
const fs = require('fs');
const os = require('os');
const path = require('path');
const c = require('compact-encoding');
const crypto = require('hypercore-crypto');
const Hypercore = require('hypercore');
const Protomux = require('protomux');
const { Area, accept, hex, bytes, versions } = require('./area');

// Hypercore asks for a random block when it seeks: for the one in the middle here.
Math.random = () => 0.5;

const BINDING = Buffer.from(Array.from({ length: 64 }, (_, i) => i));
const writerPair = crypto.keyPair(Buffer.alloc(32, 1));
const block = (n) => Buffer.alloc((n * 7) % 23, n);
const blocks = (from, to) => Array.from({ length: to - from }, (_, i) => block(from + i));
const DATA = 3;
const NO_DATA = 4;

const area = new Area('replication', {
  about: 'Sessions of a reader and a writer of one feed, whose block n has (n * 7) % 23 bytes of the value n and whose writer grew from a '
    + 'seed of 32 bytes of the value 1: all that the reader says, and what the writer answers',
  source: versions('hypercore', 'protomux'),
  kinds: {
    served: {
      about: 'Each request of a real reader is answered by the same bytes, whatever else it says before and after.',
      must: ['REPL-1', 'REPL-2', 'REPL-3', 'REPL-23', 'REPL-24', 'REPL-26', 'REPL-27', 'REPL-28'],
    },
  },
});

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'record-replication-'));
let count = 0;

async function open(key, options = {}) {
  const core = new Hypercore(path.join(folder, String(count++)), key, options);
  await core.ready();
  return core;
}

const signer = { publicKey: writerPair.publicKey };
const KINDS = {
  default: { keyPair: writerPair, manifest: { version: 1, signers: [signer] } },
  legacy: { keyPair: writerPair, compat: true },
  version_0: { keyPair: writerPair, manifest: { version: 0, signers: [signer] } },
};

// As much of an encrypted stream as hypercore asks for. What is written goes to the other end, and is kept.
class Stream extends EventEmitter {
  constructor(isInitiator) {
    super();
    Object.assign(this, { isInitiator, handshakeHash: BINDING, userData: null, destroyed: false, rawStream: {}, written: [] });
    this.publicKey = Buffer.alloc(32, isInitiator ? 1 : 2);
    this.remotePublicKey = Buffer.alloc(32, isInitiator ? 2 : 1);
    this.opened = Promise.resolve(true);
    this.other = null;
  }

  write(frame) {
    const copy = Buffer.from(frame);
    this.written.push(...messages(copy));
    setImmediate(() => { if (!this.other.destroyed) this.other.emit('data', copy); });
    return true;
  }

  destroy() {
    this.destroyed = true;
    this.emit('close');
  }

  pause() {}
  resume() {}
  end() {}
}

// The messages of a frame, joined or not: on the one channel, and the opens.
function messages(frame) {
  const state = { start: 0, end: frame.length, buffer: frame };
  let id = c.uint.decode(state);
  const start = state.start;
  if (id !== 0 || c.uint.decode(state) !== 0) return [one(id, frame.subarray(start))];
  const list = [];
  id = c.uint.decode(state);
  while (state.start < state.end) {
    const length = c.uint.decode(state);
    if (length === 0) {
      id = c.uint.decode(state);
      continue;
    }
    list.push(one(id, frame.subarray(state.start, state.start + length)));
    state.start += length;
  }
  return list;
}

function one(id, message) {
  const state = { start: 0, end: message.length, buffer: message };
  const type = c.uint.decode(state);
  if (id !== 0) return { id, type, payload: Buffer.from(message.subarray(state.start)) };
  if (type !== 1) return { id, type };
  c.uint.decode(state);
  c.string.decode(state);
  c.buffer.decode(state);
  return { id, type, handshake: Buffer.from(message.subarray(state.start)) };
}

// Until both ends have been silent for a while.
async function settle(...ends) {
  for (let silent = 0, said = -1; silent < 3;) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    const now = ends.reduce((sum, end) => sum + end.written.length, 0);
    silent = now === said ? silent + 1 : 0;
    said = now;
  }
}

// `script` is what the reader's application does, in order; it may append to the writer in between.
async function session(name, kind, length, script, readerIsInitiator = true) {
  const writer = await open(null, KINDS[kind]);
  await writer.append(blocks(0, length));
  const reader = await open(writer.key);
  const [ours, theirs] = [new Stream(readerIsInitiator), new Stream(!readerIsInitiator)];
  [ours.other, theirs.other] = [theirs, ours];
  const steps = [];
  let taken = 0;
  const take = () => {
    for (const { id, type, payload } of ours.written.slice(taken)) {
      if (id !== 0) steps.push({ do: 'receive', type, bytes: bytes(payload) });
    }
    taken = ours.written.length;
  };
  for (const [core, stream] of [[writer, theirs], [reader, ours]]) core.core.replicator.attachTo(new Protomux(stream));
  await settle(ours, theirs);
  let appended = length;
  for (const act of script) {
    if (act.append) {
      take();
      await writer.append(blocks(appended, appended + act.append));
      steps.push({ do: 'append', blocks: act.append });
      appended += act.append;
    } else if (act.get !== undefined) {
      const value = await reader.get(act.get);
      if (!value.equals(block(act.get))) throw new Error(`${name}: another block`);
    } else if (act.seek !== undefined) {
      await reader.seek(act.seek);
    } else {
      await reader.update({ wait: true });
    }
    await settle(ours, theirs);
  }
  take();
  const handshake = ours.written.find((message) => message.handshake).handshake;
  const answers = theirs.written.filter(({ id, type }) => id !== 0 && (type === DATA || type === NO_DATA));
  area.add('served', name, {
    feed: kind, length, writer_is_initiator: !readerIsInitiator, binding: hex(BINDING), handshake: hex(handshake), steps,
  }, accept({
    handshake: hex(theirs.written.find((message) => message.handshake).handshake),
    answers: answers.map(({ type, payload }) => ({ type, bytes: bytes(payload) })),
  }));
  ours.destroy();
  theirs.destroy();
  await reader.close();
  await writer.close();
}

const get = (...indexes) => indexes.map((index) => ({ get: index }));
const upTo = (length) => get(...Array.from({ length }, (_, i) => i));

async function main() {
  for (const kind of Object.keys(KINDS)) {
    for (const length of [1, 2, 3, 7, 8, 13, 22, 40]) {
      const who = `${kind}, ${length} blocks`;
      await session(`${who}: the length alone`, kind, length, [{ update: true }]);
      await session(`${who}: the first block`, kind, length, get(0), false);
      if (length === 1) continue;
      await session(`${who}: all in order`, kind, length, upTo(length));
      await session(`${who}: all from the last to the first`, kind, length, upTo(length).reverse(), false);
      await session(`${who}: every third`, kind, length, upTo(length).filter((_, i) => i % 3 === 1));
      await session(`${who}: two, then more are appended, then all`, kind, length,
        [...get(0, length - 1), { append: 5 }, { update: true }, ...get(length + 4, length, length >> 1, 1)]);
    }
    for (const offset of [5, 60, 131]) {
      await session(`${kind}, 22 blocks: the byte ${offset}, then the last block`, kind, 22, [{ update: true }, { seek: offset }, ...get(21)]);
    }
  }
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
