// Messages until they are answered: kept before they are sent, sent in order within a conversation, again under the same client id after
// a lost connection. The server answers a second sending with the first one's message. A message with a file waits until the file is uploaded;
// those after it do not.

import { OUTBOX_ENTRIES_MAX } from './limits.js';
import { Pauses, randomId, wait } from './pause.js';
import { Problem, isFinal } from './problem.js';
import type { Store } from './store.js';
import type { Attachment, Message, MessageToSend, OutboxEntry } from './types.js';

export class OutboxFull extends Error {
  constructor() {
    super(`more than ${OUTBOX_ENTRIES_MAX} messages wait to be sent`);
    this.name = 'OutboxFull';
  }
}

export interface OutboxEvents {
  changed(entries: OutboxEntry[]): void;
  sent(client_message_id: string, message: Message): void;
  uploading(client_message_id: string, sent: number, total: number): void;
}

type Sender = (message: MessageToSend) => Promise<Message>;

/** Resolves to the file's id; `begun` keeps the id of the upload. */
export type Uploader = (attachment: Attachment, begun: (upload_id: string) => Promise<void>, progress: (sent: number, total: number) => void, signal: AbortSignal) => Promise<string>;

const uploaded = (entry: OutboxEntry) => entry.attachment === undefined || Boolean(entry.message.media_id);

export class Outbox {
  private readonly store: Store;
  private readonly events: OutboxEvents;
  private readonly uploader: Uploader;
  /** Uploads that go on, one at a time in each conversation. */
  private readonly uploads = new Map<string, { client_message_id: string; control: AbortController }>();
  /** Messages that were taken and are being removed. */
  private readonly confirming = new Map<string, Promise<void>>();
  /** Conversations of which one message is on its way. */
  private readonly busy = new Set<string>();
  private sender: Sender | null = null;
  private lastOrder = 0;

  constructor(store: Store, events: OutboxEvents, uploader: Uploader) {
    this.store = store;
    this.uploader = uploader;
    this.events = events;
  }

  /** Resolves when the message is kept, not when it is sent. */
  async add(message: Omit<MessageToSend, 'client_message_id'> & { client_message_id?: string }, attachment?: Omit<Attachment, 'upload_id'>): Promise<OutboxEntry> {
    const waiting = await this.store.entries();
    if (waiting.length >= OUTBOX_ENTRIES_MAX) throw new OutboxFull();
    const client_message_id = message.client_message_id ?? randomId();
    // Above those of other tabs and of earlier starts, also when the clock was set back.
    this.lastOrder = Math.max(this.lastOrder + 1, (waiting.at(-1)?.order ?? 0) + 1, Date.now());
    const entry: OutboxEntry = {
      client_message_id,
      order: this.lastOrder,
      created_at: new Date().toISOString(),
      message: { ...message, client_message_id },
      ...(attachment ? { attachment: { ...attachment, upload_id: null } } : {}),
    };
    await this.store.put(entry);
    await this.announce();
    void this.flush();
    return entry;
  }

  /** One that was refused for good: sends it again. */
  async retry(client_message_id: string): Promise<void> {
    const entry = (await this.store.entries()).find((entry) => entry.client_message_id === client_message_id);
    if (entry === undefined) return;
    delete entry.problem;
    await this.store.put(entry);
    await this.announce();
    void this.flush();
  }

  async discard(client_message_id: string): Promise<void> {
    await this.store.remove(client_message_id);
    for (const one of this.uploads.values()) if (one.client_message_id === client_message_id) one.control.abort();
    await this.announce();
  }

  /** It was answered, or it has been seen in the feed: it was taken. Both come at about the same time, and `sent` is said once. */
  confirm(client_message_id: string, message: Message): Promise<void> {
    const begun = this.confirming.get(client_message_id);
    if (begun !== undefined) return begun;
    const confirming = this.confirmOnce(client_message_id, message).finally(() => this.confirming.delete(client_message_id));
    this.confirming.set(client_message_id, confirming);
    return confirming;
  }

