// Reactions, pins, stars, polls, search: what is done with messages beyond reading and writing. A host may lack each of them.

import type { Message } from '@echo/client';
import { signal, type Signal } from '@preact/signals';
import { echo, has, me } from './echo.js';
import { attempt } from './notices.js';
import { need } from './people.js';
import { loadConversation, replace, thread } from './talk.js';

export const REACTIONS = ['👍', '❤️', '😂', '😮', '😢', '🙏', '🎉', '👎'];

/** Reactions come by one request per message: so many at one time, each with a pause after it, those asked for last first. */
const ASKING_MAX = 2;
const ASKING_PAUSE_MS = 300;
/** Messages whose reactions are waited for; the ones asked for longest ago are asked for again when they are seen again. */
const WAITING_MAX = 60;

interface Reaction {
  emoji: string;
  users: ReadonlySet<string>;
}

type Reactions = ReadonlyMap<string, Reaction>;
const NONE: Reactions = new Map();
const byMessage = new Map<string, Signal<Reactions>>();

/** To a message, by the emoji's canonical form. A signal each, so that what changes of one is rendered alone. */
export function reactionsTo(id: string): Signal<Reactions> {
  let found = byMessage.get(id);
  if (found === undefined) byMessage.set(id, (found = signal(NONE)));
  return found;
}

const asked = new Set<string>();
const queue: string[] = [];
let asking = 0;

/** Sees to it that the reactions to a message are there soon. */
export function needReactions(id: string): void {
  if (asked.has(id) || !has('GET /api/v1/messages/{id}/reactions')) return;
  asked.add(id);
  queue.push(id);
  if (queue.length > WAITING_MAX) asked.delete(queue.shift()!);
  void ask();
}

async function ask(): Promise<void> {
  if (asking >= ASKING_MAX) return;
  asking += 1;
  for (let id = queue.pop(); id !== undefined; id = queue.pop()) {
    try {
      const { items } = await echo.rest.get('/api/v1/messages/{id}/reactions', { path: { id }, query: { limit: 100 } });
      for (const item of items) set(id, item.canonical, item.emoji, item.user_id, true);
      need(items.map((item) => item.user_id));
    } catch {
      asked.delete(id);
    }
    await new Promise((resolve) => setTimeout(resolve, ASKING_PAUSE_MS));
  }
  asking -= 1;
}

function set(id: string, canonical: string, emoji: string, user: string, present: boolean): void {
  const state = reactionsTo(id);
  const of = new Map(state.peek());
  const users = new Set(of.get(canonical)?.users);
  if (present) users.add(user);
  else users.delete(user);
  if (users.size > 0) of.set(canonical, { emoji: of.get(canonical)?.emoji ?? emoji, users });
  else of.delete(canonical);
  state.value = of;
}

export function reacted(change: { message_id: string; canonical: string; emoji: string; user_id: string; present: boolean }): void {
  need([change.user_id]);
  set(change.message_id, change.canonical, change.emoji, change.user_id, change.present);
}

export function toggleReaction(message: Message, emoji: string): void {
  const known = [...reactionsTo(message.id).peek()].find(([canonical, one]) => one.emoji === emoji || canonical === emoji);
  const on = !known?.[1].users.has(me());
  const input = { path: { id: message.id, emoji: known?.[1].emoji ?? emoji } };
  void attempt(() =>
    on ? echo.rest.put('/api/v1/messages/{id}/reactions/{emoji}', input) : echo.rest.delete('/api/v1/messages/{id}/reactions/{emoji}', input),
  );
}

export function setPinned(message: Message, on: boolean): void {
  const input = { path: { id: message.id } };
  void attempt(async () => {
    await (on ? echo.rest.put('/api/v1/messages/{id}/pin', input) : echo.rest.delete('/api/v1/messages/{id}/pin', input));
    await loadConversation(message.conversation_id);
  }, on ? 'Pinned' : 'Unpinned');
}

export function setStarred(id: string, on: boolean): Promise<boolean> {
  const input = { path: { id } };
  return attempt(() => (on ? echo.rest.put('/api/v1/messages/{id}/star', input) : echo.rest.delete('/api/v1/messages/{id}/star', input)), on ? 'Starred' : 'Not starred any more');
}

export async function searchMessages(q: string, conversation_id?: string): Promise<Message[]> {
  const { items } = await echo.rest.get('/api/v1/messages/search', { query: { q, limit: 30, ...(conversation_id ? { conversation_id } : {}) } });
  need(items.map((message) => message.sender_id));
  return items;
}

export function vote(message: Message, options: number[]): void {
  void attempt(async () => {
    const voted = await echo.rest.put('/api/v1/messages/{id}/vote', { path: { id: message.id }, body: { options } });
    replace(message.conversation_id, message.id, () => voted);
  });
}

export function closePoll(message: Message): void {
  void attempt(async () => {
    const closed = await echo.rest.post('/api/v1/messages/{id}/close', { path: { id: message.id } });
    replace(message.conversation_id, message.id, () => closed);
  });
}

export function polled(change: { conversation_id: string; message_id: string; votes: number[]; voters: number; closed: boolean }): void {
  const message = thread(change.conversation_id).peek().messages.find((one) => one.id === change.message_id);
  if (!message?.poll) return;
  const options = message.poll.options.map((option, index) => ({ ...option, votes: change.votes[index] ?? option.votes }));
  replace(change.conversation_id, change.message_id, (one) => ({ ...one, poll: { ...message.poll!, options, voters: change.voters, closed: change.closed } }));
}

export function forgetExtras(): void {
  byMessage.clear();
  asked.clear();
  queue.length = 0;
}
