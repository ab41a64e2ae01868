// The scenarios that this library and its twin in Rust (`host/crates/client`) have in common: host/tests/e2e/client/scenarios.json, against a real host,
// on good and on bad networks. `host/tests/e2e/client.rs` plays the same; who changes the one runs the other.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { EchoClient, MemoryStore, Pauses, ProcessLocks } from '../build/index.js';
import WebSocket from 'ws';
import { Host, newPhone, until as poll } from './host.mjs';
import { Proxy, seeded } from './proxy.mjs';

const scenarios = JSON.parse(readFileSync(new URL('../../../tests/e2e/client/scenarios.json', import.meta.url), 'utf8'));
/** How long a step may take. */
const PATIENCE_MS = 120_000;
/** Less than the rest of a client that was replaced. */
const REST_MIN_MS = 5_000;
const until = (look, what) => poll(look, what, PATIENCE_MS);

let host;
before(async () => (host = await Host.start()));
after(() => host.end());

class Person {
  seen = { feed: [], sent: new Map(), resynced: 0 };
  /** What was said, but for what was to be refused. */
  said = [];
  count = 0;
  client = null;

  constructor(proxy, store) {
    this.proxy = proxy;
    this.store = store;
  }

  static async signUp(seed) {
    const person = new Person(await Proxy.start(host.address, seeded(seed)), new MemoryStore());
    person.start();
    const [phone, password] = [newPhone(), 'correct horse 7'];
    const { registration_id } = await person.client.register({ phone, password });
    const otp = await host.codeFor(phone);
    person.id = (await person.client.verify({ registration_id, phone, otp })).user_id;
    return person;
  }

  start() {
    // Short pauses, so that many cuts are over soon.
    const options = { url: this.proxy.url, store: this.store, locks: new ProcessLocks(), webSocket: WebSocket, pauses: new Pauses(20, 200) };
    this.client = new EchoClient(options);
    this.reading = this.read(this.client.events());
  }

  async read(events) {
    for await (const event of events) {
      if ('seq' in event) this.seen.feed.push(event);
      else if (event.type === 'sent') {
        assert.ok(!this.seen.sent.has(event.client_message_id), 'a message is answered once');
        this.seen.sent.set(event.client_message_id, event.message);
      } else if (event.type === 'resync_required') this.seen.resynced += 1;
    }
  }

  async end() {
    this.client.close();
    await this.reading;
    this.client = null;
  }

  messages() {
    return this.seen.feed.filter((event) => event.type === 'message').map((event) => event.payload);
  }

  /** What others said. */
  texts() {
    return this.messages()
      .filter((message) => message.sender_id !== this.id)
      .map((message) => message.content);
  }

  async entry(text) {
    return (await this.client.waiting()).find((entry) => entry.message.content === text);
  }

  async changeCredentials(change) {
    assert.equal(this.client, null, 'it has the store');
    await this.store.set('credentials', change(await this.store.get('credentials')));
  }
}

class Stage {
  swaps = 0;
  crashes = 0;

  static async set(seed) {
    const stage = new Stage();
    stage.seed = seed;
    stage.people = { ann: await Person.signUp(seed * 100), bob: await Person.signUp(seed * 100 + 1) };
    const { ann, bob } = stage.people;
    const body = { type: 'direct', participant_ids: [bob.id] };
    stage.conversation = (await ann.client.rest.post('/api/v1/messages/conversations', { body })).id;
    for (const person of [ann, bob]) await STEPS.online({ person });
    return stage;
  }

  async play(steps) {
    for (const step of steps) {
      const play = STEPS[step.do];
      assert.ok(play, `no step is called ${step.do}`);
      const person = step.who === undefined ? undefined : this.people[step.who];
      assert.ok(step.who === undefined || person, `nobody is called ${step.who}`);
      await play({ ...step, person, stage: this });
    }
  }

  async clear() {
    for (const person of Object.values(this.people)) {
      if (person.client !== null) await person.end();
      await person.proxy.end();
    }
  }
}

const isOnline = (person) => person.client.connection.connection === 'online';

