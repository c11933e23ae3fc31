//! Conditions of an object's status, as the API conventions of Kubernetes have them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The longest message that the API takes, characters.
const MAX_MESSAGE: usize = 1024;

/// The conditions of one object while they are written for one generation of its spec.
pub(crate) struct ConditionList {
    conditions: Vec<Condition>,
    generation: i64,
    now: Time,
}

impl ConditionList {
    /// The conditions as they were, of an object whose spec has this generation now.
    #[must_use]
    pub(crate) const fn new(conditions: Vec<Condition>, generation: i64, now: Time) -> Self {
        Self { conditions, generation, now }
    }

    /// Sets the condition of a type: its status (True, False or Unknown), its reason in one word, and a message for people,
    /// cut to what the API takes. Its transition time moves only with its status.
    pub(crate) fn set(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let condition = Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.chars().take(MAX_MESSAGE).collect(),
            observed_generation: Some(self.generation),
            last_transition_time: self.now.clone(),
        };
        match self.conditions.iter_mut().find(|c| c.type_ == type_) {
            Some(old) if old.status == condition.status => {
                *old = Condition { last_transition_time: old.last_transition_time.clone(), ..condition };
            }
            Some(old) => *old = condition,
            None => self.conditions.push(condition),
        }
    }

    /// Removes the condition of a type, if it is there.
    pub(crate) fn remove(&mut self, type_: &str) {
        self.conditions.retain(|condition| condition.type_ != type_);
    }

    /// True when the condition of a type is there with this status.
    #[must_use]
    pub(crate) fn has_status(&self, type_: &str, status: &str) -> bool {
        self.conditions.iter().any(|condition| condition.type_ == type_ && condition.status == status)
    }

    /// The conditions as they are to be written.
    #[must_use]
    pub(crate) fn into_conditions(self) -> Vec<Condition> {
        self.conditions
    }
}

/// True when a condition is there and true.
#[must_use]
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    conditions.iter().any(|c| c.type_ == type_ && c.status == "True")
}
