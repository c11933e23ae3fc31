//! One migration: expand, bring its MailboxSyncs closer, sum up, write.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{events::EventType, reflector::ObjectRef},
};

use super::{
    aggregate::aggregate,
    child_sync::{CSV_PERIOD, referenced_server, sync_children},
    conditions::{MigrationFacts, conditions, migration_phase},
    memory::MigrationMemory,
    refused_writes::WriteRefusal,
    work_left::rates_within_limits,
};
use crate::{
    api::{EndpointSpec, MailMigration, MailMigrationStatus, MailServerSpec, validate},
    controller::{
        all_copied,
        config::SecretAccess,
        context::ControllerContext,
        error::ReconcileError,
        events::EventNote,
        mailbox::{slot_request::too_few_connections, time_windows::never_open},
        merge_patch, owner_reference,
    },
    error::Error,
};

/// How often progress is written at most.
const PROGRESS_PERIOD: Duration = Duration::from_secs(10);
/// How soon what has to wait is tried again.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Looks after one migration; gives after how long it has to be looked at again, though nothing changes.
///
/// # Errors
/// When the API server refused, or did not answer: it is tried again.
pub(crate) async fn reconcile(
    migration: Arc<MailMigration>,
    context: Arc<ControllerContext>,
) -> Result<Option<Duration>, ReconcileError> {
    let Some(uid) = migration.uid() else { return Ok(None) };
    if migration.metadata.deletion_timestamp.is_some() || context.written.is_stale(&*migration) {
        return Ok(None);
    }
    // Taken out and put back: one migration is looked at by one task at a time.
    let mut memory = context.migration_memories.take(&uid);
    let result = reconcile_with_memory(&migration, &context, &mut memory).await;
    context.migration_memories.put_back(uid, memory);
    result
}

async fn reconcile_with_memory(
    migration: &MailMigration,
    context: &ControllerContext,
    memory: &mut MigrationMemory,
) -> Result<Option<Duration>, ReconcileError> {
    let now = Timestamp::now();
    let mut status = migration.status.clone().unwrap_or_default();
    if let Some(cutover) = &migration.spec.cutover {
        status.cutover_at = cutover.at.clone().or(status.cutover_at).or(Some(Time(now)));
    } else {
        status.cutover_at = None;
    }
    let mut refused = refusal_reason(migration, context);
    if refused.is_none() {
        if let Err(error) = sync_children(migration, context, memory, status.cutover_at.as_ref()).await {
            // How many there are may not be known yet.
            memory.left = memory.left.max(1);
            let refusal = WriteRefusal::from_reconcile_error("", &error).ok_or(error)?;
            memory.events.extend(memory.refused.record_refusal(refusal, Instant::now()));
        }
        refused = memory.csv_statuses.problem();
    }
    let uid = migration.uid().unwrap_or_default();
    let (namespace, name) = (migration.namespace().unwrap_or_default(), migration.name_any());
    let syncs: Vec<_> = context
        .caches
        .syncs_of(&namespace, &name)
        .into_iter()
        .filter(|s| owner_reference::is_controlled_by(&**s, &uid))
        .collect();
    let exists = |name: &str| context.caches.syncs.get(&ObjectRef::new(name).within(&namespace)).is_some();
    let mut unmade = memory.unmade.clone();
    memory.refused.failures(exists).into_iter().for_each(|sample| unmade.add_sample(sample));
    let all = aggregate(syncs.iter(), &unmade, migration.spec.suspend, now);
    let facts = MigrationFacts {
        refused: refused.as_ref().map(|(reason, error)| (*reason, error)),
        pending: memory.left
            + memory.created.len()
            + memory.refused.pending()
            + memory.taken_names.count()
            + memory.pending_removal.as_ref().map_or(0, |pending| usize::try_from(pending.count).unwrap_or(0)),
        aggregate: &all,
        removal: memory.pending_removal.as_ref(),
        pods_refused: context.admission().refusal_message(&namespace).map(str::to_owned),
        writes_refused: memory.refused.condition_parts(),
        over_limit: memory.over_limit.clone(),
        server_change: memory.server_change.clone(),
        names_taken: memory.taken_names.message(),
        now,
    };
    update_status(migration, &mut status, &facts, memory);
    status.sync_request_mailboxes = status.sync_request.as_ref().map(|text| {
        let asked = syncs.iter().filter(|sync| sync.spec.sync_request.as_ref() == Some(text)).count();
        i32::try_from(asked).unwrap_or(i32::MAX)
    });
    let limits = rates_within_limits(&server_specs(migration, context), &context.config);
    status.forecast = all.work.forecast(status.forecast.as_ref(), all.bytes_per_second, limits);
    let mut wait = write_status(migration, context, memory, status).await?;
    context.publish_events(migration, &std::mem::take(&mut memory.events)).await;
    let mut by = |at: Duration| wait = Some(wait.map_or(at, |wait| wait.min(at)));
    let clock = Instant::now();
    if let Some(wait) = memory.refused.wait(clock) {
        by(wait.max(Duration::from_millis(200)));
    }
    if !memory.created.is_empty() {
        by(Duration::from_millis(200));
    } else if memory.left > 0 && !memory.refused.holds_all(clock) {
        by(RETRY_PERIOD);
    }
    let has_csvs = migration.spec.csvs().next().is_some();
    if has_csvs || memory.over_limit.is_some() || memory.taken_names.count() > 0 {
        by(CSV_PERIOD);
    }
    if all.counts.running > 0 {
        by(PROGRESS_PERIOD);
    }
    for at in [&migration.spec.start_at, &migration.spec.cutover.as_ref().and_then(|cutover| cutover.at.clone())]
        .into_iter()
        .flatten()
    {
        if let Ok(left) = Duration::try_from(at.0.duration_since(now)) {
            by(left + Duration::from_secs(1));
        }
    }
    Ok(wait)
}

