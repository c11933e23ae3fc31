//! Carries flag changes to the destination by +FLAGS and -FLAGS, never as a replacement.

use std::collections::BTreeMap;

use super::{
    checkpoint::FolderState,
    copy_search::FoundCopy,
    flag_changes::{FlagChanges, UidsByFlag, next_base},
    live_checkpoint::LiveCheckpoint,
    message_limit::command_sets,
    report::FolderReport,
    uid::{DestinationUid, SourceUid},
};
use crate::{
    error::{ErrorClass, Result},
    imap::{
        ServerKind, Session, Tag, UidSet,
        refusal::CommandKind,
        response::{Flag, StatusCondition, StatusLine},
        select::SelectedFolder,
    },
};

/// Flags of messages that were copied before, as the source says now.
#[derive(Debug, Default)]
pub(crate) struct CurrentFlags {
    /// Messages whose flags were told.
    pub seen: UidSet<SourceUid>,
    /// Their flags, as far as they can be sent.
    pub flags: UidsByFlag<SourceUid>,
}

impl CurrentFlags {
    /// Takes the flags of one message.
    pub(crate) fn record_flags(&mut self, uid: SourceUid, flags: &[Flag]) {
        if self.seen.contains(uid) {
            // Told twice: the later word counts.
            for set in self.flags.values_mut() {
                set.remove_range(uid, uid);
            }
        }
        self.seen.insert(uid);
        for flag in flags.iter().filter_map(Flag::sendable) {
            match self.flags.get_mut(flag) {
                Some(set) => set.insert(uid),
                None => {
                    self.flags.insert(flag.to_owned(), std::iter::once(uid).collect());
                }
            }
        }
    }
}

/// Copies whose flags changed at the source since the checkpoint, and whose UIDs at the destination are not known.
pub(crate) fn unplaced_changes(state: &FolderState, news: &CurrentFlags) -> UidSet<SourceUid> {
    let seen = news.seen.intersection(state.map.copied());
    FlagChanges::since(&state.flags, &news.flags, &seen).at_destination(&state.map.index()).1
}

/// Makes the destination's copies follow what changed at the source since the checkpoint. Returns once every STORE was
/// answered, and remembers the source's flags only then. Gives the number of messages changed.
///
/// # Errors
/// When the connection ends or the destination is over its limits; a flag that it does not take is reported.
pub(crate) async fn store_flag_changes(
    live_checkpoint: &LiveCheckpoint,
    source_raw: &[u8],
    news: &CurrentFlags,
    selected: &SelectedFolder,
    destination: &mut Session,
    report: &mut FolderReport,
) -> Result<u64> {
    let ((mut changes, unplaced), seen) = live_checkpoint.update_folder(source_raw, |state| {
        let seen = news.seen.intersection(state.map.copied());
        let changes = FlagChanges::since(&state.flags, &news.flags, &seen);
        (changes.at_destination(&state.map.index()), seen)
    })?;
    if seen.is_empty() {
        return Ok(0);
    }
    for uid in unplaced.iter() {
        let what =
            "its flags changed at the source, and its copy could not be found at the destination, which tells no UIDs";
        report.add_difference(uid, "flags", what);
    }
    if destination.server_kind() == ServerKind::Gmail {
        // It expunges what is marked as deleted, by default at once.
        changes.add.retain(|flag, _| !flag.eq_ignore_ascii_case("\\Deleted"));
    }
    // Removals first: a keyword whose spelling changed is one keyword for most servers.
    let removed = send_stores(destination, "-FLAGS.SILENT", &changes.remove, None).await?;
    let added = send_stores(destination, "+FLAGS.SILENT", &changes.add, Some(selected)).await?;
    live_checkpoint.update_folder(source_raw, |state| {
        for refused in removed.refused.iter().chain(&added.refused) {
            refused.report(&state.map.sources_of(&refused.copies), report);
        }
        state.flags = next_base(&state.flags, &news.flags, &seen);
    })?;
    Ok(removed.changed.union(&added.changed).len())
}

/// Adds to adopted messages the flags that [`FlagChanges::for_adopted`] grants them. Gives the number of messages
/// changed.
///
/// # Errors
/// As [`store_flag_changes`].
pub(crate) async fn add_missing_flags(
    destination: &mut Session,
    selected: &SelectedFolder,
    found: &[FoundCopy],
    report: &mut FolderReport,
) -> Result<u64> {
    let changes = FlagChanges::for_adopted(found);
    let added = send_stores(destination, "+FLAGS.SILENT", &changes.add, Some(selected)).await?;
    for refused in &added.refused {
        let sources = found.iter().filter(|copy| refused.copies.contains(copy.destination)).map(|copy| copy.source);
        refused.report(&sources.collect(), report);
    }
    Ok(added.changed.len())
}

