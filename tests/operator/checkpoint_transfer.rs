//! `mailferry checkpoint export` and `import` against a real API server.

use kube::api::DeleteParams;
use mailferry::{
    api::{MailMigration, MailboxSync},
    commands::checkpoint::{
        archive::{CheckpointArchive, ImportRefusal, ImportVerdict},
        transfer::{export_checkpoints, import_checkpoints},
    },
    sync::checkpoint::Checkpoint,
};
use serde_json::json;

use crate::stage::{Ending, Stage};

#[tokio::test]
async fn checkpoints_of_a_migration_that_is_gone_come_into_the_mailboxes_of_the_next_one_before_their_first_attempt() {
    let stage = Stage::new().await;
    let (alice, bob) = (Stage::sync("acme", "alice"), Stage::sync("acme", "bob"));
    let checkpoint = Checkpoint { fingerprint: "f".into(), ..Checkpoint::default() }.encode_text().unwrap();
    stage.migration("acme", &["alice", "bob"], json!({"parallelism": 2})).await;
    for name in [&alice, &bob] {
        stage.running(name, 1).await;
        stage.report(name, 1, 2, json!({"checkpoint": checkpoint, "flushedAttempt": 1})).await;
        stage.ends(name, 1, Ending::Synced).await;
        stage.until_phase(name, "Synced").await;
    }
    let client = &stage.rig.client;
    let archive = export_checkpoints(client, stage.rig.namespace.clone(), Some("acme")).await.unwrap();
    let archive = CheckpointArchive::read(&archive.write().unwrap()).unwrap();
    assert_eq!(archive.checkpoints.len(), 2);
    let other = export_checkpoints(client, stage.rig.namespace.clone(), Some("other")).await.unwrap();
    assert!(other.checkpoints.is_empty());

    let import = async |dry_run| import_checkpoints(client, &stage.rig.namespace, &archive, dry_run).await.unwrap();
    let has_own = ImportVerdict::Refused(ImportRefusal::HasCheckpoint);
    assert_eq!(import(false).await, [has_own, has_own]);
    stage.api::<MailMigration>().delete("acme", &DeleteParams::default()).await.unwrap();
    stage.until_gone::<MailboxSync>(&alice).await;
    stage.until_gone::<MailboxSync>(&bob).await;
    stage.until_gone::<MailMigration>("acme").await;
    stage.migration("acme", &["alice"], json!({"suspend": true, "offlineGrace": "10s"})).await;
    stage.until_phase(&alice, "Suspended").await;
    let gone = ImportVerdict::Refused(ImportRefusal::NoMailboxSync);
    assert_eq!(import(true).await, [ImportVerdict::Imported, gone], "in the order of their names");
    assert_eq!(import(false).await, [ImportVerdict::Imported, gone]);
    assert_eq!(import(false).await, [ImportVerdict::ThereAlready, gone]);
    let status = stage.api::<MailboxSync>().get(&alice).await.unwrap().status.unwrap();
    assert_eq!(status.worker.unwrap().checkpoint, Some(checkpoint));
    // It waits for pods of before, with the checkpoint in place.
    stage.change("acme", json!({"suspend": false})).await;
    let waits = stage.until_phase(&alice, "Pending").await;
    let wait = waits.next_attempt_at.unwrap().0.duration_since(waits.inherited.unwrap().at.0);
    assert_eq!((wait.as_secs(), waits.attempt), (100, 0));
}
