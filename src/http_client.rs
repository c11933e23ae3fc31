//! How is something posted to a URL? One request over HTTP/1.1: HTTPS with the system's roots, an end in time, an answer of
//! bounded size. Redirects are not followed. HTTPS goes by the proxy that the environment names (`HTTPS_PROXY`, `NO_PROXY`).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, Request, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE, USER_AGENT},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::{
        legacy::{
            self,
            connect::{HttpConnector, proxy::Tunnel},
        },
        proxy::matcher::Matcher,
    },
    rt::TokioExecutor,
};
use rustls::{ClientConfig, crypto::ring};
use rustls_platform_verifier::Verifier;

use crate::error::{Error, ErrorClass, Result};

/// Of an answer no more is read.
const MAX_ANSWER: usize = 1024 * 1024;

/// What a server answered to a request.
#[derive(Debug, Clone)]
pub(crate) struct HttpAnswer {
    /// Its status, whatever it is.
    pub status: StatusCode,
    /// Its header.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Posts `body` to an `https` or `http` URL and gives the answer, whatever its status is, unless it takes longer than
/// `limit`.
///
/// # Errors
/// Configuration for a URL of another kind; Tls; Network. They name the URL's host and nothing else of it: a path or query
/// may be as good as a password.
pub(crate) async fn post(
    url: &Uri,
    content_type: &'static str,
    body: impl Into<Bytes>,
    limit: Duration,
) -> Result<HttpAnswer> {
    let host = url.host().unwrap_or_default().to_owned();
    if host.is_empty() || !matches!(url.scheme_str(), Some("https" | "http")) {
        return Err(Error::configuration("this is not a URL that begins with https:// or http:// and names a host"));
    }
    let named = |error: Error| Error { host: Some(host.clone()), ..error };
    let request = Request::post(url)
        .header(CONTENT_TYPE, content_type)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("mailferry/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body.into()))
        .map_err(|_| named(Error::configuration("no HTTP request can be made of this URL")))?;
    let answer = tokio::time::timeout(limit, send(request)).await;
    let too_slow = || Error::network(format!("no answer within {} s", limit.as_secs_f32()));
    answer.unwrap_or_else(|_| Err(too_slow())).map_err(named)
}

async fn send(request: Request<Full<Bytes>>) -> Result<HttpAnswer> {
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls_config()?).https_or_http().enable_http1();
    let is_https = request.uri().scheme_str() == Some("https");
    let answer = match Matcher::from_env().intercept(request.uri()).filter(|_| is_https) {
        Some(proxy) => {
            if proxy.uri().scheme_str() != Some("http") {
                return Err(Error::configuration("HTTPS_PROXY names a proxy that is not spoken to by http://"));
            }
            let mut to_proxy = HttpConnector::new();
            to_proxy.enforce_http(false);
            let mut tunnel = Tunnel::new(proxy.uri().clone(), to_proxy);
            if let Some(credentials) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(credentials.clone());
            }
            let connector = builder.wrap_connector(tunnel);
            legacy::Client::builder(TokioExecutor::new()).build(connector).request(request).await
        }
        None => legacy::Client::builder(TokioExecutor::new()).build(builder.build()).request(request).await,
    };
    let (head, body) = answer.map_err(|error| request_error(&error))?.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    let body = body.map_err(|error| Error::network(format!("the answer broke off: {error}")))?.to_bytes();
    Ok(HttpAnswer { status: head.status, headers: head.headers, body })
}

fn tls_config() -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let no_roots = |error: rustls::Error| {
        Error::new(ErrorClass::Tls, format!("no trusted roots: {error}")).advice("Install the system's ca-certificates")
    };
    let verifier = Verifier::new(Arc::clone(&provider)).map_err(no_roots)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal(format!("TLS cannot be set up: {error}")))?;
    Ok(config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

/// The innermost cause: those around it only say that a request failed.
fn request_error(error: &legacy::Error) -> Error {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let class = if is_of_tls(error) { ErrorClass::Tls } else { ErrorClass::Network };
    Error::new(class, format!("the request failed: {cause}"))
}

/// True where TLS failed, however deep that is wrapped: an I/O error does not give what it wraps as its source.
fn is_of_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>()
        || wrapped.is_some_and(|inner| is_of_tls(inner))
        || error.source().is_some_and(is_of_tls)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);

    /// A server that answers one request with `answer`, or never, and gives what it was sent.
    async fn answering(answer: Option<&'static str>) -> (Uri, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?token=s3cret", listener.local_addr().unwrap()).parse().unwrap();
        let served = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut heard = Vec::new();
            while !heard.ends_with(b"}") {
                assert_ne!(socket.read_buf(&mut heard).await.unwrap(), 0);
            }
            match answer {
                Some(answer) => socket.write_all(answer.as_bytes()).await.unwrap(),
                None => std::future::pending().await,
            }
            String::from_utf8(heard).unwrap()
        });
        (url, served)
    }

    #[tokio::test]
    async fn a_body_arrives_with_its_type_and_the_answer_comes_back() {
        let (url, served) =
            answering(Some("HTTP/1.1 201 Created\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nok")).await;
        let answer = post(&url, "application/json", "{\"a\":1}", LIMIT).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.body.as_ref()), (201, &b"ok"[..]));
        assert_eq!(answer.headers["retry-after"], "7");
        let heard = served.await.unwrap();
        assert!(heard.starts_with("POST /hook?token=s3cret HTTP/1.1\r\n"), "{heard}");
        assert!(
            heard.contains("content-type: application/json\r\n") && heard.ends_with("\r\n\r\n{\"a\":1}"),
            "{heard}"
        );
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_is_not_followed() {
        let moved = "HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
        let (url, _served) = answering(Some(moved)).await;
        assert_eq!(post(&url, "application/json", "{}", LIMIT).await.unwrap().status.as_u16(), 307);
    }

    #[tokio::test]
    async fn a_silent_server_a_refused_port_and_a_wrong_url_are_errors_without_the_path() {
        let (url, _served) = answering(None).await;
        let silent = post(&url, "application/json", "{}", Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(silent.class, ErrorClass::Network);
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let url = format!("http://{free}/hook?token=s3cret").parse().unwrap();
        let refused = post(&url, "application/json", "{}", LIMIT).await.unwrap_err();
        assert!(refused.what.contains("refused") && refused.class == ErrorClass::Network, "{refused}");
        let url = "ftp://example.test/s3cret".parse().unwrap();
        let wrong = post(&url, "application/json", "{}", LIMIT).await.unwrap_err();
        assert_eq!(wrong.class, ErrorClass::Configuration);
        assert!([silent, refused, wrong].iter().all(|error| !error.to_string().contains("s3cret")));
    }

    #[tokio::test]
    async fn a_server_that_speaks_no_tls_is_a_tls_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let server = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(b"220 hello, not TLS\r\n").await.unwrap();
            socket
        };
        let (error, _socket) = tokio::join!(post(&url, "application/json", "{}", LIMIT), server);
        assert_eq!(error.unwrap_err().class, ErrorClass::Tls);
    }
}
