// Two people in two browsers, on a real host.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { newPhone, until } from '../client/test/host.mjs';
import { openBrowser, Visitor } from './browser.mjs';
import { startServer } from './server.mjs';

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

const visit = (options) => Visitor.open(browser, server.url, options);

async function pair(a, b) {
  const ann = await (await visit()).signUp(a, newPhone());
  const bob = await (await visit()).signUp(b, newPhone());
  return { ann, bob };
}

async function assertNoFaults(...visitors) {
  for (const visitor of visitors) {
    assert.deepEqual(visitor.faults, [], visitor.name);
    await visitor.context.close();
  }
}

const status = (visitor, text) => visitor.bubble(text).locator('.ticks').getAttribute('data-status');

test('two people sign up and talk', { timeout: 600_000 }, async () => {
  const { ann, bob } = await pair('Ann Lee', 'Bob Stone');
  await ann.talkTo('Bob Stone');
  await ann.say('Hello Bob');
  const row = bob.page.getByRole('link', { name: /Ann Lee/ });
  await row.getByText('1 unread').waitFor({ state: 'attached' });
  await until(async () => (await status(ann, 'Hello Bob')) === 'delivered', 'delivered');
  await row.click();
  await bob.bubble('Hello Bob').waitFor();
  await until(async () => (await status(ann, 'Hello Bob')) === 'read', 'read');
  await bob.page.getByLabel('Message', { exact: true }).pressSequentially('Hi An');
  await ann.page.locator('.subtitle.writing').waitFor();
  await bob.say('Hi Ann');
  await ann.bubble('Hi Ann').waitFor();
  assert.deepEqual(await ann.seriousFindings(), []);
  await assertNoFaults(ann, bob);
});

test('a message is answered, edited and deleted', { timeout: 600_000 }, async () => {
  const { ann, bob } = await pair('Cleo Park', 'Dan Frost');
  await ann.talkTo('Dan Frost');
  await ann.say('Shall we meet at six?');
  await bob.page.getByRole('link', { name: /Cleo Park/ }).click();
  await bob.act('Shall we meet', 'Reply');
  await bob.say('Seven is better');
  const answer = ann.bubble('Seven is better');
  await answer.locator('.quote', { hasText: 'Shall we meet at six?' }).waitFor();
  await ann.act('Shall we meet at six?', 'Edit', 'mine');
  await ann.page.getByLabel('New text of the message').fill('Shall we meet at seven?');
  await ann.page.getByRole('button', { name: 'Save the edit' }).click();
  await bob.bubble('Shall we meet at seven?').getByText('edited').waitFor();
  await ann.act('Shall we meet at seven?', 'Delete', 'mine');
  await ann.page.getByRole('button', { name: 'Delete for everyone' }).click();
  await bob.bubble('Message deleted').waitFor();
  assert.equal(await bob.page.getByText('Shall we meet').count(), 0);
  await bob.act('Seven is better', 'Delete', 'mine');
  await bob.page.getByRole('button', { name: 'Delete for me' }).click();
  await until(async () => (await bob.page.locator('.message').count()) === 1, 'gone for him');
  assert.equal(await ann.page.locator('.message').count(), 2);
  await assertNoFaults(ann, bob);
});

