// What this library has and its twin in Rust has not: files, and tabs of a browser. What both have is in scenarios.test.mjs.
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
}

async function pair(urlA, urlB) {
  const [ann, bob] = [await Person.signUp(urlA), await Person.signUp(urlB)];
  await ann.online();
  await bob.online();
  return { ann, bob, conversation: await ann.talkTo(bob) };
}

const say = (person, conversation_id, content) => person.client.send({ conversation_id, type: 'text', content });
const close = (...people) => people.forEach((person) => person.client.close());

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
