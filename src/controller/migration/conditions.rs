//! A migration's phase and conditions: what kstatus, `kubectl wait`, `GitOps` tools and people read. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::aggregate::MailboxAggregate;
use crate::{
    api::{
        MailMigration, MailMigrationStatus, deprecated,
        mail_migration::{MigrationPhase, PendingRemoval},
    },
    controller::{
        all_copied::{self, ALL_COPIED, CopiedVerdict},
        condition::ConditionList,
        mailbox::conditions::{DELETIONS_HELD, OUTDATED},
    },
    error::Error,
};

/// The reasons for which a migration is refused only for now: what it names may come with the next apply.
const RECOVERABLE_REASONS: [&str; 3] = ["ServerNotFound", "MailboxSecretNotFound", "MailboxConfigMapNotFound"];

/// The facts that a migration's phase and conditions are made from.
#[derive(Debug, Clone)]
pub struct MigrationFacts<'a> {
    /// Why it can't be carried out as it is written, with a condition's reason.
    pub refused: Option<(&'static str, &'a Error)>,
    /// MailboxSyncs that are still to be made, changed or removed, if any.
    pub pending: usize,
    /// All its mailboxes, summed up.
    pub aggregate: &'a MailboxAggregate,
    /// Mailboxes that wait for `confirmRemoval`.
    pub removal: Option<&'a PendingRemoval>,
    /// Why pods are refused in its namespace.
    pub pods_refused: Option<String>,
    /// What else the API server refuses, with a condition's reason.
    pub writes_refused: Option<(&'static str, String)>,
    /// Why some mailboxes are above the limit of the namespace.
    pub over_limit: Option<String>,
    /// Which server is another one now than the migration began with, and is not used.
    pub server_change: Option<String>,
    /// Why some mailboxes have no MailboxSync, though something of its name is there.
    pub names_taken: Option<String>,
    /// The operator's clock.
    pub now: Timestamp,
}

/// The phase: a migration that has ended is Complete or Failed whatever else holds, and one that is refused goes on with the
/// mailboxes that it has started.
#[must_use]
pub fn migration_phase(
    migration: &MailMigration,
    status: &MailMigrationStatus,
    facts: &MigrationFacts<'_>,
) -> MigrationPhase {
    let counts = &facts.aggregate.counts;
    let settled = facts.refused.is_none() && facts.pending == 0 && counts.total > 0;
    if settled && facts.aggregate.ended == counts.total {
        return if counts.failed > 0 { MigrationPhase::Failed } else { MigrationPhase::Complete };
    }
    if migration.spec.suspend {
        return MigrationPhase::Suspended;
    }
    if facts.refused.is_some() && !facts.aggregate.started {
        return MigrationPhase::Pending;
    }
    if settled
        && counts.stalled > 0
        && counts.stalled + facts.aggregate.ended == counts.total
        && facts.aggregate.stalled_need_person
    {
        return MigrationPhase::Stalled;
    }
    if migration.spec.start_at.as_ref().is_some_and(|at| at.0 > facts.now) && !facts.aggregate.started {
        return MigrationPhase::Pending;
    }
    if status.cutover_at.as_ref().is_some_and(|at| at.0 <= facts.now) && facts.aggregate.started {
        return MigrationPhase::Draining;
    }
    if facts.aggregate.started || counts.total > 0 { MigrationPhase::Running } else { MigrationPhase::Pending }
}

/// Whether all of it is copied, as far as its mailboxes have told.
#[must_use]
pub(crate) fn copied_verdict(migration: &MailMigration, facts: &MigrationFacts<'_>) -> CopiedVerdict {
    let (all, total) = (facts.aggregate, facts.aggregate.counts.total);
    let known = all.totals.not_copied.as_ref();
    if migration.spec.dry_run {
        CopiedVerdict::Unknown("a dry run copies nothing".to_owned())
    } else if let Some(not_copied) = known.filter(|not_copied| not_copied.messages > 0) {
        CopiedVerdict::Missing(not_copied.clone())
    } else if total == 0 || facts.pending > 0 || all.copied < total {
        CopiedVerdict::Unknown(format!("{} of {total} mailboxes are known to be copied as a whole", all.copied))
    } else {
        CopiedVerdict::Copied(known.map_or(0, all_copied::accepted_count))
    }
}

