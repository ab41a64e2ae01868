import { readFileSync } from 'node:fs';
import { defineConfig } from 'vite';

// What is built has these libraries in it, whose licence asks for its text beside them.
const BUNDLED = ['preact', '@preact/signals', 'uqr'];
const notice = BUNDLED.map((name) => `${name}: ${readFileSync(new URL(`node_modules/${name}/LICENSE`, import.meta.url), 'utf8').trim()}`).join('\n\n');

// What is built is committed and embedded in the host: names are stable, and nothing is inlined, because the policy of the page allows no inline script,
// style or data address. `ECHO_URL` is the host that `npm run dev` works with.
const host = process.env['ECHO_URL'] ?? 'http://127.0.0.1:8080';
const proxied = { target: host, changeOrigin: true, headers: { origin: host } };
const proxy = { '/api': proxied, '/dev': proxied, '/openapi.json': proxied, '/asyncapi.json': proxied, '/ws': { ...proxied, ws: true } };

export default defineConfig({
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: false,
    reportCompressedSize: false,
    rollupOptions: {
      output: { postBanner: `/*!\n${notice}\n*/`, entryFileNames: 'client.js', chunkFileNames: '[name].js', assetFileNames: (asset) => (asset.names[0]?.endsWith('.css') ? 'client.css' : '[name][extname]') },
    },
  },
  server: { proxy },
  preview: { proxy, headers: { 'content-security-policy': "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'" } },
});
