// Files of messages: their bytes as addresses within this page, what is known of a chosen file, and how far uploads are.

import { type Media, type MessageToSend, Problem } from '@echo/client';
import { signal } from '@preact/signals';
import { echo, has, thumbnailSize } from './echo.js';
import { attempt } from './notices.js';

/** Addresses in memory; the one that was used longest ago goes first. */
const KEPT_FILES_MAX = 200;
/** Without thumbnails larger files than this are not loaded unasked. */
const UNASKED_BYTES_MAX = 4_000_000;
const THUMBNAIL_TRIES_MAX = 5;

/** By the message's client id, while its file is uploaded. */
export const uploads = signal<ReadonlyMap<string, { sent: number; total: number }>>(new Map());

export function uploading({ client_message_id, sent, total }: { client_message_id: string; sent: number; total: number }): void {
  const next = new Map(uploads.peek());
  if (sent >= total) next.delete(client_message_id);
  else next.set(client_message_id, { sent, total });
  uploads.value = next;
}

const addresses = new Map<string, Promise<string>>();

function remembered(key: string, load: () => Promise<Blob>): Promise<string> {
  const known = addresses.get(key);
  const address = known ?? load().then((blob) => URL.createObjectURL(blob));
  addresses.delete(key);
  addresses.set(key, address);
  address.catch(() => addresses.delete(key));
  const oldest = addresses.keys().next().value;
  if (addresses.size > KEPT_FILES_MAX && oldest !== undefined) {
    void addresses.get(oldest)?.then((one) => URL.revokeObjectURL(one));
    addresses.delete(oldest);
  }
  return address;
}

/** The whole file. */
export const fileAddress = (id: string): Promise<string> => remembered(id, () => echo.rest.blob('/api/v1/media/{id}/content', { path: { id } }));

/** A small picture of it. Where the host makes none: the file itself, if it is no large one; of a picture that is too large for one, the file in any case. */
export function thumbnailAddress(id: string, bytes: number | null): Promise<string> {
  return remembered(`${id}/thumbnail`, async () => {
    if (has('GET /api/v1/media/{id}/thumbnail')) return (await thumbnail(id)) ?? echo.rest.blob('/api/v1/media/{id}/content', { path: { id } });
    if ((bytes ?? 0) > UNASKED_BYTES_MAX) throw new Error('too large to be loaded unasked');
    return echo.rest.blob('/api/v1/media/{id}/content', { path: { id } });
  });
}

/** Null where there is none. While it is being made for others it is asked for again. */
async function thumbnail(id: string): Promise<Blob | null> {
  for (let tries = 1; ; tries++) {
    try {
      return await echo.rest.blob('/api/v1/media/{id}/thumbnail', { path: { id }, query: { size: thumbnailSize } });
    } catch (error) {
      if (error instanceof Problem && error.code === 'no_thumbnail') return null;
      if (!(error instanceof Problem) || error.status !== 503 || tries >= THUMBNAIL_TRIES_MAX) throw error;
      await new Promise((resolve) => setTimeout(resolve, (error.retry_after_ms ?? 1_000) * (1 + Math.random())));
    }
  }
}

export const mediaOf = (id: string): Promise<Media> => echo.rest.get('/api/v1/media/{id}', { path: { id } });

export function saveFile(id: string, name: string): Promise<boolean> {
  return attempt(async () => {
    const link = document.createElement('a');
    link.href = await fileAddress(id);
    link.download = name;
    link.click();
  });
}

export function forgetMedia(): void {
  for (const address of addresses.values()) address.then(URL.revokeObjectURL, () => undefined);
  addresses.clear();
  uploads.value = new Map();
}

/** What goes along with a file's message, so that it is shown in its size before it is loaded. */
export interface FileFacts {
  name: string;
  size: number;
  width?: number;
  height?: number;
  duration_ms?: number;
  voice?: boolean;
}

export function factsOf(metadata: unknown): Partial<FileFacts> {
  return typeof metadata === 'object' && metadata !== null && !Array.isArray(metadata) ? (metadata as Partial<FileFacts>) : {};
}

export const kindOf = (file: Blob): MessageToSend['type'] =>
  /^image\/(jpeg|png|webp)/.test(file.type) ? 'image' : /^video\/(mp4|webm)/.test(file.type) ? 'video' : /^audio\//.test(file.type) ? 'audio' : 'document';

/** Pictures say their size; of anything else there is nothing to say, nor of what cannot be decoded. */
async function measure(file: Blob): Promise<{ width?: number; height?: number }> {
  if (kindOf(file) !== 'image') return {};
  try {
    const { width, height } = await createImageBitmap(file);
    return { width, height };
  } catch {
    return {};
  }
}

export async function sendFile(conversation_id: string, file: Blob, name: string, more: { content?: string; reply_to?: string | null; duration_ms?: number; voice?: boolean } = {}): Promise<void> {
  await attempt(async () => {
    const { content, reply_to, ...about } = more;
    const facts: FileFacts = { name, size: file.size, ...(await measure(file)), ...about };
    const type = about.voice ? 'audio' : kindOf(file);
    const message = { conversation_id, type, metadata: { ...facts }, ...(content ? { content } : {}), ...(reply_to ? { reply_to } : {}) };
    await echo.sendFile(message, { file, name });
  });
}

export function bytesText(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB'];
  let at = 0;
  for (; bytes >= 1000 && at < units.length - 1; at++) bytes /= 1000;
  return `${bytes < 10 && at > 0 ? bytes.toFixed(1) : Math.round(bytes)} ${units[at]}`;
}

export function minutes(milliseconds: number): string {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
}
