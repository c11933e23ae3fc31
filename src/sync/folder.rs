//! One folder on one pair of connections: open, scan, settle doubts, copy, flags, deletions, close. Can be run again from
//! the beginning after any failure; the checkpoint and [`Memory`] hold what was done.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    breaker::Breakers,
    checkpoint::{FolderState, Settled},
    copy::{CopyContext, Memory, Quiet},
    doubt::{Doubt, Found, Look, apart},
    filter::{MessageFacts, left_out},
    ledger::Ledger,
    lookup::{all_uids, still_there},
    mirror::mirror_deletions,
    open::{Opened, may_come_whole, open_destination, open_source},
    pair::Pair,
    passes::FolderCopy,
    progress::Progress,
    readback::read_back,
    report::{FolderReport, MAX_LISTED},
    scan::{Scan, Scanned, scan_set},
    set_aside::{DestinationFacts, SetAside, SetAsideGroup, SetAsideReason, TryFacts},
    spec::{DeletePolicy, FlagPolicy, SyncSpec},
    store_flags::{add_missing, follow},
    suspects::Earlier,
    uid_map::Origin,
};
use crate::{
    error::{Error, ErrorClass, Result},
    imap::{UidSet, response::Flag, select::Selected},
};

/// What a folder's sync needs to know that does not change.
#[derive(Debug, Clone)]
pub struct Job {
    /// Raw names.
    pub source_raw: Vec<u8>,
    /// Raw name at the destination.
    pub destination_raw: Vec<u8>,
    /// Decoded names, for people.
    pub source_name: String,
    /// Decoded name at the destination.
    pub destination_name: String,
    /// The destination folder was made by this run, or does not exist in a dry run: nothing can be in it.
    pub new_at_destination: bool,
    /// An APPEND of an earlier attempt, or of a lost connection, may be in doubt.
    pub in_doubt: bool,
    /// Two looks must agree before anything is sent; for the order of work.
    pub needs_look: bool,
    /// Messages at the source, as listed; for the order of work.
    pub messages: u32,
    /// The source's STATUS, to be remembered when all is done.
    pub status: Option<Settled>,
    /// The destination as it was when it was listed.
    pub look: Option<Look>,
    /// The destination's APPENDLIMIT for this folder, bytes.
    pub append_limit: Option<u64>,
    /// The source folder's MAILBOXID.
    pub mailbox_id: Option<String>,
    /// The destination is known to end messages with a line end that have none.
    pub adds_newline: bool,
    /// Bytes in the source folder, where its server tells.
    pub bytes: Option<u64>,
    /// The destination folder was empty when it was listed.
    pub was_empty: bool,
}

impl Job {
    /// An empty report of this folder.
    #[must_use]
    pub fn report(&self) -> FolderReport {
        FolderReport {
            source_raw: self.source_raw.clone(),
            source: self.source_name.clone(),
            destination: self.destination_name.clone(),
            source_messages: u64::from(self.messages),
            ..FolderReport::default()
        }
    }
}

/// What the folders of one mailbox share.
pub struct Shared {
    /// What to do.
    pub spec: Arc<SyncSpec>,
    /// The checkpoint.
    pub ledger: Arc<Ledger>,
    /// Live counters.
    pub progress: Arc<Progress>,
    /// Asks to end soon.
    pub stop: CancellationToken,
    /// Bytes that one pair may have requested and not yet written.
    pub budget: u64,
    /// Stop the asking while a server is unwell.
    pub breakers: Breakers,
    /// Lets one connection append alone.
    pub quiet: Quiet,
    /// Name and version by which the destination introduced itself.
    pub destination_server: Option<String>,
}

impl Shared {
    /// What decides whether set-aside messages are tried, for a folder with this APPENDLIMIT.
    #[must_use]
    pub fn try_facts(&self, append_limit: Option<u64>) -> TryFacts {
        let destination = DestinationFacts { append_limit, server: self.destination_server.clone() };
        self.spec.try_facts(destination)
    }
}

/// Whether a folder was finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All is done.
    Complete,
    /// It was asked to stop; the pair of connections is of no more use.
    Stopped,
}

