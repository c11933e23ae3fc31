//! Commands for servers that touch only so many messages at once (MESSAGELIMIT, RFC 9738).
//!
//! Such a server answers OK though it did a part of what was asked: the newest messages, down to a UID that its response
//! code names. So sets are cut to the limit beforehand, and listings without an end go on below that UID.

use std::fmt;

use super::limits::MAX_SET_BYTES;
use crate::{
    error::Result,
    imap::{
        Session, Tag, Uid, UidSet,
        refusal::CommandKind,
        response::{FetchResponse, ResponseCode, StatusCondition, StatusLine, UntaggedResponse},
    },
};

/// At most so many commands are made of one set, however small a limit the server claims.
const MAX_SETS: u64 = 10_000;
/// A listing is continued so often at most: enough for more messages than any folder has, by the thousand.
const MAX_PAGES: usize = 20_000;

/// `most`, or what the server touches at once where that is less.
pub(crate) fn max_messages(session: &Session, most: usize) -> usize {
    let limit = session.capabilities().message_limit().and_then(|limit| usize::try_from(limit).ok());
    limit.map_or(most, |limit| limit.min(most))
}

/// The sets by which `uids` go into commands: of a length that all servers take, and of no more messages than this one
/// touches at once.
pub(crate) fn command_sets<U: Uid>(session: &Session, uids: &UidSet<U>) -> Vec<String> {
    limited_sets(uids, session.capabilities().message_limit())
}

fn limited_sets<U: Uid>(uids: &UidSet<U>, limit: Option<u32>) -> Vec<String> {
    let Some(limit) = limit else { return uids.chunks(MAX_SET_BYTES).collect() };
    let limit = limit.max(u32::try_from(uids.len().div_ceil(MAX_SETS)).unwrap_or(u32::MAX));
    let mut sets = Vec::new();
    let (mut part, mut room): (UidSet<U>, u32) = (UidSet::default(), limit);
    for &(low, high) in uids.ranges() {
        let mut next = Some(low.number());
        while let Some(first) = next.filter(|first| *first <= high.number()) {
            let last = high.number().min(first.saturating_add(room - 1));
            part.insert_range(U::from_number(first), U::from_number(last));
            room -= last - first + 1;
            if room == 0 {
                sets.extend(std::mem::take(&mut part).chunks(MAX_SET_BYTES));
                room = limit;
            }
            next = last.checked_add(1);
        }
    }
    sets.extend(part.chunks(MAX_SET_BYTES));
    sets
}

/// A command that lists messages of the selected folder from one UID to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListingCommand {
    /// What stands before the range.
    verb: &'static str,
    from: u32,
    /// None: up to the last message.
    to: Option<u32>,
    /// What stands behind the range; none for UID SEARCH.
    items: Option<String>,
}

impl ListingCommand {
    /// `UID FETCH from:to items`; without `to` up to the last message.
    pub(crate) fn fetch(from: u32, to: Option<u32>, items: impl Into<String>) -> Self {
        Self { verb: "UID FETCH", from, to, items: Some(items.into()) }
    }

    /// UID SEARCH for all messages, in the short form where the server has it (RFC 4731).
    pub(crate) fn search(session: &Session) -> Self {
        let short = session.capabilities().has("ESEARCH");
        let verb = if short { "UID SEARCH RETURN (ALL)" } else { "UID SEARCH" };
        Self { verb, from: 1, to: None, items: None }
    }

    /// The same below a UID; none where nothing is left below.
    fn below(&self, uid: u32) -> Option<Self> {
        let to = uid.checked_sub(1).filter(|to| *to >= self.from && self.to.is_none_or(|before| *to < before))?;
        Some(Self { to: Some(to), ..self.clone() })
    }
}

impl fmt::Display for ListingCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, from, to, items } = self;
        match (items, to) {
            (Some(items), Some(to)) => write!(f, "{verb} {from}:{to} {items}"),
            (Some(items), None) => write!(f, "{verb} {from}:* {items}"),
            (None, Some(to)) => write!(f, "{verb} UID {from}:{to}"),
            (None, None) => write!(f, "{verb} ALL"),
        }
    }
}

/// Lists what the answer to `command` left out because of the server's limit, page by page downwards. `line` is how that
/// answer ended; gives how the last one did.
///
/// # Errors
/// When the connection ends; a NO or BAD is no error here.
pub(crate) async fn list_lower_pages(
    session: &mut Session,
    command: &ListingCommand,
    line: StatusLine,
    mut data: impl FnMut(UntaggedResponse),
) -> Result<StatusLine> {
    let (mut line, mut command) = (line, command.clone());
    for _ in 0..MAX_PAGES {
        let Some(next) = next_page(&command, &line) else { break };
        let tag = session.send_command(&next.to_string());
        line = session.wait(tag, &mut data).await?;
        command = next;
    }
    Ok(line)
}

