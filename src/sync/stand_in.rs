//! Tells a message from what a server sends in its place when it cannot read or convert it: a few lines of its own,
//! with OK, as if they were the message. Exchange and Courier are known to do so; no list of their sentences is complete.
//!
//! Three things together make a stand-in: it is small, its length is not the RFC822.SIZE that was listed before, and it
//! has a server's header: no Message-ID and no sender with an ordinary address. Mail that people wrote or forwarded has
//! those, whatever its text says. RFC822.SIZE alone decides nothing: some servers only estimate it.

/// Stand-ins are shorter than this, bytes.
const LONGEST_STAND_IN: usize = 4096;
/// Sizes that differ by no more than this, bytes, do not differ clearly.
const CLEAR_DIFFERENCE: u64 = 512;
/// A message of more bytes than this that is listed with less than a quarter of them is no estimate.
const UNDERSTATED: u64 = 64 << 10;
/// Where sizes are wrong for more messages than these, and for most, the source estimates them.
const WRONG_SIZES: u32 = 5;

/// Sentences by which servers are known to say that they do not deliver a message: in lower case, blanks folded.
const KNOWN_SENTENCES: [&str; 4] = [
    // Exchange.
    "retrieval using the imap4 protocol failed for the following message",
    "the server couldn't retrieve the following message",
    "the following message could not be retrieved",
    // Courier, of a message that another session has expunged.
    "this message is no longer available on the server",
];

/// Local parts of addresses by which servers write.
const SYSTEM_USERS: [&str; 6] = ["root", "postmaster", "mailer-daemon", "administrator", "system", "imap"];

/// What a server sent instead of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum StandIn {
    /// A notice whose sentences are known.
    KnownNotice,
    /// A few lines with a server's header, where another size was listed.
    UnknownNotice,
    /// No bytes at all, where some were listed.
    Nothing,
}

impl StandIn {
    /// What happened, for people.
    #[must_use]
    pub(crate) const fn what(self) -> &'static str {
        match self {
            Self::KnownNotice => "the source sent a notice in its place, which says that it cannot deliver the message",
            Self::UnknownNotice => "the source sent something short in its place, without Message-ID and sender",
            Self::Nothing => "the source lists its bytes and sent none",
        }
    }
}

/// Judges what came for a message that was listed with `listed` bytes (0 where nothing was listed).
#[must_use]
pub(crate) fn find_stand_in(listed: u64, body: &[u8]) -> Option<StandIn> {
    let came = body.len() as u64;
    if listed == 0 || listed == came || body.len() > LONGEST_STAND_IN {
        return None;
    }
    if body.is_empty() {
        return Some(StandIn::Nothing);
    }
    let notice = ServerNotice::parse(body)?;
    if notice.is_known {
        Some(StandIn::KnownNotice)
    } else if !notice.has_date && differs_clearly(listed, came) {
        Some(StandIn::UnknownNotice)
    } else {
        None
    }
}

/// True when the text is one by which servers are known to stand in for messages, whatever sizes say: it is worth a
/// second look where the size came along with it.
#[must_use]
pub(crate) fn is_known_notice(body: &[u8]) -> bool {
    body.len() <= LONGEST_STAND_IN && ServerNotice::parse(body).is_some_and(|notice| notice.is_known)
}

fn differs_clearly(listed: u64, came: u64) -> bool {
    let difference = listed.abs_diff(came);
    difference > CLEAR_DIFFERENCE && difference > listed / 4
}

/// A message with a server's header.
struct ServerNotice {
    is_known: bool,
    has_date: bool,
}

