//! What may be at the destination already: after a crash the uncertain tail, without a checkpoint the whole folder.
//!
//! A dead client's APPENDs go on committing for a while, so what was in doubt is sent again only after two looks, some
//! time apart, agree.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    circuit_breaker::KEEP_ALIVE_INTERVAL,
    connection_pair::ConnectionPair,
    content_match::match_tail,
    failure_bisect::FailureBisector,
    fetch_facts::{fetch_hashes, fetch_message_ids, identity_facts, scan_with_ids},
    folder_match::{CopyChange, FolderMatcher, fetch_all_hashes},
    identity::{IdentityFacts, MessageId},
    limits::{LONGEST_COMMIT, MIN_LOOK_INTERVAL, MIN_LOOK_ROUND_TRIPS, SLOWEST_COMMIT_BYTES_PER_SECOND},
    scan::{FolderScan, ScannedMessage},
    uid::{DestinationUid, SourceUid},
};
use crate::{
    error::{Error, Result},
    imap::{Session, Uid, UidSet},
};

/// More looks than this never agree.
const MAX_LOOKS: u32 = 100;
/// Of the work's beginning, this many messages beyond the tail's length are compared by content: what is in doubt was
/// sent in UID order.
const HEADROOM: usize = 200;

/// A look at the destination that was made before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DestinationSnapshot {
    /// When.
    pub at: Instant,
    /// UIDNEXT then.
    pub uid_next: u32,
}

/// A source message found at the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundCopy {
    /// UID at the source.
    pub source: SourceUid,
    /// UID at the destination.
    pub destination: DestinationUid,
    /// Flags that the source has and the destination's copy has not.
    pub missing_flags: Vec<String>,
    /// What else differs.
    pub change: CopyChange,
}

/// What the destination shows of a message.
struct KeptFacts {
    flags: Vec<String>,
    /// INTERNALDATE as an instant, seconds since 1970 UTC.
    epoch: Option<i64>,
}

/// What was found at the destination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FoundCopies {
    /// The copies, by source UID.
    pub copies: Vec<FoundCopy>,
    /// UIDNEXT at the last look: what is stored later lies there or above. None when nothing had to be looked at.
    pub uid_next: Option<u32>,
    /// Messages at the destination that look like copies, and of which messages nobody knows.
    pub doubtful: u64,
}

impl FoundCopies {
    /// The UIDs of messages and their copies.
    pub(crate) fn uids(&self) -> Vec<(SourceUid, DestinationUid)> {
        self.copies.iter().map(|copy| (copy.source, copy.destination)).collect()
    }
}

/// How far two looks must be apart. What is in doubt was sent in UID order: the largest of the first messages may take
/// its time to be committed, and the server may be as slow again as it was (`commit_allowance`).
pub(crate) fn min_look_interval(round_trip: Duration, commit_allowance: Duration, work: &[ScannedMessage]) -> Duration {
    let largest = work.iter().take(HEADROOM).map(|m| u64::from(m.size)).max().unwrap_or(0);
    let commit = Duration::from_secs(largest / SLOWEST_COMMIT_BYTES_PER_SECOND).min(LONGEST_COMMIT);
    MIN_LOOK_INTERVAL.max(round_trip * MIN_LOOK_ROUND_TRIPS).max(commit).max(commit_allowance)
}

/// One folder's doubt: `work` may be partly at the destination, at UID `from` or above, but not at a UID in `known`.
pub(crate) struct CopySearch<'a> {
    /// Facts about the source folder.
    pub scan: &'a FolderScan,
    /// What would be copied.
    pub work: &'a [ScannedMessage],
    /// Of these, copies that the destination confirmed without telling their UIDs: of equal messages they come first.
    pub certain: &'a UidSet<SourceUid>,
    /// Destination UIDs that are accounted for.
    pub known: &'a UidSet<DestinationUid>,
    /// Where at the destination the doubt begins.
    pub from: u32,
    /// Content decides (the tail); otherwise Message-ID, instant and size do, and content where they do not settle it.
    pub by_content: bool,
    /// The look before.
    pub before: Option<DestinationSnapshot>,
    /// How slow the destination may be, from what was seen of it.
    pub commit_allowance: Duration,
    /// Asks to end soon: what is in doubt stays so.
    pub stop: &'a CancellationToken,
}

