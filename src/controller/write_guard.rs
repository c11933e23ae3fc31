//! A client of the API server that writes only while this process leads.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{Method, Request, Response};
use kube::{Client, client::Body};
use tower::{BoxError, Service};

use super::leader::LeadershipStatus;
use crate::error::Error;

/// A client like `client`. Before each write it looks at the clock: a process that slept (a laptop's suspend, a paused
/// virtual machine, SIGSTOP) finds out here that another may lead by now, and not only when its background task has run.
#[must_use]
pub(crate) fn guard_writes(client: Client, lead: LeadershipStatus) -> Client {
    let namespace = client.default_namespace().to_owned();
    Client::new(WriteGuard { client, lead }, namespace)
}

struct WriteGuard {
    client: Client,
    lead: LeadershipStatus,
}

impl Service<Request<Body>> for WriteGuard {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // The client waits by itself until it can send.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (client, lead) = (self.client.clone(), self.lead.clone());
        Box::pin(async move {
            if is_write(request.method()) && !lead.holds() {
                let error = Error::network("not written: the lease of this operator was not renewed in time");
                return Err(error.advice("Another operator may lead; what is left to do is decided anew").into());
            }
            Ok(client.send(request).await?)
        })
    }
}

fn is_write(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        future::{Ready, ready},
        sync::{Arc, Mutex},
        time::Duration,
    };

    use super::*;

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
    async fn a_process_whose_lease_may_have_passed_to_another_reads_and_does_not_write() {
        let leads = what_arrives(LeadershipStatus::renewed_now(Duration::MAX)).await;
        assert_eq!(leads, [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE]);
        // As after a sleep: the background task, which would say that the lease is lost, has not run.
        assert_eq!(what_arrives(LeadershipStatus::renewed_now(Duration::ZERO)).await, [Method::GET]);
    }
}
