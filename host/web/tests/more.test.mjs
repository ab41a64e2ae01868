// Files, voice messages, mentions, messages for later, links to groups, a second factor: two people in two browsers, on a real host.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { after, before, test } from 'node:test';
import { newPhone, until } from '../client/test/host.mjs';
import { openBrowser, PASSWORD, Visitor } from './browser.mjs';
import { picture } from './picture.mjs';
import { startServer } from './server.mjs';

let server;
let browser;
let routes;
before(async () => {
  server = await startServer();
  browser = await openBrowser();
  routes = Object.keys((await (await fetch(`${server.host.url}/openapi.json`)).json()).paths);
});
after(async () => {
  await browser?.close();
  await server?.end();
});

const visit = (options) => Visitor.open(browser, server.url, options);
const pair = async (a, b) => ({ ann: await (await visit()).signUp(a, newPhone()), bob: await (await visit()).signUp(b, newPhone()) });

async function assertNoFaults(...visitors) {
  for (const visitor of visitors) {
    assert.deepEqual(visitor.faults, [], visitor.name);
    await visitor.context.close();
  }
}

const isDrawn = (picture) => picture.locator('img').evaluate((image) => image.complete && image.naturalWidth > 0).catch(() => false);

test('a picture travels, is opened, and a voice message and a file too', { timeout: 600_000 }, async () => {
  const { ann, bob } = await pair('Abe Lund', 'Bea Nord');
  await ann.talkTo('Bea Nord');
  await ann.page.getByTestId('pictures').setInputFiles({ name: 'view.png', mimeType: 'image/png', buffer: picture() });
  await ann.page.getByLabel('Text to it').fill('From the hill');
  await ann.page.getByRole('dialog').getByRole('button', { name: 'Send' }).click();
  await until(async () => (await ann.bubble('From the hill').locator('.ticks').getAttribute('data-status')) !== 'waiting', 'sent');
  await until(() => isDrawn(ann.bubble('From the hill').locator('.picture')), 'the picture on her page');
  await bob.page.getByRole('link', { name: /Abe Lund/ }).click();
  const theirs = bob.bubble('From the hill').locator('.picture');
  await theirs.waitFor();
  assert.equal(await bob.mayReadFile(), true, 'a recipient reads the file');
  await until(() => isDrawn(theirs), 'the picture on his page');
  await theirs.click();
  await until(() => isDrawn(bob.page.getByRole('dialog')), 'the whole picture');
  assert.deepEqual(await bob.seriousFindings(), []);
  await bob.page.keyboard.press('Escape');
  await ann.page.getByTestId('files').setInputFiles({ name: 'notes — Grüße.txt', mimeType: 'text/plain', buffer: Buffer.from('Hello') });
  await ann.page.getByRole('dialog').getByRole('button', { name: 'Send' }).click();
  await bob.page.getByRole('button', { name: 'Save notes — Grüße.txt' }).waitFor();
  const [download] = await Promise.all([ann.page.waitForEvent('download'), ann.page.getByRole('button', { name: 'Save notes — Grüße.txt' }).click()]);
  assert.equal(download.suggestedFilename(), 'notes — Grüße.txt');
  await ann.page.getByRole('button', { name: 'Record a voice message' }).click();
  await ann.page.getByText('Recording', { exact: true }).waitFor();
  await ann.page.locator('.recorder .sound-time', { hasText: '0:01' }).waitFor();
  assert.deepEqual(await ann.seriousFindings(), []);
  await ann.page.getByRole('button', { name: 'Send the recording' }).click();
  await ann.page.locator('.message:not(:has(.bubble-waiting)) .sound').waitFor();
  await bob.page.locator('.sound').getByRole('button', { name: 'Play' }).waitFor();
  await ann.page.locator('.sound').getByRole('button', { name: 'Play' }).click();
  await ann.page.locator('.sound').getByRole('button', { name: 'Pause' }).waitFor();
  await assertNoFaults(ann, bob);
});

