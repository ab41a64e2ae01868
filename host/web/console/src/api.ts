// The operator API: its shapes, as far as the console shows them, and how it is asked.

export type Scope = 'metrics' | 'read' | 'deploy' | 'admin';

export interface Traffic {
  calls: number;
  errors: number;
  traps: number;
  running: number;
  busy_us: number;
  p50_us: number;
  p99_us: number;
}

export interface Generation {
  generation: number;
  version: string;
  state: 'live' | 'draining' | 'ended';
  age_ms: number;
  traffic: Traffic;
}

export interface Service {
  name: string;
  state: 'live' | 'failing' | 'off';
  active: string | null;
  sha256: string | null;
  generation: number | null;
  versions: string[];
  bad_versions: string[];
  traffic: Traffic;
  generations: Generation[];
  instances: number;
  memory_bytes: number;
  calls_running: number;
  routes: string[];
  grants: string[];
  breaker: 'open' | 'closed';
}

export interface HistoryItem {
  at: string;
  action: string;
  operator: string | null;
  node: string | null;
  version: string;
  replaced: string | null;
  reason: string | null;
  forced: boolean;
}

export interface Change {
  name: string;
  detail: string;
  confirmed: boolean;
}

export interface Plan {
  replaces: string | null;
  migrations: string[];
  backfills: string[];
  routes: string[];
  imports: string[];
  grants: string[];
  subscriptions: string[];
  changes: Change[];
  unused?: string[];
}

export interface Staged {
  service: string;
  version: string;
  sha256: string;
  plan: Plan;
}

export interface Activation {
  version: string;
  generation: number;
  replaced: string | null;
  loses?: string[];
}

export interface Consumer {
  consumer: string;
  topic: string;
  lag: number;
  dead_letters: number;
}

export interface DeadLetter {
  id: string;
  consumer: string;
  event: { id: string; topic: string; key: string; payload: string | null };
  reason: string;
  tries: number;
  at: string;
}

export interface Host {
  name: string;
  this: boolean;
  state: string;
  version: string;
  advertise: string;
  started_at: string;
  seen_ms_ago: number;
  connections: number;
  services: { name: string; version: string; sha256: string }[];
  leases: string[];
}

export interface Connections {
  nodes: { node: string; count: number }[];
  items: { connection_id: string; user_id: string; device_id: string }[];
}

export interface Token {
  id: string;
  name: string;
  scopes: Scope[];
  created_by: string;
  created_at: string;
  expires_at: string | null;
  used_at: string | null;
}

export interface AuditItem {
  at: string;
  operator: string;
  node: string;
  request: string;
  status: number;
  detail: string;
}

export interface List<T> {
  items: T[];
  /** Where the next page begins; null after the last. */
  next_cursor: string | null;
}

/** RFC 9457, as the host answers it. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    readonly errors: { field: string; detail: string }[],
  ) {
    super(detail);
  }
}

/** For an answer that did not come. */
const NO_ANSWER = 'The host does not answer.';

export async function ask<T>(token: string, method: string, path: string, body?: Blob | object): Promise<T> {
  const headers: Record<string, string> = { authorization: `Bearer ${token}` };
  if (body) headers['content-type'] = body instanceof Blob ? 'application/wasm' : 'application/json';
  const init: RequestInit = { method, headers, cache: 'no-store', credentials: 'omit' };
  if (body) init.body = body instanceof Blob ? body : JSON.stringify(body);
  const answer = await fetch(`/admin/v1/${path}`, init).catch(() => {
    throw new Problem(0, 'no_answer', NO_ANSWER, []);
  });
  const text = await answer.text();
  const document = text.startsWith('{') ? JSON.parse(text) : {};
  if (!answer.ok) {
    const { code = '', detail, title = '', errors = [] } = document;
    throw new Problem(answer.status, code, detail || title || `The host answered ${answer.status}.`, errors);
  }
  return document as T;
}
