// Conversations and their messages: loaded over REST, kept true by the events of the feed.

import type { Conversation, Event, Message, OutboxEntry } from '@echo/client';
import { computed, signal, type Signal } from '@preact/signals';
import { account, connection, echo, me, outbox } from './echo.js';
import { attempt, notify } from './notices.js';
import { alertOf, dismissAlerts } from './alerts.js';
import { draftChanged, forgetDrafts } from './drafts.js';
import { polled, reacted } from './extras.js';
import { uploading } from './media.js';
import { need, seen } from './people.js';
import { go, route } from './route.js';
import { forgetScheduled, wasSent } from './scheduled.js';

const PAGE_MESSAGES = 50;
const PAGE_CONVERSATIONS = 100;
/** Messages of one conversation in memory and on the page; what is beyond is loaded when it is scrolled to. */
const KEPT_MESSAGES_MAX = 300;
const TYPING_SHOWN_MS = 6_000;
/** Pages of older messages that a jump may load. */
const JUMP_PAGES_MAX = 200;

export interface Thread {
  /** Ascending by `seq`, without gaps. */
  messages: Message[];
  /** Whether there are messages before the first; `stale`: these are from an earlier start of the page, and newer ones may follow. */
  older: 'unknown' | 'stale' | 'loading' | 'more' | 'none' | 'failed';
  /** Whether there are messages after the last. */
  newer: boolean;
}

export const conversations = signal<ReadonlyMap<string, Conversation>>(new Map());
export const conversationsState = signal<'loading' | 'ready' | 'failed'>('loading');
export const typing = signal<ReadonlyMap<string, ReadonlyMap<string, number>>>(new Map());
/** How far each recipient has received and read the messages of this account, per conversation. */
export const watermarks = signal<ReadonlyMap<string, ReadonlyMap<string, { delivered: number; read: number }>>>(new Map());

const threads = new Map<string, Signal<Thread>>();

export function thread(id: string): Signal<Thread> {
  let found = threads.get(id);
  if (found === undefined) threads.set(id, (found = signal<Thread>({ messages: [], older: 'unknown', newer: false })));
  return found;
}

export const sorted = computed(() => {
  const all = [...conversations.value.values()];
  const time = (conversation: Conversation) => conversation.last_message?.created_at ?? conversation.created_at;
  return all.sort((a, b) => Number(b.pinned) - Number(a.pinned) || (time(a) < time(b) ? 1 : -1));
});

export const unread = computed(() => [...conversations.value.values()].reduce((sum, one) => sum + (isMuted(one) || one.archived ? 0 : one.unread_count), 0));

export const isMuted = (conversation: Conversation): boolean => conversation.muted_until !== null && Date.parse(conversation.muted_until) > Date.now();

/** The other one of a direct conversation. */
export const other = (conversation: Conversation): string | null =>
  conversation.type === 'direct' ? (conversation.participant_ids.find((id) => id !== me()) ?? me()) : null;

// Loading

/** Something could not be loaded: it is when there is a connection. */
let incomplete = false;

export async function loadConversations(): Promise<void> {
  const first = conversations.peek().size === 0;
  if (first) conversationsState.value = 'loading';
  try {
    const all = new Map<string, Conversation>();
    for (let cursor: string | null | undefined; cursor !== null; ) {
      const query: { limit: number; cursor?: string } = { limit: PAGE_CONVERSATIONS, ...(cursor ? { cursor } : {}) };
      const page = await echo.rest.get('/api/v1/messages/conversations', { query });
      page.items.forEach((one) => all.set(one.id, one));
      cursor = page.next_cursor;
      // The newest are shown while the rest is loaded.
      if (first && cursor !== null) conversations.value = new Map(all);
    }
    conversations.value = all;
    conversationsState.value = 'ready';
    incomplete = false;
    for (const one of all.values()) needAbout(one);
    for (const id of [...unknown]) if (all.has(id)) unknown.delete(id);
    void fetchUnknown();
  } catch {
    incomplete = true;
    if (first) conversationsState.value = 'failed';
  }
}

