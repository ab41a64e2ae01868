// Messages that the server sends later.

import type { ScheduledMessage } from '@echo/client';
import { signal } from '@preact/signals';
import { echo, has } from './echo.js';
import { attempt } from './notices.js';

const ROUTE = '/api/v1/messages/scheduled';
export const scheduled = signal<readonly ScheduledMessage[]>([]);

export async function loadScheduled(): Promise<void> {
  if (has(`GET ${ROUTE}`)) scheduled.value = (await echo.rest.get(ROUTE, { query: { limit: 100 } })).items;
}

export const scheduledIn = (conversation: string): ScheduledMessage[] => scheduled.value.filter((one) => one.conversation_id === conversation);

export function schedule(conversation_id: string, content: string, send_at: string, reply_to: string | null, mentions: string[]): Promise<boolean> {
  return attempt(async () => {
    const message = { conversation_id, client_message_id: crypto.randomUUID?.() ?? `scheduled-${Date.now()}-${Math.random()}`, type: 'text' as const, content, send_at };
    await echo.rest.post(ROUTE, { body: { ...message, ...(reply_to ? { reply_to } : {}), ...(mentions.length ? { mentions } : {}) } });
    await loadScheduled();
  }, 'Scheduled');
}

export function reschedule(id: string, change: { content?: string; send_at?: string }): Promise<boolean> {
  return attempt(async () => {
    await echo.rest.patch(`${ROUTE}/{id}`, { path: { id }, body: change });
    await loadScheduled();
  }, 'Changed');
}

export function unschedule(id: string): Promise<boolean> {
  return attempt(async () => {
    await echo.rest.delete(`${ROUTE}/{id}`, { path: { id } });
    await loadScheduled();
  }, 'It will not be sent');
}

/** One of them was sent. */
export function wasSent(client_message_id: string): void {
  if (scheduled.peek().some((one) => one.client_message_id === client_message_id)) scheduled.value = scheduled.peek().filter((one) => one.client_message_id !== client_message_id);
}

export function forgetScheduled(): void {
  scheduled.value = [];
}
