//! A client of the API server that writes only while this process leads.

use std::pin::pin;

use http::{Method, Request, Response};
use kube::{Client, client::Body};
use tokio::time::timeout;
use tower::{BoxError, service_fn};

use super::leader::LeadershipStatus;
use crate::error::Error;

/// A client like `client`. Before each write it looks at the clock: a process that slept (a laptop's suspend, a paused
/// virtual machine, SIGSTOP) finds out here that another may lead by now, and not only when its background task has run.
/// A write that is still under way when the lease was not renewed in time is broken off.
#[must_use]
pub(crate) fn guard_writes(client: Client, lead: LeadershipStatus) -> Client {
    let namespace = client.default_namespace().to_owned();
    Client::new(service_fn(move |request| send_while_leading(client.clone(), lead.clone(), request)), namespace)
}

async fn send_while_leading(
    client: Client,
    lead: LeadershipStatus,
    request: Request<Body>,
) -> Result<Response<Body>, BoxError> {
    if !is_write(request.method()) {
        return Ok(client.send(request).await?);
    }
    let mut sent = pin!(client.send(request));
    loop {
        let left = lead.time_left();
        if left.is_zero() {
            // What waits for a connection is never sent.
            let error = Error::network("not written: the lease of this operator was not renewed in time");
            return Err(error.advice("Another operator may lead; what is left to do is decided anew").into());
        }
        if let Ok(answer) = timeout(left, &mut sent).await {
            return Ok(answer?);
        }
    }
}

fn is_write(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        future::{Ready, pending, ready},
        sync::{Arc, Mutex},
        task::{Context, Poll},
        time::Duration,
    };

    use tower::Service;

    use super::*;
    use crate::{
        clock::Moment,
        controller::{
            leader::LeaseTimes,
            request_limit::{REQUEST_LIMIT, RequestObservers, limit_requests},
        },
        telemetry::{liveness::Liveness, metrics::Metrics},
    };

    /// An API server that takes everything, and remembers what it was asked.
    #[derive(Clone, Default)]
    struct RecordingServer(Arc<Mutex<Vec<Method>>>);

    impl Service<Request<Body>> for RecordingServer {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            self.0.lock().unwrap().push(request.method().clone());
            ready(Ok(Response::new(Body::empty())))
        }
    }

    /// What reaches the API server of one request of each kind, by a process with this lead.
    async fn what_arrives(lead: LeadershipStatus) -> Vec<Method> {
        let server = RecordingServer::default();
        let client = guard_writes(Client::new(server.clone(), "default"), lead);
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let request = Request::builder().method(&method).uri("/api/v1/pods").body(Body::empty()).unwrap();
            let sent = client.send(request).await;
            assert!(sent.is_ok() || sent.unwrap_err().to_string().contains("not renewed in time"), "{method}");
        }
        std::mem::take(&mut *server.0.lock().unwrap())
    }

    #[tokio::test]
    async fn the_first_write_after_a_sleep_is_not_sent() {
        let server = RecordingServer::default();
        let lead = LeadershipStatus::renewed_now(LeaseTimes::default().renew_deadline);
        let client = guard_writes(Client::new(server.clone(), "default"), lead);
        let write = || Request::builder().method(Method::PATCH).uri("/api/v1/pods").body(Body::empty()).unwrap();
        assert!(client.send(write()).await.is_ok());
        Moment::jump(Duration::from_hours(8));
        let error = client.send(write()).await.unwrap_err();
        assert!(error.to_string().contains("not renewed in time"), "{error}");
        assert_eq!(server.0.lock().unwrap().len(), 1, "it was sent");
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_try_after_a_sleep_is_not_sent_either() {
        let asked = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&asked);
        let busy = tower::service_fn(move |_: Request<Body>| {
            *counted.lock().unwrap() += 1;
            // The machine sleeps before it is asked again.
            Moment::jump(Duration::from_hours(8));
            ready(Ok::<_, Infallible>(Response::builder().status(429).body(Body::empty()).unwrap()))
        });
        let lead = LeadershipStatus::renewed_now(LeaseTimes::default().renew_deadline);
        let observers = RequestObservers { metrics: Metrics::new().unwrap(), liveness: Liveness::default() };
        let client = limit_requests(guard_writes(Client::new(busy, "default"), lead), REQUEST_LIMIT, observers);
        let write = Request::builder().method(Method::PATCH).uri("/api/v1/pods").body(Body::empty()).unwrap();
        let error = client.send(write).await.unwrap_err();
        assert!(error.to_string().contains("not renewed in time"), "{error}");
        assert_eq!(*asked.lock().unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_without_an_answer_is_broken_off_before_another_may_lead() {
        let silent = tower::service_fn(|_: Request<Body>| pending::<Result<Response<Body>, Infallible>>());
        let times = LeaseTimes::default();
        let client = guard_writes(Client::new(silent, "default"), LeadershipStatus::renewed_now(times.renew_deadline));
        let write = Request::builder().method(Method::PATCH).uri("/api/v1/pods").body(Body::empty()).unwrap();
        let sent = tokio::spawn(async move { client.send(write).await });
        tokio::task::yield_now().await;
        // Nobody renews it, by any clock.
        Moment::jump(times.renew_deadline);
        tokio::time::sleep(times.renew_deadline).await;
        let error = sent.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("not renewed in time"), "{error}");
    }

    #[tokio::test]
    async fn a_process_whose_lease_may_have_passed_to_another_reads_and_does_not_write() {
        let leads = what_arrives(LeadershipStatus::renewed_now(Duration::MAX)).await;
        assert_eq!(leads, [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE]);
        // As after a sleep: the background task, which would say that the lease is lost, has not run.
        assert_eq!(what_arrives(LeadershipStatus::renewed_now(Duration::ZERO)).await, [Method::GET]);
    }
}
