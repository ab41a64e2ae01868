// The client's own files for when there is no network: what the host serves is newer, what is kept here is enough to open the page.
// What the page shows then it has kept itself (src/state/snapshot.ts); nothing of the interface is kept here.
'use strict';

const CACHE = 'echo-shell';
const FILES = ['/client.js', '/client.css', '/icon.svg', '/manifest.webmanifest'];
const PAGES = /^\/(?:$|(?:c|join|new|settings|sign-in|forgot)(?:\/|$))/;
/** After this time without an answer the kept file is used. */
const ANSWER_WAIT_MS = 4000;

addEventListener('install', (event) => {
  const kept = ['/', ...FILES].map((path) => new Request(path, { cache: 'reload' }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(kept)).then(() => skipWaiting()));
});

addEventListener('activate', (event) => event.waitUntil(clients.claim()));

addEventListener('fetch', (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== 'GET' || url.origin !== location.origin) return;
  const key = request.mode === 'navigate' && PAGES.test(url.pathname) ? '/' : FILES.includes(url.pathname) ? url.pathname : null;
  if (key !== null) event.respondWith(newest(event, request, key));
});

async function newest(event, request, key) {
  const fetched = fetch(request).then(async (answer) => {
    if (answer.ok && !answer.redirected) {
      const copy = answer.clone();
      event.waitUntil(caches.open(CACHE).then((cache) => cache.put(key, copy)));
    }
    return answer;
  });
  fetched.catch(() => undefined);
  const kept = await caches.match(key);
  if (kept === undefined) return fetched;
  const late = new Promise((resolve) => setTimeout(() => resolve(kept), ANSWER_WAIT_MS));
  return Promise.race([fetched.catch(() => kept), late]);
}
