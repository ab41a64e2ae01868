// Who is who: profiles by id, asked for in batches; aliases; presence.

import type { Presence, Profile } from '@echo/client';
import { signal } from '@preact/signals';
import { Changes } from './changes.js';
import { echo, me } from './echo.js';

const BATCH_IDS_MAX = 100;
const PRESENCE_USERS_MAX = 50;
const PRESENCE_EVERY_MS = 30_000;

export const people = signal<ReadonlyMap<string, Profile>>(new Map());
export const aliases = signal<ReadonlyMap<string, string>>(new Map());
export const contacts = signal<ReadonlySet<string>>(new Set());
export const blocked = signal<ReadonlySet<string>>(new Set());
export const presence = signal<ReadonlyMap<string, Presence>>(new Map());

const wanted = new Set<string>();
const asked = new Set<string>();
let gathering = false;

/** Sees to it that these profiles are there soon. */
export function need(ids: Iterable<string>): void {
  for (const id of ids) if (id && !asked.has(id)) wanted.add(id);
  if (gathering || wanted.size === 0) return;
  gathering = true;
  queueMicrotask(() => {
    gathering = false;
    void fetchWanted();
  });
}

async function fetchWanted(): Promise<void> {
  while (wanted.size > 0) {
    const ids = [...wanted].slice(0, BATCH_IDS_MAX);
    ids.forEach((id) => (wanted.delete(id), asked.add(id)));
    try {
      remember((await echo.rest.post('/api/v1/users/batch', { body: { ids } })).items);
    } catch {
      ids.forEach((id) => asked.delete(id));
      return;
    }
  }
}

/** Not `current`: they are asked for again. */
export function remember(profiles: Profile[], current = true): void {
  const next = new Map(people.peek());
  for (const profile of profiles) {
    next.set(profile.id, profile);
    if (current) asked.add(profile.id);
  }
  people.value = next;
}

export function nameOf(id: string): string {
  if (id === me()) return 'You';
  return aliases.value.get(id) ?? people.value.get(id)?.display_name ?? 'Somebody';
}

const contactsMade = new Changes();
const blocksMade = new Changes();

export async function loadContacts(): Promise<void> {
  const { items } = await contactsMade.read(() => echo.rest.get('/api/v1/users/contacts', { query: { limit: 100 } }));
  remember(items.map((contact) => contact.profile));
  contacts.value = new Set(items.map((contact) => contact.user_id));
  aliases.value = new Map(items.filter((contact) => contact.alias).map((contact) => [contact.user_id, contact.alias!]));
}

export async function loadBlocked(): Promise<void> {
  const { items } = await blocksMade.read(() => echo.rest.get('/api/v1/users/blocked', { query: { limit: 100 } }));
  blocked.value = new Set(items.map((block) => block.user_id));
  need(blocked.value);
}

export async function setBlocked(user_id: string, on: boolean): Promise<void> {
  const input = { path: { user_id } };
  if (on) await echo.rest.put('/api/v1/users/blocked/{user_id}', input);
  else await echo.rest.delete('/api/v1/users/blocked/{user_id}', input);
  blocksMade.made();
  const next = new Set(blocked.peek());
  if (on) next.add(user_id);
  else next.delete(user_id);
  blocked.value = next;
}

export async function setContact(user_id: string, on: boolean): Promise<void> {
  if (on) await echo.rest.post('/api/v1/users/contacts', { body: { user_id } });
  else await echo.rest.delete('/api/v1/users/contacts/{user_id}', { path: { user_id } });
  contactsMade.made();
  await loadContacts();
}

/** A name of one's own for somebody, seen by nobody else; an empty one takes it away. */
export async function setAlias(user_id: string, alias: string): Promise<void> {
  await echo.rest.patch('/api/v1/users/contacts/{user_id}', { path: { user_id }, body: { alias } });
  contactsMade.made();
  await loadContacts();
}

export function seen(one: Presence): void {
  presence.value = new Map(presence.peek()).set(one.user_id, one);
}

let watched: string[] = [];
let timer: ReturnType<typeof setTimeout> | undefined;

/** Whose presence is on the screen. */
export function watchPresence(ids: string[]): void {
  const next = ids.slice(0, PRESENCE_USERS_MAX);
  const fresh = next.some((id) => !watched.includes(id));
  watched = next;
  if (fresh) void refreshPresence();
}

export async function refreshPresence(): Promise<void> {
  clearTimeout(timer);
  timer = setTimeout(() => void refreshPresence(), PRESENCE_EVERY_MS);
  if (watched.length === 0 || document.visibilityState !== 'visible') return;
  try {
    const { items } = await echo.rest.get('/api/v1/presence', { query: { user_ids: watched } });
    presence.value = new Map([...presence.peek(), ...items.map((one) => [one.user_id, one] as const)]);
  } catch {
    // Presence is a courtesy: without it nothing is shown.
  }
}

export function forgetPeople(): void {
  people.value = new Map();
  aliases.value = new Map();
  contacts.value = new Set();
  blocked.value = new Set();
  presence.value = new Map();
  asked.clear();
  wanted.clear();
  watched = [];
}
