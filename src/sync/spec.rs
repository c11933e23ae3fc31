//! What to do with one mailbox: the input of the engine.

use std::{collections::BTreeSet, time::Duration};

use sha2::{Digest as _, Sha256};

use super::{
    set_aside::{DestinationFacts, RetryFacts, SetAsideReason},
    uid::SourceUid,
};
use crate::{
    Error, Result,
    imap::{Endpoint, UidSet},
};

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
    pub folders: FolderMappingRules,
    /// Which messages.
    pub messages: MessageFilter,
    /// What happens to flags of messages that were copied before.
    pub flag_policy: FlagHandling,
    /// What happens to copies whose source message was deleted.
    pub delete_policy: DeletionHandling,
    /// Tokens of deletions that were held and that a person has confirmed since.
    pub confirm_deletions: BTreeSet<String>,
    /// At most this many connections to each side.
    pub connections: usize,
    /// Change nothing, report what would be done.
    pub dry_run: bool,
    /// How long lost connections are tried again before the sync ends with the error.
    pub retry: RetryPolicy,
    /// Messages whose absence at the destination the user accepts.
    pub accepted_losses: AcceptedLosses,
    /// What a person should look at before trusting the result, as far as it is known beforehand.
    pub warnings: Vec<String>,
    /// Messages that were proven to be refused are tried again, whether it is time or not.
    pub retry_refused: bool,
    /// Where copies are looked for without a checkpoint.
    pub adopt: AdoptScope,
}

/// Where copies of a folder's messages are looked for at the destination when no checkpoint counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AdoptScope {
    /// In the folder's own destination folder. Where most of its messages are found there, the others are looked for in the
    /// destination's other folders: its user may have moved them.
    #[default]
    Auto,
    /// In the folder's own destination folder only.
    Folder,
    /// In the whole destination mailbox, whatever was found in the own folder.
    Mailbox,
    /// Nowhere: everything is copied.
    Nowhere,
}

impl AdoptScope {
    /// True when other folders than the own one may be looked at.
    #[must_use]
    pub(crate) const fn may_leave_folder(self) -> bool {
        matches!(self, Self::Auto | Self::Mailbox)
    }

    /// True when the messages that are `left` of a folder are looked for in other folders; `found` are in its own one.
    #[must_use]
    pub(crate) const fn looks_elsewhere(self, found: u64, left: u64) -> bool {
        match self {
            // More than half: an earlier sync copied it, and it is not chance.
            Self::Auto => left > 0 && found > left,
            Self::Mailbox => left > 0,
            Self::Folder | Self::Nowhere => false,
        }
    }
}

impl SyncSpec {
    /// What decides whether set-aside messages are tried by a run that begins now.
    #[must_use]
    pub fn try_facts(&self, destination: DestinationFacts) -> RetryFacts {
        // An age in the manifest makes another instant of each run: dates are no part of the mark.
        let MessageFilter { max_size, min_size, skip_deleted, .. } = self.messages;
        let mut hasher = Sha256::new();
        for number in [max_size, min_size] {
            hasher.update(number.unwrap_or(u64::MAX).to_be_bytes());
        }
        hasher.update([u8::from(skip_deleted)]);
        let mark = hasher.finalize().iter().take(8).fold(0, |mark, byte| mark << 8 | u64::from(*byte));
        let now = jiff::Timestamp::now().as_second();
        RetryFacts { now, destination, rules: mark, requested: self.retry_refused }
    }
}

/// How lost connections are tried again, and how long a server that is unwell is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Consecutive failures without progress before giving up.
    pub attempts: u32,
    /// Wait before the first retry; doubles, with jitter.
    pub initial_backoff: Duration,
    /// The longest wait.
    pub max_backoff: Duration,
    /// How long one run waits, all in all and for each account, for a server that is unwell or asks for a slower pace.
    pub patience: Duration,
    /// The steps of these waits.
    pub waits: WaitSteps,
    /// Whether a server is tried again of which it is told from the beginning that nobody is there ([`Error::nobody_there`]).
    pub wait_for_absent: bool,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 6,
            initial_backoff: Duration::from_millis(500),
            max_backoff: Duration::from_mins(1),
            patience: Duration::from_mins(15),
            waits: WaitSteps::default(),
            wait_for_absent: true,
        }
    }
}

/// The steps in which a server is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitSteps {
    /// Before each look whether a server that was unwell is well again; the last one repeats.
    pub unwell: [Duration; 5],
    /// Between the rounds in which refused messages are tried again.
    pub between_rounds: [Duration; 3],
    /// Between connections that are made anew because of what a message or a folder does to them.
    pub between_logins: Duration,
    /// Before a login that worked before, and was refused, is tried again: once in a run.
    pub login_again: Duration,
    /// Where for so long nothing but refusals came, of ten messages or more, no ordinary message is left to tell a server
    /// that is unwell from messages that it does not take.
    pub without_control: Duration,
}

impl Default for WaitSteps {
    fn default() -> Self {
        Self {
            unwell: [2, 5, 15, 60, 120].map(Duration::from_secs),
            between_rounds: [3, 10, 30].map(Duration::from_secs),
            between_logins: Duration::from_secs(1),
            login_again: Duration::from_secs(30),
            without_control: Duration::from_mins(1),
        }
    }
}

