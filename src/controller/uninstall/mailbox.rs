//! One mailbox while everything is suspended: the operator's decisions, carried out where no operator is left.

use std::{collections::HashSet, sync::Arc};

use jiff::SignedDuration;
use kube::ResourceExt as _;

use super::{
    UninstallRun, UninstallStep,
    leftover::{Leftover, ObjectKind, ObjectName, is_held, lost_words, pod_words, silence_left},
    words_of,
};
use crate::{
    api::{MailboxSync, MailboxSyncStatus},
    controller::{
        cached_objects::{SyncPod, slim_sync},
        error::ReconcileError,
        mailbox::{
            decide::{SyncAction, SyncDecision, decide},
            effects,
            observe::{
                ClockReading, HoldReason, ObservedMailbox, SecretsSeen, TokensSeen, WorkerLiveness, liveness_of_attempt,
            },
        },
    },
    sync_times::SyncTimes,
};

/// More writes than this in a row are a defect.
const MAX_ROUNDS: usize = 8;

/// One mailbox at one moment, and what was found out about it.
struct SuspendedMailbox<'a> {
    sync: MailboxSync,
    pods: &'a [Arc<SyncPod>],
    liveness: WorkerLiveness,
    node_out_of_service: bool,
    /// The UIDs of the pods that were let go of.
    released_pods: HashSet<String>,
    /// True once it was let go of itself.
    released: bool,
    now: ClockReading,
}

impl<'a> SuspendedMailbox<'a> {
    fn new(sync: MailboxSync, pods: &'a [Arc<SyncPod>], liveness: WorkerLiveness, now: ClockReading) -> Self {
        let released_pods = HashSet::new();
        Self { sync, pods, liveness, node_out_of_service: false, released_pods, released: false, now }
    }

    fn status(&self) -> MailboxSyncStatus {
        self.sync.status.clone().unwrap_or_default()
    }

    /// What an operator would do next, with the mailbox' migration suspended.
    fn decide(&self, status: &MailboxSyncStatus) -> SyncDecision {
        decide(&ObservedMailbox {
            name: self.sync.metadata.name.as_deref().unwrap_or_default(),
            uid: self.sync.metadata.uid.as_deref().unwrap_or_default(),
            generation: self.sync.metadata.generation.unwrap_or_default(),
            deleting: self.is_deleting(),
            spec: &self.sync.spec,
            status,
            pods: self.pods,
            surplus_pods: &[],
            liveness: self.liveness,
            granted_slots: None,
            waits_for: None,
            hold: Some(HoldReason::MigrationSuspended),
            sync_times: SyncTimes::ALWAYS,
            secrets: SecretsSeen::Unknown,
            tokens: TokensSeen::NotNeeded,
            node_out_of_service: self.node_out_of_service,
            // None starts.
            scheduling_timeout: SignedDuration::ZERO,
            now: self.now.wall,
            since_boot: self.now.since_boot,
        })
    }

    fn is_deleting(&self) -> bool {
        self.sync.metadata.deletion_timestamp.is_some()
    }

    fn held_pods(&self) -> impl Iterator<Item = &Arc<SyncPod>> {
        let uid = |pod: &SyncPod| pod.metadata.uid.clone().unwrap_or_default();
        self.pods.iter().filter(move |pod| pod.has_finalizer() && !self.released_pods.contains(&uid(pod)))
    }

    /// True where there is nothing to let go of.
    fn is_free(&self) -> bool {
        let runs = self.sync.status.as_ref().is_some_and(|status| status.slots.is_some());
        let waits = self.is_deleting() && is_held(&self.sync) && !self.released;
        !runs && !waits && self.held_pods().next().is_none()
    }

    /// What is left of it; `deleted`: it has to go with its migration.
    fn leftovers(&self, deleted: bool) -> Vec<Leftover> {
        let silence = silence_left(&self.sync, &self.liveness, self.now.since_boot);
        let runs = self.sync.status.as_ref().is_some_and(|status| status.slots.is_some());
        let held = self.held_pods().map(|pod| {
            let silent_in = (runs && pod.attempt() == Some(self.liveness.attempt)).then_some(silence);
            Leftover::new(ObjectName::of(ObjectKind::Pod, &**pod), pod_words(pod, silent_in))
        });
        let mut left: Vec<_> = held.collect();
        let own = match (runs, left.is_empty()) {
            (true, true) => Some(lost_words(silence)),
            (true, false) => Some("its attempt is not over: its pod may still write".to_owned()),
            (false, _) if self.is_deleting() && is_held(&self.sync) && !self.released => {
                Some("it is being deleted, and its pods may still write".to_owned())
            }
            (false, _) if deleted && self.sync.owner_references().is_empty() && !self.is_deleting() => {
                Some("no MailMigration owns it, so it does not go with one: delete it".to_owned())
            }
            (false, _) if deleted && !self.is_deleting() => {
                Some("Kubernetes has not deleted it yet, as it does with what a deleted MailMigration owns".to_owned())
            }
            (false, _) => None,
        };
        let object = ObjectName::of(ObjectKind::MailboxSync, &self.sync);
        left.extend(own.map(|why| Leftover::new(object, why)));
        left
    }
}

