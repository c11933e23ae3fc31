//! Counts every request to the API server, whoever makes it: a layer of the client.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Method, Request, Response, Uri};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
};
use tower::{Layer, Service};

use super::metrics::Metrics;

/// What the operator talks about; all else counts as `other`, so that no answer makes the metrics grow.
const RESOURCES: [&str; 13] = [
    "mailmigrations",
    "mailboxsyncs",
    "mailservers",
    "pods",
    "secrets",
    "events",
    "leases",
    "serviceaccounts",
    "rolebindings",
    "nodes",
    "namespaces",
    "servicecidrs",
    "customresourcedefinitions",
];

/// A client whose requests are counted, each try of them. It sends nothing a second time by itself: who does must look
/// first whether it still may.
///
/// # Errors
/// When no client can be made of the configuration.
pub fn client(mut config: Config, metrics: &Metrics) -> Result<Client, kube::Error> {
    config.default_retry = false;
    Ok(ClientBuilder::try_from(config)?.with_layer(&RequestCountLayer(metrics.clone())).build())
}

#[derive(Clone)]
struct RequestCountLayer(Metrics);

impl<S> Layer<S> for RequestCountLayer {
    type Service = RequestCountService<S>;

    fn layer(&self, service: S) -> RequestCountService<S> {
        RequestCountService { service, metrics: self.0.clone() }
    }
}

struct RequestCountService<S> {
    service: S,
    metrics: Metrics,
}

impl<S, B> Service<Request<Body>> for RequestCountService<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (verb, resource) = verb_and_resource(request.method(), request.uri());
        let metrics = self.metrics.clone();
        let answer = self.service.call(request);
        Box::pin(async move {
            let answer = answer.await;
            match &answer {
                Ok(response) => metrics.api_request(verb, &resource, response.status().as_str()),
                Err(_) => metrics.api_request(verb, &resource, "error"),
            }
            answer
        })
    }
}

/// The verb of a request, as Kubernetes' authorization has it, and the resource that it is about.
#[must_use]
pub(crate) fn verb_and_resource(method: &Method, uri: &Uri) -> (&'static str, String) {
    let mut path = uri.path().trim_matches('/').split('/');
    let in_group = path.next() == Some("apis");
    let mut path = path.skip(if in_group { 2 } else { 1 }).peekable();
    let mut resource = path.next().unwrap_or_default();
    let mut name = path.next();
    if resource == "namespaces" && path.peek().is_some() {
        resource = path.next().unwrap_or_default();
        name = path.next();
    }
    let status = if path.next() == Some("status") { "/status" } else { "" };
    let resource = RESOURCES.iter().find(|known| **known == resource).copied().unwrap_or("other");
    let watches = uri.query().unwrap_or_default().split('&').any(|pair| pair == "watch=true");
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ if watches => "watch",
        _ if name.is_some() => "get",
        _ => "list",
    };
    (verb, format!("{resource}{status}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_known_by_verb_and_resource() {
        for (method, path, verb, resource) in [
            (
                Method::PATCH,
                "/apis/mailferry.io/v1alpha1/namespaces/a/mailboxsyncs/m/status?",
                "patch",
                "mailboxsyncs/status",
            ),
            (Method::GET, "/apis/mailferry.io/v1alpha1/mailboxsyncs?&limit=50", "list", "mailboxsyncs"),
            (
                Method::GET,
                "/apis/mailferry.io/v1alpha1/mailboxsyncs?&watch=true&timeoutSeconds=290",
                "watch",
                "mailboxsyncs",
            ),
            (Method::POST, "/api/v1/namespaces/a/pods?", "create", "pods"),
            (Method::DELETE, "/api/v1/namespaces/a/pods/p?", "delete", "pods"),
            (Method::GET, "/api/v1/namespaces/a", "get", "namespaces"),
            (Method::GET, "/api/v1/nodes/n", "get", "nodes"),
            (Method::PUT, "/apis/example.org/v1/namespaces/a/secretthings/x", "update", "other"),
            (Method::GET, "/version", "list", "other"),
        ] {
            let uri = path.parse().unwrap();
            assert_eq!(verb_and_resource(&method, &uri), (verb, resource.to_owned()), "{method} {path}");
        }
    }
}
