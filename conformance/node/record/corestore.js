'use strict';
// Records what corestore 7 makes of primary keys, namespaces and names: key pairs, and the feeds that get({ name })
// gives, with their manifests.

const fs = require('fs');
const os = require('os');
const path = require('path');
const Corestore = require('corestore');
const Verifier = require('hypercore/lib/verifier');
const { Area, accept, versions } = require('./area');

const hex = (buffer) => Buffer.from(buffer).toString('hex');

const PRIMARY_KEYS = {
  'a primary key of zeros': Buffer.alloc(32),
  'a primary key of ones': Buffer.alloc(32, 0xff),
  'a primary key of counted bytes': Buffer.from(Array.from({ length: 32 }, (_, i) => i)),
};
const NAMESPACES = [[], ['app'], ['app', 'chat'], ['app', ''], ['chat', 'app'], ['наш', '名'], ['n'.repeat(300)]];
const NAMES = ['log', 'a', 'Grüße', '名前', '🦆', 'ends in zero\0', ' log', 'n'.repeat(255), 'n'.repeat(1024), ''];

const area = new Area('names', {
  about: 'The key pairs and feeds that grow from a primary key, nested namespaces (from the root on) and a name',
  source: versions('corestore', 'hypercore'),
  kinds: {
    name: {
      about: 'The namespace, the key pair, the feed of this name with its manifest, and the key of the legacy feed of the same '
        + 'pair; a corestore has no feed of the empty name.',
      must: ['NAME-3', 'NAME-4', 'NAME-5', 'NAME-6', 'NAME-7'],
    },
  },
});
let count = 0;
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'record-corestore-'));

async function record(title, primaryKey) {
  const root = new Corestore(path.join(folder, String(count++)), { primaryKey, unsafe: true });
  await root.ready();
  for (const namespaces of NAMESPACES) {
    const store = namespaces.reduce((store, name) => store.namespace(name), root);
    await store.ready();
    for (const name of NAMES) {
      // Every namespace, and every name, but not each with each other.
      if (namespaces.length > 0 && namespaces !== NAMESPACES[2] && name !== 'log') continue;
      const pair = await store.createKeyPair(name);
      const expect = { public_key: hex(pair.publicKey), seed: hex(pair.secretKey.subarray(0, 32)) };
      // A corestore takes the empty name for none.
      if (name !== '') {
        const core = store.get({ name });
        await core.ready();
        expect.key = hex(core.key);
        expect.discovery_key = hex(core.discoveryKey);
        expect.manifest = hex(Verifier.encodeManifest(core.manifest));
        await core.close();
        const legacy = { version: 0, signers: [{ publicKey: pair.publicKey }] };
        const compat = store.get({ key: pair.publicKey, keyPair: pair, manifest: legacy });
        await compat.ready();
        if (!compat.writable || !compat.core.compat) throw new Error('not a legacy core');
        expect.legacy_key = hex(compat.key);
        await compat.close();
      }
      const shown = name.length > 20 ? `${name.length} characters` : JSON.stringify(name);
      const where = namespaces.map((name) => (name.length > 20 ? `${name.length} characters` : name)).join('/');
      area.add('name', `${title}: ${shown} in /${where}`, { primary_key: hex(primaryKey), namespaces, feed_name: name },
        accept({ namespace: hex(store.ns), ...expect }));
    }
  }
  await root.close();
}

async function main() {
  for (const [title, primaryKey] of Object.entries(PRIMARY_KEYS)) await record(title, primaryKey);
  area.write();
}

main().finally(() => fs.rmSync(folder, { recursive: true, force: true })).catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
