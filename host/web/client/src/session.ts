// The tokens of this device: kept, renewed before they end, once over all tabs.

import { RENEW_AFTER_SHARE } from './limits.js';
import { Problem } from './problem.js';
import { problemOf, type Rest } from './rest.js';
import type { Store } from './store.js';
import type { Locks } from './tabs.js';
import type { Tokens } from './types.js';

/** Times are of this device's clock, taken when the answer arrived: the server's clock may differ. */
export interface Credentials {
  access_token: string;
  refresh_token: string;
  user_id: string;
  device_id: string;
  session_id: string;
  renew_at: number;
  expires_at: number;
}

const KEY = 'credentials';

export class SignedOut extends Error {
  constructor() {
    super('nobody is signed in');
    this.name = 'SignedOut';
  }
}

export class SessionTokens {
  private readonly store: Store;
  private readonly locks: Locks;
  private readonly lockName: string;
  private readonly changed: (credentials: Credentials | null, reason: string) => void;
  private cached: Credentials | null = null;
  private rest: Rest | null = null;

  /** `changed` is called with what this tab has found out or done, null where the session has ended. */
  constructor(store: Store, locks: Locks, lockName: string, changed: (credentials: Credentials | null, reason: string) => void) {
    this.store = store;
    this.locks = locks;
    this.lockName = lockName;
    this.changed = changed;
  }

  use(rest: Rest): void {
    this.rest = rest;
  }

  async current(): Promise<Credentials | null> {
    this.cached ??= await this.store.get<Credentials>(KEY);
    return this.cached;
  }

  async begin(tokens: Tokens): Promise<Credentials> {
    // What another account left on this device is not this one's.
    const before = await this.store.get<Credentials>(KEY);
    if (before !== null && before.user_id !== tokens.user_id) await this.store.clear();
    const credentials = await this.keep(tokens);
    this.changed(credentials, 'signed_in');
    return credentials;
  }

  async end(reason: string): Promise<void> {
    if ((await this.current()) === null) return;
    this.cached = null;
    await this.store.clear();
    this.changed(null, reason);
  }

  /** Another tab has signed in, renewed or signed out. */
  forget(): void {
    this.cached = null;
  }

  /** An access token that is good for some time, other than `refused`. Null where nobody is signed in. */
  async token(refused: string | null = null): Promise<string | null> {
    const credentials = await this.current();
    if (credentials === null) return null;
    if (credentials.access_token !== refused && Date.now() < credentials.renew_at) return credentials.access_token;
    const renewed = await this.renew(refused);
    return renewed?.access_token ?? null;
  }

  /** One tab renews; the others, who waited for the lock, find the new tokens in the store. */
  private async renew(refused: string | null): Promise<Credentials | null> {
    const renewed = await this.locks.exclusive(this.lockName, async () => {
      const stored = await this.store.get<Credentials>(KEY);
      if (stored === null) return null;
      if (stored.access_token !== refused && Date.now() < stored.renew_at) return (this.cached = stored);
      try {
        const answer = await this.rest!.once('POST', '/api/v1/auth/refresh', { body: { refresh_token: stored.refresh_token } }, null);
        if (!answer.ok) throw await problemOf(answer);
        const credentials = await this.keep((await answer.json()) as Tokens);
        this.changed(credentials, 'renewed');
        return credentials;
      } catch (error) {
        const ended = error instanceof Problem && (error.status === 401 || error.status === 403);
        // A token that is not over yet is good while the server cannot be asked for another.
        if (!ended && stored.access_token !== refused && Date.now() < stored.expires_at) return stored;
        if (!ended) throw error;
        await this.end(error.code);
        return null;
      }
    });
    return renewed ?? null;
  }

  private async keep(tokens: Tokens): Promise<Credentials> {
    const { access_token, refresh_token, user_id, device_id, session_id, expires_in } = tokens;
    const now = Date.now();
    const life_ms = expires_in * 1000;
    const times = { renew_at: now + life_ms * RENEW_AFTER_SHARE, expires_at: now + life_ms };
    this.cached = { access_token, refresh_token, user_id, device_id, session_id, ...times };
    await this.store.set(KEY, this.cached);
    return this.cached;
  }
}
