//! What an answer of the API server means for an attempt.

use kube::Error as KubeError;

use crate::api::MailboxSync;

/// How the API server answered a patch.
#[derive(Debug)]
pub(crate) enum PatchOutcome {
    /// It was accepted; this is the object now.
    Accepted(Box<MailboxSync>),
    /// This attempt may not report: another has taken over, or the object is gone.
    Fenced(String),
    /// It was refused, in a way that an API server also has which has just started and does not know its rules yet.
    Refused(String),
    /// The API server can't be reached, or is too busy: the same patch can be sent again.
    Unavailable(String),
}

/// Judges an answer to a patch. Whatever is no clear refusal is worth another try.
#[must_use]
pub(crate) fn classify_response(answer: Result<MailboxSync, KubeError>) -> PatchOutcome {
    match answer {
        Ok(object) => PatchOutcome::Accepted(Box::new(object)),
        Err(KubeError::Api(status)) => {
            let why = short(&format!("the API server answered {}: {}", status.code, status.message));
            match status.code {
                422 => PatchOutcome::Fenced(why),
                // The admission policy's own words, in deploy/worker-fence.yaml.
                403 if status.message.contains("fenced: ") => PatchOutcome::Fenced(why),
                // The object is gone, or nobody knows of such objects.
                404 if status.details.as_ref().is_some_and(|details| !details.name.is_empty()) => {
                    PatchOutcome::Fenced(why)
                }
                401 | 403 | 404 => PatchOutcome::Refused(why),
                _ => PatchOutcome::Unavailable(why),
            }
        }
        Err(error) => PatchOutcome::Unavailable(short(&causes(&error))),
    }
}

/// An error with what is behind it: an HTTP client's own text says little.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

/// Refusals by validation quote what they refuse.
fn short(text: &str) -> String {
    const MOST: usize = 400;
    let mut cut: String = text.chars().take(MOST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MOST).is_some() {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn answered(code: u16, message: &str, name: &str) -> PatchOutcome {
        let details = serde_json::from_value(serde_json::json!({ "name": name })).unwrap();
        classify_response(Err(KubeError::Api(Box::new(Status {
            code,
            message: message.to_owned(),
            details,
            ..Status::default()
        }))))
    }

    #[test]
    fn a_refusal_fences_at_once_where_its_reason_is_certain() {
        let long = format!("fenced: {}", "m".repeat(9000));
        for (code, name) in [(422, ""), (403, ""), (404, "alice")] {
            let PatchOutcome::Fenced(why) = answered(code, &long, name) else { panic!("{code}") };
            assert!(why.contains(&code.to_string()) && why.len() < 500, "{why}");
        }
        for code in [401, 403, 404] {
            assert!(matches!(answered(code, "page not found", ""), PatchOutcome::Refused(_)), "{code}");
        }
    }

    #[test]
    fn what_may_pass_does_not_fence() {
        for code in [408, 409, 410, 429, 500, 502, 503, 504] {
            assert!(matches!(answered(code, "busy", ""), PatchOutcome::Unavailable(_)), "{code}");
        }
        let io = KubeError::Service(Box::new(std::io::Error::other("refused")));
        assert!(matches!(classify_response(Err(io)), PatchOutcome::Unavailable(why) if why.contains("refused")));
    }
}
