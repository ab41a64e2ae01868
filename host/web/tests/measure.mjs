// `npm run measure`: 500 conversations and 10,000 messages in one of them. How long pages take, how smoothly they scroll, what they keep in memory.
import WebSocket from 'ws';
import { EchoClient } from '../client/build/index.js';
import { newPhone } from '../client/test/host.mjs';
import { openBrowser, PASSWORD, Visitor } from './browser.mjs';
import { startServer } from './server.mjs';

const CONVERSATIONS = Number(process.env.CONVERSATIONS ?? 500);
const MESSAGES = Number(process.env.MESSAGES ?? 10_000);
const AT_ONCE = 24;

const server = await startServer();
const browser = await openBrowser();

async function account(name, phone) {
  const client = new EchoClient({ url: server.host.url, webSocket: WebSocket });
  const { registration_id } = await client.register({ phone, password: PASSWORD, name });
  await client.verify({ registration_id, phone, otp: await server.host.codeFor(phone) });
  return client;
}

async function times(count, work) {
  let next = 0;
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    for (let n = next++; n < count; n = next++) await work(n);
  }));
}

const ann = await (await Visitor.open(browser, server.url)).signUp('Ann Lee', newPhone());
const bob = await account('Bob Stone', newPhone());
const id = await ann.page.evaluate(() => new Promise((resolve) => {
  const opening = indexedDB.open('echo', 1);
  opening.onsuccess = () => {
    const reading = opening.result.transaction('values').objectStore('values').get('credentials');
    reading.onsuccess = () => resolve(reading.result.user_id);
  };
}));
await ann.page.goto('about:blank');
const open = (body) => bob.rest.post('/api/v1/messages/conversations', { body });
const say = (conversation_id, n) =>
  bob.rest.post('/api/v1/messages', { body: { conversation_id, client_message_id: `${conversation_id}-${n}`, type: 'text', content: `Message ${n}: the quick brown fox jumps over the lazy dog` } });
await times(CONVERSATIONS - 1, async (n) => say((await open({ type: 'group', title: `Group ${n}`, participant_ids: [id] })).id, 0));
const { id: long } = await open({ type: 'direct', participant_ids: [id] });
await times(MESSAGES, (n) => say(long, n));

/** Milliseconds between frames while `element` is scrolled by steps. */
const scroll = (selector, by, frames) =>
  ann.page.evaluate(
    async ([selector, by, frames]) => {
      const element = document.querySelector(selector);
      const gaps = [];
      let last = performance.now();
      for (let n = 0; n < frames; n++) {
        element.scrollTop += by;
        await new Promise(requestAnimationFrame);
        gaps.push(performance.now() - last);
        last = performance.now();
      }
      gaps.sort((a, b) => a - b);
      return { p50_ms: Math.round(gaps[frames >> 1]), p99_ms: Math.round(gaps[Math.floor(frames * 0.99)]) };
    },
    [selector, by, frames],
  );
const heap = async () => Math.round((await ann.page.evaluate(() => (globalThis.gc?.(), performance.memory.usedJSHeapSize))) / 1e6);

const began = performance.now();
await ann.page.goto(ann.url);
await ann.page.getByRole('link', { name: /Bob Stone/ }).waitFor();
const list_ms = Math.round(performance.now() - began);
const first_paint_ms = Math.round(await ann.page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN));
const listScroll = await scroll('.list', 120, 200);
const opened = performance.now();
await ann.page.goto(`${ann.url}/c/${long}`);
await ann.page.locator('.message').first().waitFor();
const open_ms = Math.round(performance.now() - opened);
const before_mb = await heap();
const threadScroll = await scroll('.log', -240, 2_000);
const reached = await ann.page.locator('.message').first().getAttribute('id');
const shown = await ann.page.locator('.message').count();
await ann.page.getByRole('button', { name: 'To the newest message' }).click();
await ann.page.locator('.message', { hasText: `Message ${MESSAGES - 1}:` }).waitFor();
console.log(JSON.stringify({ first_paint_ms, list_ms, listScroll, open_ms, threadScroll, reached, shown, heap_mb: { before: before_mb, after: await heap() }, faults: ann.faults.slice(0, 5) }, null, 1));
bob.close();
await browser.close();
await server.end();
