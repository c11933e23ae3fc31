//! Reads what identity needs: message facts of a folder, and content hashes of single messages.

use std::collections::{BTreeMap, HashMap};

use super::{
    body_reader::{BodySink, NotRead, read_bodies},
    content_hash::{ContentHash, ContentHasher},
    failure_bisect::FailureBisector,
    identity::{IdentityFacts, MessageId},
    message_limit::{ListingCommand, command_sets, fetch_each, list_each},
    scan::{FolderScan, ScannedMessage},
    uid::DestinationUid,
};
use crate::{
    error::{ErrorClass, Result},
    imap::{
        Session, Tag, Uid, UidSet,
        refusal::CommandKind,
        response::{FetchResponse, StatusCondition, StatusLine, UntaggedResponse},
    },
};

/// The items that tell a message's Message-ID.
pub(crate) const MESSAGE_ID_ITEMS: &str = "(UID BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])";

/// Facts as identity compares them.
#[must_use]
pub(crate) fn identity_facts<U: Uid>(
    message: &ScannedMessage<U>,
    message_id: impl Fn(U) -> Option<MessageId>,
) -> IdentityFacts<U> {
    IdentityFacts {
        uid: message.uid,
        message_id: message_id(message.uid),
        epoch: message.date().map(|date| date.epoch),
        size: Some(u64::from(message.size)),
    }
}

/// The items of [`list_with_ids`].
const LISTED_ITEMS: &str = "(UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])";

/// Lists all messages of the selected folder from UID `from` on, with their Message-IDs, as the folder is now: others may
/// have added some since it was opened. There may be one below `from`: `n:*` beyond the end means the last message (RFC
/// 9051, section 9, seq-range).
///
/// # Errors
/// When the connection ends or the server refuses.
pub(crate) async fn list_with_ids(session: &mut Session, from: u32, each: impl FnMut(FetchResponse)) -> Result<()> {
    // A session sees what it was told of (RFC 9051, section 7): a FETCH answers for the folder as of the command before,
    // and only then tells what is new. The answer is waited for, since Dovecot answers out of order.
    session.run("NOOP").await?;
    list_each(session, &ListingCommand::fetch(from, None, LISTED_ITEMS), each).await
}

/// Scans all messages of the destination from UID `from` on, as [`list_with_ids`] lists them.
///
/// # Errors
/// As there.
pub(crate) async fn scan_with_ids(
    session: &mut Session,
    from: u32,
) -> Result<(FolderScan<DestinationUid>, HashMap<DestinationUid, MessageId>)> {
    let mut scan: FolderScan<DestinationUid> = FolderScan::default();
    let mut ids = HashMap::new();
    list_with_ids(session, from, |fetch| {
        ids.extend(message_id_of(&fetch));
        scan.add_fetch(fetch);
    })
    .await?;
    scan.finish();
    scan.messages.retain(|m| m.uid.0 >= from);
    ids.retain(|uid: &DestinationUid, _| uid.0 >= from);
    Ok((scan, ids))
}

/// Lists just these messages, with their Message-IDs.
///
/// # Errors
/// When the connection ends or the server refuses.
pub(crate) async fn fetch_listed<U: Uid>(
    session: &mut Session,
    uids: &UidSet<U>,
    each: impl FnMut(FetchResponse),
) -> Result<()> {
    fetch_each(session, uids, (LISTED_ITEMS, "to list messages"), each).await
}

/// Lists the Message-IDs of just these messages.
///
/// # Errors
/// When the connection ends or the server refuses.
pub(crate) async fn list_message_ids<U: Uid>(
    session: &mut Session,
    uids: &UidSet<U>,
    mut each: impl FnMut(U, MessageId),
) -> Result<()> {
    let take = |fetch: FetchResponse| {
        if let Some((uid, id)) = message_id_of(&fetch) {
            each(uid, id);
        }
    };
    fetch_each(session, uids, (MESSAGE_ID_ITEMS, "to list Message-IDs"), take).await
}

/// UID and Message-ID in an answer to [`MESSAGE_ID_ITEMS`].
pub(crate) fn message_id_of<U: Uid>(fetch: &FetchResponse) -> Option<(U, MessageId)> {
    let (_, header) = fetch.sections.iter().find(|(name, _)| name.starts_with("HEADER"))?;
    Some((U::from_number(fetch.uid?), MessageId::from_header(header.as_ref()?)?))
}

/// Content hashes of the bodies of `uids`; what is gone is left out, and what cannot be read is so in `failures`. `listed`
/// gives the RFC822.SIZE that was listed before, where it is known: what the server sends in a message's place is left
/// out too, or it would be taken for a copy of another such notice.
///
/// # Errors
/// When the connection ends or the server is busy.
pub(crate) async fn fetch_hashes<U: Uid>(
    session: &mut Session,
    uids: &UidSet<U>,
    listed: impl Fn(U) -> Option<u64>,
    failures: &mut FailureBisector<U>,
) -> Result<BTreeMap<U, ContentHash>> {
    let with_sizes = |uids: &UidSet<U>| uids.iter().map(|uid| (uid, listed(uid).unwrap_or(0))).collect();
    let mut sink = IdentitySink { hasher: ContentHasher::new(), found: BTreeMap::new(), missing: UidSet::default() };
    let mut wanted = uids.clone();
    while !wanted.is_empty() {
        read_bodies(session, with_sizes(&wanted), failures, &mut sink).await?;
        let missing = std::mem::take(&mut sink.missing);
        if missing.is_empty() {
            break;
        }
        // An answer that is OK may leave messages out that are there.
        wanted = search_present_uids(session, &missing).await?;
        for uid in wanted.iter() {
            failures.record_failure_on(uid);
        }
    }
    Ok(sink.found)
}