/// How a folder's work begins, decided from the checkpoint and what both servers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// There is no checkpoint that counts: whatever is at the destination is matched.
    Match,
    /// The checkpoint counts, but an APPEND may be in doubt.
    Tail,
    /// The checkpoint counts and nothing is in doubt.
    Delta,
}

/// How a folder's work begins.
#[must_use]
pub fn start(state: Option<&FolderState>, in_doubt: bool, source_validity: u32, destination_validity: u32) -> Start {
    match state {
        Some(state)
            if state.source_uid_validity == source_validity
                && state.destination_uid_validity == destination_validity =>
        {
            if in_doubt {
                Start::Tail
            } else {
                Start::Delta
            }
        }
        _ => Start::Match,
    }
}

/// Syncs one folder.
///
/// # Errors
/// What ended it; after errors of the connection it can be run again on new ones.
pub async fn sync_folder(
    shared: &Shared,
    job: &Job,
    pair: &mut Pair,
    memory: &mut Memory,
    report: &mut FolderReport,
) -> Result<Ended> {
    let state = shared.ledger.read(|checkpoint| checkpoint.folders.get(&job.source_raw).cloned());
    let kept = state.clone();
    let state = state.filter(|state| !state.reduced);
    // Only once: what ends the connection may be one message.
    let whole = may_come_whole(shared, job, state.as_ref()) && !std::mem::replace(&mut memory.came_whole, true);
    let Pair { source, destination } = pair;
    // The source is listed meanwhile: with many messages that takes as long as the wait.
    let look_and_open = async {
        match wait_for_look(shared, job, state.as_ref(), destination.round_trip()).await {
            Ended::Complete => open_destination(shared, job, destination).await.map(Some),
            Ended::Stopped => Ok(None),
        }
    };
    let (opened_source, opened_destination) =
        tokio::join!(open_source(shared, job, source, state.as_ref(), whole), look_and_open);
    let (mut source, Some(destination)) = (opened_source?, opened_destination?) else {
        return Ok(Ended::Stopped);
    };
    if !shared.spec.dry_run && destination.read_only {
        return Err(pair.destination.blame(
            Error::new(ErrorClass::Authorization, format!("{} can only be read", job.destination_name))
                .advice("Give the destination's user the right to write to it"),
        ));
    }

    let begin = start(state.as_ref(), job.in_doubt, source.selected.uid_validity, destination.uid_validity);
    if begin == Start::Match && source.all.is_some() {
        // The listing promised another UIDVALIDITY: what was asked for on that promise is of no use.
        source = open_source(shared, job, &mut pair.source, None, false).await?;
    }
    let known = state.filter(|_| begin != Start::Match);
    let append_limit = job.append_limit.or_else(|| pair.destination.capabilities().append_limit());
    let facts = shared.try_facts(append_limit);
    let set_aside = carried(kept.as_ref(), &source.selected, destination.uid_validity);
    let due = set_aside.due(&facts);
    let copied = known.as_ref().map(|state| state.map.copied().clone()).unwrap_or_default();
    let done = copied.union(&set_aside.uids().difference(&due));
    if source.all.is_none() && source.scan.messages.len() < source.selected.exists as usize {
        // Fewer were listed than there are: which are missing?
        source.all = Some(all_uids(&mut pair.source).await?.union(&source.scan.uids()));
    }
    let all = source.all.take().unwrap_or_else(|| source.scan.uids());
    report.source_messages = all.len();
    report.left_out.clear();
    let first = !std::mem::replace(&mut memory.counted, true);
    if first {
        report.copied_before = known.as_ref().map_or(0, |state| state.map.copied().intersection(&all).len());
    }

    let wanted = all.difference(&done);
    let unscanned = wanted.difference(&source.scan.uids());
    if !unscanned.is_empty() {
        scan_set(&mut pair.source, &unscanned, &mut source.scan).await?;
        source.scan.finish();
    }
    let mut new_aside: Vec<SetAsideGroup> = Vec::new();
    let unlisted = wanted.difference(&source.scan.uids());
    if !unlisted.is_empty() {
        let there = still_there(&mut pair.source, &unlisted).await?;
        let why = "the source counts it but tells nothing of it; every run tries it";
        new_aside.push(SetAsideGroup::without_refusal(
            SetAsideReason::Unreadable,
            ErrorClass::Protocol,
            why,
            &facts,
            there,
        ));
    }
    let (mut work, too_large) = choose(shared, append_limit, &source.scan, &wanted, report);
    let why = "it is larger than the destination says that it takes (APPENDLIMIT)";
    new_aside.push(SetAsideGroup::without_refusal(
        SetAsideReason::TooLarge,
        ErrorClass::MessageRejected,
        why,
        &facts,
        too_large,
    ));
    if first {
        Progress::add(&shared.progress.messages_total, work.len() as u64);
        let bytes = work.iter().map(|m| u64::from(m.size)).sum();
        Progress::add(&shared.progress.bytes_total, bytes);
        shared.progress.whole.scanned(job.bytes, report.copied_before, bytes);
    }

    let found = settle_doubt(job, (begin, known.as_ref()), &source.scan, &work, &destination, pair, memory).await?;
    if begin != Start::Delta {
        // What was refused was looked for, too.
        for f in &found {
            memory.suspects.found(f.source);
        }
        memory.suspects.looked();
    }
    let adopted: UidSet = found.iter().map(|f| f.source).collect();
    let adopted_bytes = work.iter().filter(|m| adopted.contains(m.uid)).map(|m| u64::from(m.size)).sum();
    work.retain(|m| !adopted.contains(m.uid));
    let unknown = known.as_ref().map(|state| state.map.unknown()).unwrap_or_default();
    let newly_adopted = adopted.difference(&unknown).len();
    if shared.spec.dry_run {
        report.adopted += newly_adopted;
        report.copied_now = work.len() as u64;
        report.bytes_now = work.iter().map(|m| u64::from(m.size)).sum();
        foretell(shared, &source, set_aside, new_aside, &adopted, &all, report);
        return Ok(Ended::Complete);
    }

    // Before the checkpoint says that the source's flags are there: what breaks off here is found and done again.
    if shared.spec.flag_policy == FlagPolicy::SourceWins {
        report.flags_updated += add_missing(&mut pair.destination, &destination, &found, report).await?;
    }
    if first {
        for message in work.iter().filter(|m| due.contains(m.uid)) {
            try_again(memory, &set_aside, message);
        }
    }
    let aside = Aside { carried: set_aside, new: new_aside, due: &due, held: &all, first };
    record_start(shared, job, begin, &source, &destination, &found, aside, memory.suspects.doubt_from);
    if first {
        tell_untold(shared, job, report)?;
    }
    report.adopted += newly_adopted;
    Progress::add(&shared.progress.messages_done, adopted.len());
    Progress::add(&shared.progress.whole.bytes_before, adopted_bytes);

    let context = CopyContext {
        source_raw: &job.source_raw,
        destination_raw: &job.destination_raw,
        selected: &destination,
        scan: &source.scan,
        ledger: &shared.ledger,
        progress: &shared.progress,
        stop: &shared.stop,
        budget: shared.budget,
        adds_newline: job.adds_newline,
        append_limit,
        breakers: &shared.breakers,
        quiet: &shared.quiet,
    };
    let bodies = std::mem::take(&mut source.bodies);
    let copying = FolderCopy {
        shared,
        job,
        context,
        pair: &mut *pair,
        memory: &mut *memory,
        report: &mut *report,
        work,
        finished: UidSet::default(),
    };
    let copied = copying.run(bodies).await;
    note_facts(shared, job, &source.scan, report);
    if copied? == Ended::Stopped {
        // What was refused may have been stored all the same.
        let in_doubt = memory.suspects.doubt_from.is_some();
        shared.ledger.folder(&job.source_raw, |state| state.open = in_doubt)?;
        return Ok(Ended::Stopped);
    }
    resolve_unknown(shared, job, &source.scan, pair, memory).await?;
    read_back(pair, &source.scan, std::mem::take(&mut memory.read_back), report).await?;
    if shared.spec.flag_policy == FlagPolicy::SourceWins && begin != Start::Match {
        let changed =
            follow(&shared.ledger, &job.source_raw, &source.news, &destination, &mut pair.destination, report).await?;
        report.flags_updated += changed;
    }
    if shared.spec.delete_policy == DeletePolicy::Mirror && begin != Start::Match {
        let (raw, opened) = (&job.source_raw, &source.selected);
        report.deleted += mirror_deletions(&shared.ledger, raw, opened, &all, &mut pair.destination, report).await?;
    }
    finish(shared, job, &source.selected, report)?;
    Ok(Ended::Complete)
}

