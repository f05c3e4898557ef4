'use strict';
// What the ends of a connection show each other, of a key and the connection's binding: protocol-spec/08-party.md#values,
// and the capability of protocol-spec/07-replication.md#capability. `sender` is whether the one who shows it is the initiator.

const sodium = require('sodium-universal');
const b4a = require('b4a');

const NAMESPACES = { party: namespaces('party', 3), hypercore: namespaces('hypercore', 3) };

/** The channel of a party on the connection with this binding. */
function channelId(binding, partyKey) {
  return hash(binding, [NAMESPACES.party[0], partyKey]);
}

/** Shows that one knows the party's key. */
function membership(binding, sender, partyKey) {
  return hash(binding, [NAMESPACES.party[sender ? 1 : 2], partyKey]);
}

/** Shows that one knows the feed's key. */
function capability(binding, sender, feedKey) {
  return hash(binding, [NAMESPACES.hypercore[sender ? 1 : 2], feedKey]);
}

/** What names the party on a discovery network, and nowhere on a connection. */
function discoveryKey(partyKey) {
  return hash(partyKey, [b4a.from('hypercore')]);
}

/** In a time that doesn't depend on where they differ. */
function equals(a, b) {
  return a.byteLength === b.byteLength && sodium.sodium_memcmp(a, b);
}

function random() {
  const out = b4a.alloc(32);
  sodium.randombytes_buf(out);
  return out;
}

function hash(key, parts) {
  const out = b4a.alloc(32);
  if (key) sodium.crypto_generichash_batch(out, parts, key);
  else sodium.crypto_generichash_batch(out, parts);
  return out;
}

function namespaces(name, count) {
  const named = hash(null, [b4a.from(name)]);
  return Array.from({ length: count }, (_, n) => hash(null, [named, b4a.from([n])]));
}

module.exports = { channelId, membership, capability, discoveryKey, equals, random };
