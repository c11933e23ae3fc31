//! `/healthz`, `/readyz` and `/metrics` by HTTP.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{liveness::Liveness, metrics::Metrics};
use crate::error::{Error, Result};

/// The format that Prometheus reads.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether the process can do its work: when each of its parts can. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, bool>>>);

impl Readiness {
    /// Records whether a part of the process can do its work. The process is ready when each recorded part is.
    pub(crate) fn set(&self, part: &'static str, is_ready: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(part, is_ready);
    }

    /// The parts that can't do their work.
    #[must_use]
    pub fn unready_parts(&self) -> Vec<&'static str> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().filter(|(_, is_ready)| !**is_ready).map(|(part, _)| *part).collect()
    }
}

/// A port that is taken and not served yet.
#[derive(Debug)]
pub struct HealthListener(TcpListener);

impl HealthListener {
    /// Binds the port, so that a wrong address is an error at the start.
    ///
    /// # Errors
    /// Configuration when it can't be had.
    pub async fn bind(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            Error::configuration(format!("cannot listen on {address}: {error}"))
                .advice("Give another address to --listen, or `none`")
        })?;
        Ok(Self(listener))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Internal when the socket does not tell.
    pub fn address(&self) -> Result<SocketAddr> {
        self.0.local_addr().map_err(|error| Error::internal(format!("a socket without an address: {error}")))
    }

    /// Answers until it is asked to stop.
    ///
    /// # Errors
    /// Internal when the socket fails.
    pub async fn serve(
        self,
        metrics: Metrics,
        readiness: Readiness,
        liveness: Liveness,
        stop: CancellationToken,
    ) -> Result<()> {
        let routes = Router::new()
            .route("/healthz", get(alive).with_state(liveness))
            .route("/readyz", get(ready))
            .with_state(readiness)
            .route("/metrics", get(all_metrics).with_state(metrics));
        axum::serve(self.0, routes)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
            .map_err(|error| Error::internal(format!("the HTTP server ended: {error}")))
    }
}

async fn alive(State(liveness): State<Liveness>) -> (StatusCode, String) {
    if liveness.is_stuck() {
        let seconds = liveness.longest_wait().as_secs();
        return (StatusCode::SERVICE_UNAVAILABLE, format!("a reconciliation has been stuck for {seconds} s\n"));
    }
    (StatusCode::OK, "ok\n".to_owned())
}

async fn ready(State(readiness): State<Readiness>) -> (StatusCode, String) {
    match readiness.unready_parts().as_slice() {
        [] => (StatusCode::OK, "ok\n".to_owned()),
        lacking => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", lacking.join(", "))),
    }
}

async fn all_metrics(State(metrics): State<Metrics>) -> Response {
    match metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_process_tells_its_health_its_readiness_and_its_metrics() {
        let (metrics, readiness, stop) = (Metrics::new().unwrap(), Readiness::default(), CancellationToken::new());
        let listener = HealthListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.address().unwrap();
        let liveness = Liveness::default();
        let serving = listener.serve(metrics.clone(), readiness.clone(), liveness.clone(), stop.clone());
        let server = tokio::spawn(serving);

        readiness.set("caches", false);
        readiness.set("leader election", true);
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let waiting = get(address, "/readyz").await;
        assert!(waiting.starts_with("HTTP/1.1 503") && waiting.ends_with("not ready: caches\n"), "{waiting}");
        readiness.set("caches", true);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));

        metrics.set_leader(true);
        let told = get(address, "/metrics").await;
        assert!(told.starts_with("HTTP/1.1 200") && told.contains("content-type: text/plain; version=0.0.4"), "{told}");
        assert!(told.contains("\n# TYPE mailferry_leader gauge\nmailferry_leader 1\n"), "{told}");
        assert!(get(address, "/secrets").await.starts_with("HTTP/1.1 404"));

        let taken = HealthListener::bind(address).await.unwrap_err();
        assert!(taken.what.starts_with("cannot listen on 127.0.0.1:"), "{taken}");
        stop.cancel();
        server.await.unwrap().unwrap();
    }
}
