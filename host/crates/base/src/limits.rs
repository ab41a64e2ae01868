//! Every bound of the host, with its unit last in the name. What an operator may change has its default here and its key in `config.rs`.
//! Rule: nothing that a client or a guest can make grow is without a line on this page.

/// One mebibyte in bytes.
pub const MIB_BYTES: u64 = 1024 * 1024;

// --- HTTP edge -------------------------------------------------------------------------------------------------------------------
/// Largest request body in bytes (413 above).
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of requests in memory at one time, as bodies and as frames of sockets that wait to be handled or are: of all clients (503 above), of one IPv4
/// address or /64 of IPv6, and of one user (429 above).
pub const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
pub const BODIES_ADDRESS_BYTES_MAX: usize = 32 * 1024 * 1024;
pub const BODIES_USER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A body up to so many bytes, and a socket's frames up to as many together, count with those of all clients only.
pub const BODY_BYTES_SMALL: usize = 4 * 1024;
/// Longest `X-Request-ID`, `X-Correlation-ID` or `Idempotency-Key` taken from a client, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// Longest `User-Agent` that services see, in bytes.
pub const USER_AGENT_BYTES_MAX: usize = 256;
/// Whole request, from the first byte to the answer, in milliseconds (504 above); every service's `wall` is at most this.
pub const REQUEST_TIMEOUT_MS: u64 = 30_000;
/// How long after SIGTERM requests in flight may still run, in milliseconds.
pub const DRAIN_TIMEOUT_MS: u64 = 10_000;
/// A client's `User-Agent` or `traceparent` is handed on to services up to so many bytes.
pub const CLIENT_TEXT_BYTES_MAX: usize = 256;
/// A request's head, and an idle connection until its next request, in milliseconds; then it is closed.
pub const HEADER_READ_TIMEOUT_MS: u64 = 30_000;
/// How long, in milliseconds, and how much is still read of a client that has its last answer and goes on sending.
pub const LINGER_MS: u64 = 2_000;
pub const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest request head, and the most that one connection buffers of a body, in bytes.
pub const HTTP_BUFFER_BYTES_MAX: usize = 16 * 1024;
/// How long a client may take no byte of its answer, in milliseconds; then the connection is closed.
pub const WRITE_STALL_MS: u64 = 10_000;
/// How long an answer that looks like one of the HTTP library's own waits for the library to say so, in milliseconds.
pub const BARE_ANSWER_KEPT_MS: u64 = 10;
/// HTTP/2: requests of one connection at once; bytes of unread bodies of one of them, and of all; bytes of one answer that wait below the gateway,
/// and the pieces in which they get there.
pub const HTTP2_STREAMS_MAX: u32 = 100;
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 64 * 1024;
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
pub const HTTP2_SEND_BYTES_MAX: usize = 64 * 1024;
pub const HTTP2_PIECE_BYTES: usize = 16 * 1024;
/// A head beyond so many bytes is refused by the HTTP library, one beyond `HTTP_BUFFER_BYTES_MAX` with a problem.
pub const HTTP2_HEAD_BYTES_MAX: u32 = 64 * 1024;
/// Resets of requests that nobody has looked at yet, errors of the client's that are answered with a reset, and requests given up by their client within
/// `WRITE_STALL_MS`; one more ends the connection.
pub const HTTP2_PENDING_RESETS_MAX: usize = 20;
pub const HTTP2_ERRORS_MAX: usize = 100;
pub const HTTP2_RESETS_MAX: u32 = 200;
/// A connection without a request is ended after so many milliseconds; a client is asked so often whether it is there, and has so long to say so.
pub const HTTP2_IDLE_MS: u64 = 60_000;
pub const HTTP2_PING_INTERVAL_MS: u64 = 30_000;
pub const HTTP2_PING_TIMEOUT_MS: u64 = 10_000;
/// A TLS handshake, and how often it is looked whether the certificate's files have changed, in milliseconds.
pub const TLS_HANDSHAKE_TIMEOUT_MS: u64 = 10_000;
pub const TLS_LOOK_INTERVAL_MS: u64 = 1_000;
/// Answers below this many bytes are not compressed.
pub const COMPRESSION_BYTES_MIN: u64 = 1024;
/// How long a browser may remember a CORS preflight, in seconds.
pub const PREFLIGHT_MAX_AGE_S: u64 = 600;
/// One check of `/ready`, in milliseconds; what takes longer is down.
pub const READY_CHECK_TIMEOUT_MS: u64 = 2_000;
/// `/ready` asks again at most this often, in milliseconds, however often it is asked.
pub const READY_REUSE_MS: u64 = 250;
/// Open HTTP connections, sockets included; of all clients and of one IPv4 address or /64 of IPv6; and of the operator.
pub const CONNECTIONS_MAX: usize = 50_000;
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 2_000;
pub const ADMIN_CONNECTIONS_MAX: usize = 256;
/// Connections over the limits that are answered at one time (others are just closed), for how long at the most, and the `Retry-After`, in milliseconds.
pub const REFUSALS_MAX: usize = 64;
pub const REFUSAL_MS: u64 = 1_000;
pub const REFUSAL_RETRY_MS: u64 = 5_000;
/// File descriptors kept for what is no client's connection: files, the operator, refusals.
pub const DESCRIPTORS_RESERVED: u64 = 1_024;
/// Rate-limit counters kept; the oldest are dropped first.
pub const RATE_KEYS_MAX: usize = 200_000;
/// How long a request waits for the store of rates that hosts share, and how long none asks it again after it did not answer, in milliseconds.
pub const RATE_ANSWER_MS: u64 = 250;
pub const RATES_AWAY_MS: u64 = 1_000;
/// Answers kept for `Idempotency-Key`, their life in seconds and the largest one in bytes.
pub const IDEMPOTENCY_TTL_S: u64 = 24 * 60 * 60;
pub const IDEMPOTENCY_ANSWER_BYTES_MAX: usize = 256 * 1024;
/// How much longer than the request's own time-out its `Idempotency-Key` counts as in use, in milliseconds.
pub const IDEMPOTENCY_LOCK_MARGIN_MS: u64 = 5_000;
/// Bytes of all answers in the response cache.
pub const RESPONSE_CACHE_BYTES_MAX: u64 = 32 * MIB_BYTES;
/// Requests that the response cache remembers as seen once, by a bit each, in a table with one byte per request.
pub const RESPONSE_DOORKEEPER_KEYS: usize = 16 * 1024;
/// Circuit breaker: this share of failures among at least this many calls in the window opens it for the pause.
pub const BREAKER_FAILURE_SHARE: f64 = 0.5;
pub const BREAKER_CALLS_MIN: u32 = 20;
pub const BREAKER_WINDOW_MS: u64 = 10_000;
pub const BREAKER_PAUSE_MS: u64 = 5_000;
/// ... and only if so many different callers met the failures: one hostile user cannot open it.
pub const BREAKER_CALLERS_MIN: usize = 3;

// --- Services' outgoing requests ---------------------------------------------------------------------------------------------------
/// Requests of one call of a service at once, and of all services (others wait).
pub const HTTP_REQUESTS_AT_ONCE_MAX: usize = 64;
pub const HTTP_OUTGOING_MAX: usize = 256;
/// A request's address and headers, and its body and its answer's, in bytes.
pub const HTTP_URL_BYTES_MAX: usize = 4 * 1024;
pub const HTTP_HEADERS_MAX: usize = 32;
pub const HTTP_HEADERS_BYTES_MAX: usize = 8 * 1024;
pub const HTTP_BODY_BYTES_MAX: usize = 256 * 1024;
/// The status line and the headers of an answer, in bytes.
pub const HTTP_ANSWER_HEAD_BYTES_MAX: usize = 64 * 1024;
/// One exchange, from the connection to the last byte, in milliseconds.
pub const HTTP_TIMEOUT_MS: u64 = 10_000;
/// Connections that are kept without a request: for how many milliseconds, and how many to one host.
pub const HTTP_IDLE_MS: u64 = 60_000;
pub const HTTP_IDLE_PER_HOST_MAX: usize = 32;
/// Credentials: how long a token for Web Push and one for APNs are used, in seconds.
pub const VAPID_TOKEN_S: u64 = 12 * 60 * 60;
pub const APNS_TOKEN_S: u64 = 50 * 60;
/// An access token of an OAuth 2.0 server is used so long at most, and renewed so long before its end, in seconds; after a failure none is asked for for so
/// many milliseconds.
pub const HTTP_TOKEN_KEPT_S: u64 = 60 * 60;
pub const HTTP_TOKEN_MARGIN_S: u64 = 60;
pub const HTTP_TOKEN_RETRY_MS: u64 = 5_000;