/// Hashes what comes.
struct IdentitySink<U> {
    hasher: ContentHasher,
    found: BTreeMap<U, ContentHash>,
    /// What did not come, though its FETCH ended well.
    missing: UidSet<U>,
}

impl<U: Uid> BodySink<U> for IdentitySink<U> {
    /// What is tried again later is no reason to give messages up.
    const COUNTS_UNWELL: bool = false;
    /// The next connection hashes anew what is still unmatched.
    const STAYS_READ: bool = false;

    fn take_bytes(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    fn finish(&mut self, uid: U) {
        self.found.insert(uid, std::mem::take(&mut self.hasher).finish());
    }

    fn drop_bytes(&mut self) {
        self.hasher = ContentHasher::new();
    }

    fn leave_out(&mut self, uid: U, why: NotRead) {
        if why == NotRead::Missing {
            self.missing.insert(uid);
        }
    }
}

/// All UIDs of the selected folder (RFC 9051, section 6.4.9).
#[derive(Debug, Default)]
pub(crate) struct UidSearch {
    /// What the server listed.
    pub uids: UidSet,
}

impl UidSearch {
    /// Takes what belongs to the answer.
    pub(crate) fn add_response(&mut self, data: &UntaggedResponse) {
        match data {
            UntaggedResponse::Search { numbers, .. } => self.uids.add(numbers),
            UntaggedResponse::Esearch { uid: true, all, .. } => self.uids.add(all),
            _ => {}
        }
    }
}

/// Which of `uids` are still in the selected folder. Some servers search only the newest messages of a folder, so what
/// SEARCH does not list is asked for by FETCH before it counts as gone.
///
/// # Errors
/// When the connection ends or the server refuses.
pub(crate) async fn search_present_uids<U: Uid>(session: &mut Session, uids: &UidSet<U>) -> Result<UidSet<U>> {
    // As in a scan: what was expunged may be listed until the view is brought up to date.
    session.run("NOOP").await?;
    let (found, refusal) = search_uids(session, uids).await?;
    if let Some(line) = refusal {
        return Err(session.refusal_error(&line, CommandKind::Other, "to search"));
    }
    let fetched = fetch_present_uids(session, &uids.difference(&found)).await?;
    Ok(found.union(&fetched))
}

/// Which of `uids` the selected folder does not show, to neither SEARCH nor FETCH. A server that refuses to answer proves
/// of none that it is gone.
///
/// # Errors
/// When the connection ends, or the server is unwell.
pub(crate) async fn find_unshown_uids<U: Uid>(session: &mut Session, uids: &UidSet<U>) -> Result<UidSet<U>> {
    if uids.is_empty() {
        return Ok(UidSet::default());
    }
    let (found, _) = search_uids(session, uids).await?;
    let left = uids.difference(&found);
    let fetched = fetch_present_uids(session, &left).await?;
    Ok(left.difference(&fetched))
}

/// Which of `uids` SEARCH finds, and how the server refused, where it did.
async fn search_uids<U: Uid>(session: &mut Session, uids: &UidSet<U>) -> Result<(UidSet<U>, Option<StatusLine>)> {
    let mut there = UidSearch::default();
    let tags: Vec<Tag> =
        command_sets(session, uids).iter().map(|set| session.send_command(&format!("UID SEARCH UID {set}"))).collect();
    let lines = session.wait_all(&tags, |data| there.add_response(&data)).await?;
    let refusal = lines.into_iter().find(|line| line.status != StatusCondition::Ok);
    Ok((there.uids.typed().intersection(uids), refusal))
}

/// Which of `uids` FETCH finds. Where the server refuses to answer, it proves of none that it is gone.
async fn fetch_present_uids<U: Uid>(session: &mut Session, uids: &UidSet<U>) -> Result<UidSet<U>> {
    let mut there = UidSet::default();
    for set in command_sets(session, uids) {
        let tag = session.send_command(&format!("UID FETCH {set} (UID)"));
        let line = session
            .wait(tag, |data| {
                if let UntaggedResponse::Fetch(FetchResponse { uid: Some(uid), .. }) = data {
                    there.insert(U::from_number(uid));
                }
            })
            .await?;
        match session.refusal_class(&line, CommandKind::Other) {
            _ if line.status == StatusCondition::Ok => {}
            ErrorClass::Throttled | ErrorClass::Network => {
                return Err(session.refusal_error(&line, CommandKind::Other, "to find messages"));
            }
            _ => there = there.union(&UidSet::parse(&set).unwrap_or_default()),
        }
    }
    Ok(there.intersection(uids))
}
