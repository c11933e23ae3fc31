//! Finds the copies of a folder's messages in the whole destination folder, where no checkpoint counts.
//!
//! The destination's messages are not kept: most are settled as they go by, by Message-ID, instant and size. What is left
//! is few, and [`FolderMatcher`] compares it by its bytes, some thousand messages at a time.

use super::{
    copy_index::{CopyIndex, Placement, StoredFacts},
    failure_bisect::FailureBisector,
    fetch_facts::{fetch_listed, identity_facts, list_message_ids, list_with_ids, message_id_of},
    folder_match::FolderMatcher,
    found_copies::{FoundCopies, FoundCopy, Look},
    identity::{IdentityFacts, MessageId},
    scan::FolderScan,
    search_scope::SearchScope,
    uid::{DestinationUid, SourceUid},
};
use crate::{
    error::Result,
    imap::{Session, UidSet, response::FetchResponse},
};

/// About so many messages are compared by their bytes at a time.
const COMPARED_AT_A_TIME: usize = 10_000;

/// Repetitions are looked for from so many messages on.
const SORT_AT: usize = 10_000;

/// Messages of both sides that are compared with each other.
#[derive(Debug, Default)]
struct ComparedGroup {
    /// The source's, by UID.
    ours: Vec<IdentityFacts<SourceUid>>,
    /// The destination's.
    theirs: Vec<IdentityFacts<DestinationUid>>,
}

/// The search in one folder, over all looks.
pub(crate) struct FolderSearch<'a> {
    scope: SearchScope<'a>,
    index: Option<CopyIndex>,
    /// Messages of the destination that may be copies.
    kept: FolderScan<DestinationUid>,
    /// Those of them that have a Message-ID.
    kept_ids: Vec<(MessageId, DestinationUid)>,
    /// Repetitions are thrown out once there are so many.
    sort_at: usize,
    matcher: FolderMatcher,
}

impl<'a> FolderSearch<'a> {
    /// Nothing was looked at yet.
    pub(crate) fn new(scope: SearchScope<'a>) -> Self {
        // Where copies' UIDs are looked for, these are all of the work.
        let matcher = FolderMatcher::new(!scope.certain.is_empty(), scope.rewrites);
        Self { scope, index: None, kept: FolderScan::default(), kept_ids: Vec::new(), sort_at: SORT_AT, matcher }
    }

    /// Looks at what is at UID `from` or above. Both folders are open.
    ///
    /// # Errors
    /// When a connection ends, or the destination does not deliver what may be a copy.
    pub(crate) async fn look(
        &mut self,
        from: u32,
        (source, destination): (&mut Session, &mut Session),
        failures: &mut FailureBisector,
        found: &mut FoundCopies,
    ) -> Result<Look> {
        let before = found.copies.len();
        if self.scope.expects_copies {
            self.build_index(source).await?;
        }
        let mut uid_next = from;
        list_with_ids(destination, from, |fetch| {
            let Some(uid) = fetch.uid.filter(|uid| *uid >= from) else { return };
            uid_next = uid_next.max(uid.saturating_add(1));
            self.take(fetch, found);
        })
        .await?;
        self.kept.check().map_err(|error| destination.with_endpoint(error))?;
        if self.index.is_none() && !self.kept.messages.is_empty() {
            self.build_index(source).await?;
            self.place_kept(found);
        }
        let Some(index) = &mut self.index else { return Ok(Look { uid_next, matched: 0 }) };
        found.copies.reserve_exact(index.settled());
        found.copies.extend(index.take_settled().map(|(source, destination)| FoundCopy { source, destination }));
        self.matcher.equal += found.copies.len() - before;
        self.compare_unclear((source, destination), failures, found).await?;
        found.doubtful = self.matcher.doubtful;
        Ok(Look { uid_next, matched: found.copies.len() - before })
    }

    async fn build_index(&mut self, source: &mut Session) -> Result<()> {
        if self.index.is_some() {
            return Ok(());
        }
        let work = self.scope.work;
        let mut index = CopyIndex::with_capacity(work.len());
        list_message_ids(source, work, |uid, id| {
            if work.contains(uid) {
                index.add(uid, id);
            }
        })
        .await?;
        index.finish(work);
        self.index = Some(index);
        Ok(())
    }

