//! An API server that is unwell for a while: it refuses requests, loses watches, or answers for one kind only.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt as _, future::pending};
use http::{Method, Request, Response};
use kube::{Client, client::Body};
use mailferry_testkit::eventually::{eventually, so};
use serde_json::json;

use crate::stage::{Answer, Ending, Stage, send};

/// For how long it is unwell.
const UNWELL: Duration = Duration::from_secs(10);

/// What an API server answers that does not do what it is asked.
fn refuse(code: u16, reason: &'static str) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code,
        "message": "the API server is unwell",
    });
    let answer = Response::builder().status(code).header("content-type", "application/json");
    Box::pin(async move { Ok(answer.body(status.to_string().into())?) })
}

fn is_watch(request: &Request<Body>) -> bool {
    request.uri().query().is_some_and(|query| query.contains("watch=true"))
}

/// Passes a watch on, of which so many pieces arrive.
fn cut_after(pieces: usize, client: Client, request: Request<Body>) -> Answer {
    Box::pin(async move {
        let answer = send(client, request).await?;
        Ok(answer.map(|body| axum::body::Body::from_stream(body.into_data_stream().take(pieces))))
    })
}

/// Syncs six mailboxes by an operator whose requests go through this; each attempt runs once.
async fn sync_all(meet: impl Fn(Client, Request<Body>) -> Answer + Send + 'static) {
    let mut stage = Stage::idle().await;
    let _player = stage.play(|_, _| Ending::Synced);
    stage.start_through(meet).await;
    let more = json!({"parallelism": 2, "succeededPodsLimit": 5});
    stage.migration("acme", &["a", "b", "c", "d", "e", "f"], more).await;
    each_ran_once(&stage, 6).await;
}

async fn each_ran_once(stage: &Stage, mailboxes: usize) {
    stage.until_condition("acme", "Complete", "True").await;
    for sync in stage.syncs().await.into_iter().filter(|sync| sync.spec.migration == "acme") {
        let status = sync.status.unwrap();
        assert_eq!((status.attempt, status.syncs, status.slots, status.failures), (1, 1, None, None));
    }
    assert_eq!(stage.pods().await.len(), mailboxes);
}

/// Every second request is refused, for a while.
async fn refused_with(code: u16, reason: &'static str) {
    let (began, asked) = (Instant::now(), AtomicUsize::new(0));
    sync_all(move |client, request| {
        let number = asked.fetch_add(1, SeqCst);
        if began.elapsed() < UNWELL && number % 2 == 1 { refuse(code, reason) } else { send(client, request) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_with_too_much_to_do_ends_no_attempt_and_doubles_none() {
    refused_with(429, "TooManyRequests").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_fails_ends_no_attempt_and_doubles_none() {
    futures::join!(refused_with(500, "InternalError"), refused_with(503, "ServiceUnavailable"));
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_end_early_or_have_expired_are_begun_again() {
    let (began, watches) = (Instant::now(), AtomicUsize::new(0));
    sync_all(move |client, request| {
        if !is_watch(&request) {
            return send(client, request);
        }
        match watches.fetch_add(1, SeqCst) {
            _ if began.elapsed() > UNWELL => send(client, request),
            number if number % 4 == 0 => refuse(410, "Expired"),
            number => cut_after(number % 4, client, request),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_makes_no_pods_holds_up_nothing_else() {
    const MAILBOXES: usize = 40;
    let mut stage = Stage::idle().await;
    let _player = stage.play(|_, _| Ending::Synced);
    let (well, waiting) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (is_well, waits) = (Arc::clone(&well), Arc::clone(&waiting));
    stage.request_limit = Some(Duration::from_secs(2));
    stage
        .start_through(move |client, request| {
            if request.method() == Method::POST && request.uri().path().ends_with("/pods") && !is_well.load(SeqCst) {
                waits.fetch_add(1, SeqCst);
                return Box::pin(pending());
            }
            send(client, request)
        })
        .await;
    let names: Vec<_> = (0..MAILBOXES).map(|number| format!("m{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    stage.migration("acme", &names, json!({"parallelism": MAILBOXES, "succeededPodsLimit": 1})).await;
    // As many as are decided on at a time, and more.
    eventually("pods are asked for", async || {
        let asked = waiting.load(SeqCst);
        so(asked >= MAILBOXES, asked)
    })
    .await;
    stage.migration("other", &["x"], json!({"suspend": true})).await;
    stage.until_condition("other", "Accepted", "True").await;
    well.store(true, SeqCst);
    each_ran_once(&stage, MAILBOXES).await;
}
