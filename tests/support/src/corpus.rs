//! Mailboxes to move: the same ones on every run.

use std::fmt::Write as _;

/// One message as it is appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorpusMessage {
    /// Every byte.
    pub body: Vec<u8>,
    /// Flags and keywords.
    pub flags: Vec<String>,
    /// IMAP date-time for INTERNALDATE; the server's clock otherwise.
    pub date: Option<String>,
}

/// One folder as it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorpusFolder {
    /// Its levels, separated by `/`, without any prefix.
    pub path: String,
    /// Whether it is subscribed.
    pub subscribed: bool,
    /// Its messages, in their order.
    pub messages: Vec<CorpusMessage>,
}

/// A mailbox. Parents that are not listed come to be by their children, as \Noselect on most servers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Corpus {
    /// Its folders, in the order in which they are made.
    pub folders: Vec<CorpusFolder>,
}

impl CorpusMessage {
    /// A message with no flags and a fixed date.
    #[must_use]
    pub fn new(body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), flags: Vec::new(), date: Some("05-Mar-2021 08:09:10 +0000".to_owned()) }
    }

    /// The same with flags.
    #[must_use]
    pub fn flagged(mut self, flags: &[&str]) -> Self {
        self.flags = flags.iter().map(ToString::to_string).collect();
        self
    }

    /// The same with another date.
    #[must_use]
    pub fn dated(mut self, date: &str) -> Self {
        self.date = Some(date.to_owned());
        self
    }
}

impl CorpusFolder {
    /// A subscribed folder.
    #[must_use]
    pub fn new(path: &str, messages: Vec<CorpusMessage>) -> Self {
        Self { path: path.to_owned(), subscribed: true, messages }
    }
}

impl Corpus {
    /// How many messages there are in all.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.folders.iter().map(|folder| folder.messages.len()).sum()
    }

    /// How many bytes they have in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.folders.iter().flat_map(|folder| &folder.messages).map(|message| message.body.len() as u64).sum()
    }

    /// About 200 messages and 5 MB in some 25 folders: every oddity that Dovecot stores as it is sent. No two folder
    /// names are equal after case folding or normalization: for those see [`Self::collisions`].
    #[must_use]
    pub fn varied(seed: u64) -> Self {
        let mut random = SplitMix64(seed);
        let nasty: Vec<CorpusMessage> = nasty_messages().into_iter().map(|(_, message)| message).collect();
        let mut inbox = CorpusFolder::new("INBOX", nasty);
        inbox.messages.extend(ordinary(&mut random, "inbox", 40));
        let mut folders = vec![inbox];
        for (at, path) in NASTY_FOLDERS.iter().enumerate() {
            let count = usize::try_from(random.below(12)).expect("fits");
            let mut folder = CorpusFolder::new(path, ordinary(&mut random, path, count));
            folder.subscribed = at % 3 != 1;
            folders.push(folder);
        }
        Self { folders }
    }

    /// The same without folders whose path holds a character, such as the separator of another server.
    #[must_use]
    pub fn without(mut self, character: char) -> Self {
        self.folders.retain(|folder| !folder.path.contains(character));
        self
    }

    /// The same with one more message of this size in INBOX.
    #[must_use]
    pub fn with_large(mut self, bytes: usize) -> Self {
        let mut body = b"Message-ID: <large@example.org>\r\nSubject: large\r\n\r\n".to_vec();
        let line = [b"0123456789abcdef".repeat(4).as_slice(), b"\r\n"].concat();
        while body.len() + line.len() <= bytes {
            body.extend_from_slice(&line);
        }
        body.resize(bytes.max(body.len()), b'x');
        let message = CorpusMessage::new(body).flagged(&["\\Seen"]);
        match self.folders.iter_mut().find(|folder| folder.path == "INBOX") {
            Some(inbox) => inbox.messages.push(message),
            None => self.folders.insert(0, CorpusFolder::new("INBOX", vec![message])),
        }
        self
    }

    /// Folders whose names are equal after case folding or after normalization (NFC), one message each.
    #[must_use]
    pub fn collisions() -> Self {
        let names = ["Reports", "REPORTS", "reports", "Caf\u{e9}", "Cafe\u{301}", "Sent", "SENT"];
        let folder = |name: &&str| {
            CorpusFolder::new(name, vec![CorpusMessage::new(format!("Subject: in {name}\r\n\r\n{name}\r\n"))])
        };
        Self { folders: names.iter().map(folder).collect() }
    }

    /// Ordinary messages of very different sizes, with a given number of messages, bytes in all (to the byte, where
    /// there is room for the headers) and folders; INBOX is the first folder.
    #[must_use]
    pub fn bulk(messages: usize, bytes: u64, folders: usize, seed: u64) -> Self {
        let mut random = SplitMix64(seed);
        // Most mail is small; most bytes are in a few large messages.
        let weights: Vec<u64> = (0..messages)
            .map(|_| match random.below(100) {
                0..80 => 1 + random.below(20),
                80..95 => 20 + random.below(180),
                _ => 200 + random.below(800),
            })
            .collect();
        let total: u64 = weights.iter().sum::<u64>().max(1);
        let floor = 400.min(bytes / messages.max(1) as u64);
        let spare = bytes - floor * messages as u64;
        let pool = prose(&mut random, 1 << 16);
        let mut made: Vec<CorpusFolder> = (0..folders)
            .map(|at| {
                CorpusFolder::new(&if at == 0 { "INBOX".to_owned() } else { format!("Folder {at:02}") }, Vec::new())
            })
            .collect();
        let mut passed = 0;
        let mut given = 0;
        for (at, weight) in weights.iter().enumerate() {
            passed += weight;
            let upto = u64::try_from(u128::from(spare) * u128::from(passed) / u128::from(total)).expect("fits");
            let size = usize::try_from(floor + upto - given).expect("fits");
            given = upto;
            let mut body = headers(&mut random, "bulk", at).into_bytes();
            let mut from = usize::try_from(random.below(pool.len() as u64)).expect("fits") / 72 * 72;
            while body.len() < size {
                let piece = &pool[from..pool.len().min(from + size - body.len())];
                body.extend_from_slice(piece);
                from = 0;
            }
            // A lone CR at the end would not be stored as it is.
            if body.last() == Some(&b'\r') {
                *body.last_mut().expect("not empty") = b'.';
            }
            let flags: &[&str] = if random.below(4) == 0 { &[] } else { &["\\Seen"] };
            let message = CorpusMessage::new(body).flagged(flags).dated(&date(&mut random));
            made[at * folders / messages].messages.push(message);
        }
        Self { folders: made }
    }
}

