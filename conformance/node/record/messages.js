'use strict';
// Records the messages of hypercore/alpha: each with many combinations of its fields, as hypercore 11 writes it, what
// hypercore 10 writes differently, what is read of bytes that no peer writes, and capabilities.

const c = require('compact-encoding');
const caps = require('hypercore/lib/caps');
const { manifest: manifestEncoding, wire } = require('hypercore/lib/messages');
const { Area, accept, refuse, hex, bytes: compact, versions } = require('./area');
const older = ['hypercore10', 'hypercore1019'].map((name) => ({
  version: require(`${name}/package.json`).version,
  wire: require(`${name}/lib/messages`).wire,
}));

const area = new Area('messages', {
  about: 'The messages of a feed channel, hypercore/alpha, and the handshake of that channel',
  source: versions('hypercore'),
  kinds: {
    message: {
      about: 'What a message of this type says; written anew, it is the same bytes unless said otherwise.',
      must: { accept: ['ENC-1', 'ENC-8', 'REPL-7'], refuse: ['ENC-5', 'REPL-9'] },
    },
    capability: { about: 'The capability that each role shows for a feed on a connection, and the handshake with it.', must: ['REPL-2'] },
    handshake: { about: 'Whether the handshake of a feed channel proves that the remote knows the feed.', must: ['REPL-3', 'REPL-4'] },
  },
});

const SAFE = Number.MAX_SAFE_INTEGER;
const types = ['sync', 'request', 'cancel', 'data', 'noData', 'want', 'unwant', 'bitfield', 'range', 'extension'];
const fill = (n, byte) => Buffer.alloc(n, byte);

// --- Messages, as values. Every boundary of an integer's length is in one of them.

const sync = (fields) => ({
  fork: 0, length: 0, remoteLength: 0, canUpgrade: false, uploading: false, downloading: false, hasManifest: false,
  allowPush: false, ...fields,
});
const request = (fields) => ({
  id: 1, fork: 0, block: null, hash: null, seek: null, upgrade: null, manifest: false, priority: 0, ...fields,
});
const data = (fields) => ({
  request: 1, fork: 0, block: null, hash: null, seek: null, upgrade: null, manifest: null, ...fields,
});
const node = (index) => ({ index, size: (index * 1000) % SAFE, hash: fill(32, index & 255) });
const nodes = (...indexes) => indexes.map(node);

const signer = (byte) => ({ signature: 'ed25519', namespace: caps.DEFAULT_NAMESPACE, publicKey: fill(32, byte) });
const manifest = (fields) => ({
  version: 1, hash: 'blake2b', allowPatch: false, quorum: 1, signers: [signer(1)], prologue: null, linked: null,
  userData: null, ...fields,
});

