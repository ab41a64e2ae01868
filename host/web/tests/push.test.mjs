// Pushes to a browser, from the switch in the settings to the notification. No browser of a test reaches a push service, so a server of the test takes its
// place: what the page gets of `PushManager` is a stub with a key pair of the test, the server gets what the host encrypts for it, the test decrypts it as
// the browser would (RFC 8291) and hands it to the service worker by the debugger's protocol.
import assert from 'node:assert/strict';
import { createDecipheriv, createECDH, createPublicKey, generateKeyPairSync, hkdfSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { newPhone, until } from '../client/test/host.mjs';
import { openBrowser, Visitor } from './browser.mjs';
import { startServer } from './server.mjs';

const DEVICES = '/api/v1/notifications/devices';

/** The browser's half of a subscription. */
const keys = createECDH('prime256v1');
keys.generateKeys();
const secret = randomBytes(16);
/** The host's key, as the browser is to get it: uncompressed (SEC 1). */
const vapid = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
const { x, y } = createPublicKey(vapid.privateKey).export({ format: 'jwk' });
const vapidKey = Buffer.concat([Buffer.of(4), Buffer.from(x, 'base64url'), Buffer.from(y, 'base64url')]).toString('base64url');

const pushes = [];
let folder;
let service;
let server;
let browser;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'echo-push-'));
  await writeFile(join(folder, 'vapid.pem'), vapid.privateKey.export({ type: 'pkcs8', format: 'pem' }));
  service = createServer(async (request, response) => {
    pushes.push({ path: request.url, body: Buffer.concat(await request.toArray()) });
    response.writeHead(201).end();
  });
  await new Promise((resolve) => service.listen(0, '127.0.0.1', resolve));
  const address = `127.0.0.1:${service.address().port}`;
  server = await startServer({
    ECHO_HTTP__VAPID_KEY: `file:${join(folder, 'vapid.pem')}`,
    ECHO_HTTP__VAPID_SUBJECT: 'mailto:ops@echo.example',
    ECHO_HTTP__PRIVATE_HOSTS: address,
    ECHO_SERVICES__NOTIFICATION__PUSH_SERVICES: `http://${address}`,
    ECHO_SERVICES__NOTIFICATION__ACK_WAIT_S: '1',
  });
  browser = await openBrowser();
});
after(async () => {
  await browser?.close();
  await server?.end();
  service?.close();
  await rm(folder, { recursive: true, force: true });
});

/** What the browser does with a push before it wakes the service worker. */
function decrypted(body) {
  const [salt, length] = [body.subarray(0, 16), body[20]];
  const [theirs, record] = [body.subarray(21, 21 + length), body.subarray(21 + length)];
  const expand = (salt, ikm, info, bytes) => Buffer.from(hkdfSync('sha256', ikm, salt, info, bytes));
  const ikm = expand(secret, keys.computeSecret(theirs), Buffer.concat([Buffer.from('WebPush: info\0'), keys.getPublicKey(), theirs]), 32);
  const key = expand(salt, ikm, Buffer.from('Content-Encoding: aes128gcm\0'), 16);
  const nonce = expand(salt, ikm, Buffer.from('Content-Encoding: nonce\0'), 12);
  const cipher = createDecipheriv('aes-128-gcm', key, nonce);
  cipher.setAuthTag(record.subarray(-16));
  const padded = Buffer.concat([cipher.update(record.subarray(0, -16)), cipher.final()]);
  return padded.subarray(0, padded.lastIndexOf(2)).toString();
}

/** In place of the browser's own, which asks a push service. It outlives its page, as the browser's does. */
const stub = ({ endpoint, p256dh, auth }) => {
  const subscription = () => {
    const key = localStorage.getItem('stub:key');
    if (key === null) return null;
    const applicationServerKey = Uint8Array.from(key.split(',').map(Number)).buffer;
    return {
      endpoint,
      options: { userVisibleOnly: true, applicationServerKey },
      toJSON: () => ({ endpoint, expirationTime: null, keys: { p256dh, auth } }),
      unsubscribe: async () => (localStorage.removeItem('stub:key'), true),
    };
  };
  PushManager.prototype.getSubscription = async () => subscription();
  PushManager.prototype.subscribe = async ({ userVisibleOnly, applicationServerKey }) => {
    if (!userVisibleOnly) throw new DOMException('refused', 'NotAllowedError');
    localStorage.setItem('stub:key', String(new Uint8Array(applicationServerKey)));
    return subscription();
  };
};