/// An empty destination folder need not be searched if it is still empty long enough after it was listed: so it is opened
/// only then.
async fn wait_for_look(shared: &Shared, job: &Job, state: Option<&FolderState>, round_trip: Duration) -> Ended {
    let Some(look) = job.look.filter(|_| job.was_empty && job.messages > 0 && state.is_none()) else {
        return Ended::Complete;
    };
    if job.new_at_destination || shared.spec.dry_run {
        return Ended::Complete;
    }
    tokio::select! {
        () = tokio::time::sleep_until(look.at + apart(round_trip, &[])) => Ended::Complete,
        () = shared.stop.cancelled() => Ended::Stopped,
    }
}

/// Which of the wanted messages are copied: what rules leave out and what the destination cannot take is told.
fn choose(
    shared: &Shared,
    append_limit: Option<u64>,
    scan: &Scan,
    wanted: &UidSet,
    report: &mut FolderReport,
) -> (Vec<Scanned>, UidSet) {
    let (mut work, mut too_large) = (Vec::new(), UidSet::default());
    for message in scan.messages.iter().filter(|m| wanted.contains(m.uid)) {
        let facts = MessageFacts {
            size: Some(u64::from(message.size)),
            date_epoch: message.date().map(|d| d.epoch),
            deleted: scan.flags(message).contains(&Flag::Deleted),
        };
        if let Some(rule) = left_out(&shared.spec.messages, facts) {
            *report.left_out.entry(rule.to_owned()).or_default() += 1;
            continue;
        }
        if append_limit.is_some_and(|limit| u64::from(message.size) > limit) {
            too_large.insert(message.uid);
            continue;
        }
        work.push(*message);
    }
    (work, too_large)
}

