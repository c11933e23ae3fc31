//! The flags that say where else a run is written to, and who is told when it is over.

use std::{fs::File, path::PathBuf};

use clap::Args;
use http::Uri;
use jiff::Timestamp;

use crate::{
    error::{Error, Result},
    local::{
        end_notice::EndNotice,
        outcome::RunOutcome,
        report_file::{ReportFormat, write_report},
        report_text::TextLayout,
        run_report,
        view::{LoggedView, RunView, log_text, open_log},
    },
};

/// Where else a run is written to, and who is told when it is over.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Records")]
pub struct RunRecordArgs {
    /// Append to this file what happens to each mailbox, with the time, and the report.
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,

    /// Write the report to this file as well, with every mailbox and folder: as text (.txt), as a table (.csv) or as JSON
    /// (.json), by the end of its name. A file that is there is replaced.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// Run a program when the run is over, with its arguments, up to a `;` that stands alone: `--on-end /usr/local/bin/tell
    /// acme \;`. No shell is between, and nothing of the environment is passed on but PATH, HOME, USER, LOGNAME, LANG, `LC_ALL`,
    /// TZ and TMPDIR; `MAILFERRY_EXIT_CODE` is set. It reads a summary as JSON from its standard input. How it ends changes
    /// nothing.
    #[arg(long, value_name = "COMMAND", num_args = 1.., value_terminator = ";", allow_hyphen_values = true)]
    on_end: Vec<String>,

    /// Post the same summary to this URL when the run is over.
    #[arg(long, value_name = "URL", env = "MAILFERRY_WEBHOOK", hide_env_values = true)]
    webhook: Option<String>,
}

/// What the flags ask for, found to be possible before the run begins.
pub(super) struct RunRecord {
    log: Option<File>,
    report: Option<(PathBuf, ReportFormat)>,
    notice: EndNotice,
}

impl RunRecordArgs {
    /// Looks at the flags and opens the log.
    ///
    /// # Errors
    /// Configuration when one of them can't be used.
    pub(super) fn open(&self) -> Result<RunRecord> {
        let report = match &self.report {
            Some(path) => Some((path.clone(), ReportFormat::of_file(path)?)),
            None => None,
        };
        let webhook = self.webhook.as_deref().map(webhook_url).transpose()?;
        let log = self.log_file.as_deref().map(open_log).transpose()?;
        Ok(RunRecord { log, report, notice: EndNotice { command: self.on_end.clone(), webhook } })
    }
}

/// The URL is not shown: it may be as good as a password.
fn webhook_url(text: &str) -> Result<Uri> {
    let url: Option<Uri> = text.parse().ok();
    url.filter(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some()).ok_or_else(|| {
        Error::configuration("--webhook is not a URL that can be posted to")
            .advice("Write https:// (or http://), a host and a path")
    })
}

impl RunRecord {
    /// A view that also writes the log.
    pub(super) fn logged(&self, view: Box<dyn RunView>) -> Box<dyn RunView> {
        match self.log.as_ref().and_then(|log| log.try_clone().ok()) {
            Some(log) => Box::new(LoggedView::new(view, log)),
            None => view,
        }
    }

    /// The run is over. What can't be written is logged: the run has ended as it has.
    pub(super) async fn finish(self, migration: &str, outcome: &RunOutcome) {
        if let Some(log) = self.log {
            log_text(log, &run_report::report(outcome, TextLayout::default()));
        }
        if let Some((path, format)) = self.report
            && let Err(error) = write_report(&path, format, outcome, Timestamp::now())
        {
            tracing::error!("{error}");
        }
        self.notice.send(migration, outcome).await;
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct RecordCli {
        files: Vec<String>,

        #[command(flatten)]
        record: RunRecordArgs,
    }

    fn parsed(line: &[&str]) -> RecordCli {
        RecordCli::try_parse_from(["test"].iter().chain(line)).unwrap()
    }

    #[test]
    fn a_command_has_its_own_flags_up_to_a_semicolon() {
        let cli = parsed(&["--on-end", "tell", "-q", "--all", ";", "a.yaml", "--report", "r.csv"]);
        assert_eq!(
            (cli.record.on_end, cli.files),
            (["tell", "-q", "--all"].map(str::to_owned).to_vec(), vec!["a.yaml".to_owned()])
        );
        assert!(cli.record.report.is_some());
    }

    #[test]
    fn a_wrong_report_or_webhook_is_told_before_the_run_and_the_url_is_not_shown() {
        let refused =
            |line: &[&str]| parsed(line).record.open().err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused(&["--report", "r.pdf"]).contains(".csv"));
        for url in ["hooks.example/s3cret", "ftp://hooks.example/s3cret", "https:///s3cret"] {
            let error = refused(&["--webhook", url]);
            assert!(error.contains("--webhook") && !error.contains("s3cret"), "{error}");
        }
        assert_eq!(refused(&["--webhook", "https://hooks.example/s3cret"]), "");
    }
}
