//! Before the first message: survey both accounts, plan where folders go, make what is missing, and find out which
//! folders changed at all.

use std::{collections::BTreeSet, sync::atomic::Ordering::Relaxed};

use tokio::time::Instant;

use super::{
    adopt::went_back,
    archived_mail::{ArchivedMail, LABELS, find_archived_mail, label_folders},
    checkpoint::{FolderState, QuiescentStatus},
    connection_pair::ConnectionPair,
    copy_search::DestinationSnapshot,
    creation_check::CreationCheck,
    folder_creation::{CreatedFolders, make_or_rename},
    folder_name::{FolderInfo, NameLimits, SideFolders},
    folder_plan::{FolderPlan, FolderPlanInput, PlannedFolder, RefusedPaths, plan_folders},
    job::FolderSyncJob,
    live_checkpoint::LiveCheckpoint,
    moved_copies::OtherFolder,
    progress::SyncProgress,
    renames::{RenameMemory, follow_renames, note_vanished},
    report::{FolderReport, MailboxReport},
    set_aside::DestinationFacts,
    spec::{AdoptScope, DeletionHandling, FlagHandling, SyncSpec},
    special_use::SpecialUse,
    views::HoldingFolder,
};
use crate::{
    error::{Error, ErrorClass, Result, Side},
    imap::{
        ServerKind, UidSet,
        account_listing::{AccountListing, ListedFolder, ListingMemory, list_account},
        response::FolderStatus,
    },
};

/// What is to be done.
pub(crate) struct PreparedFolders {
    /// Folders to open, in the order of work.
    pub jobs: Vec<FolderSyncJob>,
    /// Folders that are not opened: nothing changed in them, or they could not be made.
    pub closed: Vec<FolderReport>,
    /// Bytes in those where nothing changed, as far as the source tells.
    closed_bytes: u64,
    /// UIDNEXT of the source's INBOX, as listed.
    inbox_uid_next: Option<u32>,
    /// Name and version by which the destination introduced itself.
    pub destination_server: Option<String>,
    /// Folders of the destination in which its user may have put something.
    pub others: Vec<OtherFolder>,
}

impl PreparedFolders {
    /// Counts what there is, before anything is scanned.
    pub(crate) fn count(&self, progress: &SyncProgress) {
        let messages = self.jobs.iter().map(|job| u64::from(job.messages));
        let closed = self.closed.iter().map(|report| report.source_messages);
        SyncProgress::add(&progress.whole.messages, messages.chain(closed).sum());
        let before = self.closed.iter().map(|report| report.copied_before.min(report.source_messages));
        SyncProgress::add(&progress.whole.messages_before, before.sum());
        let bytes = self.jobs.iter().filter_map(|job| job.bytes).sum::<u64>();
        SyncProgress::add(&progress.whole.bytes, bytes + self.closed_bytes);
        SyncProgress::add(&progress.whole.bytes_before, self.closed_bytes);
        let untold = self.jobs.iter().filter(|job| job.bytes.is_none()).map(|job| u64::from(job.messages));
        SyncProgress::add(&progress.whole.messages_unsized, untold.sum());
        progress.whole.listed.store(true, Relaxed);
        if let Some(uid_next) = self.inbox_uid_next {
            progress.record_inbox_uid_next(uid_next);
        }
    }
}

/// What preparing found out about both servers, kept while connections come and go.
#[derive(Debug, Clone, Default)]
pub(crate) struct PreparationMemory {
    source: ListingMemory,
    destination: ListingMemory,
    renames: RenameMemory,
    archive: ArchiveMemory,
}

/// What looking for archived mail came to.
#[derive(Debug, Clone, Default)]
struct ArchiveMemory {
    /// So often it ended the connection.
    losses: u32,
    /// The last time.
    error: Option<Error>,
}

/// Where looking for archived mail ended so many connections, the other folders go on without it.
const MAX_LOSSES: u32 = 2;

impl PreparationMemory {
    /// Grows with each thing that was found out.
    #[must_use]
    pub(crate) fn steps(&self) -> u64 {
        self.source.steps() + self.destination.steps() + self.renames.steps() + u64::from(self.archive.losses)
    }
}