/// Finds what may be at the destination already.
pub async fn settle_doubt(
    job: &Job,
    (begin, known): (Start, Option<&FolderState>),
    scan: &Scan,
    work: &[Scanned],
    destination: &Selected,
    pair: &mut Pair,
    memory: &mut Memory,
) -> Result<Vec<Found>> {
    let nothing = UidSet::default();
    let (known_uids, from, by_content) = match (begin, known) {
        (Start::Delta, _) => return Ok(Vec::new()),
        (Start::Tail, Some(state)) => (state.map.destination_uids(), state.tail_from.max(1), true),
        _ if job.new_at_destination => return Ok(Vec::new()),
        _ => (&nothing, 1, false),
    };
    // Copies whose UID is unknown lie in the tail too: they take part in the matching, or a twin would take their place.
    let unknown = known.map(|state| state.map.unknown()).unwrap_or_default();
    let mut candidates: Vec<Scanned> = scan.messages.iter().filter(|m| unknown.contains(m.uid)).copied().collect();
    if !unknown.is_empty() {
        let mut old = Scan::default();
        scan_set(&mut pair.source, &unknown.difference(&scan.uids()), &mut old).await?;
        old.finish();
        candidates.extend(old.messages);
    }
    candidates.extend_from_slice(work);
    candidates.sort_by_key(|m| m.uid);
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    if begin == Start::Match
        && let Some(look) = job.look
        && job.was_empty
        && destination.exists == 0
        && destination.uid_next == Some(look.uid_next)
        && look.at.elapsed() >= apart(pair.destination.round_trip(), work)
    {
        return Ok(Vec::new());
    }
    let before = job.look.or_else(|| destination.uid_next.map(|uid_next| Look { at: Instant::now(), uid_next }));
    let doubt = Doubt { scan, work: &candidates, certain: &unknown, known: known_uids, from, by_content, before };
    doubt.resolve(&mut pair.source, &mut pair.destination, &mut memory.trouble).await
}

/// What is set aside when a folder's copying begins.
struct Aside<'a> {
    /// By earlier runs.
    carried: SetAside,
    /// By what both sides have said so far.
    new: Vec<SetAsideGroup>,
    /// What this run tries again.
    due: &'a UidSet,
    /// All that the source holds.
    held: &'a UidSet,
    /// It is this run's first look at the folder.
    first: bool,
}

