// Notifications: what the server sends to devices, and what this browser shows while Echo is open in another tab.

import type { Message } from '@echo/client';
import { signal } from '@preact/signals';
import { Changes } from './changes.js';
import { echo } from './echo.js';
import { nameOf } from './people.js';
import { go } from './route.js';

export interface Preferences {
  messages: 'all' | 'mentions' | 'none';
  previews: boolean;
  quiet_hours: { start: string; end: string; timezone: string } | null;
}

export const PREFERENCES = '/api/v1/notifications/preferences';
export const preferences = signal<Preferences | null>(null);

const made = new Changes();

export async function loadPreferences(): Promise<void> {
  preferences.value = await made.read(() => echo.rest.call<Preferences>('GET', PREFERENCES));
}

export async function savePreferences(change: Partial<Preferences>): Promise<void> {
  const saved = await echo.rest.call<Preferences>('PUT', PREFERENCES, { body: { ...preferences.peek(), ...change } });
  made.made();
  preferences.value = saved;
}

const KEY = 'echo:alerts';

/** Whether this browser shows new messages while the page is not looked at. */
export const alerts = signal(localStorage.getItem(KEY) === 'on' && typeof Notification !== 'undefined' && Notification.permission === 'granted');

export const canAlert = (): boolean => typeof Notification !== 'undefined';

export async function setAlerts(on: boolean): Promise<boolean> {
  const allowed = on && (await Notification.requestPermission()) === 'granted';
  alerts.value = allowed;
  localStorage.setItem(KEY, allowed ? 'on' : 'off');
  return allowed === on;
}

/** Of somebody else, in a conversation that is not muted. One of each conversation: a push for it takes the same place. */
export async function alertOf(message: Message, text: string): Promise<void> {
  if (!alerts.peek() || document.visibilityState === 'visible') return;
  const { conversation_id } = message;
  const hides = preferences.peek()?.previews === false;
  const title = hides ? 'New message' : nameOf(message.sender_id);
  const options = { body: hides ? 'You have a new message' : text, tag: conversation_id, icon: '/icon.svg', data: { conversation_id } };
  const worker = await navigator.serviceWorker?.getRegistration();
  // Browsers of phones show those of a service worker alone.
  if (worker) return worker.showNotification(title, options);
  const shown = new Notification(title, options);
  shown.onclick = () => {
    window.focus();
    go(`/c/${conversation_id}`);
    shown.close();
  };
}

/** The conversation was read: what is shown of it is old. */
export async function dismissAlerts(conversation_id: string): Promise<void> {
  const worker = await navigator.serviceWorker?.getRegistration();
  const shown = (await worker?.getNotifications({ tag: conversation_id })) ?? [];
  shown.forEach((one) => one.close());
}
