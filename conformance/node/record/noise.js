'use strict';
// Records noise.json and secret_stream.json from the packages that Node peers run. Every seed is fixed, so that a second
// run writes the same files.

const sodium = require('sodium-universal');
const { Area, accept, refuse, hex, bytes, versions } = require('./area');

const seed = (byte) => Buffer.alloc(32, byte);

const noiseArea = new Area('noise', {
  about: 'Noise XX and IK over Ed25519: handshakes as messages without frames, both ends played, and Diffie-Hellman',
  source: versions('noise-handshake', 'noise-curve-ed', 'sodium-universal'),
  kinds: {
    handshake: {
      about: 'Both ends of a handshake: what each writes, and what comes out, or that it fails at the last message.',
      must: { accept: ['NOISE-1', 'NOISE-2', 'NOISE-17'], refuse: ['NOISE-12', 'NOISE-15'] },
    },
    diffie_hellman: { about: 'Which public keys an end takes, and the shared secret that they give.', must: ['NOISE-2'] },
  },
});

const streamArea = new Area('secret_stream', {
  about: 'Frames, the header and sealed messages, from the end of a handshake on; and whole conversations',
  source: versions('@hyperswarm/secret-stream', 'sodium-secretstream', 'sodium-universal'),
  kinds: {
    sealed: { about: 'What an end writes of these messages, given its key and its header.', must: ['STREAM-1', 'STREAM-5', 'STREAM-9', 'STREAM-10'] },
    opened: {
      about: 'What an end makes of the bytes that come after the handshake.',
      must: ['STREAM-2', 'STREAM-9'],
    },
    conversation: { about: 'One end of a connection against recorded bytes of the other, handshake and all.', must: ['NOISE-10', 'NOISE-11', 'STREAM-1', 'STREAM-2', 'STREAM-5'] },
  },
});

// All randomness of the stack comes from these two. They draw from `random` instead, once it is filled.
const random = { ephemerals: [], headers: [] };

sodium.crypto_sign_keypair = (publicKey, secretKey) => {
  sodium.crypto_sign_seed_keypair(publicKey, secretKey, take(random.ephemerals));
};

sodium.crypto_secretstream_xchacha20poly1305_init_push = (state, header, key) => {
  header.set(take(random.headers));
  // A push state and a pull state with the same header are the same.
  sodium.crypto_secretstream_xchacha20poly1305_init_pull(state, header, key);
};

function take(list) {
  if (list.length === 0) throw new Error('randomness was asked for that is not prepared');
  return list.shift();
}

const { Duplex } = require('stream');
const Noise = require('noise-handshake');
const curve = require('noise-curve-ed');
const NoiseSecretStream = require('@hyperswarm/secret-stream');

// --- The handshake, message by message.

// `change(i, message)` may put something else in the place of the i-th message on its way.
function handshake(options) {
  const { name, pattern, prologue = '', payloads = [], initiator, responder, change = null, about, must } = options;
  const parties = [initiator, responder].map((party, i) => {
    const noise = new Noise(pattern, i === 0, curve.generateKeyPair(seed(party.static)), { curve });
    noise.e = curve.generateKeyPair(seed(party.ephemeral));
    return noise;
  });
  const publicKeys = parties.map((noise) => hex(noise.s.publicKey));
  const dialled = options.dialled || parties[1].s.publicKey;
  parties[0].initialise(Buffer.from(prologue, 'hex'), pattern === 'IK' ? dialled : undefined);
  parties[1].initialise(Buffer.from(options.otherPrologue ?? prologue, 'hex'));

  const [messages, sent] = [[], []];
  let failed = false;
  try {
    for (let i = 0; !(parties[0].complete && parties[1].complete); i++) {
      const payload = Buffer.from(payloads[i] || '', 'hex');
      const message = Buffer.from(parties[i % 2].send(payload));
      const instead = change && change(i, message);
      sent.push(bytes(message));
      messages.push({ payload: bytes(payload), ...(instead && { instead: bytes(instead) }) });
      const read = parties[(i + 1) % 2].recv(Buffer.from(instead || message));
      if (!instead && hex(read) !== hex(payload)) throw new Error('another payload: ' + name);
    }
  } catch (error) {
    if (!options.fails) throw error;
    failed = true;
  }
  if (options.fails && !failed) throw new Error('Node accepts: ' + name);

  const input = {
    pattern,
    prologue,
    responder_prologue: options.otherPrologue ?? prologue,
    initiator: describe(initiator, publicKeys[0]),
    responder: describe(responder, publicKeys[1]),
    ...(pattern === 'IK' && { dialled: hex(dialled) }),
    messages,
  };
  const [a, b] = parties;
  if (!failed && (hex(a.hash) !== hex(b.hash) || hex(a.tx) !== hex(b.rx))) throw new Error('no agreement: ' + name);
  const expect = failed
    ? refuse('handshake', { sent })
    : accept({ sent, handshake_hash: hex(a.hash), initiator_key: hex(a.tx), responder_key: hex(a.rx) });
  noiseArea.add('handshake', name.replace(/_/g, ' '), input, expect, { about, must });
}