/// Folder names that Dovecot takes with `/` between levels and nested directories, and that others may not.
pub const NASTY_FOLDERS: [&str; 26] = [
    "Sent",
    "Drafts",
    "Trash",
    "Junk",
    "Entwürfe",
    "日本語/台北",
    "📬 Post/🎉",
    "R&D",
    "&-",
    "100%",
    "say \"hello\"",
    "back\\slash",
    "star*",
    "  two leading spaces",
    "trailing space ",
    "v1.2 release",
    "a/b/c/d/e/f/g/h/i/j",
    "a/b",
    "no messages/but/children",
    "INBOX/below inbox",
    "(parentheses) {12}",
    "NIL",
    "[Gmail]",
    "#hash",
    "mailing-lists/rust; drop",
    "a long name, long enough to be cut by servers that keep each folder in a directory of its own: \
     0123456789 0123456789 0123456789 0123456789 0123456789",
];

/// Messages with one oddity each, and what it is. All are stored by Dovecot byte for byte; what it rewrites is in
/// [`rewritten_messages`].
#[must_use]
pub fn nasty_messages() -> Vec<(&'static str, CorpusMessage)> {
    let mut huge_header = b"Message-ID: <huge-header@example.org>\r\n".to_vec();
    for at in 0..3000 {
        huge_header.extend_from_slice(format!("X-Trace-{at}: hop {at} of a very long way\r\n").as_bytes());
    }
    huge_header.extend_from_slice(b"\r\nbody\r\n");
    let commands = "z UID STORE 1:* +FLAGS (\\Deleted)\r\nz EXPUNGE\r\nz LOGOUT\r\n";
    let twin = CorpusMessage::new("Message-ID: <twin@example.org>\r\nSubject: twin\r\n\r\nthe same twice\r\n");
    vec![
        ("no Message-ID", CorpusMessage::new("Subject: no id\r\n\r\nhello\r\n").flagged(&["\\Seen"])),
        ("no Message-ID, another body", CorpusMessage::new("Subject: no id\r\n\r\nhallo\r\n")),
        ("repeated Message-ID, first", CorpusMessage::new("Message-ID: <same@example.org>\r\n\r\nfirst\r\n")),
        ("repeated Message-ID, second", CorpusMessage::new("Message-ID: <same@example.org>\r\n\r\nother\r\n")),
        ("identical, first", twin.clone()),
        ("identical, second", twin.clone()),
        ("identical, other flags", twin.flagged(&["\\Flagged"])),
        ("deleted", CorpusMessage::new("Subject: deleted\r\n\r\ngone soon\r\n").flagged(&["\\Deleted", "\\Seen"])),
        ("every flag", {
            let flags = ["\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft", "$Forwarded", "NonJunk"];
            CorpusMessage::new("Subject: flags\r\n\r\nx\r\n").flagged(&flags)
        }),
        ("keywords", CorpusMessage::new("Subject: k\r\n\r\nx\r\n").flagged(&["$MDNSent", "to-do", "a+b=c", "1", "x"])),
        (
            "8-bit header, Latin-1",
            CorpusMessage::new(b"Subject: Gr\xfc\xdfe\r\nFrom: J\xf6rg <j@x>\r\n\r\n\xe4\r\n".to_vec()),
        ),
        ("8-bit header, UTF-8", CorpusMessage::new("Subject: Grüße 📬\r\n\r\nÄ\r\n")),
        ("empty body", CorpusMessage::new("Subject: empty body\r\n\r\n")),
        ("header only, no blank line", CorpusMessage::new("Subject: header only\r\n")),
        ("no header", CorpusMessage::new("\r\nonly a body\r\n")),
        ("one byte", CorpusMessage::new("x")),
        ("lone CR", CorpusMessage::new("Subject: cr\r\n\r\none\rtwo\r\n")),
        ("no final newline", CorpusMessage::new("Subject: no end\r\n\r\nno end")),
        ("leading blank lines", CorpusMessage::new("\r\n\r\nSubject: late\r\n\r\nx\r\n")),
        (
            "mbox From line",
            CorpusMessage::new("From a@b Mon Jan  1 00:00:00 2001\r\nSubject: m\r\n\r\nFrom here\r\n>From\r\n"),
        ),
        ("dots", CorpusMessage::new("Subject: dots\r\n\r\n.\r\n..\r\n.\r\n")),
        ("commands", CorpusMessage::new(format!("Subject: commands\r\n\r\n{commands}")).flagged(&["\\Flagged"])),
        ("commands from the first byte", CorpusMessage::new(commands)),
        ("literals", CorpusMessage::new("Subject: {5}\r\n\r\n{10}\r\n) {3+}\r\n* 1 FETCH (FLAGS ())\r\n{99999999999}")),
        ("tagged replies", CorpusMessage::new("t1 OK done\r\n* BYE\r\nA0001 BAD no\r\n+ OK\r\n")),
        ("a line of 1 MB", CorpusMessage::new([b"Subject: long line\r\n\r\n".to_vec(), vec![b'L'; 1 << 20]].concat())),
        ("a huge header", CorpusMessage::new(huge_header)),
        ("no colon", CorpusMessage::new("this is no header\r\nSubject : odd\r\n\r\nx\r\n")),
        ("folded", CorpusMessage::new("Subject: a\r\n\tb\r\n c\r\nMessage-ID:\r\n <folded@x>\r\n\r\nx\r\n")),
        ("every byte but NUL, CR and LF", {
            let bytes = (1..=255).filter(|b| !b"\r\n".contains(b));
            CorpusMessage::new([b"Subject: bytes\r\n\r\n".to_vec(), bytes.collect()].concat())
        }),
        ("1971", CorpusMessage::new("Subject: 1971\r\n\r\nx\r\n").dated("02-Jan-1971 03:04:05 +0000")),
        ("one-digit day", CorpusMessage::new("Subject: day\r\n\r\nx\r\n").dated(" 7-Jul-1999 23:59:59 -1200")),
        ("leap day, zone", CorpusMessage::new("Subject: leap\r\n\r\nx\r\n").dated("29-Feb-2024 12:30:00 +0530")),
        ("easternmost", CorpusMessage::new("Subject: east\r\n\r\nx\r\n").dated("31-Dec-2019 23:59:59 +1400")),
    ]
}

