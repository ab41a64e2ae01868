// The events of this device: each durable one once and in order, handed to every reader. Pure: no I/O.

import { EVENTS_WAITING_MAX } from './limits.js';
import type { Event, FeedEvent } from './types.js';

function seqOf(event: Event): number | null {
  return 'seq' in event ? event.seq : null;
}

/** One reader's events, as an async iterator. An event counts as handled when the next one is asked for. */
export class Reader implements AsyncIterableIterator<Event> {
  private readonly waiting: Event[] = [];
  private readonly feed: Feed;
  private wake: (() => void) | null = null;
  private given: number | null = null;
  private ended = false;
  /** Durable events that were not handled yet. */
  private durable = 0;
  /** The `seq` of the last durable event that was handled; null while there was none. */
  handled: number | null;

  constructor(feed: Feed, handled: number | null) {
    this.feed = feed;
    this.handled = handled;
  }

  push(event: Event): void {
    this.waiting.push(event);
    if (seqOf(event) !== null) this.durable += 1;
    this.wake?.();
  }

  /** What comes next is what follows `cursor`. */
  start(cursor: number): void {
    if (this.durable === 0) this.handled = cursor;
  }

  get length(): number {
    return this.waiting.length;
  }

  async next(): Promise<IteratorResult<Event>> {
    if (this.given !== null) {
      this.handled = this.given;
      this.given = null;
      this.durable -= 1;
      this.feed.readersMoved();
    }
    while (this.waiting.length === 0 && !this.ended) {
      await new Promise<void>((resolve) => (this.wake = resolve));
      this.wake = null;
    }
    const event = this.waiting.shift();
    if (event === undefined) return { done: true, value: undefined };
    this.given = seqOf(event);
    return { done: false, value: event };
  }

  async return(): Promise<IteratorResult<Event>> {
    this.end();
    this.feed.remove(this);
    return { done: true, value: undefined };
  }

  end(): void {
    this.ended = true;
    this.wake?.();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

export type Accepted = 'new' | 'duplicate' | 'gap';

export class Feed {
  private readonly readers = new Set<Reader>();
  private readonly moved: () => void;
  /** The `seq` of the last event that was taken; null before the first connection. */
  last: number | null = null;

  /** `moved` is called when more may have been handled, or fewer events wait. */
  constructor(moved: () => void) {
    this.moved = moved;
  }

  /** Goes on after `cursor`. */
  start(cursor: number): void {
    this.last = cursor;
    for (const reader of this.readers) reader.start(cursor);
  }

  reader(): Reader {
    const reader = new Reader(this, this.last);
    this.readers.add(reader);
    return reader;
  }

  remove(reader: Reader): void {
    if (this.readers.delete(reader)) this.moved();
  }

  readersMoved(): void {
    this.moved();
  }

  /** `gap`: something before it is missing, and it was not taken. */
  accept(event: FeedEvent): Accepted {
    if (this.last !== null && event.seq <= this.last) return 'duplicate';
    if (this.last !== null && event.seq > this.last + 1) return 'gap';
    this.last = event.seq;
    this.publish(event);
    return 'new';
  }

  publish(event: Event): void {
    for (const reader of this.readers) reader.push(event);
    if (this.readers.size === 0) this.moved();
  }

  /** Up to here every reader has handled everything; without readers, what was taken. */
  handled(): number | null {
    let handled = this.last;
    for (const reader of this.readers) {
      if (reader.handled === null) return null;
      handled = handled === null ? reader.handled : Math.min(handled, reader.handled);
    }
    return handled;
  }

  /** The slowest reader has too much before it. */
  full(): boolean {
    for (const reader of this.readers) if (reader.length >= EVENTS_WAITING_MAX) return true;
    return false;
  }

  end(): void {
    for (const reader of this.readers) reader.end();
    this.readers.clear();
  }
}
