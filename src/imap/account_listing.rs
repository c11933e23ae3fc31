//! One look at an account: its namespaces, folders, subscriptions and the status of each folder, in as few round trips
//! as the server allows.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{
    refusal::CommandKind,
    response::{FolderStatus, ListItem, NamespaceResponse, StatusCondition, StatusLine, UntaggedResponse},
    session::Session,
};
use crate::error::{Error, ErrorClass, Result};

/// No account has more folders; a server that lists more is hostile or broken.
const MAX_FOLDERS: usize = 100_000;

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

/// Looks at the whole account. No folder may be selected (STATUS of a selected folder is unreliable).
///
/// # Errors
/// When the connection ends, or the server refuses to list at all.
pub(crate) async fn list_account(session: &mut Session, sizes: bool) -> Result<AccountListing> {
    let capabilities = session.capabilities().clone();
    let items = status_items(session, sizes);
    let extended = capabilities.has("LIST-EXTENDED") && capabilities.has("LIST-STATUS");

    let mut tags = Vec::new();
    if capabilities.has("ID") {
        session.send_command(concat!("ID (\"name\" \"mailferry\" \"version\" \"", env!("CARGO_PKG_VERSION"), "\")"));
    }
    if capabilities.has("NAMESPACE") {
        session.send_command("NAMESPACE");
    }
    let special = if capabilities.has("SPECIAL-USE") { "SPECIAL-USE " } else { "" };
    if extended {
        tags.push(session.send_command(&format!("LIST \"\" \"*\" RETURN (SUBSCRIBED {special}STATUS ({items}))")));
    } else {
        // Where SPECIAL-USE is offered, a plain LIST names the uses as well (RFC 6154, section 2).
        tags.push(session.send_command("LIST \"\" \"*\""));
        tags.push(session.send_command("LSUB \"\" \"*\""));
    }

    let mut found = ListingCollector::default();
    let lines = session.wait_all(&tags, |data| found.add_response(data)).await?;
    if let Some(line) = lines.first().filter(|line| line.status != StatusCondition::Ok) {
        return Err(session.refusal_error(line, CommandKind::Other, "LIST"));
    }
    found.check().map_err(|e| session.with_endpoint(e))?;
    // ID and NAMESPACE were sent before LIST; a server that answers out of order still owes their answers.
    let mut folders: Vec<ListedFolder> = std::mem::take(&mut found.listed)
        .into_iter()
        .map(|item| ListedFolder { subscribed: item.has("\\Subscribed"), item, status: None })
        .collect();

    if !extended {
        for folder in &mut folders {
            folder.subscribed = found.subscribed.contains(&folder.item.name);
        }
    }
    let missing: Vec<(usize, Bytes)> = folders
        .iter()
        .enumerate()
        .filter(|(_, f)| f.selectable() && !found.has_status(&f.item.name))
        .map(|(at, f)| (at, f.item.name.clone()))
        .collect();
    let asked: Vec<_> =
        missing.iter().map(|(_, name)| session.send_folder_command("STATUS", name, &format!(" ({items})"))).collect();
    let lines = session.wait_all(&asked, |data| found.add_response(data)).await?;
    // A folder may refuse its STATUS; a server that asks for a slower pace says nothing of the folder.
    let slower = |line: &&StatusLine| {
        line.status != StatusCondition::Ok && session.refusal_class(line, CommandKind::Other) == ErrorClass::Throttled
    };
    if let Some(line) = lines.iter().find(slower) {
        return Err(session.refusal_error(line, CommandKind::Other, "STATUS"));
    }
    while session.outstanding() > 0 {
        if let super::session::SessionEvent::Untagged(data) = session.next().await? {
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
    Ok(AccountListing { namespaces: found.namespaces, folders, delimiter, server: found.server })
}

fn status_items(session: &Session, sizes: bool) -> String {
    let capabilities = session.capabilities();
    let mut items = "MESSAGES UIDNEXT UIDVALIDITY".to_owned();
    if capabilities.condstore() {
        items.push_str(" HIGHESTMODSEQ");
    }
    if capabilities.has("OBJECTID") {
        items.push_str(" MAILBOXID");
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
    server: Option<String>,
    too_many: bool,
}

impl ListingCollector {
    fn add_response(&mut self, data: UntaggedResponse) {
        if self.listed.len() > MAX_FOLDERS || self.statuses.len() > MAX_FOLDERS || self.subscribed.len() > MAX_FOLDERS {
            self.too_many = true;
            return;
        }
        match data {
            UntaggedResponse::Id(pairs) => {
                let told = |wanted: &str| {
                    let pair = pairs.iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted));
                    pair.and_then(|(_, value)| value.clone())
                };
                self.server = match (told("name"), told("version")) {
                    (Some(name), Some(version)) => Some(format!("{name} {version}")),
                    (name, version) => name.or(version),
                };
            }
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
            return Err(Error::protocol(format!("the server lists more than {MAX_FOLDERS} folders")));
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