/// The conditions that go with a phase, made from those before (`old`).
#[must_use]
pub fn conditions(
    migration: &MailMigration,
    old: Vec<Condition>,
    phase: MigrationPhase,
    facts: &MigrationFacts<'_>,
) -> Vec<Condition> {
    let generation = migration.metadata.generation.unwrap_or_default();
    let now = Time(facts.now);
    let counts = &facts.aggregate.counts;
    let verdict = copied_verdict(migration, facts);
    let (copied, reason_copied, message_copied) = verdict.condition_parts();
    let mut list = ConditionList::new(old, generation, now);
    let mut say = |type_: &str, status: Option<bool>, reason: &str, message: &str| match status {
        Some(status) => list.set(type_, if status { "True" } else { "False" }, reason, message),
        None => list.remove(type_),
    };
    let refusal = facts.refused.map(|(reason, error)| (reason, refusal_message(error)));
    match &refusal {
        Some((reason, message)) => say("Accepted", Some(false), reason, message),
        None => say("Accepted", Some(true), "Accepted", "the migration can be carried out as it is written"),
    }
    let done = format!("{} of {} mailboxes are synced", counts.synced, counts.total);
    let (ready, reason, message) = match (phase, refusal) {
        (_, Some((reason, message))) => (false, reason, message),
        (MigrationPhase::Failed, None) => {
            (false, "Failed", format!("all mailboxes have ended, {} of {} failed", counts.failed, counts.total))
        }
        (MigrationPhase::Stalled, None) => (false, "Stalled", stalled_message(facts)),
        (MigrationPhase::Complete, None) if facts.aggregate.outdated > 0 => {
            (true, "Complete", format!("{done}; {} were changed after that", facts.aggregate.outdated))
        }
        (MigrationPhase::Complete, None) => (true, "Complete", done.clone()),
        (MigrationPhase::Suspended, None) => (true, "Suspended", format!("suspended; {done}")),
        (MigrationPhase::Pending, None) if facts.pending == 0 && counts.total == 0 => {
            (true, "Pending", "there are no mailboxes yet: the CSVs list none".to_owned())
        }
        (MigrationPhase::Pending, None) => (true, "Pending", "waiting to start".to_owned()),
        (MigrationPhase::Draining, None) => {
            (true, "Draining", format!("delivery has moved, delta syncs go on; {done}"))
        }
        (MigrationPhase::Running, None) => (true, "Progressing", done.clone()),
    };
    say("Ready", Some(ready), reason, &message);
    let all_copied = matches!(verdict, CopiedVerdict::Copied(_));
    if phase == MigrationPhase::Complete && !all_copied {
        say("Complete", Some(true), "CompleteNotAllCopied", &format!("{done}; {message_copied}"));
    } else {
        say("Complete", Some(phase == MigrationPhase::Complete), reason, &done);
    }
    say("Failed", (phase == MigrationPhase::Failed).then_some(true), reason, &message);
    // kstatus: Failed with Stalled, InProgress with Reconciling or without Ready; so never two of them.
    let wrong = facts.refused.is_some_and(|(reason, _)| !RECOVERABLE_REASONS.contains(&reason));
    let stalled = wrong || matches!(phase, MigrationPhase::Stalled | MigrationPhase::Failed);
    say("Stalled", stalled.then_some(true), reason, &message);
    let rolling = format!("{} MailboxSyncs are still to be made, changed or removed", facts.pending);
    say("Reconciling", (facts.pending > 0 && !stalled).then_some(true), "Expanding", &rolling);
    let failing = format!("{} of {} mailboxes fail; status.failures shows some of them", counts.failing, counts.total);
    say("MailboxesFailing", (counts.failing > 0).then_some(true), "MailboxesFailing", &failing);
    let removal = facts.removal.map(|removal| {
        let PendingRemoval { count, token, .. } = removal;
        let mailboxes = if *count == 1 { "mailbox" } else { "mailboxes" };
        format!("{count} {mailboxes} left the list at once: to remove them from the migration (never their mail), set spec.confirmRemoval to {token}; else list them again")
    });
    say(
        "RemovalPending",
        removal.is_some().then_some(true),
        "ConfirmationNeeded",
        removal.as_deref().unwrap_or_default(),
    );
    let held = format!(
        "{} of {} mailboxes have copies that were not deleted, as so many messages vanished from the source at once: {}. To \
         have them deleted, add their tokens to spec.confirmDeletions",
        facts.aggregate.deletions_held,
        counts.total,
        facts.aggregate.held_deletions.join("; ")
    );
    say(DELETIONS_HELD, (facts.aggregate.deletions_held > 0).then_some(true), "ConfirmationNeeded", &held);
    let refused = facts.pods_refused.as_deref().unwrap_or_default();
    say("PodsRefused", (!refused.is_empty()).then_some(true), "Forbidden", refused);
    let (reason, refused) = facts.writes_refused.as_ref().map_or(("", ""), |(reason, text)| (*reason, text.as_str()));
    say("MailboxesRefused", (!refused.is_empty()).then_some(true), reason, refused);
    let over_limit = facts.over_limit.as_deref().unwrap_or_default();
    say("MailboxLimitReached", (!over_limit.is_empty()).then_some(true), "NamespaceLimit", over_limit);
    let change = facts.server_change.as_deref().unwrap_or_default();
    say("ServerChanged", (!change.is_empty()).then_some(true), "MigrationStarted", change);
    let outdated = format!(
        "{} of {} mailboxes were changed after their last sync, and no other one is planned: what was synced stays as it is. \
         Another text in spec.syncRequest has every mailbox synced once more, by what is written now",
        facts.aggregate.outdated, counts.total
    );
    say(OUTDATED, (facts.aggregate.outdated > 0).then_some(true), "ChangedAfterSync", &outdated);
    let names_taken = facts.names_taken.as_deref().unwrap_or_default();
    say("MailboxNamesTaken", (!names_taken.is_empty()).then_some(true), "NameTaken", names_taken);
    let deprecated = deprecated_notice(migration);
    say("DeprecatedFields", (!deprecated.is_empty()).then_some(true), "Renamed", &deprecated);
    list.set(ALL_COPIED, copied, reason_copied, &message_copied);
    list.into_conditions()
}

fn deprecated_notice(migration: &MailMigration) -> String {
    let fields = deprecated::in_cluster(&migration.spec).into_iter();
    fields.map(|field| format!("{}: {}", field.path, field.message)).collect::<Vec<_>>().join("; ")
}

fn stalled_message(facts: &MigrationFacts<'_>) -> String {
    let first = facts.aggregate.failures.first();
    let example =
        first.map_or_else(String::new, |f| format!("; {}: {}: {}", f.mailbox, f.error.class, f.error.message));
    format!("{} mailboxes wait for a person{example}", facts.aggregate.counts.stalled)
}

fn refusal_message(error: &Error) -> String {
    match &error.advice {
        Some(advice) => format!("{}. {advice}", error.what),
        None => error.what.clone(),
    }
}
