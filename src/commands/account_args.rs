//! The flags that go with `SOURCE DESTINATION`, two accounts as URLs: what a MailMigration would say of them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde_json::{Map, Value, json};

use super::{
    connection_args::ConnectionArgs,
    manifest_args::LoadedMigration,
    password_source::{PasswordPrompt, PasswordSource},
    shared_args::master_mode,
};
use crate::{
    api::{MasterMode, NotCopiedReason, Size},
    error::{Error, Result, Side},
    local::{
        account_pair::{AccountPair, CredentialPlace, ExtraTrust, PairCredential, PairSide},
        account_url::{AccountUrl, AccountUrlError},
        manifest::{self, grant_name},
        secrets::SecretSource,
    },
};

/// What a MailMigration says of two accounts.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct AccountArgs {
    #[command(flatten)]
    source: SourceCredentialArgs,

    #[command(flatten)]
    destination: DestinationCredentialArgs,

    #[command(flatten)]
    folders: FolderArgs,

    #[command(flatten)]
    messages: MessageArgs,

    /// What becomes of copies whose message is deleted at the source: `mirror` deletes those that Mailferry made
    /// [default: keep].
    #[arg(long, value_enum, value_name = "WHAT", help_heading = MESSAGES)]
    deletions: Option<DeletionChoice>,

    /// What becomes of flags that change at the source after a message was copied: `ignore` leaves the copy alone
    /// [default: source-wins].
    #[arg(long, value_enum, value_name = "WHAT", help_heading = MESSAGES)]
    flags: Option<FlagChoice>,

    /// The most connections to each side [default: 4].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16), help_heading = ACCOUNTS)]
    connections: Option<u8>,

    /// Also write the MailMigration that says the same, without a password. `mailferry run FILE` goes on from the same
    /// checkpoint, and a cluster takes it, too. A file that is there is not replaced.
    #[arg(long, value_name = "FILE", help_heading = ACCOUNTS)]
    save: Option<PathBuf>,
}

const ACCOUNTS: &str = "With SOURCE and DESTINATION";
const FOLDERS: &str = "Folders of SOURCE and DESTINATION";
const MESSAGES: &str = "Messages of SOURCE and DESTINATION";

/// The same flags for both sides; clap has no prefix for a flattened struct.
macro_rules! credential_args {
    ($args:ident, $side:literal, $variant:expr) => {
        #[derive(Debug, Clone, Default, PartialEq, Args)]
        pub(super) struct $args {
            /// A file that holds the password; one line end at its end is no part of it. Without this and the next ones it
            /// is asked for on the terminal.
            #[arg(id = concat!($side, "-password-file"), long = concat!($side, "-password-file"), value_name = "FILE",
                        group = concat!($side, "-credential"), help_heading = ACCOUNTS)]
            password_file: Option<PathBuf>,

            /// An environment variable that holds the password.
            #[arg(id = concat!($side, "-password-env"), long = concat!($side, "-password-env"), value_name = "VARIABLE",
                        value_parser = variable_name, group = concat!($side, "-credential"), help_heading = ACCOUNTS)]
            password_env: Option<String>,

            /// An open file descriptor that the password is read from, to its end; one line end there is no part of it.
            #[arg(id = concat!($side, "-password-fd"), long = concat!($side, "-password-fd"), value_name = "N",
                        group = concat!($side, "-credential"), help_heading = ACCOUNTS)]
            password_fd: Option<u16>,

            /// A file that holds an OAuth 2.0 access token for XOAUTH2, instead of a password. It is read again before each
            /// connection.
            #[arg(id = concat!($side, "-token-file"), long = concat!($side, "-token-file"), value_name = "FILE",
                        group = concat!($side, "-credential"), help_heading = ACCOUNTS)]
            token_file: Option<PathBuf>,

            /// A file that holds a grant, by which access tokens are asked for and renewed, instead of a password: a Secret
            /// as `mailferry login` writes it, or one of an application of its own.
            #[arg(id = concat!($side, "-grant-file"), long = concat!($side, "-grant-file"), value_name = "FILE",
                        group = concat!($side, "-credential"), help_heading = ACCOUNTS)]
            grant_file: Option<PathBuf>,

            /// An administrator who logs in for the user; the password is the administrator's.
            #[arg(id = concat!($side, "-master-user"), long = concat!($side, "-master-user"), value_name = "USER",
                        conflicts_with_all = [concat!($side, "-token-file"), concat!($side, "-grant-file")],
                        help_heading = ACCOUNTS)]
            master_user: Option<String>,

            /// How the administrator names the user: `AuthorizationIdentity`, or `Suffix` for `user*administrator`
            /// [default: AuthorizationIdentity].
            #[arg(id = concat!($side, "-master-mode"), long = concat!($side, "-master-mode"), value_name = "MODE",
                        value_parser = master_mode, requires = concat!($side, "-master-user"), help_heading = ACCOUNTS)]
            master_mode: Option<MasterMode>,
        }

        impl $args {
            pub(super) fn pair_side(&self, url: AccountUrl, trust: ExtraTrust) -> Result<PairSide> {
                let master = self.master_user.clone().map(|user| (user, self.master_mode.unwrap_or_default()));
                let credential = match (&self.grant_file, &self.token_file) {
                    (Some(file), _) => PairCredential::Grant(grant_name(file)?),
                    (None, Some(_)) => PairCredential::Token,
                    (None, None) => PairCredential::Password,
                };
                Ok(PairSide { url, master, credential, trust })
            }

            /// Where the password is.
            fn source(&self) -> PasswordSource {
                match (&self.password_file, &self.password_env, self.password_fd) {
                    (Some(path), _, _) => PasswordSource::File(path.clone()),
                    (None, Some(variable), _) => PasswordSource::Environment(variable.clone()),
                    (None, None, Some(number)) => PasswordSource::Descriptor(number),
                    (None, None, None) => PasswordSource::Terminal,
                }
            }

            pub(super) fn credential(&self) -> CredentialArgs<'_> {
                CredentialArgs {
                    side: $variant,
                    token_file: self.token_file.as_ref(),
                    grant_file: self.grant_file.as_ref(),
                    password: self.source(),
                }
            }
        }
    };
}

