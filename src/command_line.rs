//! The command line, and the start and end of the program.

mod kubectl_plugin;

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    sync::Arc,
};

use clap::{CommandFactory as _, Parser, Subcommand};
use indicatif::MultiProgress;
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::runtime::Runtime;

use self::kubectl_plugin::{CalledAs, PluginCli, completions};
use crate::{
    Error, ErrorClass, Result,
    commands::{
        check::CheckArgs, checkpoint::CheckpointArgs, completions::CompletionsArgs, controller::ControllerArgs,
        copy::CopyArgs, crds::CrdsArgs, doctor::DoctorArgs, export::ExportArgs, import::ImportArgs, init::InitArgs,
        kubectl::KubectlArgs, log_args::LogArgs, login::LoginArgs, man::ManArgs, run::RunArgs,
        uninstall::UninstallArgs, verify::VerifyArgs, version::VersionArgs, worker::WorkerArgs,
    },
    local::{account_url::without_passwords, run::SyncEngine},
    telemetry::logs,
    terminal_text::printable,
};

/// Moves mailboxes between IMAP servers: exactly, resumably, at the speed of the wire.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES, max_term_width = 120)]
struct Cli {
    #[command(flatten)]
    logs: LogArgs,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(Box<InitArgs>),
    Copy(Box<CopyArgs>),
    Check(Box<CheckArgs>),
    Run(Box<RunArgs>),
    Verify(Box<VerifyArgs>),
    Export(Box<ExportArgs>),
    Import(Box<ImportArgs>),
    Kubectl(KubectlArgs),
    Login(Box<LoginArgs>),
    Crds(CrdsArgs),
    Checkpoint(CheckpointArgs),
    Controller(ControllerArgs),
    Doctor(DoctorArgs),
    Uninstall(UninstallArgs),
    Worker(WorkerArgs),
    Completions(CompletionsArgs),
    #[command(hide = true)]
    Man(ManArgs),
    Version(VersionArgs),
}

impl From<PluginCli> for Cli {
    fn from(plugin: PluginCli) -> Self {
        Self { logs: plugin.logs, command: Command::Kubectl(KubectlArgs::new(plugin.command)) }
    }
}

impl Command {
    /// True for what runs in a cluster, where nobody watches the screen.
    const fn is_service(&self) -> bool {
        matches!(self, Self::Controller(_) | Self::Worker(_))
    }
}

const EXIT_CODES: &str = "\
Exit codes:
    0  copy, run: all mailboxes are done, and nothing is missing that the migration asks for
       check: no problems, though maybe warnings; verify: all mailboxes are identical
       import: everything was made, though maybe with warnings
    1  verify found differences
    2  Configuration: a wrong command line or manifest, a missing Secret, a state folder in use
    3  copy, run: all is done, and some messages are not copied: the report names them
       export: some messages could not be read
       uninstall: something may still run, or is held: the output names it
   10  Authentication: a server refused a user name, password or token
   11  Authorization: the login worked, but not what came after it
   12  Quota: the destination has no room left
   13  Throttled: a server asks for fewer connections or a slower pace
   14  Network: a connection could not be made, was lost, or fell silent
   15  Tls: the handshake or the certificate failed
   16  Protocol: a server broke the IMAP protocol
   17  MessageRejected: a message was refused where no message could be left out
   70  Internal: a defect in Mailferry, or the local disk
   75  worker: the attempt is over, another has taken over or will
  130  interrupted; the next run goes on from the checkpoints
Where mailboxes end differently, the code is that of the first of: Internal,
Configuration, Authentication, Authorization, Quota, Tls, Protocol, Network,
Throttled, MessageRejected, interrupted, not copied.";

/// The whole program: reads the command line, runs the command, tells its exit code.
#[must_use]
pub fn main() -> ExitCode {
    disable_core_dumps();
    // The only provider compiled in; an error says that it is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let parsed = match CalledAs::from_program(env::args_os().next().as_deref()) {
        CalledAs::Mailferry => Cli::try_parse(),
        CalledAs::Plugin => PluginCli::try_parse().map(Cli::from),
        CalledAs::PluginCompletion => {
            let words: Vec<String> = env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
            drop(write!(io::stdout(), "{}", completions(&words)));
            return ExitCode::SUCCESS;
        }
    };
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return usage_end(&error),
    };
    let code = execute(cli).unwrap_or_else(|error| {
        let more = error.also.iter().fold(String::new(), |text, also| format!("{text}\n  {}", printable(also)));
        drop(writeln!(io::stderr(), "error: {}{more}", printable(&error.to_string())));
        error.class.exit_code()
    });
    ExitCode::from(code)
}

