//! A check's findings for people.

use std::time::Duration;

use jiff::Timestamp;

use super::{CheckWarning, CheckedMapping, MailboxCheck, SideFindings, days_left, gravest_class, work_ahead};
use crate::{
    error::Side,
    forecast::{KnownRates, forecast_text, time_left},
    imap::certificate::Certificate,
    local::{
        problems::{Problems, grouped_remarks},
        report_text::{Meaning, ReportDetail, ReportText, TextLayout},
        run_report::folder_left_out,
        window_watch::ServerWindows,
    },
    terminal_text::{format_bytes, format_count, format_duration, printable},
};

/// Folders beyond this many are counted, not listed.
const LISTED_FOLDERS: usize = 200;

/// One line: whether a run can start, and why not.
#[must_use]
pub(crate) fn line(check: &MailboxCheck) -> String {
    let number = |list: usize, what: &str| format_count(u64::try_from(list).unwrap_or(u64::MAX), what);
    let said = match (check.problems.len(), check.warnings.len()) {
        (0, 0) => "ready".to_owned(),
        (0, warnings) => format!("ready, with {}", number(warnings, "warning")),
        (problems, 0) => number(problems, "problem"),
        (problems, warnings) => format!("{}, {}", number(problems, "problem"), number(warnings, "warning")),
    };
    format!("{}: {said}", printable(&check.mailbox))
}

/// The findings about all mailboxes: problems first, warnings, each mailbox or those that have either, the sum as the last
/// line.
#[must_use]
pub(crate) fn report(
    checks: &[MailboxCheck],
    (now, took): (Timestamp, Duration),
    (rates, windows): (&KnownRates, &[ServerWindows]),
    layout: TextLayout,
) -> String {
    let mut text = ReportText::new(layout);
    if layout.detail != ReportDetail::LastLine {
        write_problems(&mut text, checks);
        if layout.has_blocks(checks.len()) {
            for check in checks {
                write_block(&mut text, check, now);
            }
        }
    }
    if layout.detail != ReportDetail::LastLine && !windows.is_empty() {
        for server in windows {
            text.head(&server.line(), Meaning::Plain);
        }
        text.gap();
    }
    let bad = gravest_class(checks).is_some();
    text.head(&summary(checks, took, rates), if bad { Meaning::Bad } else { Meaning::Good });
    text.into_string()
}

/// The findings about one mailbox, problems first.
#[must_use]
pub(crate) fn mailbox(check: &MailboxCheck, now: Timestamp, layout: TextLayout) -> String {
    let mut text = ReportText::new(layout);
    write_problems(&mut text, std::slice::from_ref(check));
    write_block(&mut text, check, now);
    text.into_string()
}

/// Each distinct problem and warning once.
fn write_problems(text: &mut ReportText, checks: &[MailboxCheck]) {
    let mut problems = Problems::default();
    for check in checks {
        for problem in &check.problems {
            problems.add(&check.mailbox, problem);
        }
    }
    text.chapter(&format!("Problems ({})", problems.len()), Meaning::Bad, &problems.lines(checks.len()));
    let said = |warning: &CheckWarning| match warning.side {
        Some(side) => format!("{side}: {}", warning.what),
        None => warning.what.clone(),
    };
    let warnings = checks
        .iter()
        .flat_map(|check| check.warnings.iter().map(move |warning| (check.mailbox.as_str(), said(warning))));
    text.chapter("Warnings", Meaning::Look, &grouped_remarks(warnings, checks.len()));
}

/// Everything that was found about one mailbox, but for its problems and warnings.
fn write_block(text: &mut ReportText, check: &MailboxCheck, now: Timestamp) {
    let meaning = match (check.problems.is_empty(), check.warnings.is_empty()) {
        (false, _) => Meaning::Bad,
        (true, false) => Meaning::Look,
        (true, true) => Meaning::Good,
    };
    text.head(&line(check), meaning);
    for (side, found) in [(Side::Source, &check.source), (Side::Destination, &check.destination)] {
        if let Some(found) = found {
            write_account(text, side, found, now);
        }
    }
    if let Some(mapping) = &check.mapping {
        write_folders(text, mapping);
        text.section("Folders left out", mapping.left_out.iter().map(folder_left_out));
        text.section("Notes on folders", &mapping.notes);
    }
    text.gap();
}

