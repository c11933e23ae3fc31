//! A file of checkpoints, and what is put from it into which MailboxSync. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    api::{
        MailboxSync, SyncEndpoint,
        mailbox_sync::{Inheritance, MAX_CHECKPOINT_BYTES},
        names,
    },
    error::{Error, Result},
    sync::checkpoint::Checkpoint,
};

/// The format that is written; another one is not read.
const FORMAT: u32 = 1;

/// The checkpoints of a namespace, or of one of its migrations, as a file holds them: JSON, no secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointArchive {
    format: u32,
    /// The namespace that they are from.
    pub namespace: String,
    /// When they were read.
    exported_at: Timestamp,
    /// One for each mailbox that has one.
    pub checkpoints: Vec<ArchivedCheckpoint>,
}

/// One mailbox's checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchivedCheckpoint {
    /// The MailMigration's name.
    pub migration: String,
    /// The mailbox's name in it.
    pub mailbox: String,
    /// Where mail was read from.
    source: ArchivedAccount,
    /// Where it was written to.
    destination: ArchivedAccount,
    /// As in the status.
    checkpoint: String,
}

/// An account, so that a checkpoint comes to no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ArchivedAccount {
    /// For people.
    host: String,
    /// A hash of host, port and user.
    account: String,
}

impl ArchivedAccount {
    fn from_endpoint(endpoint: &SyncEndpoint) -> Self {
        Self { host: endpoint.server.host.clone(), account: names::account_hash(endpoint) }
    }
}

impl ArchivedCheckpoint {
    /// The checkpoint of a MailboxSync, where it has one.
    #[must_use]
    pub(super) fn from_sync(sync: MailboxSync) -> Option<Self> {
        let MailboxSync { spec, status, .. } = sync;
        Some(Self {
            source: ArchivedAccount::from_endpoint(&spec.source),
            destination: ArchivedAccount::from_endpoint(&spec.destination),
            migration: spec.migration,
            mailbox: spec.mailbox,
            checkpoint: status?.worker?.checkpoint?,
        })
    }

    /// The name of the MailboxSync that it belongs to.
    #[must_use]
    pub fn sync_name(&self) -> String {
        names::mailbox_sync(&self.migration, &self.mailbox)
    }

    /// What becomes of it, where this MailboxSync is there.
    pub(super) fn judge(&self, sync: Option<&MailboxSync>) -> ImportVerdict {
        let Some(sync) = sync else { return ImportVerdict::Refused(ImportRefusal::NoMailboxSync) };
        let status = sync.status.as_ref();
        let own = status.and_then(|status| status.worker.as_ref()?.checkpoint.as_ref());
        let inherited = status.is_some_and(|status| status.inherited.is_some());
        let readable =
            self.checkpoint.len() <= MAX_CHECKPOINT_BYTES && Checkpoint::decode_text(&self.checkpoint).is_ok();
        let refusal = if sync.metadata.deletion_timestamp.is_some() {
            ImportRefusal::NoMailboxSync
        } else if self.source != ArchivedAccount::from_endpoint(&sync.spec.source) {
            ImportRefusal::OtherSource
        } else if self.destination != ArchivedAccount::from_endpoint(&sync.spec.destination) {
            ImportRefusal::OtherDestination
        } else if inherited && own == Some(&self.checkpoint) {
            return ImportVerdict::ThereAlready;
        } else if own.is_some() {
            ImportRefusal::HasCheckpoint
        } else if status.is_some_and(|status| status.attempt > 0 || status.slots.is_some()) {
            ImportRefusal::HasAttempt
        } else if !readable {
            ImportRefusal::Unreadable
        } else {
            return ImportVerdict::Imported;
        };
        ImportVerdict::Refused(refusal)
    }

