// Numbers and times as people read them.

const number = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const time = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'medium' });

export const count = (value: number) => whole.format(value);
export const rate = (value: number) => (value > 0 && value < 0.1 ? '< 0.1' : number.format(value));
export const at = (text: string | null) => (text ? time.format(new Date(text)) : '–');

export function bytes(value: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB'];
  const power = value > 0 ? Math.min(units.length - 1, Math.floor(Math.log2(value) / 10)) : 0;
  return `${number.format(value / 1024 ** power)} ${units[power]}`;
}

/** Microseconds. */
export function duration(us: number): string {
  if (us === 0) return '–';
  if (us < 1_000) return `${whole.format(us)} µs`;
  if (us < 1_000_000) return `${number.format(us / 1_000)} ms`;
  return `${number.format(us / 1_000_000)} s`;
}

/** Milliseconds. */
export function age(ms: number): string {
  const seconds = Math.floor(ms / 1_000);
  for (const [unit, size] of [['d', 86_400], ['h', 3_600], ['min', 60]] as const) {
    if (seconds >= size) return `${whole.format(Math.floor(seconds / size))} ${unit}`;
  }
  return `${seconds} s`;
}