/// Prepares one mailbox's folders, as often as connections must be made for that.
pub(crate) struct FolderPreparation<'a> {
    pub spec: &'a SyncSpec,
    pub live_checkpoint: &'a LiveCheckpoint,
    pub report: &'a mut MailboxReport,
    pub memory: PreparationMemory,
}

impl FolderPreparation<'_> {
    /// Surveys, plans, makes folders and subscriptions, and writes into the checkpoint what must be known before anything
    /// is appended. As soon as it is known how many folders may need work, `grow` is told.
    ///
    /// # Errors
    /// When a connection ends or a side refuses what cannot be done without; Configuration when both sides turn out to be
    /// the same account.
    pub(crate) async fn prepare(
        &mut self,
        pair: &mut ConnectionPair,
        grow: impl FnOnce(usize),
    ) -> Result<PreparedFolders> {
        refuse_same_account(pair)?;
        let listings = self.list(pair).await?;
        self.report_provider(pair);
        follow_renames(pair, self.live_checkpoint, &listings.source, self.report, &mut self.memory.renames).await?;
        note_vanished(self.live_checkpoint, &listings.source, self.report);
        let frozen = self.live_checkpoint.read(|checkpoint| checkpoint.mapping.clone());
        let quirks = pair.destination.server_kind();
        let limits = NameLimits::for_server(quirks, listings.destination.delimiter);
        let (from, to) = (side_folders(&listings.source), side_folders(&listings.destination));
        let nothing_refused = RefusedPaths::default();
        let input = FolderPlanInput {
            source: &from,
            source_kind: pair.source.server_kind(),
            has_labels: pair.source.capabilities().has(LABELS),
            destination: &to,
            rules: &self.spec.folders,
            frozen: &frozen,
            limits: &limits,
            refused: &nothing_refused,
        };
        let mut plan = plan_folders(&input);
        // Further connections are made while folders are.
        grow(plan.folders.iter().filter(|folder| self.may_need_work(&listings.of(folder))).count());
        let mut made = CreatedFolders::default();
        if !self.spec.dry_run {
            made = make_or_rename(&input, &mut plan, &listings.destination, &mut pair.destination).await?;
            let lists_subscriptions = self.memory.destination.lists_subscriptions();
            let check = CreationCheck { side: &to, before: &listings.destination, lists_subscriptions };
            check.run(&mut plan, &mut made, &mut pair.destination).await?;
        }
        let mut archived = self.find_archived(pair, &plan, &from).await?;
        if let Some(Ok(archived)) = &archived {
            archived.tell_views(&mut plan.left_out);
        }
        self.record_plan(&plan, &made);

        let destination = DestinationFacts {
            append_limit: pair.destination.capabilities().append_limit(),
            server: listings.destination.server.clone(),
        };
        let mut prepared = PreparedFolders {
            jobs: Vec::new(),
            closed: Vec::new(),
            closed_bytes: 0,
            inbox_uid_next: listings.inbox_uid_next(),
            destination_server: destination.server.clone(),
            others: other_folders(&to),
        };
        for folder in plan.folders.iter().filter(|folder| !folder.is_container) {
            let listed = listings.of(folder);
            let created = made.created.contains(&folder.destination_raw);
            let mut job = FolderSyncJob {
                adds_newline: quirks == ServerKind::Courier,
                ..listed.job(created || (self.spec.dry_run && listed.destination.is_none()))
            };
            if folder.only_archived
                && let Err(error) = take_only_archived(&mut job, archived.take())
            {
                prepared.closed.push(FolderReport { error: Some(error), ..job.report() });
                continue;
            }
            match made.refused.get(&folder.destination_raw) {
                Some(error) => prepared.closed.push(FolderReport { error: Some(error.clone()), ..job.report() }),
                None => self.add_folder(&mut prepared, &listed, job, &destination),
            }
        }
        // Folders in which a look must be waited for come last, so that the wait costs nothing; large ones come first.
        prepared.jobs.sort_by_key(|job| (job.needs_look, std::cmp::Reverse(job.messages)));
        if !self.spec.dry_run {
            mark_in_doubt(self.live_checkpoint, &prepared.jobs).await?;
        }
        Ok(prepared)
    }

    /// Tells whose servers these are, and warns of a source that shows less than another host of its provider.
    fn report_provider(&mut self, pair: &ConnectionPair) {
        for session in [&pair.source, &pair.destination] {
            let endpoint = session.endpoint();
            let Some(provider) = session.facts.provider(endpoint) else { continue };
            tracing::info!(side = %endpoint.side, provider = provider.name, "the provider is known");
            if endpoint.side == Side::Source
                && let Some(better) = provider.better_source(&endpoint.host)
            {
                self.report.warn(better);
            }
        }
    }

    async fn list(&mut self, pair: &mut ConnectionPair) -> Result<PairListings> {
        let (source, destination) = tokio::join!(
            list_account(&mut pair.source, true, &mut self.memory.source),
            list_account(&mut pair.destination, false, &mut self.memory.destination)
        );
        Ok(PairListings { source: source?, destination: destination?, at: Instant::now() })
    }

    /// Finds out what a source of labels shows in its view of all only; none where that is not asked for. What it refuses
    /// concerns that one folder, and so does what ends connections again and again.
    async fn find_archived(
        &mut self,
        pair: &mut ConnectionPair,
        plan: &FolderPlan,
        source: &SideFolders,
    ) -> Result<Option<Result<ArchivedMail>>> {
        let Some(folder) = plan.folders.iter().find(|folder| folder.only_archived) else { return Ok(None) };
        if let Some(error) = self.memory.archive.error.clone().filter(|_| self.memory.archive.losses >= MAX_LOSSES) {
            return Ok(Some(Err(error)));
        }
        let all = HoldingFolder { raw: &folder.source_raw, name: &folder.source_name };
        let others = label_folders(source);
        let held: Vec<HoldingFolder<'_>> = others.iter().map(|(raw, name)| HoldingFolder { raw, name }).collect();
        let found = find_archived_mail(&mut pair.source, all, &held, &plan.left_out).await;
        match found {
            Err(error) if error.class == ErrorClass::Throttled || error.stated_wait.is_some() => Err(error),
            Err(error) if error.class == ErrorClass::Network => {
                self.memory.archive.losses += 1;
                self.memory.archive.error = Some(error.clone().in_folder(&folder.source_name));
                Err(error)
            }
            found => Ok(Some(found.map_err(|error| error.in_folder(&folder.source_name)))),
        }
    }

    /// True when the listings do not prove that a folder needs no work.
    fn may_need_work(&self, listed: &ListedPair<'_>) -> bool {
        let raw = &listed.folder.source_raw;
        let unchanged = self.live_checkpoint.read(|checkpoint| {
            match (checkpoint.folders.get(raw), listed.source, listed.destination) {
                (Some(state), Some(source), Some(there)) => is_unchanged(state, source, there, self.spec),
                _ => false,
            }
        });
        !listed.folder.is_container && !unchanged
    }

    /// Takes the plan, and what was made of it, into the report and the checkpoint.
    fn record_plan(&mut self, plan: &FolderPlan, made: &CreatedFolders) {
        self.report.subscribed += made.subscribed;
        for note in &made.notes {
            self.report.note(note.clone());
        }
        report_plan(plan, self.report);
        if self.spec.dry_run {
            return;
        }
        self.live_checkpoint.update(|checkpoint| {
            for folder in plan.folders.iter().filter(|f| !made.refused.contains_key(&f.destination_raw)) {
                checkpoint.mapping.insert(folder.source_raw.clone(), folder.destination_raw.clone());
            }
        });
    }

    /// Adds a folder that is there on both sides: to the work, or to what is not opened since nothing changed in it.
    fn add_folder(
        &self,
        prepared: &mut PreparedFolders,
        listed: &ListedPair<'_>,
        job: FolderSyncJob,
        destination: &DestinationFacts,
    ) {
        let state = self.live_checkpoint.read(|checkpoint| checkpoint.folders.get(&job.source_raw).cloned());
        let append_limit = job.append_limit.or(destination.append_limit);
        let facts = self.spec.try_facts(DestinationFacts { append_limit, ..destination.clone() });
        let source = listed.source.cloned().unwrap_or_default();
        let unchanged = state.as_ref().zip(listed.destination).is_some_and(|(state, there)| {
            is_unchanged(state, &source, there, self.spec) && state.set_aside.due_uids(&facts).is_empty()
        });
        let Some(state) = state.as_ref().filter(|_| unchanged) else {
            let holds_nothing = job.new_at_destination || job.was_empty;
            let statuses = (listed.source, listed.destination);
            let matches_first = matches_first(state.as_ref(), statuses, holds_nothing, self.spec.adopt);
            let in_doubt = state.as_ref().is_some_and(|state| state.append_in_doubt);
            let knows_little = state.as_ref().is_none_or(FolderState::is_known_by_samples);
            let uid_next = listed.destination.and_then(|there| there.uid_next);
            let has_grown = state.as_ref().is_some_and(|state| state.has_grown(uid_next));
            let needs_look = in_doubt || has_grown || (knows_little && !job.new_at_destination);
            return prepared.jobs.push(FolderSyncJob { in_doubt, needs_look, matches_first, ..job });
        };
        if !self.spec.dry_run {
            let uid_next = listed.destination.and_then(|there| there.uid_next);
            self.live_checkpoint.update(|checkpoint| {
                if let Some(state) = checkpoint.folders.get_mut(&job.source_raw) {
                    pass_by(state, uid_next);
                }
            });
        }
        prepared.closed_bytes += source.size.unwrap_or(0);
        prepared.closed.push(unchanged_report(&job, state));
    }
}

