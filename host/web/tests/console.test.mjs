// The operators' console in a browser, on a real host: services, a new version and the way back, dead letters, tokens.
import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Host, newPhone, until } from '../client/test/host.mjs';
import { openBrowser, Visitor } from './browser.mjs';

const root = new URL('../../../', import.meta.url);
const plugins = process.env.ECHO_PLUGINS ?? fileURLToPath(new URL('target/plugins', root));
const folder = fileURLToPath(new URL('screenshots/', import.meta.url));
const WIDTHS = { phone: { width: 390, height: 844 }, desktop: { width: 1360, height: 850 } };

let host;
let browser;
let url;
before(async () => {
  await mkdir(folder, { recursive: true });
  // The permissions of a guest that is no service of the repository's.
  process.env.ECHO_DATA__PERMISSIONS = fileURLToPath(new URL('host/tests/wit/services.wit', root));
  host = await Host.start();
  url = `http://${host.admin.admin}`;
  browser = await openBrowser();
});
after(async () => {
  await browser?.close();
  await host?.end();
});

/** While the console is worked on, `ECHO_WEB=dist` takes the built files in the place of those in the host, with the host's headers. */
async function open() {
  const visitor = await Visitor.open(browser, url);
  if (process.env.ECHO_WEB !== 'dist') return visitor;
  const built = (path) => fileURLToPath(new URL(`../console/dist/${path.split('/')[2] ?? 'index.html'}`, import.meta.url));
  await visitor.context.route(/\/console(\/|$)/, async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, path: built(new URL(route.request().url()).pathname) });
  });
  return visitor;
}

async function signIn(token = host.admin.admin_token) {
  const visitor = await open();
  await visitor.page.goto(`${url}/console`);
  await visitor.page.getByLabel("Operator's token").fill(token);
  await visitor.page.getByRole('button', { name: 'Sign in' }).click();
  await visitor.page.getByRole('heading', { level: 1, name: 'Services' }).waitFor();
  return visitor;
}

const ask = async (path, init = {}) => {
  const answer = await fetch(`${url}/admin/v1/${path}`, { ...init, headers: { authorization: `Bearer ${host.admin.admin_token}`, 'content-type': 'application/json' } });
  return answer.status === 204 ? null : answer.json();
};

/** A packed file with one text in it replaced by another of the same length. */
async function patched(path, from, to) {
  const bytes = await readFile(path);
  let at = bytes.indexOf(from);
  assert.ok(at >= 0 && from.length === to.length, `${from} in ${path}`);
  for (; at >= 0; at = bytes.indexOf(from, at + 1)) bytes.write(to, at, 'utf8');
  return bytes;
}

const asFile = (name, buffer) => ({ name, mimeType: 'application/wasm', buffer });

async function end(visitor) {
  assert.deepEqual(await visitor.seriousFindings(), []);
  assert.deepEqual(visitor.faults, []);
  await visitor.context.close();
}

test('without a good token nothing is shown', { timeout: 120_000 }, async () => {
  const visitor = await open();
  const { page } = visitor;
  visitor.offline = true; // A 401 is in the browser's own console.
  await page.goto(`${url}/`);
  assert.match(page.url(), /\/console$/);
  await page.getByLabel("Operator's token").fill('guessed');
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('alert').getByText("no operator's token").waitFor();
  assert.equal(await page.getByRole('navigation').count(), 0);
  const { token } = await ask('tokens', { method: 'POST', body: JSON.stringify({ name: 'scraper', scopes: ['metrics'] }) });
  await page.getByLabel("Operator's token").fill(token);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('alert').getByText('metrics alone').waitFor();
  await end(visitor);
});

