//! What a command over mailboxes is about: manifests in files, or two accounts as URLs.

use clap::Args;

use super::{
    account_args::AccountArgs,
    connection_args::ConnectionArgs,
    manifest_args::{LoadedMigration, ManifestArgs},
    password_source::ask_on_terminal,
};
use crate::{
    error::{Error, Result},
    local::account_url::means_account,
};

/// A migration, by manifests or by two accounts.
#[derive(Debug, Clone, Args)]
pub struct MigrationArgs {
    /// The file of a manifest, as -f takes it; or two accounts, as `mailferry copy` takes them:
    /// `imaps://alice@acme.example@imap.oldhost.example imaps://alice@acme.example@mail.newhost.example`.
    #[arg(value_name = "FILE | SOURCE DESTINATION")]
    targets: Vec<String>,

    #[command(flatten)]
    manifests: ManifestArgs,

    #[command(flatten)]
    connection: ConnectionArgs,

    #[command(flatten)]
    accounts: AccountArgs,
}

/// What the arguments without a flag name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MigrationTarget<'a> {
    /// Manifests; none where -f names them all.
    Files(&'a [String]),
    /// Source and destination.
    Accounts([&'a str; 2]),
}

/// What the arguments without a flag name. No error shows one: it may hold a password.
///
/// # Errors
/// Configuration when they are neither files nor two accounts.
pub(super) fn meant(targets: &[String]) -> Result<MigrationTarget<'_>> {
    let accounts = targets.iter().filter(|target| means_account(target)).count();
    match (targets, accounts) {
        (_, 0) => Ok(MigrationTarget::Files(targets)),
        ([source, destination], 2) => Ok(MigrationTarget::Accounts([source, destination])),
        (_, 1) if targets.len() == 1 => Err(Error::configuration("there is one account, and DESTINATION is missing")
            .advice("Name two: SOURCE, which mail is read from, and DESTINATION, which it is written to")),
        _ => Err(Error::configuration(format!("there are {accounts} accounts and {} files", targets.len() - accounts))
            .advice("Name two accounts, SOURCE and DESTINATION, or manifests; a file with an @ in its name by -f")),
    }
}

impl MigrationArgs {
    /// Reads the migration, or makes it of the two accounts.
    ///
    /// # Errors
    /// Configuration when it can't be used, or when it is not clear what is meant.
    pub(super) fn load(&self) -> Result<LoadedMigration> {
        match meant(&self.targets)? {
            MigrationTarget::Files(_) if self.accounts != AccountArgs::default() => {
                Err(Error::configuration("a flag says something of two accounts, and there are none")
                    .advice("Write it into the manifest, or name SOURCE and DESTINATION: see --help"))
            }
            MigrationTarget::Files(files) => self.manifests.load(files, &self.connection),
            MigrationTarget::Accounts(_) if self.manifests != ManifestArgs::default() => {
                Err(Error::configuration("there are two accounts, and flags that belong to manifests")
                    .advice("Leave out -f, --secret, --migration and --mailbox, or the two accounts"))
            }
            MigrationTarget::Accounts(accounts) => self.accounts.load(accounts, &self.connection, ask_on_terminal),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct MigrationCli {
        #[command(flatten)]
        migration: MigrationArgs,
    }

    fn refused(more: &[&str]) -> String {
        let cli = MigrationCli::try_parse_from(["test"].iter().chain(more)).unwrap();
        cli.migration.load().unwrap_err().to_string()
    }

    #[test]
    fn arguments_are_files_or_two_accounts_and_nothing_between() {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let two = texts(&["a@b", "imap://c@d"]);
        assert_eq!(meant(&two).unwrap(), MigrationTarget::Accounts(["a@b", "imap://c@d"]));
        for files in [texts(&[]), texts(&["m.yaml"]), texts(&["m.yaml", "./a@b.yaml", "-"])] {
            assert_eq!(meant(&files).unwrap(), MigrationTarget::Files(&files));
        }
        for wrong in [&["a:hush@b"][..], &["a@b", "m.yaml"], &["a@b", "c@d", "imaps://e:hush@f"]] {
            let error = meant(&texts(wrong)).unwrap_err().to_string();
            assert!(error.contains("SOURCE") && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn flags_that_have_no_meaning_are_refused() {
        assert!(refused(&[]).contains("no migration is named"));
        assert!(refused(&["m.yaml", "--exclude", "Trash"]).contains("Write it into the manifest"));
        assert!(refused(&["a@b", "c@d", "-f", "m.yaml"]).contains("belong to manifests"));
        assert!(refused(&["a@b", "c@d", "--mailbox", "x"]).contains("belong to manifests"));
    }

    #[test]
    fn an_account_with_a_password_is_refused_without_showing_it() {
        for (source, destination, word) in [("a:hush@b", "c@d", "SOURCE"), ("a@b", "imaps://c:hush@d", "DESTINATION")] {
            let error = refused(&[source, destination]);
            assert!(error.contains(word) && error.contains("change it") && !error.contains("hush"), "{error}");
        }
    }
}
