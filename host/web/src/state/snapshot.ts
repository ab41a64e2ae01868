// What was last known, kept in this browser: shown at once when the page opens, and all there is without a network.

import { IndexedDbStore, type Conversation, type Message, type Profile } from '@echo/client';
import { effect } from '@preact/signals';
import { features, me } from './echo.js';
import { people, remember } from './people.js';
import { profile } from './profile.js';
import { conversations, conversationsState, sorted, thread } from './talk.js';

const CONVERSATIONS_MAX = 200;
const THREADS_MAX = 30;
const MESSAGES_MAX = 50;
/** Changes are written this long after the first of them. */
const WRITE_AFTER_MS = 2_000;
const KEY = 'snapshot';

interface Snapshot {
  user_id: string;
  features: string[];
  profile: Profile | null;
  people: Profile[];
  conversations: Conversation[];
  threads: Record<string, Message[]>;
}

const store = new IndexedDbStore('echo-shown');
let timer: ReturnType<typeof setTimeout> | undefined;

export async function restore(): Promise<void> {
  const kept = await store.get<Snapshot>(KEY).catch(() => null);
  if (kept === null || kept.user_id !== me() || conversations.peek().size > 0) return;
  if (features.peek().size === 0) features.value = new Set(kept.features);
  profile.value ??= kept.profile;
  remember(kept.people, false);
  for (const [id, messages] of Object.entries(kept.threads)) thread(id).value = { messages, older: 'stale', newer: false };
  conversations.value = new Map(kept.conversations.map((one) => [one.id, one]));
  if (kept.conversations.length > 0) conversationsState.value = 'ready';
}

async function write(): Promise<void> {
  timer = undefined;
  if (me() === '' || conversationsState.peek() !== 'ready') return;
  const shown = sorted.peek().slice(0, CONVERSATIONS_MAX);
  const threads: Record<string, Message[]> = {};
  for (const { id } of shown.slice(0, THREADS_MAX)) {
    const { messages, older, newer } = thread(id).peek();
    if (messages.length > 0 && older !== 'unknown' && !newer) threads[id] = messages.slice(-MESSAGES_MAX);
  }
  const snapshot: Snapshot = { user_id: me(), features: [...features.peek()], profile: profile.peek(), people: [...people.peek().values()], conversations: shown, threads };
  await store.set(KEY, snapshot).catch(() => undefined);
}

export function keepSnapshots(): void {
  effect(() => {
    // Read here, so that the effect follows it: every message changes it.
    if (conversations.value.size > 0) timer ??= setTimeout(() => void write(), WRITE_AFTER_MS);
  });
}

export async function forgetSnapshot(): Promise<void> {
  clearTimeout(timer);
  timer = undefined;
  await store.clear().catch(() => undefined);
}