/// Items of one page of a list of the operator API.
pub const PAGE_DEFAULT: usize = 50;
pub const PAGE_MAX: usize = 1_000;

// --- JSON and values ---------------------------------------------------------------------------------------------------------------
/// Deepest nesting of a JSON document.
pub const JSON_DEPTH_MAX: usize = 32;
/// Deepest nesting of a WIT type, and fields of one record or cases of one enum.
pub const TYPE_DEPTH_MAX: usize = 32;
pub const TYPE_FIELDS_MAX: usize = 256;
/// Longest pattern of a contract, and what it may become compiled.
pub const PATTERN_BYTES_MAX: usize = 1024;
pub const PATTERN_COMPILED_BYTES_MAX: usize = 256 * 1024;
/// Longest cursor in characters.
pub const CURSOR_BYTES_MAX: usize = 512;
/// ... as a service makes it; a client sees so many more before it, the host's MAC.
pub const CURSOR_SEAL_CHARS: usize = 22;
/// Wrong fields named in one answer; more are cut.
pub const FIELD_ERRORS_MAX: usize = 64;
/// Items of one list in a request or a reply.
pub const LIST_ITEMS_MAX: usize = 10_000;
/// Largest encoded reply of a service in bytes.
pub const REPLY_BYTES_MAX: usize = 4 * 1024 * 1024;

// --- Guests ------------------------------------------------------------------------------------------------------------------------
/// Epoch tick in milliseconds: the grain of CPU metering, and how long a guest keeps a thread before others may run on it.
pub const EPOCH_TICK_MS: u64 = 1;
/// ... and the tick while no call has been long for a while: each wakes a processor.
pub const EPOCH_TICK_QUIET_MS: u64 = 2;
pub const LONG_CALLS_SEEN_MS: u64 = 1_000;
/// Largest plugin file in bytes.
pub const PLUGIN_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Longest chain of calls from service to service.
pub const CALL_DEPTH_MAX: usize = 8;
/// Largest memory a manifest may ask for, in bytes.
pub const GUEST_MEMORY_BYTES_MAX: u64 = 256 * MIB_BYTES;
/// Live instances over all services (the pooling allocator's slots).
pub const INSTANCES_MAX: u32 = 1_000;
/// What one component may be made of: core modules' instances (in Rust 3, in JavaScript 4, in Python 14), tables and their
/// elements.
pub const CORE_INSTANCES_PER_COMPONENT: u32 = 16;
pub const TABLES_PER_COMPONENT: u32 = 8;
pub const TABLE_ELEMENTS_MAX: usize = 20_000;
/// Memory that stays with a slot when its instance is gone, in bytes, instead of being given back to the system.
pub const INSTANCE_RESIDENT_BYTES: usize = 256 * 1024;
/// What a guest may hand to the host in one call of a host function, in bytes as the host stores it.
pub const GUEST_TRANSFER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A call that has used so much CPU in milliseconds is a long one, and goes on beside the threads that serve: one that a client asked for, and one
/// that the host itself makes, for many events at once and in tables for which others wait. Counted are stretches after one that went beyond a
/// tick, or after so many.
pub const LONG_CALL_MS: u64 = 2;
pub const LONG_HANDLING_MS: u64 = 20;
pub const LONG_CALL_POLLS: u32 = 8;
/// It runs on a thread with this niceness (0 is everybody's, 19 the most), and with slices of so many milliseconds: whoever has shorter ones and wakes
/// goes first.
pub const LONG_CALL_NICENESS: i32 = 10;
pub const LONG_CALL_SLICE_MS: u64 = 100;
/// Handles that an instance may hold of what the host keeps for it (transactions, WASI's streams and timers).
pub const GUEST_RESOURCES_MAX: usize = 1_000;
/// Stack of a guest in bytes, and of the fibre it runs on.
pub const GUEST_STACK_BYTES: usize = 512 * 1024;
pub const FIBRE_STACK_BYTES: usize = 1024 * 1024;
/// A pooled instance is retired after a random number of calls in this range.
pub const INSTANCE_CALLS: std::ops::Range<u32> = 5_000..20_000;
/// ... or when its memory grew beyond this many times what it had after its first call.
pub const INSTANCE_GROWTH_FACTOR: usize = 4;
/// ... or after this long without a call, in milliseconds.
pub const INSTANCE_IDLE_MS: u64 = 60_000;
/// How long a call waits for one of the service's slots, in milliseconds (503 above).
pub const SLOT_WAIT_MS: u64 = 1_000;
/// How long a swap waits for the old generation's calls, in milliseconds; then it is left to end by its own deadlines.
pub const SWAP_DRAIN_MS: u64 = 30_000;
/// Compiling one version, in milliseconds; it runs on beside, and its deployment is refused.
pub const COMPILE_TIMEOUT_MS: u64 = 60_000;
/// How long a deployment waits for another one of the same service, in milliseconds.
pub const SWAP_GATE_WAIT_MS: u64 = 60_000;
/// How long a rollback waits for its subscriptions to follow, in milliseconds; then they follow by themselves.
pub const ROLLBACK_FOLLOW_MS: u64 = 1_000;
/// A version that was deployed is watched for so long, in milliseconds, and looked at this often: after so many calls, more than half of them
/// without an answer, it is taken back.
pub const PROBATION_MS: u64 = 5 * 60 * 1_000;
pub const PROBATION_TICK_MS: u64 = 100;
pub const PROBATION_CALLS_MIN: u64 = 10;
/// Versions kept per service: the live one, the one that a rollback leads to, and others. The operator may keep more or fewer, between these.
pub const VERSIONS_KEPT: usize = 10;
pub const VERSIONS_KEPT_MIN: usize = 3;
pub const VERSIONS_KEPT_MAX: usize = 100;
/// Activations remembered per service.
pub const HISTORY_ENTRIES_MAX: usize = 200;
/// How often it is looked which scheduled functions are due, in milliseconds.
pub const SCHEDULE_TICK_MS: u64 = 100;
/// How much longer than its pause the lease of a scheduled function lasts, and how often a host that does not have it asks for it, in milliseconds. So long
/// after a host that calls a function has died another calls it.
pub const SCHEDULE_LEASE_MS: u64 = 5_000;
pub const SCHEDULE_LEASE_ASK_MS: u64 = 2_000;
/// Log lines of one call.
pub const LOG_LINES_PER_CALL_MAX: u32 = 100;
/// Lines of one instance's standard output and error in a second; more are dropped and counted.
pub const GUEST_STDOUT_LINES_PER_S_MAX: u32 = 100;
pub const LOG_MESSAGE_BYTES_MAX: usize = 4 * 1024;
pub const LOG_FIELDS_MAX: usize = 16;
pub const LOG_FIELD_NAME_BYTES_MAX: usize = 64;
pub const LOG_FIELD_VALUE_BYTES_MAX: usize = 1024;