test('who goes offline writes on, and misses nothing', { timeout: 600_000 }, async () => {
  const { ann, bob } = await pair('Eve Marsh', 'Finn Hale');
  await ann.talkTo('Finn Hale');
  await ann.say('first');
  await bob.page.getByRole('link', { name: /Eve Marsh/ }).click();
  await bob.bubble('first').waitFor();
  bob.offline = true;
  await bob.context.setOffline(true);
  await bob.page.getByText('No connection.').waitFor();
  await bob.say('written on the train');
  assert.equal(await status(bob, 'written on the train'), 'waiting');
  await bob.page.getByText('1 message waits to be sent.').waitFor();
  for (const text of ['second', 'third', 'fourth']) await ann.say(text);
  await until(async () => (await status(ann, 'fourth')) === 'sent', 'sent');
  await bob.context.setOffline(false);
  await ann.bubble('written on the train').waitFor();
  await bob.bubble('fourth').waitFor();
  await until(async () => (await status(ann, 'fourth')) === 'read', 'read');
  const texts = async (visitor) => (await visitor.page.locator('.message .text').allInnerTexts()).toSorted();
  const all = ['first', 'fourth', 'second', 'third', 'written on the train'];
  assert.deepEqual(await texts(bob), all);
  assert.deepEqual(await texts(ann), all);
  await until(async () => (await bob.page.getByText('No connection.').count()) === 0, 'no banner');
  await assertNoFaults(ann, bob);
});

test('what was written offline is sent after the page was closed and opened again', { timeout: 600_000 }, async () => {
  const { ann, bob } = await pair('Gwen Ash', 'Hugo Lind');
  await ann.talkTo('Hugo Lind');
  await ann.say('here');
  await bob.page.getByRole('link', { name: /Gwen Ash/ }).click();
  await bob.bubble('here').waitFor();
  ann.offline = true;
  await ann.context.setOffline(true);
  await ann.page.getByText('No connection.').waitFor();
  await ann.say('do not lose me');
  await ann.bubble('do not lose me').waitFor();
  await ann.page.close();
  await ann.context.setOffline(false);
  ann.page = await ann.context.newPage();
  ann.watch(ann.page);
  await ann.page.goto(ann.url);
  await bob.bubble('do not lose me').waitFor();
  assert.equal(await bob.page.locator('.message').count(), 2);
  await assertNoFaults(ann, bob);
});

test('who is blocked cannot write, and learns nothing of it', { timeout: 600_000 }, async () => {
  const { ann, bob } = await pair('Iris Moor', 'Jack Thorn');
  await bob.talkTo('Iris Moor');
  await bob.say('Buy my stamps');
  await ann.page.getByRole('link', { name: /Jack Thorn/ }).click();
  await ann.bubble('Buy my stamps').waitFor();
  await ann.page.getByRole('link', { name: 'Details', exact: true }).click();
  await ann.page.getByRole('button', { name: 'Block Jack Thorn' }).click();
  await ann.page.getByRole('dialog').getByRole('button', { name: 'Block', exact: true }).click();
  await ann.page.getByText('You have blocked Jack Thorn.').waitFor();
  await bob.say('Please buy my stamps');
  await until(async () => (await bob.page.locator('.refused').count()) > 0 || (await status(bob, 'Please buy')) === 'sent', 'an answer');
  assert.equal(await bob.page.getByText(/block/i).count(), 0);
  await ann.page.waitForTimeout(500);
  assert.equal(await ann.page.getByText('Please buy my stamps').count(), 0);
  await ann.page.goto(`${ann.url}/settings/blocked`);
  await ann.page.getByRole('button', { name: 'Unblock' }).click();
  await ann.page.getByText('Nobody is blocked').waitFor();
  await assertNoFaults(ann, bob);
});