credential_args!(SourceCredentialArgs, "source", Side::Source);
credential_args!(DestinationCredentialArgs, "destination", Side::Destination);

/// Where one side's credential is.
pub(super) struct CredentialArgs<'a> {
    /// The side.
    pub side: Side,
    /// A file with a token.
    pub token_file: Option<&'a PathBuf>,
    /// A file with a grant.
    pub grant_file: Option<&'a PathBuf>,
    /// Where there is none: where the password comes from.
    pub password: PasswordSource,
}

/// Which folders, and what they are called.
#[derive(Debug, Clone, Default, PartialEq, Args)]
struct FolderArgs {
    /// Only folders whose name matches: a glob (`*` within a level, `**` across levels) or a regular expression between
    /// slashes. May be repeated.
    #[arg(long, value_name = "PATTERN", help_heading = FOLDERS)]
    include: Vec<String>,

    /// No folders whose name matches, even where --include does. May be repeated.
    #[arg(long, value_name = "PATTERN", help_heading = FOLDERS)]
    exclude: Vec<String>,

    /// Another name for a folder and all below it; between slashes OLD is a regular expression. May be repeated.
    #[arg(long, value_name = "OLD=NEW", value_parser = rename, help_heading = FOLDERS)]
    rename: Vec<(String, String)>,

    /// Put everything below this folder of the destination, INBOX too.
    #[arg(long, value_name = "FOLDER", help_heading = FOLDERS)]
    into: Option<String>,

    /// Leave the names of sent mail, drafts, junk and trash as they are, instead of using the destination's own folders.
    #[arg(long, help_heading = FOLDERS)]
    keep_special_names: bool,

    /// Leave the destination's subscriptions as they are.
    #[arg(long, help_heading = FOLDERS)]
    no_subscriptions: bool,

    /// Other users' and shared folders, too, and views that show messages of other folders again (Gmail's All Mail).
    #[arg(long, help_heading = FOLDERS)]
    all_namespaces: bool,
}

/// Which messages.
#[derive(Debug, Clone, Default, PartialEq, Args)]
struct MessageArgs {
    /// Only messages that arrived at or after this time: `2024-01-31` (midnight UTC) or `2024-01-31T22:00:00Z`.
    #[arg(long, value_name = "TIME", value_parser = moment, help_heading = MESSAGES)]
    since: Option<Timestamp>,

    /// Only messages that arrived before this time.
    #[arg(long, value_name = "TIME", value_parser = moment, help_heading = MESSAGES)]
    before: Option<Timestamp>,

    /// Only messages that arrived at most so many days ago.
    #[arg(long, value_name = "DAYS", help_heading = MESSAGES)]
    max_age_days: Option<u32>,