/// Why a migration can't be carried out as it is written.
fn refusal_reason(migration: &MailMigration, context: &ControllerContext) -> Option<(&'static str, Error)> {
    if let Some(problem) = validate::migration_problems(&migration.spec).into_iter().next() {
        return Some(("Invalid", Error::configuration(format!("{}: {}", problem.path, problem.message))));
    }
    if !migration.spec.mailbox_secrets.is_empty() && context.config.secrets == SecretAccess::LeftOut {
        let what = "spec.mailboxSecrets can't be read: the operator was installed without the right to get, create and \
                    delete Secrets";
        let advice = "List the mailboxes in spec.mailboxes or, without passwords, in spec.mailboxConfigMaps; or ask whoever \
                      runs the operator to give it that right (rbac.secrets in the chart)";
        return Some(("SecretsNotReadable", Error::configuration(what).advice(advice)));
    }
    for (side, endpoint) in [("source", &migration.spec.source), ("destination", &migration.spec.destination)] {
        if let Some(reference) = &endpoint.server_ref
            && referenced_server(context, migration, endpoint).is_none()
        {
            let what = format!("there is no MailServer {}", reference.name);
            let advice = format!("Create it in the migration's namespace, or correct spec.{side}.serverRef");
            return Some(("ServerNotFound", Error::configuration(what).advice(advice)));
        }
    }
    let destination = &migration.spec.destination;
    let servers = server_specs(migration, context);
    let [from, to] = servers.as_slice() else { return None };
    let reference = destination.server_ref.as_ref().map(|reference| reference.name.as_str());
    if let Some(why) = context.config.forbids_destination(&to.host, reference) {
        return Some(("DestinationNotAllowed", why));
    }
    if let Some(why) = never_open([from, to], Timestamp::now()) {
        return Some(("WindowsNeverOpen", why));
    }
    Some(("TooFewConnections", too_few_connections([from, to], &context.config)?))
}

/// The servers of source and destination, as far as they are there.
fn server_specs(migration: &MailMigration, context: &ControllerContext) -> Vec<MailServerSpec> {
    let spec = |endpoint: &EndpointSpec| {
        let referenced = || referenced_server(context, migration, endpoint).map(|server| server.spec.clone());
        endpoint.server.clone().or_else(referenced)
    };
    [&migration.spec.source, &migration.spec.destination].into_iter().filter_map(spec).collect()
}

/// Says all that there is to say.
fn update_status(
    migration: &MailMigration,
    status: &mut MailMigrationStatus,
    facts: &MigrationFacts<'_>,
    memory: &MigrationMemory,
) {
    let all = facts.aggregate;
    let phase = migration_phase(migration, status, facts);
    status.observed_generation = migration.metadata.generation;
    status.conditions = conditions(migration, std::mem::take(&mut status.conditions), phase, facts);
    status.phase = Some(phase);
    if all.started && status.started_at.is_none() {
        status.started_at = Some(Time(facts.now));
    }
    let ended = matches!(
        phase,
        crate::api::mail_migration::MigrationPhase::Complete | crate::api::mail_migration::MigrationPhase::Failed
    );
    status.completed_at = if ended { status.completed_at.take().or(Some(Time(facts.now))) } else { None };
    if memory.has_passed_on_request(migration) {
        status.sync_request.clone_from(&migration.spec.sync_request);
    }
    status.next_sync_at.clone_from(&all.next_sync_at);
    status.mailboxes = Some(all.counts);
    status.totals = Some(all.totals.clone());
    status.progress = all.percent.map(|percent| format!("{percent}%"));
    status.progress_percent = all.percent.and_then(|percent| i32::try_from(percent).ok());
    status.rate = all.rate();
    status.bytes_per_second = Some(all.bytes_per_second).filter(|rate| *rate > 0);
    status.eta.clone_from(&all.eta);
    status.failures.clone_from(&all.failures);
    status.pending_removal.clone_from(&memory.pending_removal);
    status.mailbox_secrets.clone_from(&memory.csv_statuses.secrets);
    status.mailbox_config_maps.clone_from(&memory.csv_statuses.config_maps);
}

