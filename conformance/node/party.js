'use strict';
// Parties for JavaScript: selective replication of hypercores among those who know a key, as protocol-spec/08-party.md says,
// on top of protomux, @hyperswarm/secret-stream and hypercore 11 as they are. It was written from that page alone, and speaks
// with the Rust library.
//
//     const { Party, Rules } = require('./party');
//
//     class Chat extends Rules {
//       async handshake(peer) {
//         await this.follow(peer, await peer.introduceFeeds([{ key: mine.key, label: 'chat' }]));
//         await peer.replicate(mine);
//       }
//       async introduceFeeds(peer, feeds) {
//         await this.follow(peer, feeds);
//         return [{ key: mine.key, label: 'chat' }];
//       }
//       async follow(peer, feeds) {
//         for (const { key } of feeds) await peer.replicate(store.get({ key }), { download: true });
//       }
//     }
//
//     const party = new Party(key, new Chat());
//     party.connect(stream);                                    // a secret stream, dialled or accepted
//     party.on('peer', (peer) => console.log(peer.remotePublicKey));

const { EventEmitter } = require('events');
const b4a = require('b4a');
const { Connection } = require('./party/connection');
const { CODES } = require('./party/messages');
const { RequestError } = require('./party/peer');
const { discoveryKey } = require('./party/proofs');

/**
 * What an application decides. Each may be async; one that throws, or takes more than 20 seconds, denies, and the peer
 * learns no more than that. These deny all that can be denied.
 */
class Rules {
  /** The peer was admitted; nothing was said yet. */
  async ready(peer) {}

  /** Now introduce feeds and release some. Denying here ends the peer's membership on this connection. */
  async handshake(peer) {}

  /** The peer brings `feeds`, `{ key, label }` each, of which nothing is verified. What is brought in return? */
  async introduceFeeds(peer, feeds) {
    throw new Error('no rule takes introductions');
  }

  /** The peer opens a feed that wasn't released to it: the hypercore with that discovery key, if it may have it, or null. */
  async findFeed(peer, key) {
    return null;
  }

  /** The peer asks something of the application's own, `{ type, value }`, and gets what is returned, of the same form. */
  async request(peer, message) {
    throw new Error('no rule answers requests');
  }

  /** The peer says something that wants no answer. Messages come one at a time, in their order. */
  async ephemeral(peer, message) {}
}

/** Emits `peer` (a `Peer` that was admitted) and `peer-left`. */
class Party extends EventEmitter {
  /** `key` has 32 bytes, and is shared by all members and nobody else. */
  constructor(key, rules = new Rules()) {
    super();
    if (key.byteLength !== 32) throw new Error('a party key has 32 bytes');
    this.key = key;
    this.rules = rules;
    this.peers = new Set();
    this.connections = new Set();
    this.excluded = new Set();
  }

  /** Under this members find each other on a discovery network. */
  get discoveryKey() {
    return discoveryKey(this.key);
  }

  /** A connection that is in this party; `Connection` says what `options` there are. `join` adds further parties. */
  connect(stream, options) {
    return new Connection(stream, [this], options);
  }

  /** Ends the membership of whoever holds this static key, and treats it as somebody who doesn't know the party key. */
  exclude(publicKey) {
    this.excluded.add(b4a.toString(publicKey, 'hex'));
    for (const peer of this.peers) if (this.isExcluded(peer.remotePublicKey)) peer.close();
  }

  readmit(publicKey) {
    this.excluded.delete(b4a.toString(publicKey, 'hex'));
  }

  isExcluded(publicKey) {
    return this.excluded.has(b4a.toString(publicKey, 'hex'));
  }

  arrived(peer) {
    this.peers.add(peer);
    this.emit('peer', peer);
  }

  departed(peer) {
    this.peers.delete(peer);
    this.emit('peer-left', peer);
  }
}

module.exports = { Party, Rules, Connection, RequestError, CODES };
