'use strict';
// Records what two real protomux ends write and tell when they are joined by hand: each scenario gives one case for
// each end, as a list of steps with what came of each. Nothing is delivered but by a step, so crossings are real.

const { EventEmitter } = require('events');
const c = require('compact-encoding');
const Protomux = require('protomux');
const { Area, accept, refuse, versions } = require('./area');

const area = new Area('channels', {
  about: 'Protomux: one end of a stream of messages, its calls and what comes from the other end',
  source: versions('protomux'),
  kinds: {
    session: { about: 'Both ends of a session were recorded; this is one of them, with what the other had sent.', must: ['MUX-2', 'MUX-41'] },
    frame: {
      about: 'A frame that no honest end writes, to an end that has one channel open and one waiting for an answer.',
      must: { accept: ['MUX-7'], refuse: ['MUX-5'] },
    },
  },
});

const MESSAGE_TYPES = 4;

// As much of a duplex stream as protomux asks for. What is written stays until it is delivered.
class Wire extends EventEmitter {
  constructor() {
    super();
    this.userData = null;
    this.destroyed = false;
    this.written = [];
  }

  write(frame) {
    this.written.push(Buffer.from(frame));
    return true;
  }

  destroy() {
    this.destroyed = true;
    this.emit('close');
  }

  pause() {}
  resume() {}
  end() {}
}

class End {
  // What it does with opens of the remote's, by their protocol: those of `serves` wait for a step, those of `accepts`
  // are accepted at once as channels named in<0>, in<1>... and all others rejected at once.
  constructor({ serves = [], accepts = [] }) {
    this.wire = new Wire();
    this.mux = new Protomux(this.wire);
    this.channels = new Map();
    this.waiting = [];
    this.outbound = [];
    this.accepted = 0;
    this.policy = { serves, accepts };
    this.steps = [];
    this.expect = [];
    for (const protocol of serves) this.mux.pair({ protocol }, (id) => this.incoming(protocol, id));
    for (const protocol of accepts) {
      this.mux.pair({ protocol }, (id) => {
        this.tell({ event: 'incoming', protocol, id: hex(id) });
        this.create(`in${this.accepted++}`, { protocol, id: hex(id) });
      });
    }
  }

  // Node asks once for each open and rejects when the answer is there and no channel is.
  incoming(protocol, id) {
    this.tell({ event: 'incoming', protocol, id: hex(id) });
    return new Promise((resolve) => this.waiting.push(resolve));
  }

  tell(event) {
    this.expect[this.expect.length - 1].events.push(event);
  }

  async step(input, act) {
    this.steps.push(input);
    this.expect.push({ writes: [], events: [] });
    const expect = this.expect[this.expect.length - 1];
    act();
    for (let i = 0; i < 4; i++) await new Promise(setImmediate);
    expect.writes = this.wire.written.map(hex);
    this.outbound.push(...this.wire.written);
    this.wire.written = [];
    if (this.wire.destroyed) {
      // What Node closes as it goes down is not told on the wire.
      expect.events = [];
      expect.refused = true;
    }
  }

  create(name, { protocol, id = null, handshake = '', aliases = [] }) {
    const channel = this.mux.createChannel({
      protocol,
      aliases,
      id: id === null ? null : Buffer.from(id, 'hex'),
      unique: false,
      handshake: c.raw,
      onopen: (theirs) => this.tell({ event: 'opened', channel: name, handshake: hex(theirs) }),
      onclose: (remote) => {
        if (remote) this.tell({ event: 'closed', channel: name });
      },
      messages: Array.from({ length: MESSAGE_TYPES }, (_, type) => ({
        encoding: c.raw,
        onmessage: (payload) => this.tell({ event: 'message', channel: name, type, payload: hex(payload) }),
      })),
    });
    this.channels.set(name, channel);
    channel.open(Buffer.from(handshake, 'hex'));
  }

  open(name, options) {
    return this.step({ do: 'open', channel: name, ...options }, () => this.create(name, options));
  }

  accept(name, options) {
    return this.step({ do: 'accept', channel: name, ...options }, () => {
      this.create(name, options);
      this.waiting.shift()();
    });
  }

  reject() {
    return this.step({ do: 'reject' }, () => this.waiting.shift()());
  }

  send(name, type, payload) {
    const act = () => this.channels.get(name).messages[type].send(Buffer.from(payload, 'hex'));
    return this.step({ do: 'send', channel: name, type, payload }, act);
  }