    /// Only messages that arrived at least so many days ago.
    #[arg(long, value_name = "DAYS", help_heading = MESSAGES)]
    min_age_days: Option<u32>,

    /// Only messages of at most this size: bytes, or with a unit such as `25Mi`.
    #[arg(long, value_name = "SIZE", help_heading = MESSAGES)]
    max_size: Option<Size>,

    /// Only messages of at least this size.
    #[arg(long, value_name = "SIZE", help_heading = MESSAGES)]
    min_size: Option<Size>,

    /// No messages with the flag \Deleted.
    #[arg(long, help_heading = MESSAGES)]
    skip_deleted: bool,

    /// Messages that may be missing at the destination, by the reason why they were not copied. May be repeated.
    #[arg(long, value_name = "REASON", value_parser = reason, help_heading = MESSAGES)]
    accept_not_copied: Vec<NotCopiedReason>,
}

/// What becomes of copies whose message is deleted at the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DeletionChoice {
    /// They stay.
    Keep,
    /// They are deleted, where Mailferry made them.
    Mirror,
}

/// What becomes of flags that change at the source after a message was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FlagChoice {
    /// They change at the destination, too.
    SourceWins,
    /// They are left alone.
    Ignore,
}

fn variable_name(text: &str) -> Result<String, String> {
    let part = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if text.bytes().all(part) && text.starts_with(|c: char| !c.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    Err("write the name of an environment variable: letters, digits and _".to_owned())
}

fn rename(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok((old.to_owned(), new.to_owned())),
        _ => Err("write OLD=NEW, such as `Sent Items=Sent`".to_owned()),
    }
}

fn moment(text: &str) -> Result<Timestamp, String> {
    let midnight = |date: Date| date.to_zoned(TimeZone::UTC).map(|time| time.timestamp());
    let date = text.parse::<Date>().ok().filter(|_| text.len() == "2024-01-31".len());
    date.and_then(|date| midnight(date).ok())
        .or_else(|| text.parse().ok())
        .ok_or_else(|| "write a date such as 2024-01-31, or a time such as 2024-01-31T22:00:00Z".to_owned())
}

fn reason(text: &str) -> Result<NotCopiedReason, String> {
    let known = [
        NotCopiedReason::TooLarge,
        NotCopiedReason::Refused,
        NotCopiedReason::Unreadable,
        NotCopiedReason::Empty,
        NotCopiedReason::Unlisted,
    ];
    let named = known.into_iter().find(|reason| format!("{reason:?}").eq_ignore_ascii_case(text));
    named.ok_or_else(|| "write TooLarge, Refused, Unreadable, Empty or Unlisted".to_owned())
}

/// A JSON object of those fields that say something.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    let said = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    };
    fields.into_iter().filter(|(_, value)| said(value)).map(|(key, value)| (key.to_owned(), value)).collect()
}

impl FolderArgs {
    fn rules(&self) -> Map<String, Value> {
        let rename: Vec<Value> = self.rename.iter().map(|(from, to)| json!({"from": from, "to": to})).collect();
        object([
            ("include", json!(self.include)),
            ("exclude", json!(self.exclude)),
            ("rename", json!(rename)),
            ("into", json!(self.into)),
            ("specialUse", json!(self.keep_special_names.then_some("Ignore"))),
            ("subscriptions", json!(self.no_subscriptions.then_some("Ignore"))),
            ("namespaces", json!(self.all_namespaces.then_some("All"))),
        ])
    }
}

impl MessageArgs {
    fn rules(&self) -> Map<String, Value> {
        let accepted: Vec<Value> = self.accept_not_copied.iter().map(|reason| json!({"reason": reason})).collect();
        object([
            ("since", json!(self.since.map(|time| time.to_string()))),
            ("before", json!(self.before.map(|time| time.to_string()))),
            ("maxAgeDays", json!(self.max_age_days)),
            ("minAgeDays", json!(self.min_age_days)),
            ("maxSize", json!(self.max_size)),
            ("minSize", json!(self.min_size)),
            ("skipDeleted", json!(self.skip_deleted)),
            ("acceptNotCopied", json!(accepted)),
        ])
    }
}

/// A URL of the command line; `word` is what its help calls it.
fn account(word: &str, text: &str) -> Result<AccountUrl> {
    text.parse()
        .map_err(|error: AccountUrlError| Error::configuration(format!("{word}: {error}")).advice(error.advice()))
}

