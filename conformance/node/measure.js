'use strict';
// The orders by which `benches` measures: timed where it happens, by the one clock that all processes of a machine
// share. `conformance/src/measure.rs` obeys the same ones. README.md lists them.

const { block } = require('./lib');

/** Orders of a peer; `find(name)`, `create(name)` and `open(name, key)` are the peer's. */
function measuring({ find, create, open }) {
  return {
    async populate({ names, seed, count, size }) {
      const keys = [];
      for (const [n, name] of names.entries()) {
        const core = await create(name);
        keys.push(core.key.toString('hex'));
        await core.append(Array.from({ length: count }, (_, i) => block(seed + n, i, size)));
      }
      return { keys };
    },

    async openall({ names, keys }) {
      for (const [n, name] of names.entries()) await open(name, keys[n]);
    },

    // Wants everything of all the cores, and answers when each has `length` blocks without a gap. As for `follow`, it
    // looks rather than listens: an event per block would cost more.
    async complete({ names, length }) {
      let missing = names.map(find);
      for (const core of missing) core.download({ start: 0, end: -1 });
      let first = null;
      while (true) {
        const left = missing.filter((core) => core.contiguousLength < length);
        if (first === null && left.length < missing.length) first = now();
        missing = left;
        if (missing.length === 0) return { first, last: now() };
        await sleep(4);
      }
    },

    async produce({ name, seed, count, size, batch }) {
      const core = find(name);
      const start = core.length;
      const blocks = Array.from({ length: count }, (_, i) => block(seed, start + i, size));
      const first = now();
      for (let i = 0; i < count; i += batch) await core.append(blocks.slice(i, i + batch));
      return { first, last: now() };
    },

    async pulse({ name, seed, count, size, pause }) {
      const core = find(name);
      const times = [];
      for (let i = 0; i < count; i++) {
        await sleep(pause);
        // Not before it pauses: what follows the last append would have to wait for it.
        const value = block(seed, core.length, size);
        times.push(now());
        await core.append(value);
      }
      return { times };
    },

    async arrivals({ name, from, count }) {
      const core = find(name);
      const times = new Array(count);
      let missing = count;
      return new Promise((resolve, reject) => {
        core.on('download', async (index) => {
          if (index < from || index >= from + count) return;
          const value = await core.get(index, { wait: false });
          if (value === null) return reject(new Error(`block ${index} is missing`));
          times[index - from] = now();
          if (--missing === 0) resolve({ times });
        });
        core.download({ start: 0, end: -1 });
      });
    },
  };
}

/** Seconds of the machine's monotonic clock. */
function now() {
  return Number(process.hrtime.bigint()) / 1e9;
}

function sleep(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

module.exports = { measuring };
