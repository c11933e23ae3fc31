//! An operator that ends in the middle, at each write that it makes; and two that work at once.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::SeqCst},
};

use futures::{StreamExt as _, stream};
use http::{Method, Request};
use kube::{Client, client::Body};
use mailferry::api::MailMigration;
use serde_json::json;
use tokio::sync::Notify;

use crate::stage::{Answer, Ending, Stage, condition, send};

/// What becomes of the write at which the operator ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// It never reaches the API server.
    Lost,
    /// It is done, but the operator never learns of it.
    Done,
}

/// Lets so many writes pass; the next one is the last, and nothing is heard after it.
#[derive(Clone)]
struct DiesAt {
    left: Arc<AtomicI64>,
    last: Last,
    died: Arc<Notify>,
}

impl DiesAt {
    fn meet(&self, client: Client, request: Request<Body>) -> Answer {
        let reads = request.method() == Method::GET;
        let left = if reads { self.left.load(SeqCst) } else { self.left.fetch_sub(1, SeqCst) };
        if left > 0 || (reads && left == 0) {
            return send(client, request);
        }
        let died = Arc::clone(&self.died);
        let last = (left == 0 && self.last == Last::Done).then(|| send(client, request));
        Box::pin(async move {
            if let Some(last) = last {
                drop(last.await);
            }
            died.notify_one();
            std::future::pending().await
        })
    }
}

/// Runs a migration whose first operator ends at its write number `at`. True when it made so many.
async fn dies_at(at: i64, last: Last) -> bool {
    let mut stage = Stage::idle().await;
    let _player = stage.play(|_, _| Ending::Synced);
    stage.secret("csv", &[("m.csv", "name,source_password,destination_password\nbob,b1,b2\n")]).await;
    stage
        .migration(
            "acme",
            &["alice"],
            json!({"mailboxSecrets": [{"name": "csv", "key": "m.csv"}], "succeededPodsLimit": 5}),
        )
        .await;
    let how = DiesAt { left: Arc::new(AtomicI64::new(at)), last, died: Arc::default() };
    let meets = how.clone();
    stage.start_through(move |client, request| meets.meet(client, request)).await;
    let died = tokio::select! {
        () = how.died.notified() => true,
        _ = stage.until_condition("acme", "Complete", "True") => false,
    };
    stage.kill().await;
    stage.start().await;
    let done = stage.until_condition("acme", "Complete", "True").await;
    assert_eq!(done.status.unwrap().mailboxes.unwrap().synced, 2, "write {at} {last:?}");
    for sync in stage.syncs().await {
        let status = sync.status.unwrap();
        let found = (status.attempt, status.syncs, status.slots, status.failures);
        assert_eq!(found, (1, 1, None, None), "write {at} {last:?}: each attempt ran once");
    }
    assert_eq!(stage.pods().await.len(), 2, "write {at} {last:?}");
    died
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_may_end_at_any_write_and_the_next_one_goes_on() {
    for last in [Last::Lost, Last::Done] {
        let runs = stream::iter(0..60).map(|at| dies_at(at, last)).buffered(6);
        let died = runs.take_while(|died| futures::future::ready(*died)).count().await;
        assert!((15..60).contains(&died), "two mailboxes took {died} writes");
    }
}

#[tokio::test]
async fn two_operators_at_once_make_no_attempt_twice() {
    let mut stage = Stage::new().await;
    stage.start().await;
    let _player = stage.play(|_, _| Ending::Synced);
    stage.migration("acme", &["a", "b", "c", "d", "e", "f"], json!({"parallelism": 3, "succeededPodsLimit": 5})).await;
    let is = |m: &MailMigration| condition(m, "Complete").is_some_and(|c| c.0 == "True");
    stage.until("acme", is).await;
    for sync in stage.syncs().await {
        let status = sync.status.unwrap();
        assert_eq!((status.attempt, status.syncs), (1, 1));
    }
    assert_eq!(stage.pods().await.len(), 6);
}
