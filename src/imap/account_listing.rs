//! One look at an account: its namespaces, folders, subscriptions and the status of each folder, in as few round trips
//! as the server allows.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{
    refusal::CommandKind,
    response::{FolderStatus, ListItem, NamespaceResponse, StatusCondition, UntaggedResponse},
    session::{Session, SessionEvent, Tag},
};
use crate::error::{Error, ErrorClass, Result};

/// No account has more folders; a server that lists more is hostile or broken.
const MAX_FOLDERS: usize = 100_000;
/// ... nor more bytes in their names and attributes, as LIST, LSUB and STATUS tell them together.
pub(crate) const MAX_LISTED_BYTES: usize = 24 << 20;

/// What one look at an account found.
#[derive(Debug, Clone, Default)]
pub struct AccountListing {
    /// Namespaces, where the server tells.
    pub namespaces: Option<NamespaceResponse>,
    /// All folders as listed.
    pub folders: Vec<ListedFolder>,
    /// The hierarchy delimiter of the personal namespace.
    pub delimiter: Option<u8>,
    /// The server's name and version, where it tells (RFC 2971).
    pub server: Option<String>,
}

/// A folder as listed.
#[derive(Debug, Clone)]
pub struct ListedFolder {
    /// Name and attributes.
    pub item: ListItem,
    /// Subscribed to.
    pub subscribed: bool,
    /// Its STATUS; none where it cannot be selected or the server refused.
    pub status: Option<FolderStatus>,
}

impl ListedFolder {
    /// True when it can hold messages.
    #[must_use]
    pub(crate) fn selectable(&self) -> bool {
        !self.item.has("\\Noselect") && !self.item.has("\\NonExistent")
    }
}

impl AccountListing {
    /// The folder with this raw name; INBOX in any case.
    #[must_use]
    pub(crate) fn folder(&self, raw: &[u8]) -> Option<&ListedFolder> {
        self.folders.iter().find(|f| is_same_folder_name(&f.item.name, raw))
    }

    /// The personal namespace's prefix, raw (`INBOX.`); empty where there is none.
    #[must_use]
    pub(crate) fn prefix(&self) -> Bytes {
        self.namespaces.as_ref().and_then(|n| n.personal.first()).map(|n| n.prefix.clone()).unwrap_or_default()
    }
}

/// INBOX is the same in any case (RFC 9051, section 5.1); all other names are compared byte by byte.
#[must_use]
pub(crate) fn is_same_folder_name(a: &[u8], b: &[u8]) -> bool {
    a == b || (a.eq_ignore_ascii_case(b"INBOX") && b.eq_ignore_ascii_case(b"INBOX"))
}

/// What listings of an account found out about its server, kept while connections come and go: what ended one is asked for
/// more carefully on the next, and in the end not at all.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListingMemory {
    /// LIST with RETURN options ended a connection.
    without_options: bool,
    /// LSUB ended a connection.
    without_subscriptions: bool,
    /// STATUS is refused, or ends the connection, where it asks for more than RFC 9051 has.
    basic_items: bool,
    /// How often the STATUS of a folder, by raw name, ended a connection.
    failures: BTreeMap<Bytes, u32>,
}

/// A folder whose STATUS ended the connection this often is listed without it.
const MAX_STATUS_FAILURES: u32 = 2;

impl ListingMemory {
    /// False where asking for subscriptions ended a connection.
    #[must_use]
    pub(crate) fn lists_subscriptions(&self) -> bool {
        !self.without_subscriptions
    }

    /// Grows with each thing that was found out.
    #[must_use]
    pub(crate) fn steps(&self) -> u64 {
        let flags = [self.without_options, self.without_subscriptions, self.basic_items];
        let failures: u32 = self.failures.values().sum();
        u64::from(failures) + flags.iter().filter(|flag| **flag).count() as u64
    }

    fn is_suspect(&self, name: &Bytes) -> bool {
        self.failures.contains_key(name)
    }

    fn is_given_up(&self, name: &Bytes) -> bool {
        self.failures.get(name).is_some_and(|failures| *failures >= MAX_STATUS_FAILURES)
    }
}