    /// The patch of the status that puts it into this MailboxSync, in doubt, and only as long as that is as it was.
    #[must_use]
    pub(super) fn patch(&self, sync: &MailboxSync, now: Timestamp) -> Value {
        json!({
            "metadata": {"uid": sync.uid(), "resourceVersion": sync.resource_version()},
            "status": {
                "inherited": Inheritance { at: Time(now), attempt: 0 },
                "worker": {"attempt": 0, "checkpoint": self.checkpoint},
            },
        })
    }
}

/// What becomes of a checkpoint that is imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportVerdict {
    /// The MailboxSync goes on from it.
    Imported,
    /// It was imported before.
    ThereAlready,
    /// It is not imported.
    Refused(ImportRefusal),
}

/// Why a checkpoint is not imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportRefusal {
    /// There is no MailboxSync that it belongs to.
    NoMailboxSync,
    /// The mailbox is read from another account.
    OtherSource,
    /// The mailbox is written to another account.
    OtherDestination,
    /// The MailboxSync has a checkpoint.
    HasCheckpoint,
    /// An attempt was made, or is under way.
    HasAttempt,
    /// It is torn, too long, or of another version.
    Unreadable,
}

impl ImportRefusal {
    /// The same for people: what is the matter, and what to do.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoMailboxSync => {
                "there is no such MailboxSync: apply its MailMigration first, with spec.suspend: true"
            }
            Self::OtherSource => "the MailboxSync reads from another account: a checkpoint is of no use there",
            Self::OtherDestination => "the MailboxSync writes to another account: a checkpoint is of no use there",
            Self::HasCheckpoint => "the MailboxSync has a checkpoint of its own, which stays",
            Self::HasAttempt => {
                "the MailboxSync has made an attempt: it goes on from what it finds at the destination. To import all the \
                 same, delete it and suspend the migration before"
            }
            Self::Unreadable => "what the file holds is no checkpoint that this version reads",
        }
    }
}

impl CheckpointArchive {
    /// The checkpoints of a namespace, read now.
    #[must_use]
    pub(super) fn new(namespace: String, checkpoints: Vec<ArchivedCheckpoint>) -> Self {
        Self { format: FORMAT, namespace, exported_at: Timestamp::now(), checkpoints }
    }

    /// What a file holds.
    ///
    /// # Errors
    /// Configuration when it is no such file, is torn, or is of another version.
    pub fn read(text: &str) -> Result<Self> {
        let refused = |why: String| {
            Error::configuration(format!("this is not a file of checkpoints: {why}"))
                .advice("Give a file that `mailferry checkpoint export` wrote")
        };
        let value: Value = serde_json::from_str(text).map_err(|e| refused(e.to_string()))?;
        match value.get("format").and_then(Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => return Err(refused(format!("it has format {format}, and this version reads {FORMAT}"))),
            None => return Err(refused("it has no format".to_owned())),
        }
        serde_json::from_value(value).map_err(|e| refused(e.to_string()))
    }

