'use strict';
// Records every vector anew: runs each other script of this folder, in order of name, in a process of its own.
// A recorder writes its files into conformance/vectors/ and exits with 0; the first that does not ends the run.

const { spawnSync } = require('child_process');
const fs = require('fs');
const path = require('path');

const recorders = fs.readdirSync(__dirname)
  .filter((file) => file.endsWith('.js') && ![path.basename(__filename), 'area.js'].includes(file))
  .sort();

for (const recorder of recorders) {
  process.stdout.write(`${recorder}\n`);
  const { status, error } = spawnSync(process.execPath, [path.join(__dirname, recorder)], { stdio: 'inherit' });
  if (error || status !== 0) {
    process.stderr.write(`${recorder} failed${error ? `: ${error.message}` : ` with status ${status}`}\n`);
    process.exit(1);
  }
}
