//! Why a reconciliation ended early: it is tried again.

/// Why an object could not be looked after now.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server refused, or did not answer.
    #[error("{0}")]
    Api(#[from] kube::Error),
    /// Somebody else wrote the object meanwhile: what was decided on is old.
    #[error("decided on an older version: {0}")]
    Outdated(#[source] kube::Error),
    /// What should be written can't be.
    #[error("a status can't be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl ReconcileError {
    /// True when the API server did not say that it refused: what was asked of it may have been done, or may yet be.
    #[must_use]
    pub(crate) fn is_unanswered(&self) -> bool {
        match self {
            // An error of the API server itself, such as a timeout within it, may come after the write.
            Self::Api(kube::Error::Api(answer)) => answer.code >= 500,
            Self::Api(_) => true,
            Self::Outdated(_) | Self::Json(_) => false,
        }
    }

    /// The error of a write that names the version of the object that was decided on.
    #[must_use]
    pub(crate) fn of_versioned_write(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(answer) if answer.code == 409 => Self::Outdated(error),
            _ => Self::Api(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn what_was_not_refused_may_have_been_done() {
        let answer = |code| ReconcileError::Api(kube::Error::Api(Status::failure("x", "y").with_code(code).boxed()));
        for refused in [400, 403, 404, 409, 422, 429] {
            assert!(!answer(refused).is_unanswered(), "{refused}");
        }
        for unknown in [500, 503, 504] {
            assert!(answer(unknown).is_unanswered(), "{unknown}");
        }
        let silence = crate::error::Error::network("the API server did not answer within 30 s");
        assert!(ReconcileError::Api(kube::Error::Service(silence.into())).is_unanswered());
    }
}