/// How many mailboxes are ready, and what a run would copy.
fn summary(checks: &[MailboxCheck], took: Duration, rates: &KnownRates) -> String {
    let ready = checks.iter().filter(|check| check.problems.is_empty()).count();
    let mailboxes = format_count(u64::try_from(checks.len()).unwrap_or(u64::MAX), "mailbox");
    let wrong = checks.len() - ready;
    let problems = if wrong == 0 { String::new() } else { format!(", {wrong} with problems") };
    let work = work_ahead(checks);
    let ahead = match work.mailboxes {
        0 => String::new(),
        _ => format!(" To be copied: {}.", forecast_text(&work, &time_left(&work, rates))),
    };
    format!("{mailboxes}: {ready} ready{problems}, checked in {}.{ahead}", format_duration(took))
}

fn write_account(text: &mut ReportText, side: Side, found: &SideFindings, now: Timestamp) {
    let peer = found.peer.map(|peer| format!(" ({})", peer.ip())).unwrap_or_default();
    text.entry(&format!("{side} {}{peer}, {}", found.address, found.username));
    let mut row = |what: &str, said: String| text.detail(&format!("{what:<9}{said}"));
    let server =
        if found.name.is_empty() { found.server.clone() } else { format!("{} ({})", found.server, found.name) };
    row("server", server);
    if let Some(provider) = found.provider {
        row("provider", provider.to_owned());
    }
    row("TLS", found.tls.clone().unwrap_or_else(|| "none".to_owned()));
    if let Some(certificate) = &found.certificate {
        row("", self::certificate(certificate, now));
    }
    let mechanisms = if found.mechanisms.is_empty() { "none".to_owned() } else { found.mechanisms.join(", ") };
    row("login", format!("{} (mechanisms offered: {mechanisms})", found.login));
    if let Some(token) = &found.token {
        row("token", format!("by {token}"));
    }
    let sum = format!("{}, {}", format_count(found.folders, "folder"), format_count(found.messages, "message"));
    row(
        "holds",
        found.bytes.map_or_else(|| format!("{sum}, bytes unknown"), |size| format!("{sum}, {}", format_bytes(size))),
    );
    if let Some(labels) = found.labels {
        let volume = |mail: super::IncomingMail| {
            let bytes = mail.bytes.map(|bytes| format!(", {}", format_bytes(bytes))).unwrap_or_default();
            format!("{}{bytes}", format_count(mail.messages, "message"))
        };
        let (folders, once) = (volume(labels.folders), volume(labels.once));
        row("labels", format!("{folders} as its folders show them, {once} each once"));
    }
    if let Some(room) = found.storage {
        row(
            "quota",
            format!(
                "{} of {} used, {} free",
                format_bytes(room.used),
                format_bytes(room.limit),
                format_bytes(room.free())
            ),
        );
    }
    if let Some(room) = found.message_room {
        row("quota", format!("{} of {} messages used, {} free", room.used, room.limit, room.free()));
    }
    if let Some(limit) = found.append_limit {
        row("takes", format!("messages of up to {}", format_bytes(limit)));
    }
    row("offers", if found.offers.is_empty() { "nothing that helps".to_owned() } else { found.offers.join(", ") });
    for lack in &found.lacks {
        row("lacks", format!("{}: {}", lack.extension, lack.cost));
    }
}

fn certificate(certificate: &Certificate, now: Timestamp) -> String {
    let until = Timestamp::from_second(certificate.not_after)
        .map_or_else(|_| "an unknown day".to_owned(), |time| time.strftime("%F").to_string());
    let left = days_left(certificate, now);
    let left = if left < 0 { "expired".to_owned() } else { format_count(left.unsigned_abs(), "day") };
    let names = if certificate.names.is_empty() { "no names".to_owned() } else { certificate.names.join(", ") };
    let (subject, issuer) = (&certificate.subject, &certificate.issuer);
    format!("certificate of {subject} by {issuer}, for {names}, until {until} ({left})")
}

fn write_folders(text: &mut ReportText, mapping: &CheckedMapping) {
    let head = ["folder", "messages", "bytes", "at the destination"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(mapping.folders.iter().take(LISTED_FOLDERS).map(|folder| {
        let state = match (folder.container, folder.exists) {
            (true, _) => " (holds no messages)",
            (false, true) => " (exists)",
            (false, false) => " (will be made)",
        };
        let destination = format!("{}{state}", folder.destination);
        let unknown = || "?".to_owned();
        let (messages, size) = if folder.container {
            (String::new(), String::new())
        } else {
            (folder.messages.map_or_else(unknown, |n| n.to_string()), folder.bytes.map_or_else(unknown, format_bytes))
        };
        vec![printable(&folder.source).into_owned(), messages, size, printable(&destination).into_owned()]
    }));
    text.entry("folders");
    text.detail_table(&rows);
    let unlisted = mapping.folders.len().saturating_sub(LISTED_FOLDERS);
    if unlisted > 0 {
        text.detail(&format!("and {unlisted} more"));
    }
}