/// Messages whose absence at the destination the user accepts: they are told and counted apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AcceptedLosses {
    /// All that were not copied for one of these reasons.
    pub reasons: BTreeSet<SetAsideReason>,
    /// Single messages.
    pub messages: Vec<AcceptedMessages>,
}

/// Single messages of a folder whose absence the user accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedMessages {
    /// The decoded source name, with `/` between levels.
    pub folder: String,
    /// The source folder's UIDVALIDITY that the UIDs belong to.
    pub uid_validity: u32,
    /// UIDs in the source folder.
    pub uids: UidSet<SourceUid>,
}

impl AcceptedLosses {
    /// True when the absence of this message is accepted.
    #[must_use]
    pub(crate) fn accepts(&self, reason: SetAsideReason, folder: &str, uid_validity: u32, uid: SourceUid) -> bool {
        self.count_accepted(reason, folder, uid_validity, &std::iter::once(uid).collect()) == 1
    }

    /// Of how many of these messages of a folder the absence is accepted. By ranges: a server may tell of any number.
    #[must_use]
    pub(crate) fn count_accepted(
        &self,
        reason: SetAsideReason,
        folder: &str,
        uid_validity: u32,
        uids: &UidSet<SourceUid>,
    ) -> u64 {
        if self.reasons.contains(&reason) {
            return uids.len();
        }
        let named =
            self.messages.iter().filter(|m| m.uid_validity == uid_validity && is_same_folder(&m.folder, folder));
        named.fold(UidSet::new(), |all, messages| all.union(&messages.uids)).intersection(uids).len()
    }
}

fn is_same_folder(written: &str, folder: &str) -> bool {
    written == folder || (written.eq_ignore_ascii_case("INBOX") && folder.eq_ignore_ascii_case("INBOX"))
}

/// Which folders are synced and what they are called at the destination. Rules see decoded names (not modified UTF-7),
/// with `/` between levels whatever the server uses, and without the personal namespace's prefix.
#[derive(Debug, Clone, Default)]
pub struct FolderMappingRules {
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

impl FolderPattern {
    /// `/.../` is a regular expression for the whole name; anything else a glob.
    ///
    /// # Errors
    /// Configuration, naming the pattern, when it can't be read.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(regex) = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
            return anchored(regex).map(Self::Regex);
        }
        let glob = globset::GlobBuilder::new(text).literal_separator(true).build().map_err(|error| {
            Error::configuration(format!("folder pattern `{text}` is not a glob pattern: {}", error.kind()))
        })?;
        Ok(Self::Glob(glob.compile_matcher()))
    }

    /// True when the decoded name (`/` between levels, `INBOX` in capitals) matches.
    #[must_use]
    pub(crate) fn matches(&self, name: &str) -> bool {
        let is_match = |name: &str| match self {
            Self::Glob(glob) => glob.is_match(name),
            Self::Regex(regex) => regex.is_match(name),
        };
        is_match(name) || any_case_inbox(name).is_some_and(|spellings| spellings.iter().any(|name| is_match(name)))
    }

    /// True when the pattern is for this folder, or folders below the same one at the top, and not for whatever folder.
    #[must_use]
    pub(crate) fn names(&self, name: &str) -> bool {
        // No folder has such a name.
        const NOBODYS: &str = "\u{7}\u{7}";
        let other = name.split_once('/').map_or_else(|| NOBODYS.to_owned(), |(_, rest)| format!("{NOBODYS}/{rest}"));
        self.matches(name) && !self.matches(&other)
    }

    /// The pattern as it was written.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Glob(glob) => glob.glob().glob().to_owned(),
            Self::Regex(regex) => format!("/{}/", written(regex)),
        }
    }
}

/// Renames folders.
#[derive(Debug, Clone)]
pub struct FolderRename {
    /// Which folders; anchored to the whole name.
    pub from: regex::Regex,
    /// The new name; `$1` inserts a group.
    pub to: String,
    /// Which folders, as it was written.
    pub text: String,
}

impl FolderRename {
    /// A rule from a regular expression for the whole name (with or without slashes around it) and the new name.
    ///
    /// # Errors
    /// Configuration, naming the pattern, when it can't be read.
    pub fn parse(from: &str, to: &str) -> Result<Self> {
        let bare = from.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')).unwrap_or(from);
        Ok(Self { from: anchored(bare)?, to: to.to_owned(), text: from.to_owned() })
    }

    /// The new name of a decoded folder name, if the rule is for it.
    #[must_use]
    pub(crate) fn apply(&self, name: &str) -> Option<String> {
        let expand = |name: &str| {
            let captures = self.from.captures(name)?;
            let mut new = String::new();
            captures.expand(&self.to, &mut new);
            Some(new)
        };
        expand(name).or_else(|| any_case_inbox(name)?.iter().find_map(|name| expand(name)))
    }
}

const ANCHORED: (&str, &str) = (r"\A(?:", r")\z");

