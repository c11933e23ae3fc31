//! Carries flag changes to the destination by +FLAGS and -FLAGS, never as a replacement.

use std::collections::BTreeMap;

use super::{
    checkpoint::FolderState,
    flag_changes::{FlagChanges, UidsByFlag, next_base},
    found_copies::FoundCopies,
    live_checkpoint::LiveCheckpoint,
    message_limit::command_sets,
    report::FolderReport,
    scan::FlagBytes,
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

/// UIDs are shown up to so many bytes.
const SHOWN_UIDS: usize = 200;

/// Flags of messages that were copied before, as the source says now.
#[derive(Debug, Default)]
pub(crate) struct CurrentFlags {
    /// Messages whose flags were told.
    pub seen: UidSet<SourceUid>,
    /// Their flags, as far as they can be sent.
    pub flags: UidsByFlag<SourceUid>,
    /// Memory that the flags take.
    flag_bytes: FlagBytes,
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
                None if self.flag_bytes.has_room_for(flag) => {
                    self.flags.insert(flag.to_owned(), std::iter::once(uid).collect());
                }
                None => {}
            }
        }
    }

    /// True to what the server told only if this is OK.
    ///
    /// # Errors
    /// Protocol, when it told more different flags than are held.
    pub(super) fn check(&self) -> Result<()> {
        self.flag_bytes.check()
    }
}

/// Copies whose flags changed at the source since the checkpoint, and whose UIDs at the destination are not known.
pub(crate) fn unplaced_changes(state: &FolderState, news: &CurrentFlags) -> UidSet<SourceUid> {
    let seen = news.seen.intersection(&state.followed_uids());
    FlagChanges::since(&state.flags, &news.flags, &seen).at_destination(&state.map.index()).1
}

/// Flag changes that were sent to the destination, and whose answers are asked for later: what else is done meanwhile costs
/// no round trip more.
pub(crate) struct SentFlagChanges {
    removed: SentStores,
    added: SentStores,
    /// Messages whose flags the source told.
    seen: UidSet<SourceUid>,
    /// Changed messages whose copies have no known UID.
    unplaced: UidSet<SourceUid>,
}

/// Sends to the destination what changed at the source since the checkpoint; none when there is nothing of that.
///
/// # Errors
/// When the checkpoint knows nothing of the folder.
pub(crate) fn send_flag_changes(
    live_checkpoint: &LiveCheckpoint,
    source_raw: &[u8],
    news: &CurrentFlags,
    selected: &SelectedFolder,
    destination: &mut Session,
) -> Result<Option<SentFlagChanges>> {
    let ((mut changes, unplaced), seen) = live_checkpoint.update_folder(source_raw, |state| {
        let seen = news.seen.intersection(&state.followed_uids());
        let changes = FlagChanges::since(&state.flags, &news.flags, &seen);
        (changes.at_destination(&state.map.index()), seen)
    })?;
    if seen.is_empty() {
        return Ok(None);
    }
    if destination.server_kind() == ServerKind::Gmail {
        // It expunges what is marked as deleted, by default at once.
        changes.add.retain(|flag, _| !flag.eq_ignore_ascii_case("\\Deleted"));
    }
    // Removals first: a keyword whose spelling changed is one keyword for most servers.
    let removed = SentStores::send(destination, "-FLAGS.SILENT", &changes.remove, None);
    let added = SentStores::send(destination, "+FLAGS.SILENT", &changes.add, Some(selected));
    Ok(Some(SentFlagChanges { removed, added, seen, unplaced }))
}

/// Waits until every STORE was answered, and remembers the source's flags only then. Gives the number of messages changed.
///
/// # Errors
/// When the connection ends or the destination is over its limits; a flag that it does not take is reported.
pub(crate) async fn finish_flag_changes(
    live_checkpoint: &LiveCheckpoint,
    source_raw: &[u8],
    news: &CurrentFlags,
    sent: SentFlagChanges,
    destination: &mut Session,
    report: &mut FolderReport,
) -> Result<u64> {
    let SentFlagChanges { removed, added, seen, unplaced } = sent;
    for uid in unplaced.iter() {
        let what =
            "its flags changed at the source, and its copy could not be found at the destination, which tells no UIDs";
        report.add_difference(uid, "flags", what);
    }
    let removed = removed.finish(destination).await?;
    let added = added.finish(destination).await?;
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
/// As [`finish_flag_changes`].
pub(crate) async fn add_missing_flags(
    destination: &mut Session,
    selected: &SelectedFolder,
    found: &FoundCopies,
    report: &mut FolderReport,
) -> Result<u64> {
    let changes = FlagChanges::for_adopted(&found.missing_flags);
    let added =
        SentStores::send(destination, "+FLAGS.SILENT", &changes.add, Some(selected)).finish(destination).await?;
    for refused in &added.refused {
        let sources =
            found.copies.iter().filter(|copy| refused.copies.contains(copy.destination)).map(|copy| copy.source);
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
    let outcome = SentStores::send(destination, "+FLAGS.SILENT", lost, None).finish(destination).await?;
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
            let copies: Vec<String> = copies.chunks(SHOWN_UIDS).take(2).collect();
            let (shown, more) = (copies.first().map_or("", String::as_str), if copies.len() > 1 { ",..." } else { "" });
            let what = format!("{flag} could not be changed at the destination (its UIDs {shown}{more}): {why}");
            report.list_difference(first, what);
        }
    }
}

/// STOREs that were sent in one go.
struct SentStores {
    tags: Vec<Tag>,
    /// What each of them asks for.
    asked: Vec<(String, UidSet<DestinationUid>)>,
    /// What was not even sent.
    refused: Vec<RefusedFlag>,
}

impl SentStores {
    fn send(
        destination: &mut Session,
        how: &str,
        sets: &UidsByFlag<DestinationUid>,
        selected: Option<&SelectedFolder>,
    ) -> Self {
        let mut sent = Self { tags: Vec::new(), asked: Vec::new(), refused: Vec::new() };
        for (flag, uids) in sets {
            if selected.is_some_and(|s| !s.may_keep_flag(&Flag::parse(flag.as_bytes()))) {
                let why = "the destination does not keep it".to_owned();
                sent.refused.push(RefusedFlag { flag: flag.clone(), copies: uids.clone(), why });
                continue;
            }
            for set in command_sets(destination, uids) {
                let tag = destination.send_command(&format!("UID STORE {set} {how} ({flag})"));
                destination.defer(tag);
                sent.tags.push(tag);
                sent.asked.push((flag.clone(), UidSet::parse(&set).unwrap_or_default()));
            }
        }
        sent
    }

    async fn finish(self, destination: &mut Session) -> Result<StoreOutcome> {
        let mut outcome = StoreOutcome { changed: UidSet::default(), refused: self.refused };
        let lines = destination.wait_all(&self.tags, |_| {}).await?;
        for (line, (flag, copies)) in lines.into_iter().zip(self.asked) {
            match line.status {
                StatusCondition::Ok => outcome.changed = outcome.changed.union(&copies),
                _ if is_own_fault(destination, &line) => {
                    outcome.refused.push(RefusedFlag { flag, copies, why: line.text });
                }
                _ => return Err(destination.refusal_error(&line, CommandKind::Other, "STORE")),
            }
        }
        Ok(outcome)
    }
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