function describe(party, publicKey) {
  return {
    static_seed: hex(seed(party.static)),
    static_public_key: publicKey,
    ephemeral_seed: hex(seed(party.ephemeral))
  };
}

function flip(at, bit = 1) {
  return (message) => {
    const bytes = Buffer.from(message);
    bytes[at < 0 ? bytes.length + at : at] ^= bit;
    return bytes;
  };
}

const only = (index, change) => (i, message) => (i === index ? change(message) : null);

const initiator = { static: 0x11, ephemeral: 0x12 };
const responder = { static: 0x21, ephemeral: 0x22 };
const both = { initiator, responder };

handshake({ name: 'xx', pattern: 'XX', ...both });
handshake({ name: 'ik', pattern: 'IK', ...both });
handshake({
  name: 'xx_with_other_keys',
  pattern: 'XX',
  initiator: { static: 0x31, ephemeral: 0x32 },
  responder: { static: 0x41, ephemeral: 0x42 }
});
handshake({ name: 'xx_with_oneself', pattern: 'XX', initiator, responder: { static: 0x11, ephemeral: 0x22 } });
handshake({
  name: 'xx_with_prologue_and_payloads',
  pattern: 'XX',
  prologue: '70726f6c6f677565',
  payloads: ['01', '0202', '030303'],
  ...both
});
handshake({
  name: 'ik_with_prologue_and_payloads',
  about: 'the shape of the DHT handshake',
  pattern: 'IK',
  prologue: 'c1'.repeat(33),
  payloads: ['a5'.repeat(200), '5a'.repeat(300)],
  ...both
});
for (const pattern of ['XX', 'IK']) {
  for (const size of [1, 16, 255, 1000]) {
    const payloads = [1, 2, 3].map((n) => hex(Buffer.alloc(size, n)));
    handshake({ name: `${pattern} with payloads of ${size} bytes`, pattern, payloads, ...both });
  }
}

// --- What fails, with every field of every message.

const FIELDS = {
  XX: [{ ephemeral: [0, 32] }, { ephemeral: [0, 32], static: [32, 80], payload: [80, 96] }, { static: [0, 48], payload: [48, 64] }],
  IK: [{ ephemeral: [0, 32], static: [32, 80], payload: [80, 96] }, { ephemeral: [0, 32], payload: [32, 48] }],
};