/// Hands each message that `command`, a FETCH, lists to `each`, over all pages.
///
/// # Errors
/// When the connection ends or the server refuses.
pub(crate) async fn list_each(
    session: &mut Session,
    command: &ListingCommand,
    mut each: impl FnMut(FetchResponse),
) -> Result<()> {
    let mut take = |data| {
        if let UntaggedResponse::Fetch(fetch) = data {
            each(fetch);
        }
    };
    let tag = session.send_command(&command.to_string());
    let line = session.wait(tag, &mut take).await?;
    let line = list_lower_pages(session, command, line, &mut take).await?;
    if line.status != StatusCondition::Ok {
        return Err(session.refusal_error(&line, CommandKind::Other, "to list messages"));
    }
    Ok(())
}

/// Hands what FETCH tells of just these messages to `each`. `purpose` stands in the error.
///
/// # Errors
/// When the connection ends or the server refuses.
pub(crate) async fn fetch_each<U: Uid>(
    session: &mut Session,
    uids: &UidSet<U>,
    (items, purpose): (&str, &str),
    mut each: impl FnMut(FetchResponse),
) -> Result<()> {
    let tags: Vec<Tag> = command_sets(session, uids)
        .iter()
        .map(|set| session.send_command(&format!("UID FETCH {set} {items}")))
        .collect();
    let lines = session
        .wait_all(&tags, |data| {
            if let UntaggedResponse::Fetch(fetch) = data {
                each(fetch);
            }
        })
        .await?;
    match lines.iter().find(|line| line.status != StatusCondition::Ok) {
        Some(line) => Err(session.refusal_error(line, CommandKind::Other, purpose)),
        None => Ok(()),
    }
}

/// What to ask for after an answer that ended so; none where it was complete, or does not say where it stopped.
fn next_page(command: &ListingCommand, line: &StatusLine) -> Option<ListingCommand> {
    match (line.status, &line.code) {
        (StatusCondition::Ok, Some(ResponseCode::MessageLimit { lowest_uid: Some(lowest), .. })) => {
            command.below(*lowest)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(status: StatusCondition, lowest_uid: Option<u32>) -> StatusLine {
        let code = Some(ResponseCode::MessageLimit { limit: 1000, lowest_uid });
        StatusLine { status, code, text: String::new() }
    }

    #[test]
    fn a_listing_goes_on_below_the_lowest_uid_until_its_beginning() {
        let all = ListingCommand::fetch(5, None, "(UID FLAGS)");
        assert_eq!(all.to_string(), "UID FETCH 5:* (UID FLAGS)");
        let next = next_page(&all, &line(StatusCondition::Ok, Some(900))).unwrap();
        assert_eq!(next.to_string(), "UID FETCH 5:899 (UID FLAGS)");
        assert_eq!(next_page(&next, &line(StatusCondition::Ok, Some(5))), None);
        // What does not lead downwards would never end.
        assert_eq!(next_page(&next, &line(StatusCondition::Ok, Some(900))), None);
        assert_eq!(next_page(&next, &line(StatusCondition::Ok, None)), None);
        assert_eq!(next_page(&next, &line(StatusCondition::No, Some(100))), None);
    }

    #[test]
    fn a_search_goes_on_by_uid() {
        let all = ListingCommand { verb: "UID SEARCH RETURN (ALL)", from: 1, to: None, items: None };
        assert_eq!(all.to_string(), "UID SEARCH RETURN (ALL) ALL");
        assert_eq!(all.below(900).unwrap().to_string(), "UID SEARCH RETURN (ALL) UID 1:899");
        assert_eq!(all.below(1), None);
    }

    #[test]
    fn sets_hold_no_more_messages_than_the_server_touches() {
        let sets = |uids: &str, limit| limited_sets(&UidSet::<u32>::parse(uids).unwrap(), limit);
        assert_eq!(sets("1:10,20", None), ["1:10,20"]);
        assert_eq!(sets("1:10,20,30:31", Some(4)), ["1:4", "5:8", "9:10,20,30", "31"]);
        assert_eq!(sets("4294967290:4294967295", Some(4)), ["4294967290:4294967293", "4294967294:4294967295"]);
        assert!(limited_sets(&UidSet::<u32>::new(), Some(4)).is_empty());
        assert_eq!(sets("1:4294967295", Some(1)).len() as u64, MAX_SETS);
    }

    proptest! {
        #[test]
        fn limited_sets_are_the_whole_set(
            uids in proptest::collection::btree_set(1..300_u32, 0..120), limit in 1..40_u32,
        ) {
            let uids: UidSet<u32> = uids.into_iter().collect();
            let sets: Vec<UidSet<u32>> =
                limited_sets(&uids, Some(limit)).iter().map(|set| UidSet::parse(set).unwrap()).collect();
            prop_assert!(sets.iter().all(|set| set.len() <= u64::from(limit)));
            prop_assert_eq!(sets.iter().map(UidSet::len).sum::<u64>(), uids.len());
            prop_assert_eq!(sets.iter().fold(UidSet::default(), |all, set| all.union(set)), uids);
        }
    }
}
