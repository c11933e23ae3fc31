//! The program under the names by which kubectl knows a plugin: `kubectl-mailferry` is `mailferry kubectl`, and
//! `kubectl_complete-mailferry` completes it on a shell's command line.

use std::{ffi::OsStr, path::Path};

use clap::{Arg, Command, CommandFactory as _, Parser};

use crate::commands::{kubectl::KubectlCommand, log_args::LogArgs};

/// See and steer the migrations of a cluster: what each mailbox waits for, what fails and why, logs; retry, suspend, resume.
///
/// It uses your kubeconfig and your rights: Kubernetes' role `view` to look, `edit` to change migrations.
#[derive(Debug, Parser)]
#[command(name = "kubectl-mailferry", bin_name = "kubectl mailferry", version, max_term_width = 120)]
pub(super) struct PluginCli {
    #[command(flatten)]
    pub(super) logs: LogArgs,

    #[command(subcommand)]
    pub(super) command: KubectlCommand,
}

/// Which program is meant by the name that it was started by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CalledAs {
    /// The program itself.
    Mailferry,
    /// The plugin.
    Plugin,
    /// What kubectl asks for completions of the plugin.
    PluginCompletion,
}

impl CalledAs {
    /// By `argv[0]`.
    #[must_use]
    pub(super) fn from_program(program: Option<&OsStr>) -> Self {
        match program.and_then(|program| Path::new(program).file_name()?.to_str()) {
            Some("kubectl-mailferry") => Self::Plugin,
            Some("kubectl_complete-mailferry") => Self::PluginCompletion,
            _ => Self::Mailferry,
        }
    }
}

/// What kubectl shows for these words, of which the last one may be begun only: a candidate in each line, and a line that
/// says whether files are candidates, too (cobra's `:0`) or not (`:4`).
#[must_use]
pub(super) fn completions(words: &[String]) -> String {
    let mut command = PluginCli::command();
    command.build();
    let (begun, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let inner = before.iter().fold(&command, |inner, word| inner.find_subcommand(word).unwrap_or(inner));
    if before.last().is_some_and(|word| takes_value(inner, word)) {
        return ":0\n".to_owned();
    }
    let mut candidates: Vec<String> = if begun.starts_with('-') {
        let flags = inner.get_arguments().filter(|argument| !argument.is_hide_set());
        flags.filter_map(Arg::get_long).map(|flag| format!("--{flag}")).collect()
    } else {
        let commands = inner.get_subcommands().filter(|command| !command.is_hide_set());
        commands.map(Command::get_name).map(str::to_owned).collect()
    };
    candidates.retain(|candidate| candidate.starts_with(begun));
    candidates.push(":4\n".to_owned());
    candidates.join("\n")
}

fn takes_value(command: &Command, word: &str) -> bool {
    let is_meant = |argument: &&Arg| match word.strip_prefix("--") {
        Some(long) => argument.get_long() == Some(long),
        None => argument.get_short().is_some_and(|short| word == format!("-{short}")),
    };
    command.get_arguments().find(is_meant).is_some_and(|argument| argument.get_action().takes_values())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(words: &[&str]) -> String {
        completions(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_plugin_s_command_line_is_consistent() {
        PluginCli::command().debug_assert();
    }

    #[test]
    fn the_name_that_it_is_started_by_says_what_is_meant() {
        let called = |program: &str| CalledAs::from_program(Some(OsStr::new(program)));
        assert_eq!(called("/usr/local/bin/kubectl-mailferry"), CalledAs::Plugin);
        assert_eq!(called("kubectl_complete-mailferry"), CalledAs::PluginCompletion);
        assert_eq!(called("/opt/kubectl-mailferry/mailferry"), CalledAs::Mailferry);
        assert_eq!(CalledAs::from_program(None), CalledAs::Mailferry);
    }

    #[test]
    fn a_shell_is_told_commands_flags_and_where_a_value_is_due() {
        assert_eq!(completed(&["s"]), "status\nsuspend\n:4\n");
        assert!(completed(&[""]).starts_with("status\nfailed\nlogs\nretry\nsuspend\nresume\ncheckpoint\n"));
        assert_eq!(completed(&["status", "--all"]), "--all-namespaces\n:4\n");
        assert_eq!(completed(&["checkpoint", "e"]), "export\n:4\n");
        assert_eq!(completed(&["status", "-n", ""]), ":0\n");
        assert_eq!(completed(&["logs", "--follow", "a"]), ":4\n");
    }
}