    /// What is written to a file.
    ///
    /// # Errors
    /// Internal.
    pub fn write(&self) -> Result<String> {
        let json = serde_json::to_string_pretty(self);
        json.map(|text| text + "\n").map_err(|e| Error::internal(format!("cannot write the checkpoints as JSON: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorClass;

    fn sync(status: &Value) -> MailboxSync {
        let side = |host: &str| json!({"server": {"host": host}, "account": {"username": "Alice", "passwordSecretRef": {"name": "mail", "key": "secret-key"}}});
        serde_json::from_value(json!({
            "apiVersion": "mailferry.io/v1alpha1", "kind": "MailboxSync",
            "metadata": {"name": "acme-alice", "namespace": "ns", "uid": "u", "resourceVersion": "7"},
            "spec": {"migration": "acme", "mailbox": "alice", "source": side("old.example"), "destination": side("new.example")},
            "status": status,
        }))
        .unwrap()
    }

    fn checkpoint() -> String {
        Checkpoint { fingerprint: "f".into(), ..Checkpoint::default() }.encode_text().unwrap()
    }

    fn archived() -> ArchivedCheckpoint {
        ArchivedCheckpoint::from_sync(sync(
            &json!({"attempt": 3, "worker": {"attempt": 3, "checkpoint": checkpoint()}}),
        ))
        .unwrap()
    }

    #[test]
    fn a_file_holds_names_hosts_and_checkpoints_and_nothing_of_credentials() {
        let archive = CheckpointArchive::new("ns".to_owned(), vec![archived()]);
        let text = archive.write().unwrap();
        assert_eq!(CheckpointArchive::read(&text).unwrap(), archive);
        assert!(text.contains("old.example") && text.contains("\"mailbox\": \"alice\""), "{text}");
        assert!(!text.contains("secret-key") && !text.contains("Alice"), "{text}");
        assert_eq!(ArchivedCheckpoint::from_sync(sync(&json!({"attempt": 3}))), None, "it has no checkpoint");
    }

    #[test]
    fn what_is_torn_or_of_another_version_is_no_file_of_checkpoints() {
        let text = CheckpointArchive::new("ns".to_owned(), vec![archived()]).write().unwrap();
        let later = text.replacen("\"format\": 1", "\"format\": 2", 1);
        for wrong in [&text[..text.len() / 2], "{}", "[]", "", &later] {
            let error = CheckpointArchive::read(wrong).unwrap_err();
            assert_eq!(error.class, ErrorClass::Configuration, "{wrong}");
        }
        assert!(CheckpointArchive::read(&later).unwrap_err().to_string().contains("format 2"));
    }

    #[test]
    fn a_checkpoint_comes_only_to_its_own_accounts_and_to_what_has_made_no_attempt() {
        let judged = |sync: &MailboxSync| archived().judge(Some(sync));
        let refused = ImportVerdict::Refused;
        assert_eq!(judged(&sync(&json!(null))), ImportVerdict::Imported);
        assert_eq!(judged(&sync(&json!({"attempt": 0, "phase": "Suspended"}))), ImportVerdict::Imported);
        assert_eq!(archived().judge(None), refused(ImportRefusal::NoMailboxSync));
        assert_eq!(judged(&sync(&json!({"attempt": 1}))), refused(ImportRefusal::HasAttempt));
        let worker = |text: &str| json!({"attempt": 0, "checkpoint": text});
        let own = sync(&json!({"attempt": 0, "worker": worker(&checkpoint())}));
        assert_eq!(judged(&own), refused(ImportRefusal::HasCheckpoint));
        let at = "2026-03-01T00:00:00Z";
        let imported = sync(&json!({"attempt": 0, "worker": worker(&checkpoint()), "inherited": {"at": at}}));
        assert_eq!(judged(&imported), ImportVerdict::ThereAlready, "the same may be run again");
        let imported = sync(&json!({"attempt": 0, "worker": worker("another"), "inherited": {"at": at}}));
        assert_eq!(judged(&imported), refused(ImportRefusal::HasCheckpoint));
        let mut other = sync(&json!(null));
        other.spec.source.account.username = Some("bob".to_owned());
        assert_eq!(judged(&other), refused(ImportRefusal::OtherSource));
        let mut other = sync(&json!(null));
        other.spec.destination.server.host = "elsewhere.example".to_owned();
        assert_eq!(judged(&other), refused(ImportRefusal::OtherDestination));
        let torn = ArchivedCheckpoint { checkpoint: "torn".to_owned(), ..archived() };
        assert_eq!(torn.judge(Some(&sync(&json!(null)))), refused(ImportRefusal::Unreadable));
    }

    #[test]
    fn what_is_imported_is_in_doubt_and_goes_to_the_object_that_was_judged() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let patch = archived().patch(&sync(&json!(null)), now);
        assert_eq!(patch["metadata"], json!({"uid": "u", "resourceVersion": "7"}));
        assert_eq!(patch["status"]["inherited"], json!({"at": "2027-01-15T08:00:00Z", "attempt": 0}));
        assert_eq!(patch["status"]["worker"], json!({"attempt": 0, "checkpoint": checkpoint()}));
    }
}
