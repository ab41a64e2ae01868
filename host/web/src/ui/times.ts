// Times as people read them, in the language of the browser.

const time = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: 'short' });
const date = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' });
const dateOfYear = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', year: 'numeric' });
const long = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' });

const dayOf = (at: Date) => new Date(at.getFullYear(), at.getMonth(), at.getDate()).getTime();
const DAY_MS = 86_400_000;

export const clock = (iso: string): string => time.format(new Date(iso));

/** For the list of conversations. */
export function short(iso: string): string {
  const at = new Date(iso);
  const days = Math.round((dayOf(new Date()) - dayOf(at)) / DAY_MS);
  if (days <= 0) return time.format(at);
  if (days < 7) return weekday.format(at);
  return at.getFullYear() === new Date().getFullYear() ? date.format(at) : dateOfYear.format(at);
}

/** For the lines between days. */
export function day(iso: string): string {
  const at = new Date(iso);
  const days = Math.round((dayOf(new Date()) - dayOf(at)) / DAY_MS);
  if (days <= 0) return 'Today';
  if (days === 1) return 'Yesterday';
  return at.getFullYear() === new Date().getFullYear() ? long.format(at) : dateOfYear.format(at);
}

export const sameDay = (a: string, b: string): boolean => dayOf(new Date(a)) === dayOf(new Date(b));

export function ago(iso: string): string {
  const minutes = Math.floor((Date.now() - Date.parse(iso)) / 60_000);
  if (minutes < 1) return 'just now';
  if (minutes < 60) return `${minutes} min ago`;
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h ago`;
  return short(iso);
}

const dayAndTime = new Intl.DateTimeFormat(undefined, { weekday: 'short', day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' });

/** A day and a time that may lie ahead. */
export const moment = (iso: string): string => dayAndTime.format(new Date(iso));