test('a picture that was chosen offline is sent when there is a connection, also after the page was loaded anew', { timeout: 600_000 }, async () => {
  const { ann, bob } = await pair('Cal Reef', 'Dot Hill');
  await ann.talkTo('Dot Hill');
  await ann.say('soon');
  await bob.page.getByRole('link', { name: /Cal Reef/ }).click();
  await bob.bubble('soon').waitFor();
  ann.offline = true;
  await ann.context.setOffline(true);
  await ann.page.getByText('No connection.').waitFor();
  await ann.page.getByTestId('pictures').setInputFiles({ name: 'view.png', mimeType: 'image/png', buffer: picture(300, 200) });
  await ann.page.getByLabel('Text to it').fill('kept');
  await ann.page.getByRole('dialog').getByRole('button', { name: 'Send' }).click();
  await ann.bubble('kept').getByRole('progressbar').waitFor();
  await ann.say('and this');
  await ann.bubble('and this').waitFor();
  await ann.page.close();
  await ann.context.setOffline(false);
  ann.page = await ann.context.newPage();
  ann.watch(ann.page);
  await ann.page.goto(ann.url);
  await bob.bubble('kept').locator('.picture').waitFor();
  await bob.bubble('and this').waitFor();
  assert.equal(await bob.page.locator('.message').count(), 3);
  await assertNoFaults(ann, bob);
});

test('the page opens without a network, with what was last known, and catches up', { timeout: 600_000 }, async () => {
  const { ann, bob } = await pair('Mae Tarn', 'Ned Quill');
  await ann.talkTo('Ned Quill');
  await ann.say('before the tunnel');
  await bob.page.getByRole('link', { name: /Mae Tarn/ }).click();
  await bob.bubble('before the tunnel').waitFor();
  await until(() => bob.page.evaluate(async () => Boolean(navigator.serviceWorker.controller) && (await caches.match('/client.js')) !== undefined), 'the kept files');
  const kept = () =>
    bob.page.evaluate(
      () =>
        new Promise((resolve) => {
          const opening = indexedDB.open('echo-shown', 1);
          opening.onsuccess = () => {
            const reading = opening.result.transaction('values').objectStore('values').get('snapshot');
            reading.onsuccess = () => resolve(JSON.stringify(reading.result ?? null));
            opening.result.close();
          };
        }),
    );
  await until(async () => (await kept()).includes('before the tunnel'), 'what is shown is kept');
  bob.offline = true;
  await bob.context.setOffline(true);
  await bob.page.reload();
  await bob.bubble('before the tunnel').waitFor();
  await bob.page.getByText('No connection.').waitFor();
  await bob.say('written in the tunnel');
  await ann.say('meanwhile');
  await bob.context.setOffline(false);
  await bob.bubble('meanwhile').waitFor({ timeout: 60_000 });
  await ann.bubble('written in the tunnel').waitFor({ timeout: 60_000 });
  await until(async () => (await bob.page.locator('.message').count()) === 3, 'three messages, each once');
  await assertNoFaults(ann, bob);
});

test('somebody is mentioned in a group, and joins it by a link before', { timeout: 600_000 }, async () => {
  const { ann, bob } = await pair('Eli Stark', 'Flo Winter');
  await ann.page.goto(`${ann.url}/new`);
  await ann.page.getByRole('button', { name: 'Group' }).click();
  await ann.page.getByLabel('Name of the group').fill('Choir');
  const mia = await (await visit()).signUp('Gus Amber', newPhone());
  await ann.page.getByLabel('Find people').fill('Gus Amber');
  await ann.page.locator('.results').getByRole('checkbox', { name: 'Gus Amber' }).click();
  await ann.page.getByRole('button', { name: 'Create with 1 person' }).click();
  await ann.page.getByRole('heading', { level: 1, name: 'Choir' }).waitFor();
  await ann.page.getByRole('link', { name: 'Details', exact: true }).click();
  await ann.page.getByRole('button', { name: 'Invite' }).click();
  await ann.page.getByRole('button', { name: 'Make a link' }).click();
  const link = await ann.page.getByRole('dialog').locator('code').innerText();
  assert.deepEqual(await ann.seriousFindings(), []);
  const code = new URL(link).pathname.split('/').at(-1);
  await bob.page.goto(bob.url);
  await bob.page.evaluate((path) => {
    history.pushState(null, '', path);
    dispatchEvent(new PopStateEvent('popstate'));
  }, `/join/${code}`);
  await bob.page.getByRole('button', { name: 'Join the group' }).click();
  await bob.page.getByRole('heading', { level: 1, name: 'Choir' }).waitFor();
  await ann.page.getByRole('dialog').getByRole('button', { name: 'End the link' }).click();
  await ann.page.getByText('Nobody joins by that link any more').waitFor();
  await ann.page.keyboard.press('Escape');
  await ann.page.getByText('3 people').first().waitFor();
  const box = ann.page.getByLabel('Message', { exact: true });
  await box.pressSequentially('Well sung, @fl');
  await ann.page.getByRole('option', { name: 'Flo Winter' }).waitFor();
  await ann.page.keyboard.press('Enter');
  await until(async () => (await box.inputValue()) === 'Well sung, @Flo Winter ', 'the name');
  await ann.page.keyboard.press('Enter');
  await bob.bubble('Well sung').locator('.mention-me', { hasText: '@Flo Winter' }).waitFor();
  if (routes.includes('/api/v1/notifications')) {
    await until(async () => {
      await bob.page.goto(`${bob.url}/settings/mentions`);
      await bob.page.getByRole('heading', { level: 1, name: 'Mentions' }).waitFor();
      await bob.page.locator('.pane-body .participant, .pane-body .empty').first().waitFor();
      return (await bob.page.getByText('Well sung, @Flo Winter').count()) > 0;
    }, 'the mention in the list');
  }
  await assertNoFaults(ann, bob, mia);
});

