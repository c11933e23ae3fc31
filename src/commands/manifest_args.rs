//! The flags that say which mailboxes a command is about, shared by all commands that take a migration.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use jiff::Timestamp;

use crate::{
    api::{self, MailMigration, deprecated},
    error::{Error, Result},
    local::{
        mailbox_queue::{ServerLimit, ServerLimits},
        manifest,
        secrets::SecretSource,
    },
    sync::spec::SyncSpec,
};

/// Which mailboxes, with which secrets and timeouts.
#[derive(Debug, Clone, Args)]
pub struct ManifestArgs {
    /// A file with manifests (MailMigration, MailServer, Secret, ConfigMap), the same that a cluster takes; `-` reads stdin.
    /// Give it more than once to keep secrets in a file of their own.
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// One key of a Secret, read from a file: `--secret acme-mail/alice=/run/secrets/alice`. It wins over the environment
    /// (`MAILFERRY_SECRET_ACME_MAIL_ALICE`), and that over the manifests.
    #[arg(long = "secret", value_name = "NAME/KEY=PATH")]
    pub secrets: Vec<SecretSource>,

    /// Which MailMigration, where the files hold more than one.
    #[arg(long, value_name = "NAME")]
    pub migration: Option<String>,

    /// Only this mailbox, by its name in the migration. Give it more than once for several.
    #[arg(long = "mailbox", value_name = "NAME")]
    pub mailboxes: Vec<String>,

    /// The longest wait for a connection, a TLS handshake and a greeting, each, written as in manifests (`30s`, `1m30s`).
    /// Wins over the manifests.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout_connect: Option<Duration>,

    /// The longest silence while a server owes an answer, written as in manifests (`30s`, `1m30s`). Wins over
    /// the manifests.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout_reply: Option<Duration>,
}

/// A migration as the manifests and the command line describe it.
#[derive(Debug)]
pub struct LoadedMigration {
    /// The MailMigration's name.
    pub name: String,
    /// Mailboxes at once.
    pub parallelism: usize,
    /// Suspended in its manifest.
    pub suspended: bool,
    /// What each server allows, over all mailboxes.
    pub servers: ServerLimits,
    /// What to do with each mailbox, or why that cannot be told.
    pub mailboxes: Vec<Result<SyncSpec>>,
}

/// A length of time above zero, written as in manifests.
fn duration(text: &str) -> Result<Duration, String> {
    let length = text.parse::<api::Duration>()?.as_std();
    if length.is_zero() { Err("it must be longer than nothing, such as 30s".to_owned()) } else { Ok(length) }
}

impl LoadedMigration {
    /// Has each mailbox make one connection to each side.
    pub(crate) fn use_one_connection(&mut self) {
        for spec in self.mailboxes.iter_mut().flatten() {
            spec.connections = 1;
        }
    }
}

impl ManifestArgs {
    /// Reads the migration from its files.
    ///
    /// # Errors
    /// Configuration when a file cannot be read or used, or when it is not clear which migration or mailbox is meant.
    pub(crate) fn load(&self) -> Result<LoadedMigration> {
        let manifests = manifest::load(&self.files, &self.secrets, &|name| std::env::var_os(name))?;
        let migration = self.choose(manifests.migrations())?;
        for field in deprecated::in_manifest(&migration.spec) {
            tracing::warn!("{}: {}", field.path, field.message);
        }
        let mailboxes = self.select(manifests.specs(migration, Timestamp::now()))?;
        let limit = |endpoint| {
            let limits = manifests.server(migration, endpoint).map(|server| &server.limits);
            let number = |limit: Option<i32>| limit.and_then(|limit| usize::try_from(limit).ok());
            ServerLimit {
                connections: number(limits.and_then(|limits| limits.max_connections)),
                starts_per_minute: number(limits.and_then(|limits| limits.starts_per_minute)),
            }
        };
        let (source, destination) = (limit(&migration.spec.source), limit(&migration.spec.destination));
        let mut servers = ServerLimits::new();
        for spec in mailboxes.iter().flatten() {
            for (side, limit) in [(&spec.source, source), (&spec.destination, destination)] {
                let server = servers.entry(side.address().to_lowercase()).or_insert(limit);
                *server = server.stricter(limit);
            }
        }
        Ok(LoadedMigration {
            name: migration.metadata.name.clone().unwrap_or_default(),
            parallelism: usize::try_from(migration.spec.parallelism).unwrap_or(1),
            suspended: migration.spec.suspend,
            servers,
            mailboxes,
        })
    }

