//! What accounts really hold, and what a sync said of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use mailferry_testkit::{
    CorpusMessage, RawImap, ReplyValue, ServerAccount, imap_client::quoted, snapshot::parse_date_time,
};
use serde_json::Value;

/// A message as a server delivers it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    /// Every byte.
    pub body: Vec<u8>,
    /// In lower case, since servers compare them so; without \Recent.
    pub flags: BTreeSet<String>,
    /// INTERNALDATE, seconds since 1970.
    pub date: i64,
    /// INTERNALDATE as sent.
    pub date_text: String,
    /// Its UID.
    pub uid: u32,
}

/// A folder that can hold messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Whether LSUB has it.
    pub subscribed: bool,
    /// Its messages in UID order; none where the server does not open what it lists.
    pub messages: Option<Vec<Message>>,
}

/// An account's folders by path: levels separated by `/`, without the account's prefix, as reports call them.
pub type Mailbox = BTreeMap<String, Folder>;

/// Reads everything. Nothing is changed: EXAMINE and BODY.PEEK only.
pub async fn read(account: &ServerAccount<'_>) -> Mailbox {
    let mut imap = account.connect().await;
    let mut mailbox = Mailbox::new();
    for folder in imap.folders().await {
        if folder.selectable() {
            let messages = read_folder(&mut imap, &folder.raw).await;
            mailbox.insert(folder.path, Folder { subscribed: folder.subscribed, messages });
        }
    }
    mailbox
}

/// The messages of a folder, by its name as it travels; none where it can't be opened.
pub async fn read_folder(imap: &mut RawImap, raw: &str) -> Option<Vec<Message>> {
    if imap.command(format!("EXAMINE {}", quoted(raw)).as_bytes()).await.status != "OK" {
        return None;
    }
    let mut messages = Vec::new();
    let command = b"UID FETCH 1:* (UID FLAGS INTERNALDATE BODY.PEEK[])";
    let (status, text) = imap
        .command_with(command, |reply| {
            if reply.get(1).map(ReplyValue::text).as_deref() == Some("FETCH") {
                messages.push(message(reply[2].list()));
            }
        })
        .await;
    assert_eq!(status, "OK", "FETCH in {raw:?}: {text}");
    messages.sort_by_key(|message: &Message| message.uid);
    Some(messages)
}

/// The messages of INBOX.
pub async fn read_inbox(account: &ServerAccount<'_>) -> Vec<Message> {
    read_folder(&mut account.connect().await, "INBOX").await.expect("INBOX opens")
}

fn message(items: &[ReplyValue]) -> Message {
    let item = |name: &str| {
        let found = items.chunks(2).find(|pair| pair[0].text().eq_ignore_ascii_case(name));
        found.map_or_else(|| panic!("no {name} in {items:?}"), |pair| &pair[1])
    };
    let ReplyValue::Text(body) = item("BODY[]") else { panic!("no body") };
    let flags = item("FLAGS").list().iter().map(|flag| flag.text().to_lowercase()).filter(|flag| flag != "\\recent");
    let date_text = item("INTERNALDATE").text();
    Message {
        body: body.clone(),
        flags: flags.collect(),
        date: parse_date_time(&date_text),
        date_text,
        uid: item("UID").text().parse().expect("UID"),
    }
}

/// What a server makes of a message that is appended by a plain client: none where it refuses it.
pub type Stored = Option<Message>;

/// What a server makes of messages, whoever brings them: appends them one by one, by a client that knows no tricks, to
/// INBOX of a new account.
pub async fn stored(account: &ServerAccount<'_>, messages: &[CorpusMessage]) -> Vec<Stored> {
    let accepted = append_each(account, "INBOX", messages).await;
    let mut found = read_inbox(account).await.into_iter();
    accepted.iter().map(|accepted| accepted.then(|| found.next().expect("what was accepted is there"))).collect()
}

/// What a server must make of a message of another one.
struct Expected {
    stored: Stored,
    /// It refuses the message as it is; what it makes of it with CRLF for LF is expected.
    refused: bool,
}

/// The same of messages of another server, with other accounts of this one.
async fn stored_by(account: &ServerAccount<'_>, messages: &[Message]) -> Vec<Expected> {
    let sent: Vec<CorpusMessage> = messages.iter().map(as_sent).collect();
    let as_they_are = stored(&account.server.account(), &sent).await;
    let is_refused: Vec<bool> = as_they_are.iter().map(Option::is_none).collect();
    let with_crlf = |(message, _): (&CorpusMessage, &bool)| {
        let body = with_crlf(&message.body);
        CorpusMessage { body, ..message.clone() }
    };
    let repaired: Vec<CorpusMessage> =
        sent.iter().zip(&is_refused).filter(|(_, refused)| **refused).map(with_crlf).collect();
    let mut repaired = stored(&account.server.account(), &repaired).await.into_iter();
    let expected = |(stored, refused): (Stored, bool)| {
        let stored = if refused { repaired.next().expect("one of each") } else { stored };
        Expected { stored, refused }
    };
    as_they_are.into_iter().zip(is_refused).map(expected).collect()
}