test('a browser gets pushes while Echo is closed, as its owner wants them, until they switch them off', { timeout: 600_000 }, async () => {
  const ann = await (await Visitor.open(browser, server.url)).signUp('Ann Lee', newPhone());
  const bob = await Visitor.open(browser, server.url);
  await bob.context.grantPermissions(['notifications'], { origin: server.url });
  const about = { endpoint: `http://127.0.0.1:${service.address().port}/bob`, p256dh: keys.getPublicKey('base64url'), auth: secret.toString('base64url') };
  await bob.context.addInitScript(stub, about);
  // The first page is from before the script.
  await bob.signUp('Bob Stone', newPhone());
  await ann.talkTo('Bob Stone');
  await ann.say('Are you there?');
  await bob.page.getByRole('link', { name: /Ann Lee/ }).click();
  await bob.bubble('Are you there?').waitFor();
  const conversation = new URL(bob.page.url()).pathname;

  const closed = bob.page.getByRole('switch', { name: /Also while Echo is closed/ });
  const devices = async () => (await (await bob.ask(DEVICES)).json()).items;
  await bob.page.goto(`${bob.url}/settings/notifications`);
  await closed.click();
  await bob.page.getByRole('switch', { name: /Also while Echo is closed/, checked: true }).waitFor();
  assert.deepEqual(await bob.seriousFindings(), []);
  assert.equal(await bob.page.evaluate(() => localStorage.getItem('stub:key')), String(new Uint8Array(Buffer.from(vapidKey, 'base64url'))), "the host's key");
  const [device, ...more] = await devices();
  assert.deepEqual([JSON.parse(device.token).endpoint, device.provider, more], [about.endpoint, 'webpush', []]);
  await bob.page.reload();
  await bob.page.getByRole('switch', { name: /Also while Echo is closed/, checked: true }).waitFor();
  assert.equal((await devices()).length, 1, 'registered once');
  await until(() => bob.page.evaluate(() => new Promise((resolve) => {
    const opening = indexedDB.open('echo-shown');
    opening.onsuccess = () => {
      const reading = opening.result.transaction('values').objectStore('values').get('snapshot');
      reading.onsuccess = () => resolve(Boolean(reading.result?.conversations.length && reading.result.people.length > 1));
      opening.result.close();
    };
  })), 'what the page keeps');

  // Echo is closed; the browser is not.
  const [worker] = bob.context.serviceWorkers();
  const debug = await bob.context.newCDPSession(bob.page);
  const registrations = [];
  debug.on('ServiceWorker.workerRegistrationUpdated', (event) => registrations.push(...event.registrations));
  await debug.send('ServiceWorker.enable');
  await until(() => registrations.length > 0, 'the registration');
  await bob.page.goto('about:blank');
  const registrationId = registrations.find(({ scopeURL }) => scopeURL.startsWith(server.url)).registrationId;
  const seen = new Set();
  /** The next one; the same may come twice. */
  const pushed = async () => {
    const next = () => pushes.map(({ path, body }) => ({ path, data: decrypted(body) })).find(({ data }) => !seen.has(JSON.parse(data).message_id));
    const { path, data } = await until(next, 'a push');
    assert.equal(path, '/bob');
    await debug.send('ServiceWorker.deliverPushMessage', { origin: server.url, registrationId, data });
    seen.add(JSON.parse(data).message_id);
    return JSON.parse(data);
  };
  const shown = () => worker.evaluate(async () => (await registration.getNotifications()).map(({ title, body, tag }) => ({ title, body, tag })));
  const shows = async (expected) => {
    const isShown = async () => JSON.stringify(await shown()) === JSON.stringify(expected);
    await until(isShown, 'the notification').catch(async () => assert.deepEqual(await shown(), expected));
  };
  const tag = conversation.split('/')[2];

  await ann.say('The boat leaves at eight');
  assert.equal((await pushed()).conversation_id, tag);
  await shows([{ title: 'Ann Lee', body: 'The boat leaves at eight', tag }]);
  await ann.say('Do not be late');
  await pushed();
  await shows([{ title: 'Ann Lee', body: 'Do not be late', tag }]);

  // A click; the worker may open windows after a real one alone, so what it asks for is noted.
  const click = () =>
    worker.evaluate(async () => {
      const asked = [];
      clients.openWindow = async (path) => void asked.push(path);
      const [notification] = await registration.getNotifications();
      dispatchEvent(new NotificationEvent('notificationclick', { notification }));
      for (let turns = 0; asked.length === 0 && turns < 200; turns++) await new Promise((resolve) => setTimeout(resolve, 10));
      return asked;
    });
  assert.deepEqual(await click(), [conversation]);
  await shows([]);

  await bob.page.goto(`${bob.url}/settings/notifications`);
  await bob.page.getByRole('switch', { name: 'Show what messages say' }).click();
  await bob.page.getByRole('switch', { name: 'Show what messages say', checked: false }).waitFor();
  await bob.page.goto('about:blank');
  await ann.say('Nobody is to read this over your shoulder');
  await pushed();
  await shows([{ title: 'New message', body: 'You have a new message', tag }]);

  // With a page of Echo open it is the page that shows the conversation; what was read there is taken away.
  await bob.page.goto(`${bob.url}/settings/notifications`);
  await closed.waitFor();
  const front = await bob.context.newPage();
  await front.bringToFront();
  await worker.evaluate(async () => {
    const [notification] = await registration.getNotifications();
    dispatchEvent(new NotificationEvent('notificationclick', { notification }));
  });
  await until(() => new URL(bob.page.url()).pathname === conversation, 'the conversation');
  await front.close();
  await bob.page.bringToFront();
  await bob.bubble('Nobody is to read this').waitFor();

  await bob.page.goto(`${bob.url}/settings/notifications`);
  await closed.click();
  await bob.page.getByRole('switch', { name: /Also while Echo is closed/, checked: false }).waitFor();
  await until(async () => (await devices()).length === 0, 'no device');
  assert.equal(await bob.page.evaluate(() => localStorage.getItem('stub:key')), null);

  // Who signs out gets nothing more.
  await closed.click();
  await until(async () => (await devices()).length === 1, 'registered again');
  await bob.page.goto(`${bob.url}/settings`);
  await bob.page.getByRole('button', { name: 'Sign out of this device' }).click();
  await bob.page.getByRole('dialog').getByRole('button', { name: 'Sign out' }).click();
  await bob.page.getByRole('heading', { name: 'Welcome back' }).waitFor();
  await until(() => bob.page.evaluate(() => localStorage.getItem('stub:key') === null), 'the subscription ends');
  for (const visitor of [ann, bob]) assert.deepEqual(visitor.faults, [], visitor.name);
});
