// Short notices at the edge of the page, and what an error means to the person who sees it.

import { Problem, Unreachable } from '@echo/client';
import { signal } from '@preact/signals';

export interface Notice {
  id: number;
  text: string;
  kind: 'info' | 'error';
}

export const notices = signal<Notice[]>([]);
let last = 0;

export function notify(text: string, kind: Notice['kind'] = 'info'): void {
  const notice = { id: ++last, text, kind };
  notices.value = [...notices.value.slice(-2), notice];
  setTimeout(() => dismiss(notice.id), kind === 'error' ? 8_000 : 4_000);
}

export function dismiss(id: number): void {
  notices.value = notices.value.filter((notice) => notice.id !== id);
}

const MEANINGS: Record<string, string> = {
  invalid_credentials: 'This number and password do not fit together. Check both, or set a new password.',
  account_locked: 'Too many wrong passwords: signing in to this account is closed for a while.',
  phone_taken: 'This number already has an account. Sign in instead.',
  phone_unverified: 'This number was not confirmed yet. Sign up again to get a code.',
  phone_not_served: 'Numbers of this kind cannot be used here. Use a mobile number.',
  too_soon: 'A code was sent a moment ago. Wait a little before you ask for another.',
  otp_exhausted: 'Too many wrong codes. Ask for a new one.',
  otp_expired: 'That code is too old. Ask for a new one.',
  invalid_totp: 'That code is not right, or it was used already. Wait for the next one.',
  wrong_password: 'That is not the password.',
  quota_exceeded: 'You have no room left for files. Delete some first.',
  dimensions_too_large: 'This picture has too many pixels. Make it smaller first.',
  unreadable_image: 'This picture is damaged and cannot be sent as one.',
  too_many_scheduled: 'You have too many messages that wait to be sent later.',
  conversation_not_found: 'This conversation is not there any more.',
};

/** One or two sentences that say what to do. */
export function meaning(error: unknown): string {
  if (error instanceof Unreachable) return 'The server cannot be reached. Check your connection and try again.';
  if (!(error instanceof Problem)) return 'Something went wrong here. Load the page again; nothing you sent is lost.';
  const known = MEANINGS[error.code];
  const fields = error.document.errors?.map((field) => field.detail).join('; ');
  const after = error.retry_after_ms ? ` Try again in ${duration(error.retry_after_ms)}.` : '';
  if (error.status === 429) return `That was a bit fast.${after || ' Try again in a moment.'}`;
  if (error.status >= 500) return `The server has a problem right now.${after || ' Try again in a moment.'}`;
  return (known ?? sentence(fields || error.message)) + after;
}

function sentence(text: string): string {
  const begin = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begin) ? begin : `${begin}.`;
}

function duration(milliseconds: number): string {
  const seconds = Math.ceil(milliseconds / 1000);
  return seconds < 90 ? `${seconds} seconds` : `${Math.ceil(seconds / 60)} minutes`;
}

/** Runs what a button does, and says so where it fails. True when it was done. */
export async function attempt(work: () => Promise<unknown>, done?: string): Promise<boolean> {
  try {
    await work();
    if (done) notify(done);
    return true;
  } catch (error) {
    notify(meaning(error), 'error');
    return false;
  }
}
