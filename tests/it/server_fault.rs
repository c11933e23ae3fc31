//! What a server does wrong, chosen by chance: silence, cuts and lies.

use std::time::Duration;

use mailferry::Side;
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use regex::bytes::Regex;

use crate::fake::{Account, Act, CONNECT, Change, Mail};

/// One fault of one server.
#[derive(Debug, Clone)]
pub struct Fault {
    pub side: Side,
    pub kind: FaultKind,
    /// Commands that begin and go on so, in upper case; `*` stands for anything.
    at: &'static str,
    /// Of these, the ones that hold this, in upper case.
    only: Option<String>,
    rate: Rate,
}

/// How often a fault comes.
#[derive(Debug, Clone, Copy)]
enum Rate {
    /// Once, after so many commands that it might come at.
    Once(usize),
    Chance(f64),
    Always,
}

/// What the server does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FaultKind {
    /// It takes the command, never answers it, and answers what comes behind it.
    Unanswered,
    /// It says nothing more.
    Silent,
    /// It does what was asked, and answers after a while.
    AnswersLate(Duration),
    /// It does what was asked after a while, and never answers.
    DoesLate(Duration),
    /// It closes, and does what was asked after a while.
    ClosesAndDoesLate(Duration),
    /// It sends this for ever.
    Repeats(&'static str, Duration),
    /// It sends this and closes.
    Closes(&'static str),
    /// It does what was asked, sends so many thousandths of its answer and closes.
    Tears(usize),
    /// It sends this before it answers well.
    Interjects(&'static str),
    /// It sends this and does nothing.
    Answers(&'static str),
    /// It says OK and does nothing.
    OnlySaysSo,
    /// It lists every so many of its messages only.
    LeavesOut(u32),
    /// It lists the newest messages only.
    ListsNewest(usize),
    /// It tells a number so much larger or smaller.
    Miscounts(&'static str, i64),
    /// It gives a message's body as that of the next one.
    Swaps,
    /// It gives this in place of the bodies of every third message, of those that are large enough for it to be noticed.
    StandsIn(&'static str),
    /// It gives the first half of the bodies of these.
    CutsShort,
    /// It gives another RFC822.SIZE.
    Missizes,
    /// It answers each FETCH twice over.
    SaysTwice,
    /// It makes a folder whose name has this appended.
    Misnames(&'static str),
    /// It stores messages without their flags.
    LosesFlags,
    /// It stores messages with another date.
    LosesDates,
    /// It stores messages with a line more.
    Appends,
    /// It tells no APPENDUID.
    TellsNoUid,
    /// It tells an APPENDUID of another UIDVALIDITY.
    TellsOtherValidity,
}

/// Rude and plain ends.
const CLOSINGS: [&str; 4] =
    ["", "* BYE shutting down\r\n", "* BYE [UNAVAILABLE] too busy\r\n", "* 3 FETCH (UID 3 BODY"];
const NONSENSE: [&str; 6] = [
    "\u{0}\u{1}garbage\r\n",
    "X77 OK done\r\n",
    "* BAD what was that?\r\n",
    "* 1 FETCH (UID 1 BODY[] {99999999999999999999}\r\n",
    "+ go on\r\n+ go on\r\n",
    "* LIST (\r\n",
];
const REFUSALS: [&str; 5] = [
    "{tag} NO Computer says no.\r\n",
    "{tag} NO [SERVERBUG] Internal error occurred.\r\n",
    "{tag} NO [UNAVAILABLE] try again later\r\n",
    "{tag} BAD Command failed\r\n",
    "X77 OK done\r\n",
];
const LOGIN_REFUSALS: [&str; 3] = [
    "{tag} NO [UNAVAILABLE] Temporary authentication failure.\r\n",
    "{tag} NO [ALERT] Too many simultaneous connections.\r\n",
    "{tag} BAD Command failed\r\n",
];
const STAND_INS: [&str; 3] = [
    "From: System Administrator <root@localhost>\r\nSubject: message unavailable\r\n\r\n\
     This message is no longer available on the server.\r\n",
    "Subject: error\r\n\r\noops\r\n",
    "",
];
const FOR_EVER: [(&str, Duration); 3] = [
    ("* OK still here\r\n", Duration::from_secs(10)),
    ("*", Duration::from_secs(1)),
    ("* 1 FETCH (FLAGS (\\Seen))\r\n", Duration::from_secs(20)),
];

/// What a source is asked for in the course of a sync, and a destination.
const AT_SOURCE: [&str; 11] = [
    CONNECT,
    "LIST",
    "LSUB",
    "STATUS",
    "EXAMINE",
    LISTING,
    BODIES,
    BODIES,
    "UID SEARCH",
    "UID FETCH*(UID FLAGS)",
    "NOOP",
];
const AT_DESTINATION: [&str; 13] = [
    CONNECT,
    "LIST",
    "LSUB",
    "STATUS",
    "CREATE",
    "SELECT",
    "APPEND",
    "APPEND",
    "APPEND",
    "UID FETCH",
    LOOK,
    "UID STORE",
    "NOOP",
];
const LISTING: &str = "UID FETCH*INTERNALDATE*";
const BODIES: &str = "UID FETCH*BODY.PEEK[]";
const LOOK: &str = "UID FETCH*MESSAGE-ID";

impl Fault {
    /// Chooses one; `folders` and `keys` are what it may be limited to.
    pub fn choose(rng: &mut StdRng, folders: &[&str], keys: u32) -> Self {
        let side = *[Side::Source, Side::Destination].choose(rng).unwrap();
        let lies = rng.random_bool(0.45);
        let (at, kind) = match (lies, side) {
            (true, Side::Source) => source_lie(rng),
            (true, Side::Destination) => destination_lie(rng),
            (false, Side::Source) => failure(rng, &AT_SOURCE),
            (false, Side::Destination) => failure(rng, &AT_DESTINATION),
        };
        let rate = match rng.random_range(0..6) {
            0 | 1 => Rate::Once(rng.random_range(0..6)),
            2 => Rate::Chance(0.05),
            3 => Rate::Chance(0.3),
            _ if lies => Rate::Always,
            4 => Rate::Chance(0.7),
            _ => Rate::Always,
        };
        let named = ["STATUS", "EXAMINE", "SELECT", "CREATE", "APPEND"].contains(&at);
        let only = match rng.random_range(0..3) {
            0 if named => folders.choose(rng).map(|name| name.to_uppercase()),
            1 if at == "APPEND" => Some(format!("X-KEY: {}\r\n", rng.random_range(0..keys.max(1)))),
            _ => None,
        };
        Self { side, kind, at, only, rate }
    }

    /// What the server does instead of answering well, if the fault comes now; `seen` counts the commands that it might
    /// come at.
    pub fn act(&self, side: Side, command: &str, seen: &mut usize, rng: &mut StdRng) -> Option<Act> {
        let mut pieces = self.at.split('*');
        let is_meant = side == self.side
            && command.starts_with(pieces.next().unwrap_or_default())
            && pieces.all(|piece| command.contains(piece))
            && self.only.as_ref().is_none_or(|only| command.contains(only));
        if !is_meant {
            return None;
        }
        *seen += 1;
        let comes = match self.rate {
            Rate::Once(before) => *seen == before + 1,
            Rate::Chance(chance) => rng.random_bool(chance),
            Rate::Always => true,
        };
        comes.then(|| self.kind.act())
    }

    /// True where an APPEND may be done long after the connection that asked for it is gone.
    pub fn may_be_late(&self) -> bool {
        let (FaultKind::AnswersLate(after) | FaultKind::DoesLate(after) | FaultKind::ClosesAndDoesLate(after)) =
            self.kind
        else {
            return false;
        };
        self.at == "APPEND" && after > Duration::from_secs(2)
    }

    /// True where the source gives other messages' bytes as this one's, and nobody can know.
    pub fn gives_others(&self) -> bool {
        self.kind == FaultKind::Swaps && self.side == Side::Source
    }
}

fn failure(rng: &mut StdRng, at: &[&'static str]) -> (&'static str, FaultKind) {
    let at = *at.choose(rng).unwrap();
    let long = Duration::from_secs(*[5, 60, 110, 130, 500, 1200].choose(rng).unwrap());
    let late = if rng.random_bool(0.5) { long } else { Duration::from_millis(rng.random_range(0..1800)) };
    let kind = match rng.random_range(0..11) {
        0 => FaultKind::Unanswered,
        1 => FaultKind::Silent,
        // What stands behind such an APPEND is done when it is answered, though the client may be gone.
        2 | 3 if at == "APPEND" => FaultKind::AnswersLate(late),
        2 | 3 => FaultKind::AnswersLate(long),
        4 if at == "APPEND" && rng.random_bool(0.5) => FaultKind::DoesLate(late),
        4 if at == "APPEND" => FaultKind::ClosesAndDoesLate(late),
        4 => {
            let (text, pause) = *FOR_EVER.choose(rng).unwrap();
            FaultKind::Repeats(text, pause)
        }
        5 => FaultKind::Closes(CLOSINGS.choose(rng).unwrap()),
        6..=8 => FaultKind::Tears(*[0, 0, 300, 700, 990, 1000].choose(rng).unwrap()),
        9 => FaultKind::Interjects(NONSENSE.choose(rng).unwrap()),
        _ if at == CONNECT => FaultKind::Answers(LOGIN_REFUSALS.choose(rng).unwrap()),
        _ => FaultKind::Answers(REFUSALS.choose(rng).unwrap()),
    };
    (at, kind)
}

fn source_lie(rng: &mut StdRng) -> (&'static str, FaultKind) {
    let by = *[-1000, -3, -1, 1, 3, 1000].choose(rng).unwrap();
    let every = rng.random_range(2..5);
    *[
        (LISTING, FaultKind::LeavesOut(every)),
        (LISTING, FaultKind::ListsNewest(2)),
        (BODIES, FaultKind::LeavesOut(every)),
        ("UID SEARCH", FaultKind::ListsNewest(2)),
        ("UID FETCH*(UID FLAGS)", FaultKind::LeavesOut(every)),
        ("EXAMINE", FaultKind::Miscounts("EXISTS", by)),
        ("EXAMINE", FaultKind::Miscounts("UIDNEXT", by)),
        ("EXAMINE", FaultKind::Miscounts("UIDVALIDITY", 1)),
        ("EXAMINE", FaultKind::Miscounts("HIGHESTMODSEQ", by)),
        ("STATUS", FaultKind::Miscounts("MESSAGES", by)),
        ("STATUS", FaultKind::Miscounts("UIDNEXT", by)),
        ("STATUS", FaultKind::Miscounts("UIDVALIDITY", 1)),
        ("STATUS", FaultKind::Miscounts("HIGHESTMODSEQ", by)),
        ("STATUS", FaultKind::Miscounts("SIZE", -100_000)),
        (BODIES, FaultKind::Swaps),
        (BODIES, FaultKind::StandsIn(STAND_INS.choose(rng).unwrap())),
        (BODIES, FaultKind::CutsShort),
        (BODIES, FaultKind::SaysTwice),
        (LISTING, FaultKind::SaysTwice),
        (LISTING, FaultKind::Missizes),
    ]
    .choose(rng)
    .unwrap()
}

fn destination_lie(rng: &mut StdRng) -> (&'static str, FaultKind) {
    let by = *[-1000, -3, -1, 1, 3, 1000].choose(rng).unwrap();
    *[
        ("APPEND", FaultKind::OnlySaysSo),
        ("APPEND", FaultKind::OnlySaysSo),
        ("APPEND", FaultKind::Miscounts("APPENDUID \\d+", by)),
        ("APPEND", FaultKind::TellsNoUid),
        ("APPEND", FaultKind::TellsOtherValidity),
        ("APPEND", FaultKind::LosesFlags),
        ("APPEND", FaultKind::LosesDates),
        ("APPEND", FaultKind::Appends),
        ("CREATE", FaultKind::OnlySaysSo),
        ("CREATE", FaultKind::Misnames("-1")),
        ("CREATE", FaultKind::Misnames("_")),
        ("SELECT", FaultKind::Miscounts("EXISTS", by)),
        ("SELECT", FaultKind::Miscounts("UIDNEXT", by)),
        ("SELECT", FaultKind::Miscounts("UIDVALIDITY", 1)),
        ("STATUS", FaultKind::Miscounts("MESSAGES", by)),
        ("STATUS", FaultKind::Miscounts("UIDNEXT", by)),
        ("STATUS", FaultKind::Miscounts("UIDVALIDITY", 1)),
        (LOOK, FaultKind::LeavesOut(3)),
        (LOOK, FaultKind::Missizes),
        ("UID FETCH*RFC822.SIZE", FaultKind::LeavesOut(3)),
        ("UID STORE", FaultKind::OnlySaysSo),
        (BODIES, FaultKind::Swaps),
    ]
    .choose(rng)
    .unwrap()
}

impl FaultKind {
    fn act(self) -> Act {
        let view = |change: fn(&mut Vec<Mail>)| {
            Act::Pretend(Change::new(move |account: &mut Account| account.values_mut().for_each(change)))
        };
        match self {
            Self::Unanswered => Act::Send(Vec::new()),
            Self::Silent => Act::Stall,
            Self::AnswersLate(after) => Act::Linger(after),
            Self::DoesLate(after) => Act::Late(after, Vec::new()),
            Self::ClosesAndDoesLate(after) => Act::Orphan(after),
            Self::Repeats(text, pause) => Act::Endless(text.into(), pause),
            Self::Closes(text) => Act::Bye(text.into()),
            Self::Tears(share) => Act::Torn(share),
            Self::Interjects(text) => Act::First(text.into()),
            Self::Answers(text) => Act::Send(text.into()),
            Self::OnlySaysSo => view(|_| {}),
            Self::LeavesOut(every) => Act::Pretend(Change::new(move |account: &mut Account| {
                for mails in account.values_mut() {
                    mails.retain(|mail| mail.uid % every != 0);
                }
            })),
            Self::ListsNewest(count) => Act::Pretend(Change::new(move |account: &mut Account| {
                for mails in account.values_mut() {
                    mails.drain(..mails.len().saturating_sub(count));
                }
            })),
            Self::Miscounts(number, by) => Act::Retell(Change::new(move |answer: &mut Vec<u8>| {
                *answer = miscounted(answer, number, by);
            })),
            Self::Swaps => view(|mails| {
                let bodies: Vec<Vec<u8>> = mails.iter().map(|mail| mail.body.clone()).collect();
                bodies.iter().zip(mails.iter_mut().skip(1)).for_each(|(body, mail)| mail.body.clone_from(body));
            }),
            Self::StandsIn(text) => Act::Pretend(Change::new(move |account: &mut Account| {
                account.values_mut().flatten().filter(|mail| is_noticed(mail)).for_each(|mail| {
                    mail.size = Some(mail.body.len() as u64);
                    mail.body = text.into();
                });
            })),
            Self::CutsShort => view(|mails| {
                mails.iter_mut().filter(|mail| is_noticed(mail)).for_each(|mail| {
                    mail.size = Some(mail.body.len() as u64);
                    mail.body.truncate(mail.body.len() / 2);
                });
            }),
            Self::Missizes => view(|mails| {
                for mail in mails {
                    mail.size = Some(mail.body.len() as u64 * 4 / 3 + u64::from(mail.uid));
                }
            }),
            Self::SaysTwice => Act::Retell(Change::new(|answer: &mut Vec<u8>| {
                let end = answer.windows(2).rposition(|w| w == b")\r").map_or(0, |at| at + 3);
                let first = answer[..end].to_vec();
                answer.splice(..0, first);
            })),
            Self::Misnames(suffix) => Act::Misname(suffix),
            Self::LosesFlags => Act::Alter(|mail| mail.flags.clear()),
            Self::LosesDates => Act::Alter(|mail| "\"01-Jan-2030 00:00:00 +0000\"".clone_into(&mut mail.date)),
            Self::Appends => Act::Alter(|mail| mail.body.extend_from_slice(b"-- \r\nScanned.\r\n")),
            Self::TellsNoUid => Act::Covertly(b"{tag} OK done\r\n".to_vec()),
            Self::TellsOtherValidity => Act::Retell(Change::new(|answer: &mut Vec<u8>| {
                *answer = miscounted(answer, "APPENDUID", 1);
            })),
        }
    }
}

/// Every third message, where less than half of it differs clearly from its RFC822.SIZE: less than a quarter or 512 bytes
/// are what servers miscount.
fn is_noticed(mail: &Mail) -> bool {
    mail.uid.is_multiple_of(3) && mail.body.len() > 1100
}

/// The answer with another number behind (or, for EXISTS, before) this word.
fn miscounted(answer: &[u8], word: &str, by: i64) -> Vec<u8> {
    let pattern = if word == "EXISTS" { r"(\* )(\d+)( EXISTS)".to_owned() } else { format!(r"({word} )(\d+)()") };
    let change = |found: &regex::bytes::Captures<'_>| {
        let number: i64 = std::str::from_utf8(&found[2]).unwrap().parse().unwrap();
        let least = i64::from(word != "EXISTS" && word != "MESSAGES" && word != "SIZE");
        [&found[1], (number + by).max(least).to_string().as_bytes(), &found[3]].concat()
    };
    Regex::new(&pattern).unwrap().replace_all(answer, change).into_owned()
}