impl AccountArgs {
    /// The migration between two accounts, with their passwords.
    ///
    /// # Errors
    /// Configuration where an account, a flag or a password is wrong.
    pub(crate) fn load(
        &self,
        [source, destination]: [&str; 2],
        connection: &ConnectionArgs,
        prompt: PasswordPrompt,
    ) -> Result<LoadedMigration> {
        let pair = self.pair([account("SOURCE", source)?, account("DESTINATION", destination)?], connection)?;
        let grants = [&pair.source.credential, &pair.destination.credential];
        if let [PairCredential::Grant(one), PairCredential::Grant(other)] = grants
            && one == other
            && self.source.grant_file != self.destination.grant_file
        {
            return Err(Error::configuration(format!("both grant files hold a Secret {one}"))
                .advice("Give one of them another metadata.name"));
        }
        let mut manifests = manifest::from_command_line(pair.manifest())?;
        let sides = [(self.source.credential(), &pair.source), (self.destination.credential(), &pair.destination)];
        if let Some(file) = &self.save {
            let shown = file.display().to_string();
            let text = pair.file_text(&shown, &[sides[0].0.place(), sides[1].0.place()])?;
            super::saved_file::write_new(file, &text)?;
        }
        for (credential, side) in sides {
            let secret = pair.secret(credential.side);
            if let Some(path) = credential.grant_file {
                manifests.add_grant_file(path)?;
            } else if let Some(path) = credential.token_file {
                manifests.give_secret_file(SecretSource { secret, path: path.clone() });
            } else {
                let whose = match &side.master {
                    Some((master, _)) => format!("{master}, for {}", side.url),
                    None => side.url.to_string(),
                };
                manifests.give_secret(secret, credential.password.read(credential.side, &whose, prompt)?);
            }
        }
        let [migration] = manifests.migrations() else {
            return Err(Error::internal("two accounts are one migration"));
        };
        let mailboxes = manifests.specs(migration, Timestamp::now());
        Ok(LoadedMigration::new(&manifests, migration, mailboxes))
    }

    /// What is said of two accounts.
    fn pair(&self, [source, destination]: [AccountUrl; 2], connection: &ConnectionArgs) -> Result<AccountPair> {
        let trust = |side| connection.trust(side);
        Ok(AccountPair {
            source: self.source.pair_side(source, trust(Side::Source)?)?,
            destination: self.destination.pair_side(destination, trust(Side::Destination)?)?,
            settings: object([
                ("folders", Value::Object(self.folders.rules())),
                ("messages", Value::Object(self.messages.rules())),
                (
                    "deletions",
                    json!(self.deletions.map(|choice| match choice {
                        DeletionChoice::Keep => "Keep",
                        DeletionChoice::Mirror => "Mirror",
                    })),
                ),
                (
                    "flags",
                    json!(self.flags.map(|choice| match choice {
                        FlagChoice::SourceWins => "SourceWins",
                        FlagChoice::Ignore => "Ignore",
                    })),
                ),
                ("connections", json!(self.connections)),
                ("timeouts", Value::Object(connection.timeouts())),
            ]),
        })
    }
}

