//! What an answer of the API server means for an attempt.

use kube::Error as KubeError;

use crate::api::MailboxSync;

/// What became of a report.
#[derive(Debug)]
pub enum Answer {
    /// It was taken; this is the object now.
    Taken(Box<MailboxSync>),
    /// This attempt may not report: another has taken over, or the object is gone.
    Fenced(String),
    /// The API server is away, or too busy: the same can be tried again.
    Away(String),
}

/// Judges an answer. What is no clear refusal is worth another try.
#[must_use]
pub fn judge(answer: Result<MailboxSync, KubeError>) -> Answer {
    match answer {
        Ok(object) => Answer::Taken(Box::new(object)),
        Err(KubeError::Api(status)) if matches!(status.code, 401 | 403 | 404 | 422) => {
            Answer::Fenced(short(&format!("the API server answered {}: {}", status.code, status.message)))
        }
        Err(KubeError::Api(status)) => {
            Answer::Away(short(&format!("the API server answered {}: {}", status.code, status.message)))
        }
        Err(error) => Answer::Away(short(&causes(&error))),
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

    fn answered(code: u16) -> Answer {
        judge(Err(KubeError::Api(Box::new(Status { code, message: "m".repeat(9000), ..Status::default() }))))
    }

    #[test]
    fn a_refusal_fences_and_what_may_pass_does_not() {
        for code in [401, 403, 404, 422] {
            let Answer::Fenced(why) = answered(code) else { panic!("{code}") };
            assert!(why.contains(&code.to_string()) && why.len() < 500, "{why}");
        }
        for code in [408, 409, 410, 429, 500, 502, 503, 504] {
            assert!(matches!(answered(code), Answer::Away(_)), "{code}");
        }
        let io = KubeError::Service(Box::new(std::io::Error::other("refused")));
        assert!(matches!(judge(Err(io)), Answer::Away(why) if why.contains("refused")));
    }
}