impl ServerNotice {
    /// None for a message that somebody may have written: it has a Message-ID, or a sender with an ordinary address.
    fn parse(body: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(body).replace('\r', "").to_ascii_lowercase();
        let (header, content) = text.split_once("\n\n").unwrap_or((text.as_str(), ""));
        let header = header.replace("\n ", " ").replace("\n\t", " ");
        let field = |name: &str| {
            let of = |line: &str| Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim().to_owned());
            header.lines().find_map(of)
        };
        if field("message-id").is_some() || field("from").is_some_and(|from| !is_system_sender(&from)) {
            return None;
        }
        let subject = field("subject").unwrap_or_default();
        // Quoted-printable breaks sentences.
        let text = format!("{subject} {}", content.replace("=\n", "")).replace('\u{2019}', "'");
        let folded = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let is_known = KNOWN_SENTENCES.iter().any(|sentence| folded.contains(sentence));
        Some(Self { is_known, has_date: field("date").is_some() })
    }
}

/// True for a sender without an address, and for an address by which servers write. The text is in lower case.
fn is_system_sender(from: &str) -> bool {
    let address = from.rsplit('<').next().unwrap_or(from).trim_end_matches('>').trim();
    match address.split_once('@') {
        None => true,
        Some((user, domain)) => SYSTEM_USERS.contains(&user) || domain == ".missing-host-name.",
    }
}

/// How far a source's RFC822.SIZE can be believed, learnt from the messages that came.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SizeTrust {
    right: u32,
    wrong: u32,
    understated: bool,
}

impl SizeTrust {
    /// Takes one message that came.
    pub(crate) fn record_size(&mut self, listed: u64, came: u64) {
        let count = if listed == came { &mut self.right } else { &mut self.wrong };
        *count = count.saturating_add(1);
        self.understated |= came > UNDERSTATED && came / 4 > listed;
    }

    /// True where a message was so much larger than it is listed that no estimate explains it.
    #[must_use]
    pub(crate) const fn is_understated(self) -> bool {
        self.understated
    }

    /// False where the source estimates: then no size says anything.
    #[must_use]
    pub(crate) const fn is_trusted(self) -> bool {
        self.wrong <= WRONG_SIZES || self.wrong < self.right
    }

    /// True where sizes were right for so many messages that a few bytes less are no estimate.
    const fn is_exact(self) -> bool {
        self.right > WRONG_SIZES && self.right / 9 >= self.wrong
    }