/// Both accounts as they were listed.
struct PairListings {
    source: AccountListing,
    destination: AccountListing,
    at: Instant,
}

impl PairListings {
    /// What they say of a planned folder.
    fn of<'a>(&'a self, folder: &'a PlannedFolder) -> ListedPair<'a> {
        let status = |listing: &'a AccountListing, raw| listing.folder(raw).and_then(|folder| folder.status.as_ref());
        ListedPair {
            folder,
            source: status(&self.source, &folder.source_raw),
            destination: status(&self.destination, &folder.destination_raw),
            at: self.at,
        }
    }

    /// UIDNEXT of the source's INBOX.
    fn inbox_uid_next(&self) -> Option<u32> {
        let inbox = self.source.folders.iter().find(|folder| folder.item.name.eq_ignore_ascii_case(b"INBOX"))?;
        inbox.status.as_ref()?.uid_next
    }
}

/// A planned folder, and its STATUS on both sides, where it is there.
struct ListedPair<'a> {
    folder: &'a PlannedFolder,
    source: Option<&'a FolderStatus>,
    destination: Option<&'a FolderStatus>,
    at: Instant,
}

impl ListedPair<'_> {
    fn job(&self, new_at_destination: bool) -> FolderSyncJob {
        let (folder, there) = (self.folder, self.destination);
        let listed = self.source.cloned().unwrap_or_default();
        FolderSyncJob {
            source_raw: folder.source_raw.clone(),
            destination_raw: folder.destination_raw.clone(),
            source_name: folder.source_name.clone(),
            destination_name: folder.destination_name.clone(),
            in_doubt: false,
            needs_look: false,
            new_at_destination,
            messages: listed.messages.unwrap_or(0),
            status: quiescent_status(&listed),
            snapshot: there.and_then(|s| s.uid_next).map(|uid_next| DestinationSnapshot { at: self.at, uid_next }),
            append_limit: there.and_then(|s| s.append_limit),
            adds_newline: false,
            bytes: listed.size,
            was_empty: there.is_some_and(|s| s.messages == Some(0)),
            only: None,
            matches_first: false,
        }
    }
}

