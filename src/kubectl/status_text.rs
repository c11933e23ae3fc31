//! How migrations and their mailboxes stand, as text. Pure.

use std::{collections::BTreeMap, fmt::Write as _};

use super::mailbox_view::MailboxView;
use crate::{
    api::{MailMigration, mailbox_sync::SyncPhase},
    terminal_text::{format_count, format_table, printable},
};

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Mailboxes that are done are counted only, and those that wait for the same share a line.
    Grouped,
    /// A line for each mailbox.
    EachMailbox,
}

/// From this number on, mailboxes that wait for the same share a line.
const MANY: usize = 6;
/// The most lines of one phase.
const MAX_LINES: usize = 30;

/// The order in which phases are shown: what needs a person first.
const ORDER: [SyncPhase; 9] = [
    SyncPhase::Failed,
    SyncPhase::Stalled,
    SyncPhase::Backoff,
    SyncPhase::Running,
    SyncPhase::Queued,
    SyncPhase::Pending,
    SyncPhase::Suspended,
    SyncPhase::Synced,
    SyncPhase::Cancelled,
];

/// Conditions that are told while they are true. `Accepted` is told while it is false.
const TOLD: [&str; 9] = [
    "Failed",
    "RemovalPending",
    "PodsRefused",
    "MailboxesRefused",
    "MailboxLimitReached",
    "MailboxNamesTaken",
    "ServerChanged",
    "Outdated",
    "DeprecatedFields",
];

/// A migration with its mailboxes.
#[must_use]
pub(crate) fn status_text(migration: &MailMigration, mailboxes: &[MailboxView], detail: Detail) -> String {
    let mut text = printable(&head(migration)).into_owned() + "\n";
    for condition in migration.status.iter().flat_map(|status| &status.conditions) {
        let told = TOLD.contains(&condition.type_.as_str()) && condition.status == "True"
            || condition.type_ == "Accepted" && condition.status == "False";
        if told {
            // A String takes every write.
            let _ = writeln!(text, "  {}: {}", condition.type_, printable(&condition.message));
        }
    }
    for phase in ORDER {
        let shown = |view: &&MailboxView| view.phase == phase && (detail == Detail::EachMailbox || !view.at_rest);
        let of_phase: Vec<&MailboxView> = mailboxes.iter().filter(shown).collect();
        if !of_phase.is_empty() {
            let _ = writeln!(text, "  {phase:?}");
            text.push_str(&lines(&of_phase, detail));
        }
    }
    text
}

fn head(migration: &MailMigration) -> String {
    let name = migration_name(migration);
    let Some(status) = &migration.status else { return format!("{name}: the operator has not looked at it yet") };
    let phase = status.phase.map_or_else(|| "not looked at yet".to_owned(), |phase| format!("{phase:?}"));
    let mut parts = vec![format!("{name}: {phase}")];
    if let Some(counts) = &status.mailboxes {
        let total = format_count(u64::try_from(counts.total).unwrap_or(0), "mailbox");
        parts.push(format!("{} of {total} synced", counts.synced));
        if counts.failing > 0 {
            parts.push(format!("{} failing", counts.failing));
        }
    }
    parts.extend(status.progress.iter().map(|progress| format!("{progress} done")));
    parts.extend(status.rate.clone());
    parts.extend(status.forecast.iter().map(|forecast| format!("left: {}", forecast.text)));
    parts.join(", ")
}

/// Namespace and name.
#[must_use]
pub(crate) fn migration_name(migration: &MailMigration) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&migration.metadata.namespace), part(&migration.metadata.name))
}