    /// True when so much of a message is missing that it may be cut off.
    #[must_use]
    pub(crate) fn is_cut_off(self, listed: u64, came: u64) -> bool {
        // A size at the end of its range is saturated.
        let is_shorter = came < listed && listed < u64::from(u32::MAX);
        let lacks_a_quarter = is_shorter && listed - came > listed / 4;
        self.is_trusted() && is_shorter && (differs_clearly(listed, came) || (self.is_exact() && lacks_a_quarter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXCHANGE: &str = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=\"us-ascii\"\r\n\
        From: Microsoft Exchange Server 2010\r\nTo: A User <user@example.org>\r\n\
        Subject: Retrieval using the IMAP4 protocol failed for the following\r\n message: 5\r\n\
        Content-Transfer-Encoding: quoted-printable\r\n\r\nThe server couldn't retrieve the following message:\r\n\r\n\
        Subject: \"Canceled: a meeting\"\r\nSent date: 2 Feb 2016 10:00:00\r\n\r\nThe message hasn't been deleted.\r\n";
    const COURIER: &str = "From: System Administrator <root@localhost>\r\nSubject: message unavailable\r\n\r\n\
        This message is no longer available on the server.\r\n";

    #[test]
    fn known_notices_of_servers_are_stand_ins_when_another_size_was_listed() {
        for notice in [EXCHANGE, COURIER] {
            assert_eq!(find_stand_in(48_000, notice.as_bytes()), Some(StandIn::KnownNotice), "{notice}");
            assert_eq!(find_stand_in(700, notice.as_bytes()), Some(StandIn::KnownNotice), "{notice}");
            assert_eq!(find_stand_in(notice.len() as u64, notice.as_bytes()), None, "it is stored as a message");
            assert!(is_known_notice(notice.as_bytes()));
        }
        let broken = "From: Exchange\r\n\r\nThe following message could =\r\nnot be\r\nretrieved by the server\r\n";
        assert_eq!(find_stand_in(300, broken.as_bytes()), Some(StandIn::KnownNotice));
    }

    #[test]
    fn mail_that_people_forwarded_is_a_message_whatever_its_text_says() {
        let forwarded = format!("Message-ID: <1@example.org>\r\nFrom: root@example.org\r\n\r\n{EXCHANGE}");
        let without_id = format!("From: Anna <anna@example.org>\r\nSubject: Fwd\r\n\r\n{COURIER}");
        for mail in [forwarded, without_id] {
            for listed in [mail.len() as u64, mail.len() as u64 + 90, 48_000] {
                assert_eq!(find_stand_in(listed, mail.as_bytes()), None, "{listed}: {mail}");
            }
            assert!(!is_known_notice(mail.as_bytes()));
        }
    }

    #[test]
    fn an_unknown_notice_needs_a_size_that_is_clearly_another() {
        let notice = "From: Mail System\r\nSubject: Fehler\r\n\r\nDie Nachricht kann nicht gelesen werden.\r\n";
        assert_eq!(find_stand_in(9000, notice.as_bytes()), Some(StandIn::UnknownNotice));
        assert_eq!(find_stand_in(notice.len() as u64 + 200, notice.as_bytes()), None);
        let dated = format!("Date: Fri, 05 Mar 2021 08:09:10 +0000\r\n{notice}");
        assert_eq!(find_stand_in(9000, dated.as_bytes()), None, "an old mail of a program");
        assert_eq!(find_stand_in(90_000, &[notice.as_bytes(), &[b'x'; 5000]].concat()), None, "it is long");
        assert_eq!(find_stand_in(0, notice.as_bytes()), None, "nothing was listed");
    }

    #[test]
    fn no_bytes_are_no_message_where_some_were_listed() {
        assert_eq!(find_stand_in(10, b""), Some(StandIn::Nothing));
        assert_eq!(find_stand_in(0, b""), None);
    }

    #[test]
    fn no_bytes_are_judged_wrongly_or_panic() {
        for body in [&b"\r\n\r\n"[..], b"\xff\xfe", b"from", b"From: <@", b"\n\n\n"] {
            assert!(!is_known_notice(body));
            let _ = find_stand_in(5000, body);
        }
    }

    #[test]
    fn a_source_that_estimates_sizes_makes_no_message_look_cut_off() {
        let mut sizes = SizeTrust::default();
        assert!(sizes.is_cut_off(50_000, 20_000));
        assert!(!sizes.is_cut_off(50_000, 49_000) && !sizes.is_cut_off(20_000, 50_000));
        assert!(!sizes.is_cut_off(u64::from(u32::MAX), 20_000));
        (0..6).for_each(|_| sizes.record_size(900, 1000));
        assert!(!sizes.is_trusted() && !sizes.is_cut_off(50_000, 20_000));
        (0..7).for_each(|_| sizes.record_size(1000, 1000));
        assert!(sizes.is_cut_off(50_000, 20_000));
    }

    #[test]
    fn where_other_sizes_are_right_a_short_message_looks_cut_off_too() {
        let mut sizes = SizeTrust::default();
        sizes.record_size(190, 95);
        (0..8).for_each(|_| sizes.record_size(200, 200));
        assert!(!sizes.is_cut_off(190, 95), "too few to tell");
        sizes.record_size(200, 200);
        assert!(sizes.is_cut_off(190, 95) && !sizes.is_cut_off(190, 180));
    }

    #[test]
    fn a_size_that_is_far_too_small_is_no_estimate() {
        let mut sizes = SizeTrust::default();
        sizes.record_size(100, 60_000);
        sizes.record_size(30_000, 100_000);
        assert!(!sizes.is_understated());
        sizes.record_size(100, 100_000);
        assert!(sizes.is_understated());
    }
}
