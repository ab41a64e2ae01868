// 500 conversations and 10,000 messages in one of them: how long pages take, how smoothly they scroll, what they keep in memory. Times are said, not
// judged: machines differ. Judged is that the page and its memory stay small, and that every message comes by once. `npm run measure` runs it alone;
// `CONVERSATIONS` and `MESSAGES` make it larger or smaller.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import WebSocket from 'ws';
import { EchoClient } from '../client/build/index.js';
import { newPhone, until } from '../client/test/host.mjs';
import { openBrowser, PASSWORD, Visitor } from './browser.mjs';
import { startServer } from './server.mjs';

const CONVERSATIONS = Number(process.env.CONVERSATIONS ?? 500);
const MESSAGES = Number(process.env.MESSAGES ?? 10_000);
const AT_ONCE = 24;
/** On the page at any time, of everything. */
const ELEMENTS_MAX = 12_000;
const SHOWN_MAX = 160;
const HEAP_BYTES_MAX = 100_000_000;
const PER_FRAME_PX = 240;
/** Not as far as the first message. */
const FRAMES = Math.min(1_200, MESSAGES / 10);

let server;
let browser;
before(async () => {
  server = await startServer();
  browser = await openBrowser();
});
after(async () => {
  await browser?.close();
  await server?.end();
});

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

/** Scrolls so far with each frame; gives the milliseconds between frames. */
const scroll = (page, selector, by, frames) =>
  page.evaluate(
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
      const at = (part) => Math.round(gaps[Math.min(frames - 1, Math.floor(frames * part))]);
      return `frames p50 ${at(0.5)} ms, p90 ${at(0.9)} ms, p99 ${at(0.99)} ms, longest ${at(1)} ms`;
    },
    [selector, by, frames],
  );

test(`${CONVERSATIONS} conversations and ${MESSAGES} messages scroll, and take little memory`, { timeout: 900_000 }, async (t) => {
  const ann = await (await Visitor.open(browser, server.url)).signUp('Ann Lee', newPhone());
  const { page } = ann;
  const bob = await account('Bob Stone', newPhone());
  const { user_id } = JSON.parse(atob((await ann.token()).split('.')[1].replace(/-/g, '+').replace(/_/g, '/')));
  await page.goto('about:blank');
  const open = (body) => bob.rest.post('/api/v1/messages/conversations', { body });
  const say = (conversation_id, n) =>
    bob.rest.post('/api/v1/messages', { body: { conversation_id, client_message_id: `${conversation_id}-${n}`, type: 'text', content: `Message ${n}: the quick brown fox jumps over the lazy dog` } });
  await times(CONVERSATIONS - 1, async (n) => say((await open({ type: 'group', title: `Group ${n}`, participant_ids: [user_id] })).id, 0));
  const { id: long } = await open({ type: 'direct', participant_ids: [user_id] });
  await times(MESSAGES, (n) => say(long, n));

  const debug = await ann.context.newCDPSession(page);
  await debug.send('HeapProfiler.enable');
  const size = async () => {
    await debug.send('HeapProfiler.collectGarbage');
    const { usedSize } = await debug.send('Runtime.getHeapUsage');
    const elements = await page.evaluate(() => document.querySelectorAll('*').length);
    assert.ok(elements < ELEMENTS_MAX, `${elements} elements`);
    assert.ok(usedSize < HEAP_BYTES_MAX, `${usedSize} bytes`);
    return `${elements} elements, ${(usedSize / 1e6).toFixed(1)} MB of JavaScript`;
  };

  const began = performance.now();
  await page.goto(ann.url);
  await page.getByRole('link', { name: /Bob Stone/ }).waitFor();
  t.diagnostic(`the list is there after ${Math.round(performance.now() - began)} ms`);
  t.diagnostic(`the list: ${await scroll(page, '.list', 120, 400)}`);
  await until(async () => {
    await page.locator('.list').evaluate((list) => list.scrollTo(0, list.scrollHeight));
    return (await page.locator('.list .row').count()) === CONVERSATIONS;
  }, 'all conversations');
  t.diagnostic(`the whole list: ${await size()}`);

  const opened = performance.now();
  await page.goto(`${ann.url}/c/${long}`);
  await page.locator('.message').first().waitFor();
  t.diagnostic(`the conversation is there after ${Math.round(performance.now() - opened)} ms`);
  t.diagnostic(`upwards: ${await scroll(page, '.log', -PER_FRAME_PX, FRAMES)}`);
  t.diagnostic(`scrolled back: ${await size()}`);

  // To the first one: each comes by, in order and once.
  const seen = new Set();
  await until(async () => {
    const seqs = await page.locator('.log').evaluate(async (log) => {
      for (let n = 0; n < 20; n++) {
        log.scrollTop -= 1_500;
        await new Promise(requestAnimationFrame);
      }
      return [...log.querySelectorAll('.message')].map((message) => Number(message.id.slice(2)));
    });
    assert.deepEqual(seqs, seqs.map((_, index) => seqs[0] + index), 'in order, without gaps');
    assert.ok(seqs.length <= SHOWN_MAX, `${seqs.length} messages on the page`);
    seqs.forEach((seq) => seen.add(seq));
    return seqs[0] === 1;
  }, 'the first message', 600_000);
  t.diagnostic(`${seen.size} of ${MESSAGES} were there when it was looked; at the first: ${await size()}`);
  t.diagnostic(`downwards: ${await scroll(page, '.log', PER_FRAME_PX, FRAMES / 2)}`);
  await page.getByRole('button', { name: 'To the newest message' }).click();
  await page.locator(`#m-${MESSAGES}`).waitFor();
  t.diagnostic(`at the newest again: ${await size()}`);
  assert.deepEqual(ann.faults, []);
  bob.close();
});