function failures() {
  for (const [pattern, messages] of Object.entries(FIELDS)) {
    const fails = (name, change, about, must) =>
      handshake({ name: `${pattern} ${name}`, pattern, ...both, fails: true, change, about, must });
    messages.forEach((fields, i) => {
      const at = `message ${i + 1}`;
      const flipped = 'A message that was changed on its way is refused, at the latest when the next one is read.';
      const cut = 'A message that ends before its last field does is refused.';
      for (const [field, [start, end]] of Object.entries(fields)) {
        fails(`${at}: a flipped bit at the start of its ${field}`, only(i, flip(start)), flipped);
        fails(`${at}: a flipped bit within its ${field}`, only(i, flip((start + end) >> 1, 4)), flipped);
        fails(`${at}: the last bit of its ${field} flipped`, only(i, flip(end - 1, 0x80)), flipped);
        for (const length of [start, start + 1, (start + end) >> 1, end - 1]) {
          fails(`${at}: cut after ${length} bytes, in its ${field}`, only(i, (m) => m.subarray(0, length)), cut, ['NOISE-13', 'NOISE-15']);
        }
        if (field !== 'ephemeral') continue;
        for (const [name, encoded] of Object.entries({ ...SMALL, ...NO_POINTS })) {
          fails(`${at}: the ephemeral key is ${words(name)}`, only(i, (m) => Buffer.concat([encoded, m.subarray(32)])),
            'An ephemeral key that is no point of the prime-order subgroup, or is not in canonical form, ends the handshake.',
            [...badKey(name), 'NOISE-15']);
        }
      }
      fails(`${at}: one byte that was not sent`, only(i, (m) => Buffer.concat([m, Buffer.alloc(1)])), flipped);
      fails(`${at}: all zeros`, only(i, (m) => Buffer.alloc(m.length)), flipped);
      if (i > 0) fails(`${at}: the message before it comes back`, reflected(i), 'An echo is no answer.');
    });
    for (const [ours, theirs] of [['01', '02'], ['', '00'], ['01', '']]) {
      handshake({
        name: `${pattern} with the prologues ${ours || 'of no bytes'} and ${theirs || 'of no bytes'}`, pattern, ...both, fails: true,
        prologue: ours, otherPrologue: theirs, about: 'Both ends must have been given the same prologue.',
      });
    }
  }
  handshake({
    name: 'IK dialling another key', pattern: 'IK', ...both, fails: true, dialled: curve.generateKeyPair(seed(0x77)).publicKey,
    about: 'The first message of IK can be read only by who holds the key that was dialled.',
  });
}

function reflected(i) {
  let before = null;
  return (n, message) => {
    if (n === i) return before;
    before = Buffer.from(message);
    return null;
  };
}

// The sentence that such a key breaks.
function badKey(name) {
  if (name.startsWith('of_order')) return ['NOISE-5', 'NOISE-7'];
  if (name.startsWith('an_honest_key_plus')) return ['NOISE-6'];
  return name === 'what_is_no_point' ? ['NOISE-4'] : ['NOISE-3'];
}

const words = (name) => name.replace(/_/g, ' ').replace(/^of order/, 'a point of order');

// --- Diffie-Hellman on points that an honest peer never has.

function point(first, rest = '00', last = rest) {
  return Buffer.from(first + rest.repeat(30) + last, 'hex');
}

// The points of order 8, 4, 2 and 1, in the encodings that libsodium lists.
const SMALL = {
  of_order_1: point('01'),
  of_order_2: point('ec', 'ff', '7f'),
  of_order_4: point('00'),
  of_order_4_negative: point('00', '00', '80'),
  of_order_8_first: Buffer.from('26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05', 'hex'),
  of_order_8_first_negative: Buffer.from(
    '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85',
    'hex'
  ),
  of_order_8_second: Buffer.from('c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a', 'hex'),
  of_order_8_second_negative: Buffer.from(
    'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa',
    'hex'
  )
};

// What is no key at all.
const NO_POINTS = {
  what_is_no_point: point('02'),
  all_ones: point('ff', 'ff'),
  a_second_encoding_of_the_identity: point('ee', 'ff', '7f'),
  the_identity_with_a_sign: point('01', '00', '80'),
  minus_one_with_a_sign: point('ec', 'ff'),
  a_second_encoding_of_zero: point('ed', 'ff', '7f'),
  // y = 3 is the y of a point, and 3 + p its second encoding.
  a_second_encoding_of_a_large_point: point('f0', 'ff', '7f'),
};

