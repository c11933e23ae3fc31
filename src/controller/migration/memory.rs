//! What is remembered of a migration from one reconciliation to the next.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use super::{
    aggregate::UnmadeMailboxes, csv_statuses::CsvStatuses, orphans::TakenNames, refused_writes::RefusedWrites,
};
use crate::{
    api::{MailMigration, MailServer, mail_migration::PendingRemoval},
    controller::events::EventNote,
};

/// What is remembered of a migration from one reconciliation to the next. It only saves work: a new process finds it out
/// again.
#[derive(Default)]
pub(crate) struct MigrationMemory {
    /// What the last expansion was made from.
    pub inputs: Option<ExpansionInputs>,
    /// The names of the MailboxSyncs that the last expansion asked for.
    pub names: HashSet<String>,
    /// Mailboxes that have no MailboxSync, for another reason than that it is still to be made.
    pub unmade: UnmadeMailboxes,
    /// What people are told of mailboxes above the limit of the namespace.
    pub over_limit: Option<String>,
    /// What people are told of a MailServer that names another host than the migration began with.
    pub server_change: Option<String>,
    /// Mailboxes that have no MailboxSync, since something else has its name.
    pub taken_names: TakenNames,
    /// What was read from each CSV.
    pub csv_statuses: CsvStatuses,
    /// Mailboxes that left the list and wait for a confirmation.
    pub pending_removal: Option<PendingRemoval>,
    /// The names of MailboxSyncs that were created, and that the watch does not show yet.
    pub created: BTreeSet<String>,
    /// How many MailboxSyncs are still to be created, changed or deleted.
    pub left: usize,
    /// What the API server refused.
    pub refused: RefusedWrites,
    /// Events that are published once the status is written.
    pub events: Vec<EventNote>,
    /// When the versions of the CSVs were looked up last.
    pub csv_versions_seen_at: Option<Instant>,
    /// The resourceVersions of the CSVs' objects, in the order of the spec; none where there is no such object.
    pub csv_versions: Vec<Option<String>>,
    /// The generation of the migration whose `syncRequest` all have that it asks.
    pub request_passed_on: Option<i64>,
    /// When the migration was expanded last.
    pub expanded_at: Option<Instant>,
    /// When the status was written last.
    pub status_written_at: Option<Instant>,
}

impl MigrationMemory {
    /// True when all that the migration's `syncRequest` asks are known to have it.
    #[must_use]
    pub(crate) fn has_passed_on_request(&self, migration: &MailMigration) -> bool {
        self.request_passed_on.is_some() && self.request_passed_on == migration.metadata.generation
    }
}

/// What an expansion is made from: while it is the same, the migration need not be expanded again.
#[derive(PartialEq, Eq)]
pub(crate) struct ExpansionInputs {
    /// The generation of the migration.
    pub generation: Option<i64>,
    /// The MailServers that it refers to, and their generations.
    pub servers: Vec<(String, Option<i64>)>,
    /// The resourceVersions of the CSVs' objects.
    pub csv_versions: Vec<Option<String>>,
    /// When delivery moves.
    pub cutover: Option<Time>,
}

/// What is remembered of all migrations, by UID.
#[derive(Default)]
pub(crate) struct MigrationMemories {
    memories: Mutex<HashMap<String, MigrationMemory>>,
    generations: Mutex<HashMap<String, i64>>,
    /// Of MailServers by UID: what of them matters to migrations.
    servers: Mutex<HashMap<String, ServerStanding>>,
}

/// What of a MailServer matters to migrations: the generation of its spec, and the status of its condition Ready.
type ServerStanding = (Option<i64>, Option<String>);

impl MigrationMemories {
    /// What is remembered of a migration, taken out.
    pub(crate) fn take(&self, uid: &str) -> MigrationMemory {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner).remove(uid).unwrap_or_default()
    }

    /// Remembers it.
    pub(crate) fn put_back(&self, uid: String, memory: MigrationMemory) {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, memory);
    }

    /// Remembers a migration's generation; true when its spec is new, or another than before.
    pub(crate) fn record_generation(&self, migration: &MailMigration) -> bool {
        let (Some(uid), Some(generation)) = (migration.uid(), migration.metadata.generation) else { return true };
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.insert(uid, generation) != Some(generation)
    }

    /// Remembers what of a MailServer matters to migrations; true when it is new, or another than before. The rest of its
    /// status changes with every connection.
    pub(crate) fn record_server(&self, server: &MailServer) -> bool {
        let conditions = server.status.as_ref().map_or(&[][..], |status| &status.conditions);
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        let facts = (server.metadata.generation, ready.map(|ready| ready.status.clone()));
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.insert(server.uid().unwrap_or_default(), facts.clone()) != Some(facts)
    }

    /// Forgets a MailServer that is gone.
    pub(crate) fn forget_server(&self, uid: &str) {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Forgets a migration that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        drop(self.take(uid));
        self.generations.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

    use super::*;
    use crate::api::MailServerSpec;

    #[test]
    fn of_a_mail_server_its_spec_and_whether_it_is_ready_matter_and_nothing_else() {
        let memories = MigrationMemories::default();
        let mut server = MailServer::new("old", MailServerSpec::default());
        (server.metadata.uid, server.metadata.generation) = (Some("u".to_owned()), Some(1));
        assert!(memories.record_server(&server) && !memories.record_server(&server));
        let now = Time(jiff::Timestamp::UNIX_EPOCH);
        let ready = |status: &str, message: &str| Condition {
            type_: "Ready".to_owned(),
            status: status.to_owned(),
            reason: "Connected".to_owned(),
            message: message.to_owned(),
            last_transition_time: now.clone(),
            observed_generation: Some(1),
        };
        let told = |server: &mut MailServer, condition| {
            server.status.get_or_insert_default().conditions = vec![condition];
            memories.record_server(server)
        };
        assert!(told(&mut server, ready("True", "1 connection")));
        assert!(!told(&mut server, ready("True", "2 connections")));
        assert!(told(&mut server, ready("False", "none")));
        server.metadata.generation = Some(2);
        assert!(memories.record_server(&server));
        memories.forget_server("u");
        assert!(memories.record_server(&server));
    }
}