test('words are found within a conversation, and a contact has a name of one\'s own', { timeout: 600_000 }, async () => {
  const { ann, bob } = await pair('Wim Sand', 'Xia Moss');
  await ann.talkTo('Xia Moss');
  for (const text of ['the harbour at dawn', 'nothing of note']) await ann.say(text);
  await bob.page.getByRole('link', { name: /Wim Sand/ }).click();
  await bob.bubble('nothing of note').waitFor();
  await ann.page.getByRole('link', { name: 'Details', exact: true }).click();
  const details = ann.page.getByRole('complementary', { name: 'Details' });
  await details.getByLabel('Search in this conversation').fill('harbour');
  await details.getByRole('link', { name: /the harbour at dawn/ }).click();
  await ann.page.locator('.message.found', { hasText: 'the harbour' }).waitFor();
  await ann.page.getByRole('link', { name: 'Details', exact: true }).click();
  await ann.page.getByRole('button', { name: 'Add to contacts' }).click();
  await ann.page.getByRole('button', { name: 'Name them yourself' }).click();
  await ann.page.getByLabel('Name', { exact: true }).fill('Captain');
  await ann.page.getByRole('button', { name: 'Save', exact: true }).click();
  await ann.page.getByRole('heading', { level: 1, name: 'Captain' }).waitFor();
  assert.deepEqual(await ann.seriousFindings(), []);
  await assertNoFaults(ann, bob);
});

test('in a channel its admins write and the others read', { timeout: 600_000 }, async () => {
  const { ann, bob } = await pair('Una Frost', 'Vic Marsh');
  await ann.page.goto(`${ann.url}/new`);
  await ann.page.getByRole('button', { name: 'Channel' }).click();
  await ann.page.getByLabel('Name of the channel').fill('News of the house');
  await ann.page.getByLabel('Find people').fill('Vic Marsh');
  await ann.page.locator('.results').getByRole('checkbox', { name: 'Vic Marsh' }).click();
  await ann.page.getByRole('button', { name: 'Create with 1 person' }).click();
  await ann.page.getByRole('heading', { level: 1, name: 'News of the house' }).waitFor();
  await ann.say('The lift works again');
  await bob.page.getByRole('link', { name: /News of the house/ }).click();
  await bob.bubble('The lift works again').waitFor();
  await bob.page.getByText('Only the admins of this channel write here.').waitFor();
  await ann.page.goto(`${ann.url}/settings`);
  await ann.page.getByLabel('Others see me as').selectOption('busy');
  await ann.page.getByText('Saved').waitFor();
  assert.deepEqual(await ann.seriousFindings(), []);
  await assertNoFaults(ann, bob);
});

