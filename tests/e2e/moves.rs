//! Nothing fails.

use crate::{
    cluster::cluster,
    migration::{Migration, Setup},
};

#[tokio::test]
async fn several_mailboxes_are_moved_by_pods() {
    let Some(cluster) = cluster().await else { return };
    let setup = Setup { mailboxes: vec!["al", "bob", "cleo", "dario"], ..Setup::default() };
    let migration = Migration::apply(&cluster, setup).await;
    for sync in migration.completes_with_nothing_lost_and_nothing_doubled().await {
        let status = sync.status.unwrap();
        assert_eq!((status.attempt, status.failures.unwrap_or_default().sync), (1, 0), "{:?}", status.last_error);
    }
}
