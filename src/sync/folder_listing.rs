//! Holds what a server lists of a folder against the number of messages that it says the folder has (EXISTS).
//!
//! Servers leave messages out of an answer that is OK: UID SEARCH that gives only the newest thousand, FETCH that passes
//! over what it can't read. A listing that is shorter than the count is asked for again, in other words each time. What
//! is counted and still not listed then is told as a number: it has no UIDs.

use super::{
    limits::MAX_MESSAGES,
    message_limit::{ListingCommand, command_sets},
    scan::{FolderScan, ITEMS, too_many_messages},
};
use crate::{
    error::{ErrorClass, Result},
    imap::{
        Session, Tag, Uid, UidSet,
        refusal::CommandKind,
        response::{StatusCondition, UntaggedResponse},
        select::SelectedFolder,
    },
};

/// One FETCH by sequence numbers asks for so many messages.
const RANGE_MESSAGES: u32 = 1000;
/// At most so many of them are sent: a count without bounds makes larger ranges, not more of them.
const MAX_RANGES: u32 = 10_000;
/// So many of them are on their way at once.
const RANGES_IN_FLIGHT: usize = 8;

/// # Errors
/// Protocol, when a folder counts more messages (EXISTS) than any has.
pub(super) fn check_count(exists: u32) -> Result<()> {
    if exists > MAX_MESSAGES { Err(too_many_messages(exists.into())) } else { Ok(()) }
}

/// True when a UID SEARCH that lists so many UIDs may tell of a folder with `exists` messages; else it is not believed. It
/// may list a few more: some come and go meanwhile.
pub(super) fn may_be_listing(listed: u64, exists: u32) -> bool {
    listed <= 2 * u64::from(exists) + 1000
}

/// What a server lists of its selected folder, after it was asked as often as makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FolderListing<U> {
    /// UIDs that were listed. Where nothing is unlisted, these are the messages that the folder holds.
    pub uids: UidSet<U>,
    /// Messages that the server counts and lists nowhere.
    pub unlisted: u64,
}

/// Asks again for the messages of the selected folder while fewer are listed than there are: at most twice, first by UID,
/// then by sequence numbers.
///
/// `listed` and `scan` are what was listed so far, and `known` are UIDs that a complete listing may hold as far as anybody
/// knows (those of a checkpoint). Facts about messages that only come to light here go into `scan`; of UIDs that only
/// UID SEARCH gives there are none in it. `selected` gets the count as it is in the end.
///
/// # Errors
/// When the connection ends, or the server asks to be left alone; Protocol when it counts or lists more than any folder
/// has. Another refusal only means that nothing is listed.
pub(crate) async fn complete_listing<U: Uid>(
    session: &mut Session,
    selected: &mut SelectedFolder,
    scan: &mut FolderScan<U>,
    listed: &UidSet<U>,
    known: &UidSet<U>,
) -> Result<FolderListing<U>> {
    let mut count = ListingCount::new(selected.exists, listed.union(&scan.uids()));
    if count.missing() > 0 {
        ask_by_uid(session, &mut count, scan, known).await?;
    }
    if count.missing() > 0 {
        ask_by_number(session, &mut count, scan).await?;
    }
    scan.finish();
    check_count(count.exists).and_then(|()| scan.check()).map_err(|error| session.with_endpoint(error))?;
    selected.exists = count.exists;
    Ok(count.finish())
}

/// UID SEARCH, and UID FETCH of what is known of the folder and was not listed.
async fn ask_by_uid<U: Uid>(
    session: &mut Session,
    count: &mut ListingCount<U>,
    scan: &mut FolderScan<U>,
    known: &UidSet<U>,
) -> Result<()> {
    count.refresh(session).await?;
    let untold = known.difference(&count.listed);
    let sets = command_sets(session, &untold);
    let by_set = sets.iter().map(|set| format!("UID FETCH {set} {ITEMS}"));
    let commands: Vec<String> = std::iter::once(ListingCommand::search(session).to_string()).chain(by_set).collect();
    ask(session, &commands, count, scan).await.map(drop)
}

