//! Migrations by the operator and its pods on a real node, between two mail servers outside of the cluster, while one part
//! after the other fails: nothing may be lost, and nothing doubled.
//!
//! They start a node of their own where this machine can run one (root, Linux, what scripts/install.sh installs), and
//! say so where it can't: by "SKIPPED", or with `E2E_REQUIRED=1` by a failure. The operator is installed by the chart, with the image that `make image` left where
//! `E2E_ARCHIVE` says, and one of the debug build otherwise.
//!
//! With `E2E_KUBECONFIG` they run against that cluster instead, which must have the image `E2E_IMAGE` and reach this
//! machine at `E2E_ADDRESS`; what needs a hand on the node is left out there. The release `mailferry` in the namespace
//! `mailferry-system` is theirs, and stays. For kind:
//!
//! ```sh
//! make image && kind create cluster --kubeconfig /tmp/kind && kind load image-archive target/image/mailferry.tar
//! E2E_KUBECONFIG=/tmp/kind E2E_IMAGE=ghcr.io/mailferry/mailferry:0.1.0 E2E_ADDRESS=172.18.0.1 cargo test --test e2e
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helpers end it where it fails")]

mod cluster;
mod faults;
mod migration;
mod moves;
mod release;