impl CopySearch<'_> {
    /// Looks until two looks agree. Both folders are open.
    ///
    /// # Errors
    /// When a connection ends, it is asked to stop, or the destination never settles.
    pub(crate) async fn find_copies(
        &self,
        source: &mut Session,
        destination: &mut Session,
        failures: &mut FailureBisector,
    ) -> Result<FoundCopies> {
        let wait = min_look_interval(destination.round_trip(), self.commit_allowance, self.work);
        let mut unmatched: Vec<ScannedMessage> = self.work.to_vec();
        let mut strangers: Vec<IdentityFacts<DestinationUid>> = Vec::new();
        let mut there: HashMap<DestinationUid, KeptFacts> = HashMap::new();
        let mut ids: Option<HashMap<SourceUid, MessageId>> = None;
        // Where copies' UIDs are looked for, these are all of the work.
        let mut folder_matcher = FolderMatcher::new(!self.certain.is_empty());
        let mut found = Vec::new();
        let mut from = self.from;
        let mut before = self.before;
        for _ in 0..MAX_LOOKS {
            let now = Instant::now();
            let (scan, new_ids) = scan_with_ids(destination, from).await?;
            let new: Vec<&ScannedMessage<DestinationUid>> =
                scan.messages.iter().filter(|m| !self.known.contains(m.uid)).collect();
            let uid_next = scan.messages.last().map_or(from, |m| m.uid.0.saturating_add(1));
            // The look before saw the same if nothing was added since.
            let agreed_before = before.is_some_and(|b| now.duration_since(b.at) >= wait && uid_next <= b.uid_next);
            from = from.max(uid_next);
            for message in &new {
                let epoch = message.date().map(|date| date.epoch);
                there.insert(message.uid, KeptFacts { flags: sendable_flags(&scan, message), epoch });
            }
            let mut matched = Vec::new();
            if !new.is_empty() && !unmatched.is_empty() {
                let new_facts: Vec<IdentityFacts<DestinationUid>> =
                    new.iter().map(|m| identity_facts(m, &new_ids)).collect();
                matched = if self.by_content {
                    self.match_by_content(source, destination, &unmatched, &new_facts, &mut folder_matcher, failures)
                        .await?
                } else {
                    if ids.is_none() {
                        ids = Some(fetch_message_ids(source, &unmatched.iter().map(|m| m.uid).collect()).await?);
                    }
                    strangers.extend(new_facts);
                    let known_ids = ids.get_or_insert_default();
                    let facts: Vec<IdentityFacts<SourceUid>> =
                        unmatched.iter().map(|m| identity_facts(m, known_ids)).collect();
                    let both = (&mut *source, &mut *destination);
                    folder_matcher.find_copies(both, &facts, &strangers, failures).await?
                };
            }
            let quiet = matched.is_empty();
            let (sources, copies): (HashSet<SourceUid>, HashSet<DestinationUid>) = matched.iter().copied().unzip();
            for (source, destination) in matched {
                let Ok(at) = unmatched.binary_search_by_key(&source, |m| m.uid) else { continue };
                let (Some(message), Some(kept)) = (unmatched.get(at), there.get(&destination)) else { continue };
                let missing_flags = missing_flags(sendable_flags(self.scan, message), &kept.flags);
                let sent = message.date().map(|date| date.epoch);
                let change = folder_matcher.change((source, sent), (destination, kept.epoch));
                found.push(FoundCopy { source, destination, missing_flags, change });
            }
            unmatched.retain(|message| !sources.contains(&message.uid));
            strangers.retain(|facts| !copies.contains(&facts.uid));
            let agreed_now = quiet && before.is_some_and(|b| now.duration_since(b.at) >= wait) && self.before != before;
            if unmatched.is_empty() || agreed_before || agreed_now {
                found.sort_by_key(|f| f.source);
                let doubtful = folder_matcher.doubtful;
                return Ok(FoundCopies { copies: found, uid_next: Some(from), doubtful });
            }
            before = Some(DestinationSnapshot { at: now, uid_next });
            self.wait_for_next_look(now + wait, source, destination).await?;
        }
        Err(destination.with_endpoint(Error::network(
            "the destination folder keeps changing in ways that cannot be told from copies",
        )))
    }

    /// Waits with both connections kept alive.
    async fn wait_for_next_look(&self, until: Instant, source: &mut Session, destination: &mut Session) -> Result<()> {
        while Instant::now() < until {
            let step = (Instant::now() + KEEP_ALIVE_INTERVAL).min(until);
            tokio::select! {
                () = tokio::time::sleep_until(step) => {}
                () = self.stop.cancelled() => {
                    return Err(destination.with_endpoint(Error::network("asked to stop while copies were looked for")));
                }
            }
            for session in [&mut *source, &mut *destination] {
                if session.idle() >= session.endpoint().timeouts.keepalive {
                    session.run("NOOP").await?;
                }
            }
        }
        Ok(())
    }

    /// The tail: equal content, as a multiset.
    async fn match_by_content(
        &self,
        source: &mut Session,
        destination: &mut Session,
        unmatched: &[ScannedMessage],
        new: &[IdentityFacts<DestinationUid>],
        folder_matcher: &mut FolderMatcher,
        failures: &mut FailureBisector,
    ) -> Result<Vec<(SourceUid, DestinationUid)>> {
        let candidates: UidSet<SourceUid> = unmatched
            .iter()
            .enumerate()
            .filter(|(at, m)| {
                let facts = identity_facts(m, &HashMap::new());
                *at < new.len() + HEADROOM || new.iter().any(|n| n.size == facts.size || n.epoch == facts.epoch)
            })
            .map(|(_, m)| m.uid)
            .collect();
        let missing: UidSet<SourceUid> =
            candidates.iter().filter(|uid| !folder_matcher.source.contains_key(uid)).collect();
        let listed = |uid| {
            let at = unmatched.binary_search_by_key(&uid, |m| m.uid).ok()?;
            unmatched.get(at).map(|m| u64::from(m.size))
        };
        folder_matcher.source.extend(fetch_hashes(source, &missing, listed, failures).await?);
        let tail: Vec<_> =
            fetch_all_hashes(destination, &new.iter().map(|f| f.uid).collect()).await?.into_iter().collect();
        folder_matcher.destination.extend(tail.iter().copied());
        let (certain, uncertain): (Vec<_>, Vec<_>) = candidates
            .iter()
            .filter_map(|uid| folder_matcher.source.get(&uid).map(|hash| (uid, *hash)))
            .partition(|(uid, _)| self.certain.contains(*uid));
        Ok(match_tail(&certain, &uncertain, &tail))
    }
}