/// Writes the status: what people wait for at once, progress now and then; gives how long it has to wait.
async fn write_status(
    migration: &MailMigration,
    context: &ControllerContext,
    memory: &mut MigrationMemory,
    status: MailMigrationStatus,
) -> Result<Option<Duration>, ReconcileError> {
    let old = migration.status.clone().unwrap_or_default();
    let Some(patch) = merge_patch::diff(&old, &status)? else { return Ok(None) };
    let waited_for = |status: &MailMigrationStatus| {
        let conditions: Vec<_> =
            status.conditions.iter().map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone())).collect();
        (
            status.phase,
            conditions,
            status.observed_generation,
            status.started_at.clone(),
            status.pending_removal.clone(),
            status.sync_request.clone(),
        )
    };
    let urgent = waited_for(&old) != waited_for(&status);
    let left = memory.status_written_at.map_or(Duration::ZERO, |at| PROGRESS_PERIOD.saturating_sub(at.elapsed()));
    if !urgent && left > Duration::ZERO {
        return Ok(Some(left));
    }
    let body = serde_json::json!({
        "metadata": {"resourceVersion": migration.resource_version(), "uid": migration.uid()},
        "status": patch,
    });
    let api: Api<MailMigration> = Api::namespaced(context.client.clone(), &migration.namespace().unwrap_or_default());
    let next = api.patch_status(&migration.name_any(), &PatchParams::default(), &Patch::Merge(&body)).await;
    let next = next.map_err(ReconcileError::of_versioned_write)?;
    context.written.record(&next);
    memory.status_written_at = Some(Instant::now());
    if old.phase != status.phase
        && let Some(note) = phase_event(&status)
    {
        context.publish_events(migration, &[note]).await;
    }
    Ok(None)
}

/// The Event for a migration that enters a phase; none for those in which it waits or goes on.
fn phase_event(status: &MailMigrationStatus) -> Option<EventNote> {
    use crate::api::mail_migration::MigrationPhase as Phase;
    let message = status.conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.message.clone()).unwrap_or_default();
    let (severity, reason) = match status.phase? {
        Phase::Pending | Phase::Running => return None,
        Phase::Draining => (EventType::Normal, "Draining"),
        Phase::Suspended => (EventType::Normal, "Suspended"),
        Phase::Stalled => (EventType::Warning, "Stalled"),
        Phase::Complete => (EventType::Normal, "Complete"),
        Phase::Failed => (EventType::Warning, "Failed"),
    };
    let ended = matches!(status.phase, Some(Phase::Complete | Phase::Failed));
    let message = match all_copied::missing_notice(&status.conditions).filter(|_| ended) {
        Some(proviso) => format!("{message}; {proviso}"),
        None => message,
    };
    Some(EventNote { severity, reason, message })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::{
        api::{
            mail_migration::{MigrationPhase, PendingRemoval},
            not_copied::NotCopied,
        },
        controller::migration::{aggregate::MailboxAggregate, child_sync::over_limit_message},
        yaml,
    };

    const MIGRATION: &str = "
metadata: {name: acme, namespace: ns, uid: u1, generation: 1}
spec:
  source: {server: {host: old.example}}
  destination: {server: {host: new.example}}
  mailboxes: []