/// Looks at the whole account. No folder may be selected (STATUS of a selected folder is unreliable).
///
/// # Errors
/// When the connection ends, or the server refuses to list at all.
pub(crate) async fn list_account(
    session: &mut Session,
    sizes: bool,
    memory: &mut ListingMemory,
) -> Result<AccountListing> {
    if session.capabilities().has("NAMESPACE") {
        session.send_command("NAMESPACE");
    }
    let mut found = ListingCollector::default();
    let extended = ["LIST-EXTENDED", "LIST-STATUS"].iter().all(|name| session.capabilities().has(name));
    let mut listed = false;
    if extended && !memory.without_options {
        memory.without_options = true;
        listed = list_with_options(session, sizes, memory, &mut found).await?;
        // Refused, and not fatal: asked for the plain way below, and again next time.
        memory.without_options = false;
    }
    if !listed {
        found = ListingCollector { namespaces: found.namespaces, ..ListingCollector::default() };
        list_plainly(session, memory, &mut found).await?;
    }
    found.check().map_err(|e| session.with_endpoint(e))?;
    let mut folders: Vec<ListedFolder> = std::mem::take(&mut found.listed)
        .into_iter()
        .map(|item| ListedFolder {
            subscribed: item.has("\\Subscribed") || found.subscribed.contains(&item.name),
            item,
            status: None,
        })
        .collect();
    let missing = |found: &ListingCollector| -> Vec<Bytes> {
        let unknown = folders.iter().filter(|f| f.selectable() && !found.has_status(&f.item.name));
        unknown.map(|f| f.item.name.clone()).collect()
    };
    let items = status_items(session, sizes, memory);
    let unknown = missing(&found);
    fetch_statuses(session, &unknown, &items, memory, &mut found).await?;
    if items != BASIC_ITEMS && unknown.iter().any(|name| !found.has_status(name)) {
        // It may be the other items that were refused.
        memory.basic_items = true;
        fetch_statuses(session, &missing(&found), BASIC_ITEMS, memory, &mut found).await?;
        memory.basic_items = false;
    }
    // ID (at the login) and NAMESPACE were sent before LIST; a server that answers out of order still owes their answers.
    while session.outstanding() > 0 {
        if let SessionEvent::Untagged(data) = session.next().await? {
            found.add_response(data);
        }
    }
    for folder in &mut folders {
        folder.status = found.status(&folder.item.name);
    }
    let delimiter = found
        .namespaces
        .as_ref()
        .and_then(|n| n.personal.first())
        .and_then(|n| n.delimiter)
        .or_else(|| folders.iter().find_map(|f| f.item.delimiter));
    Ok(AccountListing { namespaces: found.namespaces, folders, delimiter, server: session.facts.server.clone() })
}

/// Everything in one go (RFC 5258, RFC 5819). False when the server refuses what it says that it knows.
async fn list_with_options(
    session: &mut Session,
    sizes: bool,
    memory: &ListingMemory,
    found: &mut ListingCollector,
) -> Result<bool> {
    let special = if session.capabilities().has("SPECIAL-USE") { "SPECIAL-USE " } else { "" };
    let items = status_items(session, sizes, memory);
    let command = format!("LIST \"\" \"*\" RETURN (SUBSCRIBED {special}STATUS ({items}))");
    let tag = session.send_command(&command);
    let line = session.wait(tag, |data| found.add_response(data)).await?;
    match session.refusal_class(&line, CommandKind::Other) {
        _ if line.status == StatusCondition::Ok => Ok(true),
        ErrorClass::Throttled | ErrorClass::Network => Err(session.refusal_error(&line, CommandKind::Other, "LIST")),
        _ => Ok(false),
    }
}

