//! Which mailboxes fail and why, as text: one entry for each problem. Pure.

use std::fmt::Write as _;

use super::{
    mailbox_view::{MailboxView, is_failing},
    status_text::{Detail, migration_name},
};
use crate::{
    api::{MailMigration, common::LastError, mailbox_sync::SyncPhase},
    terminal_text::{format_count, format_duration, printable},
};

/// The most names in a line.
const MAX_NAMES: usize = 10;

/// The mailboxes of a migration that fail, by problem, those of the most mailboxes first.
#[must_use]
pub(crate) fn failed_text(migration: &MailMigration, mailboxes: &[MailboxView], detail: Detail) -> String {
    let failing: Vec<&MailboxView> = mailboxes.iter().filter(|view| is_failing(view.phase)).collect();
    let name = migration_name(migration);
    let all = format_count(mailboxes.len() as u64, "mailbox");
    if failing.is_empty() {
        return format!("{name}: none of {all} fails\n");
    }
    let mut text = format!("{name}: {} of {all} failing\n", failing.len());
    let mut problems: Vec<(String, &MailboxView, Vec<&MailboxView>)> = Vec::new();
    for view in failing {
        let what = problem(view);
        match problems.iter_mut().find(|(known, ..)| *known == what) {
            Some((_, _, of_problem)) => of_problem.push(view),
            None => problems.push((what, view, vec![view])),
        }
    }
    problems.sort_by_key(|(.., of_problem)| std::cmp::Reverse(of_problem.len()));
    for (what, first, of_problem) in problems {
        // A String takes every write.
        let _ = writeln!(text, "  {}", printable(&what));
        if let Some(advice) = first.error.as_ref().and_then(|error| error.advice.as_deref()) {
            let _ = writeln!(text, "    {}", printable(advice));
        }
        for phase in [SyncPhase::Failed, SyncPhase::Stalled, SyncPhase::Backoff] {
            let names: Vec<&MailboxView> = of_problem.iter().copied().filter(|view| view.phase == phase).collect();
            if !names.is_empty() {
                let _ = writeln!(text, "    {}", printable(&names_line(phase, &names, detail)));
            }
        }
    }
    text
}

/// What fails, in a line: the same for all mailboxes that have the same problem.
fn problem(view: &MailboxView) -> String {
    let Some(LastError { class, side, host, folder, message, .. }) = &view.error else { return view.wait.clone() };
    let mut text = class.to_string();
    if let Some(side) = side {
        let _ = write!(text, " at the {side}");
    }
    if let Some(host) = host {
        let _ = write!(text, " {host}");
    }
    if let Some(folder) = folder {
        let _ = write!(text, ", folder {folder}");
    }
    text + ": " + message
}

fn names_line(phase: SyncPhase, of_phase: &[&MailboxView], detail: Detail) -> String {
    let most = if detail == Detail::Grouped { MAX_NAMES } else { of_phase.len() };
    let mut names: Vec<String> = of_phase.iter().take(most).map(|view| view.mailbox.clone()).collect();
    if let more @ 1.. = of_phase.len().saturating_sub(most) {
        names.push(format!("and {more} more"));
    }
    let next = of_phase.iter().filter_map(|view| view.next_in).min();
    let next = next.map(|length| format!(", next attempt in {}", format_duration(length))).unwrap_or_default();
    format!("{phase:?}{next}: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kubectl::mailbox_view::testing::{NOW, condition, status, view};

    fn fails(mailbox: &str, phase: &str, next: Option<&str>, error: &Value) -> MailboxView {
        let ready = condition("Ready", "False", phase, "it fails");
        view(mailbox, &json!({"phase": phase, "conditions": [ready], "lastError": error, "nextAttemptAt": next}))
    }

    fn migration() -> MailMigration {
        serde_json::from_value(json!({
            "apiVersion": "mailferry.io/v1alpha1", "kind": "MailMigration",
            "metadata": {"name": "acme", "namespace": "customers"}, "spec": {"source": {}, "destination": {}},
        }))
        .unwrap()
    }

    #[test]
    fn one_problem_of_many_mailboxes_is_told_once() {
        let login = json!({
            "class": "Authentication", "side": "Source", "host": "old.example:993", "at": NOW,
            "message": "the server refused the login", "advice": "Check user name and password",
        });
        let lost =
            json!({"class": "Network", "side": "Destination", "host": "new.example:993", "message": "connection lost"});
        let mut views: Vec<_> = (1..=12).map(|n| fails(&format!("user{n}"), "Stalled", None, &login)).collect();
        views.push(fails("lost", "Backoff", Some("2026-03-01T12:04:00Z"), &lost));
        views.push(fails("lost2", "Failed", None, &lost));
        views.push(view("done", &status("Synced", "Synced", "everything is at the destination")));
        insta::assert_snapshot!(failed_text(&migration(), &views, Detail::Grouped), @r"
        customers/acme: 14 of 15 mailboxes failing
          Authentication at the source old.example:993: the server refused the login
            Check user name and password
            Stalled: user1, user2, user3, user4, user5, user6, user7, user8, user9, user10, and 2 more
          Network at the destination new.example:993: connection lost
            Failed: lost2
            Backoff, next attempt in 4m00s: lost
        ");
        assert!(failed_text(&migration(), &views, Detail::EachMailbox).contains("user11, user12\n"));
    }

    #[test]
    fn where_nothing_fails_that_is_said() {
        let one = [view("done", &status("Synced", "Synced", "everything is at the destination"))];
        assert_eq!(failed_text(&migration(), &one, Detail::Grouped), "customers/acme: none of 1 mailbox fails\n");
    }
}
