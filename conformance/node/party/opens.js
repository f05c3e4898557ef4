'use strict';
// What the other side says in its opens. Protomux asks us about a channel by its name and id alone, and tells us the handshake
// only once the channel is answered; but the answer depends on the handshake. So each message is read here before
// Protomux gets it, as protocol-spec/05-channels.md lays it out.

const b4a = require('b4a');
const c = require('compact-encoding');

const BATCH = 0;
const OPEN = 1;

class Opens {
  /** To be made before the stream's Protomux. */
  constructor(stream) {
    this.opens = [];
    stream.on('data', (message) => {
      // Protomux asks about an open while it handles the message, so what it didn't ask about by now it never will.
      this.opens = [];
      try {
        if (message.byteLength > 0 && message[0] === 0) this.control(message.subarray(1));
      } catch {
        // Protomux ends the connection for it.
      }
    });
  }

  /** The handshake of the first open of this channel in the message that is being handled, each of them once. */
  take(protocol, id) {
    const wanted = id || b4a.alloc(0);
    const n = this.opens.findIndex((open) => open.protocol === protocol && b4a.equals(open.id, wanted));
    return n < 0 ? b4a.alloc(0) : this.opens.splice(n, 1)[0].handshake;
  }

  control(message) {
    const state = { buffer: message, start: 0, end: message.byteLength };
    const type = c.uint.decode(state);
    if (type === BATCH) this.batch(state);
    else if (type === OPEN) this.open(state);
  }

  batch(state) {
    let channel = c.uint.decode(state);
    while (state.start < state.end) {
      const length = c.uint.decode(state);
      if (length === 0) {
        channel = c.uint.decode(state);
        continue;
      }
      const item = state.buffer.subarray(state.start, Math.min(state.start + length, state.end));
      state.start += item.byteLength;
      if (channel === 0 && item[0] === OPEN) this.control(item);
    }
  }

  open(state) {
    c.uint.decode(state);
    const protocol = c.string.decode(state);
    const id = c.optionalBuffer.decode(state) || b4a.alloc(0);
    this.opens.push({ protocol, id, handshake: state.buffer.subarray(state.start, state.end) });
  }
}

module.exports = { Opens };
