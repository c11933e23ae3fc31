//! A client of the API server of which no request waits for ever.

use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response, Uri};
use kube::{
    Client,
    client::{Body, retry::RetryPolicy},
};
use tokio::time::timeout;
use tower::{BoxError, ServiceExt as _, retry::Retry, service_fn};

use crate::{
    error::Error,
    telemetry::{api_calls::verb_and_resource, liveness::Liveness, metrics::Metrics},
};

/// How long an answer is waited for, tries after 429, 503 and 504 included. An API server lets a request wait in its
/// queues for 15 s and an admission webhook take 10 s unless it is told otherwise: what takes longer is lost.
pub(crate) const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// What becomes known of requests.
#[derive(Clone)]
pub(crate) struct RequestObservers {
    /// Counts requests without an answer.
    pub metrics: Metrics,
    /// Learns of answers.
    pub liveness: Liveness,
}

/// A client like `client`, whose requests end with an error when there is no answer within `limit`. Of a watch and of a log
/// that is followed that is the answer's beginning. A write that ends so may have been made, or may yet be.
#[must_use]
pub(crate) fn limit_requests(client: Client, limit: Duration, observers: RequestObservers) -> Client {
    let namespace = client.default_namespace().to_owned();
    let send = move |request| send_within(client.clone(), limit, observers.clone(), request);
    Client::new(service_fn(send), namespace)
}

async fn send_within(
    client: Client,
    limit: Duration,
    observers: RequestObservers,
    request: Request<Body>,
) -> Result<Response<Body>, BoxError> {
    let (verb, resource) = verb_and_resource(request.method(), request.uri());
    let Ok(answer) = timeout(limit, answer(client, request)).await else {
        observers.metrics.api_request(verb, &resource, "timeout");
        let what = format!("the API server did not answer within {} s", limit.as_secs_f32());
        return Err(Error::network(what).advice("What was asked may have been done; it is looked at again").into());
    };
    if answer.is_ok() {
        observers.liveness.record_answer();
    }
    answer
}

/// Sends a request, again where the API server has too much to do, and reads the whole answer unless it never ends.
async fn answer(client: Client, request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let endless = is_endless(request.uri());
    let response = send_with_retries(client, request).await?;
    if endless {
        return Ok(response);
    }
    let (head, body) = response.into_parts();
    Ok(Response::from_parts(head, Body::from(body.collect_bytes().await?)))
}

fn send_with_retries(client: Client, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, BoxError>> {
    let send = service_fn(move |request| {
        let client = client.clone();
        Box::pin(async move { client.send(request).await.map_err(BoxError::from) })
    });
    Box::pin(Retry::new(RetryPolicy::server_retry(), send).oneshot(request))
}

/// True for a watch, and for a log that is followed.
fn is_endless(uri: &Uri) -> bool {
    uri.query().unwrap_or_default().split('&').any(|pair| matches!(pair, "watch=true" | "follow=true"))
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::SeqCst},
        },
    };

    use futures::{
        future::{Either, pending, ready},
        stream,
    };
    use http::StatusCode;
    use tokio::time::{Instant, advance};

    use super::*;

    /// How an API server behaves.
    #[derive(Clone, Copy)]
    enum ServerMood {
        Silent,
        /// Begins an answer that never ends.
        Trickles,
        /// Has too much to do for so many requests.
        Busy(usize),
    }

    fn limited(mood: ServerMood, observers: &RequestObservers) -> (Client, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let server = service_fn(move |_: Request<Body>| {
            let number = counted.fetch_add(1, SeqCst);
            let answer = |code| {
                ready(Ok::<_, Infallible>(Response::builder().status(code).body(axum::body::Body::empty()).unwrap()))
            };
            match mood {
                ServerMood::Silent => Either::Left(Either::Left(pending())),
                ServerMood::Busy(times) if number < times => {
                    Either::Left(Either::Right(answer(StatusCode::TOO_MANY_REQUESTS)))
                }
                ServerMood::Busy(_) => Either::Left(Either::Right(answer(StatusCode::OK))),
                ServerMood::Trickles => {
                    let nothing = stream::pending::<Result<&str, Infallible>>();
                    Either::Right(ready(Ok(Response::new(axum::body::Body::from_stream(nothing)))))
                }
            }
        });
        (limit_requests(Client::new(server, "default"), REQUEST_LIMIT, observers.clone()), asked)
    }

    fn observers() -> RequestObservers {
        RequestObservers { metrics: Metrics::new().unwrap(), liveness: Liveness::default() }
    }

    fn request(method: &str, path: &str) -> Request<Body> {
        Request::builder().method(method).uri(path).body(Body::empty()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_not_answered_ends_and_is_counted() {
        for mood in [ServerMood::Silent, ServerMood::Trickles] {
            let (client, _) = limited(mood, &observers());
            let began = Instant::now();
            let error = client.send(request("PATCH", "/api/v1/namespaces/a/pods/p")).await.unwrap_err();
            assert_eq!(began.elapsed(), REQUEST_LIMIT);
            assert!(error.to_string().contains("did not answer within 30 s"), "{error}");
        }
        let told = observers();
        let (client, _) = limited(ServerMood::Silent, &told);
        drop(client.send(request("PATCH", "/api/v1/namespaces/a/pods/p")).await);
        let text = told.metrics.text().unwrap();
        let line = "mailferry_api_requests_total{code=\"timeout\",resource=\"pods\",verb=\"patch\"} 1";
        assert!(text.contains(line), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_and_a_log_go_on_for_as_long_as_they_like_once_they_began() {
        for path in ["/api/v1/pods?&watch=true&timeoutSeconds=290", "/api/v1/namespaces/a/pods/p/log?&follow=true"] {
            let (client, _) = limited(ServerMood::Trickles, &observers());
            let response = client.send(request("GET", path)).await.unwrap();
            let more = tokio::time::timeout(REQUEST_LIMIT * 20, response.into_body().collect_bytes());
            assert!(more.await.is_err(), "it ended by itself");
            let (client, _) = limited(ServerMood::Silent, &observers());
            assert!(client.send(request("GET", path)).await.is_err(), "it never began");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_api_server_is_asked_again_but_not_for_ever() {
        let (client, asked) = limited(ServerMood::Busy(3), &observers());
        let response = client.send(request("PATCH", "/api/v1/namespaces/a/pods/p")).await.unwrap();
        assert_eq!((response.status(), asked.load(SeqCst)), (StatusCode::OK, 4));
        let (client, _) = limited(ServerMood::Busy(usize::MAX), &observers());
        let began = Instant::now();
        drop(client.send(request("PATCH", "/api/v1/namespaces/a/pods/p")).await);
        assert!(began.elapsed() <= REQUEST_LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_told_and_silence_is_not() {
        for (mood, answered) in [(ServerMood::Busy(0), true), (ServerMood::Silent, false)] {
            let told = observers();
            let (client, _) = limited(mood, &told);
            let stuck = told.liveness.follow(pending::<()>());
            tokio::pin!(stuck);
            assert!(futures::poll!(&mut stuck).is_pending());
            advance(Duration::from_hours(1)).await;
            drop(client.send(request("GET", "/api/v1/nodes")).await);
            assert_eq!(told.liveness.is_stuck(), answered);
        }
    }
}
