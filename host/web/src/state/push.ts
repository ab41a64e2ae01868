// Web Push (RFC 8030): this browser shows new messages also while no page of Echo is open. The browser subscribes with the host's key, the host gets the
// subscription, and what is sent is shown by the service worker (public/sw.js).

import { Problem } from '@echo/client';
import { signal } from '@preact/signals';
import { echo, has, me } from './echo.js';
import { go } from './route.js';

const DEVICES = '/api/v1/notifications/devices';
/** The account that wants pushes in this browser: it is registered again where the browser or the host has lost the subscription. */
const KEY = 'echo:push';

/** Null where there is no push to be had: an old browser, or a host without a key. */
export const push = signal<'on' | 'off' | null>(null);

const isWanted = (): boolean => localStorage.getItem(KEY) === me();

/** None while the sources are worked on, and in browsers without it. */
async function manager(): Promise<PushManager | null> {
  const worker = await navigator.serviceWorker?.getRegistration();
  return worker?.pushManager ?? null;
}

interface Served {
  key: Uint8Array<ArrayBuffer> | null;
  tokens: string[];
}

async function served(): Promise<Served> {
  const { items, web_push_key } = await echo.rest.get(DEVICES);
  return { key: web_push_key ? bytesOf(web_push_key) : null, tokens: items.map((item) => item.token) };
}

function bytesOf(base64url: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(base64url.replace(/-/g, '+').replace(/_/g, '/')), (char) => char.charCodeAt(0));
}

const isOf = (subscription: PushSubscription, key: Uint8Array): boolean => {
  const its = subscription.options.applicationServerKey;
  return its === null || String(new Uint8Array(its)) === String(key);
};

const endpointOf = (token: string): string | null => {
  try {
    return (JSON.parse(token) as { endpoint?: string }).endpoint ?? null;
  } catch {
    return null;
  }
};

/** At the start, and where the settings show it. */
export async function loadPush(): Promise<void> {
  const pushes = await manager();
  if (pushes === null || typeof Notification === 'undefined' || !has(`POST ${DEVICES}`)) return;
  const { key, tokens } = await served();
  if (key === null) return;
  if (!isWanted() || Notification.permission !== 'granted') {
    push.value = 'off';
    return;
  }
  await subscribe(pushes, key, tokens);
  push.value = 'on';
}

/** With the host's key of today; registered where the host does not have it. */
async function subscribe(pushes: PushManager, key: Uint8Array<ArrayBuffer>, tokens: string[]): Promise<void> {
  let subscription = await pushes.getSubscription();
  if (subscription !== null && !isOf(subscription, key)) {
    await subscription.unsubscribe();
    subscription = null;
  }
  subscription ??= await pushes.subscribe({ userVisibleOnly: true, applicationServerKey: key });
  const { endpoint } = subscription;
  if (tokens.some((token) => endpointOf(token) === endpoint)) return;
  await echo.rest.post(DEVICES, { body: { token: JSON.stringify(subscription), provider: 'webpush', platform: 'web' } });
}

/** Of these the settings say what to do. */
export class NoPush extends Error {}

/** Throws `NoPush` where the person or the browser says no, and what requests throw. */
export async function setPush(on: boolean): Promise<void> {
  const pushes = await manager();
  if (pushes === null) throw new NoPush('This browser receives nothing while no page is open.');
  if (!on) return endPush(pushes);
  if ((await Notification.requestPermission()) !== 'granted') throw new NoPush('Allow notifications for this page in the settings of the browser.');
  const { key, tokens } = await served();
  if (key === null) throw new NoPush('This server sends nothing to browsers.');
  try {
    await subscribe(pushes, key, tokens);
  } catch (error) {
    if (error instanceof DOMException) throw new NoPush('The push service of this browser could not be reached.');
    throw error;
  }
  localStorage.setItem(KEY, me());
  push.value = 'on';
}

async function endPush(pushes: PushManager): Promise<void> {
  localStorage.removeItem(KEY);
  push.value = 'off';
  const subscription = await pushes.getSubscription();
  if (subscription === null) return;
  const token = JSON.stringify(subscription);
  await subscription.unsubscribe();
  await echo.rest.delete(DEVICES, { query: { token } }).catch((error: unknown) => {
    if (!(error instanceof Problem && error.status === 404)) throw error;
  });
}

/** The account is gone from this browser, and with its session what the host knew: nothing for it must arrive here any more. */
export async function forgetPush(): Promise<void> {
  push.value = null;
  localStorage.removeItem(KEY);
  const subscription = await (await manager())?.getSubscription();
  await subscription?.unsubscribe();
}

/** What the service worker says: a notification was clicked, or the subscription is another one. */
export function listenToWorker(): void {
  navigator.serviceWorker?.addEventListener('message', ({ data }: MessageEvent<{ open?: string; push_changed?: true }>) => {
    if (data.open) go(data.open);
    if (data.push_changed) void loadPush().catch(() => undefined);
  });
}