/// FETCH by sequence numbers: the answers carry UIDs, and only these count, since numbers mean something else as soon as
/// a message is expunged.
async fn ask_by_number<U: Uid>(
    session: &mut Session,
    count: &mut ListingCount<U>,
    scan: &mut FolderScan<U>,
) -> Result<()> {
    count.refresh(session).await?;
    check_count(count.exists).map_err(|error| session.with_endpoint(error))?;
    let ranges = sequence_ranges(count.exists, session.capabilities().message_limit());
    let commands: Vec<String> = ranges.map(|(low, high)| format!("FETCH {low}:{high} {ITEMS}")).collect();
    for window in commands.chunks(RANGES_IN_FLIGHT) {
        if count.missing() == 0 || !ask(session, window, count, scan).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// Sequence numbers from 1 to `exists`, in ranges of at most `limit` messages (RFC 9738).
fn sequence_ranges(exists: u32, limit: Option<u32>) -> impl Iterator<Item = (u32, u32)> {
    let step = RANGE_MESSAGES.max(exists.div_ceil(MAX_RANGES)).min(limit.unwrap_or(u32::MAX));
    let starts = (0..MAX_RANGES).map_while(move |at| at.checked_mul(step)).take_while(move |below| *below < exists);
    starts.map(move |below| (below + 1, below.saturating_add(step).min(exists)))
}

/// Sends `commands` in one go; false when the server refuses one of them.
async fn ask<U: Uid>(
    session: &mut Session,
    commands: &[String],
    count: &mut ListingCount<U>,
    scan: &mut FolderScan<U>,
) -> Result<bool> {
    let tags: Vec<Tag> = commands.iter().map(|command| session.send_command(command)).collect();
    let lines = session
        .wait_all(&tags, |data| {
            count.add_response(&data);
            if let UntaggedResponse::Fetch(fetch) = data {
                scan.add_fetch(fetch);
            }
        })
        .await?;
    let Some(line) = lines.iter().find(|line| line.status != StatusCondition::Ok) else { return Ok(true) };
    match session.refusal_class(line, CommandKind::Other) {
        ErrorClass::Throttled | ErrorClass::Network => {
            Err(session.refusal_error(line, CommandKind::Other, "to list the folder"))
        }
        _ => Ok(false),
    }
}

/// Counts what is listed against what exists.
#[derive(Debug)]
struct ListingCount<U> {
    /// EXISTS, as it is now.
    exists: u32,
    /// EXISTS when the last question was asked: what comes later need not be listed by its answer.
    asked: u32,
    /// Listed, as far as it is certain that it still exists.
    listed: UidSet<U>,
    /// Listed before an EXPUNGE, which names a sequence number: nobody knows which of these is gone.
    uncertain: UidSet<U>,
}

impl<U: Uid> ListingCount<U> {
    fn new(exists: u32, listed: UidSet<U>) -> Self {
        Self { exists, asked: exists, listed, uncertain: UidSet::default() }
    }

    /// How many messages were not listed.
    fn missing(&self) -> u64 {
        u64::from(self.exists.min(self.asked)).saturating_sub(self.listed.len())
    }

    fn add_response(&mut self, data: &UntaggedResponse) {
        match data {
            UntaggedResponse::Exists(exists) => self.exists = *exists,
            UntaggedResponse::Expunge(_) => {
                self.exists = self.exists.saturating_sub(1);
                self.uncertain = self.uncertain.union(&std::mem::take(&mut self.listed));
            }
            UntaggedResponse::Vanished { earlier: false, uids } => {
                let gone = u32::try_from(uids.len()).unwrap_or(u32::MAX);
                self.exists = self.exists.saturating_sub(gone);
                self.listed = self.listed.difference(&uids.typed());
            }
            UntaggedResponse::Search { numbers: found, .. }
            | UntaggedResponse::Esearch { uid: true, all: found, .. } => {
                let all = self.listed.union(&found.typed());
                if may_be_listing(all.len(), self.exists) {
                    self.listed = all;
                }
            }
            UntaggedResponse::Fetch(fetch) => {
                // Each range is one message at least.
                let ranges = self.listed.ranges().len() as u64;
                if let Some(uid) = fetch.uid.filter(|_| may_be_listing(ranges, self.exists)) {
                    self.listed.insert(U::from_number(uid));
                }
            }
            _ => {}
        }
    }

    /// Brings the count up to date. A session sees what it was told of (RFC 9051, section 7): only NOOP tells what is gone.
    async fn refresh(&mut self, session: &mut Session) -> Result<()> {
        let tag = session.send_command("NOOP");
        session.wait(tag, |data| self.add_response(&data)).await?;
        self.asked = self.exists;
        Ok(())
    }

    fn finish(self) -> FolderListing<U> {
        let unlisted = self.missing();
        let uids = if unlisted == 0 { self.listed } else { self.listed.union(&self.uncertain) };
        FolderListing { uids, unlisted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imap::response::FetchResponse;

    fn uids(text: &str) -> UidSet<u32> {
        UidSet::parse(text).unwrap()
    }

    fn search(text: &str) -> UntaggedResponse {
        UntaggedResponse::Search { numbers: uids(text), modseq: None }
    }

    fn fetch(uid: Option<u32>) -> UntaggedResponse {
        UntaggedResponse::Fetch(FetchResponse { uid, ..FetchResponse::default() })
    }

    fn listing(exists: u32, listed: &str, answers: &[UntaggedResponse]) -> FolderListing<u32> {
        let mut count = ListingCount::new(exists, uids(listed));
        for answer in answers {
            count.add_response(answer);
        }
        count.finish()
    }

    #[test]
    fn what_is_counted_and_not_listed_is_a_number() {
        assert_eq!(listing(10, "1:8", &[]), FolderListing { uids: uids("1:8"), unlisted: 2 });
        assert_eq!(listing(10, "1:8", &[search("8:9"), fetch(Some(10))]).unlisted, 0);
        // A message that is told without its UID is none that is listed.
        assert_eq!(listing(10, "1:9", &[fetch(None)]).unlisted, 1);
    }

    #[test]
    fn a_search_that_lists_far_more_than_there_is_is_not_believed() {
        assert_eq!(listing(10, "1:8", &[search("1:4294967295")]), FolderListing { uids: uids("1:8"), unlisted: 2 });
        assert_eq!(listing(10, "1:8", &[search("1:11")]).uids, uids("1:11"));
        assert!(check_count(MAX_MESSAGES).is_ok());
        let error = check_count(u32::MAX).unwrap_err();
        assert_eq!(error.class, ErrorClass::Protocol);
        assert!(error.what.contains("4294967295") && error.what.contains("16000000"), "{error}");
    }

    #[test]
    fn after_an_expunge_only_what_is_listed_anew_counts() {
        let expunged = [UntaggedResponse::Expunge(3)];
        assert_eq!(listing(10, "1:9", &expunged), FolderListing { uids: uids("1:9"), unlisted: 9 });
        let listed_anew = [UntaggedResponse::Expunge(3), search("1:2,4:10")];
        assert_eq!(listing(10, "1:9", &listed_anew), FolderListing { uids: uids("1:2,4:10"), unlisted: 0 });
        let vanished = [UntaggedResponse::Vanished { earlier: false, uids: uids("3") }];
        assert_eq!(listing(10, "1:10", &vanished), FolderListing { uids: uids("1:2,4:10"), unlisted: 0 });
    }

    #[test]
    fn what_comes_after_the_question_need_not_be_in_the_answer() {
        assert_eq!(listing(10, "1:10", &[UntaggedResponse::Exists(12)]).unlisted, 0);
    }

    #[test]
    fn ranges_cover_every_number_once_and_are_few_whatever_is_counted() {
        let ranges = |exists| sequence_ranges(exists, None).collect::<Vec<_>>();
        assert!(ranges(0).is_empty());
        assert_eq!(ranges(3), [(1, 3)]);
        assert_eq!(ranges(2500), [(1, 1000), (1001, 2000), (2001, 2500)]);
        assert_eq!(sequence_ranges(5, Some(2)).collect::<Vec<_>>(), [(1, 2), (3, 4), (5, 5)]);
        for exists in [999_999, 10_000_001, u32::MAX] {
            let ranges = ranges(exists);
            assert!(ranges.len() <= MAX_RANGES as usize);
            assert_eq!((ranges[0].0, ranges.last().unwrap().1), (1, exists));
            assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0));
        }
    }
}
