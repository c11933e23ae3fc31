//! What people are told by Kubernetes Events.

use kube::{
    Resource, ResourceExt as _,
    runtime::events::{Event, EventType, Recorder},
};

use crate::api::mailbox_sync::StopReason;

/// Something that people are told by an Event; never more often than attempts end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventNote {
    /// True for a Warning.
    pub warning: bool,
    /// One of a fixed set of reasons.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl EventNote {
    /// A Warning.
    pub(crate) fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { warning: true, reason, message: message.into() }
    }

    /// What is told when an attempt is asked to stop.
    #[must_use]
    pub(crate) fn for_stop(reason: StopReason) -> Option<Self> {
        let (reason, message) = match reason {
            StopReason::Deadline => (
                "DeadlineExceeded",
                "the attempt reached its deadline: it saves its checkpoint, and a new one goes on from there",
            ),
            StopReason::NoProgress => {
                ("NoProgress", "the attempt reports, but moves no byte and waits for nothing: a new one takes over")
            }
            StopReason::NotStarted => ("PodNotStarted", "the attempt's pod did not run within 10 minutes"),
            StopReason::LostContact => {
                ("LostContact", "the attempt's pod reported nothing for longer than offlineGrace")
            }
            StopReason::NotAllowed => (
                "NotAllowed",
                "the operator's configuration does not allow this sync any more: the attempt stops at its checkpoint",
            ),
            StopReason::Suspended | StopReason::Cancelled | StopReason::Removed => return None,
        };
        Some(Self::warning(reason, message))
    }
}

/// Tells people. A lost Event is only a line less.
pub(crate) async fn publish_events<K: Resource<DynamicType = ()>>(recorder: &Recorder, about: &K, notes: &[EventNote]) {
    for note in notes {
        let event = Event {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason.to_owned(),
            note: Some(note.message.chars().take(900).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, &about.object_ref(&())).await {
            tracing::debug!(name = about.name_any(), %error, "an Event was not taken");
        }
    }
}