/// Sets flags that APPEND did not keep. Gives what the server said of those that it does not take, by flag.
///
/// # Errors
/// When the connection ends, or the server is unwell.
pub(crate) async fn set_lost_flags(
    destination: &mut Session,
    lost: &UidsByFlag<DestinationUid>,
) -> Result<BTreeMap<String, String>> {
    let outcome = send_stores(destination, "+FLAGS.SILENT", lost, None).await?;
    Ok(outcome.refused.into_iter().map(|refused| (refused.flag, refused.why)).collect())
}

/// Adds one keyword to one message; gives what the server said when it does not take it.
///
/// # Errors
/// When the connection ends, or the server is unwell.
pub(crate) async fn add_keyword(
    destination: &mut Session,
    uid: DestinationUid,
    keyword: &str,
) -> Result<Option<String>> {
    let (line, _) = destination.run(&format!("UID STORE {uid} +FLAGS.SILENT ({keyword})")).await?;
    match line.status {
        StatusCondition::Ok => Ok(None),
        _ if is_own_fault(destination, &line) => Ok(Some(line.text)),
        _ => Err(destination.refusal_error(&line, CommandKind::Other, "STORE")),
    }
}

/// True when the flag may be to blame, and not the server.
fn is_own_fault(destination: &Session, line: &StatusLine) -> bool {
    let class = destination.refusal_class(line, CommandKind::Append);
    matches!(class, ErrorClass::MessageRejected | ErrorClass::Authorization | ErrorClass::Protocol)
}

/// What the destination answered to STOREs.
#[derive(Debug, Default)]
struct StoreOutcome {
    /// Copies that were changed.
    changed: UidSet<DestinationUid>,
    refused: Vec<RefusedFlag>,
}

/// A flag that the destination does not change on some copies.
#[derive(Debug)]
struct RefusedFlag {
    flag: String,
    copies: UidSet<DestinationUid>,
    /// For people.
    why: String,
}

impl RefusedFlag {
    /// Counts the difference for `sources`, the messages that these are the copies of.
    fn report(&self, sources: &UidSet<SourceUid>, report: &mut FolderReport) {
        let Self { flag, copies, why } = self;
        *report.differences.entry("flags".to_owned()).or_default() += sources.len();
        sources.iter().for_each(|uid| report.untold.add("flags", uid));
        if let Some(first) = sources.first() {
            let what = format!("{flag} could not be changed at the destination (its UIDs {copies}): {why}");
            report.list_difference(first, what);
        }
    }
}

/// Sends the STOREs in one go and waits for all.
async fn send_stores(
    destination: &mut Session,
    how: &str,
    sets: &UidsByFlag<DestinationUid>,
    selected: Option<&SelectedFolder>,
) -> Result<StoreOutcome> {
    let mut tags: Vec<Tag> = Vec::new();
    let mut asked: Vec<(&str, UidSet<DestinationUid>)> = Vec::new();
    let mut outcome = StoreOutcome::default();
    let refused = |flag: &str, copies: &UidSet<DestinationUid>, why: &str| RefusedFlag {
        flag: flag.to_owned(),
        copies: copies.clone(),
        why: why.to_owned(),
    };
    for (flag, uids) in sets {
        if selected.is_some_and(|s| !s.may_keep_flag(&Flag::parse(flag.as_bytes()))) {
            outcome.refused.push(refused(flag, uids, "the destination does not keep it"));
            continue;
        }
        for set in command_sets(destination, uids) {
            tags.push(destination.send_command(&format!("UID STORE {set} {how} ({flag})")));
            asked.push((flag, UidSet::parse(&set).unwrap_or_default()));
        }
    }
    let lines = destination.wait_all(&tags, |_| {}).await?;
    for (line, (flag, uids)) in lines.iter().zip(asked) {
        match line.status {
            StatusCondition::Ok => outcome.changed = outcome.changed.union(&uids),
            _ if is_own_fault(destination, line) => outcome.refused.push(refused(flag, &uids, &line.text)),
            _ => return Err(destination.refusal_error(line, CommandKind::Other, "STORE")),
        }
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_word_on_a_message_counts() {
        let mut news = CurrentFlags::default();
        news.record_flags(SourceUid(5), &[Flag::Seen, Flag::Flagged]);
        news.record_flags(SourceUid(5), &[Flag::Flagged]);
        assert!(!news.flags.get("\\Seen").is_some_and(|set| set.contains(SourceUid(5))));
        assert!(news.flags["\\Flagged"].contains(SourceUid(5)));
    }
}
