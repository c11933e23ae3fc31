//! Reads single messages from the source, for people who deal with what could not be copied. Read-only: EXAMINE and
//! `BODY.PEEK`.

use std::{collections::BTreeMap, sync::Arc};

use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::{
    body_reader::{fetch_bodies, into_body},
    fetch_facts::search_present_uids,
    folder_name::SideFolders,
    prepare::side_folders,
    scan::{FolderScan, scan_set},
    stand_in::find_stand_in,
    uid::SourceUid,
};
use crate::{
    error::{Error, ErrorClass, Result},
    imap::{
        Endpoint, Session, SessionEvent, UidSet,
        account_listing::{AccountListing, ListingMemory, list_account},
        connect,
        refusal::CommandKind,
        response::{StatusCondition, UntaggedResponse},
        select::{queue_examine, wait_for_selected},
        session::ByteCounter,
    },
};

/// What the source says of a message before it is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ListedMessage {
    /// RFC822.SIZE, bytes; a hint only.
    pub size: u64,
    /// INTERNALDATE.
    pub date: Option<String>,
}

/// What came of reading a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReadOutcome {
    /// So many bytes: the whole message.
    Whole(u64),
    /// It is not in the folder any more.
    Gone,
    /// The source did not deliver it; what it said.
    Unreadable(String),
}

/// The source's folder as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FolderPresence {
    /// It is there, with these of the messages; the others are gone.
    Same(BTreeMap<SourceUid, ListedMessage>),
    /// It was made anew: its UIDVALIDITY is this one, and UIDs mean other messages.
    Replaced(u32),
    /// There is no such folder any more.
    Gone,
}

/// One connection to the source.
#[derive(Debug)]
pub(crate) struct SourceReader {
    session: Session,
    folders: SideFolders,
    survey: AccountListing,
}

impl SourceReader {
    /// Connects, logs in and lists the folders. `moved` counts bytes.
    ///
    /// # Errors
    /// When that fails, by its class.
    pub(crate) async fn connect(endpoint: &Arc<Endpoint>, moved: &ByteCounter) -> Result<Self> {
        let mut session = connect(endpoint, moved).await?;
        let survey = list_account(&mut session, false, &mut ListingMemory::default()).await?;
        Ok(Self { session, folders: side_folders(&survey), survey })
    }

    /// The folder's name as reports have it.
    #[must_use]
    pub(crate) fn name(&self, raw: &[u8]) -> String {
        let delimiter = self.survey.folder(raw).and_then(|folder| folder.item.delimiter).or(self.survey.delimiter);
        self.folders.parse_name(raw, delimiter).text()
    }

    /// Opens a folder for reading, and lists these of its messages.
    ///
    /// # Errors
    /// When the connection ends or the server refuses.
    pub(crate) async fn open_folder(
        &mut self,
        raw: &[u8],
        uid_validity: u32,
        uids: &UidSet<SourceUid>,
    ) -> Result<FolderPresence> {
        if self.survey.folder(raw).is_none() {
            return Ok(FolderPresence::Gone);
        }
        let name = self.name(raw);
        let tag = queue_examine(&mut self.session, raw);
        let selected = wait_for_selected(&mut self.session, tag, &name).await?;
        if selected.uid_validity != uid_validity {
            return Ok(FolderPresence::Replaced(selected.uid_validity));
        }
        let mut scan = FolderScan::default();
        scan_set(&mut self.session, uids, &mut scan).await?;
        scan.finish();
        let listed = |m: &super::scan::ScannedMessage| {
            (m.uid, ListedMessage { size: m.size.into(), date: m.date().map(|date| date.to_string()) })
        };
        let mut messages: BTreeMap<_, _> = scan.messages.iter().filter(|m| uids.contains(m.uid)).map(listed).collect();
        // What the source counts and tells nothing of may still be delivered.
        let untold: UidSet<SourceUid> = uids.iter().filter(|uid| !messages.contains_key(uid)).collect();
        if !untold.is_empty() {
            let there = search_present_uids(&mut self.session, &untold).await?;
            messages.extend(there.iter().map(|uid| (uid, ListedMessage::default())));
        }
        Ok(FolderPresence::Same(messages))
    }

    /// Reads a message of the opened folder, listed with `size` bytes, to its end, as its bytes come.
    ///
    /// # Errors
    /// When the connection ends, the server asks to wait, or `to` takes no more: what was written is not the message.
    pub(crate) async fn read_message(
        &mut self,
        uid: SourceUid,
        size: u64,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<ReadOutcome> {
        let tag = self.session.send_command(&fetch_bodies(uid));
        let (mut written, mut streamed, mut whole, mut stand_in) = (0, false, false, None);
        let line = loop {
            match self.session.next().await? {
                SessionEvent::LiteralStart { uid: named, .. } => {
                    if whole || streamed || named.is_some_and(|named| named != uid.0) {
                        return Err(self
                            .session
                            .with_endpoint(Error::protocol("the server sent what nobody asked for")));
                    }
                    streamed = true;
                }
                SessionEvent::LiteralChunk(bytes) => written += write(to, &bytes).await?,
                SessionEvent::Untagged(UntaggedResponse::Fetch(fetch)) => {
                    let named = fetch.uid;
                    match into_body(fetch) {
                        Some(body) if named == Some(uid.0) && !whole => {
                            if !streamed {
                                stand_in = find_stand_in(size, &body);
                                written += write(to, &body).await?;
                            }
                            whole = true;
                        }
                        _ if streamed && !whole => {
                            return Err(self.session.with_endpoint(Error::protocol("the server sent another message")));
                        }
                        _ => {}
                    }
                }
                SessionEvent::Done(done, line) if done == tag => break line,
                SessionEvent::Untagged(_) | SessionEvent::Done(..) => {}
            }
        };
        if line.status != StatusCondition::Ok {
            let refusal = self.session.refusal_error(&line, CommandKind::Other, "to deliver the message");
            return match refusal.class {
                ErrorClass::Throttled | ErrorClass::Network => Err(refusal),
                _ => Ok(ReadOutcome::Unreadable(refusal.what)),
            };
        }
        if let Some(stand_in) = stand_in {
            return Ok(ReadOutcome::Unreadable(stand_in.what().to_owned()));
        }
        if whole {
            return Ok(ReadOutcome::Whole(written));
        }
        let there = search_present_uids(&mut self.session, &std::iter::once(uid).collect()).await?;
        if there.is_empty() {
            Ok(ReadOutcome::Gone)
        } else {
            Ok(ReadOutcome::Unreadable("the source lists it and does not deliver it".to_owned()))
        }
    }

    /// Logs out.
    pub(crate) async fn logout(self) {
        self.session.logout().await;
    }
}

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<u64> {
    to.write_all(bytes).await.map_err(|error| Error::internal(format!("cannot write a message: {error}")))?;
    Ok(bytes.len() as u64)
}