/** Conversations that events speak of and that were not loaded yet. */
const unknown = new Set<string>();
let fetching = false;

function learn(id: string): void {
  unknown.add(id);
  if (conversationsState.peek() === 'ready') void fetchUnknown();
}

/** One after the other, each once, however many events speak of it. */
async function fetchUnknown(): Promise<void> {
  if (fetching) return;
  fetching = true;
  for (const id of unknown) {
    await loadConversation(id).catch(() => undefined);
    unknown.delete(id);
  }
  fetching = false;
}

function needAbout(conversation: Conversation): void {
  const ids = conversation.type === 'direct' ? conversation.participant_ids : [];
  need([...ids, conversation.last_message?.sender_id ?? '']);
}

export async function loadConversation(id: string): Promise<Conversation> {
  const one = await echo.rest.get('/api/v1/messages/conversations/{id}', { path: { id } });
  keep(one);
  return one;
}

export function keep(conversation: Conversation): void {
  conversations.value = new Map(conversations.peek()).set(conversation.id, conversation);
  needAbout(conversation);
}

function change(id: string, to: (conversation: Conversation) => Conversation): void {
  const known = conversations.peek().get(id);
  if (known !== undefined) conversations.value = new Map(conversations.peek()).set(id, to(known));
}

function drop(id: string): void {
  const next = new Map(conversations.peek());
  next.delete(id);
  conversations.value = next;
  threads.delete(id);
  const now = route.peek();
  if (now.page === 'conversation' && now.id === id) go('/', true);
}

/** The page of messages before those that are there; the newest at first. */
export async function loadOlder(id: string): Promise<void> {
  const state = thread(id);
  const { messages, older } = state.peek();
  if (older === 'loading' || older === 'none') return;
  const stale = older === 'stale';
  state.value = { ...state.peek(), older: 'loading' };
  try {
    const first = stale ? undefined : messages[0];
    const query = { conversation_id: id, limit: PAGE_MESSAGES, ...(first ? { before_seq: first.seq } : {}) };
    const { items } = await echo.rest.get('/api/v1/messages', { query });
    const more = items.length === PAGE_MESSAGES;
    // What is stale is only kept where it joins what is current.
    const joins = !stale || items.length === 0 || items.at(-1)!.seq <= (messages.at(-1)?.seq ?? 0) + 1;
    const all = merge(joins ? state.peek().messages : [], items);
    state.value = { messages: all.slice(0, KEPT_MESSAGES_MAX), older: more ? 'more' : 'none', newer: state.peek().newer || all.length > KEPT_MESSAGES_MAX };
    need(items.map((message) => message.sender_id));
  } catch {
    state.value = { ...state.peek(), older: stale ? 'stale' : 'failed' };
  }
}

/** After a time without a connection. */
export function loadMissing(): void {
  if (incomplete) void loadConversations();
  const now = route.peek();
  if (now.page === 'conversation' && ['stale', 'failed'].includes(thread(now.id).peek().older)) void loadOlder(now.id);
}

const loadingNewer = new Set<string>();

/** The page of messages after those that are there. */
export async function loadNewer(id: string): Promise<void> {
  const state = thread(id);
  const last = state.peek().messages.at(-1);
  if (!state.peek().newer || last === undefined || loadingNewer.has(id)) return;
  loadingNewer.add(id);
  try {
    const { items } = await echo.rest.get('/api/v1/messages', { query: { conversation_id: id, limit: PAGE_MESSAGES, after_seq: last.seq } });
    const all = merge(state.peek().messages, items);
    const older = all.length > KEPT_MESSAGES_MAX ? 'more' : state.peek().older;
    state.value = { messages: all.slice(-KEPT_MESSAGES_MAX), older, newer: items.length === PAGE_MESSAGES };
  } catch {
    // The next look tries again.
  } finally {
    loadingNewer.delete(id);
  }
}