/// Of a view of all messages a job takes what was archived.
fn take_only_archived(job: &mut FolderSyncJob, found: Option<Result<ArchivedMail>>) -> Result<()> {
    let unknown = || Error::protocol("the source announces more than one view of all messages (\\All)");
    let only = found.ok_or_else(unknown)??;
    job.messages = u32::try_from(only.archived.messages).unwrap_or(u32::MAX);
    job.bytes = Some(only.archived.bytes);
    job.only = Some(only.into());
    Ok(())
}

/// What the plan leaves out, decided and warns of.
fn report_plan(plan: &FolderPlan, report: &mut MailboxReport) {
    report.left_out.clone_from(&plan.left_out);
    for (folder, note) in &plan.notes {
        report.note(format!("{folder}: {note}"));
    }
    for warning in &plan.warnings {
        report.warn(warning.clone());
    }
}

/// Remembers that nothing was left to do in a folder: this run does not open it.
fn pass_by(state: &mut FolderState, uid_next: Option<u32>) {
    if state.set_aside.is_empty() {
        // The source holds what it held: no run has copied anything since, and what came is the user's.
        state.record_destination_next(uid_next.filter(|_| state.destination_next > 0));
    } else {
        state.set_aside.count_passed_run(&UidSet::default());
    }
}

