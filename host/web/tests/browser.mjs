// A Chromium of this machine, driven by playwright-core, and the people in it. `CHROMIUM` names the program where it is not in the usual place.
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome', '/usr/bin/google-chrome-stable'];
const FLAGS = ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream', '--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'];
const axe = await readFile(fileURLToPath(import.meta.resolve('axe-core/axe.min.js')), 'utf8');

export function openBrowser() {
  const executablePath = process.env.CHROMIUM ?? PLACES.find((place) => existsSync(place));
  if (!executablePath) throw new Error('no Chromium: install it, or name the program in CHROMIUM');
  return chromium.launch({ executablePath, headless: true, args: FLAGS });
}

export const PASSWORD = 'correct horse 7';

/** One person's browser: a profile of its own. What goes wrong in its pages is gathered in `faults`. */
export class Visitor {
  faults = [];
  /** Network failures that a test brings about itself are no faults. */
  offline = false;

  static async open(browser, url, options = {}) {
    const visitor = new Visitor();
    visitor.url = url;
    visitor.context = await browser.newContext({ viewport: { width: 1280, height: 800 }, colorScheme: 'light', locale: 'en-GB', ...options });
    visitor.context.setDefaultTimeout(60_000);
    await visitor.context.addInitScript(() =>
      addEventListener('securitypolicyviolation', (event) => console.error(`policy: ${event.violatedDirective} refused ${event.blockedURI}`)),
    );
    visitor.page = await visitor.context.newPage();
    visitor.watch(visitor.page);
    return visitor;
  }

  watch(page) {
    page.on('pageerror', (error) => this.faults.push(String(error)));
    page.on('console', (message) => {
      const text = message.text();
      const network = /ERR_|WebSocket connection|Failed to load resource/.test(text);
      if (message.type() === 'error' && !(network && this.offline)) this.faults.push(`${text} (${message.location().url})`);
    });
  }

  /** Through the forms, as a person does it. */
  async signUp(name, phone) {
    const { page } = this;
    this.name = name;
    this.phone = phone;
    await page.goto(this.url);
    await page.getByLabel('Your name').fill(name);
    await page.getByLabel('Phone number').fill(phone);
    await page.getByLabel('Password').fill(PASSWORD);
    await page.getByRole('button', { name: 'Send me a code' }).click();
    const code = await page.getByTestId('dev-code').innerText();
    await page.getByLabel('Code', { exact: true }).fill(code);
    await page.getByRole('button', { name: 'Confirm' }).click();
    await page.getByRole('link', { name: 'New conversation' }).first().waitFor();
    return this;
  }

  /** Finds somebody by name and opens the conversation with them. */
  async talkTo(name) {
    const { page } = this;
    await page.goto(`${this.url}/new`);
    await page.getByLabel('Find people').fill(name);
    await page.locator('.results').getByRole('button', { name }).click();
    await page.getByRole('heading', { level: 1, name }).waitFor();
  }

  async say(text) {
    await this.page.getByLabel('Message', { exact: true }).fill(text);
    await this.page.getByRole('button', { name: 'Send', exact: true }).click();
  }

  /** Chooses from the menu beside the place to write. */
  async add(item) {
    await this.page.getByRole('button', { name: 'Add to the conversation' }).click();
    await this.page.getByRole('menuitem', { name: item, exact: true }).click();
  }

  /** Those with this text, not those that only quote it. */
  messages(text, whose = '') {
    return this.page.locator(whose ? `.message.${whose}` : '.message').filter({ has: this.page.locator('.text', { hasText: text }) });
  }

  /** The newest with this text. */
  bubble(text) {
    return this.messages(text).last();
  }

  /** Chooses from a message's menu. */
  async act(text, item, whose = '') {
    const bubble = this.messages(text, whose).last();
    await bubble.hover();
    await bubble.locator('[aria-haspopup=menu]').click();
    await this.page.getByRole('menuitem', { name: item, exact: true }).click();
  }

  /** This person's access token. */
  token() {
    return this.page.evaluate(
      () =>
        new Promise((resolve) => {
          const opening = indexedDB.open('echo', 1);
          opening.onsuccess = () => {
            const reading = opening.result.transaction('values').objectStore('values').get('credentials');
            reading.onsuccess = () => resolve(reading.result.access_token);
            opening.result.close();
          };
        }),
    );
  }

  /** A request as this person makes it. */
  async ask(path) {
    return fetch(this.url + path, { headers: { authorization: `Bearer ${await this.token()}` } });
  }

  /** Whether this person may read the file of the newest message of the conversation that is shown. */
  async mayReadFile() {
    const id = new URL(this.page.url()).pathname.split('/')[2];
    const { items } = await (await this.ask(`/api/v1/messages?conversation_id=${id}&limit=1`)).json();
    return (await this.ask(`/api/v1/media/${items[0].media_id}/content`)).ok;
  }

  /** What axe-core finds serious or critical. */
  async seriousFindings() {
    // Its script is evaluated by the debugger's protocol, which no content policy binds.
    const { violations } = await this.page.evaluate(`${axe}; axe.run(document, { resultTypes: ['violations'] })`);
    return violations.filter(({ impact }) => impact === 'serious' || impact === 'critical').map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 160)).join(' | ')}`);
  }
}