function diffieHellman(name, publicKey, options = {}) {
  const pair = curve.generateKeyPair(options.seed || seed(0x11));
  let shared = null;
  try {
    shared = hex(curve.dh(publicKey, pair));
  } catch {}
  const refused = !!options.refused;
  if ((shared === null) !== refused && !options.knownFault) throw new Error(`Node says otherwise: ${name}`);
  // Some of these are accepted by the libsodium of this Node, whose check of the subgroup is incomplete.
  const more = { ...(shared !== null && refused && { source: 'party' }), ...(refused && { must: badKey(name) }) };
  noiseArea.add('diffie_hellman', words(name), { seed: hex(pair.secretKey.subarray(0, 32)), public_key: hex(publicKey) },
    refused ? refuse('handshake') : accept({ shared }), more);
}

function recordDh() {
  const honest = curve.generateKeyPair(seed(0x21)).publicKey;
  diffieHellman('an_honest_key', honest);
  diffieHellman('with_itself', curve.generateKeyPair(seed(0x11)).publicKey);
  for (let n = 0; n < 16; n++) {
    diffieHellman(`honest_key_number_${n}`, curve.generateKeyPair(seed(0x30 + n)).publicKey, { seed: seed(0xf0 + n) });
  }
  for (const [name, encoded] of Object.entries({ ...SMALL, ...NO_POINTS })) {
    diffieHellman(name, encoded, { refused: true });
  }
  for (const [name, encoded] of Object.entries(SMALL)) {
    if (name === 'of_order_1') continue;
    const sum = Buffer.alloc(32);
    sodium.crypto_core_ed25519_add(sum, honest, encoded);
    diffieHellman('an_honest_key_plus_a_point_' + name, sum, { refused: true, knownFault: true });
  }
}

// --- The secret stream, from a finished handshake on.

const INITIATOR_KEY = Buffer.from(Array.from({ length: 32 }, (_, i) => i));
const RESPONDER_KEY = Buffer.from(Array.from({ length: 32 }, (_, i) => 0x80 + i));
const HASH = Buffer.from(Array.from({ length: 64 }, (_, i) => 0x40 + i));
const HEADERS = [Buffer.alloc(24, 0x1e), Buffer.alloc(24, 0x2e)];

// The transport of one end: keeps what is written, and hands over what is pushed.
class Recorder extends Duplex {
  constructor() {
    super();
    this.written = [];
  }

  _write(data, _encoding, done) {
    this.written.push(Buffer.from(data));
    done();
  }

  _read() {}

  bytes() {
    return Buffer.concat(this.written);
  }
}

function stream(isInitiator) {
  random.headers.push(HEADERS[isInitiator ? 0 : 1]);
  const transport = new Recorder();
  const noise = new NoiseSecretStream(isInitiator, transport, {
    filterZeroByteMessages: true,
    handshake: {
      tx: isInitiator ? INITIATOR_KEY : RESPONDER_KEY,
      rx: isInitiator ? RESPONDER_KEY : INITIATOR_KEY,
      hash: HASH,
      publicKey: seed(isInitiator ? 1 : 2),
      remotePublicKey: seed(isInitiator ? 2 : 1)
    }
  });
  return { noise, transport };
}

const settle = () => new Promise((resolve) => setTimeout(resolve, 20));

async function send(isInitiator, messages) {
  const { noise, transport } = stream(isInitiator);
  noise.on('error', () => {});
  for (const message of messages) noise.write(message);
  await settle();
  const bytes = transport.bytes();
  noise.destroy();
  return bytes;
}

// What a stream makes of `bytes`: the messages, and the error that it ends with.
async function receive(isInitiator, bytes) {
  const { noise, transport } = stream(isInitiator);
  const messages = [];
  let error = null;
  noise.on('data', (data) => messages.push(hex(data)));
  noise.on('error', (err) => {
    error = err.message;
  });
  // One by one, so that messages arrive before the stream fails. Copies, as it opens frames in place.
  for (const each of frames(bytes)) {
    if (error !== null) break;
    transport.push(Buffer.from(each));
    await settle();
  }
  noise.destroy();
  return { messages, error };
}