test('a group is made, and everybody in it reads along', { timeout: 600_000 }, async () => {
  const { ann, bob } = await pair('Kim Vale', 'Liam Brook');
  const mia = await (await visit()).signUp('Mia Dell', newPhone());
  await ann.page.goto(`${ann.url}/new`);
  await ann.page.getByRole('button', { name: 'Group' }).click();
  await ann.page.getByLabel('Name of the group').fill('Summer trip');
  for (const name of ['Liam Brook', 'Mia Dell']) {
    await ann.page.getByLabel('Find people').fill(name);
    await ann.page.locator('.results').getByRole('checkbox', { name }).click();
  }
  await ann.page.getByRole('button', { name: 'Create with 2 people' }).click();
  await ann.page.getByRole('heading', { level: 1, name: 'Summer trip' }).waitFor();
  await ann.say('Where do we go?');
  for (const visitor of [bob, mia]) {
    await visitor.page.getByRole('link', { name: /Summer trip/ }).click();
    await visitor.bubble('Where do we go?').waitFor();
  }
  await until(async () => (await status(ann, 'Where do we go?')) === 'read', 'read by all');
  await bob.say('To the lake');
  await mia.bubble('To the lake').getByText('Liam Brook').waitFor();
  await mia.page.getByRole('link', { name: 'Details', exact: true }).click();
  await mia.page.getByRole('button', { name: 'Leave the group' }).click();
  await mia.page.getByRole('dialog').getByRole('button', { name: 'Leave' }).click();
  await until(async () => (await mia.page.getByRole('link', { name: /Summer trip/ }).count()) === 0, 'left');
  await ann.page.getByText('2 people').first().waitFor();
  await assertNoFaults(ann, bob, mia);
});

test('two tabs share one socket, and one goes on when the other closes', { timeout: 600_000 }, async () => {
  const { ann, bob } = await pair('Nora Finch', 'Omar Reed');
  await ann.talkTo('Omar Reed');
  const second = await ann.context.newPage();
  ann.watch(second);
  let sockets = 0;
  second.on('websocket', () => (sockets += 1));
  await second.goto(ann.page.url());
  await second.getByRole('heading', { level: 1, name: 'Omar Reed' }).waitFor();
  await bob.page.getByRole('link', { name: /Nora Finch/ }).click();
  await bob.say('to both');
  for (const page of [ann.page, second]) await page.locator('.message', { hasText: 'to both' }).waitFor();
  await second.getByLabel('Message', { exact: true }).fill('from the second tab');
  await second.getByRole('button', { name: 'Send', exact: true }).click();
  await bob.bubble('from the second tab').waitFor();
  await ann.bubble('from the second tab').waitFor();
  assert.equal(sockets, 0);
  await ann.page.close();
  await bob.say('to the one that is left');
  await second.locator('.message', { hasText: 'to the one that is left' }).waitFor();
  assert.equal(sockets, 1);
  assert.equal(await second.locator('.message').count(), 3);
  await assertNoFaults(ann, bob);
});

test('a device is signed out from another one', { timeout: 600_000 }, async () => {
  const ann = await (await visit()).signUp('Pia North', newPhone());
  const other = await visit();
  other.name = 'her other device';
  await other.page.goto(`${other.url}/sign-in`);
  await other.page.getByLabel('Phone number').fill(ann.phone);
  await other.page.getByLabel('Password').fill('wrong horse 8');
  other.offline = true;
  await other.page.getByRole('button', { name: 'Sign in' }).click();
  await other.page.getByRole('alert').getByText('do not fit together').waitFor();
  await other.page.getByLabel('Password').fill('correct horse 7');
  await other.page.getByRole('button', { name: 'Sign in' }).click();
  await other.page.getByRole('link', { name: 'New conversation' }).first().waitFor();
  await ann.page.goto(`${ann.url}/settings/devices`);
  await until(async () => (await ann.page.getByTestId('device').count()) === 2, 'two devices');
  await ann.page.getByTestId('device').getByRole('button', { name: 'Sign out' }).click();
  await ann.page.getByRole('dialog').getByRole('button', { name: 'Sign out' }).click();
  await other.page.getByRole('heading', { name: 'Welcome back' }).waitFor();
  assert.equal(await ann.page.getByTestId('device').count(), 1);
  await assertNoFaults(ann, other);
});

