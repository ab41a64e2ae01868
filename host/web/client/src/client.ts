// The client: joins tokens, socket, feed and outbox, and the tabs of one browser. One tab holds the socket and passes on what it gets.

import { Feed, Reader } from './feed.js';
import { ACK_GATHER_MS, REPLACED_REST_MS, STABLE_AFTER_MS, SYNC_PAGE_ENTRIES } from './limits.js';
import { Outbox } from './outbox.js';
import { Pauses, randomId, wait } from './pause.js';
import { Problem } from './problem.js';
import { Rest } from './rest.js';
import { Credentials, SessionTokens } from './session.js';
import { Socket } from './socket.js';
import { IndexedDbStore, MemoryStore, Store } from './store.js';
import { upload } from './uploads.js';
import { Locks, defaultLocks } from './tabs.js';
import type { Connection, Device, Event, FeedEvent, Message, MessageToSend, OutboxEntry, PassingEvent, Registration, ServerFrame, Tokens } from './types.js';

export interface Options {
  /** Of the host; in a browser the page's own origin. */
  url?: string;
  /** What tabs share and what is stored carries this name; one per account that is signed in at the same time. */
  profile?: string;
  store?: Store;
  locks?: Locks;
  webSocket?: typeof WebSocket;
  fetch?: typeof fetch;
  pauses?: Pauses;
}

/** What tabs tell each other. */
type Note =
  | { kind: 'event'; event: FeedEvent | PassingEvent }
  | { kind: 'connection'; connection: Connection; retry_at: number | null }
  | { kind: 'credentials'; user_id: string | null; device_id: string; reason: string }
  | { kind: 'outbox' }
  | { kind: 'sent'; client_message_id: string; message: Message }
  | { kind: 'upload'; client_message_id: string; sent: number; total: number }
  | { kind: 'hello' }
  | { kind: 'wake' };

type NewMessage = Omit<MessageToSend, 'client_message_id'> & { client_message_id?: string };

const CURSOR = 'cursor';

export class EchoClient {
  readonly rest: Rest;
  readonly url: string;
  private readonly store: Store;
  private readonly locks: Locks;
  private readonly profile: string;
  private readonly make: typeof WebSocket;
  private readonly tokens: SessionTokens;
  private readonly outbox: Outbox;
  private readonly feed: Feed;
  private readonly pauses: Pauses;
  private readonly channel: BroadcastChannel | null;
  private readonly closed = new AbortController();

  private socket: Socket | null = null;
  private running = false;
  private wanted = false;
  private connectionNow: Connection = 'offline';
  private retryAt: number | null = null;
  private pause = new AbortController();
  private acked: number | null = null;
  private saved: number | null = null;
  private ackTimer: ReturnType<typeof setTimeout> | null = null;
  private renewTimer: ReturnType<typeof setTimeout> | null = null;
  private refused: string | null = null;
  private gapAfter: number | null = null;
  private filling = false;

  constructor(options: Options = {}) {
    this.url = (options.url ?? globalThis.location?.origin ?? 'http://127.0.0.1:8080').replace(/\/$/, '');
    this.profile = options.profile ?? 'echo';
    this.store = options.store ?? (typeof indexedDB === 'undefined' ? new MemoryStore() : new IndexedDbStore(this.profile));
    this.locks = options.locks ?? defaultLocks();
    this.make = options.webSocket ?? globalThis.WebSocket;
    this.pauses = options.pauses ?? new Pauses();
    this.channel = typeof window === 'undefined' ? null : new BroadcastChannel(`${this.profile}:tabs`);
    if (this.channel !== null) this.channel.onmessage = ({ data }) => this.noted(data as Note);
    this.tokens = new SessionTokens(this.store, this.locks, `${this.profile}:tokens`, (credentials, reason) => this.credentialsChanged(credentials, reason));
    this.rest = new Rest(this.url, (refused) => this.tokens.token(refused), options.fetch ?? ((input, init) => fetch(input, init)));
    this.tokens.use(this.rest);
    this.feed = new Feed(() => this.moved());
    this.outbox = new Outbox(this.store, {
      changed: (entries) => {
        this.feed.publish({ type: 'outbox', entries });
        this.tell({ kind: 'outbox' });
      },
      sent: (client_message_id, message) => {
        this.feed.publish({ type: 'sent', client_message_id, message });
        this.tell({ kind: 'sent', client_message_id, message });
      },
      uploading: (client_message_id, sent, total) => {
        this.feed.publish({ type: 'upload', client_message_id, sent, total });
        this.tell({ kind: 'upload', client_message_id, sent, total });
      },
    }, ({ file, name, upload_id }, begun, progress, signal) => upload(this.rest, file, { name, upload_id, begun, progress, signal }));
    if (typeof window !== 'undefined') {
      window.addEventListener('online', this.wake);
      window.addEventListener('offline', this.lost);
      document.addEventListener('visibilitychange', this.seen);
    }
  }

