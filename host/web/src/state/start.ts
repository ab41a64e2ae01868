// Joins the client's events with what is shown, from the start of the page to its end.

import type { Event } from '@echo/client';
import { batch, effect } from '@preact/signals';
import { account, connection, disconnected, echo, has, loadFeatures, outbox } from './echo.js';
import { notify } from './notices.js';
import { forgetExtras } from './extras.js';
import { loadPreferences, preferences, PREFERENCES } from './alerts.js';
import { forgetMedia } from './media.js';
import { forgetPush, listenToWorker, loadPush } from './push.js';
import { forgetPeople, loadBlocked, loadContacts, refreshPresence } from './people.js';
import { go, goOn, keepForLater } from './route.js';
import { loadScheduled } from './scheduled.js';
import { forgetProfile, loadProfile } from './profile.js';
import { forgetSnapshot, keepSnapshots, restore } from './snapshot.js';
import { soon } from './soon.js';
import { apply, conversations, forgetTalk, loadAnew, loadConversations, markShown, unread } from './talk.js';

/** A lost connection that is back within this time is not worth a word. */
const DISCONNECTED_SHOWN_MS = 2_000;

export async function start(): Promise<void> {
  void listen();
  listenToWorker();
  keepSnapshots();
  account.value = await echo.account();
  if (account.value) void begin();
  else keepForLater();
  echo.connect();
  document.addEventListener('visibilitychange', () => {
    markShown();
    if (document.visibilityState === 'visible') void refreshPresence();
  });
  addEventListener('focus', markShown);
  let titled = true;
  effect(() => {
    // Read here, so that the effect follows them; counted once a frame.
    if (conversations.value && account.value !== undefined && titled) {
      titled = false;
      soon(() => {
        titled = true;
        document.title = account.peek() && unread.peek() > 0 ? `(${unread.peek()}) Echo` : 'Echo';
      });
    }
  });
  let timer: ReturnType<typeof setTimeout> | undefined;
  effect(() => {
    clearTimeout(timer);
    if (connection.value === 'online') disconnected.value = false;
    else timer = setTimeout(() => (disconnected.value = true), DISCONNECTED_SHOWN_MS);
  });
}

const waiting: Event[] = [];

function applyAll(): void {
  batch(() => waiting.splice(0).forEach(apply));
}

async function listen(): Promise<void> {
  for await (const event of echo.events()) {
    if (event.type === 'signed_in' || event.type === 'signed_out' || event.type === 'resync_required') applyAll();
    switch (event.type) {
      case 'signed_in':
        account.value = await echo.account();
        void begin();
        goOn();
        break;
      case 'signed_out':
        account.value = null;
        forgetTalk();
        forgetPeople();
        forgetProfile();
        forgetExtras();
        forgetMedia();
        void forgetSnapshot();
        preferences.value = null;
        void forgetPush().catch(() => undefined);
        if (event.reason !== 'signed_out') notify('This device was signed out. Sign in to go on.');
        go('/sign-in', true);
        break;
      case 'resync_required':
        await loadAnew();
        break;
      default:
        if (waiting.push(event) === 1) soon(applyAll);
    }
  }
}

async function begin(): Promise<void> {
  const quiet = () => undefined;
  await restore();
  outbox.value = await echo.waiting();
  await Promise.all([loadConversations(), loadProfile().catch(quiet), loadContacts().catch(quiet), loadBlocked().catch(quiet), loadFeatures().then(loadMore).catch(quiet)]);
}

/** What only some hosts have. */
async function loadMore(): Promise<void> {
  await loadScheduled();
  if (has(`GET ${PREFERENCES}`)) await loadPreferences();
  await loadPush();
}
