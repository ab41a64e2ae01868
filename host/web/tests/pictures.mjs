// `npm run pictures`: the pictures of the repository's README, taken from a running system: people who talk, the console of their operator, the
// page of the interface. Into `host/docs/pictures`, or the folder that is named.
import { mkdir, stat } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import WebSocket from 'ws';
import { EchoClient } from '../client/build/index.js';
import { newPhone, until } from '../client/test/host.mjs';
import { openBrowser, PASSWORD, Visitor } from './browser.mjs';
import { picture } from './picture.mjs';
import { startServer } from './server.mjs';

/** README is to open fast. */
const PICTURE_BYTES_MAX = 150_000;
const VIEW = { viewport: { width: 1200, height: 820 }, reducedMotion: 'reduce' };

const folder = process.argv[2] ?? fileURLToPath(new URL('../../docs/pictures', import.meta.url));
await mkdir(folder, { recursive: true });
const server = await startServer();
const browser = await openBrowser();
const built = process.env.ECHO_WEB === 'dist';

async function taken(page, name) {
  const path = `${folder}/${name}.png`;
  // What was clicked keeps a ring around it.
  await page.evaluate(() => document.activeElement?.blur());
  await page.mouse.move(0, 0);
  await page.waitForTimeout(500);
  await page.screenshot({ path, animations: 'disabled' });
  const { size } = await stat(path);
  if (size > PICTURE_BYTES_MAX) throw new Error(`${path} has ${size} bytes`);
  console.log(`${path}: ${Math.round(size / 1000)} kB`);
}

async function person(name) {
  const client = new EchoClient({ url: server.host.url, webSocket: WebSocket });
  const phone = newPhone();
  const { registration_id } = await client.register({ phone, password: PASSWORD, name });
  const { user_id } = await client.verify({ registration_id, phone, otp: await server.host.codeFor(phone) });
  client.connect();
  const open = (body) => client.rest.post('/api/v1/messages/conversations', { body });
  let count = 0;
  const say = (conversation_id, content, more = {}) =>
    client.rest.post('/api/v1/messages', { body: { conversation_id, client_message_id: `${name}-${count++}`, type: 'text', content, ...more } });
  const read = (conversation_id, up_to_seq) => client.rest.post('/api/v1/messages/read', { body: { conversation_id, up_to_seq } });
  return { client, user_id, open, say, read };
}

// People, and what they have to say to each other.
const ann = await (await Visitor.open(browser, server.url, VIEW)).signUp('Ann Lee', newPhone());
const { page } = ann;
const { user_id: annId } = JSON.parse(Buffer.from((await ann.token()).split('.')[1], 'base64url'));
const [bob, noor, mia, luis] = [await person('Bob Stone'), await person('نور حداد'), await person('Mia Dell'), await person('Luis Ortega')];
const lighthouse = await luis.open({ type: 'channel', title: 'Lighthouse news', participant_ids: [annId, mia.user_id] });
await luis.say(lighthouse.id, 'The stairs are open again from Monday');
const choir = await mia.open({ type: 'group', title: 'Choir', participant_ids: [annId, bob.user_id, luis.user_id] });
await mia.say(choir.id, 'Rehearsal moves to seven');
await luis.say(choir.id, 'I bring the scores');
const arabic = await noor.open({ type: 'direct', participant_ids: [annId] });
await noor.say(arabic.id, 'مرحبا آن، كيف حالك اليوم؟');
await bob.client.rest.post('/api/v1/users/contacts', { body: { user_id: annId } });
const talk = await bob.open({ type: 'direct', participant_ids: [annId] });
await bob.say(talk.id, 'Good morning! Shall we walk to the hill on Saturday?');
await page.goto(`${server.url}/c/${talk.id}`);
await ann.bubble('Good morning').waitFor();
await ann.say('Gladly. This is the view from last time:');
await page.getByTestId('pictures').setInputFiles({ name: 'view.png', mimeType: 'image/png', buffer: picture(640, 320) });
await page.getByRole('dialog').getByRole('button', { name: 'Send' }).click();
await page.locator('.message .picture img').waitFor();
await until(async () => (await page.locator('.bubble-waiting').count()) === 0, 'sent');
const { items } = await bob.client.rest.get('/api/v1/messages', { query: { conversation_id: talk.id, limit: 1 } });
await bob.say(talk.id, 'Let us take the same path, it was dry there', { reply_to: items[0].id });
await bob.client.rest.put('/api/v1/messages/{id}/reactions/{emoji}', { path: { id: items[0].id, emoji: '❤' } });
const { seq } = await bob.client.rest.post('/api/v1/messages', {
  body: { conversation_id: talk.id, client_message_id: 'poll', type: 'poll', poll: { question: 'When do we start?', options: ['At nine', 'At ten, after coffee'], multiple: false } },
});
await page.getByRole('button', { name: /At ten/ }).click();
await page.getByText('1 person has voted').waitFor();
await bob.read(talk.id, seq);
await page.locator('.reaction').waitFor();
await page.getByText('online', { exact: true }).waitFor();
await taken(page, 'client');

// The page of the interface, with the requests of messages.
await page.goto(`${server.url}/${built ? 'docs.html' : 'docs'}`);
await page.locator('.opblock-tag').first().waitFor();
await page.getByRole('button', { name: 'Try requests as this account' }).click();
await page.locator('#operations-tag-message').click();
await page.locator('.opblock-post').first().waitFor();
await page.locator('#operations-tag-message').evaluate((element) => element.scrollIntoView({ block: 'start' }));
await taken(page, 'docs');

// The console, while some people write.
let writing = true;
const writers = [bob, noor, mia, luis].map(async (one, index) => {
  const conversation = [talk, arabic, choir, choir][index].id;
  for (let n = 0; writing; n++) {
    await one.say(conversation, `Note ${n}`);
    if (n % 3 === 0) await one.client.rest.get('/api/v1/messages', { query: { conversation_id: conversation } });
    if (n % 5 === 0) await one.client.rest.get('/api/v1/users/me', {});
    await new Promise((resolve) => setTimeout(resolve, 40 + 30 * index));
  }
});
const operator = await Visitor.open(browser, `http://${server.host.admin.admin}`, VIEW);
if (built) {
  // The built files in the place of those in the host, with the host's headers.
  await operator.context.route(/\/console(\/|$)/, async (route) => {
    const name = new URL(route.request().url()).pathname.split('/')[2] ?? 'index.html';
    await route.fulfill({ response: await route.fetch(), path: fileURLToPath(new URL(`../console/dist/${name}`, import.meta.url)) });
  });
}
await operator.page.goto(`${operator.url}/console`);
await operator.page.getByLabel("Operator's token").fill(server.host.admin.admin_token);
await operator.page.getByRole('button', { name: 'Sign in' }).click();
await operator.page.getByRole('heading', { level: 1, name: 'Services' }).waitFor();
await operator.page.waitForTimeout(20_000);
await taken(operator.page, 'console');
writing = false;
await Promise.all(writers);

const faults = [...ann.faults, ...operator.faults];
for (const one of [bob, noor, mia, luis]) one.client.close();
await browser.close();
await server.end();
if (faults.length > 0) throw new Error(faults.join('\n'));
