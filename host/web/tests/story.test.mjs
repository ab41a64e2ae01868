// What the web client must do, from end to end, as the host serves it: two people sign up, talk, one goes offline and comes back, a picture travels, one
// is blocked; every page at three widths in both themes, without anything that axe-core finds serious, without an error, without a report of the policy.
import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gunzipSync, gzipSync } from 'node:zlib';
import { newPhone, until } from '../client/test/host.mjs';
import { openBrowser, Visitor } from './browser.mjs';
import { picture } from './picture.mjs';
import { startServer } from './server.mjs';

const WIDTHS = { phone: { width: 390, height: 844 }, tablet: { width: 820, height: 1100 }, desktop: { width: 1360, height: 850 } };
const CLIENT_BYTES_MAX = 150_000;
const folder = fileURLToPath(new URL('screenshots/', import.meta.url));

let server;
let browser;
before(async () => {
  await mkdir(folder, { recursive: true });
  server = await startServer();
  browser = await openBrowser();
});
after(async () => {
  await browser?.close();
  await server?.end();
});

const drawn = (picture) => picture.locator('img').evaluate((image) => image.complete && image.naturalWidth > 0).catch(() => false);
const status = (visitor, text) => visitor.bubble(text).locator('.ticks').getAttribute('data-status');

async function look(visitor, name, findings) {
  for (const [width, viewport] of Object.entries(WIDTHS)) {
    await visitor.page.setViewportSize(viewport);
    for (const colorScheme of ['light', 'dark']) {
      await visitor.page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      await visitor.page.screenshot({ path: `${folder}story-${name}-${width}-${colorScheme}.png` });
      for (const finding of await visitor.seriousFindings()) findings.push(`${name}, ${width}, ${colorScheme}: ${finding}`);
      const wider = await visitor.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      if (wider > 0) findings.push(`${name}, ${width}: ${wider} pixels too wide`);
    }
  }
  await visitor.page.setViewportSize(WIDTHS.desktop);
  await visitor.page.emulateMedia({ colorScheme: 'light', reducedMotion: 'reduce' });
}

