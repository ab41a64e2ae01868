import { readFileSync } from 'node:fs';
import { defineConfig, type Plugin } from 'vite';

// The viewer has libraries in it, whose licences ask for their notices: they are comments already.
const text = (name: string) => readFileSync(new URL(`node_modules/swagger-ui-dist/${name}`, import.meta.url), 'utf8').trim();
const notice = `/*! Swagger UI, Apache-2.0. ${text('NOTICE').replaceAll('\n', ' ')} */\n${text('swagger-ui-bundle.js.LICENSE.txt')}`;

/** The page's policy allows no data addresses: pictures within the viewer's sheet are taken out, and style.css makes up for them. */
const withoutPictures: Plugin = {
  name: 'without-pictures',
  generateBundle: {
    order: 'post',
    handler(_, bundle) {
      for (const file of Object.values(bundle))
        if (file.type === 'asset' && file.fileName.endsWith('.css')) file.source = String(file.source).replace(/url\("data:(?:[^"\\]|\\.)*"\)|url\('data:(?:[^'\\]|\\.)*'\)|url\(data:[^)]*\)/g, 'none');
    },
  },
};

// The page at /docs: names are stable and nothing is inlined, as with the client (vite.config.ts).
export default defineConfig({
  plugins: [withoutPictures],
  publicDir: false,
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: false,
    reportCompressedSize: false,
    cssCodeSplit: false,
    chunkSizeWarningLimit: 2_000,
    rollupOptions: {
      input: 'docs.html',
      output: {
        postBanner: (chunk: { name: string }) => (chunk.name === 'viewer' ? notice : ''),
        entryFileNames: 'docs.js',
        chunkFileNames: 'docs-[name].js',
        assetFileNames: (asset) => (asset.names[0]?.endsWith('.css') ? 'docs.css' : '[name][extname]'),
      },
    },
  },
});
