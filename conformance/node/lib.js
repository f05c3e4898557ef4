'use strict';
// What every script here shares: arguments, JSON lines, deterministic blocks, encrypted TCP streams
// and this process's own resource use. See README.md for the commands and events.

const fs = require('fs');
const net = require('net');
const readline = require('readline');
const NoiseSecretStream = require('@hyperswarm/secret-stream');

const LOOPBACK = '127.0.0.1';

/** `--name value` pairs of the command line over `defaults`; a name that is not in `defaults` is an error. */
function parseArguments(defaults) {
  const values = { ...defaults };
  const given = process.argv.slice(2);
  for (let i = 0; i < given.length; i += 2) {
    const name = given[i].replace(/^--/, '');
    if (!(name in defaults) || given[i + 1] === undefined) throw new Error(`bad argument ${given[i]}`);
    values[name] = typeof defaults[name] === 'number' ? Number(given[i + 1]) : given[i + 1];
  }
  return values;
}

/** One event as a JSON line on standard output. */
function emit(event, fields = {}) {
  process.stdout.write(JSON.stringify({ event, ...fields }) + '\n');
}

/**
 * Hands each JSON line of standard input to `obey`. Commands start in order but do not wait for one another. A
 * command's answer is an event that carries its `id`; one that fails answers with `error`.
 */
function serveCommands(obey, onEnd) {
  const lines = readline.createInterface({ input: process.stdin });
  lines.on('line', async (line) => {
    let command = {};
    try {
      command = JSON.parse(line);
      emit(command.do, { id: command.id, ...(await obey(command)) });
    } catch (error) {
      emit('error', { id: command.id, message: String((error && error.message) || error) });
    }
  });
  lines.on('close', onEnd);
}

/** Ends the process after `seconds`, whatever it is doing, so that no test leaves one behind. */
function limitLifetime(seconds) {
  setTimeout(() => {
    process.stderr.write(`still running after ${seconds} s, giving up\n`);
    process.exit(3);
  }, seconds * 1000).unref();
}

/**
 * Block `index` of the feed that `seed` names: `size` bytes, the same as `conformance::node::block` makes in Rust.
 * Little-endian words of xorshift32 that starts at seed XOR (index + 1) * 0x9E3779B1, or at 1 where that is zero.
 */
function block(seed, index, size) {
  const words = new Uint32Array(Math.ceil(size / 4));
  let state = (seed ^ Math.imul(index + 1, 0x9e3779b1)) >>> 0 || 1;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  return Buffer.from(words.buffer, 0, size);
}

/** Listens on a free loopback port; each connection becomes the responder's secret stream for `onStream`. */
function listen(keyPair, onStream) {
  return new Promise((resolve, reject) => {
    const server = net.createServer((socket) => onStream(secure(false, socket, keyPair)));
    server.on('error', reject);
    server.listen(0, LOOPBACK, () => resolve(server));
  });
}

/** Dials a loopback port and gives the initiator's secret stream. */
function dial(port, keyPair) {
  return secure(true, net.connect(port, LOOPBACK), keyPair);
}

function secure(isInitiator, socket, keyPair) {
  socket.setNoDelay(true);
  return new NoiseSecretStream(isInitiator, socket, { keyPair });
}

/** CPU time in seconds (user and system) and the peak resident set in bytes, both of this process. */
function usage() {
  const { user, system } = process.cpuUsage();
  const peak = /^VmHWM:\s+(\d+) kB$/m.exec(fs.readFileSync('/proc/self/status', 'utf8'));
  return { cpuSeconds: (user + system) / 1e6, peakBytes: Number(peak[1]) * 1024 };
}

module.exports = { parseArguments, emit, serveCommands, limitLifetime, block, listen, dial, usage };
