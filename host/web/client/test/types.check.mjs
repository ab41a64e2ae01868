// The library and the web client still compile with the types of the host that is tested: it may have gained fields and routes, not lost any.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { documentsOf, generate } from '../scripts/types.mjs';
import { Host } from './host.mjs';

const web = fileURLToPath(new URL('../../', import.meta.url));

test('the sources compile with the types that the host states', { timeout: 120_000 }, async () => {
  const folder = join(web, 'client/build/types');
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  await cp(join(web, 'client/src'), join(folder, 'client'), { recursive: true });
  await cp(join(web, 'src'), join(folder, 'web'), { recursive: true });
  const host = await Host.start();
  try {
    await generate(await documentsOf(host.url), join(folder, 'client/generated'));
  } finally {
    await host.end();
  }
  const compilerOptions = { rootDir: '.', paths: { '@echo/client': ['./client/index.ts'] } };
  await writeFile(join(folder, 'tsconfig.json'), JSON.stringify({ extends: '../../../tsconfig.json', compilerOptions, include: ['.'], exclude: [] }));
  const tsc = fileURLToPath(import.meta.resolve('typescript/bin/tsc'));
  const { stdout } = await promisify(execFile)(process.execPath, [tsc, '-p', folder]).catch((error) => error);
  assert.equal(stdout, '');
});
