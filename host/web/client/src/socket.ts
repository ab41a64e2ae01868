// One WebSocket from its opening to its end: frames in, frames out, answers matched to questions, silence noticed.

import { OPEN_WAIT_MS, REPLY_WAIT_MS } from './limits.js';
import { Problem } from './problem.js';
import type { ClientFrames, ServerFrame } from './types.js';

/** How a socket ended. */
export interface End {
  code: number;
  /** From the `goodbye` frame. */
  retry_after_ms: number | null;
  /** It had been opened and acknowledged. */
  opened: boolean;
}

export class Disconnected extends Error {
  constructor() {
    super('the connection ended before the answer came');
    this.name = 'Disconnected';
  }
}

interface Question {
  resolve(payload: unknown): void;
  reject(error: Error): void;
  timer: ReturnType<typeof setTimeout>;
}

type Ack = Extract<ServerFrame, { type: 'connection_ack' }>['payload'];

export class Socket {
  private readonly web: WebSocket;
  private readonly questions = new Map<string, Question>();
  private readonly received: (frame: ServerFrame) => void;
  private next = 1;
  private heardAt = Date.now();
  private heartbeat: ReturnType<typeof setInterval> | null = null;
  private retry_after_ms: number | null = null;
  private open = false;
  private finish: (end: End) => void = () => {};
  readonly ended: Promise<End>;

  /** `received` gets every frame but answers. */
  constructor(make: typeof WebSocket, url: string, token: string, received: (frame: ServerFrame) => void) {
    this.received = received;
    this.ended = new Promise((resolve) => (this.finish = resolve));
    this.web = new make(url, ['echo.v1', `bearer.${token}`]);
    const opening = setTimeout(() => this.close(), OPEN_WAIT_MS);
    this.web.onmessage = ({ data }) => {
      clearTimeout(opening);
      this.heardAt = Date.now();
      if (typeof data === 'string') this.take(data);
    };
    this.web.onclose = ({ code }) => {
      clearTimeout(opening);
      this.end(code);
    };
    // `close` follows, with the code.
    this.web.onerror = () => undefined;
  }

  get ready(): boolean {
    return this.open;
  }

  /** The answer's payload. Throws `Problem`, or `Disconnected` where the answer never came: it may have been done or not. */
  ask<T extends keyof ClientFrames>(type: T, payload: ClientFrames[T]['payload']): Promise<unknown> {
    const id = String(this.next++);
    return new Promise((resolve, reject) => {
      if (!this.open) return reject(new Disconnected());
      // Whoever does not answer in time is gone: a lost connection is often noticed by nothing else.
      const timer = setTimeout(() => this.close(), REPLY_WAIT_MS);
      this.questions.set(id, { resolve, reject, timer });
      this.web.send(JSON.stringify({ type, id, payload }));
    });
  }

  /** Sent if the socket is open, and not answered. */
  tell<T extends keyof ClientFrames>(type: T, payload: ClientFrames[T]['payload']): void {
    if (this.open) this.web.send(JSON.stringify({ type, payload }));
  }

  /** At once, whatever the other side does. */
  close(): void {
    this.web.close();
    this.end(1006);
  }

  private take(text: string): void {
    let frame: ServerFrame | { type: 'reply'; id: string; payload: unknown };
    try {
      frame = JSON.parse(text);
    } catch {
      return;
    }
    switch (frame.type) {
      case 'connection_ack':
        this.open = true;
        this.watch(frame.payload);
        return this.received(frame);
      case 'reply':
        return this.answer(frame.id, (question) => question.resolve(frame.payload));
      case 'error':
        return this.answer(frame.id, (question) => question.reject(problemOf(frame.payload)));
      case 'goodbye':
        this.retry_after_ms = frame.payload.retry_after_ms;
        return;
      case 'pong':
        return;
      default:
        if (this.open) this.received(frame);
    }
  }

  private answer(id: string | number | undefined, with_: (question: Question) => void): void {
    const question = this.questions.get(String(id));
    if (question === undefined) return;
    this.questions.delete(String(id));
    clearTimeout(question.timer);
    with_(question);
  }

  /** Pings, and takes silence for the end of the connection before the server does. */
  private watch({ heartbeat_interval, idle_timeout }: Ack): void {
    const beat = () => {
      if (Date.now() - this.heardAt > idle_timeout * 1000) return this.close();
      this.tell('ping', {});
    };
    this.heartbeat = setInterval(beat, heartbeat_interval * 1000);
  }

  private end(code: number): void {
    const opened = this.open;
    this.open = false;
    if (this.heartbeat !== null) clearInterval(this.heartbeat);
    this.web.onmessage = this.web.onclose = null;
    for (const question of this.questions.values()) {
      clearTimeout(question.timer);
      question.reject(new Disconnected());
    }
    this.questions.clear();
    this.finish({ code, retry_after_ms: this.retry_after_ms, opened });
  }
}

function problemOf(payload: Problem['document'] & { retry_after_ms?: number }): Problem {
  return new Problem(payload, payload.retry_after_ms ?? null);
}
