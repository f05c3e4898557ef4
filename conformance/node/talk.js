'use strict';
// The orders by which `benches` measures requests and answers beside the feeds, over protomux-rpc. `conformance/src/talk.rs`
// obeys the same ones, in a party. README.md lists them.

const NoiseSecretStream = require('@hyperswarm/secret-stream');
const ProtomuxRPC = require('protomux-rpc');
const { dial, listen } = require('./lib');

/** Requests before the clock starts, so that compilers and caches are warm. */
const WARM_UP = 200;

const talking = {
  // Answers each request with what it has brought.
  async answer() {
    const server = await listen(NoiseSecretStream.keyPair(), (stream) => {
      stream.on('error', () => {});
      new ProtomuxRPC(stream).respond('echo', (value) => value);
    });
    return { port: server.address().port };
  },

  // Makes `count` requests of `size` bytes on one connection, never more than `at_once` at a time.
  async ask({ port, count, size, at_once: atOnce }) {
    const { stream, rpc } = await meet(port, NoiseSecretStream.keyPair());
    const value = Buffer.alloc(size, 7);
    await ask(rpc, value, WARM_UP, atOnce);
    const first = now();
    await ask(rpc, value, count, atOnce);
    const last = now();
    stream.destroy();
    return { first, last };
  },

  // Connects `count` times, one after the other, and each time asks once.
  async bootstrap({ port, count, atOnce }) {
    const keyPair = NoiseSecretStream.keyPair();
    const value = Buffer.alloc(32, 7);
    let left = 0;
    const oneByOne = async () => {
      while (left-- > 0) {
        const { stream, rpc } = await meet(port, keyPair);
        await rpc.request('echo', value);
        stream.destroy();
      }
    };
    left = WARM_UP / 10;
    await oneByOne();
    left = count;
    const first = now();
    await Promise.all(Array.from({ length: atOnce }, oneByOne));
    return { first, last: now() };
  },
};

async function meet(port, keyPair) {
  const stream = dial(port, keyPair);
  stream.on('error', () => {});
  return { stream, rpc: new ProtomuxRPC(stream) };
}

async function ask(rpc, value, count, atOnce) {
  let left = count;
  const one = async () => {
    while (left-- > 0) {
      const answer = await rpc.request('echo', value);
      if (answer.byteLength !== value.byteLength) throw new Error('another answer');
    }
  };
  await Promise.all(Array.from({ length: atOnce }, one));
}

/** Seconds of the machine's monotonic clock. */
function now() {
  return Number(process.hrtime.bigint()) / 1e9;
}

module.exports = { talking };
