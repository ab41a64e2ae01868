// What was typed and not sent, per conversation: kept in this browser, and by the server, which passes it on to one's other devices.

import { signal } from '@preact/signals';
import { echo, has } from './echo.js';

const SAVE_AFTER_MS = 1_500;
const ROUTE = '/api/v1/messages/conversations/{id}/draft';

const KEY = 'echo:drafts';

function stored(): Map<string, string> {
  try {
    return new Map(JSON.parse(localStorage.getItem(KEY) ?? '[]') as [string, string][]);
  } catch {
    return new Map();
  }
}

export const drafts = signal<ReadonlyMap<string, string>>(stored());

const timers = new Map<string, ReturnType<typeof setTimeout>>();
/** Those that the server has. */
const saved = new Set<string>();

function put(id: string, content: string): void {
  if ((drafts.peek().get(id) ?? '') === content) return;
  const next = new Map(drafts.peek());
  if (content === '') next.delete(id);
  else next.set(id, content);
  drafts.value = next;
  localStorage.setItem(KEY, JSON.stringify([...next]));
}

export function setDraft(id: string, content: string): void {
  put(id, content);
  if (!has(`PUT ${ROUTE}`) || (content === '' && !saved.has(id) && !timers.has(id))) return;
  clearTimeout(timers.get(id));
  // At once when it was sent: another device must not offer it again.
  timers.set(id, setTimeout(() => void save(id), content === '' ? 0 : SAVE_AFTER_MS));
}

async function save(id: string): Promise<void> {
  timers.delete(id);
  const content = drafts.peek().get(id) ?? '';
  try {
    if (content.trim() === '') {
      if (saved.delete(id)) await echo.rest.delete(ROUTE, { path: { id } });
      return;
    }
    saved.add(id);
    await echo.rest.put(ROUTE, { path: { id }, body: { content } });
  } catch {
    // It is kept here; the next change tries again.
  }
}

/** Another device has written; what is being typed here wins. */
export function draftChanged(change: { conversation_id: string; content: string | null }): void {
  if (change.content !== null) saved.add(change.conversation_id);
  if (!timers.has(change.conversation_id)) put(change.conversation_id, change.content ?? '');
}

export function forgetDrafts(): void {
  drafts.value = new Map();
  timers.forEach((timer) => clearTimeout(timer));
  timers.clear();
  saved.clear();
  localStorage.removeItem(KEY);
}