    fn choose<'a>(&self, migrations: &'a [MailMigration]) -> Result<&'a MailMigration> {
        let name = |migration: &MailMigration| migration.metadata.name.clone().unwrap_or_default();
        let fits = |migration: &&MailMigration| self.migration.as_ref().is_none_or(|wanted| *wanted == name(migration));
        let fitting: Vec<&MailMigration> = migrations.iter().filter(fits).collect();
        if let [one] = fitting.as_slice() {
            return Ok(one);
        }
        let names = migrations.iter().map(name).collect::<Vec<_>>().join(", ");
        Err(Error::configuration(match &self.migration {
            Some(wanted) if fitting.is_empty() => format!("there is no MailMigration {wanted}, but {names}"),
            Some(wanted) => format!("there is more than one MailMigration {wanted}"),
            None => format!("there is more than one MailMigration: {names}"),
        })
        .advice("Name one of them by --migration, or give its file only"))
    }

    /// The mailboxes that `--mailbox` names, all without it, with the timeouts of the command line. A wrong mailbox
    /// stays in, so that it is reported.
    ///
    /// # Errors
    /// Configuration when `--mailbox` names one that is not there.
    pub(crate) fn select(&self, mailboxes: Vec<Result<SyncSpec>>) -> Result<Vec<Result<SyncSpec>>> {
        let name = |mailbox: &Result<SyncSpec>| match mailbox {
            Ok(spec) => Some(spec.mailbox.clone()),
            Err(error) => error.mailbox.clone(),
        };
        let names: Vec<Option<String>> = mailboxes.iter().map(name).collect();
        if let Some(missing) = self.mailboxes.iter().find(|wanted| !names.contains(&Some((*wanted).clone()))) {
            return Err(Error::configuration(format!(
                "--mailbox {missing}: the migration has no mailbox of this name"
            ))
            .advice("Mailboxes are named in spec.mailboxes[].name"));
        }
        let wanted = |name: &Option<String>| match name {
            Some(name) => self.mailboxes.is_empty() || self.mailboxes.contains(name),
            None => true,
        };
        let chosen = mailboxes.into_iter().zip(&names).filter(|(_, name)| wanted(name));
        Ok(chosen.map(|(mailbox, _)| mailbox.map(|spec| self.with_timeouts(spec))).collect())
    }

    fn with_timeouts(&self, mut spec: SyncSpec) -> SyncSpec {
        for side in [&mut spec.source, &mut spec.destination] {
            side.timeouts.connect = self.timeout_connect.unwrap_or(side.timeouts.connect);
            side.timeouts.reply = self.timeout_reply.unwrap_or(side.timeouts.reply);
        }
        spec
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::sync::testing::spec;

    #[derive(Debug, Parser)]
    struct ManifestCli {
        #[command(flatten)]
        manifests: ManifestArgs,
    }

    fn args(more: &[&str]) -> ManifestArgs {
        let line = ["test", "-f", "migration.yaml"].iter().chain(more);
        ManifestCli::try_parse_from(line).unwrap().manifests
    }

    const MIGRATION: &str = r"
apiVersion: mailferry.io/v1alpha1
kind: MailServer
metadata: {name: old}
spec: {host: Old.Example, limits: {maxConnections: 6, startsPerMinute: 30}}
---
apiVersion: mailferry.io/v1alpha1
kind: MailMigration
metadata: {name: acme}
spec:
  source: {serverRef: {name: old}}
  destination: {server: {host: new.example, limits: {maxConnections: 9}}}
  parallelism: 7
  mailboxes:
    - name: alice
      source: {username: alice, passwordSecretRef: {name: mail, key: alice}}
      destination: {username: alice, passwordSecretRef: {name: mail, key: alice}}
    - name: bob
      source: {username: bob, passwordSecretRef: {name: mail, key: bob}}
      destination: {username: bob, passwordSecretRef: {name: mail, key: bob}}
";

    fn load(text: &str, more: &[&str]) -> Result<LoadedMigration> {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("all.yaml"), text).unwrap();
        std::fs::write(path("alice"), "hunter2\n").unwrap();
        let (file, secret) = (path("all.yaml"), format!("mail/alice={}", path("alice")));
        let line = ["test", "-f", &file, "--secret", &secret];
        ManifestCli::try_parse_from(line.iter().chain(more)).unwrap().manifests.load()
    }

    #[test]
    fn a_migration_is_loaded_with_its_limits_and_a_wrong_mailbox_beside_a_right_one() {
        let migration = load(MIGRATION, &[]).unwrap();
        assert_eq!((migration.name.as_str(), migration.parallelism, migration.suspended), ("acme", 7, false));
        let old = ServerLimit { connections: Some(6), starts_per_minute: Some(30) };
        let new = ServerLimit { connections: Some(9), starts_per_minute: None };
        let expected = [("new.example:993".to_owned(), new), ("old.example:993".to_owned(), old)];
        assert_eq!(migration.servers, ServerLimits::from(expected));
        assert_eq!(migration.mailboxes[0].as_ref().unwrap().mailbox, "alice");
        let error = migration.mailboxes[1].as_ref().unwrap_err();
        assert_eq!(error.mailbox.as_deref(), Some("bob"));
        assert_eq!(load(MIGRATION, &["--mailbox", "alice"]).unwrap().mailboxes.len(), 1);
    }

    #[test]
    fn of_several_migrations_one_must_be_named() {
        let two = format!(
            "{MIGRATION}---{}",
            MIGRATION.replace("name: acme", "name: other").replace("name: old}", "name: older}")
        );
        assert!(load(&two, &[]).unwrap_err().what.contains("acme, other"));
        assert_eq!(load(&two, &["--migration", "other"]).unwrap().name, "other");
        assert!(load(&two, &["--migration", "third"]).unwrap_err().what.contains("no MailMigration third"));
    }

    #[test]
    fn named_mailboxes_are_selected_and_wrong_ones_without_a_name_stay_in() {
        let wrong = |name: Option<&str>| {
            let error = Error::configuration("wrong");
            Err::<SyncSpec, _>(name.map_or(error.clone(), |name| error.in_mailbox(name)))
        };
        let mailboxes = || vec![Ok(spec("alice")), Ok(spec("bob")), wrong(Some("carol")), wrong(None)];
        let names = |more: &[&str]| -> Vec<String> {
            let chosen = args(more).select(mailboxes()).unwrap();
            chosen.iter().map(|m| m.as_ref().map_or_else(ToString::to_string, |s| s.mailbox.clone())).collect()
        };
        assert_eq!(names(&[]).len(), 4);
        assert_eq!(names(&["--mailbox", "bob"]), ["bob", "Configuration: wrong"]);
        assert_eq!(names(&["--mailbox", "carol"]), ["mailbox carol: Configuration: wrong", "Configuration: wrong"]);
        let error = args(&["--mailbox", "dave"]).select(mailboxes()).unwrap_err();
        assert!(error.what.contains("dave"), "{error}");
    }

    #[test]
    fn timeouts_of_the_command_line_win_over_the_manifests() {
        let args = args(&["--timeout-reply", "5m", "--mailbox", "alice"]);
        let chosen = args.select(vec![Ok(spec("alice"))]).unwrap();
        let alice = chosen.into_iter().next().unwrap().unwrap();
        let before = spec("alice");
        for (now, before) in [(&alice.source, &before.source), (&alice.destination, &before.destination)] {
            assert_eq!(now.timeouts.reply, Duration::from_mins(5));
            assert_eq!(now.timeouts.connect, before.timeouts.connect);
        }
        for wrong in ["0s", "0h0m", "-3s", "soon"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_takes_the_durations_that_a_manifest_takes_and_no_others() {
        let in_manifest =
            |text: &str| serde_json::from_value::<api::Duration>(text.into()).ok().map(api::Duration::as_std);
        for text in [
            "30s",
            "2m",
            "1h30m",
            "500ms",
            "1m1m",
            "PT30S",
            "2 minutes",
            "1h 30m",
            "1.5h",
            "30",
            "1d",
            "1d12h",
            "12h1d",
            "",
        ] {
            assert_eq!(duration(text).ok(), in_manifest(text), "{text}");
        }
        assert_eq!(duration("1h30m"), Ok(Duration::from_mins(90)));
        assert_eq!(duration("1d12h"), Ok(Duration::from_hours(36)));
        assert!(duration("PT30S").unwrap_err().contains("such as 7d, 6h, 1h30m, 90s or 500ms"));
    }
}
