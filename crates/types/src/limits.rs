//! Every limit of the system, and the relations between them. Each has an error that names it and a test at −1, 0 and +1.

use crate::Span;

/// Jobs in one submit.
pub const SUBMIT_JOBS_MAX: usize = 1_000;
/// Task groups (`[[task]]` tables) in one job.
pub const GROUPS_MAX: usize = 1_000;
/// Tasks in one job.
pub const JOB_TASKS_MAX: u32 = 10_000_000;
/// Jobs that are not finished.
pub const LIVE_JOBS_MAX: usize = 4_000_000;
/// Tasks that wait or run.
pub const LIVE_TASKS_MAX: u64 = 20_000_000;
/// Bytes in a job's, group's, queue's, node's, resource's or submitter's name.
pub const NAME_BYTES_MAX: usize = 128;
/// Bytes in a label's key.
pub const LABEL_KEY_BYTES_MAX: usize = 63;
/// Bytes in a label's value.
pub const LABEL_VALUE_BYTES_MAX: usize = 256;
/// Labels on one job or node.
pub const LABELS_MAX: usize = 32;
/// Constraints of one task group.
pub const CONSTRAINTS_MAX: usize = 32;
/// Values in one constraint.
pub const CONSTRAINT_VALUES_MAX: usize = 32;
/// Named resources of one task group or node.
pub const RESOURCES_MAX: usize = 32;
/// Any amount of a resource, in its smallest unit. Every amount is exact as a JSON number.
pub const RESOURCE_AMOUNT_MAX: u64 = 1 << 53;
/// Bytes of one task group's action: command line, environment, standard input, entries.
pub const ACTION_BYTES_MAX: usize = 1 << 20;
/// Distance of a job's priority from 0, both ways.
pub const PRIORITY_MAX: i32 = 1_000;
/// Attempts that one task may ask for, the first included.
pub const ATTEMPTS_MAX: u32 = 100;
/// Attempts of one task that may be lost with their node before the task fails.
pub const LOST_ATTEMPTS_MAX: u32 = 5;
/// Rules of one retry policy.
pub const RETRY_RULES_MAX: usize = 32;
/// The longest pause between two attempts.
pub const BACKOFF_MAX: Span = Span::from_secs(24 * 3600);
/// The longest time one attempt may be allowed to run.
pub const TIMEOUT_MAX: Span = Span::from_secs(7 * 24 * 3600);
/// The longest estimate of a task's duration.
pub const ESTIMATE_MAX: Span = Span::from_secs(400 * 24 * 3600);
/// The longest grace between a request to stop and the kill.
pub const GRACE_MAX: Span = Span::from_secs(3600);
/// Queues in the cluster.
pub const QUEUES_MAX: usize = 10_000;
/// Jobs that one entry of the log purges.
pub const PURGE_JOBS_MAX: usize = 10_000;
/// Nodes in the cluster, lost ones included.
pub const NODES_MAX: usize = 100_000;
/// Servers in the cluster.
pub const SERVERS_MAX: usize = 9;
/// Bytes in a server's address.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// Attempts that one node may run at a time.
pub const NODE_ATTEMPTS_MAX: u32 = 65_536;
/// Bytes in an idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;
/// Idempotency keys that are remembered at a time.
pub const IDEMPOTENCY_KEYS_MAX: usize = 4_000_000;
/// How long an idempotency key is remembered.
pub const IDEMPOTENCY_WINDOW: Span = Span::from_secs(24 * 3600);
/// Tokens of the API and for joining, together.
pub const TOKENS_MAX: usize = 10_000;
/// Sessions of browsers that one token has at a time; the next one ends the one that would end first.
pub const LOGINS_MAX: usize = 16;
/// How often one join token may be used.
pub const JOIN_USES_MAX: u32 = 1_000;
/// How long a join token may be valid.
pub const JOIN_VALIDITY_MAX: Span = Span::from_secs(7 * 24 * 3600);
/// Bytes of one note of the audit: who, from where, what.
pub const NOTE_BYTES_MAX: usize = 512;
/// Placements in one plan, and reports in one batch.
pub const BATCH_MAX: usize = 8_192;
/// Bytes of the last output that travel with an attempt's record, both streams together.
pub const TAIL_BYTES_MAX: usize = 8 << 10;
/// Bytes of a failure's message.
pub const MESSAGE_BYTES_MAX: usize = 1 << 10;
/// Bytes of one encoded log entry.
pub const ENTRY_BYTES_MAX: usize = 64 << 20;
/// Bytes in a key of the key-value store, and in the name of a lock.
pub const KEY_BYTES_MAX: usize = 512;
/// Bytes in the value of a key.
pub const KEY_VALUE_BYTES_MAX: usize = 64 << 10;
/// Keys in the key-value store.
pub const KEYS_MAX: usize = 1_000_000;
/// Bytes of all keys and their values, and of all claims to locks with theirs.
pub const KEYS_BYTES_MAX: u64 = 64 << 20;
/// Conditions of one request to the key-value store, and changes.
pub const KEY_CHANGES_MAX: usize = 128;
/// Keys that one request deletes by their prefix.
pub const KEYS_DELETED_MAX: u32 = 10_000;
/// Sessions that are open.
pub const SESSIONS_MAX: usize = 100_000;
/// Keys that are bound to one session.
pub const SESSION_KEYS_MAX: usize = 10_000;
/// The shortest time that a session lives without being renewed.
pub const SESSION_TTL_MIN: Span = Span::from_secs(1);
/// The longest time that a session lives without being renewed.
pub const SESSION_TTL_MAX: Span = Span::from_secs(24 * 3600);
/// Claims to locks, those of the holders included.
pub const CLAIMS_MAX: usize = 100_000;
/// Claims that wait for one lock.
pub const LOCK_WAITERS_MAX: usize = 1_000;
/// Bytes of the value of a claim to a lock.
pub const CLAIM_VALUE_BYTES_MAX: usize = 4 << 10;
/// Bytes in the text of a schedule: a cron expression, an interval or an instant.
pub const SCHEDULE_TEXT_BYTES_MAX: usize = 256;
/// The shortest interval of a schedule.
pub const SCHEDULE_INTERVAL_MIN: Span = Span::from_secs(1);
/// The longest interval of a schedule.
pub const SCHEDULE_INTERVAL_MAX: Span = Span::from_secs(400 * 24 * 3600);
/// Ranges of days that one schedule excludes, those of its calendars included.
pub const EXCLUSIONS_MAX: usize = 1_000;
/// The longest time by which a schedule may delay a run to spread the load.
pub const JITTER_MAX: Span = Span::from_secs(24 * 3600);
/// Runs that one outage may cause for a schedule that catches up.
pub const CATCH_UP_RUNS_MAX: u32 = 1_000;
/// The longest time after which a missed instant of a schedule may still have a run.
pub const CATCH_UP_WINDOW_MAX: Span = Span::from_secs(400 * 24 * 3600);
/// Runs of one schedule that wait for an earlier one to end.
pub const WAITING_RUNS_MAX: u32 = 1_000;
/// Runs of one schedule that one call decides, not counting those that were missed.
pub const DECISIONS_MAX: usize = 1_000;
/// Instants that are counted one by one when many of them are skipped together.
pub const INSTANTS_COUNTED_MAX: u64 = 10_000;
/// The longest that one request waits for a lock. The claim stays in its place, and the next request goes on waiting.
pub const LOCK_WAIT_MAX: Span = Span::from_secs(60);
/// Bytes of keys and values on one page of keys. A page has at least one key.
pub const KEY_PAGE_BYTES_MAX: usize = 4 << 20;

const _: () = assert!(GROUPS_MAX as u64 <= JOB_TASKS_MAX as u64);
const _: () = assert!(JOB_TASKS_MAX as u64 <= LIVE_TASKS_MAX);
const _: () = assert!(LOST_ATTEMPTS_MAX <= ATTEMPTS_MAX);
const _: () = assert!(ACTION_BYTES_MAX < ENTRY_BYTES_MAX);
const _: () = assert!(BATCH_MAX * TAIL_BYTES_MAX <= 2 * ENTRY_BYTES_MAX);
const _: () = assert!(KEY_CHANGES_MAX * KEY_VALUE_BYTES_MAX < ENTRY_BYTES_MAX);
const _: () = assert!(LOCK_WAITERS_MAX * CLAIM_VALUE_BYTES_MAX < ENTRY_BYTES_MAX);
const _: () = assert!(LOCK_WAITERS_MAX < CLAIMS_MAX);
const _: () = assert!(SESSION_KEYS_MAX <= KEYS_MAX);
const _: () = assert!(KEY_BYTES_MAX + KEY_VALUE_BYTES_MAX < KEY_PAGE_BYTES_MAX);
const _: () = assert!(RESOURCE_AMOUNT_MAX <= 1 << f64::MANTISSA_DIGITS);
