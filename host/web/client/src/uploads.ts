// Files, in parts (tus 1.0, the resumable upload protocol): a lost connection costs one part, not the file.

import { UPLOAD_PART_BYTES_FIRST, UPLOAD_PART_BYTES_MAX, UPLOAD_PART_MS } from './limits.js';
import { Problem } from './problem.js';
import type { Rest } from './rest.js';

export interface UploadOptions {
  name: string;
  /** An upload that was begun before and is gone on with. */
  upload_id?: string | null;
  /** The upload has this id from now on: kept, it can be gone on with after a crash. */
  begun?: (upload_id: string) => Promise<void> | void;
  /** So many bytes are there. */
  progress?: (sent: number, total: number) => void;
  signal?: AbortSignal;
}

const TUS = { 'tus-resumable': '1.0.0' };

/** Resolves to the file's id when all of it is there. Throws `Problem`, or `Unreachable`: then the same upload can be gone on with. */
export async function upload(rest: Rest, file: Blob, options: UploadOptions): Promise<string> {
  const { progress = () => {}, signal } = options;
  let id = options.upload_id ?? null;
  let offset = id === null ? null : await offsetOf(rest, id);
  if (id === null || offset === null) {
    id = await begin(rest, file, options.name);
    offset = 0;
    await options.begun?.(id);
  }
  let part = UPLOAD_PART_BYTES_FIRST;
  progress(offset, file.size);
  while (offset < file.size) {
    signal?.throwIfAborted();
    const began = Date.now();
    offset = await append(rest, id, file.slice(offset, offset + part), offset);
    progress(offset, file.size);
    if (Date.now() - began < UPLOAD_PART_MS) part = Math.min(part * 2, UPLOAD_PART_BYTES_MAX);
  }
  return id;
}

async function begin(rest: Rest, file: Blob, name: string): Promise<string> {
  const metadata = [name && `filename ${base64(name)}`, file.type && `filetype ${base64(file.type)}`].filter(Boolean).join(',');
  const headers = { ...TUS, 'upload-length': String(file.size), ...(metadata ? { 'upload-metadata': metadata } : {}) };
  return (await rest.call<{ id: string }>('POST', '/api/v1/media', { headers })).id;
}

/** How many bytes the server has, or null where it does not know the upload any more. */
async function offsetOf(rest: Rest, id: string): Promise<number | null> {
  try {
    const answer = await rest.response('HEAD', '/api/v1/media/{id}', { path: { id }, headers: TUS });
    return Number(answer.headers.get('upload-offset'));
  } catch (error) {
    if (error instanceof Problem && (error.status === 404 || error.status === 410)) return null;
    throw error;
  }
}

async function append(rest: Rest, id: string, bytes: Blob, offset: number): Promise<number> {
  const headers = { ...TUS, 'upload-offset': String(offset), 'content-type': 'application/offset+octet-stream' };
  try {
    const answer = await rest.response('PATCH', '/api/v1/media/{id}', { path: { id }, headers, bytes });
    return Number(answer.headers.get('upload-offset'));
  } catch (error) {
    // An answer got lost, and the server has more than this side knows.
    const moved = error instanceof Problem && error.status === 409 ? await offsetOf(rest, id) : null;
    if (moved === null || moved === offset) throw error;
    return moved;
  }
}

function base64(text: string): string {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}
