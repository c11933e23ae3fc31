//! The mail that is moved.

use std::collections::BTreeSet;

use mailferry_testkit::{
    CorpusMessage, ServerAccount, ServerMake,
    corpus::{nasty_messages, rewritten_messages},
    imap_client::quoted,
};

use crate::truth::append_each;

/// Messages such as people send, numbered.
pub fn numbered(about: &str, count: usize) -> Vec<CorpusMessage> {
    let flags: [&[&str]; 4] = [&[], &["\\Seen"], &["\\Seen", "\\Answered"], &["\\Flagged", "$Forwarded"]];
    (0..count)
        .map(|at| {
            let body = format!(
                "Message-ID: <{about}.{at}@example.org>\r\nFrom: Alice <alice@example.org>\r\nTo: bob@example.org\r\n\
                 Subject: {about} {at}\r\nDate: Thu, 04 Jan 2018 10:00:00 +0000\r\n\r\nThe text of {about} {at}.\r\n{}",
                "and more of it, ".repeat(at % 7 * 40) + "end.\r\n"
            );
            let (month, day) = (["Jan", "Jun", "Dec"][at % 3], 10 + at % 18);
            CorpusMessage::new(body).flagged(flags[at % 4]).dated(&format!("{day}-{month}-2019 23:59:59 +0530"))
        })
        .collect()
}

/// Folders with plain names and mail: (path, subscribed, messages). Parents come first, since not every server makes
/// them.
pub fn plain() -> Vec<(&'static str, bool, Vec<CorpusMessage>)> {
    vec![
        ("INBOX", true, numbered("inbox", 12)),
        ("Sent", true, numbered("sent", 5)),
        ("Projects", false, numbered("projects", 1)),
        ("Projects/2019", true, numbered("2019", 4)),
        ("Projects/2019/Empty", true, Vec::new()),
        ("R&D", true, numbered("rd", 2)),
        ("Entwürfe", true, numbered("drafts", 2)),
    ]
}

/// Every oddity that some server refuses or changes, with ordinary mail around it.
pub fn nasty() -> Vec<(&'static str, CorpusMessage)> {
    let mut all = nasty_messages();
    all.extend(rewritten_messages().into_iter().map(|(name, message, _)| (name, message)));
    all.push(("empty", CorpusMessage::new("")));
    let dated = |name: &'static str, date: &str| {
        (name, CorpusMessage::new(format!("Subject: {name}\r\n\r\nx\r\n")).dated(date))
    };
    all.push(dated("the first second of 1970", "01-Jan-1970 00:00:00 +0000"));
    all.push(dated("1969", "31-Dec-1969 23:59:58 +0000"));
    all.push(dated("2039", "01-Feb-2039 00:00:00 +0000"));
    all.push(dated("12 o'clock", "05-May-2020 12:30:00 +0000"));
    let identified = CorpusMessage::new("Message-ID: <noon@example.org>\r\nSubject: noon\r\n\r\nx\r\n");
    all.push(("12 o'clock with a Message-ID", identified.dated("05-May-2020 12:40:00 +0000")));
    let keyword = |name: &'static str, keyword: &str| {
        (name, CorpusMessage::new(format!("Subject: {name}\r\n\r\nx\r\n")).flagged(&[keyword]))
    };
    all.push(keyword("keyword in brackets", "[Gmail]"));
    all.push(keyword("keyword of 60 letters", &"k".repeat(60)));
    all.push(keyword("keyword ~", "a~b"));
    all.push(keyword("keyword with capitals", "CamelCase"));
    all.push(keyword("the same in small letters", "camelcase"));
    all
}

/// Folder names that some server does not take.
pub const NAMES: [&str; 22] = [
    "100%",
    "say \"hello\"",
    "back\\slash",
    "star*",
    "question?",
    "hash#",
    "pipe|semicolon;",
    "(parentheses) {12}",
    "dot.ted",
    "Upper",
    "UPPER",
    "  leading",
    "trailing ",
    "Entwürfe",
    "日本語",
    "🎉 party",
    "~tilde",
    "NIL",
    "[Gmail]",
    "Trash",
    "a long name: 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789",
    "d/e/e/p/e/r",
];

/// Whether a folder of this name can be read back: what LIST of `GreenMail` says of these is another name, since it does
/// not escape.
pub fn is_listed_right(make: ServerMake, name: &str) -> bool {
    make != ServerMake::GreenMail || !name.contains(['"', '\\'])
}

/// Makes folders and mail in an account, as far as its server takes them.
pub async fn seed(account: &ServerAccount<'_>, folders: &[(&str, bool, Vec<CorpusMessage>)]) {
    let mut imap = account.connect().await;
    let namespace = imap.namespace().await;
    let mut made = BTreeSet::from(["INBOX".to_owned()]);
    for (path, subscribed, messages) in folders {
        if path.split('/').any(|level| level.contains(namespace.separator)) {
            continue;
        }
        // Implied parents are no folders on some servers, for good.
        let levels: Vec<&str> = path.split('/').collect();
        for parent in (1..=levels.len()).map(|depth| levels[..depth].join("/")) {
            if !made.contains(&parent) {
                let create = format!("CREATE {}", quoted(&namespace.raw(&parent)));
                if imap.command(create.as_bytes()).await.status == "OK" {
                    made.insert(parent);
                }
            }
        }
        if made.contains(*path) {
            append_each(account, &namespace.raw(path), messages).await;
        }
        if *subscribed {
            imap.command(format!("SUBSCRIBE {}", quoted(&namespace.raw(path))).as_bytes()).await;
        }
    }
}
