'use strict';
// One connection in party mode: who is admitted to which of our parties (protocol-spec/08-party.md#admission), and when there
// is nothing left to do on it.

const { EventEmitter } = require('events');
const b4a = require('b4a');
const c = require('compact-encoding');
const Protomux = require('protomux');
const { Feeds } = require('./feeds');
const { hello } = require('./messages');
const { Opens } = require('./opens');
const { Peer } = require('./peer');
const { channelId, equals, membership, random } = require('./proofs');

const PROTOCOL = 'party/1';
const VERSION = 1;
/** How many offers a responder remembers, in case that it joins their party later. */
const OFFERS = 64;
const KEEP_ALIVE = 5000;
/** The longest that anybody is kept without having been admitted: from the handshake on, whatever was offered. */
const ADMIT_WITHIN = 30_000;
/** How often a connection looks whether it is done. */
const SETTLE_EVERY = 50;

/** Emits `close`. */
class Connection extends EventEmitter {
  /**
   * `stream` is a secret stream on which nobody has put a Protomux. `padTo`: so many parties are offered, those beyond
   * `parties` being none. `finite`: it ends by itself when both sides are done.
   */
  constructor(stream, parties, { padTo = 0, finite = false } = {}) {
    super();
    if (stream.userData) throw new Error('the stream is in use');
    this.stream = stream;
    this.finite = finite;
    this.mux = null;
    this.feeds = null;
    /** By channel id, in hex. */
    this.parties = new Map();
    this.peers = new Map();
    this.offers = new Set();
    this.refusing = new Set();
    this.unanswered = 0;
    this.everAdmitted = false;
    /** The first peer that is admitted, or null if the connection ended and none was. */
    this.admission = new Promise((resolve) => (this.decided = resolve));
    stream.on('error', () => {});
    stream.on('close', () => this.ended());
    stream.opened.then((isOpen) => isOpen && this.begin(parties, padTo));
  }

  get isInitiator() {
    return this.stream.isInitiator;
  }

  /** A party that is joined while the connection lives. */
  join(party) {
    const id = channelId(this.stream.handshakeHash, party.key);
    const name = b4a.toString(id, 'hex');
    if (this.parties.has(name)) return;
    this.parties.set(name, party);
    party.connections.add(this);
    // Who dialled says which parties it is in; who was dialled never shows one that it hasn't been offered.
    if (this.isInitiator || this.offers.has(name)) this.offer(id, party);
  }

  /** Leaves the party here. The other side may open it again, and is refused. */
  leave(party) {
    for (const [name, other] of this.parties) {
      if (other !== party) continue;
      this.parties.delete(name);
      party.connections.delete(this);
      if (this.peers.has(name)) this.peers.get(name).close();
    }
  }

  /** Ends the connection, once what was sent has been handed over. */
  close() {
    this.stream.end();
  }

  begin(parties, padTo) {
    this.stream.setKeepAlive(KEEP_ALIVE);
    const opens = new Opens(this.stream);
    this.mux = Protomux.from(this.stream);
    this.feeds = new Feeds({ mux: this.mux, opens, admitted: () => this.admitted() });
    this.mux.pair({ protocol: PROTOCOL }, (id) => this.incoming(id, opens.take(PROTOCOL, id)));
    this.mux.cork();
    const joins = parties.map((party) => () => this.join(party));
    while (this.isInitiator && joins.length < padTo) joins.push(() => this.decoy());
    for (const join of shuffled(joins)) join();
    this.mux.uncork();
    this.patience = setTimeout(() => this.everAdmitted || this.close(), ADMIT_WITHIN);
    this.settling = setInterval(() => this.settle(), SETTLE_EVERY);
  }

  /** Opens the channel of a party: what comes in answer must be verified before anything is said. */
  offer(id, party) {
    const peer = new Peer(this, party);
    this.unanswered++;
    this.open(id, this.proof(party), peer, {
      onanswer: () => this.unanswered--,
      onopen: (payload) => (this.isWelcome(payload, party) ? this.admit(id, peer) : peer.close()),
    });
  }

