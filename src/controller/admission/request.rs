//! What a mailbox asks for when it wants to run.

use crate::start_limits::ResourceNeeds;

/// A mailbox, by its MailboxSync's UID.
pub(crate) type ObjectUid = String;
/// A migration, by namespace and name.
pub type MigrationKey = (String, String);

/// What is shared between syncs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LimitedResource {
    /// Syncs of the whole operator.
    Operator,
    /// Syncs of a namespace.
    Namespace(String),
    /// Syncs of a migration.
    Migration(MigrationKey),
    /// Connections to `host:port`, across the cluster.
    Host(String),
    /// Connections to `host:port`, as one namespace's MailServers allow.
    Server(String, String),
    /// The right to append to an account, by its hash.
    Account(String),
}

impl LimitedResource {
    pub(super) const fn is_account(&self) -> bool {
        matches!(self, Self::Account(_))
    }
}

/// A mailbox that wants to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotRequest {
    /// The mailbox.
    pub uid: ObjectUid,
    /// Its MailboxSync's name.
    pub name: String,
    /// Its migration, in its namespace.
    pub migration: MigrationKey,
    /// Connections to each side.
    pub slots: i32,
    /// All that it needs.
    pub needs: ResourceNeeds<LimitedResource>,
}

impl SlotRequest {
    /// The mailbox's namespace.
    #[must_use]
    pub(crate) fn namespace(&self) -> &str {
        &self.migration.0
    }
}