/** Back to the newest messages, from wherever one has scrolled to. */
export async function loadNewest(id: string): Promise<void> {
  const state = thread(id);
  if (!state.peek().newer) return;
  state.value = { messages: [], older: 'unknown', newer: false };
  await loadOlder(id);
}

/** By `seq`; what comes later about a message takes its place. */
function merge(known: Message[], more: Message[]): Message[] {
  const bySeq = new Map(known.map((message) => [message.seq, message]));
  for (const message of more) bySeq.set(message.seq, message);
  return [...bySeq.values()].sort((a, b) => a.seq - b.seq);
}

function put(message: Message): void {
  const state = threads.get(message.conversation_id);
  if (state === undefined || ['unknown', 'stale'].includes(state.peek().older)) return;
  const { messages, older, newer } = state.peek();
  const last = messages.at(-1);
  if (last === undefined || message.seq <= last.seq) {
    state.value = { messages: merge(messages, [message]), older, newer };
    return;
  }
  // Who reads older messages keeps them; the new one is loaded when they come back to it.
  const full = messages.length >= KEPT_MESSAGES_MAX;
  if (newer || (full && shown.peek() !== message.conversation_id)) {
    state.value = { messages, older, newer: true };
    return;
  }
  state.value = { messages: [...messages.slice(full ? 1 : 0), message], older: full && older !== 'loading' ? 'more' : older, newer };
}

export function replace(conversation: string, id: string, to: (message: Message) => Message): void {
  const state = threads.get(conversation);
  if (state !== undefined) {
    const { messages } = state.peek();
    state.value = { ...state.peek(), messages: messages.map((message) => (message.id === id ? to(message) : message)) };
  }
  change(conversation, (one) => (one.last_message?.id === id ? { ...one, last_message: to(one.last_message) } : one));
}

// Events

export function apply(event: Event): void {
  switch (event.type) {
    case 'message':
      return arrived(event.payload);
    case 'sent':
      return arrived(event.message);
    case 'message_edited':
      return replace(event.payload.conversation_id, event.payload.id, (message) => ({ ...event.payload, status: message.status }));
    case 'message_deleted': {
      const { conversation_id, message_id, deleted_at } = event.payload;
      return replace(conversation_id, message_id, (message) => ({ ...message, content: null, media_id: null, deleted_at }));
    }
    case 'message_status':
      return received(event.payload);
    case 'conversation':
      if (!event.payload.member) return drop(event.payload.id);
      if ('participant_ids' in event.payload && conversations.peek().has(event.payload.id)) {
        const { member: _, ...state } = event.payload;
        change(state.id, (one) => ({ ...one, ...state, last_seq: Math.max(one.last_seq, state.last_seq) }));
        return;
      }
      return learn(event.payload.id);
    case 'reaction':
      return reacted(event.payload);
    case 'poll':
      return polled(event.payload);
    case 'draft':
      return draftChanged(event.payload);
    case 'unread':
      return change(event.payload.conversation_id, (one) => ({ ...one, marked_unread: event.payload.unread }));
    case 'typing':
      return isTyping(event.payload.conversation_id, event.payload.user_id, event.payload.is_typing);
    case 'outbox':
      outbox.value = event.entries;
      return;
    case 'upload':
      return uploading(event);
    case 'connection':
      connection.value = event.connection;
      if (event.connection === 'online') loadMissing();
      return;
    case 'presence':
      return seen(event.payload);
    default:
  }
}

function arrived(message: Message): void {
  need([message.sender_id]);
  if (message.sender_id === me()) wasSent(message.client_message_id);
  put(message);
  isTyping(message.conversation_id, message.sender_id, false);
  const known = conversations.peek().get(message.conversation_id);
  if (known === undefined) return learn(message.conversation_id);
  if (message.seq <= (known.last_message?.seq ?? 0)) return;
  const mine = message.sender_id === me();
  const fresh = message.seq > known.last_seq || message.seq > known.read_seq;
  change(known.id, (one) => ({
    ...one,
    last_message: message,
    last_seq: Math.max(one.last_seq, message.seq),
    unread_count: mine ? one.unread_count : one.unread_count + (fresh ? 1 : 0),
  }));
  if (!mine && isShown(known.id)) void markRead(known.id);
  if (!mine && fresh && !isMuted(known)) void alertOf(message, message.content ?? '');
}

