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

/** Resolves after the next block; `contiguousLength` grows only when its batch is flushed, hence the short wait beside it. */
function nextDownload(core) {
  return new Promise((resolve) => {
    const timer = setTimeout(done, 20);
    core.once('download', done);
    function done() {
      clearTimeout(timer);
      core.off('download', done);
      setImmediate(resolve);
    }
  });
}

module.exports = { describe, digest, held, nextDownload };