/// The mailboxes of one phase, as a table.
fn lines(mailboxes: &[&MailboxView], detail: Detail) -> String {
    let row = |name: &str, wait: &str| vec![printable(name).into_owned(), printable(wait).into_owned()];
    let mut by_wait: BTreeMap<&str, Vec<&MailboxView>> = BTreeMap::new();
    for view in mailboxes {
        by_wait.entry(&view.wait).or_default().push(view);
    }
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut single: Vec<&MailboxView> = Vec::new();
    for (wait, group) in by_wait {
        if group.len() >= MANY && detail == Detail::Grouped {
            rows.push(row(&format_count(group.len() as u64, "mailbox"), wait));
        } else {
            single.extend(group);
        }
    }
    single.sort_by(|a, b| a.mailbox.cmp(&b.mailbox));
    let most = if detail == Detail::Grouped { MAX_LINES.saturating_sub(rows.len()) } else { single.len() };
    rows.extend(single.iter().take(most).map(|view| row(&view.mailbox, &view.wait)));
    let mut text: String = format_table(&rows, "    ", None).into_iter().map(|line| line + "\n").collect();
    if let more @ 1.. = single.len().saturating_sub(most) {
        let _ = writeln!(text, "    and {more} more: --mailboxes shows each");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kubectl::mailbox_view::testing::{condition, status, view};

    fn migration() -> MailMigration {
        let status = json!({
            "phase": "Running", "mailboxes": {"total": 12, "synced": 2, "failing": 1}, "progress": "42%",
            "rate": "12 MiB/s", "forecast": {"text": "20 GiB: about 29 minutes at 12 MiB/s", "mailboxesLeft": 10},
            "conditions": [
                condition("Accepted", "True", "Accepted", "x"),
                condition("RemovalPending", "True", "RemovalPending", "3 mailboxes left the list\u{1b}[2J"),
            ],
        });
        serde_json::from_value(json!({
            "apiVersion": "mailferry.io/v1alpha1", "kind": "MailMigration",
            "metadata": {"name": "acme", "namespace": "customers"},
            "spec": {"source": {}, "destination": {}}, "status": status,
        }))
        .unwrap()
    }

    fn mailboxes() -> Vec<MailboxView> {
        let turn = status("Queued", "Queued", "waiting for its turn");
        let mut views: Vec<_> = (1..=6).map(|number| view(&format!("queued{number}"), &turn)).collect();
        views.extend([
            view("done", &status("Synced", "Synced", "everything is at the destination")),
            view("walter", &status("Queued", "Queued", "waiting for the destination account: another sync uses it")),
            view(
                "bob",
                &status("Stalled", "Stalled", "Authentication: the server refused the login. Correct the Secret"),
            ),
            view("alice", &status("Running", "Running", "an attempt runs")),
        ]);
        views
    }

    #[test]
    fn problems_come_first_and_who_waits_for_the_same_shares_a_line() {
        insta::assert_snapshot!(status_text(&migration(), &mailboxes(), Detail::Grouped), @r"
        customers/acme: Running, 2 of 12 mailboxes synced, 1 failing, 42% done, 12 MiB/s, left: 20 GiB: about 29 minutes at 12 MiB/s
          RemovalPending: 3 mailboxes left the list\u{1b}[2J
          Stalled
            bob  Authentication: the server refused the login. Correct the Secret
          Running
            alice  an attempt runs
          Queued
            6 mailboxes  waiting for its turn
            walter       waiting for the destination account: another sync uses it
        ");
    }

    #[test]
    fn each_mailbox_has_a_line_where_that_is_asked_for() {
        let text = status_text(&migration(), &mailboxes(), Detail::EachMailbox);
        for view in mailboxes() {
            assert!(text.contains(&format!("\n    {}  ", view.mailbox)), "{text}");
        }
    }

    #[test]
    fn a_screen_is_not_flooded_by_mailboxes_that_each_wait_for_something_else() {
        let each = |number| view(&format!("m{number:03}"), &status("Running", "Running", &format!("doing {number}")));
        let many: Vec<_> = (0..100).map(each).collect();
        let text = status_text(&migration(), &many, Detail::Grouped);
        assert!(text.ends_with("    m029  doing 29\n    and 70 more: --mailboxes shows each\n"), "{text}");
        assert_eq!(status_text(&migration(), &many, Detail::EachMailbox).lines().count(), 103);
    }
}