/// CRLF for each LF without CR.
fn with_crlf(body: &[u8]) -> Vec<u8> {
    let before = std::iter::once(&b' ').chain(body);
    body.iter()
        .zip(before)
        .flat_map(|(byte, before)| if *byte == b'\n' && *before != b'\r' { vec![b'\r', b'\n'] } else { vec![*byte] })
        .collect()
}

fn as_sent(message: &Message) -> CorpusMessage {
    CorpusMessage {
        body: message.body.clone(),
        flags: message.flags.iter().cloned().collect(),
        date: Some(message.date_text.clone()),
    }
}

/// Appends messages to a folder by its name as it travels; which of them were taken. After a refusal it connects again:
/// some servers then read the message as commands.
pub async fn append_each(account: &ServerAccount<'_>, raw: &str, messages: &[CorpusMessage]) -> Vec<bool> {
    let mut imap = account.connect().await;
    let mut accepted = Vec::new();
    for message in messages {
        let reply = imap.append_one(raw, message).await;
        accepted.push(reply.status == "OK");
        if reply.status != "OK" {
            imap = account.connect().await;
        }
    }
    accepted
}

/// What is wrong after syncs that ended: `before` is the source as it was, `after` the destination as it is, `reports`
/// what all runs said. A message may be absent only if the last report says so; a copy may differ from its message only
/// as the destination makes it, and only if a report says so.
pub async fn complaints(
    before: &Mailbox,
    after: &Mailbox,
    destination: &ServerAccount<'_>,
    reports: &[Value],
) -> Vec<String> {
    let mut out = Vec::new();
    let empty = Vec::new();
    let report = reports.last().unwrap_or(&Value::Null);
    let mut claimed = BTreeSet::new();
    for (name, folder) in before {
        let of_this = |report: &Value| {
            let folders = report["folders"].as_array().unwrap_or(&empty);
            folders.iter().find(|told| told["source"] == name.as_str()).cloned()
        };
        let count = folder.messages.as_ref().map_or(0, Vec::len);
        let Some(told) = of_this(report) else {
            let left_out = report["leftOut"].as_array().unwrap_or(&empty);
            if !left_out.iter().any(|told| told["folder"] == name.as_str()) {
                out.push(format!("{name}: the report does not name it, {count} messages"));
            }
            continue;
        };
        let target = told["destination"].as_str().unwrap_or_default();
        claimed.insert(target.to_owned());
        let Some(messages) = &folder.messages else {
            if told["error"].is_null() {
                out.push(format!("{name}: it can't be opened, and no error is told"));
            }
            continue;
        };
        let there = after.get(target);
        let Some(copies) = there.and_then(|there| there.messages.as_ref()) else {
            out.push(format!("{name}: told to be in {target:?}, which is not there"));
            continue;
        };
        let notes = reports.iter().filter_map(|report| report["notes"].as_array()).flatten();
        let lost = format!("{target}: the destination said that it subscribed to it");
        let told = notes.filter_map(Value::as_str).any(|note| note.starts_with(&lost));
        if folder.subscribed && !there.is_some_and(|there| there.subscribed) && !told {
            out.push(format!("{name}: not subscribed"));
        }
        let expected = stored_by(destination, messages).await;
        let all: Vec<Value> = reports.iter().filter_map(of_this).collect();
        let wrong = folder_complaints(messages, &expected, copies, &all);
        out.extend(wrong.into_iter().map(|what| format!("{name}: {what}")));
    }
    for (name, folder) in after.iter().filter(|(name, _)| !claimed.contains(*name)) {
        let count = folder.messages.as_ref().map_or(0, Vec::len);
        if count > 0 {
            out.push(format!("{name}: {count} messages that came from nowhere"));
        }
    }
    out
}

/// Adds up a report's counts by kind, of one kind or of all.
fn count(told: &Value, field: &str, kind: Option<&str>) -> u64 {
    let counts = told[field].as_object().into_iter().flatten();
    counts.filter(|(name, _)| kind.is_none_or(|kind| kind == *name)).filter_map(|(_, n)| n.as_u64()).sum()
}