const STEPS = {
  async say({ person, stage, text, count = 1, refused = false }) {
    for (let n = 0; n < count; n++) {
      const content = text.replaceAll('{n}', String(person.count++));
      await person.client.send({ conversation_id: stage.conversation, type: 'text', content });
      if (!refused) person.said.push(content);
    }
  },
  hears: ({ person, text }) => until(() => person.texts().includes(text), text),
  async hears_all({ person, who, stage }) {
    const { said } = stage.people[who === 'ann' ? 'bob' : 'ann'];
    await until(() => person.texts().length >= said.length, `all messages for ${who}`);
    assert.deepEqual(person.texts(), said, 'in order, each once');
  },
  async all_sent({ person, who }) {
    const sent = async () => (await person.client.waiting()).length === 0 && person.seen.sent.size === person.said.length;
    await until(sent, `all of ${who} are sent`);
    assert.deepEqual(new Set([...person.seen.sent.values()].map((message) => message.content)), new Set(person.said));
  },
  async learns({ person, status }) {
    const isLast = (message) => message.content === person.said.at(-1);
    const message = await until(() => [...person.seen.sent.values()].find(isLast), 'sent');
    const learns = ({ type, payload }) =>
      type === 'message_status' && payload.status === status && (payload.message_id === message.id || payload.up_to_seq >= message.seq);
    await until(() => person.seen.feed.some(learns), status);
  },
  reads: ({ person, stage }) => person.client.read(stage.conversation, Math.max(...person.messages().map((message) => message.seq))),
  waiting: ({ person, count }) => until(async () => (await person.client.waiting()).length === count, `${count} wait`),
  refused: ({ person, text, status }) => until(async () => (await person.entry(text))?.problem?.status === status, 'refused'),
  discard: async ({ person, text }) => person.client.discard((await person.entry(text)).client_message_id),
  unplug: ({ person }) => person.proxy.unplug(),
  plug: ({ person }) => person.proxy.plug(),
  faults: ({ person, cut = 0, double = 0, drop = 0, delay_ms = 0 }) => (person.proxy.faults = { cut, double, drop, delay_ms }),
  suffered: ({ person, who, faults }) => faults.forEach((fault) => assert.ok(person.proxy.counts[fault] > 0, `${fault} of ${who}`)),
  offline: ({ person }) => until(() => !isOnline(person), 'offline'),
  async online({ person }) {
    person.client.connect();
    await until(() => isOnline(person), 'online');
  },
  end: ({ person }) => person.end(),
  start: ({ person }) => person.start(),
  async copy({ person, as, stage }) {
    const store = new MemoryStore();
    for (const key of ['credentials', 'cursor', 'device']) await store.set(key, await person.store.get(key));
    const copy = new Person(await Proxy.start(host.address, seeded(stage.seed)), store);
    copy.id = person.id;
    copy.start();
    stage.people[as] = copy;
  },
  rests({ person }) {
    const { client } = person;
    return until(() => client.connection.connection === 'offline' && client.connection.retry_at > Date.now() + REST_MIN_MS, 'a rest');
  },
  async wake({ person }) {
    person.client.wake();
    await until(() => isOnline(person), 'online');
  },
  cursor_kept: ({ person }) => until(async () => (await person.store.get('cursor')) === person.seen.feed.at(-1).seq, 'the cursor'),
  set_cursor: ({ person, cursor }) => person.store.set('cursor', cursor),
  spoil_token: ({ person }) =>
    person.changeCredentials(({ access_token, ...rest }) => ({ ...rest, access_token: `${access_token.slice(0, -8)}AAAAAAAA` })),
  token_is_due: ({ person }) => person.changeCredentials((credentials) => ({ ...credentials, renew_at: 0 })),
  async renew({ person }) {
    const before = await person.client.accessToken();
    await person.store.set('credentials', { ...(await person.store.get('credentials')), renew_at: 0 });
    person.client.tokens.forget();
    assert.notEqual(await person.client.accessToken(), before);
  },
  renewals: ({ person, count }) => until(() => person.proxy.counts.renewals === count, `${count} renewals`),
  async requests({ person, at_once }) {
    const profiles = await Promise.all(Array.from({ length: at_once }, () => person.client.rest.get('/api/v1/users/me', {})));
    assert.ok(profiles.every((profile) => profile.id === person.id));
  },
  sockets: ({ person, count }) => assert.equal(person.proxy.counts.sockets, count),
  sign_out_everywhere: ({ person }) => person.client.rest.post('/api/v1/auth/logout-all', {}),
  async signed_out({ person }) {
    await until(async () => (await person.client.account()) === null, 'signed out');
    assert.equal(await person.store.get('credentials'), null);
  },
  gapless({ person }) {
    const seqs = person.seen.feed.map((event) => event.seq);
    assert.deepEqual(seqs, Array.from(seqs, (_, index) => seqs[0] + index), 'every event once and in order');
  },
  resynced: ({ person, times }) => until(() => person.seen.resynced === times, `${times} times resynced`),
  async swap({ stage, service }) {
    await host.swap(service);
    stage.swaps += 1;
  },
  swaps: ({ stage, count }) => assert.equal(stage.swaps, count),
  async crash({ stage }) {
    await host.restart();
    stage.crashes += 1;
  },
  crashes: ({ stage, count }) => assert.equal(stage.crashes, count),
  end_host: () => host.stop(),
  start_host: () => host.begin(),
  async repeat({ stage, times, steps }) {
    for (let time = 0; time < times; time++) await stage.play(steps);
  },
};

for (const { name, seeds = [1], steps } of scenarios) {
  for (const seed of seeds) {
    test(seeds.length > 1 ? `${name} (seed ${seed})` : name, { timeout: 900_000 }, async () => {
      const stage = await Stage.set(seed);
      await stage.play(steps);
      await stage.clear();
    });
  }
}