fn anchored(text: &str) -> Result<regex::Regex> {
    regex::Regex::new(&format!("{}{text}{}", ANCHORED.0, ANCHORED.1)).map_err(|error| {
        let why = match error {
            regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
            // The regex crate draws the pattern over several lines; its last line says why.
            other => other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        };
        Error::configuration(format!("folder pattern `/{text}/` is not a regular expression: {why}"))
    })
}

fn written(regex: &regex::Regex) -> &str {
    let text = regex.as_str();
    text.strip_prefix(ANCHORED.0).and_then(|rest| rest.strip_suffix(ANCHORED.1)).unwrap_or(text)
}

/// INBOX is INBOX in any case: the spellings that people write in patterns.
fn any_case_inbox(name: &str) -> Option<[String; 2]> {
    let rest = name.strip_prefix("INBOX").filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
    Some([format!("inbox{rest}"), format!("Inbox{rest}")])
}

/// Which messages are synced. What a rule leaves out is counted and reported by rule, and is looked at again on each run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageFilter {
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
pub enum FlagHandling {
    /// What changed at the source since the checkpoint is changed at the destination.
    #[default]
    SourceWins,
    /// Flags are set when a message is copied and never touched again.
    Ignore,
}

/// What happens to copies whose source message was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeletionHandling {
    /// They stay.
    #[default]
    Keep,
    /// They are removed by UID EXPUNGE, if Mailferry appended them itself; see the engine's guards.
    Mirror,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        FolderPattern::parse(pattern).unwrap().matches(name)
    }

    #[test]
    fn other_folders_are_looked_at_where_more_than_half_was_found_or_a_person_asks_for_it() {
        let looks = |scope: AdoptScope| {
            [(5, 5), (6, 5), (0, 1), (9, 0)].map(|(found, left)| scope.looks_elsewhere(found, left))
        };
        assert_eq!(looks(AdoptScope::Auto), [false, true, false, false]);
        assert_eq!(looks(AdoptScope::Mailbox), [true, true, true, false]);
        assert_eq!(looks(AdoptScope::Folder), [false; 4]);
        assert_eq!(looks(AdoptScope::Nowhere), [false; 4]);
    }

    #[test]
    fn a_star_stays_in_its_level_and_two_cross_levels() {
        assert!(matches("Archive/*", "Archive/2020"));
        assert!(!matches("Archive/*", "Archive/2020/May"));
        assert!(matches("Archive/**", "Archive/2020/May"));
        assert!(matches("**/Old", "a/b/Old"));
        assert!(matches("*", "Sent"));
        assert!(!matches("*", "a/b"));
        assert!(!matches("Sent", "sent"));
        assert!(matches("{Sent,Trash}", "Trash"));
    }

    #[test]
    fn a_regex_is_for_the_whole_name() {
        assert!(matches("/a|b/", "b"));
        assert!(!matches("/a|b/", "ab"));
        assert!(matches("/Project.*/", "Projects/x"));
    }

    #[test]
    fn inbox_matches_in_any_case() {
        assert!(matches("inbox", "INBOX"));
        assert!(matches("/Inbox/", "INBOX"));
        assert!(matches("inbox/*", "INBOX/x"));
        assert!(!matches("inboxes", "INBOXES"));
    }

    #[test]
    fn a_pattern_names_a_folder_when_it_is_not_for_every_folder() {
        let names = |pattern: &str, name: &str| FolderPattern::parse(pattern).unwrap().names(name);
        for pattern in ["Calendar/**", "Cal*/Birthdays", "/Calendar.*/", "{Calendar,Tasks}/Birthdays"] {
            assert!(names(pattern, "Calendar/Birthdays"), "{pattern}");
        }
        for pattern in ["**", "*/*", "*/Birthdays", "/.*/", "Tasks"] {
            assert!(!names(pattern, "Calendar/Birthdays"), "{pattern}");
        }
        assert!(names("Calendar", "Calendar") && !names("*", "Calendar"));
    }

    #[test]
    fn a_bad_pattern_is_named() {
        for (bad, kind) in [("[a", "glob"), ("/(a/", "regular expression")] {
            let error = FolderPattern::parse(bad).unwrap_err();
            assert_eq!(error.class, crate::ErrorClass::Configuration);
            assert!(error.what.contains(bad) && error.what.contains(kind), "{}", error.what);
            assert!(!error.what.contains('\n'));
        }
        assert!(FolderRename::parse("(", "x").unwrap_err().what.contains("`/(/`"));
    }

    #[test]
    fn a_pattern_is_shown_as_it_was_written() {
        assert_eq!(FolderPattern::parse("/a.*/").unwrap().text(), "/a.*/");
        assert_eq!(FolderPattern::parse("a/**").unwrap().text(), "a/**");
    }

    #[test]
    fn a_rename_inserts_groups_and_leaves_others_alone() {
        let rule = FolderRename::parse("Old/(.*)", "Archive/$1").unwrap();
        assert_eq!(rule.apply("Old/x").as_deref(), Some("Archive/x"));
        assert_eq!(rule.apply("Older/x"), None);
        assert_eq!(FolderRename::parse("inbox", "Main").unwrap().apply("INBOX").as_deref(), Some("Main"));
    }
}
