// `npm run build [-- --outDir DIR] [--emptyOutDir] [--logLevel LEVEL]`: the client and the page `/docs`, each by its own configuration, into one folder.
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { build } from 'vite';

const options = { outDir: { type: 'string', default: 'dist' }, emptyOutDir: { type: 'boolean', default: false }, logLevel: { type: 'string', default: 'info' } };
const { outDir, emptyOutDir, logLevel } = parseArgs({ options }).values;
const root = fileURLToPath(new URL('..', import.meta.url));
for (const [configFile, empty] of [['vite.config.ts', emptyOutDir || outDir === 'dist'], ['vite.docs.config.ts', false]])
  await build({ root, configFile: `${root}${configFile}`, logLevel, build: { outDir, emptyOutDir: empty } });
