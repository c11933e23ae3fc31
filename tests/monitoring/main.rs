//! What people see of the operator: alerts, the dashboard, and how the chart ships them. Prometheus and promtool are
//! real, and so are the metrics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helpers end it where it fails")]

mod alerts;
mod chart;
mod dashboard;
mod files;
mod metrics;
mod operator;
mod prometheus;
mod queries;
