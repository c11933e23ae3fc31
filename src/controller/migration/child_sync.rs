//! Brings the MailboxSyncs of one migration closer to what they shall be.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};

use super::{
    children::ChildSteps,
    csv_secrets,
    csv_statuses::CsvStatuses,
    expand::{CsvRow, MailboxCensus, MigrationExpander, WantedSync},
    memory::{ExpansionInputs, MigrationMemory},
    prune::{RemovalDecision, decide_removal},
    server_pin::ServerPin,
    sync_request::SyncRequestRoute,
};
use crate::{
    api::{EndpointSpec, MailMigration, MailServer, MailServerSpec, MailboxSync, names},
    controller::{context::ControllerContext, error::ReconcileError, events::EventNote, owner_reference},
};

/// How often CSVs are looked at: Secrets and ConfigMaps are not watched.
pub(super) const CSV_PERIOD: Duration = Duration::from_mins(1);

pub(super) fn referenced_server(
    context: &ControllerContext,
    migration: &MailMigration,
    endpoint: &EndpointSpec,
) -> Option<Arc<MailServer>> {
    let name = &endpoint.server_ref.as_ref()?.name;
    context.caches.servers.get(&ObjectRef::new(name).within(&migration.namespace()?))
}

/// Brings the MailboxSyncs closer to what they shall be.
pub(super) async fn sync_children(
    migration: &MailMigration,
    context: &ControllerContext,
    memory: &mut MigrationMemory,
    cutover: Option<&Time>,
) -> Result<(), ReconcileError> {
    let clock = Instant::now();
    // With another spec, other CSVs may be named.
    let changed = memory.inputs.as_ref().is_some_and(|before| before.generation != migration.metadata.generation);
    if changed || memory.csv_versions_seen_at.is_none_or(|at| at.elapsed() >= CSV_PERIOD) {
        memory.csv_versions = csv_secrets::secret_versions(context, migration).await?;
        memory.csv_versions_seen_at = Some(Instant::now());
    }
    let servers: BTreeMap<String, Arc<MailServer>> = [&migration.spec.source, &migration.spec.destination]
        .into_iter()
        .filter_map(|endpoint| referenced_server(context, migration, endpoint))
        .map(|server| (server.name_any(), server))
        .collect();
    let inputs = ExpansionInputs {
        generation: migration.metadata.generation,
        servers: servers.iter().map(|(name, server)| (name.clone(), server.metadata.generation)).collect(),
        csv_versions: memory.csv_versions.clone(),
        cutover: cutover.cloned(),
    };
    let (namespace, owner) = (migration.namespace().unwrap_or_default(), migration.name_any());
    let existing: BTreeMap<String, Arc<MailboxSync>> =
        context.caches.syncs_of(&namespace, &owner).into_iter().map(|sync| (sync.name_any(), sync)).collect();
    memory.created.retain(|name| !existing.contains_key(name));
    let made = |name: &str| existing.contains_key(name) || memory.created.contains(name);
    let complete = memory.names.iter().all(|name| made(name) || memory.refused.contains(name));
    let same = memory.inputs.as_ref() == Some(&inputs);
    let limit = usize::try_from(context.config.max_mailboxes_per_namespace).unwrap_or(usize::MAX);
    let room = limit.saturating_sub(context.caches.count_syncs(&namespace) + memory.created.len());
    // Not at once: what gets the room may turn out to be wrong.
    let looked_long_ago = memory.expanded_at.is_none_or(|at| at.elapsed() >= CSV_PERIOD);
    let has_news = memory.unmade.over_limit > 0 && room > 0 && looked_long_ago;
    // What has a wanted name may have been changed, so that it can be taken over.
    let looks_again = memory.taken_names.count() > 0 && looked_long_ago;
    let settled = memory.left == 0 && complete && !has_news && !looks_again && !memory.refused.is_due(clock);
    if same && (settled || memory.refused.holds_all(clock)) {
        return Ok(());
    }
    if !same {
        memory.refused.forget();
        memory.inputs = Some(inputs);
    }
    let round =
        ExpansionRound { migration, context, servers: &servers, existing: &existing, cutover, clock, limit, room };
    round.make(memory).await
}

/// One expansion of a migration, with all that it is made from.
struct ExpansionRound<'a> {
    migration: &'a MailMigration,
    context: &'a ControllerContext,
    /// The MailServers that the migration refers to, by name.
    servers: &'a BTreeMap<String, Arc<MailServer>>,
    /// The MailboxSyncs that are there, by name.
    existing: &'a BTreeMap<String, Arc<MailboxSync>>,
    /// When delivery moves.
    cutover: Option<&'a Time>,
    clock: Instant,
    /// The most MailboxSyncs that the namespace may have.
    limit: usize,
    /// So many more may be made.
    room: usize,
}

