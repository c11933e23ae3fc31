//! Finds the copies of a folder's messages where no checkpoint counts. Bodies are read only where facts do not settle it:
//! each once, however often it is looked.

use std::collections::{BTreeMap, HashSet};

use super::{
    content_hash::ContentHash,
    content_match::{
        Candidate, CopyPair, REWRITTEN_COPIES, RewriteEvidence, match_equal, match_rewritten, unique_identities,
    },
    failure_bisect::FailureBisector,
    fetch_facts::fetch_hashes,
    identity::{CompareGroup, IdentityFacts, match_folder},
    uid::{DestinationUid, SourceUid},
};
use crate::{
    error::{Error, Result},
    imap::{Session, Uid, UidSet},
};

/// Of messages without a Message-ID, whose size and date no message of the other side has, so many are read of each side,
/// the smallest first: servers that store another date may also count sizes otherwise.
const READ_WITHOUT_LINK: usize = 1000;

/// In what a copy that was found differs from its message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CopyChange {
    /// Its bytes, as far as both were read.
    pub content: bool,
    /// Its INTERNALDATE.
    pub date: bool,
}

impl CopyChange {
    /// That between a message and its copy, by what was read of them and by their dates as instants.
    pub(crate) fn between(
        bytes: (Option<ContentHash>, Option<ContentHash>),
        dates: (Option<i64>, Option<i64>),
    ) -> Self {
        let content = matches!(bytes, (Some(sent), Some(kept)) if sent.exact != kept.exact);
        Self { content, date: matches!(dates, (Some(sent), Some(kept)) if sent != kept) }
    }
}

/// The matching of one folder with its destination, and what was read for it.
#[derive(Debug, Default)]
pub(crate) struct FolderMatcher {
    is_strict: bool,
    /// The destination is known to rewrite messages, or was seen to in an earlier run or another folder.
    rewrites: bool,
    /// What was read of the source.
    source: BTreeMap<SourceUid, ContentHash>,
    /// What was read of the destination.
    destination: BTreeMap<DestinationUid, ContentHash>,
    /// Copies found that are equal, here or elsewhere in the folder.
    pub equal: usize,
    /// Copies found that are not equal in canonical form.
    rewritten: usize,
    /// Messages at the destination that may be copies, and nobody knows of which message.
    pub doubtful: u64,
}

impl FolderMatcher {
    /// For one folder. Where it `is_strict`, only what is equal in canonical form is a copy: what Mailferry appended itself may
    /// be deleted by the UID that is found.
    pub(crate) fn new(is_strict: bool, rewrites: bool) -> Self {
        Self { is_strict, rewrites, ..Self::default() }
    }

    /// True when nothing but Message-ID and date is needed to know a copy again.
    pub(crate) const fn knows_rewriting(&self) -> bool {
        self.rewrites || self.rewritten >= REWRITTEN_COPIES
    }

    /// Finds copies of `ours` among `theirs`. Both folders are open.
    ///
    /// # Errors
    /// When a connection ends, or the destination does not deliver what may be a copy.
    pub(crate) async fn find_copies(
        &mut self,
        (source, destination): (&mut Session, &mut Session),
        ours: &[IdentityFacts<SourceUid>],
        theirs: &[IdentityFacts<DestinationUid>],
        failures: &mut FailureBisector,
    ) -> Result<Vec<CopyPair>> {
        let matching = match_folder(ours, theirs);
        let (asked, copies) =
            (members(&matching.compare, |g| &g.source), members(&matching.compare, |g| &g.destination));
        self.read_source(source, &asked, ours, failures).await?;
        self.read_destination(destination, &copies).await?;
        let mut pairs = matching.settled;
        let linked = (left_over(ours, |uid| asked.contains(uid)), left_over(theirs, |uid| copies.contains(uid)));
        pairs.extend(match_equal(&candidates(&linked.0, &self.source), &candidates(&linked.1, &self.destination)));

        if self.is_strict {
            return Ok(pairs);
        }
        // What is left on both sides: first what is equal whatever size and date say, then what was rewritten.
        let (taken, taken_copies): (HashSet<SourceUid>, HashSet<DestinationUid>) = pairs.iter().copied().unzip();
        let ours_left = left_over(ours, |uid| !taken.contains(&uid));
        let theirs_left = left_over(theirs, |uid| !taken_copies.contains(&uid));
        let (nameless, nameless_copies) = (smallest_nameless(&ours_left), smallest_nameless(&theirs_left));
        if !nameless.is_empty() && !nameless_copies.is_empty() {
            self.read_source(source, &nameless, ours, failures).await?;
            self.read_unlinked_copies(destination, &nameless_copies).await?;
        }
        let (ours_left, theirs_left) =
            (candidates(&ours_left, &self.source), candidates(&theirs_left, &self.destination));
        let equal = match_equal(&ours_left, &theirs_left);
        self.equal += pairs.len() + equal.len();
        let evidence = RewriteEvidence { is_known: self.rewrites, copies: self.rewritten, equal: self.equal };
        let (unique, unique_copies) = (unique_identities(ours), unique_identities(theirs));
        let is_unique = |id, epoch| unique.contains(&(id, epoch)) && unique_copies.contains(&(id, epoch));
        let (taken, taken_copies): (HashSet<SourceUid>, HashSet<DestinationUid>) = equal.iter().copied().unzip();
        let ours_left: Vec<_> = ours_left.into_iter().filter(|c| !taken.contains(&c.uid)).collect();
        let theirs_left: Vec<_> = theirs_left.into_iter().filter(|c| !taken_copies.contains(&c.uid)).collect();
        let found = match_rewritten(&ours_left, &theirs_left, evidence, is_unique);
        self.rewritten += found.pairs.len();
        self.doubtful += found.doubtful;
        pairs.extend(equal);
        pairs.extend(found.pairs);
        Ok(pairs)
    }

