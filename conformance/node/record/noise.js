// Records conformance/vectors/noise.json and conformance/vectors/secret_stream.json from the packages that
// Node peers run. Every seed is fixed, so that a second run writes the same files.
//
//     node record/noise.js    in conformance/node, after `npm ci`

'use strict';

const fs = require('fs');
const path = require('path');
const sodium = require('sodium-universal');

const seed = (byte) => Buffer.alloc(32, byte);
const hex = (buffer) => Buffer.from(buffer).toString('hex');

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
  const { name, pattern, prologue = '', payloads = [], initiator, responder, change = null, about } = options;
  const parties = [initiator, responder].map((party, i) => {
    const noise = new Noise(pattern, i === 0, curve.generateKeyPair(seed(party.static)), { curve });
    noise.e = curve.generateKeyPair(seed(party.ephemeral));
    return noise;
  });
  const publicKeys = parties.map((noise) => hex(noise.s.publicKey));
  const dialled = options.dialled || parties[1].s.publicKey;
  parties[0].initialise(Buffer.from(prologue, 'hex'), pattern === 'IK' ? dialled : undefined);
  parties[1].initialise(Buffer.from(options.otherPrologue || prologue, 'hex'));

  const messages = [];
  let expect = 'ok';
  try {
    for (let i = 0; !(parties[0].complete && parties[1].complete); i++) {
      const payload = Buffer.from(payloads[i] || '', 'hex');
      const sent = parties[i % 2].send(payload);
      const bytes = change ? change(i, sent) || sent : sent;
      messages.push({ payload: hex(payload), sent: hex(sent), received: hex(bytes) });
      const read = parties[(i + 1) % 2].recv(bytes);
      if (!change && hex(read) !== hex(payload)) throw new Error('another payload: ' + name);
    }
  } catch (error) {
    if (!options.fails) throw error;
    expect = 'handshake_failed';
  }
  if (options.fails && expect === 'ok') throw new Error('Node accepts: ' + name);

  const result = {
    name,
    kind: 'handshake',
    expect,
    pattern,
    prologue,
    responder_prologue: options.otherPrologue || prologue,
    initiator: describe(initiator, publicKeys[0]),
    responder: describe(responder, publicKeys[1]),
    dialled: pattern === 'IK' ? hex(dialled) : null,
    messages
  };
  if (about) result.about = about;
  if (expect === 'ok') {
    const [a, b] = parties;
    if (hex(a.hash) !== hex(b.hash) || hex(a.tx) !== hex(b.rx)) throw new Error('no agreement: ' + name);
    result.handshake_hash = hex(a.hash);
    result.initiator_key = hex(a.tx);
    result.responder_key = hex(a.rx);
  }
  return result;
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