fn folder_complaints(source: &[Message], expected: &[Expected], copies: &[Message], told: &[Value]) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest: Vec<&Message> = copies.iter().collect();
    let mut absent = Vec::new();
    let mut differing: [Vec<(u32, String)>; 3] = Default::default();
    let mut places = Vec::new();
    // What the source delivers nothing for looks like an empty message: that one comes first.
    let mut pairs: Vec<(&Message, &Expected)> = source.iter().zip(expected).collect();
    pairs.sort_by_key(|(message, _)| (message.body.is_empty(), message.uid));
    for (message, Expected { stored, refused }) in pairs {
        let wanted = stored.as_ref().unwrap_or(message);
        // What was refused may be there all the same: without the keyword or the date for which it was.
        let is_copy = |copy: &Message| match stored {
            Some(stored) if copy.body == stored.body => true,
            Some(_) if !refused => false,
            _ => same_content(message, copy),
        };
        // Of equal bodies the one that is most like it.
        let found = (0..rest.len())
            .filter(|&at| is_copy(rest[at]))
            .min_by_key(|&at| (rest[at].flags != wanted.flags, rest[at].date != wanted.date, rest[at].uid));
        let Some(found) = found else {
            absent.push((message, *refused));
            continue;
        };
        let copy = rest.remove(found);
        places.push((message.uid, copy.uid));
        let differs = [
            !same_content(message, copy) && !is_notice(message),
            copy.flags != message.flags,
            copy.date != message.date,
        ];
        for (_, list) in differs.into_iter().zip(&mut differing).filter(|(differs, _)| *differs) {
            list.push((message.uid, change(message, copy)));
        }
    }
    let skipped = told.last().map_or(0, |told| count(told, "skipped", None));
    let failed = told.last().is_some_and(|told| !told["error"].is_null());
    let untold = absent.len() as u64 != skipped && !failed;
    for (message, refused) in
        absent.iter().filter(|(message, refused)| untold || !refused && !failed && !is_notice(message))
    {
        let why = if *refused { "refused" } else { "taken from others" };
        out.push(format!("absent ({} absent, {skipped} told; {why}): {}", absent.len(), describe(message)));
    }
    if absent.is_empty() && skipped > 0 {
        out.push(format!("{skipped} told as not copied, and all are there"));
    }
    out.extend(rest.iter().map(|message| format!("too many: {}", describe(message))));
    for (kind, differing) in ["content", "flags", "internalDate"].into_iter().zip(differing) {
        let said: u64 = told.iter().map(|told| count(told, "differences", Some(kind))).sum();
        if said < differing.len() as u64 {
            let which = differing.iter().filter(|(uid, _)| !is_named(*uid, told));
            out.extend(which.map(|(_, what)| format!("{kind} differs, untold: {what}")));
        }
    }
    places.sort_unstable();
    let order: Vec<u32> = places.into_iter().map(|(_, copy)| copy).collect();
    if !order.is_sorted() && told.iter().map(|told| count(told, "differences", Some("order"))).sum::<u64>() == 0 {
        out.push(format!("the copies are in another order: {order:?}"));
    }
    out
}

/// Whether a source delivers nothing for a message: to set it aside as unreadable is right.
fn is_notice(message: &Message) -> bool {
    message.body.trim_ascii().is_empty()
}

/// Whether a report names a difference of this message, other than that it comes late.
fn is_named(uid: u32, told: &[Value]) -> bool {
    let notes = told.iter().filter_map(|told| told["differenceMessages"].as_array()).flatten();
    notes
        .filter(|note| !note["what"].as_str().unwrap_or_default().contains("comes after newer messages"))
        .any(|note| note["uid"] == uid)
}

/// Line ends are not content: a server that keeps mail in files may deliver LF for CRLF, or the other way.
fn same_content(message: &Message, copy: &Message) -> bool {
    let lines = |body: &[u8]| -> Vec<u8> {
        let ends = body.windows(2).map(|pair| pair == b"\r\n").chain([false]);
        body.iter().zip(ends).filter(|(_, end)| !end).map(|(byte, _)| *byte).collect()
    };
    lines(&message.body) == lines(&copy.body)
}

/// What became of a message, in a few words.
fn change(message: &Message, copy: &Message) -> String {
    let mut out = describe(message);
    if copy.body != message.body {
        write!(out, " became {} bytes", copy.body.len()).expect("string");
    }
    for gone in message.flags.difference(&copy.flags) {
        write!(out, " less {gone}").expect("string");
    }
    for added in copy.flags.difference(&message.flags) {
        write!(out, " more {added}").expect("string");
    }
    if copy.date != message.date {
        write!(out, " dated {} and not {}", copy.date_text, message.date_text).expect("string");
    }
    out
}

/// A message in a few words.
fn describe(message: &Message) -> String {
    let text = String::from_utf8_lossy(&message.body[..message.body.len().min(40)]).into_owned();
    format!("UID {} {text:?} of {} bytes", message.uid, message.body.len())
}
