//! Tells others that a run is over: a command of the user's, a URL. What fails here is logged, and changes nothing else.

use std::{
    io::{self, Write as _},
    os::fd::AsFd as _,
    process::{Command, Stdio},
    time::Duration,
};

use http::Uri;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    mailbox_ending::errors,
    outcome::RunOutcome,
    problems::Problems,
    view::{JsonEvent, summary_event, timed},
};
use crate::{
    error::{Error, Result},
    http_client,
};

/// A receiver of the notice has so long to answer.
const WEBHOOK_LIMIT: Duration = Duration::from_secs(30);
/// So many distinct problems are told.
const MAX_PROBLEMS: usize = 20;
/// What a command finds in its environment of ours: nothing that may be a secret.
const PASSED_ON: [&str; 8] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// Who is told at the end of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct EndNotice {
    /// A program and its arguments; empty: none.
    pub command: Vec<String>,
    /// Where the notice is posted.
    pub webhook: Option<Uri>,
}

#[derive(Serialize)]
struct Notice<'a> {
    migration: &'a str,
    #[serde(flatten)]
    summary: JsonEvent<'a>,
    problems: Vec<String>,
}

impl EndNotice {
    /// Tells them, one after the other.
    pub(crate) async fn send(&self, migration: &str, outcome: &RunOutcome) {
        let notice = notice(migration, outcome, Timestamp::now());
        if !self.command.is_empty() {
            let (command, notice, code) = (self.command.clone(), notice.clone(), outcome.exit_code());
            let ran = tokio::task::spawn_blocking(move || run_command(&command, &notice, code)).await;
            if let Err(error) = ran.unwrap_or_else(|_| Err(Error::internal("its task broke off"))) {
                tracing::warn!("--on-end: {}", error.what);
            }
        }
        if let Some(url) = &self.webhook
            && let Err(error) = post(url, notice).await
        {
            tracing::warn!("--webhook: {error}");
        }
    }
}

/// The notice as JSON: the summary of the run, with its distinct problems.
fn notice(migration: &str, outcome: &RunOutcome, now: Timestamp) -> String {
    let mut problems = Problems::default();
    for report in &outcome.reports {
        for error in errors(report) {
            problems.add(&report.mailbox, error);
        }
    }
    let mut problems = problems.lines(outcome.reports.len());
    problems.truncate(MAX_PROBLEMS);
    let notice = timed(now, Notice { migration, summary: summary_event(outcome), problems });
    serde_json::to_string(&notice).unwrap_or_default() // plain structs with string keys: that cannot fail
}

/// Runs the program, not by a shell, with the notice on its standard input and what it says on our standard error.
fn run_command(command: &[String], notice: &str, exit_code: u8) -> Result<()> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let failed = |what: &str| Error::configuration(format!("{program} {what}"));
    let output = io::stderr().as_fd().try_clone_to_owned().map_or_else(|_| Stdio::null(), Stdio::from);
    let environment = PASSED_ON.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment)
        .env("MAILFERRY_EXIT_CODE", exit_code.to_string())
        .stdin(Stdio::piped())
        .stdout(output)
        .spawn()
        .map_err(|error| failed(&format!("can't be started: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        drop(stdin.write_all(notice.as_bytes())); // it need not read it
    }
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(&format!("ended with {status}"))),
        Err(error) => Err(failed(&format!("can't be waited for: {error}"))),
    }
}

async fn post(url: &Uri, notice: String) -> Result<()> {
    let answer = http_client::post(url, "application/json", notice, WEBHOOK_LIMIT).await?;
    if answer.status.is_success() {
        return Ok(());
    }
    let error = Error::network(format!("the answer was {}", answer.status));
    Err(Error { host: url.host().map(str::to_owned), ..error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::report::MailboxReport;

    fn outcome() -> RunOutcome {
        let failed = |mailbox: &str| MailboxReport {
            mailbox: mailbox.into(),
            error: Some(Error::network("there is no host of this name").in_mailbox(mailbox)),
            ..MailboxReport::default()
        };
        RunOutcome { reports: vec![failed("alice"), failed("bob")], took: Duration::from_secs(2) }
    }

    #[test]
    fn the_notice_has_the_sums_and_each_distinct_problem_once() {
        let notice: serde_json::Value =
            serde_json::from_str(&notice("acme", &outcome(), Timestamp::UNIX_EPOCH)).unwrap();
        assert_eq!((&notice["migration"], &notice["failed"]), (&"acme".into(), &2.into()));
        let said = serde_json::json!(["Network: there is no host of this name (2 mailboxes: alice, bob)"]);
        assert_eq!(notice["problems"], said);
    }

    #[test]
    fn a_command_gets_its_arguments_as_they_are_and_no_environment_but_what_is_passed_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seen");
        // The only shell is the one that is asked for here.
        let script = format!("{{ echo \"$1\"; env; cat; }} > {}", file.display());
        let command = ["/bin/sh", "-c", &script, "sh", "$(id); a b"].map(str::to_owned);
        run_command(&command, "{\"a\":1}", 14).unwrap();
        let seen = std::fs::read_to_string(file).unwrap();
        assert!(seen.starts_with("$(id); a b\n") && seen.ends_with("{\"a\":1}"), "{seen}");
        assert!(seen.contains("MAILFERRY_EXIT_CODE=14\n") && !seen.contains("CARGO"), "{seen}");
    }

    #[test]
    fn a_command_that_fails_or_is_not_there_says_so() {
        let of = |program: &str| run_command(&[program.to_owned()], "{}", 0).unwrap_err().what;
        assert!(of("/bin/false").contains("ended with exit status: 1"));
        assert!(of("/no/such/program").contains("can't be started"));
    }
}
