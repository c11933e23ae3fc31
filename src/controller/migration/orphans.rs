//! MailboxSyncs of a wanted name that the migration does not control: which are taken over, and what becomes of them. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use crate::{
    api::{MailboxSync, MailboxSyncSpec, MailboxSyncStatus, WorkerStatus, mailbox_sync::Inheritance},
    controller::owner_reference,
};

/// What a MailboxSync of a wanted name is to a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChildStanding {
    /// The migration controls it.
    Ours,
    /// It is being deleted: it goes by itself.
    Going,
    /// Nobody owns it, and it is just what the migration would make.
    Orphan,
    /// It is left alone, and the mailbox has no MailboxSync until it is gone.
    InTheWay(NameTaken),
}

/// Why a MailboxSync that is there is not taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameTaken {
    /// Nobody owns it, and its spec is another than the migration would write.
    OtherSpec,
    /// Something else owns it: a migration of this name that is gone, most often. Then it is garbage-collected.
    OtherOwner,
}

/// What the MailboxSync `sync` is to the migration with the UID `owner`, which would make it with the spec `wanted`.
#[must_use]
pub(super) fn child_standing(sync: &MailboxSync, owner: &str, wanted: &MailboxSyncSpec) -> ChildStanding {
    if sync.metadata.deletion_timestamp.is_some() {
        ChildStanding::Going
    } else if owner_reference::is_controlled_by(sync, owner) {
        ChildStanding::Ours
    } else if !sync.owner_references().is_empty() {
        ChildStanding::InTheWay(NameTaken::OtherOwner)
    } else if sync.spec == *wanted {
        ChildStanding::Orphan
    } else {
        ChildStanding::InTheWay(NameTaken::OtherSpec)
    }
}

/// Mailboxes that have no MailboxSync, since others of their names are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TakenNames {
    count: usize,
    /// The first MailboxSync, the mailbox, and why it is not taken over.
    first: Option<(String, String, NameTaken)>,
}

impl TakenNames {
    /// Adds one.
    pub(super) fn add(&mut self, name: String, mailbox: &str, why: NameTaken) {
        self.count += 1;
        self.first.get_or_insert_with(|| (name, mailbox.to_owned(), why));
    }

    /// How many there are.
    #[must_use]
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// What people are told of them.
    #[must_use]
    pub(crate) fn message(&self) -> Option<String> {
        let (name, mailbox, why) = self.first.as_ref()?;
        let what = match why {
            NameTaken::OtherSpec => format!(
                "the MailboxSync {name} is there without an owner, and its spec is not what the mailbox {mailbox} needs: \
                 it is not taken over. Delete it (mailferry checkpoint export keeps its checkpoint), or give the mailbox \
                 another name"
            ),
            NameTaken::OtherOwner => format!(
                "the MailboxSync {name} of the mailbox {mailbox} has another owner. If that is gone, Kubernetes deletes \
                 it; else delete it, or give the mailbox another name"
            ),
        };
        Some(match self.count {
            1 => what,
            many => format!("{what}. It is the first of {many}"),
        })
    }
}

