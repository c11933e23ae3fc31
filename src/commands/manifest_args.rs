//! The flags that say which mailboxes a command is about, shared by all commands that take a migration.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use clap::Args;
use globset::{Glob, GlobMatcher};
use jiff::Timestamp;

use super::connection_args::ConnectionArgs;
use crate::{
    api::{MailMigration, deprecated},
    error::{Error, Result},
    imap::pace::BytePace,
    local::{
        grant_folder::GrantFolder,
        mailbox_queue::{ServerLimit, ServerLimits},
        manifest::{self, ManifestSet},
        secrets::SecretSource,
    },
    oauth::TokenCache,
    sync::spec::SyncSpec,
};

/// Which mailboxes, with which secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ManifestArgs {
    /// A file with manifests (MailMigration, MailServer, Secret, ConfigMap), the same that a cluster takes; `-` reads stdin.
    /// Give it more than once to keep secrets in a file of their own. Without `-f` it is the same.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// One key of a Secret, read from a file: `--secret acme-mail/alice=/run/secrets/alice`. It wins over the environment
    /// (`MAILFERRY_SECRET_ACME_MAIL_ALICE`), and that over the manifests.
    #[arg(long = "secret", value_name = "NAME/KEY=PATH")]
    pub secrets: Vec<SecretSource>,

    /// Which MailMigration, where the files hold more than one.
    #[arg(long, value_name = "NAME")]
    pub migration: Option<String>,

    /// Only this mailbox, by its name in the migration; `*` and `?` stand for any characters: `--mailbox '*@acme.example'`.
    /// Give it more than once for several.
    #[arg(long = "mailbox", value_name = "NAME")]
    pub mailboxes: Vec<String>,
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
    /// When its first sync may begin, as its manifest says.
    pub start_at: Option<Timestamp>,
    /// What each server allows, over all mailboxes.
    pub servers: ServerLimits,
    /// Where the refresh tokens of grants are kept.
    pub(crate) grants: Arc<GrantFolder>,
    /// The access tokens of grants.
    pub(crate) tokens: Arc<TokenCache>,
    /// What to do with each mailbox, or why that cannot be told.
    pub mailboxes: Vec<Result<SyncSpec>>,
}

impl LoadedMigration {
    /// A migration with the limits of its servers.
    #[must_use]
    pub(super) fn new(
        manifests: &ManifestSet,
        migration: &MailMigration,
        mut mailboxes: Vec<Result<SyncSpec>>,
    ) -> Self {
        let limit = |endpoint| {
            let limits = manifests.server(migration, endpoint).map(|server| &server.limits);
            let number = |limit: Option<i32>| limit.and_then(|limit| usize::try_from(limit).ok());
            ServerLimit {
                connections: number(limits.and_then(|limits| limits.max_connections)),
                starts_per_minute: number(limits.and_then(|limits| limits.starts_per_minute)),
                bytes_per_second: limits.and_then(|limits| Some(limits.bytes_per_second?.bytes())),
                windows: limits.map(|limits| limits.windows.clone()).filter(|w| !w.is_empty()).into_iter().collect(),
            }
        };
        let (source, destination) = (limit(&migration.spec.source), limit(&migration.spec.destination));
        let mut servers = ServerLimits::new();
        for spec in mailboxes.iter().flatten() {
            for (side, limit) in [(&spec.source, &source), (&spec.destination, &destination)] {
                let server = servers.entry(side.address().to_lowercase()).or_default();
                *server = server.stricter(limit);
            }
        }
        // All that connect to a server from here share what it allows.
        let rates = servers.iter().filter_map(|(server, limit)| Some((server.clone(), limit.bytes_per_second?)));
        let paces: BTreeMap<_, _> = rates.map(|(server, rate)| (server, Arc::new(BytePace::new(rate)))).collect();
        for spec in mailboxes.iter_mut().flatten() {
            for side in [&mut spec.source, &mut spec.destination] {
                side.pace = paces.get(&side.address().to_lowercase()).cloned();
            }
        }
        Self {
            name: migration.metadata.name.clone().unwrap_or_default(),
            parallelism: usize::try_from(migration.spec.parallelism).unwrap_or(1),
            suspended: migration.spec.suspend,
            start_at: migration.spec.start_at.as_ref().map(|at| at.0),
            servers,
            grants: manifests.grant_folder(),
            tokens: Arc::clone(manifests.tokens()),
            mailboxes,
        }
    }

    /// Has each mailbox make one connection to each side.
    pub(crate) fn use_one_connection(&mut self) {
        for spec in self.mailboxes.iter_mut().flatten() {
            spec.connections = 1;
        }
    }
}