  // Who is signed in

  /** The first step; `verify` with the code that was sent is the second. */
  register(input: { phone: string; password: string; name?: string }): Promise<Registration> {
    return this.rest.post('/api/v1/auth/register', { body: input });
  }

  async verify(input: { registration_id: string; phone: string; otp: string; device?: Omit<Device, 'id'> }): Promise<Tokens> {
    return this.begin(await this.rest.post('/api/v1/auth/verify-otp', { body: { ...input, device: await this.device(input.device) } }));
  }

  async signIn(input: { phone: string; password: string; totp?: string; device?: Omit<Device, 'id'> }): Promise<Tokens> {
    return this.begin(await this.rest.post('/api/v1/auth/login', { body: { ...input, device: await this.device(input.device) } }));
  }

  /** Forgets the account on this device, also where the server cannot be asked to end the session. */
  async signOut(): Promise<void> {
    try {
      await this.rest.post('/api/v1/auth/logout', {});
    } catch {
      // The session ends with its tokens.
    }
    await this.tokens.end('signed_out');
  }

  /** Null where nobody is signed in. */
  async account(): Promise<{ user_id: string; device_id: string; session_id: string } | null> {
    const credentials = await this.tokens.current();
    if (credentials === null) return null;
    const { user_id, device_id, session_id } = credentials;
    return { user_id, device_id, session_id };
  }

  /** For requests that this library has no words for, such as links to media. */
  accessToken(): Promise<string | null> {
    return this.tokens.token();
  }

  // What happens

  /**
   * Everything from now on: durable events once and in order, passing ones, and what the library itself has to say. A durable event is
   * acknowledged when every reader has asked for the one after it; without readers at once. After a crash of the program those of the last
   * 200 ms may come again, under the same `seq`. Ends when the client is closed.
   */
  events(): Reader {
    return this.feed.reader();
  }

  get connection(): { connection: Connection; retry_at: number | null } {
    return { connection: this.connectionNow, retry_at: this.retryAt };
  }

  /** Keeps a socket open from now on, whenever somebody is signed in. */
  connect(): void {
    this.wanted = true;
    this.tell({ kind: 'hello' });
    void this.lead();
  }

  /** Tries to connect at once, where a pause is being kept. */
  readonly wake = (): void => {
    this.pause.abort();
    this.tell({ kind: 'wake' });
  };

  close(): void {
    this.wanted = false;
    this.closed.abort();
    this.socket?.close();
    this.pause.abort();
    if (this.ackTimer !== null) clearTimeout(this.ackTimer);
    if (this.renewTimer !== null) clearTimeout(this.renewTimer);
    this.channel?.close();
    this.feed.end();
    if (typeof window !== 'undefined') {
      window.removeEventListener('online', this.wake);
      window.removeEventListener('offline', this.lost);
      document.removeEventListener('visibilitychange', this.seen);
    }
  }

  // What is sent

  /** Resolves when the message is kept in the outbox; `sent` follows, or an entry with a `problem`. */
  send(message: NewMessage): Promise<OutboxEntry> {
    return this.outbox.add(message);
  }

  /** The same with a file, which is kept with it and uploaded first; `upload` events say how far it is. */
  sendFile(message: Omit<NewMessage, 'media_id'>, attachment: { file: Blob; name: string }): Promise<OutboxEntry> {
    return this.outbox.add(message, attachment);
  }

  waiting(): Promise<OutboxEntry[]> {
    return this.store.entries();
  }

  retry(client_message_id: string): Promise<void> {
    return this.outbox.retry(client_message_id);
  }

  discard(client_message_id: string): Promise<void> {
    return this.outbox.discard(client_message_id);
  }

  /** Lost where there is no connection. */
  typing(conversation_id: string, is_typing: boolean): void {
    if (this.socket?.ready) return this.socket.tell('typing', { conversation_id, is_typing });
    if (this.connectionNow !== 'online') return;
    this.rest.post('/api/v1/messages/typing', { body: { conversation_id, is_typing } }).catch(() => undefined);
  }

  read(conversation_id: string, up_to_seq: number): Promise<{ conversation_id: string; read_seq: number; unread_count: number }> {
    return this.rest.post('/api/v1/messages/read', { body: { conversation_id, up_to_seq } });
  }

  // The one socket

  /** The tab that has the lock has the socket; the others wait for it in case that tab goes. */
  private async lead(): Promise<void> {
    if (this.running || this.closed.signal.aborted) return;
    this.running = true;
    try {
      await this.locks.exclusive(`${this.profile}:socket`, () => this.hold(), this.closed.signal);
    } finally {
      this.running = false;
    }
  }