  private async confirmOnce(client_message_id: string, message: Message): Promise<void> {
    const known = (await this.store.entries()).some((entry) => entry.client_message_id === client_message_id);
    if (!known) return;
    await this.store.remove(client_message_id);
    this.events.sent(client_message_id, message);
    await this.announce();
  }

  /** Messages leave by `sender` from now on; null: they wait. */
  async sendBy(sender: Sender | null): Promise<void> {
    this.sender = sender;
    await this.flush();
  }

  async flush(): Promise<void> {
    if (this.sender === null) return;
    const conversations = new Set((await this.store.entries()).map((entry) => entry.message.conversation_id));
    for (const conversation of conversations) {
      void this.upload(conversation);
      void this.drain(conversation);
    }
  }

  /** The files of a conversation, one after the other. */
  private async upload(conversation: string): Promise<void> {
    if (this.uploads.has(conversation)) return;
    const pauses = new Pauses();
    const find = async () => (await this.store.entries()).find((entry) => entry.message.conversation_id === conversation && !entry.problem && !uploaded(entry));
    this.uploads.set(conversation, { client_message_id: '', control: new AbortController() });
    try {
      for (let entry = await find(); entry !== undefined && this.sender !== null; entry = await find()) {
        const { client_message_id, attachment } = entry;
        const control = new AbortController();
        this.uploads.set(conversation, { client_message_id, control });
        try {
          const media_id = await this.uploader(
            attachment!,
            (upload_id) => this.change(client_message_id, (one) => ({ ...one, attachment: { ...one.attachment!, upload_id } })),
            (sent, total) => this.events.uploading(client_message_id, sent, total),
            control.signal,
          );
          await this.change(client_message_id, (one) => ({ ...one, message: { ...one.message, media_id } }));
          void this.drain(conversation);
        } catch (error) {
          if (control.signal.aborted) continue;
          if (error instanceof Problem && isFinal(error.document)) {
            await this.change(client_message_id, (one) => ({ ...one, problem: error.document }));
            await this.announce();
          } else {
            await wait((error instanceof Problem && error.retry_after_ms) || pauses.next());
          }
        }
      }
    } finally {
      this.uploads.delete(conversation);
    }
    // What was added between the last look and the end of this one.
    if (this.sender !== null && (await find()) !== undefined) void this.upload(conversation);
  }

  /** Nothing where it was discarded meanwhile. */
  private async change(client_message_id: string, to: (entry: OutboxEntry) => OutboxEntry): Promise<void> {
    const entry = (await this.store.entries()).find((entry) => entry.client_message_id === client_message_id);
    if (entry !== undefined) await this.store.put(to(entry));
  }

  private async drain(conversation: string): Promise<void> {
    if (this.busy.has(conversation)) return;
    this.busy.add(conversation);
    const pauses = new Pauses();
    const isNext = (entry: OutboxEntry) => entry.message.conversation_id === conversation && !entry.problem && uploaded(entry);
    try {
      for (let sender = this.sender; sender !== null; sender = this.sender) {
        const entry = (await this.store.entries()).find(isNext);
        if (entry === undefined) return;
        try {
          await this.confirm(entry.client_message_id, await sender(entry.message));
        } catch (error) {
          if (!(error instanceof Problem)) {
            // Cut off: this sender is of no more use, and the next connection brings another.
            if (sender === this.sender) this.sender = null;
          } else if (isFinal(error.document)) {
            await this.store.put({ ...entry, problem: error.document });
            await this.announce();
          } else {
            await wait(error.retry_after_ms ?? pauses.next());
          }
        }
      }
    } finally {
      this.busy.delete(conversation);
    }
    // What was added between the last look and the end of this one.
    const more = this.sender !== null && (await this.store.entries()).some(isNext);
    if (more) void this.drain(conversation);
  }

  private async announce(): Promise<void> {
    this.events.changed(await this.store.entries());
  }
}