const messages = [
  ['sync', 'a sync of an empty feed', sync({})],
  ['sync', 'a sync of a writer', sync({ length: 20000, canUpgrade: true, uploading: true, hasManifest: true })],
  ['sync', 'a sync of a reader', sync({ length: 252, remoteLength: 253, uploading: true, downloading: true })],
  ['sync', 'a sync with every flag', sync({
    fork: 65535, length: 65536, remoteLength: 2 ** 32 - 1, canUpgrade: true, uploading: true, downloading: true,
    hasManifest: true, allowPush: true,
  })],
  ['sync', 'a sync of the largest integers', sync({ fork: SAFE, length: SAFE, remoteLength: 2 ** 32 })],

  ['request', 'a request for a block', request({ id: 1, block: { index: 0, nodes: 0 } })],
  ['request', 'a request for a block with nodes', request({ id: 300, fork: 2, block: { index: 70000, nodes: 17 } })],
  ['request', 'a request for the last possible block', request({ id: SAFE, block: { index: SAFE, nodes: 53 } })],
  ['request', 'a request for a hash', request({ id: 2, hash: { index: 7, nodes: 3 } })],
  ['request', 'a request for a byte offset', request({ id: 3, seek: { bytes: 1000000, padding: 8 } })],
  ['request', 'a request for an upgrade', request({ id: 4, upgrade: { start: 0, length: 20000 } })],
  ['request', 'a request for a manifest', request({ id: 5, manifest: true })],
  ['request', 'a request of a high priority', request({ id: 6, block: { index: 1, nodes: 1 }, priority: 2 })],
  ['request', 'a request for a block with an upgrade and a manifest', request({
    id: 7, block: { index: 5, nodes: 0 }, upgrade: { start: 0, length: 6 }, manifest: true,
  })],
  ['request', 'a request for a hash and a byte offset', request({
    id: 8, hash: { index: 2, nodes: 1 }, seek: { bytes: 5, padding: 0 },
  })],
  ['request', 'a request for everything at once', request({
    id: 9, fork: 1, block: { index: 1, nodes: 2 }, hash: { index: 3, nodes: 4 }, seek: { bytes: 5, padding: 6 },
    upgrade: { start: 7, length: 8 }, manifest: true, priority: 1,
  })],
  ['request', 'the check for a conflict', request({ id: 0, upgrade: { start: 0, length: 10 } })],
  ['request', 'a request for nothing', request({})],

  ['cancel', 'a cancel', { request: 1 }],
  ['cancel', 'a cancel of a large id', { request: 2 ** 40 }],

  ['data', 'a block', data({ block: { index: 3, value: Buffer.from('hello'), nodes: nodes(4, 1) } })],
  ['data', 'an empty block', data({ request: 253, block: { index: 0, value: Buffer.alloc(0), nodes: [] } })],
  ['data', 'a block of 300 bytes', data({ request: 70000, block: { index: 9, value: fill(300, 7), nodes: nodes(16) } })],
  ['data', 'a hash', data({ hash: { index: 7, nodes: nodes(7, 23) } })],
  ['data', 'a byte offset', data({ seek: { bytes: 4096, nodes: nodes(2, 5) } })],
  ['data', 'an upgrade', data({
    upgrade: { start: 0, length: 6, nodes: nodes(3, 9), additionalNodes: [], signature: fill(68, 9) },
  })],
  ['data', 'an upgrade with additional nodes', data({
    fork: 1,
    upgrade: { start: 4, length: 2, nodes: nodes(9), additionalNodes: nodes(12, 14), signature: fill(64, 8) },
  })],
  ['data', 'an upgrade without a signature', data({
    upgrade: { start: 0, length: 1, nodes: [], additionalNodes: [], signature: null },
  })],
  ['data', 'a manifest', data({ manifest: manifest({}) })],
  ['data', 'a manifest of several signers with a prologue', data({
    manifest: manifest({
      allowPatch: true, quorum: 2, signers: [signer(1), signer(2), signer(3)],
      prologue: { hash: fill(32, 5), length: 1000 },
    }),
  })],
  ['data', 'a manifest of version 2', data({
    manifest: manifest({ version: 2, linked: [fill(32, 6), fill(32, 7)], userData: Buffer.from('user data') }),
  })],
  ['data', 'a manifest of version 0', data({ manifest: manifest({ version: 0 }) })],
  ['data', 'a manifest of version 0 with several signers', data({
    manifest: manifest({ version: 0, quorum: 1, signers: [signer(1), signer(2)] }),
  })],
  ['data', 'a manifest of version 0 without signers', data({
    manifest: manifest({ version: 0, quorum: 0, signers: [], prologue: { hash: fill(32, 5), length: 0 } }),
  })],
  ['data', 'a block with an upgrade and a manifest', data({
    block: { index: 5, value: Buffer.from('block'), nodes: nodes(8) },
    upgrade: { start: 0, length: 6, nodes: nodes(3), additionalNodes: [], signature: fill(68, 1) },
    manifest: manifest({}),
  })],
  ['data', 'everything at once', data({
    request: SAFE, fork: SAFE,
    block: { index: SAFE, value: fill(1, 1), nodes: [{ index: SAFE, size: SAFE, hash: fill(32, 255) }] },
    hash: { index: 1, nodes: nodes(1) }, seek: { bytes: 2, nodes: nodes(2) },
    upgrade: { start: 3, length: 4, nodes: nodes(5), additionalNodes: nodes(6), signature: fill(3, 3) },
    manifest: manifest({}),
  })],
  ['data', 'an answer with nothing in it', data({})],

  ['noData', 'a refusal without a reason', { request: 1, reason: 0 }],
  ['noData', 'a refusal of what is not available', { request: 300, reason: 1 }],
  ['noData', 'a refusal of an invalid request', { request: SAFE, reason: 2 }],

  ['want', 'a want of the first segment', { start: 0, length: 2 ** 21, any: false }],
  ['want', 'a want of a later segment', { start: 5 * 2 ** 21, length: 2 ** 21, any: false }],
  ['want', 'a want of any block', { start: 2 ** 21, length: 2 ** 22, any: true }],
  ['unwant', 'an unwant', { start: 2 ** 21, length: 2 ** 21, any: false }],
  ['unwant', 'an unwant of any block', { start: 0, length: 100, any: true }],

  ['bitfield', 'a bitfield', { start: 0, bitfield: new Uint32Array([1, 0xffffffff, 0x80000000]) }],
  ['bitfield', 'a bitfield that starts late', { start: 2 ** 21, bitfield: new Uint32Array([0x55555555]) }],
  ['bitfield', 'a bitfield of 300 words', { start: 32, bitfield: new Uint32Array(300).map((_, i) => i * 0x01010101) }],
  ['bitfield', 'a bitfield of nothing', { start: 32, bitfield: new Uint32Array() }],

  ['range', 'a range of one block', { drop: false, start: 7, length: 1 }],
  ['range', 'a range of all blocks', { drop: false, start: 0, length: 20000 }],
  ['range', 'a range of no block', { drop: false, start: 9, length: 0 }],
  ['range', 'a range of 2^40 blocks', { drop: false, start: 0, length: 2 ** 40 }],
  ['range', 'a dropped block', { drop: true, start: 300, length: 1 }],
  ['range', 'a dropped range', { drop: true, start: SAFE, length: SAFE }],

  ['extension', 'a message of an extension', { name: 'example', message: Buffer.from('anything') }],
  ['extension', 'a message of the extension before', { name: '', message: Buffer.from([0, 255]) }],
  ['extension', 'an empty message of an extension', { name: 'é', message: Buffer.alloc(0) }],
];