test('a message is kept for later, moved and sent by the server', { timeout: 600_000 }, async () => {
  const { ann, bob } = await pair('Hal Birch', 'Ida Crane');
  await ann.talkTo('Ida Crane');
  const local = (at) => new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
  for (const text of ['in a year or so', 'the day after']) {
    await ann.page.getByLabel('Message', { exact: true }).fill(text);
    await ann.add('Send later');
    await ann.page.getByLabel('Day and time').fill(local(new Date(Date.now() + 48 * 3_600_000)));
    await ann.page.getByRole('button', { name: 'Send then' }).click();
    await ann.page.getByText(/sent later/).waitFor();
    await until(async () => (await ann.page.getByLabel('Message', { exact: true }).inputValue()) === '', 'an empty field');
  }
  await ann.page.getByRole('button', { name: '2 messages are sent later' }).click();
  const dialog = ann.page.getByRole('dialog');
  await dialog.getByText('the day after').waitFor();
  assert.deepEqual(await ann.seriousFindings(), []);
  await dialog.getByRole('button', { name: 'Do not send' }).first().click();
  await until(async () => (await dialog.getByRole('button', { name: 'Do not send' }).count()) === 1, 'one less');
  await dialog.getByRole('button', { name: 'Change the time' }).click();
  await ann.page.getByLabel('Day and time').fill(local(new Date(Date.now() + 60_000)));
  await ann.page.getByRole('dialog').getByRole('button', { name: 'Change', exact: true }).click();
  await bob.page.getByRole('link', { name: /Hal Birch/ }).click();
  await bob.page.locator('.message').waitFor({ timeout: 120_000 });
  await until(async () => (await ann.page.getByText(/sent later/).count()) === 0, 'nothing left');
  assert.equal(await bob.page.locator('.message').count(), 1);
  await assertNoFaults(ann, bob);
});

/** The six digits of now (RFC 6238 with HMAC-SHA-1). */
function totp(secret, now = Date.now()) {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
  const bits = [...secret].map((char) => alphabet.indexOf(char).toString(2).padStart(5, '0')).join('');
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(now / 30_000)));
  const digest = createHmac('sha1', key).update(counter).digest();
  const at = digest.at(-1) & 15;
  return String((digest.readUInt32BE(at) & 0x7fffffff) % 1_000_000).padStart(6, '0');
}

test('a second factor is set up, and signing in asks for it', { timeout: 600_000 }, async () => {
  const ann = await (await visit()).signUp('Jan Ollo', newPhone());
  await ann.page.goto(`${ann.url}/settings/second-factor`);
  await ann.page.getByLabel('Current password').fill(PASSWORD);
  await ann.page.getByRole('button', { name: 'Set it up' }).click();
  const secret = await ann.page.locator('.code-line code').innerText();
  await ann.page.getByRole('img', { name: 'The key as a code to scan' }).waitFor();
  assert.deepEqual(await ann.seriousFindings(), []);
  await ann.page.getByLabel('Code', { exact: true }).fill(totp(secret));
  await ann.page.getByRole('button', { name: 'Turn it on' }).click();
  await ann.page.getByRole('list', { name: 'Recovery codes' }).waitFor();
  const recovery = await ann.page.getByRole('list', { name: 'Recovery codes' }).locator('code').allInnerTexts();
  assert.ok(recovery.length >= 5);
  const other = await visit();
  other.offline = true;
  await other.page.goto(`${other.url}/sign-in`);
  await other.page.getByLabel('Phone number').fill(ann.phone);
  await other.page.getByLabel('Password').fill(PASSWORD);
  await other.page.getByRole('button', { name: 'Sign in' }).click();
  await other.page.getByLabel('Code', { exact: true }).fill(recovery[0]);
  await other.page.getByRole('button', { name: 'Sign in' }).click();
  await other.page.getByRole('link', { name: 'New conversation' }).first().waitFor();
  await ann.page.goto(`${ann.url}/settings/account`);
  await ann.page.getByText('Right password, no code yet').waitFor();
  await assertNoFaults(ann, other);
});

test('an edited message shows what it said, and a message is reported', { timeout: 600_000 }, async () => {
  const { ann, bob } = await pair('Kit Sorrel', 'Lou Farrow');
  await ann.talkTo('Lou Farrow');
  await ann.say('The frist version');
  await until(async () => (await ann.bubble('The frist').locator('.ticks').getAttribute('data-status')) !== 'waiting', 'sent');
  await ann.act('The frist version', 'Edit', 'mine');
  await ann.page.getByLabel('New text of the message').fill('The first version');
  await ann.page.getByRole('button', { name: 'Save the edit' }).click();
  await bob.page.getByRole('link', { name: /Kit Sorrel/ }).click();
  await bob.act('The first version', 'Earlier versions');
  await bob.page.getByRole('dialog').getByText('The frist version').waitFor();
  await bob.page.keyboard.press('Escape');
  await bob.act('The first version', 'Report');
  await bob.page.getByLabel('What is wrong').fill('A test of the form');
  await bob.page.getByRole('dialog').getByRole('button', { name: 'Report' }).click();
  await bob.page.getByText('Reported. Thank you.').waitFor();
  await assertNoFaults(ann, bob);
});
