// The library against a real host, on good and on bad networks.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { EchoClient, MemoryStore, Pauses, ProcessLocks } from '../build/index.js';
import WebSocket from 'ws';
import { Host, newPhone, until } from './host.mjs';
import { Proxy, seeded } from './proxy.mjs';

let host;
before(async () => (host = await Host.start()));
after(() => host.end());

/** Short pauses, so that a test of forty cuts is over soon. */
const pauses = () => new Pauses(20, 200);

class Person {
  /** Every durable event as it was handed out. */
  events = [];
  resynced = 0;
  sent = new Map();

  static async signUp(url = host.url) {
    const person = new Person();
    person.phone = newPhone();
    person.store = new MemoryStore();
    person.open(url);
    const password = 'correct horse 7';
    const { registration_id } = await person.client.register({ phone: person.phone, password, name: `Person ${person.phone.slice(-4)}` });
    const otp = await host.codeFor(person.phone);
    person.id = (await person.client.verify({ registration_id, phone: person.phone, otp })).user_id;
    return person;
  }

  open(url, locks = new ProcessLocks()) {
    this.client = new EchoClient({ url, store: this.store, locks, webSocket: WebSocket, pauses: pauses() });
    this.reading = this.read(this.client.events());
    return this;
  }

  async read(events) {
    for await (const event of events) {
      if ('seq' in event) this.events.push(event);
      else if (event.type === 'sent') this.sent.set(event.client_message_id, event.message);
      else if (event.type === 'resync_required') this.resynced += 1;
    }
  }

  async online() {
    this.client.connect();
    await until(() => this.client.connection.connection === 'online', 'online');
    return this;
  }

  async talkTo(other) {
    return (await this.client.rest.post('/api/v1/messages/conversations', { body: { type: 'direct', participant_ids: [other.id] } })).id;
  }

  texts() {
    return this.events.filter((event) => event.type === 'message').map((event) => event.payload.content);
  }

  assertGapless() {
    const seqs = this.events.map((event) => event.seq);
    assert.deepEqual(seqs, Array.from(seqs, (_, index) => seqs[0] + index), 'every event once and in order');
  }
}

async function pair(urlA, urlB) {
  const [ann, bob] = [await Person.signUp(urlA), await Person.signUp(urlB)];
  await ann.online();
  await bob.online();
  return { ann, bob, conversation: await ann.talkTo(bob) };
}

const say = (person, conversation_id, content) => person.client.send({ conversation_id, type: 'text', content });
const close = (...people) => people.forEach((person) => person.client.close());

test('a message arrives, and the sender learns that it was delivered and read', async () => {
  const { ann, bob, conversation } = await pair();
  const { client_message_id } = await say(ann, conversation, 'Hello');
  await until(() => bob.texts().includes('Hello'), 'Hello');
  await until(() => ann.sent.has(client_message_id), 'sent');
  await until(() => ann.events.some((event) => event.type === 'message_status' && event.payload.status === 'delivered'), 'delivered');
  await bob.client.read(conversation, 1);
  await until(() => ann.events.some((event) => event.type === 'message_status' && event.payload.status === 'read'), 'read');
  assert.deepEqual(await ann.client.waiting(), []);
  close(ann, bob);
});

test('what was written without a connection is sent when there is one, in order and once', async () => {
  const proxy = await Proxy.start(host.address);
  const { ann, bob, conversation } = await pair(proxy.url);
  proxy.unplug();
  await until(() => ann.client.connection.connection !== 'online', 'offline');
  for (let n = 0; n < 20; n++) await say(ann, conversation, `offline ${n}`);
  assert.equal((await ann.client.waiting()).length, 20);
  await proxy.plug();
  await until(() => bob.texts().length >= 20, '20 messages');
  assert.deepEqual(bob.texts(), Array.from({ length: 20 }, (_, n) => `offline ${n}`));
  await until(async () => (await ann.client.waiting()).length === 0, 'an empty outbox');
  close(ann, bob);
  await proxy.end();
});

test('the outbox and the cursor outlive the program', async () => {
  const { ann, bob, conversation } = await pair();
  await say(ann, conversation, 'before');
  await until(() => bob.texts().length === 1, 'before');
  await until(async () => (await bob.store.get('cursor')) === bob.events.at(-1).seq, 'the cursor');
  close(bob);
  for (let n = 0; n < 5; n++) await say(ann, conversation, `meanwhile ${n}`);
  await until(() => ann.sent.size === 6, 'sent');
  bob.open(host.url);
  await say(bob, conversation, 'written before connecting');
  await bob.online();
  await until(() => ann.texts().includes('written before connecting'), 'the answer');
  await until(() => bob.texts().includes('meanwhile 4'), 'what was missed');
  bob.assertGapless();
  close(ann, bob);
});

