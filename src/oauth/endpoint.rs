//! How a token endpoint is asked: one POST, no redirects, an answer of bounded size.

use std::{fmt, time::Duration};

use futures::future::BoxFuture;
use http::{HeaderMap, header};
use jiff::{Timestamp, fmt::rfc2822};
use zeroize::Zeroizing;

use super::token_url::TokenUrl;
use crate::{
    error::Result,
    http_client::{self, HttpAnswer},
};

/// How long an endpoint may take to answer.
const LIMIT: Duration = Duration::from_secs(30);
/// The longest wait that an endpoint may ask for.
const LONGEST_WAIT: Duration = Duration::from_hours(1);
/// The largest answer: a token has a few thousand bytes.
const MAX_BODY: usize = 64 << 10;

/// What a token endpoint answered, whatever its status.
pub(super) struct EndpointReply {
    pub status: u16,
    /// The endpoint's time.
    pub date: Option<Timestamp>,
    /// How long it asks to be left alone.
    pub retry_after: Option<Duration>,
    pub body: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for EndpointReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointReply").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Asks token endpoints.
pub(super) trait TokenEndpoint: Send + Sync + fmt::Debug {
    /// Posts a form.
    fn post<'a>(&'a self, url: &'a TokenUrl, form: Zeroizing<String>) -> BoxFuture<'a, Result<EndpointReply>>;
}

/// Asks over HTTPS, by a proxy where the environment names one.
#[derive(Debug, Clone, Copy)]
pub(super) struct HttpsEndpoint;

impl TokenEndpoint for HttpsEndpoint {
    fn post<'a>(&'a self, url: &'a TokenUrl, form: Zeroizing<String>) -> BoxFuture<'a, Result<EndpointReply>> {
        Box::pin(async move {
            let body = form.as_bytes().to_vec();
            let answer = http_client::post(url.uri(), "application/x-www-form-urlencoded", body, LIMIT).await;
            // The host of an error is that of the mail server, which this is not.
            let answer = answer.map_err(|mut error| {
                error.host = None;
                error.what = format!("{} cannot be asked for a token: {}", url.host(), error.what);
                error
            })?;
            Ok(reply(&answer))
        })
    }
}

fn reply(answer: &HttpAnswer) -> EndpointReply {
    let date = text(&answer.headers, header::DATE).and_then(moment);
    let body = answer.body.get(..answer.body.len().min(MAX_BODY)).unwrap_or_default().to_vec();
    EndpointReply {
        status: answer.status.as_u16(),
        date,
        retry_after: text(&answer.headers, header::RETRY_AFTER).and_then(|text| wait(text, date)),
        body: Zeroizing::new(body),
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// A date as HTTP has it (RFC 9110, section 5.6.7).
fn moment(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

/// Seconds, or a date (RFC 9110, section 10.2.3), which is counted from the endpoint's own time.
fn wait(text: &str, date: Option<Timestamp>) -> Option<Duration> {
    let wait = if let Ok(seconds) = text.trim().parse() {
        Duration::from_secs(seconds)
    } else {
        let seconds = moment(text)?.as_second() - date.unwrap_or_else(Timestamp::now).as_second();
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_stated_in_seconds_or_as_a_date() {
        let date = moment("Mon, 30 Nov 2026 12:00:00 GMT");
        assert_eq!(date, Some("2026-11-30T12:00:00Z".parse().unwrap()));
        for (said, expected) in [
            ("7", Some(Duration::from_secs(7))),
            ("Mon, 30 Nov 2026 12:00:09 GMT", Some(Duration::from_secs(9))),
            ("Mon, 30 Nov 2026 11:00:00 GMT", Some(Duration::ZERO)),
            ("99999999", Some(LONGEST_WAIT)),
            ("soon", None),
            ("-3", None),
        ] {
            assert_eq!(wait(said, date), expected, "{said}");
        }
    }
}