  /** An offer of a party that there is not, so that the number of ours doesn't show. */
  decoy() {
    const peer = { messages: [], farewell: () => {} };
    this.unanswered++;
    this.open(random(), random(), peer, {
      onanswer: () => this.unanswered--,
      // Nobody can answer it but by a reject, or with what is a wrong Hello.
      onopen: () => peer.channel.close(),
    });
  }

  /** An open that is no answer to one of ours. It is rejected unless it is answered by the time this returns. */
  incoming(id, payload) {
    if (id === null || id.byteLength !== 32) return;
    const name = b4a.toString(id, 'hex');
    const party = this.parties.get(name);
    // Protomux rejects a little later, and answers the first of several opens: one that comes before that is refused, too.
    if (party && !this.refusing.has(name) && !this.mux.opened({ protocol: PROTOCOL, id }) && this.isWelcome(payload, party)) {
      const peer = new Peer(this, party);
      this.open(id, this.proof(party), peer, { onanswer: () => {}, onopen: () => this.admit(id, peer) });
      return;
    }
    this.refusing.add(name);
    setImmediate(() => this.refusing.delete(name));
    if (!this.isInitiator) this.remember(name);
  }

  open(id, proof, peer, { onanswer, onopen }) {
    const name = b4a.toString(id, 'hex');
    let isOpen = false;
    peer.channel = this.mux.createChannel({
      protocol: PROTOCOL,
      id,
      handshake: c.raw,
      messages: peer.messages,
      onopen: (payload) => {
        isOpen = true;
        onanswer();
        onopen(payload);
      },
      onclose: () => {
        if (!isOpen) onanswer();
        if (this.peers.get(name) === peer) this.peers.delete(name);
        // Whoever it was that closed it, the other side may come back.
        if (isOpen && !this.isInitiator) this.remember(name);
        peer.farewell();
        this.feeds.withdrawAll(peer);
        this.giveUpIfRefused();
      },
    });
    if (peer.channel === null) return;
    this.offers.delete(name);
    peer.channel.open(hello.encode({ proof }));
  }

  admit(id, peer) {
    this.peers.set(b4a.toString(id, 'hex'), peer);
    this.everAdmitted = true;
    this.decided(peer);
    peer.welcome();
  }

  admitted() {
    return [...this.peers.values()];
  }

  //= protocol-spec/08-party.md#values
  proof(party) {
    return membership(this.stream.handshakeHash, this.isInitiator, party.key);
  }

  isWelcome(payload, party) {
    const expected = membership(this.stream.handshakeHash, !this.isInitiator, party.key);
    try {
      const { version, proof } = hello.decode(payload);
      return version === VERSION && equals(proof, expected) && !party.isExcluded(this.stream.remotePublicKey);
    } catch {
      return false;
    }
  }

  remember(name) {
    this.offers.delete(name);
    this.offers.add(name);
    if (this.offers.size > OFFERS) this.offers.delete(this.offers.values().next().value);
  }

  //= protocol-spec/08-party.md#what-this-hides-and-what-not
  giveUpIfRefused() {
    // Not before the decoys have been answered, too, or it would show which they were.
    if (this.isInitiator && !this.everAdmitted && this.unanswered === 0) this.close();
  }

  //= protocol-spec/08-party.md#finish
  settle() {
    const peers = this.admitted();
    if (!this.finite && peers.every((peer) => peer.finished)) return;
    if (peers.length === 0 || !peers.every((peer) => peer.isIdle()) || !this.feeds.areIdle()) return;
    for (const peer of peers) if (!peer.finished) peer.finish();
    if (this.finite && peers.every((peer) => peer.remoteFinished)) this.close();
  }

  ended() {
    clearTimeout(this.patience);
    clearInterval(this.settling);
    for (const party of this.parties.values()) party.connections.delete(this);
    this.decided(null);
    this.emit('close');
  }
}

function shuffled(items) {
  return items.map((item) => ({ item, at: random() })).sort((a, b) => b4a.compare(a.at, b.at)).map(({ item }) => item);
}

module.exports = { Connection };