/// The report of a folder that is not opened, since nothing changed in it.
fn unchanged_report(job: &FolderSyncJob, state: &FolderState) -> FolderReport {
    let source_messages = u64::from(job.messages);
    let copied_before = if state.is_known_by_samples() { source_messages } else { state.copied_count() };
    FolderReport { unchanged: true, complete: true, source_messages, copied_before, ..job.report() }
}

/// A checkpoint that says "nothing in doubt" must not outlive the first APPEND: all folders that will be opened are marked
/// in one go, with the UIDNEXT that was just seen.
async fn mark_in_doubt(live_checkpoint: &LiveCheckpoint, jobs: &[FolderSyncJob]) -> Result<()> {
    let mut marked = false;
    live_checkpoint.update(|checkpoint| {
        for job in jobs {
            if let Some(state) = checkpoint.folders.get_mut(&job.source_raw).filter(|state| !state.append_in_doubt) {
                state.raise_tail(state.next_tail(job.snapshot.map_or(1, |snapshot| snapshot.uid_next)));
                state.append_in_doubt = true;
                marked = true;
            }
        }
    });
    if marked { live_checkpoint.save().await } else { Ok(()) }
}

/// Both sides the same account would copy each message onto itself.
fn refuse_same_account(pair: &ConnectionPair) -> Result<()> {
    let (source, destination) = (pair.source.endpoint(), pair.destination.endpoint());
    let same_peer = pair.source.facts.peer.is_some() && pair.source.facts.peer == pair.destination.facts.peer;
    if same_peer && source.login.username.eq_ignore_ascii_case(&destination.login.username) {
        return Err(Error::configuration(format!(
            "source {} and destination {} are the same account on the same server",
            source.address(),
            destination.address()
        ))
        .advice(
            "The source's host name may already point to the new host (DNS): give the old server's own name or IP",
        ));
    }
    Ok(())
}

/// One side's folders, as the plan needs them.
pub(super) fn side_folders(survey: &AccountListing) -> SideFolders {
    let namespaces = survey.namespaces.clone().unwrap_or_default();
    let common = common_attributes(survey);
    SideFolders {
        delimiter: survey.delimiter,
        prefix: survey.prefix().to_vec(),
        other_prefixes: namespaces
            .other_users
            .iter()
            .chain(&namespaces.shared)
            .map(|namespace| namespace.prefix.to_vec())
            .collect(),
        folders: survey
            .folders
            .iter()
            .map(|folder| {
                let messages = folder.status.as_ref().and_then(|s| s.messages);
                let info = FolderInfo::listed(&folder.item, folder.subscribed, messages);
                let own: Vec<&String> = info.attributes.iter().filter(|a| !common.contains(a.as_str())).collect();
                FolderInfo { special_use: SpecialUse::of(&own), ..info }
            })
            .collect(),
    }
}

/// Folders of the destination that hold mail of its own user: neither views of others nor other users'.
fn other_folders(destination: &SideFolders) -> Vec<OtherFolder> {
    let folders = destination.folders.iter().filter(|folder| folder.selectable && folder.messages != Some(0));
    let named = folders
        .filter(|folder| folder.name_fault().is_none())
        .map(|folder| (folder, destination.parse_name(&folder.raw, folder.delimiter)));
    let is_view = |folder: &FolderInfo| folder.special_use.is_some_and(SpecialUse::is_view);
    named
        .filter(|(folder, name)| !name.is_foreign && (name.is_inbox || !is_view(folder)))
        .map(|(folder, name)| OtherFolder { raw: folder.raw.clone(), name: name.text() })
        .collect()
}

