'use strict';
// Records every vector anew: runs each other script of this folder in a process of its own, as many at a time as there are processors.
// A recorder writes its files into conformance/vectors/ and exits with 0; after the first that does not, no other is begun.

const { spawn } = require('child_process');
const fs = require('fs');
const os = require('os');
const path = require('path');

// Most of the time is one recorder's, which waits for its peers a lot.
const LONGEST = 'replication.js';

const recorders = fs.readdirSync(__dirname)
  .filter((file) => file.endsWith('.js') && ![path.basename(__filename), 'area.js'].includes(file))
  .sort((a, b) => (b === LONGEST) - (a === LONGEST) || (a < b ? -1 : 1));

function run(recorder) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [path.join(__dirname, recorder)], { stdio: 'inherit' });
    child.once('error', (error) => resolve(error.message));
    child.once('close', (status, signal) => resolve(status === 0 ? null : signal ?? `status ${status}`));
  });
}

async function work() {
  while (process.exitCode === undefined && recorders.length > 0) {
    const recorder = recorders.shift();
    process.stdout.write(`${recorder}\n`);
    const fault = await run(recorder);
    if (fault !== null) {
      process.stderr.write(`${recorder} failed: ${fault}\n`);
      process.exitCode = 1;
    }
  }
}

for (let n = 0; n < Math.max(2, os.cpus().length); n++) work();
