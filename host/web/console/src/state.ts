// Who is signed in, which page is shown, and what the host said last. The services and the queue are asked every `POLL_MS` while the page is visible.

import { computed, signal } from '@preact/signals';
import { ask, Problem, type Connections, type Consumer, type Host, type List, type Scope, type Service } from './api.js';

const KEY = 'echo:operator';
export const POLL_MS = 2_000;
/** Ten minutes. */
const SAMPLES_MAX = 300;
const SCOPES: Scope[] = ['metrics', 'read', 'deploy', 'admin'];

export interface Operator {
  name: string;
  scopes: Scope[];
}

export interface Sample {
  /** Seconds since 1970. */
  at: number;
  generation: number | null;
  calls: number;
  errors: number;
  traps: number;
  /** Milliseconds, the mean of this interval's calls. */
  latency: number | null;
  memory: number;
}

// Of this tab alone, and gone with it.
let token = sessionStorage.getItem(KEY) ?? '';
export const operator = signal<Operator | null | undefined>(token ? undefined : null);
export const services = signal<Service[] | null>(null);
export const consumers = signal<Consumer[] | null>(null);
export const hosts = signal<Host[] | null>(null);
export const connections = signal<Connections | null>(null);
/** By service. */
export const samples = signal<ReadonlyMap<string, Sample[]>>(new Map());
export const lag = signal<{ at: number; lag: number; deadLetters: number }[]>([]);
/** Why the host could not be asked just now. */
export const trouble = signal<string | null>(null);

/** Whether the operator's token reaches so far; a greater scope includes the lesser ones. */
export const can = (scope: Scope) => (operator.value?.scopes ?? []).some((own) => SCOPES.indexOf(own) >= SCOPES.indexOf(scope));

export const page = signal(read());
function read() {
  const [name = '', ...rest] = location.hash.replace(/^#\/?/, '').split('/').map(decodeURIComponent);
  return { name: name || 'services', of: rest[0] ?? '' };
}
addEventListener('hashchange', () => (page.value = read()));

export async function call<T>(method: string, path: string, body?: Blob | object): Promise<T> {
  try {
    return await ask<T>(token, method, path, body);
  } catch (error) {
    if (error instanceof Problem && error.status === 401) signOut();
    throw error;
  }
}

export async function signIn(given: string): Promise<void> {
  const who = await ask<Operator>(given, 'GET', 'tokens/current');
  if (!who.scopes.some((scope) => scope !== 'metrics')) throw new Problem(403, 'scope_missing', 'This token opens the metrics alone; the console wants one with read, deploy or admin.', []);
  token = given;
  sessionStorage.setItem(KEY, given);
  operator.value = who;
  void poll();
}

export function signOut(): void {
  token = '';
  sessionStorage.removeItem(KEY);
  operator.value = null;
  notices.value = [];
  services.value = consumers.value = hosts.value = connections.value = null;
  samples.value = new Map();
  lag.value = [];
}

let last = new Map<string, { at: number; service: Service }>();

/** What came between two answers, per second. A generation's counters begin at 0. */
function sampleOf(at: number, service: Service): Sample | null {
  const before = last.get(service.name);
  last.set(service.name, { at, service });
  if (!before) return null;
  const same = before.service.generation === service.generation;
  const ended = same ? undefined : service.generations.find((one) => one.generation === before.service.generation);
  const seconds = Math.max(0.1, at - before.at);
  const grown = (of: 'calls' | 'errors' | 'traps' | 'busy_us') => {
    const base = before.service.traffic[of];
    return same ? service.traffic[of] - base : service.traffic[of] + Math.max(0, (ended?.traffic[of] ?? base) - base);
  };
  const calls = grown('calls');
  return {
    at,
    generation: service.generation,
    calls: calls / seconds,
    errors: grown('errors') / seconds,
    traps: grown('traps') / seconds,
    latency: calls > 0 ? grown('busy_us') / calls / 1_000 : null,
    memory: service.memory_bytes,
  };
}

let polling = false;
export async function poll(): Promise<void> {
  if (polling || !operator.value) return;
  polling = true;
  try {
    const [ofServices, ofQueue, ofHosts, ofSockets] = await Promise.all([
      call<List<Service>>('GET', 'plugins'),
      call<{ consumers: Consumer[] }>('GET', 'queue').catch((error) => (error instanceof Problem && error.status === 503 ? null : Promise.reject(error))),
      call<List<Host>>('GET', 'nodes').catch((error) => (error instanceof Problem && error.status === 503 ? null : Promise.reject(error))),
      page.value.name === 'hosts' ? call<Connections>('GET', 'connections') : null,
    ]);
    const at = Date.now() / 1_000;
    const next = new Map(samples.value);
    for (const service of ofServices.items) {
      const sample = sampleOf(at, service);
      if (sample) next.set(service.name, [...(next.get(service.name) ?? []), sample].slice(-SAMPLES_MAX));
    }
    services.value = ofServices.items;
    samples.value = next;
    if (ofQueue) {
      consumers.value = ofQueue.consumers;
      const sum = (of: 'lag' | 'dead_letters') => ofQueue.consumers.reduce((sum, one) => sum + one[of], 0);
      lag.value = [...lag.value, { at, lag: sum('lag'), deadLetters: sum('dead_letters') }].slice(-SAMPLES_MAX);
    }
    if (ofHosts) hosts.value = ofHosts.items;
    if (ofSockets) connections.value = ofSockets;
    trouble.value = ofQueue && ofHosts ? null : `The ${ofQueue ? 'list of hosts' : 'queue'} cannot be read now.`;
  } catch (error) {
    trouble.value = (error as Error).message;
  } finally {
    polling = false;
  }
}

export async function start(): Promise<void> {
  setInterval(() => document.visibilityState === 'visible' && void poll(), POLL_MS);
  document.addEventListener('visibilitychange', () => void poll());
  if (token) await signIn(token).catch(() => signOut());
}

/** All services together. */
export const total = computed<Sample[]>(() => {
  const all = [...samples.value.values()];
  const longest = all.reduce<Sample[]>((longest, one) => (one.length > longest.length ? one : longest), []);
  return longest.map(({ at }, from) => {
    const index = longest.length - from;
    const now = all.map((one) => one.at(-index)).filter((one) => one !== undefined);
    const sum = (of: 'calls' | 'errors' | 'traps' | 'memory') => now.reduce((sum, one) => sum + one[of], 0);
    const calls = sum('calls');
    const busy = now.reduce((sum, one) => sum + (one.latency ?? 0) * one.calls, 0);
    return { at, generation: null, calls, errors: sum('errors'), traps: sum('traps'), latency: calls > 0 ? busy / calls : null, memory: sum('memory') };
  });
});

/** What happened, for those who look and those who listen. */
export const notices = signal<{ id: number; kind: 'done' | 'failed'; text: string }[]>([]);
let noticeId = 0;
export function notify(kind: 'done' | 'failed', text: string): void {
  const id = ++noticeId;
  notices.value = [...notices.value, { id, kind, text }];
  if (kind === 'done') setTimeout(() => dismiss(id), 8_000);
}
export const dismiss = (id: number) => (notices.value = notices.value.filter((one) => one.id !== id));

/** Does it, says how it went, and shows the new state. False where it failed. */
export async function attempt(done: string, work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work();
    notify('done', done);
    return true;
  } catch (error) {
    notify('failed', (error as Error).message);
    return false;
  } finally {
    void poll();
  }
}
