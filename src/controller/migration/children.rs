//! Makes, changes and removes a migration's MailboxSyncs, some at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Error, ResourceExt as _,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
};

use super::{
    csv_secrets,
    expand::WantedSync,
    orphans::{ChildStanding, TakenNames, child_standing},
    refused_writes::{IN_A_ROW, RoundResult, WriteRefusal},
    server_pin::is_same_server,
    take_over::take_over,
};
use crate::{
    api::{MailMigration, MailboxSync, MailboxSyncSpec},
    controller::{
        cached_objects::SYNC_FINALIZER, context::ControllerContext, error::ReconcileError, merge_patch,
        owner_reference, pod_builder,
    },
};

/// So many objects are written before the migration is looked at again: it may have been suspended.
const BATCH: usize = 500;
/// So many at a time.
const AT_ONCE: usize = 16;

/// One write of one MailboxSync.
enum ChildStep {
    /// Creates it, under this name.
    Create(String, WantedSync),
    /// Takes over one that nobody owns.
    TakeOver(Arc<MailboxSync>, WantedSync),
    /// Changes its spec.
    Patch(Arc<MailboxSync>, WantedSync),
    /// Deletes it. Its finalizer keeps it until its last pod's end is certain.
    Delete(Arc<MailboxSync>),
}

impl ChildStep {
    /// The MailboxSync's name, and the mailbox's.
    fn names(&self) -> (String, String) {
        match self {
            Self::Create(name, wanted) => (name.clone(), wanted.spec.mailbox.clone()),
            Self::TakeOver(sync, _) | Self::Patch(sync, _) | Self::Delete(sync) => {
                (sync.name_any(), sync.spec.mailbox.clone())
            }
        }
    }
}

/// The writes by which a migration's MailboxSyncs become what they should be, as many as are made by one reconciliation.
pub(crate) struct ChildSteps<'a> {
    existing: &'a BTreeMap<String, Arc<MailboxSync>>,
    /// Created before, and not shown by the watch yet.
    created: &'a BTreeSet<String>,
    /// Refused lately, and not tried in this reconciliation.
    left_out: &'a BTreeSet<String>,
    owner: String,
    /// What runs comes first: it may have to stop.
    urgent: Vec<ChildStep>,
    others: Vec<ChildStep>,
    /// How many more there are than are made by this reconciliation.
    left: usize,
    /// What can't be made, since something else has its name.
    taken_names: TakenNames,
}

/// How one step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StepEnd {
    /// A MailboxSync was created.
    Created,
    /// It can't be made yet: an object of that name is still there from before.
    Waits,
    /// It was made, and the watch will show it.
    Done,
}

/// How far the steps got.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ChildProgress {
    /// How many steps are left, those that have to wait included; those that were refused are not.
    pub left: usize,
    /// The names of the MailboxSyncs that were created: the watch does not show them yet.
    pub created: BTreeSet<String>,
    /// What can't be made, since something else has its name.
    pub taken_names: TakenNames,
    /// What the API server took and refused.
    pub round: RoundResult,
    /// Refusals since one was taken that name no object's own fault.
    refused_in_a_row: usize,
}

impl ChildProgress {
    /// Takes in how the step of a MailboxSync ended.
    fn record_end(&mut self, name: String, end: StepEnd) {
        self.refused_in_a_row = 0;
        match end {
            StepEnd::Created => {
                self.round.taken.insert(name.clone());
                self.created.insert(name);
            }
            StepEnd::Waits => self.left += 1,
            StepEnd::Done => drop(self.round.taken.insert(name)),
        }
    }

    /// Takes in that it was refused; true when no more need be tried.
    fn record_refusal(&mut self, name: String, refusal: WriteRefusal) -> bool {
        self.refused_in_a_row += usize::from(!refusal.is_own_fault());
        self.round.refused.insert(name, refusal);
        self.refused_in_a_row >= IN_A_ROW
    }
}

impl<'a> ChildSteps<'a> {
    /// No steps yet, for the MailboxSyncs that are there by name (`existing`) and those that were created and are not shown
    /// yet (`created`), but for those that are `left_out`.
    #[must_use]
    pub(crate) fn new(
        migration: &MailMigration,
        existing: &'a BTreeMap<String, Arc<MailboxSync>>,
        created: &'a BTreeSet<String>,
        left_out: &'a BTreeSet<String>,
    ) -> Self {
        let owner = migration.uid().unwrap_or_default();
        let (urgent, others, taken_names) = (Vec::new(), Vec::new(), TakenNames::default());
        Self { existing, created, left_out, owner, urgent, others, left: 0, taken_names }
    }