/// Bytes of the host's log waiting to be written; lines beyond are dropped and counted, so that a slow reader of the log slows no request.
pub const LOG_QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What is kept of the buffers once they are written: of the whole log's, and of each thread's for one line.
pub const LOG_BUFFER_BYTES_KEPT: usize = 256 * 1024;
pub const LOG_LINE_BYTES_KEPT: usize = 1024;
/// How long the end of the process waits for the last of them, in milliseconds.
pub const LOG_FLUSH_TIMEOUT_MS: u64 = 2_000;
/// How long lines gather before they are written together, in milliseconds.
pub const LOG_GATHER_MS: u64 = 5;
/// How often the metrics' histograms are folded, in milliseconds.
pub const METRICS_UPKEEP_INTERVAL_MS: u64 = 5_000;

/// Development mode: changed files waiting to be looked at, and how long none may follow before they are, in milliseconds.
pub const WATCH_CHANGES_MAX: usize = 1_024;
pub const WATCH_SETTLE_MS: u64 = 150;

// --- SQL, outbox, queue, feed ------------------------------------------------------------------------------------------------------
pub const SQL_STATEMENT_BYTES_MAX: usize = 64 * 1024;
pub const SQL_PARAMS_MAX: usize = 2_000;
pub const SQL_ROWS_MAX: usize = 10_000;
pub const SQL_RESULT_BYTES_MAX: usize = 8 * 1024 * 1024;
pub const SQL_BATCH_MAX: usize = 1_000;
/// Waiting for the writer or for one statement, in milliseconds.
pub const SQL_TIMEOUT_MS: u64 = 5_000;
/// The text of one migration, in bytes.
pub const SQL_MIGRATION_BYTES_MAX: usize = 256 * 1024;
/// All migrations of a deployment together, in milliseconds, while the service is live: its writers wait meanwhile. The operator may give more.
pub const SQL_MIGRATION_LIVE_TIMEOUT_MS: u64 = 3_000;
/// ... and at the start of the host, when nobody waits; also the longest roll-back.
pub const SQL_MIGRATION_TIMEOUT_MS: u64 = 60_000;
/// Rows of one batch of a back-fill: the first, the most, and how long one is to take, in milliseconds; the next one is made larger or smaller for that.
/// What takes the longest is ended, and tried again with fewer rows.
pub const SQL_BACKFILL_ROWS_FIRST: usize = 100;
pub const SQL_BACKFILL_ROWS_MAX: usize = 1_000;
pub const SQL_BACKFILL_BATCH_MS: u64 = 10;
pub const SQL_BACKFILL_TIMEOUT_MS: u64 = 1_000;
/// Between two batches all rest so many times as long as they took, and at least so many milliseconds: a back-fill has a quarter of the writer.
pub const SQL_BACKFILL_REST: u32 = 3;
pub const SQL_BACKFILL_REST_MS: u64 = 5;
/// Pause before a back-fill that failed is tried again, in milliseconds (doubling).
pub const SQL_BACKFILL_RETRY_FIRST_MS: u64 = 1_000;
pub const SQL_BACKFILL_RETRY_LAST_MS: u64 = 60_000;
/// So long after a host that filled in has died another goes on, in milliseconds.
pub const SQL_BACKFILL_LEASE_MS: u64 = 10_000;
const _: () = assert!(SQL_BACKFILL_LEASE_MS > 2 * SQL_BACKFILL_TIMEOUT_MS * SQL_BACKFILL_REST as u64);
/// One text or blob of a service, and one row of it as it is stored, in bytes; also what a statement makes on its way. Inside one of its
/// functions SQLite cannot be interrupted: how long one may take follows from this.
pub const SQL_VALUE_BYTES_MAX: usize = 256 * 1024;
/// A value in one of the host's own tables (an effect with its payload and its users).
pub const SQLITE_HOST_VALUE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The pattern of a LIKE, and the set of characters that `trim` takes away, in bytes.
pub const SQL_LIKE_PATTERN_BYTES_MAX: usize = 1_000;
pub const SQL_TRIM_SET_BYTES_MAX: usize = 64;
/// Nesting of an expression, and parts of one UNION.
pub const SQL_EXPRESSION_DEPTH_MAX: usize = 200;
pub const SQL_UNION_PARTS_MAX: usize = 100;
/// A function of the host's own asks for the time after so many of its steps.
pub const SQL_FUNCTION_STEPS_PER_CHECK: usize = 64 * 1024;
/// The columns of one row.
pub const SQL_COLUMNS_MAX: usize = 64;
/// The database of one service on the disk, in bytes; what would make it larger fails (`sql.service_bytes_max`).
pub const SQL_SERVICE_BYTES_MAX: u64 = 16 * 1024 * MIB_BYTES;
/// ... at the least, so that its outbox has room; and the size of a page.
pub const SQL_SERVICE_BYTES_MIN: u64 = 4 * MIB_BYTES;
pub const SQLITE_PAGE_BYTES: u64 = 4_096;
/// Readers per SQLite file.
pub const SQLITE_READERS: u32 = 2;
/// Group commit: the transactions of a file's writer are committed together as soon as none waits for the writer, or so many microseconds after the
/// first of them began, or when there are so many.
pub const SQLITE_GROUP_US: u64 = 2_000;
pub const SQLITE_GROUP_TRANSACTIONS_MAX: usize = 64;
/// Where the last commit of a file took longer than this, in microseconds, the next happens on a blocking thread, so that serving threads do not wait for
/// a slow disk.
pub const SQLITE_FLUSH_IN_PLACE_US: u64 = 1_000;
/// Memory of all SQLite connections together, in bytes; an allocation above it fails and its statement with it.
pub const SQLITE_HEAP_BYTES_MAX: u64 = 512 * MIB_BYTES;
/// The WAL is checkpointed this often while it is written to, in milliseconds; above the maximum of pages (of 4 KiB) the next commit does it, however
/// long that takes.
pub const SQLITE_LOG_TICK_MS: u64 = 500;
pub const SQLITE_LOG_PAGES_MAX: i64 = 32_768;
/// Above so many pages the WAL should restart: after so many checkpoints that did not reach that, the writer is paused for one, if it is free within so
/// many milliseconds.
pub const SQLITE_LOG_PAGES: i64 = 4_096;
pub const SQLITE_LOG_PASSES_MAX: u32 = 8;
/// Bytes of the write-ahead log that stay on the disk when it restarts.
pub const SQLITE_LOG_KEPT_BYTES: i64 = SQLITE_LOG_PAGES * 4_096;
pub const SQLITE_LOG_REST_WAIT_MS: u64 = 50;
/// A WAL that was written to is truncated at the latest so many milliseconds later, unless a reader always holds it: it has what was deleted.
pub const SQLITE_LOG_KEPT_MS: u64 = 20_000;
/// Pages (of 4 KiB) that the connection of a file that writes keeps in memory.
pub const SQLITE_WRITER_PAGES: i64 = 2_048;
/// Prepared statements kept per connection, and the longest text that is kept, in bytes.
pub const SQLITE_STATEMENTS_KEPT: usize = 200;
pub const SQLITE_STATEMENT_KEPT_BYTES_MAX: usize = 8 * 1024;
/// A caller that writes many rows yields after so many.
pub const SQLITE_ROWS_AT_ONCE: usize = 64;
/// After so many microseconds in one statement, other threads take over the tasks of its thread.
pub const SQLITE_TASKS_GIVEN_AFTER_US: u64 = 10_000;
/// A service's statement whose last runs were quick runs on the caller's thread. After so many microseconds there, if it has also called the progress
/// handler so often (else it may only have waited for a processor), it is interrupted and runs again on a worker thread; after the second time always.
pub const SQLITE_IN_PLACE_US: u64 = 5_000;
pub const SQLITE_IN_PLACE_CHECKS: u64 = 10;
pub const SQLITE_IN_PLACE_US_MAX: u64 = 50_000;
/// The worker threads of a service's database, one per connection: their niceness (a lower priority than that of long calls), and how long an idle one
/// stays, in milliseconds.
pub const SQLITE_THREAD_NICENESS: i32 = 15;
pub const SQLITE_THREAD_IDLE_MS: u64 = 10_000;
/// How much longer than a statement's time-out its caller waits for the thread that runs it, in milliseconds; then it is answered without it.
pub const SQLITE_ANSWER_MARGIN_MS: u64 = 250;
/// How long a statement waits for another thread to take over its thread's tasks, in milliseconds.
pub const SQLITE_TASKS_GIVEN_WAIT_MS: u64 = 100;
/// A service's statement that took no longer than this, in calls of the progress handler and in microseconds, counts as quick and runs in place; one that
/// took longer runs on a worker thread for so many times.
pub const SQLITE_QUICK_CHECKS: u64 = 5;
pub const SQLITE_QUICK_US: u64 = 20_000;
pub const SQLITE_SLOW_RUNS: u32 = 1_000;
/// SQLite calls the progress handler, which may interrupt the statement, every so many steps of its virtual machine.
pub const SQLITE_STEPS_PER_CHECK: i32 = 1_000;
/// Of a host to PostgreSQL; `sql.max_open` and the settings beside it.
pub const POSTGRES_OPEN_MAX: usize = 25;
pub const POSTGRES_OPEN_MIN: usize = 2;
/// Of all services together, each with a role and connections of its own. Fewer than are open at most means that they are closed and made again under load, and
/// a new connection costs the server more than a message does.
pub const POSTGRES_IDLE_MAX: usize = POSTGRES_OPEN_MAX;
pub const POSTGRES_LIFETIME_S: u64 = 5 * 60;
pub const POSTGRES_IDLE_TIME_S: u64 = 10 * 60;
/// How often those that are idle or open for too long are looked for.
pub const POSTGRES_TIDY_MS: u64 = 30_000;
/// Of the connections to PostgreSQL one in so many is the host's own, at least one: for the relay, feeds and migrations.
pub const POSTGRES_HOST_SHARE: usize = 4;
/// Beyond the time that a statement has, in which the server ends it by itself.
pub const POSTGRES_ANSWER_MARGIN_MS: u64 = 1_000;
/// Beyond the same time: how long the server keeps a transaction in which its host asks for nothing.
pub const POSTGRES_IDLE_IN_TRANSACTION_MS: u64 = 10_000;
/// How often the server looks, while a statement runs, whether its host is still there.
pub const POSTGRES_PEER_CHECK_MS: u64 = 1_000;
/// Statements that stay prepared on a connection, and that stay checked for a service.
pub const POSTGRES_STATEMENTS_KEPT: usize = 200;
pub const POSTGRES_STATEMENT_KEPT_BYTES_MAX: usize = 8 * 1024;
/// A deployment, from its migrations to their being final or undone: one that takes longer is taken for dead.
pub const POSTGRES_DEPLOYMENT_S: u64 = 120;
pub const POSTGRES_DEPLOYMENT_POLL_MS: u64 = 50;
/// How often a statement outside a transaction is run that collides with others.
pub const POSTGRES_STATEMENT_TRIES_MAX: u32 = 10;
/// A transaction that has collided so often runs alone, of all transactions of its service on all hosts.
pub const POSTGRES_COLLISIONS_BESIDE_OTHERS: u32 = 2;
/// Parts of all outboxes, each relayed by one host at a time.
pub const RELAY_SHARDS: u16 = 16;
/// How long a host that does not answer keeps others from relaying what it relayed.
pub const RELAY_LEASE_MS: u64 = 5_000;
/// After how long a host that relays makes its lease last from then on.
pub const RELAY_RENEW_MS: u64 = 1_500;
const _: () = assert!(RELAY_RENEW_MS + 2 * RELAY_TICK_MS < RELAY_LEASE_MS);
/// How often a host says that it is there; after how long a silence nobody waits for it; how long one that ended without a word is shown.
pub const NODE_BEAT_MS: u64 = 1_000;
pub const NODE_AWAY_MS: u64 = 5_000;
pub const NODE_KEPT_S: u64 = 60 * 60;
/// How often a host looks for what other hosts have deployed; between two tries to make live what does not start here, the first and the longest pause.
pub const VERSIONS_POLL_MS: u64 = 250;
pub const VERSIONS_RETRY_FIRST_MS: u64 = 1_000;
pub const VERSIONS_RETRY_LAST_MS: u64 = 60_000;
/// A packed file in PostgreSQL is in pieces of so many bytes.
pub const VERSION_PIECE_BYTES: usize = 128 * 1024;
/// A rollout that is not renewed for so long is over, in seconds; how often the host that deploys looks for answers and ends; how long it waits for the others to
/// say whether they can run a version, and then to run it.
pub const ROLLOUT_S: u64 = 180;
pub const ROLLOUT_POLL_MS: u64 = 50;
pub const ROLLOUT_ANSWER_MS: u64 = COMPILE_TIMEOUT_MS + 15_000;
pub const ROLLOUT_SWITCH_MS: u64 = 10_000;
/// Effects of a transaction kept in memory before they are written, in bytes.
pub const OUTBOX_BUFFER_BYTES_MAX: usize = 512 * 1024;
/// The newest effects that are also in memory, and the bytes of their payloads, per outbox; what is beyond is read from the file.
pub const OUTBOX_NEWEST_MAX: usize = 4_096;
pub const OUTBOX_NEWEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// While more than so many wait to leave, a transaction begins when some have left, or after so many milliseconds.
pub const OUTBOX_ROOM: i64 = 1_024;
pub const OUTBOX_ROOM_WAIT_MS: u64 = 20;
/// After a batch of so many effects the next one of the outbox begins this much later than it, in milliseconds; after a smaller one at once.
pub const RELAY_GATHER_EFFECTS: usize = 8;
pub const RELAY_GATHER_MS: u64 = 2;
/// Events of one outbox leave at least this far from each other, in milliseconds.
pub const RELAY_EVENTS_GATHER_MS: u64 = 10;
/// Events that wait in memory while the queue takes none; what is beyond stays in the outbox. Pushes leave meanwhile.
pub const RELAY_EVENTS_WAITING_MAX: usize = 1_024;
/// How long the queue may take for the events of one outbox that are handed to it, in milliseconds; then they count as not taken. Pushes leave meanwhile.
pub const RELAY_PUBLISH_TIMEOUT_MS: u64 = 5_000;
/// Effects that have left are taken out of the outbox when there are so many of them, or at the next tick.
pub const RELAY_CLEAR_EFFECTS: usize = 1_024;
/// A backup begins at a moment at which no database is in the middle of a transaction: it is waited for so long, in milliseconds, with as long a
/// pause, and so many times. Then each database is copied, within so many seconds.
pub const BACKUP_HOLD_MS: u64 = 250;
pub const BACKUP_TRIES_MAX: u32 = 40;
pub const BACKUP_FILE_S_MAX: u64 = 24 * 3_600;
/// Bytes of effects that the relay takes at once, and users into whose feeds they go (one effect may be larger): nobody else writes a feed meanwhile.
pub const RELAY_BYTES_MAX: usize = 4 * 1024 * 1024;
pub const RELAY_USERS_MAX: usize = 1_024;
/// The relay looks at the outbox at least this often, in milliseconds, and waits this long after a failure (doubling).
pub const RELAY_TICK_MS: u64 = 1_000;
pub const RELAY_RETRY_FIRST_MS: u64 = 20;
pub const RELAY_RETRY_LAST_MS: u64 = 5_000;
/// Events and pushes of one call, and their bytes.
pub const EFFECTS_PER_CALL_MAX: usize = 1_000;
pub const EFFECT_BYTES_PER_CALL_MAX: usize = 16 * 1024 * 1024;
/// Of them, of their users and of their bytes so many are free for a call (a message to the largest group is), and this many times as many while it
/// handles an event, which may say of `ACK_RECEIPTS_MAX` messages that they arrived. What is beyond takes turns, ...
pub const EFFECTS_FREE: usize = 64;
pub const EFFECT_USERS_FREE: usize = 1_024;
pub const EFFECT_BYTES_FREE: usize = 256 * 1024;
pub const EFFECTS_FREE_HANDLING: usize = 8;
/// ... one each, one for so many users, one for so many bytes, at this rate per second for all calls of a service together.
pub const EFFECT_TURN_USERS: usize = 4;
pub const EFFECT_TURN_BYTES: usize = 4 * 1024;
pub const EFFECTS_PACED_PER_SECOND: u64 = 3_000;
/// A call waits for its turn when that is so many milliseconds away; none is ever further away than so many.
pub const EFFECTS_PACE_STEP_MS: u64 = 5;
pub const EFFECTS_BEHIND_MS: u64 = 5_000;
/// Payload of one event in bytes.
pub const EVENT_BYTES_MAX: usize = 256 * 1024;
/// Events of one partition that one call may handle together, and their payloads in bytes.
pub const EVENTS_GATHERED_MAX: usize = 64;
pub const EVENT_GATHERED_BYTES_MAX: usize = 32 * 1024;
/// Rows the relay moves at once.
pub const RELAY_BATCH: usize = 256;
/// After a batch of so many effects, or of as many bytes as there may be, the relay rests this many times as long as the batch took: whoever makes effects
/// without end has no more than that share of a processor for them.
pub const RELAY_LARGE_BATCH: usize = 64;
pub const RELAY_REST: u32 = 3;
/// Partitions of a topic: events of the same key are handled in order, of different ones side by side.
pub const QUEUE_PARTITIONS: u32 = 8;
/// Events of one partition of one consumer that are in memory, and their bytes; what is beyond waits in the file.
pub const QUEUE_PARTITION_EVENTS_MAX: usize = 256;
pub const QUEUE_PARTITION_BYTES_MAX: usize = 1024 * 1024;
/// What has been handled is written down together, at most this long after the first, in milliseconds, ...
pub const QUEUE_ACK_FLUSH_MS: u64 = 20;
/// ... and handling pauses while so many events are not written down (the disk is full or gone).
pub const QUEUE_ACKS_WAITING_MAX: usize = 10_000;
/// Events of one publisher that wait for their subscribers (`queue.waiting_max`), one for each subscriber, and their bytes; beyond, the queue takes none
/// of its events until some are handled. While it takes none, the service's transactions with events are refused, to be tried again after so many
/// milliseconds; also while the queue is away and its outbox has gone so many effects beyond the first event that waits in it.
pub const QUEUE_WAITING_MAX: u64 = 200_000;
pub const QUEUE_WAITING_BYTES_MAX: u64 = 1024 * MIB_BYTES;
pub const OUTBOX_EVENTS_RETRY_MS: u64 = 5_000;
pub const OUTBOX_BEHIND_MAX: i64 = 200_000;
/// A consumer looks for events at least this often, in milliseconds, though nobody called it.
pub const QUEUE_TICK_MS: u64 = 5_000;
/// The longest pause before a retry that a subscriber may ask for, in milliseconds.
pub const EVENT_RETRY_ASKED_MAX_MS: u64 = 24 * 60 * 60 * 1_000;
/// Why an event failed, as kept with a dead letter, in bytes.
pub const EVENT_REASON_BYTES_MAX: usize = 1_024;
/// Pause before a service subscribes again whose subscription failed, in milliseconds (doubling).
pub const SUBSCRIBE_RETRY_FIRST_MS: u64 = 200;
pub const SUBSCRIBE_RETRY_LAST_MS: u64 = 30_000;
/// Tries of an event before it goes to the dead letters, and the pauses between, in milliseconds (doubling).
pub const EVENT_TRIES_MAX: u32 = 10;
pub const EVENT_RETRY_FIRST_MS: u64 = 50;
pub const EVENT_RETRY_LAST_MS: u64 = 30_000;
/// JetStream: a connection, an answer, and a ping on a connection without traffic, in milliseconds; beyond it is away.
pub const JETSTREAM_CONNECT_MS: u64 = 2_000;
pub const JETSTREAM_ANSWER_MS: u64 = 4_000;
pub const JETSTREAM_PING_MS: u64 = 10_000;
/// The pause before it connects again, in milliseconds (doubling), and before a partition that failed begins again.
pub const JETSTREAM_RECONNECT_FIRST_MS: u64 = 20;
pub const JETSTREAM_RECONNECT_LAST_MS: u64 = 2_000;
pub const JETSTREAM_AGAIN_MS: u64 = 200;
/// The pause before a partition looks again for what another host says it has published, in milliseconds: a replica may be behind.
pub const JETSTREAM_REPLICA_MS: u64 = 50;
/// How far a partition has come is written down at most this long after it went on, in milliseconds.
pub const JETSTREAM_FLUSH_MS: u64 = 50;
/// How often a host looks whether JetStream still has what it acknowledged, and removes what all consumers are done with, in milliseconds.
pub const JETSTREAM_CHECK_MS: u64 = 500;
pub const JETSTREAM_PURGE_MS: u64 = 30_000;
/// Bytes of all events that JetStream keeps (`events.bytes_max`); beyond, it takes none.
pub const JETSTREAM_BYTES_MAX: u64 = 1024 * MIB_BYTES;
/// Set aside at once; where the servers have less room, a half of it, a quarter, … but not less than this.
pub const JETSTREAM_BYTES_MIN: u64 = 16 * MIB_BYTES;
/// Within it the server knows an event again that is published twice, in seconds.
pub const JETSTREAM_DUPLICATES_S: u64 = 120;
/// A host that has not renewed its leases for so long handles no events, and others take its partitions, in milliseconds; it stops so much earlier.
pub const EVENT_LEASE_MS: u64 = 6_000;
pub const EVENT_LEASE_MARGIN_MS: u64 = 500;
/// What a host has declared counts for so long after it was last seen, in seconds.
pub const EVENT_DECLARATION_KEPT_S: u64 = 10 * 60;
/// Dead letters kept per consumer, and how long, in seconds; the oldest are dropped, with a line in the log.
pub const DEAD_LETTERS_MAX: usize = 10_000;
pub const DEAD_LETTER_TTL_S: u64 = 30 * 24 * 60 * 60;
/// How often dead letters are looked over, in seconds, and how many go at once, so that nobody waits for long.
pub const DEAD_LETTER_SWEEP_S: u64 = 10 * 60;
pub const DEAD_LETTER_SWEEP_BATCH: usize = 1_000;
/// Users of one push.
pub const PUSH_USERS_MAX: usize = 10_000;
pub const PUSH_PAYLOAD_BYTES_MAX: usize = 256 * 1024;
/// Longest name of a push's event, and longest receipt, subject or key of a state, in bytes.
pub const PUSH_EVENT_BYTES_MAX: usize = 64;
pub const PUSH_NAME_BYTES_MAX: usize = 128;
/// Receipts in one acknowledgement event.
pub const ACK_RECEIPTS_MAX: usize = 256;
/// Acknowledgements of one transaction.
pub const ACK_BATCH_MAX: usize = 4_096;
/// Acknowledgements are written together, at most this long after the first, in milliseconds.
pub const ACK_FLUSH_MS: u64 = 20;
/// Durable events are kept in a user's feed this long, in seconds, and this many at the most.
pub const FEED_TTL_S: u64 = 30 * 24 * 60 * 60;
pub const FEED_EVENTS_MAX: u64 = 10_000;
/// Durable events that one person may cause in another's feed: so many at once, and so many a day beyond, both times `gateway.rate_scale`; a call
/// above that is refused. Together less than a feed keeps. How many pairs are remembered; above it those that caused little are forgotten.
pub const FEED_SENDER_EVENTS_BURST: u64 = 1_000;
pub const FEED_SENDER_EVENTS_PER_DAY: u64 = 8_000;
pub const FEED_SENDER_PAIRS_MAX: usize = 1_000_000;
/// Durable events that one service may cause in one user's feed in a day, whoever caused them, times `gateway.rate_scale`: so many, unless its manifest
/// says more (`feed_events_per_day`); and this part of them at once. What a service pushes beyond is refused, so that it cannot push out of the feed what
/// others have put there.
pub const FEED_SERVICE_EVENTS_PER_DAY: u32 = 1_000;
pub const FEED_SERVICE_BURST_SHARE: u64 = 10;
/// Pushes that say how something is now: those of one key that come within so many milliseconds of the last numbered one make one event.
pub const FEED_STATE_GATHER_MS: u64 = 500;
/// Keys of which it is remembered when they were last numbered; above it the quiet ones are forgotten.
pub const FEED_STATE_KEYS_KEPT: usize = 4_096;
/// Users whose newest number is kept in memory; above it all are forgotten and read again as they come.
pub const FEED_USERS_KEPT: usize = 100_000;
/// Rows of one transaction of the clean-up, so that it never holds others up for long.
pub const FEED_EXPIRE_BATCH: u64 = 1_000;
/// How long it is known up to where a device has its feed when it does not come back, in seconds.
pub const FEED_CURSORS_KEPT_S: u64 = 90 * 24 * 60 * 60;
/// Stretches of a user's feed that no device acknowledged though later ones were; above it the oldest two count as one.
pub const FEED_GAPS_MAX: usize = 32;
/// How often old events leave the feeds, in seconds.
pub const FEED_EXPIRY_INTERVAL_S: u64 = 10 * 60;
/// Events of one page of GET /api/v1/sync.
pub const FEED_PAGE_MAX: usize = 500;
pub const SYNC_PAGE_DEFAULT: usize = 50;

