//! What to do with one mailbox: the input of the engine.

use std::time::Duration;

use crate::imap::Endpoint;

/// One mailbox to sync.
#[derive(Debug, Clone)]
pub struct SyncSpec {
    /// The mailbox's name in the migration.
    pub mailbox: String,
    /// Where mail is read.
    pub source: Endpoint,
    /// Where mail is written.
    pub destination: Endpoint,
    /// Which folders, and where they go.
    pub folders: FolderRules,
    /// Which messages.
    pub messages: MessageRules,
    /// What happens to flags of messages that were copied before.
    pub flag_policy: FlagPolicy,
    /// What happens to copies whose source message was deleted.
    pub delete_policy: DeletePolicy,
    /// At most this many connections to each side.
    pub connections: usize,
    /// Change nothing, report what would be done.
    pub dry_run: bool,
    /// How long lost connections are tried again before the sync ends with the error.
    pub retry: Retry,
}

/// How lost connections are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Consecutive failures without progress before giving up.
    pub attempts: u32,
    /// Wait before the first retry; doubles, with jitter.
    pub initial_backoff: Duration,
    /// The longest wait.
    pub max_backoff: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 6, initial_backoff: Duration::from_millis(500), max_backoff: Duration::from_secs(60) }
    }
}

/// Which folders are synced and what they are called at the destination. Rules see decoded names (not modified UTF-7),
/// with `/` between levels whatever the server uses, and without the personal namespace's prefix.
#[derive(Debug, Clone, Default)]
pub struct FolderRules {
    /// Only folders that match one of these; empty means all.
    pub include: Vec<FolderPattern>,
    /// Never folders that match one of these.
    pub exclude: Vec<FolderPattern>,
    /// The first that matches names the folder; it wins over special-use mapping.
    pub rename: Vec<FolderRename>,
    /// Put everything (INBOX too) below this destination folder.
    pub into: Option<String>,
    /// Keep names even where the destination has a folder for the same special use.
    pub ignore_special_use: bool,
    /// Also sync other users' and shared namespaces, and \All and \Flagged views.
    pub everything: bool,
    /// Leave subscriptions alone.
    pub ignore_subscriptions: bool,
}

/// Matches folder names.
#[derive(Debug, Clone)]
pub enum FolderPattern {
    /// A glob: `*` within a level, `**` across levels. INBOX matches in any case.
    Glob(globset::GlobMatcher),
    /// A regular expression that must match the whole name.
    Regex(regex::Regex),
}

/// Renames folders.
#[derive(Debug, Clone)]
pub struct FolderRename {
    /// Which folders; anchored to the whole name.
    pub from: regex::Regex,
    /// The new name; `$1` inserts a group.
    pub to: String,
}

/// Which messages are synced. What a rule leaves out is counted and reported by rule, and is looked at again on each run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageRules {
    /// Only messages whose INTERNALDATE is at or after this instant (seconds since 1970 UTC).
    pub since: Option<i64>,
    /// Only messages whose INTERNALDATE is before this instant (seconds since 1970 UTC).
    pub before: Option<i64>,
    /// Only messages of at most this many bytes (RFC822.SIZE).
    pub max_size: Option<u64>,
    /// Only messages of at least this many bytes.
    pub min_size: Option<u64>,
    /// Leave out messages with \Deleted.
    pub skip_deleted: bool,
}

/// What happens to flags of messages that were copied before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlagPolicy {
    /// What changed at the source since the checkpoint is changed at the destination.
    #[default]
    SourceWins,
    /// Flags are set when a message is copied and never touched again.
    Ignore,
}

/// What happens to copies whose source message was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeletePolicy {
    /// They stay.
    #[default]
    Keep,
    /// They are removed by UID EXPUNGE, if Mailferry appended them itself; see the engine's guards.
    Mirror,
}