/// True when a folder is to be matched before anything is copied: the listings tell that no checkpoint counts for it, or an
/// earlier run came no further than to match it, and there may be something to be found.
fn matches_first(
    state: Option<&FolderState>,
    (source, destination): (Option<&FolderStatus>, Option<&FolderStatus>),
    holds_nothing: bool,
    scope: AdoptScope,
) -> bool {
    let validity = |status: Option<&FolderStatus>| status.and_then(|status| status.uid_validity);
    let counts = state.is_some_and(|state| {
        let is_same = |status, known| validity(status).is_none_or(|now| now == known);
        !state.is_known_by_samples()
            && !state.unsearched
            && is_same(source, state.source_uid_validity)
            && is_same(destination, state.destination_uid_validity)
    });
    !counts && (!holds_nothing || scope == AdoptScope::Mailbox)
}

/// Attributes that all of several folders have: such a one says nothing of what a folder is for.
fn common_attributes(survey: &AccountListing) -> BTreeSet<&str> {
    let selectable: Vec<&ListedFolder> = survey.folders.iter().filter(|folder| folder.selectable()).collect();
    let [first, others @ ..] = selectable.as_slice() else { return BTreeSet::new() };
    if others.is_empty() {
        return BTreeSet::new();
    }
    let is_common = |attribute: &&String| others.iter().all(|folder| folder.item.has(attribute));
    first.item.attributes.iter().filter(is_common).map(String::as_str).collect()
}

fn quiescent_status(status: &FolderStatus) -> Option<QuiescentStatus> {
    Some(QuiescentStatus {
        uid_next: status.uid_next?,
        messages: status.messages?,
        highest_modseq: status.highest_modseq.filter(|modseq| *modseq > 0),
    })
}