// --- Blobs --------------------------------------------------------------------------------------------------------------------------
/// One object, or one upload.
pub const BLOB_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// What a guest reads or writes of one in one call.
pub const BLOB_CALL_BYTES_MAX: usize = 1024 * 1024;
/// Handed to the store at once while an upload comes in; two of them are in memory.
pub const BLOB_CHUNK_BYTES: usize = 256 * 1024;
/// ... and where the store is a bucket: the parts that an upload is kept in there.
pub const BLOB_PART_BYTES: usize = 1024 * 1024;
/// How long a bucket's server may take for the head of an answer and for each piece of it, in milliseconds, and how long a request that failed is repeated.
pub const BUCKET_TIMEOUT_MS: u64 = 8_000;
pub const BUCKET_RETRY_MS: u64 = 2_000;
pub const BUCKET_RETRIES_MAX: usize = 3;
/// Requests for one file at one time, where it has many parts or pieces.
pub const BUCKET_CONCURRENCY: usize = 8;
/// A client that sends nothing of a file for so long is given up, in milliseconds; how long the whole takes is open.
pub const STREAM_IDLE_MS: u64 = 30_000;
/// A form around a file, beside it, in bytes.
pub const FORM_OVERHEAD_BYTES_MAX: u64 = 64 * 1024;
/// Ranges of one request that are answered; beyond, the whole is sent (RFC 9110 section 14.2).
pub const RANGES_MAX: usize = 16;
/// Pieces of one upload: requests that added to it.
pub const BLOB_PIECES_MAX: usize = 1_000;

