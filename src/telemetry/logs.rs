//! Logs: levels, text or JSON, and what is never logged.

use std::{borrow::Cow, io};

use tracing::{Metadata, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt as _, filter_fn},
    fmt::MakeWriter,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::{
    error::{Error, Result},
    terminal_text::{printable, printable_json},
};

/// These log what they send and receive, passwords and mail included, below `info`: no setting gets more out of them.
const CAPPED: [&str; 2] = ["async_imap", "imap_proto"];

/// This logs what the API server answers: a Secret that it can't read, a policy's message about a password.
const SILENT: &str = "kube_client::client";

/// These log a failure, at this level, that Mailferry itself reports: whoever asked says what it means, and what to do.
/// Shown where a directive names the module.
const REPEATED: [(&str, LevelFilter); 4] = [
    // Each request to the API server that fails.
    ("kube_client::client::builder", LevelFilter::ERROR),
    // A certificate that does not hold.
    ("rustls_platform_verifier", LevelFilter::ERROR),
    // A peer that breaks the TLS protocol, and a connection that ends for it.
    ("rustls::check", LevelFilter::WARN),
    ("rustls::common_state", LevelFilter::ERROR),
];

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Sends the logs of this process to `writer`, filtered by `directives` (`warn`, or `info,mailferry::imap=debug`, as in
/// `RUST_LOG`), and makes panics a log line that says where and never quotes what the panic was about.
///
/// # Errors
/// Configuration when the directives cannot be read; Internal when logs were set up before.
pub fn init<W>(directives: &str, format: LogFormat, colours: bool, writer: W) -> Result<()>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::registry()
        .with(layer(directives, format, colours, writer)?)
        .try_init()
        .map_err(|e| Error::internal(format!("cannot set up logs: {e}")))?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a task panicked; this is a defect in Mailferry");
    }));
    Ok(())
}

fn layer<W>(
    directives: &str,
    format: LogFormat,
    colours: bool,
    writer: W,
) -> Result<Box<dyn Layer<Registry> + Send + Sync>>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let wanted = EnvFilter::try_new(directives).map_err(|e| {
        Error::configuration(format!("the log level {directives:?} cannot be read: {e}"))
            .advice("Use error, warn, info, debug or trace, or a list such as info,mailferry::imap=debug")
    })?;
    let repeated: Vec<_> = REPEATED.into_iter().filter(|(module, _)| !is_named(directives, module)).collect();
    let filter = wanted.and(filter_fn(move |metadata| may_log(metadata) && !is_repeated(&repeated, metadata)));
    let lines =
        tracing_subscriber::fmt::layer().with_writer(HarmlessLines { writer, format, colours }).with_ansi(colours);
    Ok(match format {
        LogFormat::Text => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_ansi(false).with_filter(filter).boxed(),
    })
}

fn may_log(metadata: &Metadata<'_>) -> bool {
    let capped = CAPPED.iter().any(|name| is_in_module(metadata, name));
    metadata.target() != SILENT && (!capped || *metadata.level() <= LevelFilter::INFO)
}

/// True when one of the directives is about this module, and not about all: as `EnvFilter` has it, a directive is about
/// every module whose name begins with its own.
fn is_named(directives: &str, module: &str) -> bool {
    let names = directives.split(',').filter_map(|directive| directive.trim().split(['=', '[']).next());
    names.filter(|name| !name.is_empty()).any(|name| module.starts_with(name))
}

fn is_repeated(repeated: &[(&str, LevelFilter)], metadata: &Metadata<'_>) -> bool {
    let level = *metadata.level();
    metadata.is_event() && repeated.iter().any(|(module, at)| level == *at && is_in_module(metadata, module))
}