impl CredentialArgs<'_> {
    /// Where a later run finds it.
    pub(super) fn place(&self) -> CredentialPlace {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        if let Some(path) = self.grant_file {
            return CredentialPlace::Manifest(absolute(path));
        }
        match (self.token_file, &self.password) {
            (Some(path), _) | (None, PasswordSource::File(path)) => CredentialPlace::File(absolute(path)),
            (None, PasswordSource::Environment(variable)) => CredentialPlace::Environment(variable.clone()),
            (None, PasswordSource::Descriptor(_) | PasswordSource::Terminal) => CredentialPlace::Nowhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct AccountCli {
        #[command(flatten)]
        accounts: AccountArgs,
        #[command(flatten)]
        connection: ConnectionArgs,
    }

    const ACCOUNTS_OF: [&str; 2] = ["alice@old.example", "imap://bob@new.example"];

    fn cli(more: &[&str]) -> Result<AccountCli, clap::Error> {
        AccountCli::try_parse_from(["test"].iter().chain(more))
    }

    fn spec(more: &[&str]) -> Value {
        let cli = cli(more).unwrap();
        let urls = ACCOUNTS_OF.map(|text| account("SOURCE", text).unwrap());
        cli.accounts.pair(urls, &cli.connection).unwrap().manifest()["spec"].take()
    }

    fn load(more: &[&str]) -> Result<LoadedMigration> {
        let cli = cli(more).unwrap();
        cli.accounts.load(ACCOUNTS_OF, &cli.connection, |_| Ok(Some(b"typed".to_vec().into())))
    }

    #[test]
    fn flags_say_what_the_manifest_says() {
        let said = spec(&[
            "--include",
            "Work/**",
            "--exclude",
            "Trash",
            "--exclude",
            "/Old.*/",
            "--rename",
            "Sent Items=Sent",
            "--into",
            "Old mail",
            "--keep-special-names",
            "--no-subscriptions",
            "--all-namespaces",
            "--since",
            "2024-01-31",
            "--before",
            "2025-01-31T22:00:00Z",
            "--max-size",
            "25Mi",
            "--skip-deleted",
            "--accept-not-copied",
            "toolarge",
            "--deletions",
            "mirror",
            "--flags",
            "ignore",
            "--connections",
            "2",
            "--timeout-reply",
            "90s",
        ]);
        assert_eq!(
            said["folders"],
            json!({
                "include": ["Work/**"], "exclude": ["Trash", "/Old.*/"], "rename": [{"from": "Sent Items", "to": "Sent"}],
                "into": "Old mail", "specialUse": "Ignore", "subscriptions": "Ignore", "namespaces": "All",
            })
        );
        assert_eq!(
            said["messages"],
            json!({
                "since": "2024-01-31T00:00:00Z", "before": "2025-01-31T22:00:00Z", "maxSize": said["messages"]["maxSize"],
                "skipDeleted": true, "acceptNotCopied": [{"reason": "TooLarge"}],
            })
        );
        assert_eq!((&said["deletions"], &said["flags"]), (&json!("Mirror"), &json!("Ignore")));
        assert_eq!((&said["connections"], &said["timeouts"]), (&json!(2), &json!({"reply": "1m30s"})));
        let migration = load(&["--max-size", "25Mi", "--into", "Old mail"]).unwrap();
        let mailbox = migration.mailboxes[0].as_ref().unwrap();
        assert_eq!((mailbox.messages.max_size, mailbox.folders.into.as_deref()), (Some(25 << 20), Some("Old mail")));
    }

    #[test]
    fn what_no_flag_says_the_manifest_does_not_say() {
        let said = spec(&[]);
        let keys: Vec<&String> = said.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["destination", "mailboxes", "source"]);
    }

    #[test]
    fn a_rule_that_manifests_break_is_refused_before_a_password_is_asked_for() {
        let cli = cli(&["--since", "2025-01-01", "--before", "2024-01-01"]).unwrap();
        let error = cli.accounts.load(ACCOUNTS_OF, &cli.connection, |_| unreachable!("asked")).unwrap_err();
        assert!(error.what.contains("the command line") && error.what.contains("since must be earlier"), "{error}");
        assert!(cli_error(&["--include"]).contains("--include"));
    }

    fn cli_error(more: &[&str]) -> String {
        cli(more).unwrap_err().to_string()
    }

    #[test]
    fn one_side_has_one_credential() {
        for more in [
            ["--source-password-file", "a", "--source-password-env", "B"],
            ["--source-password-fd", "3", "--source-token-file", "a"],
            ["--source-token-file", "a", "--source-master-user", "root"],
        ] {
            assert!(cli_error(&more).contains("cannot be used with"), "{more:?}");
        }
        cli(&["--source-password-file", "a", "--destination-password-env", "B"]).unwrap();
        assert!(cli_error(&["--source-master-mode", "Suffix"]).contains("--source-master-user"));
    }

    #[test]
    fn values_that_mean_nothing_are_refused_with_what_to_write() {
        for (flag, value, says) in [
            ("--since", "yesterday", "2024-01-31"),
            ("--since", "2024-13-01", "2024-01-31"),
            ("--rename", "Sent", "OLD=NEW"),
            ("--accept-not-copied", "any", "TooLarge"),
            ("--max-size", "25MiB", "25Mi"),
            ("--source-password-env", "A B", "letters, digits"),
            ("--connections", "0", "1..=16"),
        ] {
            assert!(cli_error(&[flag, value]).contains(says), "{flag} {value}: {}", cli_error(&[flag, value]));
        }
    }

    #[test]
    fn a_token_is_read_from_its_file_and_a_password_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token").display().to_string();
        fs::write(&token, "ya29\n").unwrap();
        let migration = load(&["--source-token-file", &token]).unwrap();
        assert!(migration.mailboxes[0].is_ok(), "{migration:?}");
        assert!(!format!("{migration:?}").contains("typed"));
    }
}