impl ManifestArgs {
    /// Reads the migration from its files: those without `-f`, and those with it.
    ///
    /// # Errors
    /// Configuration when a file cannot be read or used, or when it is not clear which migration or mailbox is meant.
    pub(super) fn load(&self, files: &[String], connection: &ConnectionArgs) -> Result<LoadedMigration> {
        let files: Vec<PathBuf> = files.iter().map(PathBuf::from).chain(self.files.iter().cloned()).collect();
        if files.is_empty() {
            return Err(Error::configuration("no migration is named").advice(
                "Name the file of its manifest, such as migration.yaml; copy, check and verify also take two accounts",
            ));
        }
        let manifests = manifest::load(&files, &self.secrets, &|name| std::env::var_os(name))?;
        let migration = self.choose(manifests.migrations())?;
        for field in deprecated::in_manifest(&migration.spec) {
            tracing::warn!("{}: {}", field.path, field.message);
        }
        let mut mailboxes = self.select(manifests.specs(migration, Timestamp::now()))?;
        connection.apply(&mut mailboxes)?;
        Ok(LoadedMigration::new(&manifests, migration, mailboxes))
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

    /// The mailboxes that `--mailbox` names, all without it. A wrong mailbox stays in, so that it is reported.
    ///
    /// # Errors
    /// Configuration when a `--mailbox` names none.
    pub(crate) fn select(&self, mailboxes: Vec<Result<SyncSpec>>) -> Result<Vec<Result<SyncSpec>>> {
        if self.mailboxes.is_empty() {
            return Ok(mailboxes);
        }
        let matchers = self.mailboxes.iter().map(|pattern| mailbox_pattern(pattern)).collect::<Result<Vec<_>>>()?;
        let names: Vec<Option<String>> = mailboxes
            .iter()
            .map(|mailbox| match mailbox {
                Ok(spec) => Some(spec.mailbox.clone()),
                Err(error) => error.mailbox.clone(),
            })
            .collect();
        let matches_none = |matcher: &GlobMatcher| !names.iter().flatten().any(|name| matcher.is_match(name));
        if let Some(missing) = matchers.iter().position(matches_none) {
            let what = format!("--mailbox {}: the migration has no mailbox of this name", self.mailboxes[missing]);
            return Err(Error::configuration(what).advice("Mailboxes are named in spec.mailboxes[].name"));
        }
        let wanted = |name: &Option<String>| match name {
            Some(name) => matchers.iter().any(|matcher| matcher.is_match(name)),
            None => true,
        };
        Ok(mailboxes.into_iter().zip(&names).filter(|(_, name)| wanted(name)).map(|(mailbox, _)| mailbox).collect())
    }
}

fn mailbox_pattern(pattern: &str) -> Result<GlobMatcher> {
    Glob::new(pattern).map(|glob| glob.compile_matcher()).map_err(|error| {
        Error::configuration(format!("--mailbox {pattern}: {}", error.kind()))
            .advice("Write a name, or * and ? for any characters")
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{api::time_window::TimeWindow, sync::testing::spec};

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
spec: {host: Old.Example, limits: {maxConnections: 6, startsPerMinute: 30, bytesPerSecond: 2Mi, windows: [{from: '22:00', to: '06:00', timeZone: UTC}]}}
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
        let cli = ManifestCli::try_parse_from(line.iter().chain(more)).unwrap();
        cli.manifests.load(&[], &ConnectionArgs::default())
    }

    #[test]
    fn a_migration_is_loaded_with_its_limits_and_a_wrong_mailbox_beside_a_right_one() {
        let migration = load(MIGRATION, &[]).unwrap();
        assert_eq!((migration.name.as_str(), migration.parallelism, migration.suspended), ("acme", 7, false));

        let window = TimeWindow { days: vec![], from: "22:00".into(), to: "06:00".into(), time_zone: "UTC".into() };
        let old = ServerLimit {
            connections: Some(6),
            starts_per_minute: Some(30),
            bytes_per_second: Some(2 << 20),
            windows: vec![vec![window]],
        };
        let new = ServerLimit { connections: Some(9), ..ServerLimit::default() };
        let expected = [("new.example:993".to_owned(), new), ("old.example:993".to_owned(), old)];
        assert_eq!(migration.servers, ServerLimits::from(expected));
        let alice = migration.mailboxes[0].as_ref().unwrap();
        assert_eq!(alice.mailbox, "alice");
        assert!(alice.source.pace.is_some() && alice.destination.pace.is_none());
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
        assert_eq!(names(&["--mailbox", "?o*"]), ["bob", "Configuration: wrong"]);
        assert_eq!(names(&["--mailbox", "*", "--mailbox", "bob"]).len(), 4);
        assert_eq!(names(&["--mailbox", "carol"]), ["mailbox carol: Configuration: wrong", "Configuration: wrong"]);
        let error = args(&["--mailbox", "dave"]).select(mailboxes()).unwrap_err();
        assert!(error.what.contains("dave"), "{error}");
        let error = args(&["--mailbox", "[a"]).select(mailboxes()).unwrap_err();
        assert!(error.what.contains("--mailbox [a"), "{error}");
    }
}
