'use strict';
// One peer that is admitted to one party: what we ask it, and what it asks our rules (protocol-spec/08-party.md#messages).

const { EventEmitter } = require('events');
const c = require('compact-encoding');
const { CODES, MAX_ID, Malformed, transaction, failure, ephemeral, finish } = require('./messages');

const REQUEST = 0;
const RESPONSE = 1;
const ERROR = 2;
const EPHEMERAL = 3;
const FINISH = 4;

/** How much a peer may cause here, and times in milliseconds. */
const LIMITS = {
  payload: 1024 * 1024,
  feeds: 4096,
  label: 256,
  transactions: 64,
  ephemerals: 256,
  strays: 16,
  givenUp: 1024,
  answerWithin: 30_000,
  decideWithin: 20_000,
};

/** What a request failed with: `code` is one of `CODES`. */
class RequestError extends Error {
  constructor(code, reason) {
    super(`the peer answered with ${Object.keys(CODES).find((name) => CODES[name] === code)}`);
    this.code = code;
    this.reason = reason;
  }
}

class RuleTimeout extends Error {}

/** Emits `left` when its membership is over, and `rule-failed` (rule, error). */
class Peer extends EventEmitter {
  constructor(connection, party) {
    super();
    this.connection = connection;
    this.party = party;
    this.remotePublicKey = connection.stream.remotePublicKey;
    this.channel = null;
    /** Both ends have verified, and the rules may talk. */
    this.admitted = false;
    this.closed = false;
    /** The last message that came, and the last one sent, was a Finish. */
    this.remoteFinished = false;
    this.finished = false;
    /** Rules that are being asked on its behalf. */
    this.busy = 0;
    this.asked = new Map();
    this.givenUp = new Set();
    this.lastId = 0;
    this.lastRemoteId = 0;
    this.answering = 0;
    this.strays = 0;
    this.ephemerals = [];
    /** By their number on the channel. */
    this.messages = [this.onrequest, this.onresponse, this.onerror, this.onephemeral, finish.decode].map(
      (act, type) => ({ encoding: c.raw, onmessage: (payload) => this.receive(type, act, payload) }),
    );
  }

  /** Says which feeds we bring, `{ key, label }` each, and gives those that the peer brings in return. */
  async introduceFeeds(feeds) {
    if (feeds.length > LIMITS.feeds) throw new Error('too many feeds for one introduction');
    checkLabels(feeds);
    return (await this.ask({ introduceFeeds: feeds })).introduceFeeds;
  }

  /** Asks something of the application's own, and gives its answer, `{ type, value }`. */
  async request(type, value) {
    return (await this.ask({ custom: { type, value } })).custom;
  }

  /** Says something that wants no answer. */
  sendEphemeral(type, value) {
    this.send(EPHEMERAL, ephemeral.encode({ type, value }));
  }

  /** Replicates a hypercore with this peer; with `download`, everything of it is wanted from now on. */
  replicate(core, { download = false } = {}) {
    if (!this.admitted || this.closed) throw new Error('the peer is not admitted');
    return this.connection.feeds.release(core, this, download);
  }

  /** Takes that back: resolves when the feed goes to this peer no more, unless another party releases it. */
  withdraw(core) {
    return this.connection.feeds.withdraw(core, this);
  }

  /** Ends the membership; the connection goes on. */
  close() {
    if (this.channel) this.channel.close();
  }

  // From here on: for this folder only.

  async welcome() {
    this.admitted = true;
    this.party.arrived(this);
    try {
      await this.decide('ready', () => this.party.rules.ready(this));
      await this.decide('handshake', () => this.party.rules.handshake(this));
    } catch {
      this.close();
    }
  }

  farewell() {
    if (this.closed) return;
    this.closed = true;
    for (const { fail, timer } of this.asked.values()) {
      clearTimeout(timer);
      fail(new Error('the peer is gone'));
    }
    this.asked.clear();
    if (!this.admitted) return;
    this.party.departed(this);
    this.emit('left');
  }

  isIdle() {
    return this.busy === 0 && this.answering === 0 && this.asked.size === 0 && this.ephemerals.length === 0;
  }

  finish() {
    this.finished = true;
    this.send(FINISH, finish.encode());
  }

  send(type, payload) {
    if (!this.admitted || this.closed) throw new Error('the peer is not admitted');
    if (payload.byteLength > LIMITS.payload) throw new Error('too long for one message');
    if (type !== FINISH) this.finished = false;
    this.channel.messages[type].send(payload);
  }

