//! What an account holds, and how two accounts differ: told by this crate's own client, not by the product.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt::Write as _,
};

use sha2::{Digest as _, Sha256};

use crate::{
    imap_client::{RawImap, quoted},
    reply_parser::ReplyValue,
};

/// Everything in an account: folders by path (levels separated by `/`, without the account's prefix).
pub type MailboxSnapshot = BTreeMap<String, FolderSnapshot>;

/// One folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderSnapshot {
    /// Its name as it travels.
    pub raw: String,
    /// Whether it can hold messages.
    pub selectable: bool,
    /// Whether it is subscribed.
    pub subscribed: bool,
    /// Its special use (`\Sent`), if any.
    pub special_use: Option<String>,
    /// Its UIDVALIDITY; 0 where it cannot be selected.
    pub uid_validity: u32,
    /// Its messages in UID order.
    pub messages: Vec<MessageSnapshot>,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageSnapshot {
    /// Its UID.
    pub uid: u32,
    /// Of every byte of it.
    pub sha256: [u8; 32],
    /// Flags and keywords, sorted, without \Recent.
    pub flags: Vec<String>,
    /// INTERNALDATE, seconds since 1970 in UTC.
    pub internal_date: i64,
    /// Bytes, counted.
    pub size: u64,
    /// Bytes as RFC822.SIZE says.
    pub claimed_size: u64,
}

impl MessageSnapshot {
    /// What must be equal in a copy: content, flags, date.
    fn what_travels(&self) -> ([u8; 32], &[String], i64) {
        (self.sha256, &self.flags, self.internal_date)
    }
}

impl RawImap {
    /// Reads every folder and message of the account. Nothing is changed: EXAMINE and BODY.PEEK only.
    pub async fn snapshot(&mut self) -> MailboxSnapshot {
        let mut snapshot = MailboxSnapshot::new();
        for info in self.folders().await {
            let selectable = info.selectable();
            let (uid_validity, messages) =
                if selectable { self.folder_facts(&info.raw).await } else { (0, Vec::new()) };
            let special = ["\\Sent", "\\Drafts", "\\Trash", "\\Junk", "\\Archive", "\\All", "\\Flagged"];
            let facts = FolderSnapshot {
                selectable,
                subscribed: info.subscribed,
                special_use: info.attributes.iter().find(|a| special.contains(&a.as_str())).cloned(),
                raw: info.raw,
                uid_validity,
                messages,
            };
            match snapshot.entry(info.path) {
                Entry::Vacant(entry) => entry.insert(facts),
                Entry::Occupied(entry) => panic!("two folders have the path {:?}", entry.key()),
            };
        }
        snapshot
    }

    /// The messages of one folder (by its name as it travels), with its UIDVALIDITY.
    pub async fn folder_facts(&mut self, raw: &str) -> (u32, Vec<MessageSnapshot>) {
        let opened = self.command_ok(&format!("EXAMINE {}", quoted(raw))).await;
        let validity = opened.untagged.iter().find(|v| v.len() > 2 && v[1].text() == "[UIDVALIDITY");
        let validity = validity.map_or(0, |v| v[2].text().trim_end_matches(']').parse().expect("UIDVALIDITY"));
        let mut messages = Vec::new();
        let command = b"UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])";
        let (status, text) = self
            .command_with(command, |reply| {
                if reply.get(1).map(ReplyValue::text).as_deref() == Some("FETCH") {
                    messages.push(message_fact(reply[2].list()));
                }
            })
            .await;
        assert_eq!(status, "OK", "FETCH in {raw:?}: {text}");
        messages.sort_by_key(|m: &MessageSnapshot| m.uid);
        (validity, messages)
    }
}

