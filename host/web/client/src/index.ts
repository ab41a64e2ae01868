// `@echo/client`: Echo for programs in browsers and in Node. See README.md.

export { EchoClient, type Options } from './client.js';
export { Reader } from './feed.js';
export { OutboxFull } from './outbox.js';
export { Pauses, randomId } from './pause.js';
export { Problem, Unreachable } from './problem.js';
export { IndexedDbStore, MemoryStore, type Store } from './store.js';
export { ProcessLocks, WebLocks, type Locks } from './tabs.js';
export { upload, type UploadOptions } from './uploads.js';
export type * from './types.js';