/// LIST and LSUB. Where SPECIAL-USE is offered, a plain LIST names the uses as well (RFC 6154, section 2).
async fn list_plainly(session: &mut Session, memory: &mut ListingMemory, found: &mut ListingCollector) -> Result<()> {
    let list = session.send_command("LIST \"\" \"*\"");
    let subscriptions = (!memory.without_subscriptions).then(|| session.send_command("LSUB \"\" \"*\""));
    let mut open: Vec<Tag> = std::iter::once(list).chain(subscriptions).collect();
    while !open.is_empty() {
        match session.next().await {
            Ok(SessionEvent::Untagged(data)) => found.add_response(data),
            Ok(SessionEvent::Done(tag, line)) => {
                open.retain(|other| *other != tag);
                if tag == list && line.status != StatusCondition::Ok {
                    return Err(session.refusal_error(&line, CommandKind::Other, "LIST"));
                }
            }
            Ok(SessionEvent::LiteralStart { .. } | SessionEvent::LiteralChunk(_)) => {}
            Err(error) => {
                memory.without_subscriptions |= !open.contains(&list);
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Asks for the STATUS of folders, all at once; one by one of those that ended a connection before. A refusal leaves the
/// folder without.
async fn fetch_statuses(
    session: &mut Session,
    names: &[Bytes],
    items: &str,
    memory: &mut ListingMemory,
    found: &mut ListingCollector,
) -> Result<()> {
    let (suspects, usual): (Vec<&Bytes>, Vec<&Bytes>) =
        names.iter().filter(|name| !memory.is_given_up(name)).partition(|name| memory.is_suspect(name));
    let singly = suspects.into_iter().map(|name| vec![name]);
    for batch in std::iter::once(usual).chain(singly) {
        let rest = format!(" ({items})");
        let mut open: Vec<(Tag, &Bytes)> =
            batch.into_iter().map(|name| (session.send_folder_command("STATUS", name, &rest), name)).collect();
        while let Some((_, first)) = open.first() {
            match session.next().await {
                Ok(SessionEvent::Untagged(data)) => found.add_response(data),
                Ok(SessionEvent::Done(tag, line)) => {
                    open.retain(|(other, _)| *other != tag);
                    // A folder may refuse its STATUS; a server that asks for a slower pace says nothing of the folder.
                    if line.status != StatusCondition::Ok
                        && session.refusal_class(&line, CommandKind::Other) == ErrorClass::Throttled
                    {
                        return Err(session.refusal_error(&line, CommandKind::Other, "STATUS"));
                    }
                }
                Ok(SessionEvent::LiteralStart { .. } | SessionEvent::LiteralChunk(_)) => {}
                Err(error) => {
                    *memory.failures.entry((*first).clone()).or_default() += 1;
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// What every server knows (RFC 9051, section 6.3.11).
const BASIC_ITEMS: &str = "MESSAGES UIDNEXT UIDVALIDITY";

fn status_items(session: &Session, sizes: bool, memory: &ListingMemory) -> String {
    let capabilities = session.capabilities();
    let mut items = BASIC_ITEMS.to_owned();
    if memory.basic_items {
        return items;
    }
    if capabilities.condstore() {
        items.push_str(" HIGHESTMODSEQ");
    }
    // Without a value the limit is each folder's own (RFC 7889, section 3).
    if capabilities.has("APPENDLIMIT") {
        items.push_str(" APPENDLIMIT");
    }
    if sizes && capabilities.has("STATUS=SIZE") {
        items.push_str(" SIZE");
    }
    items
}

#[derive(Default)]
struct ListingCollector {
    namespaces: Option<NamespaceResponse>,
    listed: Vec<ListItem>,
    subscribed: BTreeSet<Bytes>,
    statuses: BTreeMap<Bytes, FolderStatus>,
    /// Bytes of names and attributes so far, repetitions included.
    bytes: usize,
    too_many: bool,
}

impl ListingCollector {
    fn add_response(&mut self, data: UntaggedResponse) {
        let full = self.listed.len() > MAX_FOLDERS || self.statuses.len() > MAX_FOLDERS;
        if full || self.subscribed.len() > MAX_FOLDERS || self.bytes > MAX_LISTED_BYTES {
            self.too_many = true;
            return;
        }
        self.bytes += match &data {
            UntaggedResponse::List(item) | UntaggedResponse::Lsub(item) => {
                item.name.len() + item.attributes.iter().map(String::len).sum::<usize>()
            }
            UntaggedResponse::FolderStatus(status) => status.name.len(),
            _ => 0,
        };
        match data {
            UntaggedResponse::Namespace(namespaces) => self.namespaces = Some(namespaces),
            UntaggedResponse::List(item) if !self.listed.iter().rev().take(4).any(|i| i.name == item.name) => {
                self.listed.push(item);
            }
            // Courier lists unsubscribed parents as \Noselect.
            UntaggedResponse::Lsub(item) if !item.has("\\Noselect") => {
                self.subscribed.insert(item.name);
            }
            UntaggedResponse::FolderStatus(status) => {
                self.statuses.insert(inbox_upper(&status.name), status);
            }
            _ => {}
        }
    }

    fn check(&self) -> Result<()> {
        if self.too_many {
            return Err(Error::protocol(format!(
                "the server lists more than {MAX_FOLDERS} folders, or more than {} MiB of their names",
                MAX_LISTED_BYTES >> 20
            )));
        }
        Ok(())
    }

    fn has_status(&self, name: &Bytes) -> bool {
        self.statuses.contains_key(&inbox_upper(name))
    }

    fn status(&self, name: &Bytes) -> Option<FolderStatus> {
        self.statuses.get(&inbox_upper(name)).cloned()
    }
}

fn inbox_upper(name: &Bytes) -> Bytes {
    if name.eq_ignore_ascii_case(b"INBOX") { Bytes::from_static(b"INBOX") } else { name.clone() }
}
