// Pauses between attempts, and waiting that can be cut short.

import { PAUSE_FIRST_MS, PAUSE_LONGEST_MS } from './limits.js';

/** Full jitter: at random between nothing and a ceiling that doubles. */
export class Pauses {
  private attempts = 0;
  private readonly first: number;
  private readonly longest: number;
  private readonly random: () => number;

  constructor(first = PAUSE_FIRST_MS, longest = PAUSE_LONGEST_MS, random: () => number = Math.random) {
    this.first = first;
    this.longest = longest;
    this.random = random;
  }

  next(): number {
    const ceiling = Math.min(this.longest, this.first * 2 ** Math.min(this.attempts, 30));
    this.attempts += 1;
    return this.random() * ceiling;
  }

  restart(): void {
    this.attempts = 0;
  }
}

/** Resolves after the time or as soon as `signal` is aborted. */
export function wait(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal?.addEventListener('abort', end);
  });
}

/** A random UUID (version 4); `crypto.randomUUID` is missing on pages without TLS. */
export function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}