function received(status: { conversation_id: string; message_id: string; user_id: string; status: Message['status']; up_to_seq: number | null }): void {
  const { conversation_id, user_id } = status;
  if (user_id === me()) return;
  const { messages } = thread(conversation_id).peek();
  const seq = status.up_to_seq ?? messages.find((message) => message.id === status.message_id)?.seq;
  if (seq === undefined) return;
  const of = new Map(watermarks.peek().get(conversation_id));
  const { delivered, read } = of.get(user_id) ?? { delivered: 0, read: 0 };
  of.set(user_id, { delivered: Math.max(delivered, seq), read: status.status === 'read' ? Math.max(read, seq) : read });
  watermarks.value = new Map(watermarks.peek()).set(conversation_id, of);
}

const RANK = { sent: 0, delivered: 1, read: 2 } as const;

/** Of a message of this account: the least of its recipients' status. */
export function statusOf(message: Message, conversation: Conversation): Message['status'] {
  const of = watermarks.value.get(conversation.id);
  const recipients = conversation.participant_ids.filter((id) => id !== message.sender_id);
  if (of === undefined || recipients.length === 0 || conversation.participant_count > conversation.participant_ids.length) return message.status;
  const reached = (mark: 'delivered' | 'read') => recipients.every((id) => (of.get(id)?.[mark] ?? 0) >= message.seq);
  const status = reached('read') ? 'read' : reached('delivered') ? 'delivered' : 'sent';
  return RANK[status] > RANK[message.status] ? status : message.status;
}

function isTyping(conversation: string, user: string, on: boolean): void {
  const known = typing.peek().get(conversation);
  if (user === me() || (!on && !known?.has(user))) return;
  const next = new Map(known);
  if (on) {
    const until = Date.now() + TYPING_SHOWN_MS;
    next.set(user, until);
    need([user]);
    setTimeout(() => typing.peek().get(conversation)?.get(user) === until && isTyping(conversation, user, false), TYPING_SHOWN_MS);
  } else next.delete(user);
  typing.value = new Map(typing.peek()).set(conversation, next);
}

/** Where a conversation is to be opened, once. */
export const jump = signal<{ conversation: string; seq: number } | null>(null);

// Reading

/** Whether its newest messages are before somebody's eyes. The view says so. */
export const shown = signal<string | null>(null);

const isShown = (id: string) => shown.peek() === id && document.visibilityState === 'visible' && document.hasFocus();

const reading = new Set<string>();

export async function markRead(id: string): Promise<void> {
  const known = conversations.peek().get(id);
  if (known === undefined || reading.has(id) || (known.unread_count === 0 && known.read_seq >= known.last_seq && !known.marked_unread)) return;
  reading.add(id);
  const up_to_seq = known.last_seq;
  if (known.marked_unread) void markUnread(id, false);
  change(id, (one) => ({ ...one, unread_count: 0 }));
  void dismissAlerts(id);
  try {
    const { read_seq, unread_count } = await echo.read(id, up_to_seq);
    change(id, (one) => ({ ...one, read_seq, unread_count: one.last_seq > up_to_seq ? one.unread_count : unread_count }));
  } catch {
    // The next message, or the next look at the conversation, tries again.
  } finally {
    reading.delete(id);
  }
  const now = conversations.peek().get(id);
  if (now !== undefined && now.last_seq > up_to_seq && isShown(id)) void markRead(id);
}

export function markShown(): void {
  const id = shown.peek();
  if (id !== null && isShown(id)) void markRead(id);
}

