import { existsSync, readFileSync } from 'node:fs';
import { defineConfig } from 'vite';

// What is built has these libraries in it, whose licence asks for its text beside them.
const BUNDLED = ['preact', '@preact/signals', 'uplot'];
const licence = (name: string) => {
  const folder = [`../node_modules/${name}/`, `node_modules/${name}/`].map((path) => new URL(path, import.meta.url)).find((folder) => existsSync(new URL('LICENSE', folder)));
  return readFileSync(new URL('LICENSE', folder), 'utf8').trim();
};
const notice = BUNDLED.map((name) => `${name}: ${licence(name)}`).join('\n\n');

// Committed and embedded in the host, as the web client is: names are stable and nothing is inlined, because the policy of the page allows no inline script, style
// or data address. `ECHO_ADMIN_URL` is the operator's address that `npm run dev` works with.
const host = process.env['ECHO_ADMIN_URL'] ?? 'http://127.0.0.1:9090';
const proxied = { target: host, changeOrigin: true, headers: { origin: host } };

export default defineConfig({
  base: '/console/',
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: false,
    reportCompressedSize: false,
    rollupOptions: {
      output: { postBanner: `/*!\n${notice}\n*/`, entryFileNames: 'console.js', chunkFileNames: '[name].js', assetFileNames: (asset) => (asset.names[0]?.endsWith('.css') ? 'console.css' : '[name][extname]') },
    },
  },
  server: { proxy: { '/admin': proxied, '/metrics': proxied, '/ready': proxied } },
});