";

    /// Conditions and Events of a migration of ten mailboxes, one of which is not copied as a whole.
    #[test]
    #[expect(clippy::too_many_lines, reason = "what is compared with is long")]
    fn people_are_told_of_a_migration_in_the_same_words_as_ever() {
        let value: serde_json::Value = yaml::read("m", MIGRATION).unwrap();
        let migration: MailMigration = serde_json::from_value(value).unwrap();
        let mut all = MailboxAggregate { copied: 9, ..MailboxAggregate::default() };
        (all.counts.total, all.counts.synced) = (10, 9);
        let not_copied = NotCopied { messages: 2, reasons: [("refused".to_owned(), 2)].into(), ..NotCopied::default() };
        let error = Error::configuration("there is no MailServer old").advice("Make it");
        let pending = PendingRemoval { count: 7, token: "0123abcd".into(), examples: Vec::new() };
        let mut told = String::new();
        let mut tell = |when: String, phase: MigrationPhase, facts: &MigrationFacts<'_>| {
            let conditions = conditions(&migration, Vec::new(), phase, facts);
            writeln!(told, "{when}").unwrap();
            for c in &conditions {
                writeln!(told, "    {}={} {}: {}", c.type_, c.status, c.reason, c.message).unwrap();
            }
            let status = MailMigrationStatus { phase: Some(phase), conditions, ..MailMigrationStatus::default() };
            if let Some(note) = phase_event(&status) {
                let type_ = if note.severity == EventType::Warning { "Warning" } else { "Normal" };
                writeln!(told, "    {type_} {}: {}", note.reason, note.message).unwrap();
            }
        };
        let now = Timestamp::UNIX_EPOCH;
        let facts = MigrationFacts {
            refused: None,
            pending: 0,
            aggregate: &all,
            removal: None,
            pods_refused: None,
            writes_refused: None,
            over_limit: None,
            server_change: None,
            names_taken: None,
            now,
        };
        for phase in MigrationPhase::ALL {
            tell(format!("{phase:?}"), phase, &facts);
        }
        let refused = Some(("ServerNotFound", &error));
        tell("refused".into(), MigrationPhase::Pending, &MigrationFacts { refused, ..facts.clone() });
        let mut failing = all.clone();
        (failing.counts.failing, failing.counts.failed, failing.totals.not_copied) = (3, 1, Some(not_copied));
        failing.outdated = 2;
        let facts = MigrationFacts { aggregate: &failing, pending: 4, removal: Some(&pending), ..facts };
        let writes_refused = Some(("Invalid", "the API server refuses the MailboxSync of bob".into()));
        let facts = MigrationFacts { pods_refused: Some("exceeded quota".into()), writes_refused, ..facts };
        let facts = MigrationFacts { over_limit: Some(over_limit_message(3, 10_000, "carol")), ..facts };
        let facts = MigrationFacts { server_change: Some("the MailServer old names another host".into()), ..facts };
        let names_taken = Some("the MailboxSync acme-dave-1 is there without an owner".to_owned());
        let facts = MigrationFacts { names_taken, ..facts };
        tell("with all that can be wrong".into(), MigrationPhase::Running, &facts);
        tell(
            "complete with messages missing".into(),
            MigrationPhase::Complete,
            &MigrationFacts { pending: 0, ..facts },
        );
        insta::assert_snapshot!(told, @r#"
        Pending
            Accepted=True Accepted: the migration can be carried out as it is written
            Ready=True Pending: waiting to start
            Complete=False Pending: 9 of 10 mailboxes are synced
            AllCopied=Unknown NotKnown: 9 of 10 mailboxes are known to be copied as a whole
        Running
            Accepted=True Accepted: the migration can be carried out as it is written
            Ready=True Progressing: 9 of 10 mailboxes are synced
            Complete=False Progressing: 9 of 10 mailboxes are synced
            AllCopied=Unknown NotKnown: 9 of 10 mailboxes are known to be copied as a whole
        Draining
            Accepted=True Accepted: the migration can be carried out as it is written
            Ready=True Draining: delivery has moved, delta syncs go on; 9 of 10 mailboxes are synced
            Complete=False Draining: 9 of 10 mailboxes are synced
            AllCopied=Unknown NotKnown: 9 of 10 mailboxes are known to be copied as a whole
            Normal Draining: delivery has moved, delta syncs go on; 9 of 10 mailboxes are synced
        Suspended
            Accepted=True Accepted: the migration can be carried out as it is written
            Ready=True Suspended: suspended; 9 of 10 mailboxes are synced
            Complete=False Suspended: 9 of 10 mailboxes are synced
            AllCopied=Unknown NotKnown: 9 of 10 mailboxes are known to be copied as a whole
            Normal Suspended: suspended; 9 of 10 mailboxes are synced
        Stalled
            Accepted=True Accepted: the migration can be carried out as it is written
            Ready=False Stalled: 0 mailboxes wait for a person
            Complete=False Stalled: 9 of 10 mailboxes are synced
            Stalled=True Stalled: 0 mailboxes wait for a person
            AllCopied=Unknown NotKnown: 9 of 10 mailboxes are known to be copied as a whole
            Warning Stalled: 0 mailboxes wait for a person
        Complete
            Accepted=True Accepted: the migration can be carried out as it is written
            Ready=True Complete: 9 of 10 mailboxes are synced
            Complete=True CompleteNotAllCopied: 9 of 10 mailboxes are synced; 9 of 10 mailboxes are known to be copied as a whole
            AllCopied=Unknown NotKnown: 9 of 10 mailboxes are known to be copied as a whole
            Normal Complete: 9 of 10 mailboxes are synced; 9 of 10 mailboxes are known to be copied as a whole
        Failed
            Accepted=True Accepted: the migration can be carried out as it is written
            Ready=False Failed: all mailboxes have ended, 0 of 10 failed
            Complete=False Failed: 9 of 10 mailboxes are synced
            Failed=True Failed: all mailboxes have ended, 0 of 10 failed
            Stalled=True Failed: all mailboxes have ended, 0 of 10 failed
            AllCopied=Unknown NotKnown: 9 of 10 mailboxes are known to be copied as a whole
            Warning Failed: all mailboxes have ended, 0 of 10 failed; 9 of 10 mailboxes are known to be copied as a whole
        refused
            Accepted=False ServerNotFound: there is no MailServer old. Make it
            Ready=False ServerNotFound: there is no MailServer old. Make it
            Complete=False ServerNotFound: 9 of 10 mailboxes are synced
            AllCopied=Unknown NotKnown: 9 of 10 mailboxes are known to be copied as a whole
        with all that can be wrong
            Accepted=True Accepted: the migration can be carried out as it is written
            Ready=True Progressing: 9 of 10 mailboxes are synced
            Complete=False Progressing: 9 of 10 mailboxes are synced
            Reconciling=True Expanding: 4 MailboxSyncs are still to be made, changed or removed
            MailboxesFailing=True MailboxesFailing: 3 of 10 mailboxes fail; status.failures shows some of them
            RemovalPending=True ConfirmationNeeded: 7 mailboxes left the list at once: to remove them from the migration (never their mail), set spec.confirmRemoval to 0123abcd; else list them again
            PodsRefused=True Forbidden: exceeded quota
            MailboxesRefused=True Invalid: the API server refuses the MailboxSync of bob
            MailboxLimitReached=True NamespaceLimit: 3 mailboxes are not made, carol first: the namespace has as many as it may (10000, maxMailboxesPerNamespace of the operator's configuration). What is there stays
            ServerChanged=True MigrationStarted: the MailServer old names another host
            Outdated=True ChangedAfterSync: 2 of 10 mailboxes were changed after their last sync, and no other one is planned: what was synced stays as it is. Another text in spec.syncRequest has every mailbox synced once more, by what is written now
            MailboxNamesTaken=True NameTaken: the MailboxSync acme-dave-1 is there without an owner
            AllCopied=False NotCopied: 2 messages are not copied: 2 refused; `mailferry export --not-copied` writes them out
        complete with messages missing
            Accepted=True Accepted: the migration can be carried out as it is written
            Ready=True Complete: 9 of 10 mailboxes are synced; 2 were changed after that
            Complete=True CompleteNotAllCopied: 9 of 10 mailboxes are synced; 2 messages are not copied: 2 refused; `mailferry export --not-copied` writes them out
            MailboxesFailing=True MailboxesFailing: 3 of 10 mailboxes fail; status.failures shows some of them
            RemovalPending=True ConfirmationNeeded: 7 mailboxes left the list at once: to remove them from the migration (never their mail), set spec.confirmRemoval to 0123abcd; else list them again
            PodsRefused=True Forbidden: exceeded quota
            MailboxesRefused=True Invalid: the API server refuses the MailboxSync of bob
            MailboxLimitReached=True NamespaceLimit: 3 mailboxes are not made, carol first: the namespace has as many as it may (10000, maxMailboxesPerNamespace of the operator's configuration). What is there stays
            ServerChanged=True MigrationStarted: the MailServer old names another host
            Outdated=True ChangedAfterSync: 2 of 10 mailboxes were changed after their last sync, and no other one is planned: what was synced stays as it is. Another text in spec.syncRequest has every mailbox synced once more, by what is written now
            MailboxNamesTaken=True NameTaken: the MailboxSync acme-dave-1 is there without an owner
            AllCopied=False NotCopied: 2 messages are not copied: 2 refused; `mailferry export --not-copied` writes them out
            Normal Complete: 9 of 10 mailboxes are synced; 2 were changed after that; 2 messages are not copied: 2 refused; `mailferry export --not-copied` writes them out
        "#);
    }
}
