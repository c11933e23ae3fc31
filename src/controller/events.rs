//! The Kubernetes Events that the operator publishes about its objects.

use kube::{
    Resource, ResourceExt as _,
    runtime::events::{Event, EventType, Recorder},
};

use crate::{api::mailbox_sync::StopReason, terminal_text::harmless};

/// An Event to be published about an object, once its status is written: never more often than attempts end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventNote {
    /// Normal or Warning.
    pub severity: EventType,
    /// The Event's reason, of a fixed set: one word in `CamelCase`.
    pub reason: &'static str,
    /// What happened, for people.
    pub message: String,
}

impl EventNote {
    /// An Event of type Warning.
    pub(crate) fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { severity: EventType::Warning, reason, message: message.into() }
    }

    /// The Event for an attempt that is asked to stop; none where a person asked for it, or its time is over.
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
            StopReason::Suspended | StopReason::Cancelled | StopReason::Removed | StopReason::WindowClosed => {
                return None;
            }
        };
        Some(Self::warning(reason, message))
    }
}

/// Publishes Events about an object. One that the API server does not take is lost: it only tells people.
pub(crate) async fn publish_events<K: Resource<DynamicType = ()>>(
    recorder: &Recorder,
    about: &K,
    events: &[EventNote],
) {
    for note in events {
        let event = Event {
            type_: note.severity,
            reason: note.reason.to_owned(),
            // Servers and pods have a say in it.
            note: Some(harmless(&note.message).chars().take(900).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, &about.object_ref(&())).await {
            tracing::debug!(name = about.name_any(), %error, "an Event was not taken");
        }
    }
}