/// The status of an object that is taken over: of all that was, the checkpoint counts alone (which stays in `worker`), and
/// not as its own. A pod of before is no pod of its own any more; numbers of attempts are not used again.
#[must_use]
pub(super) fn inherited_status(old: &MailboxSyncStatus, now: Timestamp) -> MailboxSyncStatus {
    let attempt = old.worker.as_ref().map_or(old.attempt, |worker| old.attempt.max(worker.attempt));
    let worker = old.worker.as_ref().map(|worker| WorkerStatus {
        // The API server takes a change of `worker` only with this attempt, and no report below the newest.
        attempt,
        report: worker.report,
        checkpoint: worker.checkpoint.clone(),
        ..WorkerStatus::default()
    });
    MailboxSyncStatus {
        attempt,
        // An attempt that never started would give its number to the next one.
        attempt_started_at: (attempt > 0).then(|| old.attempt_started_at.clone().unwrap_or(Time(now))),
        inherited: Some(Inheritance { at: Time(now), attempt }),
        worker,
        ..MailboxSyncStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;
    use crate::{
        api::mailbox_sync::{Claim, Outcome, SyncPhase},
        controller::testing,
    };

    #[test]
    fn only_what_nobody_owns_and_is_just_what_would_be_made_is_taken_over() {
        let migration = testing::migration("m");
        let owner = migration.uid().unwrap();
        let ours = testing::mailbox_sync(&migration, "a");
        let spec = ours.spec.clone();
        assert_eq!(child_standing(&ours, &owner, &spec), ChildStanding::Ours);
        let mut orphan = ours.clone();
        orphan.metadata.owner_references = None;
        assert_eq!(child_standing(&orphan, &owner, &spec), ChildStanding::Orphan);
        let mut other = spec.clone();
        other.destination.account.username = Some("another".to_owned());
        let taken = |why| ChildStanding::InTheWay(why);
        assert_eq!(child_standing(&orphan, &owner, &other), taken(NameTaken::OtherSpec));
        assert_eq!(child_standing(&ours, "uid of an m before", &spec), taken(NameTaken::OtherOwner));
        let mut held = orphan.clone();
        held.metadata.owner_references = Some(vec![OwnerReference { uid: owner.clone(), ..OwnerReference::default() }]);
        assert_eq!(child_standing(&held, &owner, &spec), taken(NameTaken::OtherOwner), "it controls nothing");
        for mut going in [ours, orphan] {
            going.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
            assert_eq!(child_standing(&going, &owner, &spec), ChildStanding::Going);
        }
    }

    #[test]
    fn of_an_orphans_status_the_checkpoint_is_kept_alone_and_attempts_only_grow() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let worker = WorkerStatus {
            attempt: 4,
            report: 17,
            checkpoint: Some("opaque".to_owned()),
            flushed_attempt: Some(4),
            outcome: Some(Outcome::Synced),
            warnings: vec!["look".to_owned()],
            destination_login: true,
            ..WorkerStatus::default()
        };
        let old = MailboxSyncStatus {
            attempt: 5,
            phase: Some(SyncPhase::Running),
            slots: Some(2),
            pod_name: Some("m-a-5".to_owned()),
            pod_uid: Some("pod".to_owned()),
            attempt_started_at: Some(Time(Timestamp::UNIX_EPOCH)),
            claim: Some(Claim { destination: "hash".to_owned(), proven_at: Some(Time(now)) }),
            syncs: 3,
            last_synced_at: Some(Time(now)),
            worker: Some(worker),
            ..MailboxSyncStatus::default()
        };
        let checkpoint = Some("opaque".to_owned());
        let kept = MailboxSyncStatus {
            attempt: 5,
            attempt_started_at: Some(Time(Timestamp::UNIX_EPOCH)),
            inherited: Some(Inheritance { at: Time(now), attempt: 5 }),
            worker: Some(WorkerStatus { attempt: 5, report: 17, checkpoint, ..WorkerStatus::default() }),
            ..MailboxSyncStatus::default()
        };
        assert_eq!(inherited_status(&old, now), kept);
        // An attempt whose start is not known may have been one: its number is not used again.
        let unknown = MailboxSyncStatus { attempt_started_at: None, ..old };
        assert_eq!(inherited_status(&unknown, now).attempt_started_at, Some(Time(now)));
        let new = inherited_status(&MailboxSyncStatus::default(), now);
        assert_eq!((new.attempt, new.attempt_started_at, new.worker), (0, None, None));
    }

    #[test]
    fn people_are_told_which_object_is_in_the_way_and_what_to_do() {
        let mut taken = TakenNames::default();
        assert_eq!((taken.count(), taken.message()), (0, None));
        taken.add("acme-alice-1".to_owned(), "alice", NameTaken::OtherSpec);
        let message = taken.message().unwrap();
        assert!(message.contains("acme-alice-1") && message.contains("Delete it"), "{message}");
        taken.add("acme-bob-2".to_owned(), "bob", NameTaken::OtherOwner);
        assert!(taken.message().unwrap().ends_with("It is the first of 2"));
    }
}
