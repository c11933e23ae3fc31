//! A check's findings for people.

use std::time::Duration;

use jiff::Timestamp;

use super::{CheckedMapping, MailboxCheck, SideFindings, days_left, gravest_class, work_ahead};
use crate::{
    error::Side,
    forecast::{KnownRates, forecast_text, time_left},
    imap::certificate::Certificate,
    local::{
        report_text::{ReportText, error_of_mailbox},
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

/// Everything that was found about one mailbox.
#[must_use]
pub(crate) fn mailbox(check: &MailboxCheck, now: Timestamp) -> String {
    let mut text = ReportText::with_head(&line(check));
    for (side, found) in [(Side::Source, &check.source), (Side::Destination, &check.destination)] {
        if let Some(found) = found {
            write_account(&mut text, side, found, now);
        }
    }
    if let Some(mapping) = &check.mapping {
        write_folders(&mut text, mapping);
        text.section("Folders left out", mapping.left_out.iter().map(folder_left_out));
        text.section("Notes on folders", &mapping.notes);
    }
    let warning = |warning: &super::CheckWarning| match warning.side {
        Some(side) => format!("{side}: {}", warning.what),
        None => warning.what.clone(),
    };
    text.section("Warnings", check.warnings.iter().map(warning));
    text.section("Problems", check.problems.iter().map(error_of_mailbox));
    text.into_string()
}

/// How many mailboxes are ready, and the problems again, since the findings may fill many screens.
#[must_use]
pub(crate) fn summary(
    checks: &[MailboxCheck],
    took: Duration,
    rates: &KnownRates,
    windows: &[ServerWindows],
) -> String {
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let ready = checks.iter().filter(|check| check.problems.is_empty()).count();
    let mut text = ReportText::with_head(&format!(
        "{}: {ready} ready, {} with problems, in {}.",
        format_count(number(checks.len()), "mailbox"),
        checks.len() - ready,
        format_duration(took)
    ));
    for problem in checks.iter().flat_map(|check| &check.problems) {
        text.entry(&problem.to_string());
    }
    let work = work_ahead(checks);
    if work.mailboxes > 0 {
        text.entry(&format!("to be copied: {}", forecast_text(&work, &time_left(&work, rates))));
    }
    for server in windows {
        text.entry(&server.line());
    }
    let verdict = if gravest_class(checks).is_none() { "Nothing speaks against `mailferry run`.\n" } else { "" };
    text.into_string() + verdict
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