function frame(bytes) {
  const length = Buffer.alloc(4);
  length.writeUint32LE(bytes.length);
  return Buffer.concat([length.subarray(0, 3), bytes]);
}

function frames(bytes) {
  const list = [];
  for (let at = 0; at < bytes.length;) {
    const end = at + 3 + bytes.readUIntLE(at, 3);
    list.push(bytes.subarray(at, end));
    at = end;
  }
  return list;
}

// What is handed to an end: who sent it, and under which key and header.
const sender = (isInitiator) => ({
  handshake_hash: hex(HASH),
  sender_is_initiator: isInitiator,
  sender_key: hex(isInitiator ? INITIATOR_KEY : RESPONDER_KEY),
  sender_header: hex(HEADERS[isInitiator ? 0 : 1]),
});

// What is handed to who receives from it: the header comes over the wire.
function receiver(senderIsInitiator) {
  const { sender_header, ...input } = sender(senderIsInitiator);
  return input;
}

// Messages that an end seals, and that the other opens. An empty one is a keep-alive.
async function sent(name, isInitiator, messages, about) {
  const wire = await send(isInitiator, messages);
  streamArea.add('sealed', name, { ...sender(isInitiator), messages: messages.map(bytes) }, accept({ wire: bytes(wire) }), { about });
  await opened(name, isInitiator, wire, null, messages, about);
}

async function opened(name, isInitiator, wire, refusal, messages = null, about = undefined) {
  const outcome = await receive(!isInitiator, wire);
  if ((outcome.error === null) !== (refusal === null)) throw new Error(`Node says ${outcome.error || 'ok'}: ${name}`);
  const arriving = messages && messages.filter((message) => message.length > 0).map(hex);
  const tested = { stream_header: ['STREAM-6', 'STREAM-7'], frame_length: ['STREAM-11'], decryption: ['STREAM-12', 'STREAM-13'] };
  const must = [...(refusal ? tested[refusal] : ['STREAM-9', ...(messages && messages.some((one) => one.length === 0) ? ['STREAM-15'] : [])]), 'STREAM-2'];
  if (messages && JSON.stringify(arriving) !== JSON.stringify(outcome.messages)) throw new Error('other messages: ' + name);
  const keepAlives = messages ? messages.length - arriving.length : 0;
  const came = {
    messages: outcome.messages.map((message) => bytes(Buffer.from(message, 'hex'))),
    ...(keepAlives > 0 && { keep_alives: keepAlives }),
  };
  streamArea.add('opened', name, { ...receiver(isInitiator), wire: bytes(wire) }, refusal ? refuse(refusal, came) : accept(came), { about, must });
}

const text = (...lines) => lines.map((line) => Buffer.from(line));

// Seals with any tag, which the streams themselves never do.
function sealer(isInitiator) {
  const state = Buffer.alloc(sodium.crypto_secretstream_xchacha20poly1305_STATEBYTES);
  sodium.crypto_secretstream_xchacha20poly1305_init_pull(
    state,
    HEADERS[isInitiator ? 0 : 1],
    isInitiator ? INITIATOR_KEY : RESPONDER_KEY
  );
  return (message, tag) => {
    const sealed = Buffer.alloc(message.length + 17);
    sodium.crypto_secretstream_xchacha20poly1305_push(state, sealed, message, null, tag);
    return frame(sealed);
  };
}