/** A mark for oneself, the same on all devices. */
export async function markUnread(id: string, unread: boolean): Promise<void> {
  await attempt(async () => {
    await echo.rest.put('/api/v1/messages/conversations/{id}/unread', { path: { id }, body: { unread } });
    change(id, (one) => ({ ...one, marked_unread: unread }));
  });
}

/** Loads older messages until this one is there. False where it is too far back, or gone. */
export async function loadBackTo(id: string, seq: number): Promise<boolean> {
  if ((thread(id).peek().messages.at(-1)?.seq ?? 0) < seq) await loadNewest(id);
  for (let pages = 0; pages < JUMP_PAGES_MAX; pages++) {
    const { messages, older } = thread(id).peek();
    if (messages.length > 0 && messages[0]!.seq <= seq) return messages.some((message) => message.seq === seq);
    if (older === 'none' || older === 'failed') return false;
    if (older === 'loading') await new Promise((resolve) => setTimeout(resolve, 50));
    else await loadOlder(id);
  }
  return false;
}

// Writing

export async function say(conversation_id: string, content: string, reply_to: string | null, mentions: string[] = []): Promise<void> {
  await attempt(() => echo.send({ conversation_id, type: 'text', content, ...(reply_to ? { reply_to } : {}), ...(mentions.length ? { mentions } : {}) }));
}

export async function edit(message: Message, content: string): Promise<boolean> {
  return attempt(async () => {
    const edited = await echo.rest.patch('/api/v1/messages/{id}', { path: { id: message.id }, body: { content } });
    replace(message.conversation_id, message.id, () => edited);
  });
}

export async function remove(message: Message, whom: 'me' | 'everyone'): Promise<void> {
  await attempt(async () => {
    await echo.rest.delete('/api/v1/messages/{id}', { path: { id: message.id }, query: { for: whom } });
    if (whom === 'everyone') {
      replace(message.conversation_id, message.id, (one) => ({ ...one, content: null, media_id: null, deleted_at: new Date().toISOString() }));
      return;
    }
    const state = thread(message.conversation_id);
    state.value = { ...state.peek(), messages: state.peek().messages.filter((one) => one.id !== message.id) };
    if (conversations.peek().get(message.conversation_id)?.last_message?.id === message.id) await loadConversation(message.conversation_id);
  });
}

export async function openDirect(user_id: string): Promise<void> {
  await attempt(async () => {
    const one = (await echo.rest.post('/api/v1/messages/conversations', { body: { type: 'direct', participant_ids: [user_id] } })) as Conversation;
    keep(await loadConversation(one.id));
    go(`/c/${one.id}`);
  });
}

export async function openGroup(type: 'group' | 'channel', title: string, participant_ids: string[]): Promise<void> {
  await attempt(async () => {
    const body = { type, title, participant_ids };
    const one = (await echo.rest.post('/api/v1/messages/conversations', { body })) as Conversation & { not_added?: unknown[] };
    await loadConversation(one.id);
    if (one.not_added?.length) notify('Somebody could not be added: they let only certain people add them to groups.');
    go(`/c/${one.id}`);
  });
}

/** Entries of the outbox that are to be seen in this conversation. */
export const waitingIn = (id: string): OutboxEntry[] => outbox.value.filter((entry) => entry.message.conversation_id === id);

// Start and end

/** What was missed is not known: everything is loaded anew. */
export async function loadAnew(): Promise<void> {
  const now = route.peek();
  threads.clear();
  watermarks.value = new Map();
  await loadConversations();
  if (now.page === 'conversation') void loadOlder(now.id);
}

export function forgetTalk(): void {
  conversations.value = new Map();
  conversationsState.value = 'loading';
  threads.clear();
  forgetDrafts();
  forgetScheduled();
  typing.value = new Map();
  watermarks.value = new Map();
  outbox.value = [];
  unknown.clear();
}

export const signedIn = computed(() => Boolean(account.value));
