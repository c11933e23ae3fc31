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
    failure_bisect::FailureBisector,
    fetch_facts::{identity_facts, list_message_ids, scan_with_ids},
    folder_match::FolderMatcher,
    folder_search::FolderSearch,
    found_copies::FoundCopies,
    identity::{IdentityFacts, MessageId},
    limits::{LONGEST_COMMIT, MIN_LOOK_INTERVAL, MIN_LOOK_ROUND_TRIPS, SLOWEST_COMMIT_BYTES_PER_SECOND},
    scan::ScannedMessage,
    search_scope::{HEADROOM, SearchScope},
    tail_search::TailSearch,
    uid::{DestinationUid, SourceUid},
};
use crate::{
    error::{Error, Result},
    imap::{Session, UidSet},
};

/// More looks than this never agree.
const MAX_LOOKS: u32 = 100;

/// A look at the destination that was made before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DestinationSnapshot {
    /// When.
    pub at: Instant,
    /// UIDNEXT then.
    pub uid_next: u32,
}

/// How far two looks must be apart. What is in doubt was sent in UID order: the largest of the first messages may take
/// its time to be committed, and the server may be as slow again as it was (`commit_allowance`).
pub(crate) fn min_look_interval<'a>(
    round_trip: Duration,
    commit_allowance: Duration,
    work: impl Iterator<Item = &'a ScannedMessage>,
) -> Duration {
    let largest = work.take(HEADROOM).map(|m| u64::from(m.size)).max().unwrap_or(0);
    let commit = Duration::from_secs(largest / SLOWEST_COMMIT_BYTES_PER_SECOND).min(LONGEST_COMMIT);
    MIN_LOOK_INTERVAL.max(round_trip * MIN_LOOK_ROUND_TRIPS).max(commit).max(commit_allowance)
}

/// One folder's doubt: what is in `scope` may be partly at the destination, at UID `from` or above.
pub(crate) struct CopySearch<'a> {
    /// What is looked for.
    pub scope: SearchScope<'a>,
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
        let messages = self.scope.messages();
        let wait = min_look_interval(destination.round_trip(), self.commit_allowance, messages);
        let mut looks = if self.by_content {
            Looks::Tail(TailSearch::new(self.scope))
        } else {
            Looks::Folder(Box::new(FolderSearch::new(self.scope)))
        };
        let mut found = FoundCopies::default();
        let mut from = self.from;
        let mut before = self.before;
        for _ in 0..MAX_LOOKS {
            let now = Instant::now();
            let both = (&mut *source, &mut *destination);
            let look = match &mut looks {
                Looks::Tail(search) => search.look(from, both, failures, &mut found).await?,
                Looks::Folder(search) => search.look(from, both, failures, &mut found).await?,
            };
            // The look before saw the same if nothing was added since.
            let uid_next = look.uid_next;
            let agreed_before = before.is_some_and(|b| now.duration_since(b.at) >= wait && uid_next <= b.uid_next);
            let agreed_now =
                look.matched == 0 && before.is_some_and(|b| now.duration_since(b.at) >= wait) && self.before != before;
            from = from.max(uid_next);
            if found.copies.len() as u64 >= self.scope.work.len() || agreed_before || agreed_now {
                drop(looks);
                found.copies.sort_unstable_by_key(|copy| copy.source);
                found.changes.sort_unstable_by_key(|(source, _)| *source);
                return Ok(FoundCopies { uid_next: Some(from), ..found });
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
}

/// What the looks look at.
enum Looks<'a> {
    /// The tail.
    Tail(TailSearch<'a>),
    /// The whole folder.
    Folder(Box<FolderSearch<'a>>),
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
    let new = scan.messages.iter().filter(|m| !known.contains(m.uid));
    let mut theirs: Vec<IdentityFacts<DestinationUid>> =
        new.map(|m| identity_facts(m, |uid| ids.get(&uid).copied())).collect();
    let mut copies = Vec::new();
    if theirs.is_empty() || work.is_empty() {
        return Ok(copies);
    }
    let mut ids: HashMap<SourceUid, MessageId> = HashMap::new();
    let uids = work.iter().map(|m| m.uid).collect();
    list_message_ids(&mut pair.source, &uids, |uid, id| {
        ids.insert(uid, id);
    })
    .await?;
    let ours: Vec<IdentityFacts<SourceUid>> =
        work.iter().map(|m| identity_facts(m, |uid| ids.get(&uid).copied())).collect();
    let mut folder_matcher = FolderMatcher::new(true, false);
    loop {
        let both = (&mut pair.source, &mut pair.destination);
        let found = folder_matcher.find_copies(both, &ours, &theirs, failures).await?;
        if found.is_empty() {
            return Ok(copies);
        }
        let taken: HashSet<DestinationUid> = found.iter().map(|(_, uid)| *uid).collect();
        theirs.retain(|facts| !taken.contains(&facts.uid));
        copies.extend(found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{imap::response::FetchResponse, sync::scan::FolderScan};

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
            min_look_interval(Duration::from_millis(10), Duration::ZERO, scan.messages.iter())
        };
        assert_eq!(of(1 << 20), MIN_LOOK_INTERVAL);
        assert_eq!(of(500 << 20), Duration::from_secs(10));
        assert_eq!(of(u64::MAX), LONGEST_COMMIT);
    }
}