    /// Takes one message of the destination.
    fn take(&mut self, fetch: FetchResponse, found: &mut FoundCopies) {
        let (Some(uid), Some(_)) = (fetch.uid.map(DestinationUid), &fetch.flags) else { return };
        if self.scope.known.contains(uid) || (fetch.size.is_none() && fetch.internal_date.is_none()) {
            return;
        }
        let message_id = message_id_of::<DestinationUid>(&fetch).map(|(_, id)| id);
        let epoch = fetch.internal_date.flatten().map(|date| date.epoch);
        let facts = IdentityFacts { uid, message_id, epoch, size: fetch.size };
        let scan = self.scope.scan;
        match self.index.as_mut().map(|index| index.place(&facts, |uid| stored_facts(scan, uid))) {
            Some(Placement::Stranger) => {}
            Some(Placement::Settled(source)) => {
                let flags = fetch.flags.as_deref().unwrap_or_default();
                found.add_missing_flags(scan.missing_flags(source, flags), uid);
            }
            Some(Placement::Unclear) | None => {
                self.kept_ids.extend(message_id.map(|id| (id, uid)));
                // A server may tell the same over and over.
                if self.kept_ids.len() >= self.sort_at {
                    self.sort_kept();
                    self.sort_at = SORT_AT.max(2 * self.kept_ids.len());
                }
                self.kept.add_fetch(fetch);
            }
        }
    }

    /// Places what came before there was an index.
    fn place_kept(&mut self, found: &mut FoundCopies) {
        self.sort_kept();
        let Some(index) = &mut self.index else { return };
        let scan = self.scope.scan;
        let mut gone = UidSet::default();
        for (id, uid) in &self.kept_ids {
            let Some(message) = self.kept.message(*uid) else { continue };
            let facts = IdentityFacts { message_id: Some(*id), ..identity_facts(message, |_| None) };
            match index.place(&facts, |uid| stored_facts(scan, uid)) {
                Placement::Unclear => continue,
                Placement::Stranger => {}
                Placement::Settled(source) => {
                    found.add_missing_flags(scan.missing_flags(source, self.kept.flags(message)), *uid);
                }
            }
            gone.insert(*uid);
        }
        self.drop_kept(&gone);
    }

    fn sort_kept(&mut self) {
        self.kept.finish();
        self.kept_ids.sort_unstable();
        self.kept_ids.dedup();
    }

    fn drop_kept(&mut self, uids: &UidSet<DestinationUid>) {
        self.kept.messages.retain(|message| !uids.contains(message.uid));
        self.kept_ids.retain(|(_, uid)| !uids.contains(*uid));
    }

    /// Compares what facts do not settle.
    async fn compare_unclear(
        &mut self,
        both: (&mut Session, &mut Session),
        failures: &mut FailureBisector,
        found: &mut FoundCopies,
    ) -> Result<()> {
        let (source, destination) = both;
        let unsettled = self.index.as_mut().map(CopyIndex::take_unsettled).unwrap_or_default();
        if !unsettled.is_empty() {
            found.drop_missing_flags(&unsettled);
            fetch_listed(destination, &unsettled, |fetch| self.take(fetch, found)).await?;
        }
        self.sort_kept();
        loop {
            let knew = self.matcher.knows_rewriting();
            self.matcher.doubtful = 0;
            let mut unclear = self.index.as_ref().map(CopyIndex::unclear_ids).unwrap_or_default().into_iter();
            while let Some(group) = self.next_group(&mut unclear) {
                self.compare_group((&mut *source, &mut *destination), &group, failures, found).await?;
            }
            let group = self.nameless_group();
            self.compare_group((&mut *source, &mut *destination), &group, failures, found).await?;
            if knew || !self.matcher.knows_rewriting() {
                return Ok(());
            }
        }
    }

