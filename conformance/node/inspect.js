'use strict';
// What the scripts ask of a core of any Hypercore release.

const crypto = require('crypto');

/** SHA-256 in hex over the blocks `from..to` of `core`, and their bytes in sum. */
async function digest(core, from, to) {
  const hash = crypto.createHash('sha256');
  let byteLength = 0;
  for (let index = from; index < to; index++) {
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

module.exports = { complete, describe, digest, held };
