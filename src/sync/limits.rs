//! The bounds that keep a sync small and its servers unharmed, in one place.

use std::time::Duration;

/// UID sets in commands are at most this long, bytes: all servers take 8 kB.
pub(crate) const MAX_SET_BYTES: usize = 4000;
/// One FETCH asks for at most this many bytes of messages, as far as sizes are known. Not above what is held whole, so
/// that a larger FETCH is always one message.
pub(crate) const FETCH_BYTES: u64 = 1 << 20;
/// One FETCH asks for at most this many messages.
pub(crate) const FETCH_MESSAGES: usize = 250;
/// At most this many `FETCHes` wait for their answers (Dovecot queues four commands).
pub(crate) const FETCHES_IN_FLIGHT: usize = 4;
/// One MULTIAPPEND carries at most this many messages.
pub(crate) const BATCH_MESSAGES: usize = 100;
/// One MULTIAPPEND carries about this many bytes at most.
pub(crate) const BATCH_BYTES: u64 = 1 << 20;
/// At most this many APPENDs wait for their answers when each carries a batch.
pub(crate) const BATCHES_IN_FLIGHT: usize = 4;
/// At most this many APPENDs wait for their answers when each carries one message.
pub(crate) const SINGLES_IN_FLIGHT: usize = 32;
/// No folder has more messages: a scan takes 32 bytes for each. A folder that counts more is not synced.
pub(crate) const MAX_MESSAGES: u32 = 16_000_000;
/// The different sets of flags that a folder's messages have take at most this many bytes of memory. A folder with more is
/// not synced.
pub(crate) const MAX_FLAG_SET_BYTES: usize = 12 << 20;
/// A folder that counts at most this many messages may be asked for as a whole.
pub(crate) const WHOLE_MESSAGES: u32 = 10_000;
/// ... and brings at most this many bytes, or the connection ends: it was said to be smaller.
pub(crate) const WHOLE_BYTES: u64 = 16 << 20;
/// Bytes requested, received or queued, and not yet written, over all connections of a mailbox.
pub(crate) const BUFFERED_BYTES: u64 = 10 << 20;
/// ... and on one pair of connections at most this many: more does not make it faster.
pub(crate) const BUFFERED_BYTES_PER_PAIR: u64 = 5 << 19;
/// While a large message streams, at most this many bytes wait to be written.
pub(crate) const STREAM_QUEUE: usize = 256 << 10;
/// A batch that is not full is sent when its first message has waited this long.
pub(crate) const BATCH_AGE: Duration = Duration::from_millis(500);
/// A batch that takes longer than this to be committed is followed by smaller ones.
pub(crate) const SLOW_COMMIT: Duration = Duration::from_millis(500);
/// Larger messages go by synchronizing literal where no APPENDLIMIT is known: a server that refuses them says so before
/// the bytes are sent.
pub(crate) const LARGE_WITHOUT_LIMIT: u64 = 25 << 20;
/// What is in doubt is sent again only after two looks at least this far apart agree.
pub(crate) const MIN_LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// ... and at least as long as a server needs that commits this many bytes per second, for a large message.
pub(crate) const SLOWEST_COMMIT_BYTES_PER_SECOND: u64 = 50 << 20;
/// ... of at most this long: a size is only what a server says, and no server takes messages that need longer.
pub(crate) const LONGEST_COMMIT: Duration = Duration::from_secs(20);
/// ... and at least this many round trips.
pub(crate) const MIN_LOOK_ROUND_TRIPS: u32 = 4;
/// After a request to stop, what is under way is waited for this long.
pub(crate) const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// A checkpoint is saved at most this often while messages are copied.
pub(crate) const SAVE_EVERY: Duration = Duration::from_millis(500);