    /// Adds the step that makes this MailboxSync what it should be, where it is not.
    pub(crate) fn add_wanted(&mut self, name: String, wanted: WantedSync) {
        match self.existing.get(&name) {
            _ if self.left_out.contains(&name) => {}
            None if self.created.contains(&name) => {}
            None => self.add_deferrable(ChildStep::Create(name, wanted)),
            Some(sync) => match child_standing(sync, &self.owner, &wanted.spec) {
                ChildStanding::Going => self.add_deferrable(ChildStep::Create(name, wanted)),
                ChildStanding::Orphan => self.add_deferrable(ChildStep::TakeOver(Arc::clone(sync), wanted)),
                ChildStanding::InTheWay(why) => self.taken_names.add(name, &wanted.spec.mailbox, why),
                ChildStanding::Ours if sync.spec == wanted.spec => {}
                ChildStanding::Ours if has_attempt(sync) => {
                    self.urgent.push(ChildStep::Patch(Arc::clone(sync), wanted));
                }
                ChildStanding::Ours => self.add_deferrable(ChildStep::Patch(Arc::clone(sync), wanted)),
            },
        }
    }

    /// Adds the step that deletes a MailboxSync, unless it is gone or going.
    pub(crate) fn add_removal(&mut self, name: &str) {
        match self.existing.get(name) {
            _ if self.left_out.contains(name) => {}
            Some(sync) if sync.metadata.deletion_timestamp.is_some() => {}
            Some(sync) if has_attempt(sync) => self.urgent.push(ChildStep::Delete(Arc::clone(sync))),
            Some(sync) => self.add_deferrable(ChildStep::Delete(Arc::clone(sync))),
            None => {}
        }
    }

    fn add_deferrable(&mut self, step: ChildStep) {
        if self.others.len() < BATCH {
            self.others.push(step);
        } else {
            self.left += 1;
        }
    }

    /// Makes the steps, 16 at a time, those of running attempts first. One that is refused stops no other, unless many are
    /// refused in a row. Gives how far it got, and the error that ended it early where the API server did not answer.
    pub(crate) async fn run(
        self,
        context: &ControllerContext,
        migration: &MailMigration,
    ) -> (ChildProgress, Option<ReconcileError>) {
        let steps = self.urgent.into_iter().chain(self.others);
        let runs: Vec<_> =
            steps.map(|step| async move { (step.names(), run_step(context, migration, step).await) }).collect();
        let left = self.left + runs.len();
        let mut progress = ChildProgress { left, taken_names: self.taken_names, ..ChildProgress::default() };
        let (mut runs, mut under_way) = (runs.into_iter(), FuturesUnordered::new());
        let (mut stopped, mut failure) = (false, None);
        loop {
            let room = if stopped { 0 } else { AT_ONCE.saturating_sub(under_way.len()) };
            under_way.extend(runs.by_ref().take(room));
            // Those that are under way when it is stopped are waited for.
            let Some(((name, mailbox), end)) = under_way.next().await else { break };
            progress.left -= 1;
            match end {
                Ok(end) => progress.record_end(name, end),
                Err(error) => {
                    if let Some(refusal) = WriteRefusal::from_reconcile_error(&mailbox, &error) {
                        progress.round.stopped |= progress.record_refusal(name, refusal);
                        stopped |= progress.round.stopped;
                    } else {
                        progress.left += 1;
                        failure = failure.or(Some(error));
                        stopped = true;
                    }
                }
            }
        }
        (progress, failure)
    }
}

fn has_attempt(sync: &MailboxSync) -> bool {
    sync.status.as_ref().is_some_and(|status| status.slots.is_some())
}

/// True when a mailbox would be synced from or to another server than before.
fn moves(before: &MailboxSyncSpec, wanted: &MailboxSyncSpec) -> bool {
    let sides = [(&before.source, &wanted.source), (&before.destination, &wanted.destination)];
    sides.into_iter().any(|(before, wanted)| !is_same_server(&before.server, &wanted.server))
}

