'use strict';
// Does one piece of work on a store on disk and says how long it took: `benches` runs it beside the same work of ours.
// Prints one JSON line: {"seconds": ..., "cpu_seconds": ..., "rss_bytes": ...}.

const Corestore = require('corestore');
const { parseArguments, limitLifetime, block, usage } = require('./lib');

const options = parseArguments({ store: '', work: '', count: 0, size: 0, batch: 1, timeout: 900 });
const SEED = 0x5eed;
limitLifetime(options.timeout);

const WORK = {
  /** Appends `count` blocks in awaited batches; a batch of 1 is a plain append. */
  async append(store) {
    const core = store.get({ name: 'feed' });
    await core.ready();
    const blocks = Array.from({ length: options.count }, (_, i) => block(SEED, i, options.size));
    const clock = start();
    for (let i = 0; i < blocks.length; i += options.batch) {
      if (options.batch === 1) await core.append(blocks[i]);
      else await core.append(blocks.slice(i, i + options.batch));
    }
    return clock();
  },

  async sequential(store) {
    const core = store.get({ name: 'feed' });
    await core.ready();
    const clock = start();
    for (let i = 0; i < options.count; i++) await core.get(i);
    return clock();
  },

  async random(store) {
    const core = store.get({ name: 'feed' });
    await core.ready();
    const clock = start();
    for (let i = 0, at = 1; i < options.count; i++) {
      at = (Math.imul(at, 1664525) + 1013904223) >>> 0;
      await core.get(at % core.length);
    }
    return clock();
  },

  /** Opens the store and the feed in it. The clock began before the store did. */
  async reopen(store, clock) {
    const core = store.get({ name: 'feed' });
    await core.ready();
    return clock();
  },

  /** Makes `count` feeds with a block each. */
  async make(store) {
    const clock = start();
    for (let i = 0; i < options.count; i++) {
      const core = store.get({ name: 'feed ' + i });
      await core.append(block(SEED, i, options.size));
      await core.close();
    }
    return clock();
  },

  /** Opens `count` feeds and holds them. */
  async hold(store) {
    const cores = [];
    const clock = start();
    for (let i = 0; i < options.count; i++) {
      const core = store.get({ name: 'feed ' + i });
      await core.ready();
      cores.push(core);
    }
    return { ...clock(), held: cores.length };
  },
};

function start() {
  const cpu = usage().cpuSeconds;
  const began = process.hrtime.bigint();
  return () => ({
    seconds: Number(process.hrtime.bigint() - began) / 1e9,
    cpu_seconds: usage().cpuSeconds - cpu,
    rss_bytes: process.memoryUsage.rss(),
  });
}

async function main() {
  const clock = start();
  const store = new Corestore(options.store);
  await store.ready();
  const figures = await WORK[options.work](store, clock);
  await store.close();
  process.stdout.write(JSON.stringify(figures) + '\n');
}

main().then(
  () => process.exit(0),
  (error) => {
    process.stderr.write(`${error.stack}\n`);
    process.exit(1);
  },
);