    async fn compare_group(
        &mut self,
        both: (&mut Session, &mut Session),
        ComparedGroup { ours, theirs }: &ComparedGroup,
        failures: &mut FailureBisector,
        found: &mut FoundCopies,
    ) -> Result<()> {
        if ours.is_empty() || theirs.is_empty() {
            return Ok(());
        }
        let pairs = self.matcher.find_copies(both, ours, theirs, failures).await?;
        self.record_pairs(ours, pairs, found);
        Ok(())
    }

    /// The messages of the next Message-IDs on both sides, whole ids and about [`COMPARED_AT_A_TIME`] messages.
    fn next_group(&self, ids: &mut impl Iterator<Item = MessageId>) -> Option<ComparedGroup> {
        let index = self.index.as_ref()?;
        let ComparedGroup { mut ours, mut theirs } = ComparedGroup::default();
        for id in ids {
            let from = self.kept_ids.partition_point(|(kept, _)| *kept < id);
            let shown = self.kept_ids.get(from..).unwrap_or_default().iter().take_while(|(kept, _)| *kept == id);
            let before = theirs.len();
            theirs.extend(shown.filter_map(|(_, uid)| {
                Some(IdentityFacts { message_id: Some(id), ..identity_facts(self.kept.message(*uid)?, |_| None) })
            }));
            if theirs.len() > before {
                let facts = |uid| identity_facts_of(self.scope.scan, uid, Some(id));
                ours.extend(index.sources_of(id).filter_map(facts));
            }
            if ours.len() + theirs.len() >= COMPARED_AT_A_TIME {
                break;
            }
        }
        if theirs.is_empty() {
            return None;
        }
        ours.sort_unstable_by_key(|facts| facts.uid);
        Some(ComparedGroup { ours, theirs })
    }

    /// What has no Message-ID on one side or the other.
    fn nameless_group(&self) -> ComparedGroup {
        let named: UidSet<DestinationUid> = self.kept_ids.iter().map(|(_, uid)| *uid).collect();
        let nameless = self.kept.messages.iter().filter(|message| !named.contains(message.uid));
        let theirs: Vec<_> = nameless.map(|message| identity_facts(message, |_| None)).collect();
        let Some(index) = self.index.as_ref().filter(|_| !theirs.is_empty()) else { return ComparedGroup::default() };
        // A destination that lists a message and delivers nothing of it shows no Message-ID, either.
        let mut shown: Vec<StoredFacts> = theirs.iter().map(StoredFacts::of).collect();
        shown.sort_unstable();
        let open = index.open().filter_map(|(uid, id)| identity_facts_of(self.scope.scan, uid, id));
        let mut ours: Vec<_> = open
            .filter(|facts| facts.message_id.is_none() || shown.binary_search(&StoredFacts::of(facts)).is_ok())
            .collect();
        ours.sort_unstable_by_key(|facts| facts.uid);
        ComparedGroup { ours, theirs }
    }

    fn record_pairs(
        &mut self,
        ours: &[IdentityFacts<SourceUid>],
        pairs: Vec<(SourceUid, DestinationUid)>,
        found: &mut FoundCopies,
    ) {
        let scan = self.scope.scan;
        let mut taken = UidSet::default();
        for (source, destination) in pairs {
            let id = ours.binary_search_by_key(&source, |facts| facts.uid).ok().and_then(|at| ours.get(at));
            let (Some(ours), Some(index), Some(kept)) = (id, &mut self.index, self.kept.message(destination)) else {
                continue;
            };
            index.take(source, ours.message_id);
            found.add_missing_flags(scan.missing_flags(source, self.kept.flags(kept)), destination);
            let kept = kept.date().map(|date| date.epoch);
            let change = self.matcher.take_change((source, ours.epoch), (destination, kept));
            found.add_changed(FoundCopy { source, destination }, change);
            taken.insert(destination);
        }
        self.drop_kept(&taken);
    }
}

fn stored_facts(scan: &FolderScan, uid: SourceUid) -> Option<StoredFacts> {
    scan.message(uid).map(|message| StoredFacts::of(&identity_facts(message, |_| None)))
}

fn identity_facts_of(scan: &FolderScan, uid: SourceUid, id: Option<MessageId>) -> Option<IdentityFacts<SourceUid>> {
    scan.message(uid).map(|message| identity_facts(message, |_| id))
}