async function recordStreams() {
  const three = text('first', 'second', 'third');
  const whole = await send(true, three);
  const [header, first, second, third] = frames(whole);
  const join = (...list) => Buffer.concat(list);
  const bad = (name, wire, refusal, about) => opened(name, true, wire, refusal, null, about);
  const TAGS = { MESSAGE: 0, PUSH: 1, REKEY: 2, FINAL: 3 };

  await sent('nothing but the header', true, []);
  await sent('the initiator sends', true, three);
  await sent('the responder sends', false, three);
  await sent('keep-alives between messages', true, text('', 'one', '', '', 'two'), 'A keep-alive is handed to nobody.');
  await sent('a keep-alive and nothing else', false, text(''), 'A keep-alive is handed to nobody.');
  for (const size of [1, 14, 15, 16, 17, 31, 32, 33, 47, 48, 62, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1000, 4096]) {
    await sent(`a message of ${size} bytes`, size % 2 === 0, [Buffer.alloc(size, size & 255), Buffer.from('after it')],
      'Messages of every length around the blocks of the cipher and the authenticator.');
  }
  await sent('a message of 5000 different bytes', true, [Buffer.from(Array.from({ length: 5000 }, (_, i) => i & 255))]);
  await sent('forty messages', false, Array.from({ length: 40 }, (_, i) => Buffer.alloc(i + 1, i)),
    'The state goes on from message to message.');

  const tagged = 'Tags are taken as they come: REKEY and FINAL change the keys, and no tag ends the stream.';
  for (const [name, tag] of Object.entries({ ...TAGS, 'of no name': 0x55 })) {
    const seal = sealer(true);
    const list = [seal(Buffer.from('before'), 0), seal(Buffer.from('with it'), tag), seal(Buffer.from('after'), 0)];
    await opened(`a message with the tag ${name}`, true, join(header, ...list), null, null, tagged);
  }
  const seal = sealer(true);
  const many = [2, 0, 2, 2, 3, 0].map((tag, i) => seal(Buffer.from(`message ${i}`), tag));
  await opened('several changes of keys', true, join(header, ...many), null, null, tagged);
  await bad('a change of keys that was left out', join(header, ...many.slice(1)), 'decryption');

  const head = 'The first frame after the handshake has 56 bytes, and the id is that of the role and of this handshake.';
  // Node passes over a frame of no bytes here.
  streamArea.add('opened', 'a header of 0 bytes', { ...receiver(true), wire: '000000' }, refuse('stream_header', { messages: [] }),
    { about: head, source: 'party', must: ['STREAM-6'] });
  for (const length of [1, 5, 24, 32, 54, 55]) {
    await bad(`a header of ${length} bytes`, frame(header.subarray(3, 3 + length)), 'stream_header', head);
  }
  await bad('a header of 57 bytes', frame(join(header.subarray(3), Buffer.alloc(1))), 'stream_header', head);
  await bad('a header of 112 bytes', frame(join(header.subarray(3), header.subarray(3))), 'stream_header', head);
  for (const at of [0, 1, 15, 30, 31]) await bad(`a header whose id differs in byte ${at}`, join(flip(3 + at)(header), first), 'stream_header', head);
  await bad('a header with the id of the receiver', frames(await send(false, []))[0], 'stream_header',
    'What a peer gets by sending bytes back: the id of the other role.');
  await bad('no header', join(first, second), 'stream_header', head);
  for (const at of [32, 47, 48, 55]) {
    await bad(`a header whose nonce differs in byte ${at - 32}`, join(flip(3 + at)(header), first), 'decryption',
      'The header is not authenticated by itself: what is wrong with it shows in the first message.');
  }

  const short = 'A body of fewer than 17 bytes is no message.';
  for (let length = 0; length < 17; length++) {
    await bad(`a frame of ${length} bytes`, join(header, first, frame(Buffer.alloc(length)), second), 'frame_length', short);
  }
  const changed = 'What does not authenticate ends the connection, and nothing of it is handed on.';
  for (const length of [17, 18, 64, 1000]) {
    await bad(`a frame of ${length} zeros`, join(header, frame(Buffer.alloc(length))), 'decryption', changed);
  }
  for (let at = 3; at < second.length; at++) {
    const where = at === 3 ? 'the tag' : at < second.length - 16 ? `byte ${at - 4} of the text` : `byte ${at - second.length + 16} of the authenticator`;
    await bad(`a flipped bit in ${where}`, join(header, first, flip(at, 1 << (at % 8))(second), third), 'decryption', changed);
  }
  for (const cut of [1, 2, 5]) {
    await bad(`a message that is ${cut} bytes shorter`, join(header, frame(first.subarray(3, first.length - cut))), 'decryption', changed);
    await bad(`a message that is ${cut} bytes longer`, join(header, frame(join(first.subarray(3), Buffer.alloc(cut)))), 'decryption', changed);
  }
  const order = 'Messages are opened in the order in which they were sealed, each once, and by the keys of this direction.';
  await bad('a message twice', join(header, first, first), 'decryption', order);
  await bad('the first message left out', join(header, second), 'decryption', order);
  await bad('a message left out', join(header, first, third), 'decryption', order);
  await bad('two messages exchanged', join(header, second, first, third), 'decryption', order);
  await bad('the last two messages exchanged', join(header, first, third, second), 'decryption', order);
  await bad('the header twice', join(header, header, first), 'decryption', order);
  await bad('a message of the other direction', join(header, frames(await send(false, three))[1]), 'decryption', order);
}