// What is made of `bytes` as a message of `type`, which is then written anew.
function read(type, name, bytes, { seeks = true, by = { wire }, ...more } = {}) {
  let expect;
  try {
    const message = decode(by.wire[type], bytes);
    // 10.19 has no padding in a seek.
    if (message.seek && by.wire !== wire && type === 'request') message.seek.padding ||= 0;
    const again = encode(wire[type], message);
    expect = accept({ message: fields(type, message), ...(again !== bytes && { again }) });
  } catch {
    expect = refuse('decode');
  }
  area.add('message', name, { type: types.indexOf(type), seeks, bytes: compact(Buffer.from(bytes, 'hex')) }, expect, more);
}

for (const [type, name, message] of messages) {
  const bytes = encode(wire[type], message);
  read(type, name, bytes);
  for (const { version, wire } of older) {
    // 10.19 has no manifests, and what it means by the flag of a manifest is its priority.
    const seeks = !version.startsWith('10.19.');
    if (!seeks && (message.manifest || message.priority)) continue;
    // 10 has manifests of version 0 only.
    if (message.manifest && message.manifest !== true) continue;
    const old = encode(wire[type], message);
    if (old === bytes) continue;
    read(type, `${name}, by hypercore ${version}`, old, {
      // What the others have in the place of a flag of 10.19 reads as something else.
      by: seeks ? undefined : { wire }, seeks, source: `hypercore ${version}`, about: 'Older releases leave out fields at the end, which are then 0.',
      must: ['REPL-6'],
    });
  }
}

// --- Every combination of flags.