/// Messages that Dovecot stores otherwise than sent: what it is, as sent, as stored.
#[must_use]
pub fn rewritten_messages() -> Vec<(&'static str, CorpusMessage, Vec<u8>)> {
    vec![
        (
            "CR CR LF",
            CorpusMessage::new("Subject: crcrlf\r\n\r\na\r\r\nb\r\n"),
            b"Subject: crcrlf\r\n\r\na\r\nb\r\n".to_vec(),
        ),
        ("NUL", CorpusMessage::new("Subject: nul\r\n\r\na\0b\r\n"), b"Subject: nul\r\n\r\na\x80b\r\n".to_vec()),
        ("bare LF", CorpusMessage::new("Subject: lf\n\na\nb\n"), b"Subject: lf\r\n\r\na\r\nb\r\n".to_vec()),
    ]
}

/// Messages such as people send, with varied flags and dates.
fn ordinary(random: &mut SplitMix64, about: &str, count: usize) -> Vec<CorpusMessage> {
    let choices: [&[&str]; 7] = [
        &[],
        &["\\Seen"],
        &["\\Seen", "\\Answered"],
        &["\\Flagged"],
        &["\\Draft"],
        &["\\Seen", "$Label1"],
        &["\\Seen", "project-x", "$Forwarded"],
    ];
    (0..count)
        .map(|at| {
            let mut body = headers(random, about, at).into_bytes();
            let size = 100 + random.below(20_000);
            let text = prose(random, usize::try_from(size).expect("fits"));
            body.extend_from_slice(&text);
            let flags = choices[usize::try_from(random.below(choices.len() as u64)).expect("fits")];
            CorpusMessage::new(body).flagged(flags).dated(&date(random))
        })
        .collect()
}