/// True when both sides' listings prove that a folder needs no work.
fn is_unchanged(state: &FolderState, source: &FolderStatus, destination: &FolderStatus, spec: &SyncSpec) -> bool {
    let same_validity = Some(state.source_uid_validity) == source.uid_validity
        && Some(state.destination_uid_validity) == destination.uid_validity;
    let destination_next = state.map.destination_uids().last().map_or(0, |last| last.0.saturating_add(1));
    let same_destination = !went_back(destination.uid_next, destination_next);
    // Modification sequences that are gone, or went back, tell nothing (RFC 7162, section 3.1.2).
    let counts_changes =
        source.highest_modseq.zip(state.highest_modseq).is_some_and(|(now, before)| before > 0 && now >= before);
    let told_flags = counts_changes || spec.flag_policy == FlagHandling::Ignore;
    let told_deletions = spec.delete_policy == DeletionHandling::Keep
        || state.finished_count() <= u64::from(source.messages.unwrap_or(0));
    !state.append_in_doubt
        && same_validity
        && same_destination
        && told_flags
        && told_deletions
        && state.settled.is_some()
        && state.settled == quiescent_status(source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{
        set_aside::{SetAsideGroup, SetAsideReason},
        testing::spec,
        uid::{DestinationUid, SourceUid},
        uid_map::CopyOrigin,
    };

    fn status() -> FolderStatus {
        FolderStatus {
            messages: Some(3),
            uid_next: Some(4),
            uid_validity: Some(1),
            highest_modseq: Some(9),
            ..FolderStatus::default()
        }
    }

    fn state() -> FolderState {
        FolderState {
            source_uid_validity: 1,
            destination_uid_validity: 1,
            highest_modseq: Some(9),
            settled: quiescent_status(&status()),
            ..FolderState::default()
        }
    }

    #[test]
    fn a_folder_is_unchanged_only_when_both_listings_prove_it() {
        let (state, status, spec) = (state(), status(), spec("m"));
        assert!(is_unchanged(&state, &status, &status, &spec));
        let open = FolderState { append_in_doubt: true, ..state.clone() };
        assert!(!is_unchanged(&open, &status, &status, &spec));
        let replaced = FolderStatus { uid_validity: Some(2), ..status.clone() };
        assert!(!is_unchanged(&state, &replaced, &status, &spec));
        assert!(!is_unchanged(&state, &status, &replaced, &spec));
        let flagged = FolderStatus { highest_modseq: Some(10), ..status.clone() };
        assert!(!is_unchanged(&state, &flagged, &status, &spec));
    }

    #[test]
    fn modsequences_that_went_back_or_were_not_there_when_the_folder_was_opened_prove_nothing() {
        for highest_modseq in [None, Some(10)] {
            let state = FolderState { highest_modseq, ..state() };
            assert!(!is_unchanged(&state, &status(), &status(), &spec("m")), "{highest_modseq:?}");
        }
    }

    #[test]
    fn a_destination_whose_uids_went_back_is_not_the_one_that_was_copied_to() {
        let mut state = state();
        let there = |next| FolderStatus { uid_next: Some(next), ..status() };
        state.map.push(SourceUid(3), Some(DestinationUid(7)), CopyOrigin::Appended);
        assert!(is_unchanged(&state, &status(), &there(8), &spec("m")));
        assert!(!is_unchanged(&state, &status(), &there(7), &spec("m")));
    }

    #[test]
    fn a_folder_is_matched_first_where_no_checkpoint_counts_and_the_destination_may_hold_copies() {
        let (status, auto) = (status(), AdoptScope::Auto);
        let listed = (Some(&status), Some(&status));
        let first = |state: &FolderState| matches_first(Some(state), listed, false, auto);
        assert!(matches_first(None, listed, false, auto));
        assert!(!first(&state()));
        assert!(first(&FolderState { unsearched: true, ..state() }));
        assert!(first(&FolderState { destination_uid_validity: 2, ..state() }));
        assert!(!matches_first(None, listed, true, auto), "there is nothing to be found");
        assert!(matches_first(None, listed, true, AdoptScope::Mailbox), "but in other folders");
    }

    #[test]
    fn copies_are_looked_for_in_no_view_and_in_no_other_users_folder() {
        let folder = |raw: &str, special_use, messages| FolderInfo {
            raw: raw.into(),
            delimiter: Some(b'/'),
            selectable: true,
            special_use,
            messages,
            ..FolderInfo::default()
        };
        let side = SideFolders {
            delimiter: Some(b'/'),
            other_prefixes: vec![b"Shared/".to_vec()],
            folders: vec![
                folder("INBOX", None, Some(3)),
                folder("All Mail", Some(SpecialUse::All), Some(3)),
                folder("Starred", Some(SpecialUse::Flagged), Some(3)),
                folder("Archive", Some(SpecialUse::Archive), None),
                folder("Empty", None, Some(0)),
                folder("Shared/bob", None, Some(3)),
                FolderInfo { selectable: false, ..folder("Parent", None, None) },
            ],
            ..SideFolders::default()
        };
        let names: Vec<String> = other_folders(&side).into_iter().map(|folder| folder.name).collect();
        assert_eq!(names, ["INBOX", "Archive"]);
    }

    #[test]
    fn what_others_store_in_a_folder_that_is_passed_by_is_not_looked_at_later() {
        let mut state = FolderState { destination_next: 7, ..state() };
        pass_by(&mut state, Some(9));
        assert!(!state.has_grown(Some(9)) && state.has_grown(Some(10)));
        // What a run sent of it that nobody remembers may be among them.
        let why = SetAsideGroup::new(SetAsideReason::Refused, [SourceUid(2)].into_iter().collect());
        state.set_aside.add_group(why);
        pass_by(&mut state, Some(11));
        assert!(state.has_grown(Some(11)));
        let mut older = self::state();
        pass_by(&mut older, Some(9));
        assert_eq!(older.destination_next, 0, "of an older version: what it left is not known");
    }

    #[test]
    fn the_tail_begins_where_the_destination_was_when_the_checkpoint_was_written() {
        let mut state = FolderState { destination_next: 7, tail_from: 3, ..state() };
        state.raise_tail(state.next_tail(9));
        assert_eq!(state.tail_from, 7, "another run may have sent 7 and 8");
        let mut unknown = self::state();
        unknown.raise_tail(unknown.next_tail(9));
        assert_eq!(unknown.tail_from, 9);
    }

    #[test]
    fn without_modsequences_flags_may_have_changed_unseen() {
        let status = FolderStatus { highest_modseq: None, ..status() };
        let state = FolderState { settled: quiescent_status(&status), ..state() };
        assert!(!is_unchanged(&state, &status, &status, &spec("m")));
        assert!(is_unchanged(&state, &status, &status, &SyncSpec { flag_policy: FlagHandling::Ignore, ..spec("m") }));
    }
}