  close(name) {
    return this.step({ do: 'close', channel: name }, () => this.channels.get(name).close());
  }

  cork() {
    return this.step({ do: 'cork' }, () => this.mux.cork());
  }

  uncork() {
    return this.step({ do: 'uncork' }, () => this.mux.uncork());
  }

  receive(frame) {
    return this.step({ do: 'receive', frame: hex(frame) }, () => this.wire.emit('data', frame));
  }
}

function hex(bytes) {
  return bytes ? Buffer.from(bytes).toString('hex') : '';
}

// Everything that one end has written goes to the other.
async function deliver(from, to) {
  for (const frame of from.outbound.splice(0)) await to.receive(frame);
}

async function settle(a, b) {
  while (a.outbound.length + b.outbound.length > 0) {
    await deliver(a, b);
    await deliver(b, a);
  }
}

const ID = 'aa'.repeat(32);
const x = { protocol: 'x' };

const scenarios = {
  'the remote accepts an open': async (a, b) => {
    await a.open('a', { protocol: 'x', id: ID, handshake: '0102' });
    await deliver(a, b);
    await b.accept('b', { protocol: 'x', id: ID, handshake: '0304' });
    await deliver(b, a);
    await a.send('a', 0, '68656c6c6f');
    await b.send('b', 3, '');
    await settle(a, b);
  },
  'two opens cross': async (a, b) => {
    await a.open('a', { protocol: 'x', id: ID, handshake: '01' });
    await b.open('b', { protocol: 'x', id: ID, handshake: '02' });
    await settle(a, b);
    await a.send('a', 1, '61');
    await b.send('b', 1, '62');
    await settle(a, b);
  },
  'two opens of one key cross with two': async (a, b) => {
    for (const n of ['1', '2']) {
      await a.open(`a${n}`, { ...x, handshake: `0${n}` });
      await b.open(`b${n}`, { ...x, handshake: `1${n}` });
    }
    await settle(a, b);
    for (const n of ['1', '2']) {
      await a.send(`a${n}`, 0, `0${n}`);
      await b.send(`b${n}`, 0, `1${n}`);
    }
    await settle(a, b);
  },
  'corked messages become one batch that switches channels': async (a, b) => {
    await a.open('a1', { protocol: 'x' });
    await a.open('a2', { protocol: 'y' });
    await b.open('b1', { protocol: 'x' });
    await b.open('b2', { protocol: 'y' });
    await settle(a, b);
    await a.cork();
    await a.send('a1', 0, '01');
    await a.send('a1', 1, '0203');
    await a.send('a2', 2, '');
    await a.cork();
    await a.send('a2', 0, 'ff'.repeat(300));
    await a.uncork();
    await a.send('a1', 0, '04');
    await a.close('a2');
    await a.uncork();
    await settle(a, b);
    await b.send('b2', 0, '00');
    await b.send('b1', 0, '01');
    await settle(a, b);
  },
  'the first open comes in a batch': async (a, b) => {
    await a.cork();
    await a.open('a', { protocol: 'x', id: ID, handshake: '0102' });
    await a.uncork();
    await deliver(a, b);
    await b.accept('b', { protocol: 'x', id: ID, handshake: '03' });
    await deliver(b, a);
  },
  'an open is rejected and its id used again': async (a, b) => {
    await a.open('a1', { protocol: 'unknown', handshake: '01' });
    await a.send('a1', 0, '0000');
    await deliver(a, b);
    await deliver(b, a);
    await a.open('a2', { protocol: 'x' });
    await deliver(a, b);
    await b.accept('b', { protocol: 'x' });
    await settle(a, b);
  },
  'the application rejects an open': async (a, b) => {
    await a.open('a', x);
    await deliver(a, b);
    await a.send('a', 0, '00');
    await deliver(a, b);
    await b.reject();
    await deliver(b, a);
  },
  'a close frees both ids, the latest freed is used first': async (a, b) => {
    for (const protocol of ['x', 'y', 'z']) {
      await a.open(`a-${protocol}`, { protocol });
      await b.open(`b-${protocol}`, { protocol });
    }
    await settle(a, b);
    await a.close('a-x');
    await b.close('b-z');
    await a.send('a-z', 0, 'aa');
    await settle(a, b);
    await a.open('a-1', { protocol: '1' });
    await a.open('a-2', { protocol: '2' });
    await a.open('a-3', { protocol: '3' });
    await b.open('b-1', { protocol: '1' });
    await b.open('b-2', { protocol: '2' });
    await b.open('b-3', { protocol: '3' });
    await settle(a, b);
    await a.send('a-2', 0, '02');
    await b.send('b-3', 0, '03');
    await settle(a, b);
  },
  'two closes cross': async (a, b) => {
    await a.open('a', x);
    await b.open('b', x);
    await settle(a, b);
    await a.close('a');
    await b.send('b', 0, '00');
    await b.close('b');
    await settle(a, b);
    await a.open('a2', x);
    await b.open('b2', x);
    await settle(a, b);
  },
  'a channel is closed before the crossing open comes': async (a, b) => {
    await a.open('a', { ...x, handshake: '01' });
    await a.close('a');
    await b.open('b', { ...x, handshake: '02' });
    await b.send('b', 0, '00');
    await settle(a, b);
    await a.open('a2', { protocol: 'y' });
    await b.open('b2', { protocol: 'y' });
    await settle(a, b);
  },
  'a channel is closed and opened again before the answer': async (a, b) => {
    await a.open('a1', { ...x, handshake: '01' });
    await a.close('a1');
    await a.open('a2', { ...x, handshake: '02' });
    await b.open('b1', { ...x, handshake: '11' });
    await b.open('b2', { ...x, handshake: '12' });
    await settle(a, b);
    await a.send('a2', 0, '00');
    await b.send('b2', 0, '01');
    await settle(a, b);
  },
  'messages come before the answer': async (a, b) => {
    await a.open('a', { ...x, handshake: '01' });
    await a.send('a', 0, '01');
    await a.send('a', 2, '0203');
    await deliver(a, b);
    await b.accept('b', { ...x, handshake: '02' });
    await a.send('a', 0, '04');
    await settle(a, b);
  },
  'an alias is paired and never sent': async (a, b) => {
    const id = ID;
    await a.open('a', { protocol: 'hypercore/alpha', aliases: ['hypercore'], id });
    await b.open('b', { protocol: 'hypercore', aliases: ['hypercore/alpha'], id });
    await settle(a, b);
    await a.send('a', 0, '01');
    await settle(a, b);
  },
  'ids beyond 252 take three bytes': async (a, b) => {
    for (let i = 0; i < 254; i++) {
      await a.open(`a${i}`, { protocol: 'x', id: hex(Buffer.from([i])) });
      await b.open(`b${i}`, { protocol: 'x', id: hex(Buffer.from([i])) });
    }
    await settle(a, b);
    await a.cork();
    await a.send('a252', 0, '01');
    await a.send('a253', 0, '02');
    await a.send('a253', 0, '03');
    await a.uncork();
    await b.send('b252', 0, '04');
    await b.close('b253');
    await settle(a, b);
  },
};