impl ExpansionRound<'_> {
    /// Expands the migration, and makes what is missing.
    async fn make(&self, memory: &mut MigrationMemory) -> Result<(), ReconcileError> {
        let Self { migration, context, servers, existing, cutover, clock, limit, room } = *self;
        let owner = migration.name_any();
        let made = |name: &str| existing.contains_key(name) || memory.created.contains(name);
        memory.expanded_at = Some(clock);
        let mut census = MailboxCensus::new(&owner, &made, room);
        migration.spec.mailboxes.iter().for_each(|entry| census.add(&entry.name));
        let mut statuses = Vec::new();
        for place in migration.spec.csvs() {
            let csv = csv_secrets::fetch_csv(context, migration, place).await?;
            statuses.push(csv_secrets::read_csv(place, &csv, |row| census.add(&row.entry.name)).await);
        }
        let key = if migration.spec.mailbox_secrets.is_empty() {
            String::new()
        } else {
            csv_secrets::naming_key(context, migration).await?
        };
        let find = |name: &str| -> Option<&MailServerSpec> { servers.get(name).map(|server| &server.spec) };
        let left_out = memory.refused.left_out(clock);
        let mut steps = ChildSteps::new(migration, existing, &memory.created, &left_out);
        let mut expander = MigrationExpander::new(migration, census, find, &key, cutover);
        let uid = migration.uid().unwrap_or_default();
        let mut servers_begun = ServerPin::new(existing, &uid);
        let requests = SyncRequestRoute::new(migration, memory.has_passed_on_request(migration));
        let mut add_wanted = |(name, mut wanted): (String, WantedSync)| {
            servers_begun.keep_servers(&name, &mut wanted.spec);
            wanted.spec.sync_request = requests.text_for(&wanted.spec.mailbox, existing.get(&name).map(|sync| &**sync));
            steps.add_wanted(name, wanted);
        };
        for entry in &migration.spec.mailboxes {
            expander.listed(entry).into_iter().for_each(&mut add_wanted);
        }
        for (place, first) in migration.spec.csvs().zip(&statuses) {
            let csv = csv_secrets::fetch_csv(context, migration, place).await?;
            if csv.version != first.resource_version {
                // It was changed since the first look: all begins anew.
                memory.left = memory.left.max(1);
                return Ok(());
            }
            if first.problem.is_none() {
                let row = |mailbox| CsvRow { csv_uid: &csv.uid, mailbox };
                let take = |mailbox| expander.in_csv(row(mailbox)).into_iter().for_each(&mut add_wanted);
                csv_secrets::read_csv(place, &csv, take).await;
            }
        }
        let expansion = expander.finish();
        let all_read = statuses.iter().all(|csv| csv.problem.is_none());
        let removal = if all_read {
            let ours = existing.iter().filter(|(_, sync)| {
                owner_reference::is_controlled_by(&***sync, &uid) && sync.metadata.deletion_timestamp.is_none()
            });
            let known = |name: &str| expansion.names.contains(name) || expansion.invalid.contains(name);
            decide_removal(
                ours.map(|(name, sync)| (name.as_str(), sync.spec.mailbox.as_str())),
                known,
                migration.spec.confirm_removal.as_deref(),
                memory.pending_removal.as_ref().or(migration.status.as_ref().and_then(|s| s.pending_removal.as_ref())),
            )
        } else {
            RemovalDecision::default()
        };
        removal.now.iter().for_each(|name| steps.add_removal(name));
        let (progress, failure) = steps.run(context, migration).await;
        memory.left = progress.left;
        memory.taken_names = progress.taken_names;
        memory.created.extend(progress.created);
        memory.events.extend(memory.refused.record_round(progress.round, clock));
        if all_read && failure.is_none() && memory.left == 0 && memory.refused.pending() == 0 {
            let unknown = requests.unknown_names(|mailbox| {
                let name = names::mailbox_sync(&owner, mailbox);
                expansion.names.contains(&name) || expansion.invalid.contains(&name)
            });
            memory.events.extend(unknown_names_event(&unknown));
            memory.request_passed_on = migration.metadata.generation;
        }
        memory.names = expansion.names;
        memory.unmade = expansion.unmade;
        memory.over_limit =
            expansion.first_over.map(|first| over_limit_message(memory.unmade.over_limit, limit, &first));
        memory.server_change = servers_begun.message();
        memory.csv_statuses = CsvStatuses::new(&migration.spec, statuses);
        memory.pending_removal = removal.pending;
        failure.map_or(Ok(()), Err)
    }
}

fn unknown_names_event(unknown: &[&str]) -> Option<EventNote> {
    let first = unknown.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    let more = if unknown.len() > 5 { ", ..." } else { "" };
    (!unknown.is_empty()).then(|| {
        let what = format!("syncRequestFor.mailboxes names mailboxes that the migration does not have: {first}{more}");
        EventNote::warning("SyncRequestUnmatched", what)
    })
}

pub(super) fn over_limit_message(mailboxes: usize, limit: usize, first: &str) -> String {
    format!(
        "{mailboxes} mailboxes are not made, {first} first: the namespace has as many as it may ({limit}, \
         maxMailboxesPerNamespace of the operator's configuration). What is there stays"
    )
}
