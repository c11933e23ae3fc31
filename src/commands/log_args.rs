//! The flags about logs, which go with every command.

use clap::Args;

use crate::telemetry::logs::LogFormat;

/// What is logged, and how it looks.
#[derive(Debug, Clone, Default, Args)]
pub struct LogArgs {
    /// What to log to stderr: error, warn, info, debug, trace, or by module as in `info,mailferry::imap=debug`
    /// [default: warn; info for what runs in a cluster].
    #[arg(long, global = true, env = "RUST_LOG", value_name = "LEVEL", hide_env_values = true, help_heading = "Logs")]
    pub log_level: Option<String>,

    /// How log lines look [default: text; json for what runs in a cluster].
    #[arg(long, global = true, value_enum, value_name = "FORMAT", help_heading = "Logs")]
    pub log_format: Option<LogFormat>,
}