/// Makes one step.
async fn run_step(
    context: &ControllerContext,
    migration: &MailMigration,
    step: ChildStep,
) -> Result<StepEnd, ReconcileError> {
    let namespace = migration.namespace().unwrap_or_default();
    let api: Api<MailboxSync> = Api::namespaced(context.client.clone(), &namespace);
    match step {
        ChildStep::Create(name, wanted) => {
            if let Some(secret) = &wanted.secret {
                csv_secrets::create_mailbox_secret(context, migration, secret).await?;
            }
            let mut sync = MailboxSync::new(&name, wanted.spec);
            sync.metadata = ObjectMeta {
                name: Some(name),
                namespace: Some(namespace),
                finalizers: Some(vec![SYNC_FINALIZER.to_owned()]),
                owner_references: Some(vec![owner_reference::controller_reference(migration)]),
                ..ObjectMeta::default()
            };
            match api.create(&PostParams::default(), &sync).await {
                Ok(_) => Ok(StepEnd::Created),
                // There, or still there from before: the watch will tell.
                Err(Error::Api(answer)) if answer.code == 409 => Ok(StepEnd::Waits),
                Err(error) => Err(error.into()),
            }
        }
        ChildStep::TakeOver(sync, wanted) => {
            if let Some(secret) = &wanted.secret {
                csv_secrets::create_mailbox_secret(context, migration, secret).await?;
            }
            let taken = take_over(context, migration, &sync, &wanted.spec).await?;
            Ok(if taken { StepEnd::Done } else { StepEnd::Waits })
        }
        ChildStep::Patch(sync, wanted) => {
            if let Some(secret) = &wanted.secret {
                csv_secrets::create_mailbox_secret(context, migration, secret).await?;
            }
            let Some(patch) = merge_patch::diff(&sync.spec, &wanted.spec)? else { return Ok(StepEnd::Done) };
            let mut body = serde_json::json!({"metadata": {"uid": sync.uid()}, "spec": patch});
            if moves(&sync.spec, &wanted.spec) {
                // It may have begun since it was seen: then it stays where it is.
                body["metadata"]["resourceVersion"] = sync.resource_version().into();
            }
            match api.patch(&sync.name_any(), &PatchParams::default(), &Patch::Merge(body)).await {
                Ok(_) => {}
                // Gone, or another of that name: the watch will tell.
                Err(Error::Api(answer)) if matches!(answer.code, 404 | 409) => return Ok(StepEnd::Waits),
                Err(error) => return Err(error.into()),
            }
            delete_old_secrets(context, &sync, &wanted).await?;
            Ok(StepEnd::Done)
        }
        ChildStep::Delete(sync) => {
            let preconditions = Some(Preconditions { uid: sync.uid(), resource_version: None });
            let params = DeleteParams { preconditions, ..DeleteParams::default() };
            match api.delete(&sync.name_any(), &params).await {
                Ok(_) => Ok(StepEnd::Done),
                Err(Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(StepEnd::Done),
                Err(error) => Err(error.into()),
            }
        }
    }
}

/// Removes the Secret that a mailbox had before. A pod that runs may still read it: then it stays until the migration
/// goes, which owns it.
async fn delete_old_secrets(
    context: &ControllerContext,
    sync: &MailboxSync,
    wanted: &WantedSync,
) -> Result<(), ReconcileError> {
    if sync.status.as_ref().is_some_and(|status| status.slots.is_some()) {
        return Ok(());
    }
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &sync.namespace().unwrap_or_default());
    let kept = pod_builder::required_secrets(&wanted.spec);
    let ours = format!("{}-", sync.name_any());
    for name in pod_builder::required_secrets(&sync.spec)
        .into_keys()
        .filter(|name| name.starts_with(&ours) && !kept.contains_key(name))
    {
        match api.delete(&name, &DeleteParams::default()).await {
            Err(Error::Api(answer)) if answer.code == 404 => {}
            answer => drop(answer?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing;

    fn steps_for(sync: &MailboxSync) -> (usize, TakenNames) {
        let migration = testing::migration("m");
        let name = sync.name_any();
        let existing = BTreeMap::from([(name.clone(), Arc::new(sync.clone()))]);
        let nothing = BTreeSet::new();
        let mut steps = ChildSteps::new(&migration, &existing, &nothing, &nothing);
        let wanted = WantedSync { spec: testing::mailbox_sync(&migration, "a").spec, secret: None };
        steps.add_wanted(name, wanted);
        (steps.urgent.len() + steps.others.len() + steps.left, steps.taken_names)
    }

    #[test]
    fn what_has_a_wanted_name_and_can_not_be_taken_over_is_told_and_not_tried_for_ever() {
        let ours = testing::mailbox_sync(&testing::migration("m"), "a");
        assert_eq!(steps_for(&ours), (0, TakenNames::default()));
        let mut orphan = ours;
        orphan.metadata.owner_references = None;
        assert_eq!(steps_for(&orphan), (1, TakenNames::default()), "it is taken over");
        orphan.spec.suspend = true;
        let (steps, taken) = steps_for(&orphan);
        assert_eq!((steps, taken.count()), (0, 1));
        assert!(taken.message().unwrap().contains("m-a"));
    }

    #[test]
    fn what_waits_is_left_to_do_and_what_was_made_is_remembered() {
        let mut progress = ChildProgress { left: 3, ..ChildProgress::default() };
        for (name, end) in [("a", StepEnd::Created), ("b", StepEnd::Waits), ("c", StepEnd::Done), ("d", StepEnd::Waits)]
        {
            progress.record_end(name.to_owned(), end);
        }
        assert_eq!((progress.left, &progress.created), (5, &["a".to_owned()].into()));
        assert_eq!(progress.round.taken, ["a".to_owned(), "c".to_owned()].into());
    }

    #[test]
    fn refusals_stop_the_rest_only_when_there_are_many_in_a_row_that_are_no_objects_own_fault() {
        let mut progress = ChildProgress::default();
        let refuse = |progress: &mut ChildProgress, number: usize, code| {
            let refusal = WriteRefusal { mailbox: number.to_string(), code, message: String::new() };
            progress.record_refusal(number.to_string(), refusal)
        };
        assert!(!(0..100).any(|number| refuse(&mut progress, number, 422)), "each is its own failure");
        assert!(!(0..IN_A_ROW - 1).any(|number| refuse(&mut progress, number, 403)));
        progress.record_end("taken".to_owned(), StepEnd::Created);
        assert!(!(0..IN_A_ROW - 1).any(|number| refuse(&mut progress, number, 403)));
        assert!(refuse(&mut progress, 0, 500));
        assert_eq!(progress.round.refused.len(), 100);
    }
}