// --- Cache, passwords, tokens ------------------------------------------------------------------------------------------------------
pub const CACHE_KEY_BYTES_MAX: usize = 512;
pub const CACHE_VALUE_BYTES_MAX: usize = 1024 * 1024;
pub const CACHE_KEYS_PER_CALL_MAX: usize = 1_000;
/// All values of one call together, in bytes.
pub const CACHE_CALL_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of the in-process cache, all services together; the least recently used go first.
pub const CACHE_BYTES_MAX: u64 = 64 * MIB_BYTES;
/// What a member of a set counts beside its own bytes.
pub const CACHE_MEMBER_OVERHEAD_BYTES: usize = 32;
/// A connection to Redis, and an answer of it, in milliseconds; beyond it is away.
pub const REDIS_CONNECT_MS: u64 = 1_000;
pub const REDIS_ANSWER_MS: u64 = 500;
/// The bus between hosts: a connection, and an answer, in milliseconds; beyond it is away. How often it is asked whether it is there.
pub const BUS_CONNECT_MS: u64 = 1_000;
pub const BUS_ANSWER_MS: u64 = 500;
pub const BUS_PING_MS: u64 = 2_000;
/// The pause before it is connected again, in milliseconds, doubling.
pub const BUS_RECONNECT_FIRST_MS: u64 = 20;
pub const BUS_RECONNECT_LAST_MS: u64 = 1_000;
/// One message on the bus. NATS takes 1 MiB as it comes.
pub const BUS_MESSAGE_BYTES_MAX: usize = 512 * 1024;
/// Users in one item of it; a push to more of them is several items.
pub const BUS_ITEM_USERS_MAX: usize = 1_000;
/// Messages that wait for a subscriber; beyond, some are lost, and it is told.
pub const BUS_MESSAGES_WAITING_MAX: usize = 4_096;
/// Batches that wait to be sent to other hosts; beyond, they are left to the feeds, where the other hosts find them.
pub const HOSTS_BATCHES_WAITING_MAX: usize = 1_024;
/// How often a host compares how far its sockets are with the heads of their users' feeds, in milliseconds: while the bus is away, and otherwise.
pub const HEADS_COMPARED_AWAY_MS: u64 = 500;
pub const HEADS_COMPARED_MS: u64 = 5_000;
/// Users whose heads are read at once.
pub const HEADS_READ_AT_ONCE: usize = 1_000;
/// Between two of these pages, and two of a host's own devices, where nothing hurries, in milliseconds: a host with many sockets asks for little at a time.
pub const HOSTS_PAGES_PAUSE_MS: u64 = 100;
/// Devices that a host's going releases in one transaction, and how long they gather for it, in milliseconds.
pub const DEVICE_HOSTS_RELEASED_AT_ONCE: usize = 500;
pub const DEVICE_HOSTS_GATHER_MS: u64 = 20;
/// How often the devices of hosts that are gone are looked for, and a host's own are compared with what it has, in milliseconds.
pub const DEVICE_HOSTS_SWEEP_MS: u64 = 5_000;
/// The devices of a host that was not seen for so long are released by others, in milliseconds.
pub const DEVICE_HOSTS_LOST_MS: u64 = 10_000;
/// While the shared cache is away: how often it is asked whether it is back, in milliseconds, and the keys that one host may write meanwhile.
pub const CACHE_AWAY_POLL_MS: u64 = 200;
pub const CACHE_AWAY_KEYS_MAX: usize = 100_000;
pub const PASSWORD_BYTES_MAX: usize = 1_024;
/// Password hashes running at once, and waiting: for known clients, and for strangers. Each that waits holds a slot of its service, and strangers must not
/// take them all (`concurrency` in the manifest of auth).
pub const PASSWORD_WORKERS: usize = 2;
pub const PASSWORD_KNOWN_WAITING_MAX: usize = 128;
pub const PASSWORD_STRANGERS_WAITING_MAX: usize = 32;
/// After so many turns of known clients a stranger has one.
pub const PASSWORD_KNOWN_TURNS: u32 = 4;
/// A stored hash in bytes, and the most that computing one may cost: memory in KiB, passes (argon2id), log2 of the rounds (bcrypt), lanes.
/// A hash comes out of a service's table; one that asks for more is refused before any work is done.
pub const PASSWORD_HASH_BYTES_MAX: usize = 512;
pub const PASSWORD_MEMORY_KIB_MAX: u32 = 256 * 1024;
pub const PASSWORD_PASSES_MAX: u32 = 8;
pub const PASSWORD_LANES_MAX: u32 = 8;
pub const BCRYPT_COST_MAX: u32 = 14;
/// Longest password that bcrypt can tell from another, in bytes.
pub const BCRYPT_PASSWORD_BYTES_MAX: usize = 72;
pub const TOKEN_BYTES_MAX: usize = 4 * 1024;
/// An ID Token of another issuer, in bytes: some have a person's groups in it.
pub const ID_TOKEN_BYTES_MAX: usize = 16 * 1024;
/// The public keys (JWK Set) of another issuer, in bytes. They are read for each of its tokens.
pub const ID_TOKEN_KEYS_BYTES_MAX: usize = 64 * 1024;
/// Keys of another issuer with the `kid` of a token that its signature is tried with.
pub const ID_TOKEN_KEYS_TRIED_MAX: usize = 4;
/// The modulus of an RSA key that verifies an ID Token, in bytes (RFC 7518, section 3.3: 2,048 bits at least).
pub const ID_TOKEN_RSA_BYTES_MIN: usize = 256;
pub const ID_TOKEN_RSA_BYTES_MAX: usize = 512;
/// A device's id, chosen by the client, in characters; a token's roles and the length of one in bytes.
pub const DEVICE_ID_CHARS_MAX: usize = 128;
pub const ROLES_MAX: usize = 16;
pub const ROLE_BYTES_MAX: usize = 64;
pub const ACCESS_TOKEN_TTL_S: u64 = 15 * 60;
/// The longest life that an operator may give to access tokens, in seconds.
pub const ACCESS_TOKEN_TTL_MAX_S: u64 = 24 * 60 * 60;
/// A signing key is replaced after this long, in seconds.
pub const TOKEN_KEY_ROTATION_S: u64 = 30 * 24 * 60 * 60;
/// All hosts accept a new key for this long before the first of them signs with it, in milliseconds.
pub const TOKEN_KEY_PUBLISHED_MS: u64 = 60_000;
/// How often a host reads what others have revoked, and their keys, in milliseconds; also how late it learns of it without a bus.
pub const TOKENS_POLL_MS: u64 = 1_000;
const _: () = assert!(TOKEN_KEY_PUBLISHED_MS >= 10 * TOKENS_POLL_MS);
/// By how much the clocks of two hosts that sign tokens may differ, in milliseconds.
pub const TOKEN_CLOCK_MARGIN_MS: u64 = 1_000;
/// The keys are read at once for a token whose key is not known, but not more often than this, and within this time, in milliseconds.
pub const TOKEN_KEYS_READ_PAUSE_MS: u64 = 100;
pub const TOKEN_KEYS_READ_MS: u64 = 1_000;
/// Revocations in force; each ends with the last token that it could concern. No further one is taken above (503).
pub const REVOCATIONS_MAX: usize = 1_000_000;
/// How often keys, revocations and tickets are looked over, in milliseconds.
pub const TOKEN_UPKEEP_INTERVAL_MS: u64 = 60_000;
/// Revocations waiting for a slow subscriber; who falls behind is told so and must look at all its sockets.
pub const REVOCATIONS_QUEUE_MAX: usize = 1_024;
pub const TICKET_TTL_S: u64 = 30;
/// Socket tickets of one host that are out; none is issued above.
pub const TICKETS_MAX: usize = 100_000;
/// A socket is closed at the latest this long after its token was seen, whatever `exp` says, in seconds.
pub const TOKEN_TTL_MAX_S: u64 = 365 * 24 * 60 * 60;
/// Verified tokens remembered so that the signature is checked once.
pub const TOKEN_MEMORY_MAX: usize = 20_000;