test('the keyboard alone is enough', { timeout: 600_000 }, async () => {
  const { ann, bob } = await pair('Quin Base', 'Rosa Field');
  const { page } = ann;
  await page.goto(`${ann.url}/new`);
  await page.getByLabel('Find people').fill('Rosa Field');
  await page.locator('.results').getByRole('button', { name: 'Rosa Field' }).waitFor();
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { level: 1, name: 'Rosa Field' }).waitFor();
  await page.keyboard.type('no mouse');
  await page.keyboard.press('Enter');
  await until(async () => (await status(ann, 'no mouse')) !== 'waiting', 'sent: what still waits cannot be edited');
  await page.keyboard.press('ArrowUp');
  await page.keyboard.type(' needed');
  await page.keyboard.press('Enter');
  await ann.bubble('no mouse needed').getByText('edited').waitFor();
  const onMenu = () => page.evaluate(() => document.activeElement.closest('.message-menu') !== null && document.activeElement.getAttribute('aria-haspopup') === 'menu');
  for (let steps = 0; steps < 8 && !(await onMenu()); steps++) await page.keyboard.press('Shift+Tab');
  await page.keyboard.press('Enter');
  await page.keyboard.press('End');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Delete');
  await page.keyboard.press('Escape');
  assert.ok(await onMenu());
  await assertNoFaults(ann, bob);
});

test('who scrolls back far sees every message once, and comes back to the newest', { timeout: 600_000 }, async () => {
  const { ann, bob } = await pair('Wes Pike', 'Xena Rowe');
  await ann.talkTo('Xena Rowe');
  await ann.say('0');
  await ann.bubble('0').waitFor();
  await until(async () => (await status(ann, '0')) !== 'waiting', 'sent');
  const count = 350;
  await ann.page.evaluate(async (count) => {
    const credentials = await new Promise((resolve) => {
      const opening = indexedDB.open('echo', 1);
      opening.onsuccess = () => {
        const reading = opening.result.transaction('values').objectStore('values').get('credentials');
        reading.onsuccess = () => resolve(reading.result);
      };
    });
    const conversation_id = location.pathname.split('/')[2];
    const headers = { authorization: `Bearer ${credentials.access_token}`, 'content-type': 'application/json' };
    for (let n = 1; n < count; n++)
      await fetch('/api/v1/messages', { method: 'POST', headers, body: JSON.stringify({ conversation_id, client_message_id: `many-${n}`, type: 'text', content: String(n) }) });
  }, count);
  await bob.page.getByRole('link', { name: /Wes Pike/ }).click();
  await bob.bubble(String(count - 1)).waitFor();
  const seen = new Set();
  const log = bob.page.locator('.log');
  await until(async () => {
    const texts = await bob.page.locator('.message .text').allInnerTexts();
    const numbers = texts.map(Number);
    assert.deepEqual(numbers, numbers.map((_, index) => numbers[0] + index), 'in order, without gaps');
    numbers.forEach((n) => seen.add(n));
    await log.evaluate((element) => (element.scrollTop -= 1_500));
    return seen.has(0);
  }, 'the first message', 60_000);
  assert.equal(seen.size, count);
  assert.ok((await bob.page.locator('.message').count()) <= 300);
  await ann.say('the newest');
  await bob.page.getByRole('button', { name: 'To the newest message' }).click();
  await bob.bubble('the newest').waitFor();
  await until(async () => (await status(ann, 'the newest')) === 'read', 'read');
  await assertNoFaults(ann, bob);
});

