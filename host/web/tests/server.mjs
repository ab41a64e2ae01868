// The host that serves the page under test; while the page is worked on, `ECHO_WEB=dist` serves the built files beside it instead of those in the host.
import { fileURLToPath } from 'node:url';
import { preview } from 'vite';
import { Host } from '../client/test/host.mjs';

export async function startServer(settings = {}) {
  const host = await Host.start(settings);
  if (process.env.ECHO_WEB !== 'dist') return { host, url: host.url, end: () => host.end() };
  process.env.ECHO_URL = host.url;
  const root = fileURLToPath(new URL('..', import.meta.url));
  const server = await preview({ root, preview: { port: 0, host: '127.0.0.1' }, logLevel: 'error' });
  const url = server.resolvedUrls.local[0].replace(/\/$/, '');
  return { host, url, end: async () => (await server.close(), await host.end()) };
}