test('a version is checked, deployed, watched and rolled back', { timeout: 180_000 }, async () => {
  const visitor = await signIn();
  const { page } = visitor;
  const rows = page.getByRole('region', { name: 'Services' }).getByRole('row');
  await until(async () => (await rows.count()) === 9, 'eight services and the heading');
  // By the keyboard.
  await page.getByRole('link', { name: 'location' }).focus();
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { level: 1, name: 'location' }).waitFor();
  const active = page.getByTestId('active');
  assert.equal(await active.innerText(), '0.1.0');

  visitor.offline = true; // The refusal's 422 is in the browser's own console.
  await page.getByRole('button', { name: 'Upload a version' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByLabel('Packed file').setInputFiles(asFile('broken.wasm', Buffer.from('no component')));
  await dialog.getByRole('button', { name: 'Check' }).click();
  await dialog.getByRole('alert').getByText('component', { exact: true }).waitFor();
  assert.equal(await dialog.getByRole('button', { name: /Deploy/ }).count(), 0);
  visitor.offline = false;

  const next = await patched(`${plugins}/location.wasm`, 'version = "0.1.0"', 'version = "0.1.1"');
  await dialog.getByLabel('Packed file').setInputFiles(asFile('location.wasm', next));
  await dialog.getByRole('button', { name: 'Check' }).click();
  await dialog.getByText('location 0.1.1').waitFor();
  await dialog.getByText(/would replace 0.1.0/).waitFor();
  assert.equal((await ask('plugins/location')).active, '0.1.0', 'checking changes nothing');
  await look(visitor, 'plan');
  await dialog.getByRole('button', { name: 'Deploy 0.1.1' }).click();
  await page.getByText(/location 0.1.1 is live as generation/).waitFor();
  await until(async () => (await active.innerText()) === '0.1.1', 'the new version');
  await page.getByRole('region', { name: 'History', exact: true }).getByRole('row', { name: /activate.*operator/ }).first().waitFor();

  for (let call = 0; call < 20; call++) await fetch(`${host.url}/api/v1/location/lookup?phone=%2B1415555267${call % 10}`);
  await until(async () => (await page.getByRole('region', { name: 'Generations' }).getByRole('row', { name: /live.*0\.1\.1/ }).count()) === 1, 'its generation');
  await until(async () => (await ask('plugins/location')).generations[1]?.state === 'ended', 'the end of the generation before');
  await look(visitor, 'service');

  await page.getByRole('button', { name: 'Roll back' }).click();
  await dialog.getByRole('button', { name: 'Roll back' }).click();
  await page.getByText('location is rolled back').waitFor();
  await until(async () => (await active.innerText()) === '0.1.0', 'the version before');
  await page.getByText('rolled away from').waitFor();
  assert.equal((await ask('plugins/location')).active, '0.1.0');
  await page.getByRole('link', { name: 'Services', exact: true }).first().click();
  await page.getByRole('heading', { level: 1, name: 'Services' }).waitFor();
  await look(visitor, 'services');
  await end(visitor);
});

test('a dead letter is read, replayed and dropped', { timeout: 240_000 }, async () => {
  const visitor = await signIn();
  const { page } = visitor;
  // A guest that cannot handle the events of connected devices: its table has another name.
  const guest = await patched(`${plugins}/../guests/hostile.wasm`, 'INSERT INTO devices (', 'INSERT INTO nothing (');
  await page.getByRole('button', { name: 'Upload a service' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByLabel('Packed file').setInputFiles(asFile('hostile.wasm', guest));
  assert.equal(await dialog.getByLabel('Service').inputValue(), 'hostile');
  await dialog.getByRole('button', { name: 'Check' }).click();
  await dialog.getByText('hostile 0.1.0').waitFor();
  for (const change of await dialog.getByRole('checkbox').all()) await change.check();
  await dialog.getByRole('button', { name: 'Deploy 0.1.0' }).click();
  await page.getByRole('heading', { level: 1, name: 'hostile' }).waitFor();

  const person = await (await Visitor.open(browser, host.url)).signUp('Ann Lee', newPhone());
  await page.getByRole('link', { name: 'Events' }).click();
  const letters = page.getByRole('region', { name: 'Dead letters' }).getByRole('row', { name: /hub\.connected/ });
  await letters.first().waitFor({ timeout: 90_000 });
  await letters.first().getByText('Read').click();
  await letters.first().getByText('device_id').waitFor();
  await look(visitor, 'events');
  const mine = async () => (await ask('queue/dead-letters?consumer=hostile')).items;
  const replayed = (await mine())[0].event.id;
  await letters.first().getByRole('button', { name: /Replay/ }).click();
  await page.getByText('It is in the queue again').waitFor();
  await until(async () => !(await mine()).some(({ event }) => event.id === replayed), 'its next tries');
  // It fails again, and comes back.
  await until(async () => (await mine()).some(({ event }) => event.id === replayed), 'it to be a dead letter again', 90_000);
  await letters.first().waitFor();
  const dropped = await letters.count();
  await letters.first().getByRole('button', { name: /Drop/ }).click();
  await dialog.getByRole('button', { name: 'Drop' }).click();
  await page.getByText('It is dropped').waitFor();
  await until(async () => (await letters.count()) < dropped, 'one less');
  await person.context.close();
  await end(visitor);
});

test('tokens are made, shown once and ended; what was done has a name', { timeout: 120_000 }, async () => {
  const visitor = await signIn();
  const { page } = visitor;
  await page.getByRole('link', { name: 'Tokens' }).click();
  await page.getByLabel('Name').fill('ann');
  await page.getByLabel('Scope').selectOption('read');
  await page.getByRole('button', { name: 'Make' }).click();
  const shown = page.getByLabel(/Token of ann/);
  const token = await shown.inputValue();
  assert.match(token, /^echo_op_[0-9a-f]{64}$/);
  await page.getByRole('button', { name: 'I have it' }).click();
  assert.equal(await shown.count(), 0);
  await look(visitor, 'tokens');

  // She looks and changes nothing.
  const ann = await signIn(token);
  await ann.page.getByText('ann read').waitFor();
  assert.ok(await ann.page.getByRole('button', { name: 'Upload a service' }).isDisabled());
  await ann.page.getByRole('link', { name: 'Hosts' }).click();
  await ann.page.getByText('(this one)').waitFor();
  assert.ok(await ann.page.getByRole('button', { name: 'Drain this host' }).isDisabled());
  await look(ann, 'hosts');

  await page.getByRole('button', { name: 'End ann' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'End it' }).click();
  await page.getByText('ann is ended').waitFor();
  ann.offline = true;
  await ann.page.getByLabel("Operator's token").waitFor();
  await end(ann);

  await page.getByRole('link', { name: 'History' }).click();
  await page.getByText('made ann with read').waitFor();
  await page.getByText('ended ann').waitFor();
  await look(visitor, 'history');
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByLabel("Operator's token").waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  await look(visitor, 'sign-in');
  await end(visitor);
});

/** At two widths in both themes: nothing serious, nothing too wide, and a picture to look at. */
async function look(visitor, name) {
  const { page } = visitor;
  for (const [width, viewport] of Object.entries(WIDTHS)) {
    await page.setViewportSize(viewport);
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme });
      await page.waitForTimeout(350);
      await page.screenshot({ path: `${folder}console-${name}-${width}-${colorScheme}.png` });
      assert.deepEqual(await visitor.seriousFindings(), [], `${name}, ${width}, ${colorScheme}`);
      const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(wider <= 0, `${name}, ${width}: ${wider} pixels too wide`);
    }
  }
  await page.setViewportSize(WIDTHS.desktop);
  await page.emulateMedia({ colorScheme: 'light' });
}