// --- Sockets -----------------------------------------------------------------------------------------------------------------------
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
pub const HEARTBEAT_INTERVAL_S: u64 = 30;
pub const IDLE_TIMEOUT_S: u64 = 60;
/// Frames waiting for a slow reader before its socket is closed with 4430 (durable events stay in the feed).
pub const SOCKET_QUEUE_MAX: usize = 256;
/// ... and their bytes. A reader that keeps up again is brought level from the feed.
pub const SOCKET_QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// How long a socket with a full queue may take no byte before it is closed with 4430, in milliseconds.
pub const SOCKET_STALL_MS: u64 = 5_000;
/// Read buffer of a socket in bytes.
pub const SOCKET_READ_BUFFER_BYTES: usize = 4 * 1024;
/// Frames are handed to the network together up to this many bytes; a single larger one goes alone.
pub const SOCKET_WRITE_BATCH_BYTES: usize = 4 * 1024;
/// Frames a client may send in a second, and in a burst, before 4429.
pub const SOCKET_FRAMES_PER_S: u32 = 200;
pub const SOCKET_FRAMES_BURST: u32 = 400;
/// Frames for the host itself that one user may send in a minute, in addition: acknowledgements, pings, renewals of the token.
pub const ACKS_PER_MINUTE: u32 = 12_000;
pub const PINGS_PER_MINUTE: u32 = 1_200;
pub const RENEWALS_PER_MINUTE: u32 = 60;
/// Sockets that one user may open, and pages of the feed that one user may read over REST, in a minute.
pub const SOCKETS_PER_MINUTE: u32 = 120;
pub const SYNC_PAGES_PER_MINUTE: u32 = 600;
/// Requests and sockets of one address with a token that is no good, in a minute; beyond, 429 instead of 401.
pub const BAD_TOKENS_PER_MINUTE: u32 = 300;
/// Requests of one address for one of the host's own paths (`/health`, `/docs` …) in a minute.
pub const HOST_REQUESTS_PER_MINUTE: u32 = 6_000;
/// Requests of one socket that are accepted and not answered; further frames wait unread. They are served one after another.
pub const SOCKET_CALLS_MAX: usize = 16;
/// Longest `id` of a frame in bytes, as it stands in the JSON.
pub const FRAME_ID_BYTES_MAX: usize = 128;
/// Feed entries that a resuming socket reads at once, and sockets reading at the same time.
pub const SOCKET_RESUME_PAGE: usize = 100;
pub const FEED_READS_MAX: usize = 32;
/// Pause before a failed read of the feed is tried again, in milliseconds (doubling).
pub const FEED_RETRY_FIRST_MS: u64 = 100;
pub const FEED_RETRY_LAST_MS: u64 = 5_000;
/// How long a closing socket's accepted requests may still run, and how long its close handshake may take, in milliseconds.
pub const SOCKET_FINISH_MS: u64 = 5_000;
pub const SOCKET_CLOSE_MS: u64 = 2_000;
/// `retry_after_ms` of a goodbye lies between the first and the last, spread by a millisecond per open socket.
pub const RECONNECT_FIRST_MS: u64 = 200;
pub const RECONNECT_LAST_MS: u64 = 30_000;
pub const DEVICES_PER_USER_MAX: usize = 20;
/// Devices that came or went and are not published yet.
pub const HUB_CHANGES_WAITING_MAX: usize = 2 * CONNECTIONS_MAX;