  private async hold(): Promise<void> {
    while (this.wanted && !this.closed.signal.aborted) {
      this.now('connecting', null);
      const pause_ms = await this.once();
      if (pause_ms === null || this.closed.signal.aborted) break;
      this.now('offline', Date.now() + pause_ms);
      this.pause = new AbortController();
      await wait(pause_ms, this.pause.signal);
      while (this.feed.full() && !this.closed.signal.aborted) await wait(ACK_GATHER_MS);
    }
    this.now('offline', null);
  }

  /** One connection. How long to rest before the next, or null where nobody is signed in. */
  private async once(): Promise<number | null> {
    let token: string | null;
    try {
      token = await this.tokens.token(this.refused);
      this.feed.last ?? this.resume(await this.store.get<number>(CURSOR));
    } catch {
      return this.pauses.next();
    }
    if (token === null) return null;
    this.refused = null;
    const since = this.feed.last === null ? '' : `?since=${this.feed.last}`;
    const began = Date.now();
    this.acked = null;
    const socket = new Socket(this.make, `${this.url.replace(/^http/, 'ws')}/ws${since}`, token, (frame) => this.received(socket, frame));
    this.socket = socket;
    const end = await socket.ended;
    this.socket = null;
    await this.outbox.sendBy(null);
    if (this.closed.signal.aborted) return null;
    if (end.opened && Date.now() - began > STABLE_AFTER_MS) this.pauses.restart();
    // A refusal at the opening has no code in a browser: a request finds out whether it was the token.
    if (!end.opened) await this.rest.get('/api/v1/auth/sessions', {}).catch(() => undefined);
    if (end.code === 4401) this.refused = token;
    if (end.code === 4409) return REPLACED_REST_MS;
    return end.retry_after_ms ?? this.pauses.next();
  }

  private resume(cursor: number | null): void {
    if (cursor === null) return;
    this.feed.start(cursor);
    this.saved = cursor;
  }

  private received(socket: Socket, frame: ServerFrame): void {
    if (socket !== this.socket) return;
    if ('seq' in frame) return this.durable(socket, frame);
    switch (frame.type) {
      case 'connection_ack':
        if (this.feed.last === null) this.feed.start(frame.payload.cursor);
        this.now('online', null);
        void this.outbox.sendBy(async (message) => (await socket.ask('message', message)) as Message);
        void this.renewInTime();
        return this.moved();
      case 'resync_required':
        this.feed.start(frame.payload.cursor);
        this.pass(frame);
        return this.moved();
      case 'caught_up':
        this.pass(frame);
        return this.moved();
      case 'error':
      case 'goodbye':
      case 'pong':
        return;
      default:
        return this.pass(frame);
    }
  }

  private durable(socket: Socket, event: FeedEvent): void {
    const before = this.feed.last;
    let accepted = this.feed.accept(event);
    if (accepted === 'gap' && this.gapAfter !== before) {
      // Something got lost on the way: read again from before it.
      this.gapAfter = before;
      return socket.close();
    }
    if (accepted === 'gap') {
      // The server has nothing in between: what is shown may lack something.
      this.feed.start(event.seq - 1);
      this.pass({ type: 'resync_required', payload: { cursor: event.seq - 1 } });
      accepted = this.feed.accept(event);
    }
    if (accepted !== 'new') return;
    this.tell({ kind: 'event', event });
    this.taken(event);
    if (this.feed.full()) socket.close();
  }

  private taken(event: FeedEvent): void {
    if (event.type !== 'message') return;
    void this.tokens.current().then((credentials) => {
      if (event.payload.sender_id === credentials?.user_id) void this.outbox.confirm(event.payload.client_message_id, event.payload);
    });
  }

  /** To the readers of this tab and of the others. */
  private pass(event: PassingEvent): void {
    this.feed.publish(event);
    this.tell({ kind: 'event', event });
  }

  private now(connection: Connection, retry_at: number | null): void {
    this.connectionNow = connection;
    this.retryAt = retry_at;
    this.feed.publish({ type: 'connection', connection, retry_at });
    this.tell({ kind: 'connection', connection, retry_at });
  }

  // Acknowledgements

  /** Those of `ACK_GATHER_MS` leave as one. */
  private moved(): void {
    if (this.socket === null || this.ackTimer !== null) return;
    this.ackTimer = setTimeout(() => {
      this.ackTimer = null;
      void this.acknowledge();
    }, ACK_GATHER_MS);
  }

  private async acknowledge(): Promise<void> {
    const handled = this.feed.handled();
    if (handled === null || this.socket === null) return;
    if (this.saved === null || handled !== this.saved) {
      await this.store.set(CURSOR, handled);
      this.saved = handled;
    }
    if (this.acked === null || handled > this.acked) {
      this.acked = handled;
      this.socket?.tell('ack', { seq: handled });
    }
  }

