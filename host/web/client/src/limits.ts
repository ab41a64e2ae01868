// Every bound and pace of the library, with its unit last in the name.

/** Events that wait for a reader; beyond it the socket is closed and resumed once the readers have caught up. */
export const EVENTS_WAITING_MAX = 2_000;
/** Acknowledgements within this time leave as one. */
export const ACK_GATHER_MS = 200;
/** How long a frame may stay without its answer before the connection counts as dead. */
export const REPLY_WAIT_MS = 15_000;
/** How long a socket may take to open. */
export const OPEN_WAIT_MS = 15_000;
/** How long a request may take. */
export const REQUEST_WAIT_MS = 30_000;
/** The first pause after a lost connection; it doubles up to the longest, and each is drawn at random below that. */
export const PAUSE_FIRST_MS = 500;
export const PAUSE_LONGEST_MS = 30_000;
/** A connection that lives this long starts the pauses anew. */
export const STABLE_AFTER_MS = 5_000;
/** A token is renewed when this share of its life is over. */
export const RENEW_AFTER_SHARE = 0.8;
/** Messages in the outbox. */
export const OUTBOX_ENTRIES_MAX = 1_000;
/** How long a socket rests that another one of the same device has replaced, where tabs cannot agree on one. */
export const REPLACED_REST_MS = 30_000;
/** Entries of a page of the feed over REST. */
export const SYNC_PAGE_ENTRIES = 100;
/** The first part of a file that is uploaded; a part that took less than the time doubles the next one, up to the largest. */
export const UPLOAD_PART_BYTES_FIRST = 256 * 1024;
export const UPLOAD_PART_BYTES_MAX = 4 * 1024 * 1024;
export const UPLOAD_PART_MS = 1_500;