const handshakes = [
  handshake({ name: 'xx', pattern: 'XX', ...both }),
  handshake({ name: 'ik', pattern: 'IK', ...both }),
  handshake({
    name: 'xx_with_other_keys',
    pattern: 'XX',
    initiator: { static: 0x31, ephemeral: 0x32 },
    responder: { static: 0x41, ephemeral: 0x42 }
  }),
  handshake({ name: 'xx_with_oneself', pattern: 'XX', initiator, responder: { static: 0x11, ephemeral: 0x22 } }),
  handshake({
    name: 'xx_with_prologue_and_payloads',
    pattern: 'XX',
    prologue: '70726f6c6f677565',
    payloads: ['01', '0202', '030303'],
    ...both
  }),
  handshake({
    name: 'ik_with_prologue_and_payloads',
    about: 'the shape of the DHT handshake',
    pattern: 'IK',
    prologue: 'c1'.repeat(33),
    payloads: ['a5'.repeat(200), '5a'.repeat(300)],
    ...both
  }),
  handshake({
    name: 'xx_ephemeral_of_initiator_is_the_identity',
    fails: true,
    pattern: 'XX',
    ...both,
    change: only(0, () => point('01'))
  }),
  handshake({
    name: 'xx_ephemeral_of_initiator_is_zero',
    fails: true,
    pattern: 'XX',
    ...both,
    change: only(0, () => point('00'))
  }),
  handshake({
    name: 'xx_ephemeral_of_responder_is_the_identity',
    fails: true,
    pattern: 'XX',
    ...both,
    change: only(1, (m) => Buffer.concat([point('01'), m.subarray(32)]))
  }),
  handshake({
    name: 'xx_first_message_is_cut',
    fails: true,
    pattern: 'XX',
    ...both,
    change: only(0, (m) => m.subarray(0, 31))
  }),
  handshake({
    name: 'xx_first_message_is_empty',
    fails: true,
    pattern: 'XX',
    ...both,
    change: only(0, () => Buffer.alloc(0))
  }),
  handshake({
    name: 'xx_first_message_has_a_byte_that_was_not_sent',
    fails: true,
    pattern: 'XX',
    ...both,
    change: only(0, (m) => Buffer.concat([m, Buffer.alloc(1)]))
  }),
  handshake({
    name: 'xx_second_message_is_cut',
    fails: true,
    pattern: 'XX',
    ...both,
    change: only(1, (m) => m.subarray(0, 80))
  }),
  handshake({
    name: 'xx_flip_in_the_ephemeral_key_of_the_responder',
    fails: true,
    pattern: 'XX',
    ...both,
    change: only(1, flip(3))
  }),
  handshake({
    name: 'xx_flip_in_the_sealed_static_key_of_the_responder',
    fails: true,
    pattern: 'XX',
    ...both,
    change: only(1, flip(40))
  }),
  handshake({
    name: 'xx_flip_in_the_last_byte_of_the_second_message',
    fails: true,
    pattern: 'XX',
    ...both,
    change: only(1, flip(-1, 0x80))
  }),
  handshake({
    name: 'xx_flip_in_the_sealed_static_key_of_the_initiator',
    fails: true,
    pattern: 'XX',
    ...both,
    change: only(2, flip(0))
  }),
  handshake({
    name: 'xx_flip_in_the_last_byte_of_the_third_message',
    fails: true,
    pattern: 'XX',
    ...both,
    change: only(2, flip(-1))
  }),
  handshake({
    name: 'xx_with_different_prologues',
    fails: true,
    pattern: 'XX',
    prologue: '01',
    otherPrologue: '02',
    ...both
  }),
  handshake({
    name: 'ik_dialling_another_key',
    fails: true,
    pattern: 'IK',
    dialled: curve.generateKeyPair(seed(0x77)).publicKey,
    ...both
  }),
  handshake({
    name: 'ik_flip_in_the_first_message',
    fails: true,
    pattern: 'IK',
    ...both,
    change: only(0, flip(50))
  }),
  handshake({
    name: 'ik_flip_in_the_second_message',
    fails: true,
    pattern: 'IK',
    ...both,
    change: only(1, flip(-1))
  }),
  handshake({
    name: 'ik_with_different_prologues',
    fails: true,
    pattern: 'IK',
    prologue: '01',
    otherPrologue: '02',
    ...both
  })
];

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

function diffieHellman(name, publicKey, options = {}) {
  const pair = curve.generateKeyPair(options.seed || seed(0x11));
  let shared = null;
  try {
    shared = hex(curve.dh(publicKey, pair));
  } catch {}
  const expect = options.expect || 'ok';
  const node = shared === null ? 'refused' : 'ok';
  if (node !== expect && !options.knownFault) throw new Error(`Node says ${node}: ${name}`);
  const result = {
    name,
    kind: 'diffie_hellman',
    expect,
    seed: hex(pair.secretKey.subarray(0, 32)),
    public_key: hex(publicKey)
  };
  if (expect === 'ok') result.shared = shared;
  if (node !== expect)
    result.about = 'accepted by the libsodium of this Node, whose check of the subgroup is incomplete';
  return result;
}

