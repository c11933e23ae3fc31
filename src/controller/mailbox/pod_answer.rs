//! What it means that the API server makes no pod. Pure.

use kube::core::Status;

/// Why the API server makes no pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CreateRefusal {
    /// A pod of that name is there.
    NameTaken,
    /// The namespace takes no pods now: a quota or a policy. A quota that many count against at once answers 409 like a
    /// name that is taken, but for the reason.
    Namespace,
    /// What is asked for is wrong.
    Pod,
}

/// Why no pod was made; none where the API server failed, so that another try may work at once.
#[must_use]
pub(super) fn create_refusal(answer: &Status) -> Option<CreateRefusal> {
    match answer.code {
        409 if answer.reason == "AlreadyExists" => Some(CreateRefusal::NameTaken),
        403 | 409 => Some(CreateRefusal::Namespace),
        400 | 422 => Some(CreateRefusal::Pod),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_no_name_that_is_taken_whatever_it_answers_with() {
        let refusal =
            |code, reason: &str| create_refusal(&Status { code, reason: reason.to_owned(), ..Status::default() });
        assert_eq!(refusal(409, "AlreadyExists"), Some(CreateRefusal::NameTaken));
        assert_eq!(refusal(409, "Conflict"), Some(CreateRefusal::Namespace));
        assert_eq!(refusal(403, "Forbidden"), Some(CreateRefusal::Namespace));
        assert_eq!(refusal(422, "Invalid"), Some(CreateRefusal::Pod));
        assert_eq!(refusal(400, "BadRequest"), Some(CreateRefusal::Pod));
        assert_eq!(refusal(500, "InternalError"), None);
        assert_eq!(refusal(429, "TooManyRequests"), None);
    }
}
