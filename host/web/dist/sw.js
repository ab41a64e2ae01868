// Of the client, what works while its page is not open: the page's own files for when there is no network, and pushes.
// What the host serves is newer, what is kept here is enough to open the page. What the page shows then it has kept itself (src/state/snapshot.ts); nothing
// of the interface is kept here.
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

// Pushes, as the service `notification` encrypts them for this browser: { title, body, preview, message_id, conversation_id }.

addEventListener('push', (event) => event.waitUntil(show(contentOf(event.data))));

function contentOf(data) {
  try {
    return data.json();
  } catch {
    return {};
  }
}

async function show({ title = 'Echo', body = 'You have a new message', preview = false, conversation_id = '' }) {
  const pages = await openPages();
  // Whoever looks at Echo sees the message there; browsers ask for a notification in every other case.
  if (pages.some((page) => page.focused)) return;
  // What a preview shows is who writes, too: as this browser last knew it.
  const name = preview ? await nameOf(conversation_id).catch(() => null) : null;
  await registration.showNotification(name ?? title, { body, tag: conversation_id, renotify: conversation_id !== '', icon: '/icon.svg', data: { conversation_id } });
}

const openPages = async () => (await clients.matchAll({ type: 'window', includeUncontrolled: true })).filter((page) => PAGES.test(new URL(page.url).pathname));

/** The name of a conversation, out of what the page kept. */
async function nameOf(id) {
  const kept = await snapshot();
  const conversation = kept?.conversations.find((one) => one.id === id);
  if (conversation === undefined || conversation.type !== 'direct') return conversation?.title ?? null;
  const partner = conversation.participant_ids.find((one) => one !== kept.user_id);
  return kept.people.find((one) => one.id === partner)?.display_name ?? null;
}

const snapshot = () =>
  new Promise((resolve, reject) => {
    const opening = indexedDB.open('echo-shown');
    opening.onerror = () => reject(opening.error);
    // Nothing was kept: it must not come to be without its tables.
    opening.onupgradeneeded = () => opening.transaction.abort();
    opening.onsuccess = () => {
      const reading = opening.result.transaction('values').objectStore('values').get('snapshot');
      reading.onsuccess = () => resolve(reading.result);
      reading.onerror = () => reject(reading.error);
      opening.result.close();
    };
  });

addEventListener('notificationclick', (event) => {
  event.notification.close();
  event.waitUntil(open(event.notification.data?.conversation_id));
});

/** In a page that is open, else in a new one. */
async function open(conversation_id) {
  const path = conversation_id ? `/c/${encodeURIComponent(conversation_id)}` : '/';
  const pages = await openPages();
  const page = pages.find((one) => new URL(one.url).pathname === path) ?? pages[0];
  if (page === undefined) return clients.openWindow(path);
  page.postMessage({ open: path });
  return page.focus();
}

/** Only a page can register another subscription, with the account's token; without one the next that is opened does it. */
addEventListener('pushsubscriptionchange', (event) => event.waitUntil(openPages().then((pages) => pages.forEach((page) => page.postMessage({ push_changed: true })))));