const part = {
  request: [
    { block: { index: 1, nodes: 2 } }, { hash: { index: 3, nodes: 4 } }, { seek: { bytes: 5, padding: 6 } },
    { upgrade: { start: 7, length: 8 } }, { manifest: true }, { priority: 9 },
  ],
  data: [
    { block: { index: 1, value: fill(3, 2), nodes: nodes(4) } }, { hash: { index: 3, nodes: nodes(3) } },
    { seek: { bytes: 5, nodes: [] } },
    { upgrade: { start: 7, length: 8, nodes: nodes(9), additionalNodes: nodes(12), signature: fill(64, 8) } },
    { manifest: manifest({}) },
  ],
  sync: ['canUpgrade', 'uploading', 'downloading', 'hasManifest', 'allowPush'].map((flag) => ({ [flag]: true })),
};
const empty = { request, data, sync };
for (const [type, parts] of Object.entries(part)) {
  for (let flags = 0; flags < 1 << parts.length; flags++) {
    const chosen = parts.filter((_, i) => flags & (1 << i));
    const message = empty[type](Object.assign({ fork: 3 }, ...chosen));
    read(type, `a ${type} with the flags ${flags}`, encode(wire[type], message), {
      about: 'The parts of a message come in the order of their flags, each only if its flag is set.',
    });
  }
}
for (const flag of [32, 64, 128, 2 ** 20, 2 ** 40]) {
  for (const [type, tail] of [['sync', '000000'], ['request', '0100'], ['data', '0100'], ['range', '0001']]) {
    if (type === 'request' && flag === 32) continue;
    read(type, `a ${type} with the unknown flag ${flag}`, hex(c.encode(c.uint, flag)) + tail, { about: 'Unknown flags are passed over.', must: ['ENC-9'] });
  }
  for (const [type, head] of [['noData', '01'], ['want', '0001'], ['unwant', '0001']]) {
    if (type === 'noData' && flag === 1) continue;
    read(type, `a ${type} with the unknown flag ${flag}`, head + hex(c.encode(c.uint, flag)), { about: 'Unknown flags are passed over.', must: ['ENC-9'] });
  }
}

// --- Integers at each border of their forms, and in longer forms than they need.

const BORDERS = [0, 1, 127, 128, 252, 253, 254, 255, 256, 65535, 65536, 2 ** 24, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 40, SAFE];
for (const n of BORDERS) {
  read('cancel', `a cancel of the request ${n}`, hex(c.encode(c.uint, n)));
  read('range', `a range of ${n} blocks from ${n}`, encode(wire.range, { drop: false, start: n, length: n === 1 ? 2 : n }));
  read('request', `a request for the block ${n} with the id ${n}`, encode(wire.request, request({ id: n, fork: n, block: { index: n, nodes: n } })));
}
for (const [form, n] of [['fd0000', 0], ['fdfc00', 252], ['fe01000000', 1], ['feffff0000', 65535], ['ff0500000000000000', 5], ['ffffffffff00000000', 2 ** 32 - 1]]) {
  read('cancel', `a cancel of ${n} in ${form.length / 2} bytes`, form, { about: 'A form that is longer than needed is taken.', must: ['ENC-4'] });
}
for (const form of ['ff00000000000020' + '00', 'ff0100000000002000', 'ff00000000000000ff', 'ffffffffffffffffff']) {
  read('cancel', `a cancel of ${BigInt('0x' + form.slice(2).match(/../g).reverse().join(''))}`, form,
    { about: 'An integer above 2^53 - 1 is refused.', must: ['ENC-3', 'REPL-9'] });
}

// --- Counts and lengths that say more than is there.

const huge = { 'one more than is there': '02', '2^16': 'fe00000100', '2^32 - 1': 'feffffffff', '2^53 - 1': 'ffffffffffffff1f00' };
for (const [name, count] of Object.entries(huge)) {
  const more = {
    about: 'A count or length that the rest of the message cannot hold is refused, and nothing is allocated for it.',
    must: ['ENC-5', 'ENC-6', 'ENC-10', 'REPL-9'],
  };
  const one = '0201' + '05'.repeat(32);
  read('data', `a block with ${name} nodes`, `0101000000${count}${one}`, more);
  read('data', `a block of ${name} bytes`, `01010000${count}aa`, more);
  read('data', `a hash with ${name} nodes`, `02010000${count}${one}`, more);
  read('data', `a seek with ${name} nodes`, `04010000${count}${one}`, more);
  read('data', `an upgrade with ${name} nodes`, `0801000001${count}${one}`, more);
  read('data', `an upgrade with ${name} additional nodes`, `080100000100${count}${one}`, more);
  read('data', `a signature of ${name} bytes`, `08010000010000${count}aa`, more);
  read('data', `a manifest with ${name} signers`, `10010001000001${count}00${'06'.repeat(64)}`, more);
  read('data', `a manifest with ${name} linked feeds`, `1001000204000100${count}${'06'.repeat(32)}`, more);
  read('data', `a manifest with user data of ${name} bytes`, `1001000208000100${count}aa`, more);
  read('bitfield', `a bitfield of ${name} words`, `00${count}aabbccdd`, more);
  read('extension', `an extension with a name of ${name} bytes`, `${count}61`, more);
}

// --- Messages that end too early: after every byte, but for those within a run of the same.