  ask(body) {
    const id = this.lastId + 1;
    this.send(REQUEST, transaction.encode({ id, body }));
    this.lastId = id;
    return new Promise((succeed, fail) => {
      const timer = setTimeout(() => {
        this.asked.delete(id);
        this.givenUp.add(id);
        if (this.givenUp.size > LIMITS.givenUp) this.givenUp.delete(this.givenUp.values().next().value);
        fail(new Error('no answer in time'));
      }, LIMITS.answerWithin);
      this.asked.set(id, { kind: Object.keys(body)[0], succeed, fail, timer });
    });
  }

  /** What a rule says, or an error if it fails or takes too long. */
  async decide(rule, ask) {
    this.busy++;
    let timer;
    try {
      const late = new Promise((_, fail) => {
        timer = setTimeout(() => fail(new RuleTimeout(`${rule} has not decided in time`)), LIMITS.decideWithin);
      });
      return await Promise.race([(async () => ask())(), late]);
    } catch (error) {
      this.emit('rule-failed', rule, error);
      throw error;
    } finally {
      clearTimeout(timer);
      this.busy--;
    }
  }

  /** Never throws, or Protomux would end the connection: a peer that is broken loses its channel. */
  receive(type, act, payload) {
    if (!this.admitted || this.closed) return;
    this.remoteFinished = type === FINISH;
    try {
      if (payload.byteLength > LIMITS.payload) throw new Malformed('too long a message');
      act.call(this, payload);
    } catch (error) {
      this.emit('misbehaved', error);
      this.close();
    }
  }

  onrequest(payload) {
    const { id, body } = transaction.decode(payload);
    if (id <= this.lastRemoteId || id > MAX_ID) throw new Malformed('an id that is not the next one');
    checkIntroduction(body);
    this.lastRemoteId = id;
    if (this.answering === LIMITS.transactions) this.fail(id, CODES.BUSY);
    else if (body === null) this.fail(id, CODES.UNSUPPORTED);
    else this.answer(id, body);
  }

  async answer(id, body) {
    const { rules } = this.party;
    this.answering++;
    try {
      let answer;
      if (body.introduceFeeds) {
        const feeds = await this.decide('introduceFeeds', () => rules.introduceFeeds(this, body.introduceFeeds));
        checkLabels(feeds);
        answer = { introduceFeeds: feeds };
      } else {
        answer = { custom: await this.decide('request', () => rules.request(this, body.custom)) };
      }
      if (!this.closed) this.send(RESPONSE, transaction.encode({ id, body: answer }));
    } catch (error) {
      if (!this.closed) this.fail(id, error instanceof RuleTimeout ? CODES.TIMEOUT : CODES.REFUSED);
    } finally {
      this.answering--;
    }
  }

  fail(id, code) {
    this.send(ERROR, failure.encode({ id, code }));
  }

  onresponse(payload) {
    const { id, body } = transaction.decode(payload);
    checkIntroduction(body);
    const asked = this.answered(id);
    if (!asked) return;
    if (body !== null && asked.kind in body) return asked.succeed(body);
    asked.fail(new Error('an answer of another kind'));
    throw new Malformed('an answer of another kind');
  }

  onerror(payload) {
    const { id, code, reason } = failure.decode(payload);
    const asked = this.answered(id);
    const known = Object.values(CODES).includes(code) ? code : CODES.REFUSED;
    if (asked) asked.fail(new RequestError(known, reason));
  }

  /** What waits for this answer, which is so no longer. */
  answered(id) {
    const asked = this.asked.get(id);
    if (asked) {
      this.asked.delete(id);
      clearTimeout(asked.timer);
    } else if (!this.givenUp.delete(id) && ++this.strays > LIMITS.strays) {
      throw new Malformed('answers that nothing was asked for');
    }
    return asked;
  }

  /** One at a time and in order; beyond the limit they are dropped. */
  onephemeral(payload) {
    const message = ephemeral.decode(payload);
    if (this.ephemerals.length === LIMITS.ephemerals) return;
    if (this.ephemerals.push(message) === 1) this.hand();
  }

  async hand() {
    while (this.ephemerals.length > 0 && !this.closed) {
      // A rule that fails has been told of, and the next message is another matter.
      await this.decide('ephemeral', () => this.party.rules.ephemeral(this, this.ephemerals[0])).catch(() => {});
      this.ephemerals.shift();
    }
  }
}

function checkLabels(feeds) {
  if (feeds.some(({ label }) => label && Buffer.byteLength(label) > LIMITS.label)) throw new Error('too long a label');
}

function checkIntroduction(body) {
  if (!body || !body.introduceFeeds) return;
  if (body.introduceFeeds.length > LIMITS.feeds) throw new Malformed('too many feeds');
  try {
    checkLabels(body.introduceFeeds);
  } catch (error) {
    throw new Malformed(error.message);
  }
}

module.exports = { Peer, RequestError };