fn message_fact(items: &[ReplyValue]) -> MessageSnapshot {
    let item = |name: &str| {
        let found = items.chunks(2).find(|pair| pair[0].text() == name);
        found.map_or_else(|| panic!("no {name} in {items:?}"), |pair| &pair[1])
    };
    let ReplyValue::Text(body) = item("BODY[]") else { panic!("no body") };
    let mut flags: Vec<String> =
        item("FLAGS").list().iter().map(ReplyValue::text).filter(|f| f != "\\Recent").collect();
    flags.sort();
    MessageSnapshot {
        uid: item("UID").text().parse().expect("UID"),
        sha256: Sha256::digest(body).into(),
        flags,
        internal_date: parse_date_time(&item("INTERNALDATE").text()),
        size: body.len() as u64,
        claimed_size: item("RFC822.SIZE").text().parse().expect("RFC822.SIZE"),
    }
}

/// What differs between two accounts that should hold the same: folders, whether they hold messages,
/// subscriptions, and per folder the messages in UID order. One line each; none where they are equal. UIDs may
/// differ.
#[must_use]
pub fn differences(source: &MailboxSnapshot, destination: &MailboxSnapshot) -> Vec<String> {
    let mut out = Vec::new();
    for path in destination.keys().filter(|path| !source.contains_key(*path)) {
        out.push(format!("{path}: only at the destination"));
    }
    for (path, left) in source {
        let Some(right) = destination.get(path) else {
            out.push(format!("{path}: missing at the destination"));
            continue;
        };
        if left.selectable != right.selectable {
            out.push(format!("{path}: selectable {} and {}", left.selectable, right.selectable));
        }
        if left.subscribed != right.subscribed {
            out.push(format!("{path}: subscribed {} and {}", left.subscribed, right.subscribed));
        }
        message_differences(path, &left.messages, &right.messages, &mut out);
    }
    out
}

fn message_differences(path: &str, left: &[MessageSnapshot], right: &[MessageSnapshot], out: &mut Vec<String>) {
    if left.iter().map(MessageSnapshot::what_travels).eq(right.iter().map(MessageSnapshot::what_travels)) {
        return;
    }
    let mut counts: BTreeMap<_, (Vec<u32>, Vec<u32>)> = BTreeMap::new();
    for message in left {
        counts.entry(message.what_travels()).or_default().0.push(message.uid);
    }
    for message in right {
        counts.entry(message.what_travels()).or_default().1.push(message.uid);
    }
    let before = out.len();
    for ((sha256, flags, date), (left, right)) in counts {
        if left.len() != right.len() {
            let hash = sha256[..4].iter().fold(String::new(), |mut text, byte| {
                write!(text, "{byte:02x}").expect("string");
                text
            });
            out.push(format!("{path}: {hash} {flags:?} {date}: UIDs {left:?} at the source, {right:?} here"));
        }
    }
    if out.len() == before {
        out.push(format!("{path}: the same messages in another order"));
    }
}

/// Seconds since 1970 of an IMAP date-time such as ` 1-Jan-2020 12:30:00 +0530`.
#[must_use]
pub fn parse_date_time(text: &str) -> i64 {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let fields: Vec<&str> = text.trim().split([' ', '-', ':']).collect();
    let number = |at: usize| fields[at].parse::<i64>().unwrap_or_else(|_| panic!("date-time {text:?}"));
    let (day, year) = (number(0), number(2));
    let (_, month) = (MONTHS.iter().zip(1_i64..).find(|(name, _)| **name == fields[1]))
        .unwrap_or_else(|| panic!("date-time {text:?}"));
    // Days since 1970-01-01 by the civil calendar, with years beginning in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 719_469;
    let zone = &text[text.len() - 5..];
    let minutes = zone[1..3].parse::<i64>().expect("zone") * 60 + zone[3..].parse::<i64>().expect("zone");
    let offset = if zone.starts_with('-') { -minutes } else { minutes };
    days * 86_400 + number(3) * 3_600 + number(4) * 60 + number(5) - offset * 60
}

#[cfg(test)]
mod tests {
    use super::parse_date_time;

    #[test]
    fn date_times_are_instants_whatever_their_zone() {
        assert_eq!(parse_date_time(" 1-Jan-1970 00:00:00 +0000"), 0);
        assert_eq!(parse_date_time("01-Jan-2020 12:30:00 +0530"), 1_577_862_000);
        assert_eq!(parse_date_time("29-Feb-2024 23:59:59 -1200"), 1_709_294_399);
    }
}
