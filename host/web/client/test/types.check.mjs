// The generated types and the host that is tested: the sources compile with what it states, and what is committed is what it states.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { documentsOf, generate, generated } from '../scripts/types.mjs';
import { Host } from './host.mjs';

const web = fileURLToPath(new URL('../../', import.meta.url));

let documents;
before(async () => {
  const host = await Host.start();
  documents = await documentsOf(host.url).finally(() => host.end());
});

test('the committed types are those that the host states', async () => {
  const stale = [];
  for (const [name, text] of Object.entries(await generated(documents)))
    if ((await readFile(join(web, 'client/src/generated', name), 'utf8')) !== text) stale.push(name);
  assert.deepEqual(stale, [], 'start a host, run `npm run types -- http://its.address` in host/web, and commit what it writes');
});

test('the sources compile with the types that the host states', { timeout: 120_000 }, async () => {
  const folder = join(web, 'client/build/types');
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  await cp(join(web, 'client/src'), join(folder, 'client'), { recursive: true });
  await cp(join(web, 'src'), join(folder, 'web'), { recursive: true });
  await generate(documents, join(folder, 'client/generated'));
  const compilerOptions = { rootDir: '.', paths: { '@echo/client': ['./client/index.ts'] } };
  await writeFile(join(folder, 'tsconfig.json'), JSON.stringify({ extends: '../../../tsconfig.json', compilerOptions, include: ['.'], exclude: [] }));
  const tsc = fileURLToPath(import.meta.resolve('typescript/bin/tsc'));
  const { stdout } = await promisify(execFile)(process.execPath, [tsc, '-p', folder]).catch((error) => error);
  assert.equal(stdout, '');
});