// --- Operators' tokens ----------------------------------------------------------------------------------------------------------------
pub const OPERATOR_TOKENS_MAX: usize = 100;
/// Of a token's name, in bytes.
pub const OPERATOR_NAME_BYTES_MAX: usize = 64;
/// The longest time that a token may be asked for, in seconds: ten years.
pub const OPERATOR_TOKEN_TTL_MAX_S: u64 = 10 * 366 * 24 * 60 * 60;
/// The use of a token is noted at most this often, in seconds: a scraper asks every few.
pub const OPERATOR_TOKEN_USE_S: u64 = 60;
/// Requests of operators that are kept, and of each the bytes of its target and of what was done.
pub const OPERATOR_AUDIT_MAX: usize = 1_000;
/// Of a list of the operator's API, in items.
pub const OPERATOR_PAGE_MAX: usize = 100;
pub const OPERATOR_AUDIT_BYTES_MAX: usize = 500;
/// Generations of a service whose traffic is shown, the live one included.
pub const GENERATIONS_SHOWN: usize = 5;

// --- The operator's settings of routes -------------------------------------------------------------------------------------------------
/// How long the operator may have answers kept, in seconds: where the manifest has a cache, and where it has none. In a minute nothing that was deleted is
/// readable any more.
pub const ROUTE_CACHE_TTL_S_MAX: u64 = 24 * 60 * 60;
pub const ROUTE_UNDECLARED_CACHE_TTL_S_MAX: u64 = 30;
/// Overrides of routes and added prefixes, each.
pub const ROUTE_SETTINGS_MAX: usize = 1_000;
/// When clients of a service that is switched off are to ask again, in seconds: nobody knows when it will be on.
pub const SERVICE_OFF_RETRY_S: u64 = 30;
/// Headers, and fields of JSON, that one of them changes each way; how deep such a field may be; and the bytes of a header's value.
pub const HEADER_CHANGES_MAX: usize = 32;
pub const HEADER_CHANGE_BYTES_MAX: usize = 1_024;
pub const FIELD_CHANGES_MAX: usize = 64;
pub const FIELD_CHANGE_DEPTH_MAX: usize = 8;

