//! Finds the copies of messages in the tail of the destination folder, where what is in doubt lies: by their bytes.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    content_hash::ContentHash,
    content_match::{Candidate, CopyPair, RewriteEvidence, match_rewritten, match_tail, unique_identities},
    failure_bisect::FailureBisector,
    fetch_facts::{fetch_hashes, identity_facts, list_message_ids, scan_with_ids},
    folder_match::{CopyChange, fetch_all_hashes},
    found_copies::{FoundCopies, FoundCopy, Look},
    identity::{IdentityFacts, MessageId},
    scan::ScannedMessage,
    search_scope::{HEADROOM, SearchScope},
    uid::{DestinationUid, SourceUid},
};
use crate::{
    error::Result,
    imap::{Session, UidSet},
};

/// The search in one folder's tail, over all looks.
pub(crate) struct TailSearch<'a> {
    scope: SearchScope<'a>,
    left: UidSet<SourceUid>,
    /// What was read of the source.
    hashes: BTreeMap<SourceUid, ContentHash>,
}

impl<'a> TailSearch<'a> {
    /// Nothing was looked at yet.
    pub(crate) fn new(scope: SearchScope<'a>) -> Self {
        Self { scope, left: scope.work.clone(), hashes: BTreeMap::new() }
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
        let (mut tail, ids) = scan_with_ids(destination, from).await?;
        let uid_next = tail.messages.last().map_or(from, |message| message.uid.0.saturating_add(1));
        tail.messages.retain(|message| !self.scope.known.contains(message.uid));
        if tail.messages.is_empty() || self.left.is_empty() {
            return Ok(Look { uid_next, matched: 0 });
        }
        let theirs: Vec<IdentityFacts<DestinationUid>> =
            tail.messages.iter().map(|message| identity_facts(message, |uid| ids.get(&uid).copied())).collect();
        let candidates = self.candidates(&theirs);
        self.read(source, &candidates, failures).await?;
        let there = fetch_all_hashes(destination, &theirs.iter().map(|facts| facts.uid).collect()).await?;
        let mut pairs = self.match_content(&candidates, &there);
        let more = self.match_rewritten(source, (&candidates, &pairs), (&theirs, &there)).await?;
        pairs.extend(more);
        for (source, destination) in &pairs {
            let (Some(message), Some(kept)) = (self.scope.scan.message(*source), tail.message(*destination)) else {
                continue;
            };
            found.add_missing_flags(self.scope.scan.missing_flags(*source, tail.flags(kept)), *destination);
            let dates = (message.date().map(|date| date.epoch), kept.date().map(|date| date.epoch));
            let change = CopyChange::between((self.hashes.remove(source), there.get(destination).copied()), dates);
            found.add_changed(FoundCopy { source: *source, destination: *destination }, change);
            self.left.remove_range(*source, *source);
        }
        Ok(Look { uid_next, matched: pairs.len() })
    }

    /// What may be in the tail: the first of the work, since it was sent in UID order, and what shares size or date with
    /// a message of the tail.
    fn candidates(&self, theirs: &[IdentityFacts<DestinationUid>]) -> UidSet<SourceUid> {
        let sizes: HashSet<Option<u64>> = theirs.iter().map(|facts| facts.size).collect();
        let epochs: HashSet<Option<i64>> = theirs.iter().map(|facts| facts.epoch).collect();
        let first = theirs.len() + HEADROOM;
        let left = self.scope.messages().filter(|message| self.left.contains(message.uid));
        let may_be = |(at, message): &(usize, &ScannedMessage)| {
            let facts = identity_facts(message, |_| None);
            *at < first || sizes.contains(&facts.size) || epochs.contains(&facts.epoch)
        };
        left.enumerate().filter(may_be).map(|(_, message)| message.uid).collect()
    }

    async fn read(
        &mut self,
        source: &mut Session,
        candidates: &UidSet<SourceUid>,
        failures: &mut FailureBisector,
    ) -> Result<()> {
        let unread = candidates.iter().filter(|uid| !self.hashes.contains_key(uid)).collect();
        let listed = |uid| self.scope.scan.message(uid).map(|message| u64::from(message.size));
        self.hashes.extend(fetch_hashes(source, &unread, listed, failures).await?);
        Ok(())
    }

    /// Equal content, as a multiset.
    fn match_content(
        &self,
        candidates: &UidSet<SourceUid>,
        there: &BTreeMap<DestinationUid, ContentHash>,
    ) -> Vec<CopyPair> {
        let tail: Vec<_> = there.iter().map(|(uid, hash)| (*uid, *hash)).collect();
        let (certain, uncertain): (Vec<_>, Vec<_>) = candidates
            .iter()
            .filter_map(|uid| self.hashes.get(&uid).map(|hash| (uid, *hash)))
            .partition(|(uid, _)| self.scope.certain.contains(*uid));
        match_tail(&certain, &uncertain, &tail)
    }

    /// Of what is left, copies that the destination rewrote, where it is known to or seen to. What may be the copy of a
    /// message that the destination confirmed is nobody else's.
    async fn match_rewritten(
        &self,
        source: &mut Session,
        (candidates, pairs): (&UidSet<SourceUid>, &[CopyPair]),
        (theirs, there): (&[IdentityFacts<DestinationUid>], &BTreeMap<DestinationUid, ContentHash>),
    ) -> Result<Vec<CopyPair>> {
        let (ours, copies): (UidSet<SourceUid>, HashSet<DestinationUid>) = pairs.iter().copied().unzip();
        let left = candidates.difference(&ours);
        let is_left = |facts: &&IdentityFacts<DestinationUid>| !copies.contains(&facts.uid);
        if left.difference(self.scope.certain).is_empty()
            || !theirs.iter().filter(is_left).any(|facts| facts.message_id.is_some())
        {
            return Ok(Vec::new());
        }
        let mut ids: HashMap<SourceUid, MessageId> = HashMap::new();
        list_message_ids(source, candidates, |uid, id| {
            ids.insert(uid, id);
        })
        .await?;
        let facts =
            |uid| self.scope.scan.message(uid).map(|message| identity_facts(message, |uid| ids.get(&uid).copied()));
        let all: Vec<IdentityFacts<SourceUid>> = candidates.iter().filter_map(facts).collect();
        let (unique, unique_copies) = (unique_identities(&all), unique_identities(theirs));
        let is_unique = |id, epoch| unique.contains(&(id, epoch)) && unique_copies.contains(&(id, epoch));
        let candidate = |facts: &IdentityFacts<SourceUid>| Candidate::new(facts, self.hashes.get(&facts.uid).copied());
        let ours: Vec<_> = all
            .iter()
            .filter(|facts| left.contains(facts.uid) && !self.scope.certain.contains(facts.uid))
            .map(candidate)
            .collect();
        let theirs: Vec<_> =
            theirs.iter().filter(is_left).map(|facts| Candidate::new(facts, there.get(&facts.uid).copied())).collect();
        let evidence = RewriteEvidence { is_known: self.scope.rewrites, copies: 0, equal: pairs.len() };
        Ok(match_rewritten(&ours, &theirs, evidence, is_unique).pairs)
    }
}
