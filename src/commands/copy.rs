//! `mailferry copy`: sync one mailbox between two accounts that the command line names.

use std::sync::Arc;

use clap::Args;
use indicatif::MultiProgress;

use super::{
    account_args::AccountArgs,
    connection_args::ConnectionArgs,
    migration_args::{MigrationTarget, meant},
    password_source::ask_on_terminal,
    sync_args::SyncArgs,
};
use crate::{
    error::{Error, Result},
    local::run::MailboxEngine,
};

/// Copy one mailbox from one IMAP account to another: `run` without a file.
///
/// An account is `imaps://USER@HOST` or `imaps://USER@HOST:PORT` (TLS from the first byte, port 993), or `imap://` (STARTTLS,
/// port 143); without a scheme it is `imaps`. There is none without TLS. All of it is plain text, percent signs too, and the
/// last @ divides user and host: `imaps://alice@acme.example@imap.oldhost.example`. An IPv6 address stands in brackets.
///
/// A URL holds no password. It is asked for on the terminal, or comes from a file, the environment or a file descriptor.
///
/// It may be interrupted and repeated like `mailferry run`: the same two accounts go on from the same checkpoint, and only what
/// is new is copied. `mailferry check` and `mailferry verify` take the same two accounts and flags. With --save the same is
/// written as a manifest, for `mailferry run`, for more mailboxes, or for a cluster.
#[derive(Debug, Clone, Args)]
#[command(
    override_usage = "mailferry copy [OPTIONS] <SOURCE> <DESTINATION>",
    mut_arg("state", |arg| arg.help("Where checkpoints are kept [default: a folder for these two accounts below mailferry in the user's state home, ~/.local/state]. One run at a time may use it")),
    mut_arg("parallelism", |arg| arg.hide(true))
)]
pub struct CopyArgs {
    /// The account that mail is read from, and the account that it is written to, which must exist:
    /// `imaps://alice@acme.example@imap.oldhost.example imaps://alice@acme.example@mail.newhost.example`.
    // Any number, so that it is us who refuse a third one: clap would show it.
    #[arg(value_name = "SOURCE DESTINATION", required = true)]
    targets: Vec<String>,

    #[command(flatten)]
    accounts: AccountArgs,

    #[command(flatten)]
    connection: ConnectionArgs,

    #[command(flatten)]
    sync: SyncArgs,
}

impl CopyArgs {
    /// Copies the mailbox; returns the exit code. `screen` is where bars are drawn, between log lines.
    ///
    /// # Errors
    /// When nothing could start: an account, a flag or a password that is wrong, a state folder in use.
    pub async fn run(&self, engine: Arc<dyn MailboxEngine>, screen: MultiProgress) -> Result<u8> {
        let MigrationTarget::Accounts(accounts) = meant(&self.targets)? else {
            return Err(Error::configuration("copy takes two accounts, and these are not accounts")
                .advice("Write imaps://USER@HOST twice: SOURCE and DESTINATION. Manifests are for mailferry run"));
        };
        let migration = self.accounts.load(accounts, &self.connection, ask_on_terminal)?;
        self.sync.run(migration, engine, screen).await
    }
}