/// What earlier runs set aside, as far as it still counts: the folder on both sides is the one that it was.
fn carried(state: Option<&FolderState>, source: &Selected, destination_validity: u32) -> SetAside {
    let same = |state: &&FolderState| {
        state.source_uid_validity == source.uid_validity && state.destination_uid_validity == destination_validity
    };
    state.filter(same).map(|state| state.set_aside.clone()).unwrap_or_default()
}

/// A refused message of an earlier run is tried with those that are refused by this one; what the source could not deliver,
/// or was too large, is ordinary work now.
fn try_again(memory: &mut Memory, set_aside: &SetAside, message: &Scanned) {
    let Some(group) = set_aside.of(message.uid) else { return };
    if matches!(group.reason, SetAsideReason::Refused | SetAsideReason::Empty) {
        let earlier = Earlier { proven: group.proven, tries: group.tries, runs: group.runs };
        let error = Error::new(group.class, format!("the server refused APPEND: {}", group.why));
        memory.suspects.try_again(message, error, group.why.clone(), earlier);
    }
}

/// Messages that were found at the destination are copied as far as the checkpoint is concerned.
pub fn take_found(state: &mut FolderState, scan: &Scan, found: &[Found]) {
    state.set_aside.remove(&found.iter().map(|f| f.source).collect());
    let unknown = state.map.unknown();
    let resolved: Vec<(u32, u32)> =
        found.iter().filter(|f| unknown.contains(f.source)).map(|f| (f.source, f.destination)).collect();
    state.map.resolve(&resolved);
    for f in found.iter().filter(|f| !unknown.contains(f.source)) {
        state.map.push(f.source, Some(f.destination), Origin::Adopted);
        if let Ok(at) = scan.messages.binary_search_by_key(&f.source, |m| m.uid)
            && let Some(message) = scan.messages.get(at)
        {
            for flag in scan.flags(message).iter().filter_map(Flag::sendable) {
                state.flags.entry(flag.to_owned()).or_default().insert(f.source);
            }
        }
    }
}

/// Tells after a dry run what would not be copied, as far as that is known.
fn foretell(
    shared: &Shared,
    source: &Opened,
    mut set_aside: SetAside,
    new: Vec<SetAsideGroup>,
    adopted: &UidSet,
    held: &UidSet,
    report: &mut FolderReport,
) {
    for group in new {
        set_aside.put(group);
    }
    set_aside.remove(adopted);
    set_aside.keep(held);
    let refused = |group: &&SetAsideGroup| matches!(group.reason, SetAsideReason::Refused | SetAsideReason::Empty);
    let again: u64 = set_aside.groups().iter().filter(refused).map(|group| group.uids.len()).sum();
    report.copied_now = report.copied_now.saturating_sub(again);
    let source_uid_validity = source.selected.uid_validity;
    let state = FolderState { source_uid_validity, set_aside, ..FolderState::default() };
    report.tell_set_aside(&state, &shared.spec.accepted_losses);
}

/// Remembers size and date of what was set aside, for the report.
fn note_facts(shared: &Shared, job: &Job, scan: &Scan, report: &mut FolderReport) {
    let read = |state: &FolderState| state.set_aside.uids();
    let uids = shared.ledger.read(|checkpoint| checkpoint.folders.get(&job.source_raw).map(read)).unwrap_or_default();
    for message in scan.messages.iter().filter(|m| uids.contains(m.uid)).take(MAX_LISTED) {
        report.facts.insert(message.uid, (message.size.into(), message.date().map(|date| date.to_string())));
    }
}

/// Differences that no run which ended has told are told by this one.
fn tell_untold(shared: &Shared, job: &Job, report: &mut FolderReport) -> Result<()> {
    let untold = shared.ledger.folder(&job.source_raw, |state| state.differences.clone())?;
    for (kind, difference) in &untold.0 {
        *report.differences.entry(kind.clone()).or_default() += difference.count;
        for uid in &difference.first {
            report.note_difference(*uid, format!("its copy differs ({kind}), as an earlier run found"));
        }
    }
    Ok(())
}