test('a message that is refused for good waits for a decision and holds nothing up', async () => {
  const { ann, bob, conversation } = await pair();
  const bad = await say(ann, conversation, '\u0000');
  await say(ann, conversation, 'good');
  await until(() => bob.texts().includes('good'), 'good');
  const [entry] = await until(async () => {
    const entries = await ann.client.waiting();
    return entries.length === 1 && entries[0].problem && entries;
  }, 'the refusal');
  assert.equal(entry.client_message_id, bad.client_message_id);
  assert.equal(entry.problem.status, 422);
  await ann.client.discard(bad.client_message_id);
  assert.deepEqual(await ann.client.waiting(), []);
  close(ann, bob);
});

test('a file comes through whole, over lost connections and a restart of the host', { timeout: 600_000 }, async () => {
  const proxy = await Proxy.start(host.address, seeded(11));
  const { ann, bob, conversation } = await pair(proxy.url);
  const bytes = Uint8Array.from({ length: 9_000_000 }, (_, n) => (n * 2_654_435_761) >>> 24);
  const steps = [];
  const reading = (async () => {
    for await (const event of ann.client.events()) if (event.type === 'upload') steps.push(event.sent);
  })();
  proxy.faults.cut_http = 0.01;
  const { client_message_id } = await ann.client.sendFile({ conversation_id: conversation, type: 'document' }, { file: new Blob([bytes]), name: 'Grüße.bin' });
  await say(ann, conversation, 'it need not wait for the file');
  await until(() => steps.some((sent) => sent > 0), 'a part of it');
  await host.restart();
  await until(() => bob.texts().includes('it need not wait for the file'), 'the text', 60_000);
  await until(() => ann.sent.has(client_message_id), 'the file', 120_000);
  proxy.faults.cut_http = 0;
  const { media_id } = ann.sent.get(client_message_id);
  const media = await ann.client.rest.get('/api/v1/media/{id}', { path: { id: media_id } });
  assert.deepEqual([media.state, media.size, media.file_name], ['ready', bytes.length, 'Grüße.bin']);
  const back = new Uint8Array(await (await ann.client.rest.blob('/api/v1/media/{id}/content', { path: { id: media_id } })).arrayBuffer());
  assert.ok(Buffer.from(back).equals(Buffer.from(bytes)), 'the same bytes');
  await until(() => bob.events.some((event) => event.type === 'message' && event.payload.media_id === media_id), 'the message');
  assert.equal(bob.events.filter((event) => event.type === 'message').length, 2);
  assert.ok(proxy.counts.http_cuts > 0);
  close(ann, bob);
  await reading;
  await proxy.end();
});

test('a file that is refused waits for a decision, and one that is discarded is not sent', async () => {
  const { ann, bob, conversation } = await pair();
  const empty = await ann.client.sendFile({ conversation_id: conversation, type: 'document' }, { file: new Blob([]), name: 'empty' });
  const entry = await until(async () => (await ann.client.waiting()).find((one) => one.problem), 'the refusal');
  assert.equal(entry.client_message_id, empty.client_message_id);
  await ann.client.discard(empty.client_message_id);
  const large = await ann.client.sendFile({ conversation_id: conversation, type: 'document' }, { file: new Blob([new Uint8Array(20_000_000)]), name: 'large' });
  await ann.client.discard(large.client_message_id);
  await say(ann, conversation, 'afterwards');
  await until(() => bob.texts().includes('afterwards'), 'afterwards');
  assert.deepEqual(await ann.client.waiting(), []);
  assert.equal(ann.sent.has(large.client_message_id), false);
  close(ann, bob);
});

test('an access token that was refused is renewed, once for many requests', async () => {
  const ann = await Person.signUp();
  const { access_token, ...rest } = await ann.store.get('credentials');
  await ann.store.set('credentials', { ...rest, access_token: `${access_token.slice(0, -8)}AAAAAAAA` });
  ann.client.close();
  let renewals = 0;
  const counting = (input, init) => {
    if (String(input).endsWith('/auth/refresh')) renewals += 1;
    return fetch(input, init);
  };
  const client = new EchoClient({ url: host.url, store: ann.store, fetch: counting, locks: new ProcessLocks() });
  const profiles = await Promise.all(Array.from({ length: 8 }, () => client.rest.get('/api/v1/users/me', {})));
  assert.ok(profiles.every((profile) => profile.id === ann.id));
  assert.equal(renewals, 1);
  client.close();
});

