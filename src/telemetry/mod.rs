//! What the process says about itself.

pub mod api_calls;
pub mod facts;
pub mod health;
pub mod logs;
pub mod metrics;
