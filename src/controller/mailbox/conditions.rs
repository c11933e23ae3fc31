//! A mailbox's conditions: what kstatus, `kubectl wait` and people read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::observe::{Hold, Observed};
use crate::{
    api::{MailboxSyncStatus, mailbox_sync::SyncPhase},
    controller::condition,
};

/// Sets the conditions that go with the rest of the status.
pub fn set(o: &Observed<'_>, status: &mut MailboxSyncStatus) {
    let phase = status.phase.unwrap_or(SyncPhase::Pending);
    let error = status.last_error.as_ref();
    let failing = || {
        error.map_or_else(
            || "see status".to_owned(),
            |e| match &e.advice {
                Some(advice) => format!("{}: {}. {advice}", e.class, e.message),
                None => format!("{}: {}", e.class, e.message),
            },
        )
    };
    let (ready, reason, message) = match phase {
        SyncPhase::Pending => ("True", "Pending", "waiting to start".to_owned()),
        SyncPhase::Queued => match &o.hold {
            Some(Hold::DestinationTaken) => (
                "True",
                "DestinationTaken",
                "another migration has this destination account; this one waits".to_owned(),
            ),
            Some(Hold::Migration) => ("True", "Suspended", "the migration is suspended".to_owned()),
            _ => ("True", "Queued", "waiting for its turn".to_owned()),
        },
        SyncPhase::Running => ("True", "Running", "an attempt runs".to_owned()),
        SyncPhase::Synced => ("True", "Synced", "everything is at the destination".to_owned()),
        SyncPhase::Suspended => ("True", "Suspended", "stopped at a checkpoint".to_owned()),
        SyncPhase::Cancelled => ("True", "Cancelled", "stopped for good on request".to_owned()),
        SyncPhase::Backoff => match error {
            Some(_) => ("False", "Backoff", failing()),
            None => ("False", "PodLost", "the cluster took the pod; another attempt follows".to_owned()),
        },
        SyncPhase::Stalled => {
            let destination = match (&o.hold, error) {
                (Some(Hold::DestinationNotAllowed(why)), Some(error)) => error.message == why.what,
                _ => false,
            };
            ("False", if destination { "DestinationNotAllowed" } else { "Stalled" }, failing())
        }
        SyncPhase::Failed => ("False", "Failed", failing()),
    };
    let conditions = std::mem::take(&mut status.conditions);
    let now = Time(o.now);
    let mut conditions = condition::set(conditions, "Ready", ready, reason, &message, o.generation, &now);
    if matches!(phase, SyncPhase::Stalled | SyncPhase::Failed) {
        conditions = condition::set(conditions, "Stalled", "True", reason, &message, o.generation, &now);
    } else {
        conditions.retain(|c: &Condition| c.type_ != "Stalled");
    }
    status.conditions = conditions;
}
