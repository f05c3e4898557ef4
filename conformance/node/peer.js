'use strict';
// Hypercore peers that obey commands. Standard input: one JSON command a line, `{"id": 1, "do": "create", ...}`.
// Standard output: one JSON event a line; the answer to a command bears its name and id. It ends with standard
// input, and after --timeout seconds in any case. README.md lists commands and events.

const { Peer } = require('./orders');
const { parseArguments, emit, serveCommands, limitLifetime, usage } = require('./lib');

const options = parseArguments({ hypercore: '11', replicate: '', store: 'memory', timeout: 120 });
limitLifetime(options.timeout);

/** The peers of this process by name. The one that the arguments describe has none. */
const peers = new Map([[undefined, new Peer(options, emit)]]);

/** What is asked of the process, not of one of its peers. */
const orders = {
  async peer({ name, hypercore = '11', replicate = '', store = 'memory' }) {
    if (peers.has(name)) throw new Error(`there is a peer ${name} already`);
    peers.set(name, new Peer({ hypercore, replicate, store }, (event, fields) => emit(event, { peer: name, ...fields })));
  },

  async leave({ name }) {
    const peer = find(name);
    peers.delete(name);
    await peer.leave();
  },

  async usage() {
    return usage();
  },
};

serveCommands(async (command) => {
  if (Object.hasOwn(orders, command.do)) return orders[command.do](command);
  return find(command.peer).obey(command);
}, leave);

function find(name) {
  if (!peers.has(name)) throw new Error(`no peer has the name ${name}`);
  return peers.get(name);
}

async function leave() {
  await Promise.all([...peers.values()].map((peer) => peer.leave()));
  process.exit(0);
}
