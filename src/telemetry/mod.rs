//! What the process says about itself.

pub mod api_calls;
pub mod health;
pub mod liveness;
pub mod logs;
pub mod metric_labels;
pub mod metrics;