const cut = [
  ['sync', 'a sync', sync({ fork: 300, length: 70000, remoteLength: 5 })],
  ['request', 'a request', request({ id: 300, block: { index: 253, nodes: 2 }, seek: { bytes: 70000, padding: 0 }, upgrade: { start: 1, length: 2 }, priority: 1 })],
  ['cancel', 'a cancel', { request: 2 ** 40 }],
  ['data', 'a block', data({ block: { index: 3, value: Buffer.from('hello'), nodes: nodes(4, 300) } })],
  ['data', 'a hash with a seek', data({ hash: { index: 3, nodes: nodes(4) }, seek: { bytes: 300, nodes: nodes(2) } })],
  ['data', 'an upgrade', data({ upgrade: { start: 1, length: 2, nodes: nodes(2), additionalNodes: nodes(6), signature: fill(64, 1) } })],
  ['data', 'a manifest', data({ manifest: manifest({ prologue: { hash: fill(32, 5), length: 9 } }) })],
  ['data', 'a manifest of version 2', data({ manifest: manifest({ version: 2, linked: [fill(32, 6)], userData: Buffer.from('ab') }) })],
  ['data', 'a manifest of version 0', data({ manifest: manifest({ version: 0 }) })],
  ['noData', 'a refusal', { request: 300, reason: 2 }],
  ['want', 'a want', { start: 2 ** 21, length: 2 ** 22, any: true }],
  ['unwant', 'an unwant', { start: 2 ** 21, length: 2 ** 22, any: false }],
  ['bitfield', 'a bitfield', { start: 64, bitfield: new Uint32Array([1, 2]) }],
  ['range', 'a range', { drop: true, start: 300, length: 400 }],
  ['extension', 'a message of an extension', { name: 'name', message: Buffer.from('ab') }],
];
for (const [type, name, message] of cut) {
  const whole = encode(wire[type], message);
  for (let length = 0; length < whole.length / 2; length++) {
    const [before, at, after] = [length - 1, length, length + 1].map((n) => whole.slice(2 * n, 2 * n + 2));
    if (length > 1 && before === at && at === after) continue;
    read(type, `${name}, cut after ${length} bytes`, whole.slice(0, 2 * length), {
      about: 'A value that reaches beyond the end of its message is refused; fields that later releases added may be absent.',
      must: ['ENC-5', 'REPL-6', 'REPL-9'],
    });
  }
  read(type, `${name}, with bytes after it`, `${whole}00ff`, {
    about: 'Bytes after the last value are ignored, except where it takes all that is left.',
    must: ['ENC-11'],
  });
}

for (const type of [10, 11, 127, 252, 65536]) {
  area.add('message', `a message of the type ${type}`, { type, seeks: true, bytes: '0102' }, accept({ message: null }), {
    about: 'Types from 10 on are skipped.', source: 'party', must: ['REPL-8'],
  });
}

// --- Bytes that no peer writes, and what hypercore makes of them.

const strange = [
  ['sync', 'an integer need not take its shortest form', 'fd0100fe02000000ff030000000000000000'],
  ['sync', 'unknown flags are passed over', 'e701020304'],
  ['sync', 'what follows the last field is passed over', '0701020304ffff'],
  ['sync', 'an integer of 2^53', '00ff000000000000200000'],
  ['sync', 'an integer of 2^64 - 1', '00ffffffffffffffffff0000'],
  ['sync', 'a sync that ends early', '0001'],
  ['sync', 'a sync of no bytes', ''],
  ['request', 'a request without its block', '010100'],
  ['request', 'a request that ends within an integer', '010100fd01'],
  ['data', 'a block longer than the message', '01010000ff0100000000010000'],
  ['data', 'nodes that are not there', '020100070a'],
  ['data', 'a manifest of an unknown version', '10010003'],
  ['data', 'a manifest of an unknown hash', '1001000100010100'],
  ['data', 'a signature longer than the message', '08010000010000fd0010'],
  ['noData', 'a refusal that ends before its reason', '0501'],
  ['want', 'a want without a length', '05'],
  ['bitfield', 'a bitfield longer than the message', '00ff0000000001000000'],
  ['bitfield', 'a bitfield that ends within a word', '000201000000ffffff'],
  ['range', 'a range with both flags', '0307'],
  ['range', 'a range without a length', '0007'],
  ['extension', 'a name longer than the message', '0541'],
];

for (const [type, name, bytes] of strange) read(type, name, bytes);