/// What stood on the command line was not understood, or help was asked for. An error repeats what it does not understand,
/// and that may be an account with its password.
fn usage_end(error: &clap::Error) -> ExitCode {
    let arguments: Vec<String> = env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let whole = error.render().to_string();
    let shown = without_passwords(&whole, &arguments);
    if shown == whole {
        drop(error.print()); // with colours
    } else {
        drop(write!(io::stderr(), "{shown}"));
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(ErrorClass::Configuration.exit_code()))
}

/// A core dump would hold passwords and mail. A limit of one byte, unlike zero, also keeps the kernel from piping the
/// dump to a program (core(5)).
fn disable_core_dumps() {
    let one = Rlimit { current: Some(1), maximum: Some(1) };
    let _ = setrlimit(Resource::Core, one); // lowering a limit is always allowed, but for exotic sandboxes
}

fn execute(cli: Cli) -> Result<u8> {
    let screen = MultiProgress::new();
    let beside = screen.clone();
    let stderr = logs::LineSink(move |line: &[u8]| beside.suspend(|| io::stderr().write_all(line)));
    let service = cli.command.is_service();
    let level = cli.logs.log_level.as_deref().unwrap_or(if service { "info" } else { "warn" });
    let format = cli.logs.log_format.unwrap_or(if service { logs::LogFormat::Json } else { logs::LogFormat::Text });
    logs::init(level, format, io::stderr().is_terminal(), stderr)?;
    match cli.command {
        Command::Init(args) => runtime()?.block_on(args.run()),
        Command::Copy(args) => runtime()?.block_on(args.run(Arc::new(SyncEngine), screen)),
        Command::Check(args) => runtime()?.block_on(args.run(screen)),
        Command::Login(args) => runtime()?.block_on(args.run()),
        Command::Verify(args) => runtime()?.block_on(args.run(screen)),
        Command::Export(args) => runtime()?.block_on(args.run(screen)),
        Command::Run(args) => runtime()?.block_on(args.run(Arc::new(SyncEngine), screen)),
        Command::Import(args) => runtime()?.block_on(args.run()),
        Command::Kubectl(args) => small_runtime()?.block_on(args.run()),
        Command::Crds(args) => print(&args.render()?),
        Command::Checkpoint(args) => match &args.transfer {
            Some(transfer) => small_runtime()?.block_on(transfer.run()),
            None => print(&args.render()?),
        },
        Command::Completions(args) => print(&args.render(Cli::command())?),
        Command::Man(args) => print(&args.render(Cli::command())?),
        Command::Version(args) => print(&args.render()?),
        Command::Controller(args) => runtime()?.block_on(args.run()),
        Command::Doctor(args) => small_runtime()?.block_on(args.run()),
        Command::Uninstall(args) => runtime()?.block_on(args.run()),
        Command::Worker(args) => small_runtime()?.block_on(args.run()),
    }
}

fn runtime() -> Result<Runtime> {
    Runtime::new().map_err(|e| Error::internal(format!("cannot start: {e}")))
}

/// For a pod with little memory: each thread has a heap of its own.
fn small_runtime() -> Result<Runtime> {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    threads.map_err(|e| Error::internal(format!("cannot start: {e}")))
}

/// Prints what a command is for. A reader that has gone away (`| head`) is no failure.
fn print(text: &str) -> Result<u8> {
    match writeln!(io::stdout(), "{}", text.trim_end()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::internal(format!("cannot write: {e}"))),
        _ => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_lists_the_exit_code_of_every_class() {
        for class in ErrorClass::ALL {
            let line = format!("{:>5}  {class}:", class.exit_code());
            assert!(EXIT_CODES.lines().any(|l| l.starts_with(&line)), "{line}");
        }
    }
}
