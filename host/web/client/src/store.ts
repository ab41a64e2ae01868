// What must outlive the program: tokens, the cursor, the outbox. In a browser IndexedDB, which all tabs share; elsewhere memory.

import type { OutboxEntry } from './types.js';

export interface Store {
  get<T>(key: string): Promise<T | null>;
  set(key: string, value: unknown): Promise<void>;
  delete(key: string): Promise<void>;
  /** In their order. */
  entries(): Promise<OutboxEntry[]>;
  put(entry: OutboxEntry): Promise<void>;
  remove(client_message_id: string): Promise<void>;
  /** Everything of the account that was signed in. */
  clear(): Promise<void>;
}

export class MemoryStore implements Store {
  private readonly values = new Map<string, unknown>();
  private readonly outbox = new Map<string, OutboxEntry>();

  async get<T>(key: string): Promise<T | null> {
    return (structuredClone(this.values.get(key)) as T | undefined) ?? null;
  }

  async set(key: string, value: unknown): Promise<void> {
    this.values.set(key, structuredClone(value));
  }

  async delete(key: string): Promise<void> {
    this.values.delete(key);
  }

  async entries(): Promise<OutboxEntry[]> {
    return [...this.outbox.values()].sort((a, b) => a.order - b.order).map((entry) => structuredClone(entry));
  }

  async put(entry: OutboxEntry): Promise<void> {
    this.outbox.set(entry.client_message_id, structuredClone(entry));
  }

  async remove(client_message_id: string): Promise<void> {
    this.outbox.delete(client_message_id);
  }

  async clear(): Promise<void> {
    this.values.clear();
    this.outbox.clear();
  }
}

export class IndexedDbStore implements Store {
  private readonly database: Promise<IDBDatabase>;

  constructor(name: string) {
    this.database = new Promise((resolve, reject) => {
      const opening = indexedDB.open(name, 1);
      opening.onupgradeneeded = () => {
        opening.result.createObjectStore('values');
        opening.result.createObjectStore('outbox', { keyPath: 'client_message_id' });
      };
      opening.onsuccess = () => resolve(opening.result);
      opening.onerror = () => reject(opening.error ?? new Error('the database of this browser cannot be opened'));
    });
    // Whoever uses the store sees the error; nobody else must.
    this.database.catch(() => undefined);
  }

  async get<T>(key: string): Promise<T | null> {
    return ((await this.read('values', (store) => store.get(key))) as T | undefined) ?? null;
  }

  set(key: string, value: unknown): Promise<void> {
    return this.write(['values'], (stores) => stores[0]!.put(value, key));
  }

  delete(key: string): Promise<void> {
    return this.write(['values'], (stores) => stores[0]!.delete(key));
  }

  async entries(): Promise<OutboxEntry[]> {
    const entries = (await this.read('outbox', (store) => store.getAll())) as OutboxEntry[];
    return entries.sort((a, b) => a.order - b.order);
  }

  put(entry: OutboxEntry): Promise<void> {
    return this.write(['outbox'], (stores) => stores[0]!.put(entry));
  }

  remove(client_message_id: string): Promise<void> {
    return this.write(['outbox'], (stores) => stores[0]!.delete(client_message_id));
  }

  clear(): Promise<void> {
    return this.write(['values', 'outbox'], (stores) => stores.forEach((store) => store.clear()));
  }

  private async read(name: string, ask: (store: IDBObjectStore) => IDBRequest): Promise<unknown> {
    const database = await this.database;
    return new Promise((resolve, reject) => {
      const request = ask(database.transaction(name).objectStore(name));
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  }

  /** Resolves when the transaction is complete. */
  private async write(names: string[], change: (stores: IDBObjectStore[]) => void): Promise<void> {
    const database = await this.database;
    return new Promise((resolve, reject) => {
      const transaction = database.transaction(names, 'readwrite');
      transaction.oncomplete = () => resolve();
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
      change(names.map((name) => transaction.objectStore(name)));
    });
  }
}