/// Finds copies of `work` at destination UIDs from `from` on that are not in `known`, as often as they are there, by one look.
/// Both folders are open.
///
/// # Errors
/// When a connection ends, or the destination does not deliver what must be compared.
pub(crate) async fn find_copies_once(
    pair: &mut ConnectionPair,
    work: &[ScannedMessage],
    known: &UidSet<DestinationUid>,
    from: u32,
    failures: &mut FailureBisector,
) -> Result<Vec<(SourceUid, DestinationUid)>> {
    let (scan, ids) = scan_with_ids(&mut pair.destination, from).await?;
    let mut theirs: Vec<IdentityFacts<DestinationUid>> =
        scan.messages.iter().filter(|m| !known.contains(m.uid)).map(|m| identity_facts(m, &ids)).collect();
    let mut copies = Vec::new();
    if theirs.is_empty() || work.is_empty() {
        return Ok(copies);
    }
    let ids = fetch_message_ids(&mut pair.source, &work.iter().map(|m| m.uid).collect()).await?;
    let ours: Vec<IdentityFacts<SourceUid>> = work.iter().map(|m| identity_facts(m, &ids)).collect();
    let mut folder_matcher = FolderMatcher::new(true);
    loop {
        let both = (&mut pair.source, &mut pair.destination);
        let found = folder_matcher.find_copies(both, &ours, &theirs, failures).await?;
        if found.is_empty() {
            return Ok(copies);
        }
        theirs.retain(|facts| found.iter().all(|(_, uid)| *uid != facts.uid));
        copies.extend(found);
    }
}

/// Which of `flags` a copy has not. Flags and keywords are the same in any case (RFC 9051, section 2.3.2), and some
/// servers keep the spelling that they saw first.
fn missing_flags(mut flags: Vec<String>, there: &[String]) -> Vec<String> {
    flags.retain(|flag| !there.iter().any(|has| has.eq_ignore_ascii_case(flag)));
    flags
}

fn sendable_flags<U: Uid>(scan: &FolderScan<U>, message: &ScannedMessage<U>) -> Vec<String> {
    scan.flags(message).iter().filter_map(|flag| flag.sendable().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imap::response::FetchResponse;

    #[test]
    fn a_keyword_in_another_spelling_is_not_missing() {
        let flags = |flags: &[&str]| flags.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>();
        let there = flags(&["\\SEEN", "$MDNSent"]);
        assert_eq!(missing_flags(flags(&["\\Seen", "$MdnSent", "$Work"]), &there), ["$Work"]);
    }

    #[test]
    fn what_a_server_says_of_sizes_makes_no_wait_without_end() {
        let of = |size| {
            let mut scan: FolderScan = FolderScan::default();
            scan.add_fetch(FetchResponse {
                uid: Some(1),
                flags: Some(Vec::new()),
                size: Some(size),
                ..FetchResponse::default()
            });
            scan.finish();
            min_look_interval(Duration::from_millis(10), Duration::ZERO, &scan.messages)
        };
        assert_eq!(of(1 << 20), MIN_LOOK_INTERVAL);
        assert_eq!(of(500 << 20), Duration::from_secs(10));
        assert_eq!(of(u64::MAX), LONGEST_COMMIT);
    }
}
