//! What a reconciliation of one mailbox carries along, and how it writes the status.

use std::sync::Arc;

use jiff::Timestamp;
use kube::{Api, ResourceExt as _};

use super::{effects, observe::SecretsSeen, slot_request};
use crate::{
    api::{MailboxSync, MailboxSyncStatus},
    controller::{admission::SlotRequest, cache::NamespacedName, context::ControllerContext, error::ReconcileError},
};

/// What one reconciliation finds out as it goes on.
pub(super) struct ReconcileState {
    /// The MailboxSync's namespace and name.
    pub name: NamespacedName,
    /// Its UID.
    pub uid: String,
    /// What is known of its Secrets.
    pub secrets: SecretsSeen,
    /// True when its pod's node was found to be out of service.
    pub node_out_of_service: bool,
    /// True when the mailbox was read since its worker's last report was missing.
    pub last_report_sought: bool,
}

/// Writes what changed of a status, and only to the version that was decided on; gives the object as it is then, or nothing
/// where there was nothing to write.
pub(super) async fn write_status(
    context: &ControllerContext,
    sync: &MailboxSync,
    status: &MailboxSyncStatus,
) -> Result<Option<Arc<MailboxSync>>, ReconcileError> {
    let Some(mut next) = effects::patch_status(&context.client, sync, status).await? else { return Ok(None) };
    context.caches.shared_parts.slim_sync(&mut next);
    context.written.record(&next);
    let (uid, empty) = (sync.uid().unwrap_or_default(), MailboxSyncStatus::default());
    context.sync_metrics.count_status_change(&uid, sync.status.as_ref().unwrap_or(&empty), status, Timestamp::now());
    Ok(Some(Arc::new(next)))
}

/// Reads a mailbox as it is now; none when it is gone. What the watch still brings of before is not decided on any more.
pub(super) async fn read_afresh(
    context: &ControllerContext,
    state: &ReconcileState,
) -> Result<Option<Arc<MailboxSync>>, ReconcileError> {
    let api: Api<MailboxSync> = Api::namespaced(context.client.clone(), &state.name.namespace);
    let Some(mut now) = api.get_opt(&state.name.name).await? else { return Ok(None) };
    if now.uid().as_ref() != Some(&state.uid) {
        return Ok(None);
    }
    context.caches.shared_parts.slim_sync(&mut now);
    context.written.record(&now);
    Ok(Some(Arc::new(now)))
}

/// The request for slots of a mailbox, as it stands.
pub(super) fn current_slot_request(context: &ControllerContext, sync: &MailboxSync, held: Option<i32>) -> SlotRequest {
    let migration = context.caches.migration_of(sync);
    let spec = migration.as_ref().map(|migration| &migration.spec);
    slot_request::slot_request(sync, spec, &context.config, held)
}
