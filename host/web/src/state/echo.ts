// The one client of this page, and what it says of itself.

import { EchoClient, type Connection, type OutboxEntry } from '@echo/client';
import { signal } from '@preact/signals';

export const echo = new EchoClient();

export interface Account {
  user_id: string;
  device_id: string;
  session_id: string;
}

/** Undefined until it was read, null where nobody is signed in. */
export const account = signal<Account | null | undefined>(undefined);
export const connection = signal<Connection>('connecting');
/** Nothing was connected for so long that it should be said. */
export const disconnected = signal(false);
export const outbox = signal<OutboxEntry[]>([]);

export const me = (): string => account.peek()?.user_id ?? '';

/** Which routes the host has: a client must work with a host that lacks some of its services. */
export const features = signal<ReadonlySet<string>>(new Set());

export async function loadFeatures(): Promise<void> {
  const document = await echo.rest.call<{ paths: Record<string, Record<string, unknown>> }>('GET', '/openapi.json');
  const known = new Set<string>();
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const method of Object.keys(methods)) known.add(`${method.toUpperCase()} ${path}`);
  }
  features.value = known;
}

export const has = (route: string): boolean => features.value.has(route);

/** What a device is called in the list of devices. */
export function thisDevice(): { name: string; platform: string } {
  const agent = navigator.userAgent;
  const browser = /Firefox/.test(agent) ? 'Firefox' : /Edg\//.test(agent) ? 'Edge' : /Chrom/.test(agent) ? 'Chrome' : /Safari/.test(agent) ? 'Safari' : 'Browser';
  const system = /Android/.test(agent) ? 'Android' : /iPhone|iPad/.test(agent) ? 'iOS' : /Mac/.test(agent) ? 'macOS' : /Windows/.test(agent) ? 'Windows' : /Linux/.test(agent) ? 'Linux' : '';
  return { name: system ? `${browser} on ${system}` : browser, platform: 'web' };
}