fn is_in_module(metadata: &Metadata<'_>, module: &str) -> bool {
    metadata.target().strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Writes log lines, each in one piece, with everything escaped that acts on a terminal or begins another line: a log line
/// names folders and quotes servers.
struct HarmlessLines<W> {
    writer: W,
    format: LogFormat,
    /// Text has colours.
    colours: bool,
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for HarmlessLines<W> {
    type Writer = HarmlessLineWriter<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        HarmlessLineWriter { writer: self.writer.make_writer(), format: self.format, colours: self.colours }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        let (format, colours) = (self.format, self.colours);
        HarmlessLineWriter { writer: self.writer.make_writer_for(metadata), format, colours }
    }
}

struct HarmlessLineWriter<W> {
    writer: W,
    format: LogFormat,
    colours: bool,
}

impl<W: io::Write> io::Write for HarmlessLineWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let harmless = match self.format {
            LogFormat::Json => printable_json(&text),
            LogFormat::Text => Cow::Owned(harmless_line(&text, self.colours)),
        };
        self.writer.write_all(harmless.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// What the formatter sends for its colours.
const COLOURS: [&str; 9] = ["[0m", "[1m", "[2m", "[3m", "[31m", "[32m", "[33m", "[34m", "[35m"];

/// A line of text without what acts on a terminal, but for its end and, where it has some, colours.
fn harmless_line(line: &str, colours: bool) -> String {
    let (text, end) = line.strip_suffix('\n').map_or((line, ""), |text| (text, "\n"));
    let mut safe = String::with_capacity(line.len());
    for (at, piece) in text.split('\u{1b}').enumerate() {
        if at > 0 {
            let is_colour = colours && COLOURS.iter().any(|colour| piece.starts_with(colour));
            safe.push_str(if is_colour { "\u{1b}" } else { "\\u{1b}" });
        }
        safe.push_str(&printable(piece));
    }
    safe + end
}

/// Writes log lines to stderr through `between`, which may hold back what else is drawn there.
#[derive(Debug, Clone)]
pub struct LineSink<F>(pub F);

impl<'a, F> MakeWriter<'a> for LineSink<F>
where
    F: Fn(&[u8]) -> io::Result<()> + 'a,
{
    type Writer = LineSinkWriter<'a, F>;

    fn make_writer(&'a self) -> Self::Writer {
        LineSinkWriter(&self.0)
    }
}

/// Hands each whole log line on.
#[derive(Debug)]
pub struct LineSinkWriter<'a, F>(&'a F);

impl<F: Fn(&[u8]) -> io::Result<()>> io::Write for LineSinkWriter<'_, F> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        (self.0)(line).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What is logged by `act` under the directives.
    fn logged(directives: &str, format: LogFormat, act: impl FnOnce()) -> String {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let writer = LineSink(move |line: &[u8]| {
            sink.lock().unwrap().extend_from_slice(line);
            Ok(())
        });
        let subscriber = tracing_subscriber::registry().with(layer(directives, format, false, writer).unwrap());
        let guard = subscriber.set_default();
        act();
        drop(guard);
        String::from_utf8(lines.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn the_imap_crates_stay_silent_below_info_whatever_is_asked_for() {
        let asked = "trace,async_imap=trace,async_imap::imap_stream=trace,imap_proto=trace";
        let text = logged(asked, LogFormat::Text, || {
            log::trace!(target: "async_imap::imap_stream", "encode: LOGIN alice hunter2");
            log::debug!(target: "async_imap", "hunter2");
            log::trace!(target: "imap_proto::parser", "hunter2");
            tracing::trace!(target: "async_imap::client", "hunter2");
            log::info!(target: "async_imap", "harmless");
            log::trace!(target: "async_imap_lookalike", "another crate");
            tracing::trace!("our own");
        });
        assert!(!text.contains("hunter2"), "{text}");
        for kept in ["harmless", "another crate", "our own"] {
            assert!(text.contains(kept), "{kept} is missing in {text}");
        }
    }

    #[test]
    fn what_an_api_server_answers_stays_unsaid_whatever_is_asked_for() {
        let text = logged("trace,kube_client::client=trace", LogFormat::Text, || {
            tracing::warn!(target: "kube_client::client", "hunter2, a Secret");
            tracing::debug!(target: "kube_client::client", "Unsuccessful: hunter2 is too weak");
            tracing::debug!(target: "kube_client::client::builder", "requesting");
        });
        assert!(!text.contains("hunter2") && text.contains("requesting"), "{text}");
    }

    #[test]
    fn kubes_own_line_for_each_failed_request_is_left_out_unless_it_is_asked_for() {
        let act = || {
            tracing::error!(target: "kube_client::client::builder", "failed with error");
            tracing::warn!(target: "kube_client::client::auth", "a token is old");
            tracing::error!(target: "mailferry::controller::run", "our own");
        };
        let text = logged("info", LogFormat::Text, act);
        assert!(!text.contains("failed with") && text.contains("a token is old") && text.contains("our own"), "{text}");
        assert!(logged("info,kube_client=error", LogFormat::Text, act).contains("failed with"));
    }

    #[test]
    fn what_a_dependency_logs_of_a_failure_that_is_reported_is_left_out_unless_its_module_is_named() {
        let act = || {
            log::error!(target: "rustls_platform_verifier::verification::others", "failed to verify");
            log::warn!(target: "rustls_platform_verifier::verification::others", "ignored");
            log::warn!(target: "rustls::check", "while expecting");
        };
        let text = logged("debug", LogFormat::Text, act);
        assert!(text.contains("ignored") && !text.contains("failed to") && !text.contains("while"), "{text}");
        let text = logged("warn,rustls_platform_verifier=error", LogFormat::Text, act);
        assert!(text.contains("failed to verify") && !text.contains("while expecting"), "{text}");
        let text = logged("rustls", LogFormat::Text, act);
        assert!(text.contains("failed to verify") && text.contains("while expecting"), "{text}");
    }

    #[test]
    fn the_level_asked_for_is_the_level_logged() {
        let text = logged("warn,mailferry::imap=debug", LogFormat::Text, || {
            tracing::info!(target: "mailferry::sync", "too low");
            tracing::debug!(target: "mailferry::imap", "asked for");
            tracing::warn!(target: "mailferry::sync", "high enough");
        });
        assert!(!text.contains("too low") && text.contains("asked for") && text.contains("high enough"), "{text}");
    }

    #[test]
    fn json_logs_are_one_object_per_line() {
        let text = logged("info", LogFormat::Json, || tracing::info!(mailbox = "alice", "two\nlines"));
        let value: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!((&value["mailbox"], &value["message"]), (&"alice".into(), &"two\nlines".into()));
    }

    #[test]
    fn a_line_names_what_it_is_about_in_both_formats_and_at_any_level() {
        let act = || {
            let _mailbox = tracing::error_span!("mailbox", mailbox = "alice").entered();
            let _folder = tracing::error_span!("folder", folder = "Sent\n\u{1b}[31m").entered();
            tracing::warn!(target: "mailferry::sync", delay_ms = 5, "trying again");
        };
        let text = logged("warn", LogFormat::Text, act);
        let (_, line) = text.trim_end().split_once("WARN ").unwrap();
        let expected =
            r#"mailbox{mailbox="alice"}:folder{folder="Sent\n\u{1b}[31m"}: mailferry::sync: trying again delay_ms=5"#;
        assert_eq!(line, expected);
        let text = logged("warn", LogFormat::Json, act);
        let value: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        let spans = serde_json::json!([
            { "name": "mailbox", "mailbox": "alice" },
            { "name": "folder", "folder": "Sent\n\u{1b}[31m" },
        ]);
        assert_eq!(
            (&value["message"], &value["delay_ms"], &value["spans"]),
            (&"trying again".into(), &5.into(), &spans)
        );
    }

    #[test]
    fn what_a_server_says_is_one_line_and_moves_no_cursor() {
        let hostile = Error::network("a\u{1b}[2Jb\u{9b}31mc\u{202e}d").in_folder("Work\n2026-01-01 ERROR forged");
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged("info", format, || tracing::warn!(error = %hostile, "a {hostile}"));
            assert_eq!(text.matches('\n').count(), 1, "{text}");
            let acts = |c: char| c.is_control() || c == '\u{202e}';
            assert!(!text.trim_end().contains(acts), "{text:?}");
            assert!(text.contains("forged") && text.contains("[2Jb"), "{text}");
        }
    }

    #[test]
    fn colours_are_all_that_acts_on_a_terminal() {
        let line = "\u{1b}[2mnow\u{1b}[0m \u{1b}[33mWARN\u{1b}[0m a\u{1b}[2Jb\u{1b}]0;t\n\n";
        let coloured = "\u{1b}[2mnow\u{1b}[0m \u{1b}[33mWARN\u{1b}[0m a\\u{1b}[2Jb\\u{1b}]0;t\\n\n";
        assert_eq!(harmless_line(line, true), coloured);
        assert!(!harmless_line(line, false).contains('\u{1b}'));
    }

    #[test]
    fn a_wrong_level_is_a_configuration_error_that_shows_a_right_one() {
        let Err(error) = layer("info,=x=", LogFormat::Text, false, io::sink) else { panic!("accepted") };
        assert_eq!(error.class, crate::ErrorClass::Configuration);
        assert!(error.advice.unwrap().contains("mailferry::imap=debug"));
    }
}
