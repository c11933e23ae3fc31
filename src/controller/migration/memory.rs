//! What is remembered of a migration from one reconciliation to the next.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use super::refused_writes::RefusedWrites;
use crate::{
    api::{
        MailMigration,
        mail_migration::{CsvStatus, FailureSample, PendingRemoval},
    },
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
    /// Mailboxes that can't be synced as they are written, by the names of their MailboxSyncs.
    pub invalid_mailboxes: BTreeMap<String, FailureSample>,
    /// What was read from each CSV.
    pub csv_statuses: Vec<CsvStatus>,
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
    /// When the versions of the CSVs' Secrets were looked up last.
    pub csv_versions_seen_at: Option<Instant>,
    /// The resourceVersions of the CSVs' Secrets, in the order of the spec; none where there is no such Secret.
    pub csv_versions: Vec<Option<String>>,
    /// When the status was written last.
    pub status_written_at: Option<Instant>,
}

/// What an expansion is made from: while it is the same, the migration need not be expanded again.
#[derive(PartialEq, Eq)]
pub(crate) struct ExpansionInputs {
    /// The generation of the migration.
    pub generation: Option<i64>,
    /// The MailServers that it refers to, and their generations.
    pub servers: Vec<(String, Option<i64>)>,
    /// The resourceVersions of the CSVs' Secrets.
    pub csv_versions: Vec<Option<String>>,
    /// When delivery moves.
    pub cutover: Option<Time>,
}

/// What is remembered of all migrations, by UID.
#[derive(Default)]
pub(crate) struct MigrationMemories {
    memories: Mutex<HashMap<String, MigrationMemory>>,
    generations: Mutex<HashMap<String, i64>>,
}

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

    /// Forgets a migration that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        drop(self.take(uid));
        self.generations.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}
