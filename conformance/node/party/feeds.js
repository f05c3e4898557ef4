'use strict';
// The channels of feeds on one connection: protocol-spec/08-party.md#party-mode. Hypercore replicates a feed by itself once it
// is attached to the connection's Protomux. What is left to do is to attach what is released and nothing else, to
// see the other side's capability before ours goes out, and to take it all back.

const b4a = require('b4a');
const c = require('compact-encoding');
const { capability, equals } = require('./proofs');

const PROTOCOL = 'hypercore/alpha';

class Feeds {
  constructor({ mux, opens, admitted }) {
    this.mux = mux;
    this.stream = mux.stream;
    this.opens = opens;
    /** Gives the peers that may ask for feeds: one for each party. */
    this.admitted = admitted;
    /** By discovery key: the core, by which peers it is released, and what of it is wanted. */
    this.released = new Map();
    /** Answers go out in the order of the opens. */
    this.turn = Promise.resolve();
    this.asking = 0;
    mux.pair({ protocol: PROTOCOL }, (id) => this.incoming(id));
  }

  async release(core, peer, download) {
    await core.ready();
    if (peer.closed) return;
    const name = b4a.toString(core.discoveryKey, 'hex');
    if (!this.released.has(name)) this.released.set(name, { core, peers: new Set(), download: null });
    const feed = this.released.get(name);
    feed.peers.add(peer);
    if (download && !feed.download) feed.download = core.download({ start: 0, end: -1 });
    if (!this.isOpen(core)) await this.attach(core);
  }

  async withdraw(core, peer) {
    const name = b4a.toString(core.discoveryKey, 'hex');
    const feed = this.released.get(name);
    if (!feed || !feed.peers.delete(peer) || feed.peers.size > 0) return;
    this.released.delete(name);
    if (feed.download) feed.download.destroy();
    await this.detach(core);
  }

  /** The peer is admitted no longer, and what only it was given goes. */
  async withdrawAll(peer) {
    await Promise.all([...this.released.values()].map(({ core }) => this.withdraw(core, peer)));
  }

  /** An open that is no answer to one of ours. It is rejected unless the feed's channel is opened by the time this ends. */
  async incoming(id) {
    const handshake = this.opens.take(PROTOCOL, id);
    if (id === null || this.admitted().length === 0) return;
    const finding = this.find(id);
    // A rule that takes its time holds up the answers after it, but not their rules.
    this.turn = this.turn.then(() => finding);
    this.asking++;
    try {
      const found = await this.turn;
      if (found === null || this.stream.destroyed || !this.isProved(handshake, found.core.key)) return;
      const peers = [...found.peers].filter((peer) => !peer.closed);
      if (peers.length === 0) return;
      const name = b4a.toString(id, 'hex');
      if (!this.released.has(name)) this.released.set(name, { core: found.core, peers: new Set(peers), download: null });
      if (!this.isOpen(found.core)) await this.attach(found.core);
    } finally {
      this.asking--;
    }
  }

  /** The feed that is released to the peer, or that the rules of a party name for it; and by which peers it is. Never fails. */
  async find(id) {
    const name = b4a.toString(id, 'hex');
    if (this.released.has(name)) return this.released.get(name);
    const asking = this.admitted().map(async (peer) => {
      const core = await peer.decide('findFeed', async () => {
        const core = await peer.party.rules.findFeed(peer, id);
        if (core) await core.ready();
        return core;
      });
      return core && b4a.equals(core.discoveryKey, id) ? { core, peer } : null;
    });
    const named = (await Promise.all(asking.map((answer) => answer.catch(() => null)))).filter((answer) => answer !== null);
    return named.length === 0 ? null : { core: named[0].core, peers: new Set(named.map(({ peer }) => peer)) };
  }

  //= protocol-spec/07-replication.md#capability
  isProved(handshake, key) {
    try {
      const state = { buffer: handshake, start: 0, end: handshake.byteLength };
      c.uint.decode(state);
      const shown = c.fixed32.decode(state);
      return equals(shown, capability(this.stream.handshakeHash, !this.stream.isInitiator, key));
    } catch {
      return false;
    }
  }

  isOpen(core) {
    return this.mux.opened({ protocol: PROTOCOL, id: core.discoveryKey });
  }

  /** Opens the channel, or answers the other side's open. */
  async attach(core) {
    const { replicator } = core.core;
    if (replicator.attached(this.mux)) replicator.detachFrom(this.mux);
    core.replicate(this.mux);
    // Hypercore would answer whoever opens the channel again, and has sent its capability by the time it looks at theirs.
    this.mux.unpair({ protocol: PROTOCOL, id: core.discoveryKey });
    // It opens the channel behind this promise.
    await this.stream.opened;
  }

  async detach(core) {
    core.core.replicator.detachFrom(this.mux);
    const channel = this.channel(core);
    if (channel === null || this.stream.destroyed) return;
    channel.close();
    await channel.fullyClosed();
  }

  channel(core) {
    return this.mux.getLastChannel({ protocol: PROTOCOL, id: core.discoveryKey });
  }

  /** Each feed was refused, or has all that it wants of what the other side has, and owes no answer. */
  areIdle() {
    if (this.asking > 0) return false;
    return [...this.released.values()].every(({ core, download }) => {
      const channel = this.channel(core);
      if (channel === null) return true;
      const link = core.peers.find((peer) => peer.channel === channel);
      if (!link || !channel.opened || link.stats.wireSync.rx === 0) return false;
      if (link.inflight > 0 || link.remoteRequests.size > 0 || link.syncsProcessing > 0) return false;
      if (link.remoteFork > core.fork || (link.remoteFork === core.fork && link.remoteLength > core.length)) return false;
      return !download || hasAllOf(core, link);
    });
  }
}

function hasAllOf(core, link) {
  const gapless = link.remoteContiguousLength;
  for (let index = core.contiguousLength; index < Math.min(core.length, link.remoteLength); index++) {
    if ((index < gapless || link.remoteBitfield.get(index)) && !core.core.bitfield.get(index)) return false;
  }
  return true;
}

module.exports = { Feeds };