function dhCases() {
  const honest = curve.generateKeyPair(seed(0x21)).publicKey;
  const cases = [
    diffieHellman('an_honest_key', honest),
    diffieHellman('another_honest_key', curve.generateKeyPair(seed(0x22)).publicKey, { seed: seed(0xff) }),
    diffieHellman('with_itself', curve.generateKeyPair(seed(0x11)).publicKey)
  ];
  for (const [name, encoded] of Object.entries(SMALL)) {
    cases.push(diffieHellman('a_point_' + name, encoded, { expect: 'refused' }));
  }
  for (const [name, encoded] of Object.entries(SMALL)) {
    if (name === 'of_order_1') continue;
    const sum = Buffer.alloc(32);
    sodium.crypto_core_ed25519_add(sum, honest, encoded);
    cases.push(diffieHellman('an_honest_key_plus_a_point_' + name, sum, { expect: 'refused', knownFault: true }));
  }
  const refused = {
    what_is_no_point: point('02'),
    all_ones: point('ff', 'ff'),
    a_second_encoding_of_the_identity: point('ee', 'ff', '7f'),
    the_identity_with_a_sign: point('01', '00', '80'),
    minus_one_with_a_sign: point('ec', 'ff'),
    a_second_encoding_of_zero: point('ed', 'ff', '7f'),
    // y = 3 is the y of a point, and 3 + p its second encoding.
    a_second_encoding_of_a_large_point: point('f0', 'ff', '7f')
  };
  for (const [name, encoded] of Object.entries(refused)) {
    cases.push(diffieHellman(name, encoded, { expect: 'refused' }));
  }
  return cases;
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

async function streamCase(name, isInitiator, messages) {
  const wire = await send(isInitiator, messages);
  return received(name, isInitiator, wire, { expect: 'ok', canonical: true, messages });
}

// `isInitiator` says who sends; `messages`, what must arrive, keep-alives included.
async function received(name, isInitiator, wire, { expect, canonical = false, messages = null, about = null }) {
  const outcome = await receive(!isInitiator, wire);
  if ((outcome.error === null) !== (expect === 'ok')) {
    throw new Error(`Node says ${outcome.error || 'ok'}: ${name}`);
  }
  const arriving = messages && messages.filter((message) => message.length > 0).map(hex);
  if (messages && JSON.stringify(arriving) !== JSON.stringify(outcome.messages)) {
    throw new Error('other messages: ' + name);
  }
  const result = {
    name,
    kind: 'stream',
    expect,
    handshake_hash: hex(HASH),
    sender_is_initiator: isInitiator,
    sender_key: hex(isInitiator ? INITIATOR_KEY : RESPONDER_KEY),
    sender_header: hex(HEADERS[isInitiator ? 0 : 1]),
    // Whether a sender with these keys and this header must write exactly these bytes.
    canonical,
    // An empty one is a keep-alive.
    messages: messages ? messages.map(hex) : outcome.messages,
    wire: hex(wire)
  };
  if (about) result.about = about;
  return result;
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

async function streamCases() {
  const three = text('first', 'second', 'third');
  const whole = await send(true, three);
  const [header, first, second, third] = frames(whole);
  const join = (...list) => Buffer.concat(list);
  const bad = (name, wire, expect, about) => received(name, true, wire, { expect, about });
  const seal = sealer(true);
  const tags = ['MESSAGE', 'PUSH', 'REKEY', 'FINAL', 'MESSAGE'].map((tag) => {
    const value = sodium['crypto_secretstream_xchacha20poly1305_TAG_' + tag];
    return seal(Buffer.from('tag ' + tag), typeof value === 'number' ? value : value[0]);
  });
  const odd = seal(Buffer.from('tag of no name'), 0x55);

  return [
    await streamCase('nothing_but_the_header', true, []),
    await streamCase('initiator_sends', true, three),
    await streamCase('responder_sends', false, three),
    await streamCase('keep_alives_between_messages', true, text('', 'one', '', '', 'two')),
    await streamCase(
      'lengths_around_the_blocks_of_cipher_and_mac',
      false,
      [1, 14, 15, 16, 17, 31, 32, 33, 62, 63, 64, 65, 127, 128, 129, 255, 256, 257].map((length) =>
        Buffer.alloc(length, length)
      )
    ),
    await streamCase('a_message_of_5000_bytes', true, [
      Buffer.from(Array.from({ length: 5000 }, (_, i) => i & 255))
    ]),
    await received('tags_are_taken_as_they_come', true, join(header, ...tags, odd), {
      expect: 'ok',
      about: 'REKEY and FINAL change the keys; no tag ends the stream'
    }),
    await bad('header_of_5_bytes', frame(header.subarray(3, 8)), 'wrong_stream_header'),
    await bad('header_of_55_bytes', frame(header.subarray(3, 58)), 'wrong_stream_header'),
    await bad('header_of_57_bytes', frame(join(header.subarray(3), Buffer.alloc(1))), 'wrong_stream_header'),
    await bad('header_with_a_wrong_id', join(flip(3)(header), first), 'wrong_stream_header'),
    await bad(
      'header_with_the_id_of_the_receiver',
      frames(await send(false, []))[0],
      'wrong_stream_header',
      'what a peer gets by reflecting bytes'
    ),
    await bad('header_with_a_wrong_nonce', join(flip(-1)(header), first), 'decryption_failed'),
    await bad('no_header', join(first, second), 'wrong_stream_header'),
    await bad('a_frame_of_0_bytes', join(header, first, frame(Buffer.alloc(0)), second), 'frame_length'),
    await bad('a_frame_of_1_byte', join(header, first, frame(Buffer.alloc(1))), 'frame_length'),
    await bad('a_frame_of_16_bytes', join(header, first, frame(Buffer.alloc(16))), 'frame_length'),
    await bad('a_frame_of_17_zeros', join(header, frame(Buffer.alloc(17))), 'decryption_failed'),
    await bad('a_flip_in_the_tag', join(header, flip(3)(first)), 'decryption_failed'),
    await bad('a_flip_in_the_message', join(header, first, flip(5)(second)), 'decryption_failed'),
    await bad('a_flip_in_the_mac', join(header, flip(-1)(first)), 'decryption_failed'),
    await bad('a_frame_twice', join(header, first, first), 'decryption_failed'),
    await bad('a_frame_left_out', join(header, second), 'decryption_failed'),
    await bad('frames_exchanged', join(header, second, first, third), 'decryption_failed'),
    await bad('the_header_twice', join(header, header, first), 'decryption_failed')
  ];
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
  const result = {
    name,
    kind: 'conversation',
    expect: 'ok',
    pattern,
    initiator: describe(initiator, hex(keys[0].publicKey)),
    responder: describe(responder, hex(keys[1].publicKey)),
    handshake_hash: hex(streams[0].handshakeHash),
    from_initiator: hex(transports[0].bytes()),
    from_responder: hex(transports[1].bytes()),
    messages_to_initiator: messages[0],
    messages_to_responder: messages[1]
  };
  if (messages[0].length !== 1 || messages[1].length !== 1) throw new Error('no conversation: ' + name);
  streams.forEach((noise) => noise.destroy());
  return result;
}

function write(name, value) {
  const file = path.join(__dirname, '..', '..', 'vectors', name);
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, JSON.stringify(value, null, 2) + '\n');
}

async function main() {
  const versions = (...names) =>
    names.map((name) => name + ' ' + require(name + '/package.json').version).join(', ');
  write('noise.json', {
    about:
      'Noise handshakes, as messages without frames, and Diffie-Hellman on Ed25519 keys. Where expect is not ok, ' +
      'whoever receives the last message must fail, or has failed when it should answer.',
    source: versions('noise-handshake', 'noise-curve-ed', 'sodium-universal'),
    cases: [...handshakes, ...dhCases()]
  });
  write('secret_stream.json', {
    about:
      'What a secret stream sends from the end of the handshake on, and what the receiver must make of it; and two ' +
      'conversations, handshake and all.',
    source: versions('@hyperswarm/secret-stream', 'sodium-secretstream', 'sodium-universal'),
    cases: [
      ...(await streamCases()),
      await conversation('a_conversation_after_xx', 'XX'),
      await conversation('a_conversation_after_ik', 'IK')
    ]
  });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