  // Tokens

  private async renewInTime(): Promise<void> {
    const credentials = await this.tokens.current();
    if (credentials === null || this.closed.signal.aborted) return;
    if (this.renewTimer !== null) clearTimeout(this.renewTimer);
    const pause_ms = Math.max(1_000, credentials.renew_at - Date.now());
    this.renewTimer = setTimeout(() => {
      const again = () => (this.socket === null ? undefined : this.renewInTime());
      this.tokens.token().then(again, again);
    }, Math.min(pause_ms, 2 ** 31 - 1));
  }

  private credentialsChanged(credentials: Credentials | null, reason: string): void {
    const { user_id, device_id } = credentials ?? { user_id: null, device_id: '' };
    this.tell({ kind: 'credentials', user_id, device_id, reason });
    if (credentials !== null && reason === 'renewed') return this.renewed(credentials.access_token);
    this.accountChanged(user_id, device_id, reason);
  }

  /** The open socket goes on with the new token. */
  private renewed(access_token: string): void {
    this.socket?.tell('auth', { access_token });
    void this.renewInTime();
  }

  private accountChanged(user_id: string | null, device_id: string, reason: string): void {
    this.feed.last = null;
    this.saved = null;
    this.socket?.close();
    if (user_id === null) {
      this.feed.publish({ type: 'signed_out', reason });
      return;
    }
    this.feed.publish({ type: 'signed_in', user_id, device_id });
    if (this.wanted) void this.lead();
  }

  private async begin(tokens: Tokens): Promise<Tokens> {
    await this.tokens.begin(tokens);
    return tokens;
  }

  /** The device's id stays when people sign out and in again. */
  private async device(about: Omit<Device, 'id'> = {}): Promise<Device> {
    const known = typeof localStorage === 'undefined' ? null : localStorage.getItem(`${this.profile}:device`);
    const id = known ?? (await this.store.get<string>('device')) ?? randomId();
    if (typeof localStorage === 'undefined') await this.store.set('device', id);
    else localStorage.setItem(`${this.profile}:device`, id);
    return { id, ...about };
  }

  // The other tabs

  private tell(note: Note): void {
    if (!this.closed.signal.aborted) this.channel?.postMessage(note);
  }

  private noted(note: Note): void {
    switch (note.kind) {
      case 'event':
        return 'seq' in note.event ? this.overheard(note.event) : this.feed.publish(note.event);
      case 'connection':
        this.connectionNow = note.connection;
        this.retryAt = note.retry_at;
        return this.feed.publish({ type: 'connection', connection: note.connection, retry_at: note.retry_at });
      case 'credentials':
        this.tokens.forget();
        if (note.reason !== 'renewed') return this.accountChanged(note.user_id, note.device_id, note.reason);
        void this.tokens.current().then((credentials) => credentials && this.renewed(credentials.access_token));
        return;
      case 'outbox':
        void this.store.entries().then((entries) => this.feed.publish({ type: 'outbox', entries }));
        void this.outbox.flush();
        return;
      case 'sent':
        return this.feed.publish({ type: 'sent', client_message_id: note.client_message_id, message: note.message });
      case 'upload':
        return this.feed.publish({ type: 'upload', client_message_id: note.client_message_id, sent: note.sent, total: note.total });
      case 'hello':
        if (this.socket !== null) this.tell({ kind: 'connection', connection: this.connectionNow, retry_at: this.retryAt });
        return;
      case 'wake':
        return this.pause.abort();
    }
  }

  /** An event that the tab with the socket has passed on. What was missed is read over REST. */
  private overheard(event: FeedEvent): void {
    if (this.filling) return;
    if (this.feed.accept(event) === 'gap') void this.fill();
  }

  private async fill(): Promise<void> {
    this.filling = true;
    try {
      for (let more = true; more; ) {
        const input = { query: { since: this.feed.last ?? 0, limit: SYNC_PAGE_ENTRIES } };
        const page = await this.rest.call<{ items: FeedEvent[] }>('GET', '/api/v1/sync', input);
        for (const event of page.items) this.feed.accept(event);
        more = page.items.length > 0;
      }
    } catch (error) {
      const cursor = error instanceof Problem ? (error.document as { cursor?: number }).cursor : undefined;
      if (cursor !== undefined) {
        this.feed.start(cursor);
        this.feed.publish({ type: 'resync_required', payload: { cursor } });
      }
    } finally {
      this.filling = false;
    }
  }

  /** The browser says that there is no network: the socket may seem open for minutes. */
  private readonly lost = (): void => {
    this.socket?.close();
  };

  private readonly seen = (): void => {
    if (document.visibilityState === 'visible') this.pause.abort();
  };
}

export type { Event };
