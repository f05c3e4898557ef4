'use strict';
// The messages of the party channel, as protocol-spec/party.proto has them: `encode` beside `decode`, and the few lines of
// protobuf that they need. What is not such a message throws `Malformed`.

const b4a = require('b4a');

const MAX_ID = Number.MAX_SAFE_INTEGER;
const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const GROUP = 3;
const GROUP_END = 4;
const FIXED32 = 5;
/** Unknown groups within each other. */
const MAX_DEPTH = 64;

class Malformed extends Error {}

const CODES = { REFUSED: 1, TIMEOUT: 2, BUSY: 3, UNSUPPORTED: 4 };

const hello = {
  encode: ({ features = 0, proof }) => message([number(1, 1), number(2, features), bytes(3, proof)]),
  decode(buffer) {
    const value = { version: 0, features: 0, proof: b4a.alloc(0) };
    read(buffer, {
      1: [VARINT, (version) => (value.version = version)],
      2: [VARINT, (features) => (value.features = features)],
      3: [BYTES, (proof) => (value.proof = proof)],
    });
    return value;
  },
};

/** Both `Request` and `Response`: an id, and a body `{ introduceFeeds }` or `{ custom }`, or null if it is of no kind that we know. */
const transaction = {
  encode({ id, body }) {
    const { introduceFeeds, custom } = body;
    const field = introduceFeeds ? part(2, introduction.encode(introduceFeeds)) : part(3, customs.encode(custom));
    return message([number(1, id), field]);
  },
  decode(buffer) {
    const value = { id: 0, body: null };
    // One that comes twice is the two put together; of two kinds the last one counts.
    const parts = { introduceFeeds: [], custom: [] };
    let kind = null;
    const hear = (name) => (part) => {
      if (kind !== name) parts[name] = [];
      kind = name;
      parts[name].push(part);
    };
    read(buffer, {
      1: [VARINT, (id) => (value.id = id)],
      2: [BYTES, hear('introduceFeeds')],
      3: [BYTES, hear('custom')],
    });
    if (kind === 'introduceFeeds') value.body = { introduceFeeds: introduction.decode(b4a.concat(parts[kind])) };
    if (kind === 'custom') value.body = { custom: customs.decode(b4a.concat(parts[kind])) };
    return value;
  },
};

const failure = {
  encode: ({ id, code, reason = '' }) => message([number(1, id), number(2, code), text(3, reason)]),
  decode(buffer) {
    const value = { id: 0, code: 0, reason: '' };
    read(buffer, {
      1: [VARINT, (id) => (value.id = id)],
      2: [VARINT, (code) => (value.code = code)],
      3: [BYTES, (reason) => (value.reason = utf8(reason))],
    });
    return value;
  },
};

const ephemeral = {
  encode: (custom) => message([part(1, customs.encode(custom))]),
  decode(buffer) {
    const parts = [];
    read(buffer, { 1: [BYTES, (custom) => parts.push(custom)] });
    return customs.decode(b4a.concat(parts));
  },
};

const finish = {
  encode: () => b4a.alloc(0),
  decode: (buffer) => read(buffer, {}),
};

/** Feeds `{ key, label }`; a label that is empty is none. */
const introduction = {
  encode(feeds) {
    const labels = feeds.map((feed) => feed.label || '');
    while (labels.length > 0 && labels[labels.length - 1] === '') labels.pop();
    return message([...feeds.map((feed) => part(1, feed.key)), ...labels.map((label) => part(2, b4a.from(label)))]);
  },
  decode(buffer) {
    const keys = [];
    const labels = [];
    read(buffer, { 1: [BYTES, (key) => keys.push(key)], 2: [BYTES, (label) => labels.push(label)] });
    if (keys.some((key) => key.byteLength !== 32)) throw new Malformed('a feed key without 32 bytes');
    if (labels.length > keys.length) throw new Malformed('a label of no feed');
    // Kept for long, so not as parts of what came.
    return keys.map((key, n) => ({ key: b4a.from(key), label: n < labels.length ? utf8(labels[n]) : '' }));
  },
};

/** A value of the application: `{ type, value }`. */
const customs = {
  encode: ({ type, value }) => message([text(1, type), bytes(2, value)]),
  decode(buffer) {
    const custom = { type: '', value: b4a.alloc(0) };
    read(buffer, {
      1: [BYTES, (type) => (custom.type = utf8(type))],
      2: [BYTES, (value) => (custom.value = b4a.from(value))],
    });
    return custom;
  },
};

/** Calls for each field of `buffer` what `fields` has for its number, if it is of that wire type; others are passed over. */
function read(buffer, fields) {
  const state = { buffer, at: 0 };
  while (state.at < buffer.byteLength) {
    const tag = varint(state);
    const [field, type] = [Math.floor(tag / 8), tag % 8];
    if (field === 0) throw new Malformed('a field without a number');
    const known = fields[field];
    if (known && known[0] !== type) throw new Malformed(`field ${field} of another wire type`);
    const value = skip(state, type, field, 0);
    if (known) known[1](value);
  }
}

function skip(state, type, field, depth) {
  switch (type) {
    case VARINT:
      return varint(state);
    case FIXED64:
      return take(state, 8);
    case FIXED32:
      return take(state, 4);
    case BYTES:
      return take(state, varint(state));
    case GROUP:
      if (depth === MAX_DEPTH) throw new Malformed('groups within groups');
      for (;;) {
        const tag = varint(state);
        const inner = Math.floor(tag / 8);
        if (tag % 8 !== GROUP_END) skip(state, tag % 8, inner, depth + 1);
        else if (inner === field) return undefined;
        else throw new Malformed('the end of another group');
      }
    default:
      throw new Malformed('no such wire type');
  }
}

function take(state, length) {
  if (length > state.buffer.byteLength - state.at) throw new Malformed('a field beyond the end');
  return state.buffer.subarray(state.at, (state.at += length));
}

/** Exact up to 2^53 - 1; what is above stays above. */
function varint(state) {
  let value = 0;
  for (let n = 0; n < 10; n++) {
    if (state.at === state.buffer.byteLength) throw new Malformed('a number beyond the end');
    const byte = state.buffer[state.at++];
    value += (byte & 0x7f) * 2 ** (7 * n);
    if (byte < 0x80) return value;
  }
  throw new Malformed('a number of more than 64 bits');
}

function utf8(buffer) {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(buffer);
  } catch {
    throw new Malformed('no UTF-8');
  }
}

function message(parts) {
  return b4a.concat(parts);
}

/** A field that is written even if it is empty. */
function part(field, value) {
  return b4a.concat([b4a.from(uint(field * 8 + BYTES)), b4a.from(uint(value.byteLength)), value]);
}

function bytes(field, value) {
  return value.byteLength > 0 ? part(field, value) : b4a.alloc(0);
}

function text(field, value) {
  return bytes(field, b4a.from(value));
}

function number(field, value) {
  return value === 0 ? b4a.alloc(0) : b4a.from([...uint(field * 8 + VARINT), ...uint(value)]);
}

function uint(value) {
  const out = [];
  for (; value >= 0x80; value = Math.floor(value / 0x80)) out.push((value % 0x80) | 0x80);
  return [...out, value];
}

module.exports = { CODES, MAX_ID, Malformed, hello, transaction, failure, ephemeral, finish };