// Both ends open, send and close as a fixed sequence of numbers says, and frames are on the way for as long as it says.
async function random(a, b, seed) {
  let state = seed;
  const below = (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
  const ends = [{ end: a, remote: b, opened: 0 }, { end: b, remote: a, opened: 0 }];
  for (let i = 0; i < 240; i++) {
    const side = ends[below(2)];
    const { end, remote } = side;
    const live = [...end.channels].filter(([, channel]) => !channel.closed).map(([name]) => name);
    const pick = live[below(live.length)];
    const action = below(10);
    if (action < 2) {
      const protocol = ['x', 'y', 'z'][below(3)];
      const id = ['', '01', '02'][below(3)];
      await end.open(`c${side.opened++}`, { protocol, id: id || null, handshake: hex(Buffer.from([below(256)])) });
    } else if (action < 4 && pick) {
      await end.send(pick, below(MESSAGE_TYPES), hex(Buffer.from([below(256), i & 255])));
    } else if (action === 4 && pick) {
      await end.cork();
      for (let n = below(4); n >= 0; n--) await end.send(live[below(live.length)], 0, hex(Buffer.from([n, i & 255])));
      await end.uncork();
    } else if (action === 5 && pick && below(2) === 0) {
      await end.close(pick);
    } else if (end.outbound.length > 0) {
      await remote.receive(end.outbound.shift());
    }
  }
  await settle(a, b);
}

// Frames that no honest end writes, each to an end that has one channel open and one waiting for an answer.
const strange = {
  'an empty plaintext means nothing': '',
  'an empty batch means nothing': '000001',
  'a batch that only switches channels means nothing': '00000100020003',
  'a control message of an unknown type is passed over': '0063010203',
  'a close of an unknown id is ignored': '00037b',
  'a close of id 0 is ignored': '000300',
  'a close of id 2^31 is ignored': '0003fe00000080',
  'a close of id 2^40 is ignored': '0003ff0000000000010000',
  'a close of id 2^53 - 1 is ignored': '0003ffffffffffffff1f00',
  'a message to an unknown id is ignored': '7b00ff',
  'a message to id 2^31 is ignored': 'fe0000008000ff',
  'an integer need not take its shortest form': 'fd0100fd0000ff',
  'a batch with a message to an unknown id goes on': '00007b0200ff0001020061',
  'a batch that switches to id 0 at its end means nothing': '0000010000',
  'an item of one byte is a message without payload': '0000010100',
  'a batch with an open and a switch that is cut': '00000005010301780000',
  'a batch may open a channel and speak on it': '00000005010301780000030200ff',
  'a batch may hold a close, and messages after it are ignored': '00000002030100010261000102',
  'a batch may hold a reject of an open that waits': '000000020202',
  'a reject of an open that waits': '000202',
  'a close of a channel that is paired': '000301',
  'a close of an open that was not answered': '000302',
  'an open of another protocol of the same name with an id': '000103017801aa',
  'an open whose protocol is empty': '00010300000102',
  'an open whose protocol is unknown': '000103077061727479202000',
  'an open whose protocol is no UTF-8': '00010302fffe00',
  'an open with a handshake': '0001030178010a0102030405',
  'an open one above the highest id': '000103017a00',
  'an open of id 3 in a longer form': '0001fd0300017a00',
  'an open of id 0 is refused': '000100017100',
  'an open of an id in use is refused': '000101017100',
  'an open two above the highest id is refused': '000104017100',
  'an open of id 2^31 is refused': '0001fe00000080017100',
  'an open of id 2^40 is refused': '0001ff0000000000010000017100',
  'an open of id 2^64 - 1 is refused': '0001ffffffffffffffffff017100',
  'a reject of an unknown id is refused': '00027b',
  'a reject of a paired channel is refused': '000201',
  'a reject of id 2^40 is refused': '0002ff0000000000010000',
  'a channel with no message type is refused': '01',
  'a control message cut in its type is refused': '00',
  'an open cut in its name is refused': '0001030578',
  'a batch cut in a length is refused': '000001fd02',
  'a batch cut in a switch is refused': '00000100',
};

// Where the specification is stricter than protomux, which cuts an item short that reaches beyond the end of its batch, and
// takes any bytes for a name.
const STRICTER = { 'MUX-11': /^a batch, cut after (5|6|9|10|15) bytes$/, 'ENC-7': /no UTF-8$/ };

// What each frame is about, the first that fits.
const TESTED = [
  [/^(an empty plaintext|a control message of an unknown type)/, ['MUX-3']],
  [/close of (an unknown id|id)/, ['MUX-34']],
  [/^a message to /, ['MUX-35']],
  [/shortest form|longer form/, ['ENC-4']],
  [/batch.*cut|^a batch, cut/, ['MUX-5', 'MUX-10', 'MUX-12']],
  [/^a batch may hold a close/, ['MUX-7', 'MUX-35']],
  [/^a batch|^an empty batch|^an item/, ['MUX-7']],
  [/close of a channel that is paired/, ['MUX-32']],
  [/close of an open that was not answered/, ['MUX-39']],
  [/protocol (is|of)|one above the highest/, ['MUX-17', 'MUX-19', 'MUX-21']],
  [/open of id 0/, ['MUX-25']],
  [/id in use/, ['MUX-26']],
  [/^an open (two above|of id 2)/, ['MUX-27']],
  [/^a reject of (an unknown|a paired|id)/, ['MUX-36']],
  [/reject of an open that waits/, ['MUX-2']],
  [/with a handshake|whole$/, ['MUX-2', 'MUX-12']],
];

function keep(kind, name, end, must = undefined) {
  const { policy, steps, expect } = end;
  const refused = expect[expect.length - 1].refused;
  if (refused) delete expect[expect.length - 1].refused;
  const stricter = Object.keys(STRICTER).find((id) => kind === 'frame' && STRICTER[id].test(name));
  if (stricter && !refused) {
    const before = expect.slice(0, BEFORE);
    area.add(kind, name, { ...policy, steps: steps.slice(0, BEFORE + 1) },
      refuse('connection', { steps: [...before, { writes: [], events: [] }] }), { must: [stricter], source: 'party' });
    return;
  }
  const expected = refused ? refuse('connection', { steps: expect }) : accept({ steps: expect });
  area.add(kind, name, { ...policy, steps }, expected, { must });
}

// The steps before the frame that a scenario is about.
const BEFORE = 4;

// Every place where an open, a batch, a reject and a close may end.
function cuts() {
  const whole = {
    'an open': `0001030178${'02'}aabb0102`,
    'an open with a long id': `000103fd010078${'01'}aa`,
    'a batch': '00000103006162030063640002020065',
    'a reject': '0002fd0500',
    'a close': '0003fd0100',
    'a message': '01fd020061',
  };
  for (const [name, bytes] of Object.entries(whole)) {
    for (let length = 1; length <= bytes.length / 2; length++) {
      strange[length === bytes.length / 2 ? `${name}, whole` : `${name}, cut after ${length} bytes`] = bytes.slice(0, 2 * length);
    }
  }
}

const SESSIONS = {
  'the remote accepts an open': ['MUX-1', 'MUX-2', 'MUX-17'],
  'two opens cross': ['MUX-13', 'MUX-14'],
  'two opens of one key cross with two': ['MUX-13', 'MUX-20'],
  'corked messages become one batch that switches channels': ['MUX-7', 'MUX-8', 'MUX-10', 'MUX-41'],
  'the first open comes in a batch': ['MUX-7', 'MUX-17'],
  'an open is rejected and its id used again': ['MUX-19', 'MUX-24', 'MUX-35'],
  'the application rejects an open': ['MUX-17', 'MUX-35'],
  'a close frees both ids, the latest freed is used first': ['MUX-24', 'MUX-32', 'MUX-35', 'MUX-37'],
  'two closes cross': ['MUX-32', 'MUX-34', 'MUX-35', 'MUX-37'],
  'a channel is closed before the crossing open comes': ['MUX-15', 'MUX-33', 'MUX-38', 'MUX-39'],
  'a channel is closed and opened again before the answer': ['MUX-15', 'MUX-20', 'MUX-38'],
  'messages come before the answer': ['MUX-29', 'MUX-31'],
  'an alias is paired and never sent': ['MUX-21', 'MUX-23'],
  'ids beyond 252 take three bytes': ['ENC-1', 'MUX-2', 'MUX-24'],
};
const LONG = ['MUX-2', 'MUX-13', 'MUX-24', 'MUX-32', 'MUX-37', 'MUX-38', 'MUX-41'];

async function main() {
  for (const [name, run] of Object.entries(scenarios)) {
    const a = new End({ serves: ['x'] });
    const b = new End({ serves: ['x'] });
    await run(a, b);
    keep('session', `${name}: one end`, a, SESSIONS[name]);
    keep('session', `${name}: the other end`, b, SESSIONS[name]);
  }
  for (let seed = 1; seed <= 4; seed++) {
    const a = new End({ accepts: ['x', 'y'] });
    const b = new End({ accepts: ['x', 'z'] });
    await random(a, b, seed);
    for (const [which, end] of [['one end', a], ['the other end', b]]) {
      keep('session', `a long session, number ${seed}: ${which}`, end, LONG);
    }
  }
  cuts();
  for (const [name, frame] of Object.entries(strange)) {
    const end = new End({ serves: ['x', 'waits'] });
    await end.open('paired', { protocol: 'x' });
    await end.receive(Buffer.from('000101017800', 'hex'));
    await end.open('unanswered', { protocol: 'y' });
    await end.receive(Buffer.from('00010205776169747300', 'hex'));
    await end.receive(Buffer.from(frame, 'hex'));
    if (!end.wire.destroyed) {
      await end.receive(Buffer.from('010061', 'hex'));
      // Protomux writes nothing more while messages wait for a channel that is not open.
      if (!/speak on it/.test(name)) await end.send('paired', 0, '62');
    }
    keep('frame', name, end, (TESTED.find(([fits]) => fits.test(name)) || [])[1]);
  }
  area.write();
}

main();