fn headers(random: &mut SplitMix64, about: &str, at: usize) -> String {
    let id = random.number();
    let mut text = String::new();
    let about: String = about.chars().filter(char::is_ascii_alphanumeric).collect();
    write!(
        text,
        "Message-ID: <{id:016x}.{at}@example.org>\r\nFrom: Alice <alice@example.org>\r\nTo: bob@example.org\r\n\
         Subject: {about} {at}\r\nDate: Thu, 04 Jan 2018 10:00:00 +0000\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\r\n"
    )
    .expect("string");
    text
}

/// Lines of 70 characters and CRLF.
fn prose(random: &mut SplitMix64, bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes + 80);
    while out.len() < bytes {
        for _ in 0..7 {
            let word = random.number().to_le_bytes().map(|b| b'a' + b % 26);
            out.extend_from_slice(&word);
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// A date between 1995 and 2024, in one of several zones.
fn date(random: &mut SplitMix64) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    const ZONES: [&str; 6] = ["+0000", "+0100", "-0500", "+0530", "-0330", "+1245"];
    let month = MONTHS[usize::try_from(random.below(12)).expect("fits")];
    let zone = ZONES[usize::try_from(random.below(6)).expect("fits")];
    format!(
        "{:02}-{month}-{} {:02}:{:02}:{:02} {zone}",
        1 + random.below(28),
        1995 + random.below(30),
        random.below(24),
        random.below(60),
        random.below(60)
    )
}

/// `SplitMix64`: the same numbers for ever, which no crate promises.
#[derive(Debug, Clone)]
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    /// One of 2⁶⁴ numbers.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below a limit that is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }
}

#[cfg(test)]
mod tests {
    use super::Corpus;

    #[test]
    fn a_bulk_corpus_has_the_size_asked_for() {
        let corpus = Corpus::bulk(1_000, 3_700_000, 16, 1);
        assert_eq!((corpus.messages(), corpus.folders.len(), corpus.bytes()), (1_000, 16, 3_700_000));
        assert!(corpus.folders.iter().all(|folder| !folder.messages.is_empty()));
        assert_eq!(corpus, Corpus::bulk(1_000, 3_700_000, 16, 1));
    }
}