// --- Outside services behind the gateway -----------------------------------------------------------------------------------------------
/// Of the key that signs who calls: that of SHA-256's output.
pub const OUTSIDE_KEY_BYTES_MIN: usize = 32;
/// Waiting for an answer's head, and for the next byte of an answer or on an upgraded connection, in milliseconds: where nothing is set, and at most.
pub const OUTSIDE_TIMEOUT_MS: u64 = 30_000;
pub const OUTSIDE_IDLE_MS: u64 = 60_000;
pub const OUTSIDE_TIMEOUT_MS_MAX: u64 = 60 * 60 * 1_000;
/// Opening a TCP connection, in milliseconds.
pub const OUTSIDE_CONNECT_MS: u64 = 5_000;
/// Attempts after the first one: where nothing is set, and at most; and the pause before the first of them, in milliseconds, which then doubles.
pub const OUTSIDE_RETRIES: u32 = 1;
pub const OUTSIDE_RETRIES_MAX: u32 = 3;
pub const OUTSIDE_RETRY_PAUSE_MS: u64 = 50;
/// Requests and upgraded connections of one prefix at one time; more are answered 503.
pub const OUTSIDE_REQUESTS_MAX: usize = 512;
pub const OUTSIDE_TUNNELS_MAX: usize = 2_000;
/// Kept connections of one address that nothing uses, and for how long, in milliseconds.
pub const OUTSIDE_KEPT_MAX: usize = 64;
/// Words of `Authorization` that are looked at before it goes on to a public target; of more, none does.
pub const OUTSIDE_AUTHORIZATION_WORDS_MAX: usize = 16;
pub const OUTSIDE_KEPT_MS: u64 = 30_000;
/// Of a request's body, in bytes. It is streamed: no more than a piece of it is in memory.
pub const OUTSIDE_BODY_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Of an answer's head, in bytes and in fields.
pub const OUTSIDE_HEAD_BYTES_MAX: usize = 64 * 1024;
pub const OUTSIDE_HEADERS_MAX: usize = 100;
/// An answer that says to be no longer, in bytes, is read whole before its head is passed on.
pub const OUTSIDE_SMALL_BODY_BYTES: u64 = 64 * 1024;
/// Of a JSON body whose fields are changed, in bytes, each way: it is in memory then.
pub const OUTSIDE_CHANGED_BODY_BYTES_MAX: usize = 1024 * 1024;
/// How long a signature of who calls is good for, in seconds.
pub const OUTSIDE_SIGNATURE_S: u64 = 60;
/// Read at once on an upgraded connection, each way, in bytes.
pub const OUTSIDE_TUNNEL_BUFFER_BYTES: usize = 8 * 1024;

// --- The operator's command line ------------------------------------------------------------------------------------------------------
/// Waiting for an answer of the operator API, in milliseconds; a deployment compiles and migrates meanwhile.
pub const ADMIN_CLIENT_TIMEOUT_MS: u64 = 120_000;
/// Waiting for one engine's answer to `echod doctor`, in milliseconds.
pub const DOCTOR_ANSWER_MS: u64 = 5_000;
/// The same of a bucket, which is asked several times.
pub const DOCTOR_BUCKET_MS: u64 = BUCKET_TIMEOUT_MS + BUCKET_RETRY_MS;
/// How many files of the data folder are looked at.
pub const DOCTOR_FILES_MAX: usize = 10_000;
/// Below it a disk counts as full, in bytes.
pub const DOCTOR_DISK_BYTES_MIN: u64 = 100 * 1024 * 1024;
/// How far this machine's clock may be from the database's, in milliseconds.
pub const DOCTOR_CLOCK_MS_MAX: u64 = 1_000;
/// 2025-01-01, in seconds since 1970: no clock that is set shows an earlier time.
pub const DOCTOR_CLOCK_S_MIN: u64 = 1_735_689_600;
/// Waiting for one answer to `echod ready`, in milliseconds, and the pause before it asks again.
pub const READY_ANSWER_MS: u64 = 5_000;
pub const READY_PAUSE_MS: u64 = 100;

const _: () = assert!(DESCRIPTORS_RESERVED as usize > 2 * (ADMIN_CONNECTIONS_MAX + REFUSALS_MAX));
const _: () = assert!(BODY_BYTES_MAX <= BODIES_USER_BYTES_MAX && BODIES_USER_BYTES_MAX < BODIES_ADDRESS_BYTES_MAX);
const _: () = assert!(HTTP2_HEAD_BYTES_MAX as usize > HTTP_BUFFER_BYTES_MAX);
const _: () = assert!(READY_ANSWER_MS > READY_CHECK_TIMEOUT_MS);
const _: () = assert!(SQLITE_IN_PLACE_CHECKS > SQLITE_QUICK_CHECKS && SQLITE_IN_PLACE_US < SQLITE_TASKS_GIVEN_AFTER_US);
const _: () = assert!(SQL_VALUE_BYTES_MAX < SQLITE_HOST_VALUE_BYTES_MAX && SQL_VALUE_BYTES_MAX > 2 * SQL_STATEMENT_BYTES_MAX);
// An open breaker lets no further calls through: the version must be judged by those before.
const _: () = assert!(PROBATION_CALLS_MIN < BREAKER_CALLS_MIN as u64);
const _: () = assert!(SQL_MIGRATION_LIVE_TIMEOUT_MS < SQL_TIMEOUT_MS);
const _: () = assert!(ROLLOUT_S * 1_000 > ROLLOUT_ANSWER_MS + SQL_MIGRATION_TIMEOUT_MS);
const _: () = assert!(NODE_AWAY_MS >= 3 * NODE_BEAT_MS);
const _: () = assert!(SOCKET_FINISH_MS + SOCKET_CLOSE_MS < DRAIN_TIMEOUT_MS);
const _: () = assert!(FEED_RETRY_FIRST_MS < FEED_RETRY_LAST_MS);
const _: () = assert!(IDLE_TIMEOUT_S > HEARTBEAT_INTERVAL_S);
const _: () = assert!(FIBRE_STACK_BYTES > GUEST_STACK_BYTES);
const _: () = assert!(JETSTREAM_ANSWER_MS < RELAY_PUBLISH_TIMEOUT_MS && JETSTREAM_ANSWER_MS + EVENT_LEASE_MARGIN_MS < EVENT_LEASE_MS);
const _: () = assert!(EVENT_RETRY_FIRST_MS < EVENT_RETRY_LAST_MS);
const _: () = assert!(IDEMPOTENCY_ANSWER_BYTES_MAX < CACHE_VALUE_BYTES_MAX);
const _: () = assert!(HTTP_BUFFER_BYTES_MAX > TOKEN_BYTES_MAX + 8 * 1024);
const _: () = assert!(FRAME_BYTES_MAX < BODY_BYTES_MAX);