impl UninstallRun<'_, '_> {
    /// Lets go of what it can of a mailbox, unless an operator leads, which does so itself; gives what is left.
    pub(super) async fn look_at_mailbox(
        &mut self,
        sync: MailboxSync,
        pods: &[Arc<SyncPod>],
        leader: Option<&str>,
    ) -> Vec<Leftover> {
        let (uid, now) = (sync.uid().unwrap_or_default(), ClockReading::now());
        let status = sync.status.clone().unwrap_or_default();
        let known = liveness_of_attempt(self.liveness.remove(&uid), &status, pods, now);
        let liveness = known.unwrap_or_else(|| WorkerLiveness::first_seen(status.attempt, now.since_boot));
        self.liveness.extend(known.map(|liveness| (uid, liveness)));
        let mut mailbox = SuspendedMailbox::new(sync, pods, liveness, now);
        let deleted = self.options.delete_migrations && !self.options.dry_run;
        if mailbox.is_free() {
            return mailbox.leftovers(deleted);
        }
        if let Some(leader) = leader {
            let object = ObjectName::of(ObjectKind::MailboxSync, &mailbox.sync);
            return vec![Leftover::new(object, format!("the operator {leader} leads, and has not let go of it yet"))];
        }
        match self.settle_mailbox(&mut mailbox).await {
            // Somebody else wrote it: it is looked at again.
            Ok(()) | Err(ReconcileError::Outdated(_)) => mailbox.leftovers(deleted),
            Err(error) => {
                let object = ObjectName::of(ObjectKind::MailboxSync, &mailbox.sync);
                let why = if let ReconcileError::Api(error) = &error { words_of(error) } else { error.to_string() };
                vec![Leftover::new(object, why)]
            }
        }
    }

    /// Decides and acts until nothing is left to write, as an operator does.
    async fn settle_mailbox(&mut self, mailbox: &mut SuspendedMailbox<'_>) -> Result<(), ReconcileError> {
        for _ in 0..MAX_ROUNDS {
            let status = mailbox.status();
            let decision = mailbox.decide(&status);
            if decision.status != status {
                self.write_status(mailbox, decision.status).await?;
                continue;
            }
            let mut again = false;
            for action in &decision.actions {
                again |= self.act(mailbox, action).await?;
            }
            if !again {
                break;
            }
        }
        Ok(())
    }

    async fn write_status(
        &mut self,
        mailbox: &mut SuspendedMailbox<'_>,
        status: MailboxSyncStatus,
    ) -> Result<(), ReconcileError> {
        let settles = mailbox.status().slots.is_some() && status.slots.is_none();
        if self.options.dry_run {
            mailbox.sync.status = Some(status);
        } else if let Some(mut next) = effects::patch_status(&self.client, &mailbox.sync, &status).await? {
            slim_sync(&mut next);
            mailbox.sync = next;
        }
        if settles {
            self.tell(UninstallStep::Settle, &ObjectName::of(ObjectKind::MailboxSync, &mailbox.sync));
        }
        Ok(())
    }

    /// Carries out one action; true when it has to be decided again, since something was found out.
    async fn act(&mut self, mailbox: &mut SuspendedMailbox<'_>, action: &SyncAction) -> Result<bool, ReconcileError> {
        let namespace = mailbox.sync.namespace().unwrap_or_default();
        let pod =
            |name: &str| ObjectName { kind: ObjectKind::Pod, namespace: namespace.clone(), name: name.to_owned() };
        match action {
            SyncAction::StopPod { name, uid } => self.stop_pod(&pod(name), uid).await?,
            SyncAction::ReleasePod { name, uid } => {
                self.release_pod(&pod(name), uid).await?;
                mailbox.released_pods.insert(uid.clone());
                // The mailbox itself may go now.
                return Ok(false);
            }
            SyncAction::CheckNode => {
                let name = mailbox.sync.status.as_ref().and_then(|status| status.pod_name.as_deref());
                let pod = mailbox.pods.iter().find(|pod| pod.metadata.name.as_deref() == name);
                let Some(node) = pod.and_then(|pod| pod.spec.node_name.as_deref()) else { return Ok(false) };
                mailbox.node_out_of_service = self.is_node_out_of_service(node).await?;
                return Ok(mailbox.node_out_of_service);
            }
            SyncAction::ReleaseSync => {
                if !self.options.dry_run {
                    effects::release_sync(&self.client, &mailbox.sync).await?;
                }
                mailbox.released = true;
                self.tell(UninstallStep::Release, &ObjectName::of(ObjectKind::MailboxSync, &mailbox.sync));
            }
            // A finished pod that nothing holds is there for its log, and nothing starts while all is suspended.
            SyncAction::DeletePod { .. }
            | SyncAction::CheckSecrets
            | SyncAction::RequestSlots
            | SyncAction::KeepTokens
            | SyncAction::CreatePod => {}
        }
        Ok(false)
    }
}