test('a conversation with more unread than fits opens at the first of it', { timeout: 600_000 }, async () => {
  const { ann, bob } = await pair('Yann Dale', 'Zoe Mills');
  await ann.talkTo('Zoe Mills');
  await ann.say('0');
  await bob.page.getByRole('link', { name: /Yann Dale/ }).click();
  await bob.bubble('0').waitFor();
  await until(async () => (await status(ann, '0')) === 'read', 'read');
  await bob.page.goto(bob.url);
  const token = await ann.token();
  const conversation_id = new URL(ann.page.url()).pathname.split('/')[2];
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
  for (let n = 1; n <= 30; n++)
    await fetch(`${ann.url}/api/v1/messages`, { method: 'POST', headers, body: JSON.stringify({ conversation_id, client_message_id: `unread-${n}`, type: 'text', content: `Line ${n}` }) });
  await bob.page.getByRole('link', { name: /Yann Dale/ }).getByText('30 unread').waitFor({ state: 'attached' });
  await bob.page.getByRole('link', { name: /Yann Dale/ }).click();
  const isSeen = (locator) => locator.evaluate((element) => {
    const [box, frame] = [element.getBoundingClientRect(), element.closest('.log').getBoundingClientRect()];
    return box.top >= frame.top && box.bottom <= frame.bottom;
  });
  await bob.page.getByText('Unread messages').waitFor();
  await until(async () => (await isSeen(bob.page.locator('#m-2'))) && (await isSeen(bob.page.getByText('Unread messages'))), 'the first unread one');
  assert.equal(await isSeen(bob.page.locator('#m-31')).catch(() => false), false);
  await bob.page.getByRole('button', { name: 'To the newest message' }).click();
  await until(() => isSeen(bob.page.locator('#m-31')).catch(() => false), 'the newest');
  await until(async () => (await bob.page.getByText('30 unread').count()) === 0, 'read');
  await assertNoFaults(ann, bob);
});

test('what was begun stays when the page is loaded anew', { timeout: 600_000 }, async () => {
  const { ann, bob } = await pair('Uma Gale', 'Vic Lowe');
  await ann.talkTo('Vic Lowe');
  await ann.page.getByLabel('Message', { exact: true }).fill('to be continued');
  await ann.page.reload();
  assert.equal(await ann.page.getByLabel('Message', { exact: true }).inputValue(), 'to be continued');
  await ann.page.goto(ann.url);
  await ann.page.getByRole('link', { name: /Vic Lowe/ }).getByText('Draft:').waitFor();
  await assertNoFaults(ann, bob);
});

test('a message gets a reaction, a pin and a star, and is found by its words', { timeout: 600_000 }, async (t) => {
  const routes = Object.keys((await (await fetch(`${server.host.url}/openapi.json`)).json()).paths);
  if (!routes.includes('/api/v1/messages/{id}/reactions/{emoji}')) return t.diagnostic('this host has no reactions');
  const { ann, bob } = await pair('Sara Holm', 'Theo Wick');
  await ann.talkTo('Theo Wick');
  await ann.say('The lighthouse opens at noon');
  await bob.page.getByRole('link', { name: /Sara Holm/ }).click();
  await bob.act('lighthouse', 'React');
  await bob.page.getByRole('button', { name: 'React with 🎉' }).click();
  await ann.messages('lighthouse').getByRole('button', { name: '🎉 Theo Wick' }).waitFor();
  await bob.act('lighthouse', 'Star');
  await ann.act('lighthouse', 'Pin');
  await bob.page.locator('.pinned', { hasText: 'lighthouse' }).waitFor();
  await ann.add('New poll');
  await ann.page.getByLabel('Question').fill('Which day?');
  await ann.page.getByLabel('Answer 1').fill('Saturday');
  await ann.page.getByLabel('Answer 2').fill('Sunday');
  await ann.page.getByRole('dialog').getByRole('button', { name: 'Send' }).click();
  await bob.page.getByRole('button', { name: /Sunday/ }).click();
  await ann.messages('Which day?').getByText('1 person has voted').waitFor();
  await bob.page.goto(`${bob.url}/settings/starred`);
  await bob.page.getByText('The lighthouse opens at noon').waitFor();
  await bob.page.getByLabel('Find a conversation').fill('noon');
  await bob.page.getByRole('link', { name: /lighthouse opens at noon/ }).last().click();
  await bob.page.locator('.message.found').waitFor();
  await bob.messages('lighthouse').getByRole('button', { name: '🎉 You' }).waitFor();
  assert.deepEqual(await bob.seriousFindings(), []);
  await assertNoFaults(ann, bob);
});
