//! Every bound and pace of the library, with its unit last in the name. They are those of `@echo/client`.

/// Events that wait for a reader; beyond it the socket is closed and resumed once the readers have caught up.
pub const EVENTS_WAITING_MAX: usize = 2_000;
/// Acknowledgements within this time leave as one.
pub const ACK_GATHER_MS: u64 = 200;
/// How long a frame may stay without its answer, or unwritten, before the connection counts as dead.
pub const REPLY_WAIT_MS: u64 = 15_000;
/// How long a socket may take to open.
pub const OPEN_WAIT_MS: u64 = 15_000;
/// How long a request may take.
pub const REQUEST_WAIT_MS: u64 = 30_000;
/// How long a TCP connection may take.
pub const CONNECT_WAIT_MS: u64 = 10_000;
/// How long a connection is kept for the next request; a host keeps it for longer.
pub const CONNECTION_KEPT_MS: u64 = 15_000;
/// The first pause after a lost connection; it doubles up to the longest, and each is drawn at random below that.
pub const PAUSE_FIRST_MS: u64 = 500;
pub const PAUSE_LONGEST_MS: u64 = 30_000;
/// A connection that lives this long starts the pauses anew.
pub const STABLE_AFTER_MS: u64 = 5_000;
/// A token is renewed when this part of its life is over.
pub const RENEW_AFTER_PERCENT: u64 = 80;
/// Between two attempts to renew a token that is nearly over.
pub const RENEW_AGAIN_MS: u64 = 1_000;
/// Messages in the outbox.
pub const OUTBOX_ENTRIES_MAX: usize = 1_000;
/// How long a socket rests that another one of the same device has replaced.
pub const REPLACED_REST_MS: u64 = 30_000;
/// Frames that wait for the socket's task.
pub const FRAMES_WAITING_MAX: usize = 64;
/// An answer's body.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Allocated for each socket at once.
pub const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Changes that wait for the thread that writes them down.
pub const CHANGES_WAITING_MAX: usize = 256;
/// The file of changes is written anew when it has more lines than this, and four times as many as it needs.
pub const LINES_KEPT_MIN: usize = 4_096;

const _: () = assert!(PAUSE_FIRST_MS <= PAUSE_LONGEST_MS && RENEW_AFTER_PERCENT < 100);
const _: () = assert!(CONNECTION_KEPT_MS < echo_base::limits::HEADER_READ_TIMEOUT_MS, "the host must not be the first to close");