    /// In what a copy that was found differs from its message, as far as that was looked at; of each its date as an instant.
    /// What was read of both is forgotten.
    pub(crate) fn take_change(
        &mut self,
        (source, sent): (SourceUid, Option<i64>),
        (destination, kept): (DestinationUid, Option<i64>),
    ) -> CopyChange {
        CopyChange::between((self.source.remove(&source), self.destination.remove(&destination)), (sent, kept))
    }

    async fn read_source(
        &mut self,
        session: &mut Session,
        uids: &UidSet<SourceUid>,
        facts: &[IdentityFacts<SourceUid>],
        failures: &mut FailureBisector,
    ) -> Result<()> {
        let listed = |uid| facts.binary_search_by_key(&uid, |facts| facts.uid).ok().and_then(|at| facts.get(at)?.size);
        let unread = uids.iter().filter(|uid| !self.source.contains_key(uid)).collect();
        self.source.extend(fetch_hashes(session, &unread, listed, failures).await?);
        Ok(())
    }

    async fn read_destination(&mut self, session: &mut Session, uids: &UidSet<DestinationUid>) -> Result<()> {
        let unread = uids.iter().filter(|uid| !self.destination.contains_key(uid)).collect();
        self.destination.extend(fetch_all_hashes(session, &unread).await?);
        Ok(())
    }

    /// What nothing but a missing Message-ID has in common with a message: what can't be read is nobody's copy.
    async fn read_unlinked_copies(&mut self, session: &mut Session, uids: &UidSet<DestinationUid>) -> Result<()> {
        let unread = uids.iter().filter(|uid| !self.destination.contains_key(uid)).collect();
        let found = fetch_hashes(session, &unread, |_| None, &mut FailureBisector::default()).await?;
        self.destination.extend(found);
        Ok(())
    }
}

/// Hashes of everything that is asked for at the destination: a body that is there and cannot be read must not count as
/// another, or its copy would be sent again.
///
/// # Errors
/// When the connection ends, or one cannot be read.
pub(crate) async fn fetch_all_hashes(
    destination: &mut Session,
    uids: &UidSet<DestinationUid>,
) -> Result<BTreeMap<DestinationUid, ContentHash>> {
    let mut failures = FailureBisector::default();
    let found = fetch_hashes(destination, uids, |_| None, &mut failures).await?;
    match uids.iter().find(|uid| failures.is_unreadable(*uid)) {
        Some(uid) => {
            let what = format!("message {uid} cannot be read, so nobody knows whether it is a copy");
            Err(destination.with_endpoint(Error::protocol(what)))
        }
        None => Ok(found),
    }
}

fn members<U: Uid>(groups: &[CompareGroup], side: impl Fn(&CompareGroup) -> &Vec<U>) -> UidSet<U> {
    groups.iter().flat_map(|group| side(group).iter().copied()).collect()
}

fn left_over<U: Uid>(facts: &[IdentityFacts<U>], is_left: impl Fn(U) -> bool) -> Vec<IdentityFacts<U>> {
    facts.iter().filter(|facts| is_left(facts.uid)).copied().collect()
}

fn candidates<U: Uid>(facts: &[IdentityFacts<U>], hashes: &BTreeMap<U, ContentHash>) -> Vec<Candidate<U>> {
    facts.iter().map(|facts| Candidate::new(facts, hashes.get(&facts.uid).copied())).collect()
}

/// The smallest of the messages without a Message-ID, as many as are read of one side.
fn smallest_nameless<U: Uid>(facts: &[IdentityFacts<U>]) -> UidSet<U> {
    let mut nameless: Vec<&IdentityFacts<U>> = facts.iter().filter(|facts| facts.message_id.is_none()).collect();
    nameless.sort_unstable_by_key(|facts| (facts.size, facts.uid));
    nameless.into_iter().take(READ_WITHOUT_LINK).map(|facts| facts.uid).collect()
}