test('two people get along with it', { timeout: 900_000 }, async (t) => {
  const routes = Object.keys((await (await fetch(`${server.host.url}/openapi.json`)).json()).paths);
  const findings = [];
  const ann = await (await Visitor.open(browser, server.url)).signUp('Ann Lee', newPhone());
  const bob = await (await Visitor.open(browser, server.url)).signUp('Bob Stone', newPhone());

  await ann.talkTo('Bob Stone');
  await ann.say('Good morning! Shall we walk to the hill?');
  await bob.page.getByRole('link', { name: /Ann Lee/ }).click();
  await bob.bubble('Good morning').waitFor();
  await bob.page.bringToFront();
  await until(async () => (await status(ann, 'Good morning')) === 'read', 'read');
  await bob.act('Good morning', 'Reply');
  await bob.say('Gladly, at ten');
  await ann.bubble('Gladly').locator('.quote', { hasText: 'Good morning' }).waitFor();

  bob.offline = true;
  await bob.context.setOffline(true);
  await bob.page.getByText('No connection.').waitFor();
  await bob.say('I am in the tunnel');
  assert.equal(await status(bob, 'I am in the tunnel'), 'waiting');
  for (const text of ['Take a jacket', 'It is windy up there']) await ann.say(text);
  await until(async () => (await status(ann, 'It is windy')) !== 'waiting', 'sent');
  await bob.context.setOffline(false);
  await ann.bubble('I am in the tunnel').waitFor();
  await bob.bubble('It is windy up there').waitFor();
  await until(async () => (await bob.page.locator('.message').count()) === 5, 'every message once');
  assert.equal(await ann.page.locator('.message').count(), 5);
  await until(async () => (await bob.page.getByText('No connection.').count()) === 0, 'a connection');
  bob.offline = false;

  if (routes.includes('/api/v1/media')) {
    await ann.page.getByTestId('pictures').setInputFiles({ name: 'view.png', mimeType: 'image/png', buffer: picture() });
    await ann.page.getByLabel('Text to it').fill('From last time');
    await ann.page.getByRole('dialog').getByRole('button', { name: 'Send' }).click();
    await until(async () => (await status(ann, 'From last time')) !== 'waiting', 'sent');
    await until(() => drawn(ann.bubble('From last time').locator('.picture')), 'the picture on her page');
    await bob.bubble('From last time').locator('.picture').waitFor();
    assert.equal(await bob.mayReadFile(), true, 'a recipient reads the file');
    await until(() => drawn(bob.bubble('From last time').locator('.picture')), 'the picture on his page');
  }
  await look(ann, 'conversation', findings);

  await ann.page.getByRole('link', { name: 'Details', exact: true }).click();
  await ann.page.getByRole('button', { name: 'Block Bob Stone' }).waitFor();
  await look(ann, 'details', findings);
  await ann.page.getByRole('button', { name: 'Block Bob Stone' }).click();
  await ann.page.getByRole('dialog').getByRole('button', { name: 'Block', exact: true }).click();
  await ann.page.getByText('You have blocked Bob Stone.').waitFor();
  await bob.say('Are you there?');
  await until(async () => (await bob.page.locator('.refused').count()) > 0 || (await status(bob, 'Are you there?')) === 'sent', 'an answer');
  assert.equal(await bob.page.getByText(/block/i).count(), 0);
  await ann.page.goto(`${ann.url}/settings/blocked`);
  await ann.page.getByRole('button', { name: 'Unblock' }).click();
  await ann.page.getByText('Nobody is blocked').waitFor();
  assert.equal(await ann.page.getByText('Are you there?').count(), 0);

  await ann.page.goto(`${ann.url}/settings`);
  await ann.page.getByRole('link', { name: /Privacy/ }).waitFor();
  await look(ann, 'settings', findings);
  const guest = await Visitor.open(browser, server.url);
  await guest.page.goto(guest.url);
  await guest.page.getByLabel('Your name').waitFor();
  await look(guest, 'sign-up', findings);

  const paint = await guest.page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime);
  t.diagnostic(`first paint after ${Math.round(paint)} ms`);
  for (const visitor of [ann, bob, guest]) assert.deepEqual(visitor.faults, [], visitor.name);
  assert.deepEqual(findings, []);
});

test('it is small', { timeout: 120_000 }, async (t) => {
  let bytes = 0;
  for (const path of ['/', '/client.js', '/client.css', '/icon.svg']) {
    const whole = Buffer.from(await (await fetch(server.url + path)).arrayBuffer());
    const packed = gzipSync(whole);
    assert.ok(gunzipSync(packed).equals(whole));
    bytes += packed.length;
  }
  t.diagnostic(`${bytes} bytes compressed`);
  assert.ok(bytes < CLIENT_BYTES_MAX, `${bytes} bytes`);
});

test('the page of the interface shows it, and a request can be tried', { timeout: 600_000 }, async () => {
  const ann = await (await Visitor.open(browser, server.url)).signUp('Cleo Park', newPhone());
  const { page } = ann;
  await page.goto(`${server.url}/${process.env.ECHO_WEB === 'dist' ? 'docs.html' : 'docs'}`);
  await page.locator('.opblock-tag').first().waitFor();
  const findings = [];
  await look(ann, 'docs', findings);
  await page.getByRole('button', { name: 'Try requests as this account' }).click();
  await page.getByText('Requests that you try are made as the account').waitFor();
  await page.locator('#operations-tag-user').click();
  const operation = page.locator('.opblock-get', { has: page.locator('[data-path="/api/v1/users/me"]') });
  await operation.locator('.opblock-summary-control').click();
  await operation.getByRole('button', { name: 'Try it out' }).click();
  await operation.getByRole('button', { name: 'Execute' }).click();
  await operation.locator('.live-responses-table').getByText('Cleo Park').first().waitFor();
  await look(ann, 'docs-tried', findings);
  await page.getByRole('link', { name: 'WebSocket' }).click();
  await page.locator('#socket summary', { hasText: 'read_receipt' }).first().click();
  await page.locator('#socket pre').waitFor();
  await look(ann, 'docs-socket', findings);
  assert.deepEqual(findings, []);
  assert.deepEqual(ann.faults, []);
});