test('tabs of one browser renew a token once', async () => {
  const ann = await Person.signUp();
  const credentials = await ann.store.get('credentials');
  await ann.store.set('credentials', { ...credentials, renew_at: 0 });
  ann.client.close();
  const locks = new ProcessLocks();
  let renewals = 0;
  const counting = (input, init) => {
    if (String(input).endsWith('/auth/refresh')) renewals += 1;
    return fetch(input, init);
  };
  const tabs = Array.from({ length: 5 }, () => new EchoClient({ url: host.url, store: ann.store, fetch: counting, locks }));
  await Promise.all(tabs.map((tab) => tab.rest.get('/api/v1/users/me', {})));
  assert.equal(renewals, 1);
  tabs.forEach((tab) => tab.close());
});

test('a socket lives on with a renewed token', async () => {
  const { ann, bob, conversation } = await pair();
  const credentials = await ann.store.get('credentials');
  await ann.store.set('credentials', { ...credentials, renew_at: 0 });
  ann.client.tokens.forget();
  const token = await ann.client.accessToken();
  assert.notEqual(token, credentials.access_token);
  await say(ann, conversation, 'after the renewal');
  await until(() => bob.texts().includes('after the renewal'), 'the message');
  assert.equal(ann.client.connection.connection, 'online');
  close(ann, bob);
});

test('who is signed out elsewhere learns it and forgets the account', async () => {
  const ann = await (await Person.signUp()).online();
  const ended = until(async () => (await ann.client.account()) === null, 'signed out');
  await ann.client.rest.post('/api/v1/auth/logout-all', {});
  await ended;
  assert.equal(await ann.store.get('credentials'), null);
  close(ann);
});

for (const seed of [1, 2, 3]) {
  test(`on a network that cuts, delays, drops and doubles nothing is lost and nothing comes twice (seed ${seed})`, { timeout: 600_000 }, async () => {
    const random = seeded(seed);
    const [proxyA, proxyB] = [await Proxy.start(host.address, random), await Proxy.start(host.address, random)];
    const { ann, bob, conversation } = await pair(proxyA.url, proxyB.url);
    proxyA.faults = { cut: 0.03, double: 0.1, drop: 0, delay_ms: 5 };
    // He asks for nothing, so that nothing but the gap in the numbers shows that something is missing.
    proxyB.faults = { cut: 0.03, double: 0.1, drop: 0.02, delay_ms: 5 };
    const expected = Array.from({ length: 150 }, (_, n) => `message ${n}`);
    for (const content of expected) await say(ann, conversation, content);
    await until(() => ann.sent.size >= expected.length - 5, 'nearly all messages', 60_000);
    proxyB.faults.drop = 0;
    await until(() => bob.texts().length >= expected.length, 'all messages', 60_000);
    proxyA.faults = proxyB.faults = { cut: 0, double: 0, drop: 0, delay_ms: 0 };
    await until(() => ann.sent.size === expected.length, 'an empty outbox', 60_000);
    assert.deepEqual(bob.texts(), expected);
    bob.assertGapless();
    ann.assertGapless();
    assert.equal(bob.resynced + ann.resynced, 0);
    assert.ok(proxyA.counts.cuts > 0 && proxyB.counts.cuts > 0 && proxyA.counts.doubled > 0 && proxyB.counts.doubled > 0 && proxyB.counts.dropped > 0);
    close(ann, bob);
    await proxyA.end();
    await proxyB.end();
  });
}

test('through twenty swaps and five crashes of the host, on a bad network, nothing is lost and nothing comes twice', { timeout: 600_000 }, async () => {
  const random = seeded(7);
  const [proxyA, proxyB] = [await Proxy.start(host.address, random), await Proxy.start(host.address, random)];
  const { ann, bob, conversation } = await pair(proxyA.url, proxyB.url);
  proxyA.faults = proxyB.faults = { cut: 0.01, double: 0.1, drop: 0, delay_ms: 2 };
  const expected = [];
  for (let round = 0; round < 5; round++) {
    for (let n = 0; n < 40; n++) {
      const content = `round ${round}, message ${n}`;
      expected.push(content);
      await say(ann, conversation, content);
      if (n % 10 === 5) await host.swap('message');
    }
    await until(() => bob.texts().length > round * 40, 'the first of the round', 60_000);
    await host.restart();
  }
  await until(() => bob.texts().length >= expected.length, 'all messages', 90_000);
  await until(() => ann.sent.size === expected.length, 'an empty outbox', 90_000);
  assert.deepEqual(bob.texts(), expected);
  bob.assertGapless();
  ann.assertGapless();
  close(ann, bob);
  await proxyA.end();
  await proxyB.end();
});
