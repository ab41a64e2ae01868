// A bad network: a TCP proxy that cuts connections, holds bytes back, loses WebSocket frames of either side and sends them twice. Answers over HTTP get
// lost too. The twin of host/tests/e2e/client/proxy.rs.
import net from 'node:net';

/** Numbers from a seed, so that a run can be repeated (mulberry32). */
export function seeded(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export class Proxy {
  /** Chances per frame, for bytes that belong to none per chunk (`cut_http`), and the longest delay. */
  faults = { cut: 0, cut_http: 0, double: 0, drop: 0, delay_ms: 0 };
  counts = { cuts: 0, http_cuts: 0, doubled: 0, dropped: 0, connections: 0, sockets: 0, renewals: 0 };
  #plugged = true;
  #sockets = new Set();

  static async start(target, random = Math.random) {
    const proxy = new Proxy();
    proxy.target = target;
    proxy.random = random;
    proxy.server = net.createServer((client) => proxy.#join(client));
    await new Promise((resolve) => proxy.server.listen(0, '127.0.0.1', resolve));
    proxy.address = `127.0.0.1:${proxy.server.address().port}`;
    proxy.url = `http://${proxy.address}`;
    return proxy;
  }

  /** Nothing stays open, and what is opened is closed at once. */
  unplug() {
    this.#plugged = false;
    this.cutAll();
  }

  plug() {
    this.#plugged = true;
  }

  cutAll() {
    for (const socket of this.#sockets) socket.destroy();
  }

  async end() {
    this.cutAll();
    await new Promise((resolve) => this.server.close(resolve));
  }

  #join(client) {
    client.on('error', () => client.destroy());
    if (!this.#plugged) return client.destroy();
    const [host, port] = this.target.split(':');
    const server = net.connect(Number(port), host);
    this.counts.connections += 1;
    const both = [client, server];
    const end = () => both.forEach((socket) => socket.destroy());
    for (const socket of both) {
      socket.setNoDelay(true);
      this.#sockets.add(socket);
      socket.on('error', end);
      socket.on('close', () => {
        this.#sockets.delete(socket);
        end();
      });
    }
    client.on('data', (chunk) => this.#note(chunk.toString('latin1')));
    this.#pipe(client, server, end);
    this.#pipe(server, client, end);
  }

  /** A head comes in one piece from the clients that are tested. */
  #note(text) {
    if (text.startsWith('POST /api/v1/auth/refresh ')) this.counts.renewals += 1;
    if (text.startsWith('GET /ws')) this.counts.sockets += 1;
  }

  #pipe(from, to, cut) {
    const splitter = new Splitter();
    let last = Promise.resolve();
    from.on('data', (chunk) => {
      for (const part of splitter.take(chunk)) {
        last = last.then(async () => {
          const { faults, random } = this;
          if (faults.delay_ms > 0 && part.frame) await new Promise((resolve) => setTimeout(resolve, random() * faults.delay_ms));
          if (to.destroyed) return;
          if (part.frame && random() < faults.cut) {
            this.counts.cuts += 1;
            return cut();
          }
          if (!part.frame && random() < (faults.cut_http ?? 0)) {
            this.counts.http_cuts += 1;
            return cut();
          }
          if (part.frame && random() < faults.drop) {
            this.counts.dropped += 1;
            return;
          }
          to.write(part.bytes);
          if (part.frame && random() < faults.double) {
            this.counts.doubled += 1;
            to.write(part.bytes);
          }
        });
      }
    });
    from.on('end', () => (last = last.then(() => to.end())));
  }
}

/** Bytes as they come until a head with `Upgrade: websocket` is over; from there on whole text frames (RFC 6455, section 5.2). */
class Splitter {
  #waiting = Buffer.alloc(0);
  #frames = false;

  *take(chunk) {
    if (!this.#frames) {
      const text = chunk.toString('latin1');
      const end = text.indexOf('\r\n\r\n');
      if (end < 0 || !/upgrade: *websocket/i.test(text.slice(0, end))) return yield { bytes: chunk, frame: false };
      this.#frames = true;
      yield { bytes: chunk.subarray(0, end + 4), frame: false };
      chunk = chunk.subarray(end + 4);
    }
    this.#waiting = Buffer.concat([this.#waiting, chunk]);
    for (let size; (size = this.#whole()) !== null; ) {
      const bytes = this.#waiting.subarray(0, size);
      this.#waiting = this.#waiting.subarray(size);
      yield { bytes, frame: (bytes[0] & 0x0f) === 1 };
    }
  }

  #whole() {
    const waiting = this.#waiting;
    if (waiting.length < 2) return null;
    let size = waiting[1] & 0x7f;
    let head = 2;
    if (size === 126) {
      if (waiting.length < 4) return null;
      size = waiting.readUInt16BE(2);
      head = 4;
    } else if (size === 127) {
      if (waiting.length < 10) return null;
      size = Number(waiting.readBigUInt64BE(2));
      head = 10;
    }
    if (waiting[1] & 0x80) head += 4;
    return waiting.length < head + size ? null : head + size;
  }
}
