// How the tabs of one browser agree: who does something alone (Web Locks), and what they tell each other (BroadcastChannel).

export interface Locks {
  /** Runs `work` while nobody else runs under that name. Given up, without having run, when `signal` is aborted first. */
  exclusive<T>(name: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T | undefined>;
}

export class WebLocks implements Locks {
  async exclusive<T>(name: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T | undefined> {
    let runs = false;
    try {
      const options = signal === undefined ? {} : { signal };
      return (await navigator.locks.request(name, options, () => {
        runs = true;
        return work();
      })) as T;
    } catch (error) {
      if (signal?.aborted && !runs) return undefined;
      throw error;
    }
  }
}

/** For programs without tabs, and for pages without Web Locks (those that did not come by TLS). */
export class ProcessLocks implements Locks {
  private readonly last = new Map<string, Promise<unknown>>();

  async exclusive<T>(name: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T | undefined> {
    const before = this.last.get(name) ?? Promise.resolve();
    let release = () => {};
    const held = new Promise<void>((resolve) => (release = resolve));
    const after = before.then(() => held);
    this.last.set(name, after);
    const aborted = new Promise<void>((resolve) => {
      if (signal?.aborted) resolve();
      signal?.addEventListener('abort', () => resolve());
    });
    await Promise.race([before, aborted]);
    try {
      return signal?.aborted ? undefined : await work();
    } finally {
      release();
      if (this.last.get(name) === after) this.last.delete(name);
    }
  }
}

const processLocks = new ProcessLocks();

export function defaultLocks(): Locks {
  const known = typeof navigator === 'undefined' ? undefined : (navigator as { locks?: unknown }).locks;
  return known === undefined ? processLocks : new WebLocks();
}