/// Writes what is known before the first APPEND into the checkpoint.
#[allow(clippy::too_many_arguments)]
fn record_start(
    shared: &Shared,
    job: &Job,
    begin: Start,
    source: &Opened,
    destination: &Selected,
    found: &[Found],
    aside: Aside<'_>,
    doubt_from: Option<u32>,
) {
    shared.ledger.update(|checkpoint| {
        let state = checkpoint.folders.entry(job.source_raw.clone()).or_default();
        if begin == Start::Match {
            *state = FolderState {
                source_uid_validity: source.selected.uid_validity,
                destination_uid_validity: destination.uid_validity,
                // Flags as of this EXAMINE travel with the messages, or are added to adopted ones.
                highest_modseq: source.selected.highest_modseq,
                ..FolderState::default()
            };
        }
        take_found(state, &source.scan, found);
        state.set_aside = aside.carried;
        if aside.first {
            state.set_aside.pass_by(aside.due);
        }
        for group in aside.new {
            state.set_aside.put(group);
        }
        state.set_aside.remove(&found.iter().map(|f| f.source).collect());
        state.set_aside.keep(aside.held);
        state.settled = None;
        state.mailbox_id.clone_from(&job.mailbox_id);
        let next = destination.uid_next.or(job.look.map(|look| look.uid_next)).unwrap_or(1);
        // What was refused may have been stored: its place stays in the tail.
        let next = doubt_from.map_or(next, |from| from.min(next));
        state.tail_from = next.max(state.tail_from).max(1);
        // From here on an APPEND may be in doubt. A saved checkpoint said so before, or holds nothing of this folder.
        state.open = true;
    });
}

/// Finds the UIDs of copies that the destination did not tell (no UIDPLUS): flags and deletions need them.
async fn resolve_unknown(shared: &Shared, job: &Job, scan: &Scan, pair: &mut Pair, memory: &mut Memory) -> Result<()> {
    let (unknown, known, from) = shared.ledger.folder(&job.source_raw, |state| {
        (state.map.unknown(), state.map.destination_uids().clone(), state.tail_from)
    })?;
    let work: Vec<Scanned> = scan.messages.iter().filter(|m| unknown.contains(m.uid)).copied().collect();
    if work.is_empty() {
        return Ok(());
    }
    let from = from.max(1);
    let doubt =
        Doubt { scan, work: &work, certain: &unknown, known: &known, from, by_content: false, before: job.look };
    let found = doubt.resolve(&mut pair.source, &mut pair.destination, &mut memory.trouble).await?;
    let pairs: Vec<(u32, u32)> = found.iter().map(|f| (f.source, f.destination)).collect();
    shared.ledger.folder(&job.source_raw, |state| {
        state.map.resolve(&pairs);
        let next = state.map.destination_uids().last().map_or(1, |last| last.saturating_add(1));
        state.tail_from = state.tail_from.max(next);
    })
}

/// The folder is done: nothing is in doubt, and what the source said is remembered.
fn finish(shared: &Shared, job: &Job, selected: &Selected, report: &mut FolderReport) -> Result<()> {
    let doubts = !report.doubts.is_empty();
    let untold = std::mem::take(&mut report.untold);
    // What a rule leaves out today it may let through tomorrow: such a folder is looked at again.
    shared.ledger.folder(&job.source_raw, |state| {
        state.open = false;
        state.highest_modseq = selected.highest_modseq;
        state.settled = job.status.filter(|_| !doubts && report.left_out.is_empty());
        state.differences.join(untold);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> FolderState {
        FolderState { source_uid_validity: 1, destination_uid_validity: 2, ..FolderState::default() }
    }

    #[test]
    fn a_changed_uidvalidity_on_either_side_means_that_nothing_is_known() {
        assert_eq!(start(Some(&state()), false, 1, 2), Start::Delta);
        assert_eq!(start(Some(&state()), false, 9, 2), Start::Match);
        assert_eq!(start(Some(&state()), true, 1, 9), Start::Match);
        assert_eq!(start(None, true, 1, 2), Start::Match);
    }

    #[test]
    fn an_append_in_doubt_means_a_look_at_the_tail() {
        assert_eq!(start(Some(&state()), true, 1, 2), Start::Tail);
    }
}
