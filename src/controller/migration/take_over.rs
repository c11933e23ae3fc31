//! Takes over a MailboxSync that nobody owns.

use jiff::Timestamp;
use kube::{
    Api, Error, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::orphans::{ChildStanding, child_standing, inherited_status};
use crate::{
    api::{MailMigration, MailboxSync, MailboxSyncSpec},
    controller::{
        cached_objects::SYNC_FINALIZER, context::ControllerContext, error::ReconcileError, merge_patch, owner_reference,
    },
};

/// Takes over an orphan, unless it is another by now; true when it was. Its status comes first: while nobody owns it,
/// nothing starts.
///
/// # Errors
/// When the API server refused, or did not answer.
pub(super) async fn take_over(
    context: &ControllerContext,
    migration: &MailMigration,
    orphan: &MailboxSync,
    wanted: &MailboxSyncSpec,
) -> Result<bool, ReconcileError> {
    let api: Api<MailboxSync> = Api::namespaced(context.client.clone(), &migration.namespace().unwrap_or_default());
    let name = orphan.name_any();
    // With its checkpoint, which the cache does not have.
    let Some(found) = api.get_opt(&name).await? else { return Ok(false) };
    let owner = migration.uid().unwrap_or_default();
    if found.uid() != orphan.uid() || child_standing(&found, &owner, wanted) != ChildStanding::Orphan {
        return Ok(false);
    }
    let old = found.status.clone().unwrap_or_default();
    let status = inherited_status(&old, Timestamp::now());
    let patch = match &found.status {
        Some(old) => merge_patch::diff(old, &status)?.unwrap_or_default(),
        None => serde_json::to_value(&status)?,
    };
    let body = json!({"metadata": {"resourceVersion": found.resource_version(), "uid": found.uid()}, "status": patch});
    let answer = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&body)).await;
    let Some(found) = unless_changed(answer)? else { return Ok(false) };
    let ours = SYNC_FINALIZER.to_owned();
    let mut finalizers: Vec<String> = found.finalizers().to_vec();
    if !finalizers.contains(&ours) {
        finalizers.push(ours);
    }
    let body = json!({"metadata": {
        "resourceVersion": found.resource_version(),
        "uid": found.uid(),
        "finalizers": finalizers,
        "ownerReferences": [owner_reference::controller_reference(migration)],
    }});
    let answer = api.patch(&name, &PatchParams::default(), &Patch::Merge(&body)).await;
    let Some(mut taken) = unless_changed(answer)? else { return Ok(false) };
    context.caches.shared_parts.slim_sync(&mut taken);
    context.written.record(&taken);
    tracing::info!(name, attempt = status.attempt, "a MailboxSync without an owner was taken over");
    Ok(true)
}

/// None where it is gone, or was written meanwhile: the watch will tell.
fn unless_changed(answer: Result<MailboxSync, Error>) -> Result<Option<MailboxSync>, ReconcileError> {
    match answer {
        Ok(sync) => Ok(Some(sync)),
        Err(Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
