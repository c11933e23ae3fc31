//! What is remembered of migrations between two looks.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use crate::api::{
    MailMigration,
    mail_migration::{CsvStatus, FailureSample, PendingRemoval},
};

/// What is remembered of a migration between two looks; it can be found out again.
#[derive(Default)]
pub(crate) struct MigrationMemory {
    /// What the last expansion was made from.
    pub inputs: Option<ExpansionInputs>,
    /// What it came to.
    pub names: HashSet<String>,
    pub wrong: BTreeMap<String, FailureSample>,
    pub csvs: Vec<CsvStatus>,
    pub pending: Option<PendingRemoval>,
    /// MailboxSyncs that were made and are not seen yet.
    pub made: BTreeSet<String>,
    /// MailboxSyncs that are still to be made, changed or removed.
    pub left: usize,
    pub looked_at_csvs: Option<Instant>,
    pub csv_versions: Vec<Option<String>>,
    pub wrote_progress: Option<Instant>,
}

/// What an expansion is made from.
#[derive(PartialEq, Eq)]
pub(crate) struct ExpansionInputs {
    pub generation: Option<i64>,
    pub servers: Vec<(String, Option<i64>)>,
    pub csv_versions: Vec<Option<String>>,
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
