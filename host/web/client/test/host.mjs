// A real host for tests: `ECHO_HOST` (the program) and `ECHO_PLUGINS` (the packed services) say which; by default what `cargo xtask plugins` built.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';

const root = fileURLToPath(new URL('../../../../', import.meta.url));

const plugins = process.env.ECHO_PLUGINS ?? join(root, 'target/plugins');

export class Host {
  #child = null;
  #listen = '127.0.0.1:0';

  /** With these settings of the environment. */
  static async start(settings = {}) {
    const host = new Host();
    host.settings = settings;
    host.data = await mkdtemp(join(tmpdir(), 'echo-web-'));
    await host.begin();
    return host;
  }

  /** On the same address as before. */
  async begin() {
    const program = process.env.ECHO_HOST ?? join(root, 'target/debug/echod');
    if (!existsSync(program)) throw new Error(`${program} is not there: cargo build -p echod && cargo xtask plugins`);
    const args = ['dev', '--data', this.data, '--listen', this.#listen, '--admin-listen', '127.0.0.1:0', '--plugins', plugins];
    this.#child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, RUST_LOG: 'warn', ...this.settings } });
    let log = '';
    this.#child.stderr.on('data', (chunk) => (log = (log + chunk).slice(-8_000)));
    const file = join(this.data, 'run/addresses.json');
    for (const until = Date.now() + 180_000; ; await sleep(50)) {
      if (this.#child.exitCode !== null || Date.now() > until) throw new Error(`the host did not start:\n${log}`);
      const text = await readFile(file, 'utf8').catch(() => '');
      const addresses = text.startsWith('{') ? JSON.parse(text) : {};
      if (addresses.pid !== this.#child.pid) continue;
      this.#listen = addresses.public;
      this.address = addresses.public;
      this.url = `http://${addresses.public}`;
      this.admin = addresses;
      return;
    }
  }

  /** A new generation of a service, while traffic flows: the same file is deployed again. */
  async swap(service) {
    const url = `http://${this.admin.admin}/admin/v1/plugins/${service}`;
    const authorization = `Bearer ${this.admin.admin_token}`;
    const ask = async (path, init = {}) => {
      const answer = await fetch(url + path, { ...init, headers: { authorization, ...init.headers } });
      if (!answer.ok) throw new Error(`${path} of ${service}: ${answer.status} ${await answer.text()}`);
      return answer.json();
    };
    const { active, generation } = await ask('');
    await ask('/versions', { method: 'POST', body: await readFile(join(plugins, `${service}.wasm`)), headers: { 'content-type': 'application/octet-stream' } });
    await ask('/active', { method: 'PUT', body: JSON.stringify({ version: active }), headers: { 'content-type': 'application/json' } });
    if ((await ask('')).generation === generation) throw new Error(`${service} was not swapped`);
  }

  /** As a crash does. */
  async kill() {
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGKILL');
    await ended;
  }

  /** In order: sockets are told when to come back. */
  async stop() {
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGTERM');
    await ended;
  }

  async restart() {
    await this.kill();
    await this.begin();
  }

  async end() {
    await this.kill();
    await rm(this.data, { recursive: true, force: true });
  }

  /** The code that was sent to a number, newest first. */
  async codeFor(phone) {
    for (const until = Date.now() + 60_000; Date.now() < until; await sleep(50)) {
      const { items } = await (await fetch(`${this.url}/dev/outbox`)).json();
      const found = items.find((item) => item.to === phone && item.code);
      if (found) return found.code;
    }
    throw new Error(`no code for ${phone}`);
  }
}

let number = 0;
/** Numbers that nobody has. */
export const newPhone = () => `+1415555${String(1000 + number++).padStart(4, '0')}`;

/** Polls until `look` gives something true. */
export async function until(look, what, milliseconds = 60_000) {
  for (const end = Date.now() + milliseconds; Date.now() < end; await sleep(20)) {
    const found = await look();
    if (found) return found;
  }
  throw new Error(`not within ${milliseconds} ms: ${what}`);
}
