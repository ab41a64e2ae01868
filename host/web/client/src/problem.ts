// Why something was not done (RFC 9457), as an error that can be thrown.

import type { ProblemDocument } from './types.js';

export class Problem extends Error {
  readonly document: ProblemDocument;
  /** Milliseconds after which it may be tried again, where the server said so. */
  readonly retry_after_ms: number | null;

  constructor(document: ProblemDocument, retry_after_ms: number | null = null) {
    super(document.detail || document.title);
    this.name = 'Problem';
    this.document = document;
    this.retry_after_ms = retry_after_ms;
  }

  get code(): string {
    return this.document.code;
  }

  get status(): number {
    return this.document.status;
  }

  /** What is wrong with one field, or null. */
  field(name: string): string | null {
    return this.document.errors?.find((error) => error.field === name)?.detail ?? null;
  }
}

/** The server could not be reached, or did not answer in time. */
export class Unreachable extends Error {
  constructor(cause: unknown) {
    super('the server cannot be reached', { cause });
    this.name = 'Unreachable';
  }
}

/** Refused for good: to send the same again gives the same answer. */
export function isFinal(problem: ProblemDocument): boolean {
  const later = [401, 408, 423, 425, 429];
  return problem.status >= 400 && problem.status < 500 && !later.includes(problem.status);
}

/** From a header that is seconds or a date (RFC 9110, section 10.2.3). */
export function retryAfterMs(header: string | null, now: number): number | null {
  if (header === null) return null;
  const seconds = Number(header);
  if (Number.isFinite(seconds)) return Math.max(0, seconds * 1000);
  const date = Date.parse(header);
  return Number.isNaN(date) ? null : Math.max(0, date - now);
}
