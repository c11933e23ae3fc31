//! What a well-behaved server answers, from the account as it is.

use std::fmt::Write as _;

use mailferry_testkit::scripted::ClientCommand;

use super::{Account, Listed, Mail};

#[allow(clippy::too_many_lines, reason = "an arm for each command")]
pub(super) fn answer(
    command: &ClientCommand,
    upper: &str,
    capabilities: &str,
    folders: &mut Account,
    selected: &mut String,
) -> Option<Vec<u8>> {
    let text = command.text();
    let ok = |untagged: String| Some(format!("{untagged}{} OK done\r\n", command.tag).into_bytes());
    let no = |why: &str| Some(format!("{} NO {why}\r\n", command.tag).into_bytes());
    let name = || {
        let rest = text.split_once(' ').map_or("", |(_, rest)| rest);
        let literal = rest.strip_prefix('{').and_then(|rest| rest.split_once("}\r\n"));
        if let Some((length, bytes)) = literal {
            return bytes[..length.trim_end_matches('+').parse().unwrap()].to_owned();
        }
        match rest.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next().unwrap_or_default().to_owned(),
            None => rest.split(' ').next().unwrap_or_default().to_owned(),
        }
    };
    match upper.split(' ').next().unwrap_or_default() {
        "LIST" | "LSUB" => {
            let verb = upper.split(' ').next().unwrap_or_default();
            let lines = folders.keys().fold(String::new(), |mut lines, folder| {
                write!(lines, "* {verb} () \"/\" \"{folder}\"\r\n").unwrap();
                if upper.contains("STATUS (") {
                    lines.push_str(&status(folder, &folders[folder], upper));
                }
                lines
            });
            ok(lines)
        }
        "STATUS" => {
            let folder = name();
            let Some(mails) = folders.get(&folder) else { return no("[NONEXISTENT] There is none of that name.") };
            ok(status(&folder, mails, upper))
        }
        "SELECT" | "EXAMINE" => {
            *selected = name();
            let Some(mails) = folders.get(selected) else { return no("[NONEXISTENT] There is none of that name.") };
            let (count, next) = (mails.len(), next(mails));
            let counts = capabilities.contains("CONDSTORE");
            let modseq = format!("* OK [HIGHESTMODSEQ {}] ok\r\n", highest_modseq(mails));
            let modseq = if counts { modseq } else { String::new() };
            ok(format!(
                "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n* {count} EXISTS\r\n* 0 RECENT\r\n\
                 * OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] ok\r\n\
                 * OK [UIDVALIDITY 7] ok\r\n* OK [UIDNEXT {next}] ok\r\n{modseq}"
            ))
        }
        "CREATE" if folders.contains_key(&name()) => no("[ALREADYEXISTS] There is one of that name."),
        "CREATE" => {
            folders.entry(name()).or_default();
            ok(String::new())
        }
        "APPEND" => {
            let Some(mails) = folders.get_mut(&name()) else { return no("[TRYCREATE] There is none of that name.") };
            let first = next(mails);
            for (uid, (flags, date, body)) in (first..).zip(appended(&command.bytes)) {
                mails.push(Mail { uid, flags, date, size: None, body, listed: Listed::Everywhere });
            }
            let uids = match next(mails) - 1 {
                last if last == first => first.to_string(),
                last => format!("{first}:{last}"),
            };
            let code = if capabilities.contains("UIDPLUS") { format!("[APPENDUID 7 {uids}] ") } else { String::new() };
            Some(format!("{} OK {code}done\r\n", command.tag).into_bytes())
        }
        "UID" if upper.starts_with("UID FETCH ") => {
            let mails = folders.get(selected)?;
            let mut out = Vec::new();
            let set = text.split(' ').nth(2);
            let since =
                upper.split_once("(CHANGEDSINCE ").and_then(|(_, rest)| rest.trim_end_matches(')').parse().ok());
            let changed = since.is_none_or(|since: u64| since < highest_modseq(mails));
            let hidden = if set.is_some_and(|set| set.contains('*')) { Listed::WhenAskedFor } else { Listed::Nowhere };
            let asked = |mail: &Mail| {
                changed && in_set(set, mail.uid, mails) && ![hidden, Listed::Nowhere].contains(&mail.listed)
            };
            let asked = (1..).zip(mails).filter(|(_, mail)| asked(mail)).collect();
            let (asked, code) = touched(asked, capabilities);
            for (seq, mail) in asked {
                fetched(&mut out, seq, mail, upper);
            }
            out.extend_from_slice(format!("{} OK {code}done\r\n", command.tag).as_bytes());
            Some(out)
        }
        "FETCH" => {
            let mails = folders.get(selected)?;
            let mut out = Vec::new();
            let set = text.split(' ').nth(1);
            let asked = |(seq, mail): &(usize, &Mail)| {
                u32::try_from(*seq).is_ok_and(|seq| in_set(set, seq, &[])) && mail.listed != Listed::Nowhere
            };
            let (asked, code) = touched((1..).zip(mails).filter(asked).collect(), capabilities);
            for (seq, mail) in asked {
                fetched(&mut out, seq, mail, upper);
            }
            out.extend_from_slice(format!("{} OK {code}done\r\n", command.tag).as_bytes());
            Some(out)
        }
        "UID" if upper.starts_with("UID STORE ") => {
            let mails = folders.get_mut(selected)?;
            let all = mails.clone();
            let mut words = text.splitn(5, ' ').skip(2);
            let (set, how, flags) = (words.next(), words.next()?, words.next()?.trim_matches(['(', ')']));
            for mail in mails.iter_mut().filter(|m| how.starts_with('+') && in_set(set, m.uid, &all)) {
                let space = if mail.flags.is_empty() { "" } else { " " };
                mail.flags.extend_from_slice(format!("{space}{flags}").as_bytes());
            }
            ok(String::new())
        }
        "UID" if upper.starts_with("UID SEARCH") => {
            let mails = folders.get(selected)?;
            let set = upper.rsplit_once(" UID ").map(|(_, set)| set);
            let listed = (1..).zip(mails).filter(|(_, m)| m.listed == Listed::Everywhere);
            let found = listed.filter(|(_, m)| set.is_none() || in_set(set, m.uid, mails)).collect();
            let (found, code) = touched(found, capabilities);
            let found: Vec<String> = found.iter().map(|(_, m)| m.uid.to_string()).collect();
            let line = match (upper.contains("RETURN"), found.is_empty()) {
                (true, true) => format!("* ESEARCH (TAG \"{}\") UID\r\n", command.tag),
                (true, false) => format!("* ESEARCH (TAG \"{}\") UID ALL {}\r\n", command.tag, found.join(",")),
                (false, _) => format!("* SEARCH {}\r\n", found.join(" ")),
            };
            let line = line.replace("SEARCH \r", "SEARCH\r");
            Some(format!("{line}{} OK {code}done\r\n", command.tag).into_bytes())
        }
        _ => None,
    }
}

