//! An API server that leaves requests unanswered: whether it did what it was asked is not known.

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use futures::{FutureExt as _, future::pending};
use http::{Method, Request};
use kube::client::Body;
use serde_json::json;

use crate::stage::{Ending, Stage, send};

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    /// It never arrives.
    Lost,
    /// It is done, and nobody says so.
    Done,
}

/// Syncs so many mailboxes by an operator whose writes have this fate, by their number; gives how many were unanswered.
async fn sync_all(mailboxes: usize, fate: fn(&Request<Body>, usize) -> Fate) -> usize {
    let mut stage = Stage::idle().await;
    stage.request_limit = Some(Duration::from_secs(1));
    let _player = stage.play(|_, _| Ending::Synced);
    let names: Vec<_> = (0..mailboxes).map(|number| format!("m{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    stage.migration("acme", &names, json!({"parallelism": mailboxes, "succeededPodsLimit": 1})).await;
    let written = AtomicUsize::new(0);
    stage
        .start_through(move |client, request| {
            if request.method() == Method::GET {
                return send(client, request);
            }
            let fate = fate(&request, written.fetch_add(1, SeqCst));
            match fate {
                Fate::Answered => send(client, request),
                Fate::Lost => Box::pin(pending()),
                Fate::Done => Box::pin(send(client, request).then(|_| pending())),
            }
        })
        .await;
    stage.until_condition("acme", "Complete", "True").await;
    for sync in stage.syncs().await {
        let status = sync.status.unwrap();
        let found = (status.attempt, status.syncs, status.slots, status.failures);
        assert_eq!(found, (1, 1, None, None), "each attempt ran once");
    }
    assert_eq!(stage.pods().await.len(), mailboxes);
    let text = stage.metrics.text().unwrap();
    let counts = text.lines().filter(|line| line.starts_with("mailferry_api_requests_total{code=\"timeout\""));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn more_unanswered_writes_than_places_hold_up_nobody_for_ever() {
    let unanswered = sync_all(36, |request, _| {
        static STATUSES: AtomicUsize = AtomicUsize::new(0);
        let is_status = request.uri().path().contains("/mailboxsyncs/") && request.uri().path().ends_with("/status");
        if is_status && STATUSES.fetch_add(1, SeqCst) < 64 { Fate::Lost } else { Fate::Answered }
    })
    .await;
    assert!(unanswered >= 64, "{unanswered}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_an_answer_doubles_no_pod_and_skips_no_attempt() {
    let unanswered = sync_all(4, |_, number| match number % 4 {
        0 => Fate::Lost,
        1 => Fate::Done,
        _ => Fate::Answered,
    })
    .await;
    assert!(unanswered >= 10, "{unanswered}");
}
