//! An API server that leaves requests unanswered: whether it did what it was asked is not known.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Method, Request, Response};
use kube::client::{Body, ClientBuilder};
use serde_json::json;
use tower::{Layer, Service};

use crate::stage::{Ending, Stage};

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    /// It never arrives.
    Lost,
    /// It is done, and nobody says so.
    Done,
}

/// Decides by a write's number what becomes of it.
#[derive(Clone)]
struct Silence {
    written: Arc<AtomicUsize>,
    fate: fn(&Request<Body>, usize) -> Fate,
}

impl<S> Layer<S> for Silence {
    type Service = Silenced<S>;

    fn layer(&self, service: S) -> Silenced<S> {
        Silenced { service, how: self.clone() }
    }
}

struct Silenced<S> {
    service: S,
    how: Silence,
}

impl<S, B> Service<Request<Body>> for Silenced<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.method() == Method::GET {
            return Box::pin(self.service.call(request));
        }
        let fate = (self.how.fate)(&request, self.how.written.fetch_add(1, SeqCst));
        if fate == Fate::Answered {
            return Box::pin(self.service.call(request));
        }
        let done = (fate == Fate::Done).then(|| self.service.call(request));
        Box::pin(async move {
            if let Some(done) = done {
                drop(done.await);
            }
            std::future::pending().await
        })
    }
}

/// Syncs so many mailboxes by an operator whose writes have this fate; gives how many were unanswered.
async fn sync_all(mailboxes: usize, fate: fn(&Request<Body>, usize) -> Fate) -> usize {
    let mut stage = Stage::idle().await;
    stage.request_limit = Some(Duration::from_secs(1));
    let _player = stage.play(|_, _| Ending::Synced);
    let names: Vec<_> = (0..mailboxes).map(|number| format!("m{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    stage.migration("acme", &names, json!({"parallelism": mailboxes, "succeededPodsLimit": 1})).await;
    let config = stage.rig.operator_config().await;
    let silence = Silence { written: Arc::default(), fate };
    stage.start_with(ClientBuilder::try_from(config).unwrap().with_layer(&silence).build());
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