/// UIDNEXT, where nothing was ever expunged.
fn next(mails: &[Mail]) -> u32 {
    mails.iter().map(|m| m.uid).max().unwrap_or(0) + 1
}

/// It grows with each message and each flag, where none is ever removed.
fn highest_modseq(mails: &[Mail]) -> u64 {
    let flags = |mail: &Mail| mail.flags.split(|b| *b == b' ').filter(|flag| !flag.is_empty()).count() as u64;
    1 + mails.iter().map(|mail| 1 + flags(mail)).sum::<u64>()
}

/// A STATUS of what is asked for.
fn status(folder: &str, mails: &[Mail], upper: &str) -> String {
    let (count, next) = (mails.len(), next(mails));
    let bytes: usize = mails.iter().map(|m| m.body.len()).sum();
    let size = if upper.contains("SIZE") { format!(" SIZE {bytes}") } else { String::new() };
    let modseq = format!(" HIGHESTMODSEQ {}", highest_modseq(mails));
    let modseq = if upper.contains("HIGHESTMODSEQ") { modseq } else { String::new() };
    format!("* STATUS \"{folder}\" (MESSAGES {count} UIDNEXT {next} UIDVALIDITY 7{size}{modseq})\r\n")
}

/// What a command touches of the messages that it asks for: with MESSAGELIMIT (RFC 9738) the newest, and the response code
/// that says so.
fn touched<'m>(mut asked: Vec<(usize, &'m Mail)>, capabilities: &str) -> (Vec<(usize, &'m Mail)>, String) {
    let limit = capabilities.split(' ').find_map(|c| c.strip_prefix("MESSAGELIMIT=")).map(|n| n.parse().unwrap());
    match limit {
        Some(limit) if asked.len() > limit => {
            asked.drain(..asked.len() - limit);
            let code = format!("[MESSAGELIMIT {limit} {}] ", asked[0].1.uid);
            (asked, code)
        }
        _ => (asked, String::new()),
    }
}

/// Flags, date and body of each message in an APPEND.
fn appended(mut bytes: &[u8]) -> Vec<(Vec<u8>, String, Vec<u8>)> {
    let mut messages = Vec::new();
    while let Some(end) = bytes.windows(3).position(|w| w == b"}\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length: usize = head.rsplit('{').next().and_then(|n| n.trim_end_matches('+').parse().ok()).unwrap_or(0);
        let rest = &bytes[end + 3..];
        let flags = head.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("", |(flags, _)| flags);
        let date = head.split_once(") \"").and_then(|(_, rest)| rest.split_once('"')).map(|(date, _)| date);
        let date = format!("\"{}\"", date.unwrap_or("01-Jan-2030 00:00:00 +0000"));
        messages.push((flags.into(), date, rest[..length].to_vec()));
        bytes = &rest[length..];
    }
    messages
}

fn fetched(out: &mut Vec<u8>, seq: usize, mail: &Mail, items: &str) {
    out.extend_from_slice(format!("* {seq} FETCH (UID {}", mail.uid).as_bytes());
    if items.contains("FLAGS") {
        out.extend_from_slice(&[b" FLAGS (", mail.flags.as_slice(), b")"].concat());
    }
    if items.contains("X-GM-MSGID") {
        // The same message has the same number in every folder.
        let number = mail.sha256().iter().take(7).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        out.extend_from_slice(format!(" X-GM-MSGID {number}").as_bytes());
    }
    if items.contains("INTERNALDATE") {
        out.extend_from_slice(format!(" INTERNALDATE {}", mail.date).as_bytes());
    }
    if items.contains("RFC822.SIZE") {
        out.extend_from_slice(format!(" RFC822.SIZE {}", mail.size.unwrap_or(mail.body.len() as u64)).as_bytes());
    }
    if items.contains("[HEADER.FIELDS (MESSAGE-ID)]") {
        let header = String::from_utf8_lossy(&mail.body).into_owned();
        let id =
            header.lines().find(|line| line.starts_with("Message-ID:")).map_or(String::new(), |l| format!("{l}\r\n"));
        let text = format!(" BODY[HEADER.FIELDS (MESSAGE-ID)] {{{}}}\r\n{id}\r\n", id.len() + 2);
        out.extend_from_slice(text.as_bytes());
    }
    if items.contains("BODY.PEEK[]<0.65536>") {
        let beginning = &mail.body[..mail.body.len().min(65536)];
        out.extend_from_slice(format!(" BODY[]<0> {{{}}}\r\n", beginning.len()).as_bytes());
        out.extend_from_slice(beginning);
    } else if items.contains("BODY.PEEK[]") {
        out.extend_from_slice(format!(" BODY[] {{{}}}\r\n", mail.body.len()).as_bytes());
        out.extend_from_slice(&mail.body);
    }
    out.extend_from_slice(b")\r\n");
}

pub(super) fn in_set(set: Option<&str>, uid: u32, mails: &[Mail]) -> bool {
    let last = || mails.iter().map(|m| m.uid).max().unwrap_or(0);
    let number = |text: &str| text.parse().unwrap_or_else(|_| last());
    set.unwrap_or_default().split(',').any(|range| {
        let (a, b) = range.split_once(':').unwrap_or((range, range));
        let (a, b) = (number(a), number(b));
        (a.min(b)..=a.max(b)).contains(&uid)
    })
}