// --- Two streams end to end, handshake and all.

async function conversation(name, pattern) {
  const keys = [initiator, responder].map((party) => NoiseSecretStream.keyPair(seed(party.static)));
  const transports = [new Recorder(), new Recorder()];
  const streams = transports.map(
    (transport, i) =>
      new NoiseSecretStream(i === 0, transport, {
        pattern,
        keyPair: keys[i],
        remotePublicKey: pattern === 'IK' && i === 0 ? keys[1].publicKey : null
      })
  );
  const messages = [[], []];
  streams.forEach((noise, i) => {
    noise.on('data', (data) => messages[i].push(hex(data)));
    noise.on('error', (error) => {
      throw error;
    });
    noise.write(Buffer.from(i === 0 ? 'from the initiator' : 'from the responder'));
  });
  // The order in which the two ends are served is fixed, and so are the seeds that each of them draws.
  random.ephemerals.push(seed(initiator.ephemeral), seed(responder.ephemeral));
  // The responder has read the last message of IK before the initiator has, and the other way round with XX.
  random.headers.push(...(pattern === 'IK' ? [HEADERS[1], HEADERS[0]] : HEADERS));
  const delivered = [0, 0];
  for (let round = 0; round < 6; round++) {
    for (const i of [0, 1]) {
      await settle();
      const all = transports[i].bytes();
      const fresh = all.subarray(delivered[i]);
      delivered[i] = all.length;
      if (fresh.length > 0) transports[1 - i].push(Buffer.from(fresh));
    }
  }
  await settle();
  if (messages[0].length !== 1 || messages[1].length !== 1) throw new Error('no conversation: ' + name);
  const wire = transports.map((transport) => transport.bytes());
  for (const us of [0, 1]) {
    const [ours, theirs] = us === 0 ? [initiator, responder] : [responder, initiator];
    streamArea.add('conversation', `${name}: the ${us === 0 ? 'initiator' : 'responder'}`, {
      pattern,
      is_initiator: us === 0,
      local: describe(ours, hex(keys[us].publicKey)),
      remote_public_key: hex(keys[1 - us].publicKey),
      comes: hex(wire[1 - us]),
    }, accept({
      // Up to the header's last 24 bytes, which are random.
      sent: hex(wire[us].subarray(0, upToHeader(wire[us]))),
      handshake_hash: hex(streams[0].handshakeHash),
      remote_public_key: hex(keys[1 - us].publicKey),
      messages: messages[us],
    }));
    if (theirs === ours) throw new Error('one end');
  }
  streams.forEach((noise) => noise.destroy());
}

// Where the random part of the header begins: it is in the one frame of 56 bytes.
function upToHeader(wire) {
  let at = 0;
  for (const each of frames(wire)) {
    at += each.length;
    if (each.length === 3 + 56) return at - 24;
  }
  throw new Error('no header');
}

async function main() {
  failures();
  recordDh();
  await recordStreams();
  await conversation('after XX', 'XX');
  await conversation('after IK', 'IK');
  noiseArea.write();
  streamArea.write();
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