// --- Handshakes.

for (const [initiator, key, binding] of [[true, 1, 2], [false, 1, 2], [true, 255, 2], [true, 1, 0], [false, 0, 255], [false, 7, 8]]) {
  const input = { initiator, key: hex(fill(32, key)), binding: hex(fill(64, binding)) };
  const who = initiator ? 'initiator' : 'responder';
  const what = `${who} for the key ${key} on the connection ${binding}`;
  const make = (...args) => caps.replicate(...args);
  const capability = make(initiator, fill(32, key), fill(64, binding));
  const handshake = encode(wire.handshake, { seeks: true, capability });
  area.add('capability', `of the ${what}`, input, accept({ capability: hex(capability), handshake }));

  // As the other end sees it.
  const shown = (name, bytes, expect, must) => area.add('handshake', `${name}: ${what}`, { ...input, bytes }, expect, { must });
  shown('as it should be', handshake, accept({ seeks: true }));
  shown('of a side that understands no seeks', encode(wire.handshake, { seeks: false, capability }), accept({ seeks: false }));
  shown('with unknown flags', `fd0103${hex(capability)}`, accept({ seeks: true }), ['ENC-4', 'ENC-9']);
  shown('with bytes after it', `${handshake}00ff`, accept({ seeks: true }), ['ENC-11']);
  const wrong = {
    'an echo of the own one': make(!initiator, fill(32, key), fill(64, binding)),
    'of another feed': make(initiator, fill(32, key ^ 1), fill(64, binding)),
    'of another connection': make(initiator, fill(32, key), fill(64, binding ^ 1)),
    'the feed key itself': fill(32, key),
    'zeros': fill(32, 0),
  };
  for (const [name, bytes] of Object.entries(wrong)) shown(name, encode(wire.handshake, { seeks: true, capability: bytes }), refuse('channel'));
  for (const at of [0, 15, 31]) {
    const flipped = Buffer.from(capability);
    flipped[at] ^= 0x10;
    shown(`with a flipped bit in byte ${at}`, encode(wire.handshake, { seeks: true, capability: flipped }), refuse('channel'));
  }
  for (const length of [0, 1, 32]) shown(`cut after ${length} bytes`, handshake.slice(0, 2 * length), refuse('channel'));
}

area.write();

function encode(encoding, message) {
  return hex(c.encode(encoding, message));
}

function decode(encoding, bytes) {
  return c.decode(encoding, Buffer.from(bytes, 'hex'));
}

// A message under the names of the specification.
function fields(type, m) {
  switch (type) {
    case 'sync':
      return {
        fork: m.fork, length: m.length, remote_length: m.remoteLength, can_upgrade: m.canUpgrade,
        uploading: m.uploading, downloading: m.downloading, has_manifest: !!m.hasManifest, allow_push: !!m.allowPush,
      };
    case 'request':
      return {
        id: m.id, fork: m.fork, block: m.block, hash: m.hash,
        seek: m.seek && { bytes: m.seek.bytes, padding: m.seek.padding || 0 },
        upgrade: m.upgrade, manifest: !!m.manifest, priority: m.priority,
      };
    case 'data':
      return {
        request: m.request, fork: m.fork,
        block: m.block && { index: m.block.index, value: compact(m.block.value), nodes: m.block.nodes.map(plain) },
        hash: m.hash && { index: m.hash.index, nodes: m.hash.nodes.map(plain) },
        seek: m.seek && { bytes: m.seek.bytes, nodes: m.seek.nodes.map(plain) },
        upgrade: m.upgrade && {
          start: m.upgrade.start, length: m.upgrade.length, nodes: m.upgrade.nodes.map(plain),
          additional_nodes: m.upgrade.additionalNodes.map(plain), signature: hex(m.upgrade.signature || ''),
        },
        manifest: m.manifest ? encode(manifestEncoding, m.manifest) : null,
      };
    case 'noData':
      return { request: m.request, reason: m.reason || 0 };
    case 'want':
    case 'unwant':
      return { start: m.start, length: m.length, any: !!m.any };
    case 'bitfield':
      return { start: m.start, words: Array.from(m.bitfield) };
    case 'extension':
      return { name: m.name, message: compact(m.message) };
    default:
      return m;
  }
}

function plain({ index, size, hash }) {
  return { index, size, hash: hex(hash) };
}
