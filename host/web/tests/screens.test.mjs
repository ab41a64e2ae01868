// Every page at three widths in both themes: what axe-core finds, and pictures to look at in tests/screenshots/.
import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { newPhone, until } from '../client/test/host.mjs';
import { openBrowser, Visitor } from './browser.mjs';
import { startServer } from './server.mjs';

const WIDTHS = { phone: { width: 390, height: 844 }, tablet: { width: 820, height: 1100 }, desktop: { width: 1360, height: 850 } };
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

test('every page is readable at three widths in both themes', { timeout: 600_000 }, async () => {
  const open = async (name) => (await Visitor.open(browser, server.url)).signUp(name, newPhone());
  const [ann, bob, noor] = [await open('Ann Lee'), await open('Bob Stone'), await open('نور حداد')];
  const findings = [];
  const routes = Object.keys((await (await fetch(`${server.host.url}/openapi.json`)).json()).paths);
  const look = async (visitor, name) => {
    for (const [width, viewport] of Object.entries(WIDTHS)) {
      await visitor.page.setViewportSize(viewport);
      for (const colorScheme of ['light', 'dark']) {
        await visitor.page.emulateMedia({ colorScheme });
        await visitor.page.waitForTimeout(350);
        await visitor.page.screenshot({ path: `${folder}${name}-${width}-${colorScheme}.png` });
        for (const finding of await visitor.seriousFindings()) findings.push(`${name}, ${width}, ${colorScheme}: ${finding}`);
        const wider = await visitor.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        if (wider > 0) findings.push(`${name}, ${width}: ${wider} pixels too wide`);
      }
    }
    await visitor.page.setViewportSize(WIDTHS.desktop);
    await visitor.page.emulateMedia({ colorScheme: 'light' });
  };

  await look(ann, 'empty');
  await bob.talkTo('Ann Lee');
  await bob.say('Good morning! Did the parcel arrive?');
  await ann.talkTo('Bob Stone');
  await ann.bubble('parcel').waitFor();
  await ann.say('Yes, an hour ago. Thank you so much 🎁');
  await ann.say('The book is beautiful, I have already read the first two chapters. We should talk about it when you are back; there is this one passage near the river that I cannot get out of my head.');
  await bob.say('I knew you would like it');
  await ann.page.bringToFront();
  await ann.bubble('I knew').hover();
  await ann.bubble('I knew').getByRole('button').last().click();
  await ann.page.getByRole('menuitem', { name: 'Reply' }).click();
  await ann.say('You know me too well. https://example.org/a/long/link');
  const rich = routes.includes('/api/v1/messages/{id}/reactions/{emoji}') ? 1 : 0;
  if (rich > 0) {
    await bob.act('an hour ago', 'React');
    await bob.page.getByRole('button', { name: 'React with ❤️' }).click();
    await bob.act('The book is beautiful', 'Pin');
    await ann.add('New poll');
    await ann.page.getByLabel('Question').fill('When shall we meet?');
    await ann.page.getByLabel('Answer 1').fill('Thursday');
    await ann.page.getByLabel('Answer 2').fill('Friday, after work');
    await ann.page.getByRole('dialog').getByRole('button', { name: 'Send' }).click();
    await bob.page.getByRole('button', { name: /Friday/ }).click();
    await ann.page.getByText('1 person has voted').waitFor();
  }
  await noor.talkTo('Ann Lee');
  await noor.say('مرحبا آن، كيف حالك اليوم؟');
  await noor.say('السلام عليكم — and some English in it');
  const group = await ann.page.evaluate(() => location.pathname);
  await ann.page.goto(`${server.url}/new`);
  await ann.page.getByRole('button', { name: 'Group' }).click();
  await ann.page.getByLabel('Name of the group').fill('Reading circle');
  for (const name of ['Bob Stone', 'نور حداد']) {
    await ann.page.getByLabel('Find people').fill(name);
    await ann.page.locator('.results').getByRole('checkbox', { name }).click();
  }
  await look(ann, 'new-group');
  await ann.page.getByRole('button', { name: /Create with 2/ }).click();
  await ann.page.getByRole('heading', { level: 1, name: 'Reading circle' }).waitFor();
  await ann.say('Next meeting on Thursday?');
  await bob.page.getByRole('link', { name: /Reading circle/ }).click();
  await bob.say('Works for me');
  await until(async () => (await ann.bubble('Works for me').count()) > 0, 'the answer');
  await look(ann, 'group');
  await ann.page.getByRole('link', { name: 'Details', exact: true }).click();
  await ann.page.getByText('3 people').last().waitFor();
  await look(ann, 'details');
  await ann.page.goto(`${server.url}/`);
  await ann.page.getByRole('link', { name: /نور/ }).waitFor();
  await look(ann, 'list');
  await ann.page.goto(server.url + group);
  await ann.bubble('too well').waitFor();
  if (rich > 0) await ann.page.locator('.reaction').waitFor();
  await look(ann, 'conversation');
  for (const section of ['', 'profile', 'privacy', 'notifications', 'mentions', 'devices', 'blocked', 'second-factor', 'account', 'appearance']) {
    await ann.page.goto(`${server.url}/settings/${section}`);
    await ann.page.locator('.pane-body').waitFor();
    await ann.page.waitForTimeout(300);
    await look(ann, `settings-${section || 'all'}`);
  }
  const guest = await Visitor.open(browser, server.url);
  for (const path of ['', 'sign-in', 'forgot']) {
    await guest.page.goto(`${server.url}/${path}`);
    await guest.page.getByRole('heading', { level: 1 }).waitFor();
    await look(guest, `enter-${path || 'sign-up'}`);
  }
  assert.deepEqual(findings, []);
  for (const visitor of [ann, bob, noor, guest]) assert.deepEqual(visitor.faults, []);
});
