//! Why a reconciliation ended early: it is tried again.

/// Why an object could not be looked after now.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server refused, or did not answer.
    #[error("{0}")]
    Api(#[from] kube::Error),
    /// What should be written can't be.
    #[error("a status can't be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}
