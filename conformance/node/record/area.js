'use strict';
// One file of conformance/vectors/: collects the scenarios of an area and writes them, one on a line. The format is that
// of conformance/vectors/README.md.

const fs = require('fs');
const path = require('path');

// Another folder is for who only wants to compare.
const FOLDER = process.env.PARTY_VECTORS || path.join(__dirname, '..', '..', 'vectors');

class Area {
  // `kinds` says of each kind what its scenarios are about and which sentences of protocol-spec/ they test, those that
  // are accepted and those that are refused: a scenario that says nothing of its own has these.
  constructor(area, { about, source, kinds }) {
    this.area = area;
    this.about = about;
    this.source = source;
    this.kinds = kinds;
    this.scenarios = [];
    this.names = new Set();
    this.inputs = new Map();
  }

  // `expect` is what `accept` or `refuse` gives.
  add(kind, name, input, expect, { about, must, source } = {}) {
    const usual = this.kinds[kind];
    if (!usual) throw new Error(`${this.area} has no kind ${kind}`);
    const id = `${kind} ${name}`;
    if (this.names.has(id)) throw new Error(`twice in ${this.area}: ${id}`);
    this.names.add(id);
    const outcome = expect.accept === undefined ? 'refuse' : 'accept';
    const scenario = {
      name,
      kind,
      about: about || usual.about,
      must: must || (Array.isArray(usual.must) ? usual.must : usual.must[outcome]),
      source: source || this.source,
      input,
      expect,
    };
    if (!scenario.must || scenario.must.length === 0) throw new Error(`${this.area} says not what it tests: ${id}`);
    this.keep(scenario);
  }

  // Two ways to the same input are one scenario, if they have the same end.
  keep(scenario) {
    const input = `${scenario.kind} ${JSON.stringify(scenario.input)}`;
    const before = this.inputs.get(input);
    if (before === undefined) {
      this.inputs.set(input, scenario);
      this.scenarios.push(scenario);
      return;
    }
    if (JSON.stringify(before.expect) !== JSON.stringify(scenario.expect)) {
      throw new Error(`${this.area}: ${before.name} and ${scenario.name} are one scenario with two ends`);
    }
    before.must = [...new Set([...before.must, ...scenario.must])];
    if (before.source !== scenario.source) before.source += `, ${scenario.source}`;
  }

  write() {
    const lines = this.scenarios.map((one) => `    ${line(one)}`).join(',\n');
    const head = `  "area": ${JSON.stringify(this.area)},\n  "about": ${JSON.stringify(this.about)},\n`;
    fs.writeFileSync(path.join(FOLDER, `${this.area}.json`), `{\n${head}  "scenarios": [\n${lines}\n  ]\n}\n`);
  }
}

// A scenario in steps has each on a line of its own, so that a change can be read.
function line(scenario) {
  const text = JSON.stringify(scenario);
  if (!scenario.input.steps) return text;
  const broken = (steps) => `[\n${steps.map((step) => `      ${JSON.stringify(step)}`).join(',\n')}\n    ]`;
  const lists = [scenario.input.steps, (scenario.expect.accept || scenario.expect.after || {}).steps].filter(Boolean);
  return lists.reduce((all, steps) => all.replace(`"steps":${JSON.stringify(steps)}`, () => `"steps":${broken(steps)}`), text);
}

const accept = (values = {}) => ({ accept: values });

// `after`: what stands although something was refused.
const refuse = (how, after) => (after === undefined ? { refuse: how } : { refuse: how, after });

const hex = (buffer) => Buffer.from(buffer).toString('hex');

// Bytes as a scenario has them: digits, and long runs of one byte as such.
function bytes(buffer) {
  const data = Buffer.from(buffer);
  const parts = [];
  let plain = 0;
  for (let at = 0; at < data.length;) {
    let end = at + 1;
    while (end < data.length && data[end] === data[at]) end++;
    if (end - at >= 128) {
      if (at > plain) parts.push(hex(data.subarray(plain, at)));
      parts.push({ byte: hex(data.subarray(at, at + 1)), times: end - at });
      plain = end;
    }
    at = end;
  }
  if (parts.length === 0) return hex(data);
  if (plain < data.length) parts.push(hex(data.subarray(plain)));
  return parts;
}

// `name version` of each package.
const versions = (...names) => names.map((name) => `${name} ${require(`${name}/package.json`).version}`).join(', ');

module.exports = { Area, accept, refuse, hex, bytes, versions };
