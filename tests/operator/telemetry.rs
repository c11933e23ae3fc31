//! What the operator's metrics say of a migration.

use mailferry_testkit::eventually;
use serde_json::json;

use crate::stage::{Ending, Stage};

#[tokio::test]
async fn metrics_tell_what_became_of_a_migration() {
    let stage = Stage::new().await;
    let bob = Stage::sync("acme", "bob");
    let _player = stage.play(move |sync, _| if sync == bob { Ending::Failed("Configuration") } else { Ending::Synced });
    stage.migration("acme", &["alice", "bob", "carol"], json!({"parallelism": 1})).await;
    stage.until_condition("acme", "Failed", "True").await;
    // The operator sees its own last write by its watch.
    let text = eventually("the migration's phase is told", async || {
        let text = stage.metrics.text().unwrap();
        if text.contains("mailferry_migrations{phase=\"Failed\"} 1\n") { Ok(text) } else { Err(text) }
    })
    .await;
    for line in [
        "mailferry_mailboxes{phase=\"Synced\"} 2",
        "mailferry_mailboxes{phase=\"Failed\"} 1",
        "mailferry_mailboxes_failing{class=\"Configuration\",side=\"none\"} 1",
        "mailferry_delta_syncs_missed 0",
        "mailferry_sync_duration_seconds_count{result=\"synced\"} 2",
        "mailferry_sync_duration_seconds_count{result=\"failed\"} 1",
        "mailferry_sync_errors_total{class=\"Configuration\",side=\"none\"} 1",
        "mailferry_messages_total 20",
        "mailferry_moved_bytes_total 4000",
        "mailferry_sync_queue_wait_seconds_count 3",
        "mailferry_syncs_queued 0",
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line} is not in\n{text}");
    }
    assert!(text.contains("mailferry_reconcile_duration_seconds_count{controller=\"MailboxSync\",result=\"ok\"}"));
}
