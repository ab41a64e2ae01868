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

interface Described {
  paths: Record<string, Record<string, { parameters?: { name: string; schema?: { enum?: (string | number)[]; minimum?: number; maximum?: number } }[] }>>;
}

const THUMBNAIL = '/api/v1/media/{id}/thumbnail';
/** Of a picture in a conversation, in pixels; as the host offers it. */
export let thumbnailSize: string | number = 480;

/** The smallest that is large enough, else the largest. */
function sizeOf(described: Described): string | number {
  const schema = described.paths[THUMBNAIL]?.['get']?.parameters?.find((one) => one.name === 'size')?.schema ?? {};
  const offered = schema.enum ?? [];
  const enough = offered.filter((one) => Number(one) >= 480);
  if (offered.length > 0) return enough[0] ?? offered.at(-1)!;
  return Math.max(schema.minimum ?? 0, Math.min(480, schema.maximum ?? 480));
}

export async function loadFeatures(): Promise<void> {
  const document = await echo.rest.call<Described>('GET', '/openapi.json');
  thumbnailSize = sizeOf(document);
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
