'use strict';
// The orders to a peer that is in a party, by `party.js`, and the rules that it has there. README.md lists them.

const { Party, Rules } = require('./party');

/** Shows every core to every member, and takes what they show, but for what it was told to keep and to deny. */
class Sharing extends Rules {
  constructor(member) {
    super();
    this.member = member;
  }

  async handshake(peer) {
    this.member.mayDeny('handshake');
    const theirs = await peer.introduceFeeds(this.member.shown());
    await this.member.release(peer);
    await this.member.take(peer, theirs);
  }

  async introduceFeeds(peer, feeds) {
    this.member.emit('introduced', { by: hex(peer.remotePublicKey), labels: feeds.map((feed) => feed.label) });
    this.member.mayDeny('introduceFeeds');
    const shown = this.member.shown();
    await this.member.release(peer);
    await this.member.take(peer, feeds);
    return shown;
  }

  async findFeed(peer, key) {
    this.member.mayDeny('findFeed');
    return this.member.cores().find((core) => core.discoveryKey.equals(key)) || null;
  }

  /** What was asked, backwards. */
  async request(peer, { type, value }) {
    this.member.mayDeny('request');
    return { type, value: Buffer.from(value).reverse() };
  }

  async ephemeral(peer, { type, value }) {
    this.member.emit('told', { by: hex(peer.remotePublicKey), type, hex: hex(value) });
  }
}

class Membership {
  /** `owner` is the peer that obeys the orders; `keep` names cores that are shown to nobody, `deny` rules that deny. */
  constructor(owner, { party, keep = [], deny = [], padTo = 0, finite = false }) {
    this.owner = owner;
    this.keep = keep;
    this.deny = deny;
    this.options = { padTo, finite };
    this.emit = owner.emit;
    this.party = new Party(Buffer.from(party, 'hex'), new Sharing(this));
    this.party.on('peer', (peer) => this.emit('admitted', { remotePublicKey: hex(peer.remotePublicKey) }));
    this.party.on('peer-left', (peer) => this.emit('left', { remotePublicKey: hex(peer.remotePublicKey) }));
  }

  async connect(stream) {
    const connection = this.party.connect(stream, this.options);
    if ((await connection.admission) === null) this.emit('refused');
  }

  mayDeny(rule) {
    if (this.deny.includes(rule)) throw new Error(`${rule} denies`);
  }

  /** By key, those that are kept left out. */
  named() {
    const named = [...this.owner.named].filter(([name]) => !this.keep.includes(name));
    return new Map(named.map(([name, core]) => [hex(core.key), { name, core }]));
  }

  cores() {
    return [...this.named().values()].map(({ core }) => core);
  }

  shown() {
    return [...this.named().values()].map(({ name, core }) => ({ key: core.key, label: name }));
  }

  async release(peer) {
    for (const core of this.cores()) await peer.replicate(core, { download: !core.writable });
  }

  /** Opens and wants what the peer brings, and brings what is new to the others who are here. */
  async take(peer, feeds) {
    for (const { key, label } of feeds) {
      const name = hex(key);
      const open = this.named().has(name) ? null : await this.owner.cores.open(key);
      // It may have been brought in another way meanwhile.
      const known = this.named().get(name);
      const core = known ? known.core : open;
      if (!known) this.owner.remember(label && !this.owner.named.has(label) ? label : name, core);
      await peer.replicate(core, { download: !core.writable });
      if (!known) this.bring(core, label, peer);
    }
  }

  bring(core, label, from) {
    for (const peer of this.party.peers) {
      if (peer === from) continue;
      // Whether they take it is their matter.
      peer.introduceFeeds([{ key: core.key, label }]).catch(() => {});
      peer.replicate(core, { download: true }).catch(() => {});
    }
  }

  find(publicKey) {
    const peer = [...this.party.peers].find((peer) => hex(peer.remotePublicKey) === publicKey);
    if (!peer) throw new Error(`no member ${publicKey} is here`);
    return peer;
  }
}

const partying = {
  // Connections that are made from now on are in this party.
  async enter(command) {
    this.membership = new Membership(this, command);
    return { publicKey: hex(this.keyPair.publicKey) };
  },

  async request({ to, type, hex: value }) {
    const answer = await this.membership.find(to).request(type, Buffer.from(value, 'hex'));
    return { type: answer.type, hex: hex(answer.value) };
  },

  async tell({ to, type, hex: value }) {
    this.membership.find(to).sendEphemeral(type, Buffer.from(value, 'hex'));
  },

  async release({ to, name }) {
    await this.membership.find(to).replicate(this.find(name), { download: true });
  },

  async withdraw({ to, name }) {
    await this.membership.find(to).withdraw(this.find(name));
  },

  async exclude({ publicKey }) {
    this.membership.party.exclude(Buffer.from(publicKey, 'hex'));
  },
};

function hex(buffer) {
  return Buffer.from(buffer).toString('hex');
}

module.exports = { partying };
