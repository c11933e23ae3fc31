//! Conditions, as the API conventions have them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The longest message that the API takes, characters.
const MAX_MESSAGE: usize = 1024;

/// Sets one condition among others. Its transition time moves only with its status.
#[must_use]
pub(crate) fn set_condition(
    mut conditions: Vec<Condition>,
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
    generation: i64,
    now: &Time,
) -> Vec<Condition> {
    let message: String = message.chars().take(MAX_MESSAGE).collect();
    let condition = Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: Some(generation),
        last_transition_time: now.clone(),
    };
    match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(old) if old.status == condition.status => {
            *old = Condition { last_transition_time: old.last_transition_time.clone(), ..condition };
        }
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
    conditions
}

/// True when a condition is there and true.
#[must_use]
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    conditions.iter().any(|c| c.type_ == type_ && c.status == "True")
}
