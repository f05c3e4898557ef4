'use strict';
// What the scripts ask of a core of any Hypercore release.

const crypto = require('crypto');

/** SHA-256 in hex over the blocks `indexes` of `core`, in that order, and their bytes in sum. All must be stored. */
async function digest(core, indexes) {
  const hash = crypto.createHash('sha256');
  let byteLength = 0;
  for (const index of indexes) {
    const value = await core.get(index, { wait: false });
    if (value === null) throw new Error(`block ${index} is missing`);
    hash.update(value);
    byteLength += value.byteLength;
  }
  return { sha256: hash.digest('hex'), byteLength };
}

/** What is known of `core`, for an event. */
function describe(core) {
  const { length, byteLength, contiguousLength, fork, writable } = core;
  const [key, discoveryKey] = [core.key, core.discoveryKey].map((bytes) => bytes.toString('hex'));
  return { key, discoveryKey, length, byteLength, contiguousLength, fork, writable };
}

/** How many blocks of `core` are stored. */
async function held(core) {
  let count = 0;
  for (let index = 0; index < core.length; index++) count += (await core.has(index)) ? 1 : 0;
  return count;
}

/**
 * Resolves when `core` has `length` blocks without a gap. It looks rather than listens: an event per block would
 * cost a reader that is being measured more than a look every few milliseconds.
 */
async function complete(core, length) {
  while (core.contiguousLength < length) await new Promise((resolve) => setTimeout(resolve, 4));
}

/** The runs of blocks of `core` that are stored, each as its first and the one behind its last. */
async function stored(core) {
  const runs = [];
  for (let index = 0; index < core.length; index++) {
    if (!(await core.has(index))) continue;
    const last = runs.at(-1);
    if (last && last[1] === index) last[1]++;
    else runs.push([index, index + 1]);
  }
  return runs;
}

/** The hash of the tree of `core`, in hex, without asking anybody for a block. */
async function treeHash(core) {
  // Hypercore 11 fetches the last block first, if that is not here; the roots are enough.
  const hash = core.state ? await core.constructor.treeHashFromStorage(core) : await core.treeHash();
  return hash.toString('hex');
}

/** Resolves when `core` is at `fork` with `length` blocks at least, and has all blocks of `runs`. */
async function reached(core, { fork, length, runs = [] }) {
  const here = async () => {
    if (core.fork !== fork || core.length < length) return false;
    for (const [from, to] of runs) if (!(await hasAll(core, from, to))) return false;
    return true;
  };
  while (!(await here())) await new Promise((resolve) => setTimeout(resolve, 4));
}

async function hasAll(core, from, to) {
  for (let index = from; index < to; index++) if (!(await core.has(index))) return false;
  return true;
}

module.exports = { complete, describe, digest, held, reached, stored, treeHash };
