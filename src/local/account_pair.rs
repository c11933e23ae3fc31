//! Two accounts and what is said of them on the command line, as the MailMigration that says the same.
//!
//! Its name is made of both accounts. So the same two accounts always have the same state folder, and the manifest that is
//! saved of them goes on from the same checkpoint.

use std::{fmt::Write as _, path::PathBuf};

use serde_json::{Map, Value, json};

use super::{account_url::AccountUrl, secrets::variable};
use crate::{
    api::{API_VERSION, MasterMode, SecretKeyRef, TlsMode, names::hash_texts},
    error::{Result, Side},
    terminal_text::{printable, shell_word},
    yaml,
};

/// The longest part of a migration's name that is a user's.
const MAX_READABLE: usize = 40;
/// Hexadecimal digits at the end of a migration's name, which tell one pair of accounts from another.
const HASH_DIGITS: usize = 12;

/// Two accounts, and what else a MailMigration says of them.
#[derive(Debug, Clone)]
pub(crate) struct AccountPair {
    /// Where mail is read from.
    pub source: PairSide,
    /// Where it is written to.
    pub destination: PairSide,
    /// Further fields of the MailMigration's spec.
    pub settings: Map<String, Value>,
}

/// One of the two accounts.
#[derive(Debug, Clone)]
pub(crate) struct PairSide {
    /// The account.
    pub url: AccountUrl,
    /// An administrator who logs in for it.
    pub master: Option<(String, MasterMode)>,
    /// What logs in.
    pub credential: PairCredential,
    /// Which certificates are trusted besides those of the system's authorities.
    pub trust: ExtraTrust,
}

/// What logs in to an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PairCredential {
    /// A password.
    Password,
    /// An OAuth 2.0 access token.
    Token,
    /// The grant in the Secret of this name.
    Grant(String),
}

/// Which certificates are trusted besides those of the system's authorities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExtraTrust {
    /// No others.
    Nothing,
    /// Those of these authorities, as PEM text.
    Authorities(String),
    /// Any at all.
    Anything,
}

/// Where a later run may find a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CredentialPlace {
    /// In this file.
    File(PathBuf),
    /// In this file, which holds the whole Secret.
    Manifest(PathBuf),
    /// In this environment variable.
    Environment(String),
    /// Nowhere: it was asked for, or came by a file descriptor.
    Nowhere,
}

impl AccountPair {
    /// The migration's name: a part that people know it by, and a hash of both accounts, which are told apart as by the
    /// checkpoint's fingerprint.
    #[must_use]
    pub(crate) fn name(&self) -> String {
        let mut readable = String::new();
        for c in self.destination.url.username.chars() {
            let c = if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
            if !(c == '-' && (readable.is_empty() || readable.ends_with('-'))) {
                readable.push(c);
            }
        }
        readable.truncate(MAX_READABLE);
        let accounts: Vec<String> = [&self.source, &self.destination]
            .into_iter()
            .flat_map(|PairSide { url, .. }| {
                let port = url.port.unwrap_or_else(|| url.tls_mode.default_port());
                [url.host.to_string(), port.to_string(), url.username.to_lowercase()]
            })
            .collect();
        let hash = hash_texts(&accounts.iter().map(String::as_str).collect::<Vec<_>>(), HASH_DIGITS);
        match readable.trim_end_matches('-') {
            "" => hash,
            readable => format!("{readable}-{hash}"),
        }
    }

    /// The mailbox's name: the source's user, as far as a name may hold it.
    fn mailbox(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._@+=-".contains(c) { c } else { '-' };
        let name: String = self.source.url.username.chars().take(200).map(plain).collect();
        match name.trim_matches(|c: char| !c.is_ascii_alphanumeric()) {
            "" => "mailbox".to_owned(),
            name => name.to_owned(),
        }
    }

    /// Where the MailMigration says that a side's password or token is.
    #[must_use]
    pub(crate) fn secret(&self, side: Side) -> SecretKeyRef {
        SecretKeyRef { name: self.name(), key: side.to_string() }
    }

    /// The MailMigration; nothing in it is a secret.
    #[must_use]
    pub(crate) fn manifest(&self) -> Value {
        let (source, destination) = (self.secret(Side::Source), self.secret(Side::Destination));
        let mut spec = self.settings.clone();
        spec.insert("source".to_owned(), self.source.endpoint(&source));
        spec.insert("destination".to_owned(), self.destination.endpoint(&destination));
        let mailbox = json!({
            "name": self.mailbox(),
            "source": self.source.account(&source),
            "destination": self.destination.account(&destination),
        });
        spec.insert("mailboxes".to_owned(), json!([mailbox]));
        json!({"apiVersion": API_VERSION, "kind": "MailMigration", "metadata": {"name": self.name()}, "spec": spec})
    }

    /// What runs it once it is saved in this file; `PATH` stands for the file of a password that is nowhere.
    #[must_use]
    pub(crate) fn run_command(&self, file: &str, places: &[CredentialPlace; 2]) -> String {
        let (mut before, mut behind) = (String::new(), String::new());
        for (side, place) in [Side::Source, Side::Destination].into_iter().zip(places) {
            let secret = self.secret(side);
            let SecretKeyRef { name, key } = &secret;
            let path = match place {
                CredentialPlace::Environment(from) => {
                    let _ = write!(before, "{}=\"${from}\" ", variable(&secret)); // a String takes every write
                    continue;
                }
                CredentialPlace::Manifest(path) => {
                    let _ = write!(behind, " -f {}", shell_word(&path.display().to_string()));
                    continue;
                }
                CredentialPlace::File(path) => shell_word(&path.display().to_string()),
                CredentialPlace::Nowhere => "PATH".to_owned(),
            };
            let _ = write!(behind, " --secret {name}/{key}={path}");
        }
        format!("{before}mailferry run {}{behind}", shell_word(file))
    }

    /// The MailMigration as a file: YAML, with comments that say how it is run again.
    ///
    /// # Errors
    /// Internal when it can't be shown.
    pub(crate) fn file_text(&self, file: &str, places: &[CredentialPlace; 2]) -> Result<String> {
        Ok(format!(
            "# Two accounts as the command line named them, without passwords. This goes on where the last run stopped:\n\
             #   {}\n\
             # Besides `run`, there are `check` and `verify`. In a cluster, the Secret needs the keys source and destination.\n\
             {}",
            // One line, whatever paths hold.
            printable(&self.run_command(file, places)),
            yaml::write(&self.manifest())?
        ))
    }
}

impl PairSide {
    fn endpoint(&self, secret: &SecretKeyRef) -> Value {
        let Self { url, master, trust, .. } = self;
        let mut tls = Map::new();
        if url.tls_mode != TlsMode::Implicit {
            tls.insert("mode".to_owned(), json!(url.tls_mode));
        }
        match trust {
            ExtraTrust::Nothing => {}
            ExtraTrust::Authorities(pem) => drop(tls.insert("caBundle".to_owned(), json!(pem))),
            ExtraTrust::Anything => drop(tls.insert("insecureSkipVerify".to_owned(), json!(true))),
        }
        let mut server = Map::from_iter([("host".to_owned(), json!(url.host.as_str()))]);
        if let Some(port) = url.port {
            server.insert("port".to_owned(), json!(port));
        }
        if !tls.is_empty() {
            server.insert("tls".to_owned(), Value::Object(tls));
        }
        let mut endpoint = Map::from_iter([("server".to_owned(), Value::Object(server))]);
        if let Some((username, mode)) = master {
            let mut user = json!({"username": username, "passwordSecretRef": secret});
            if *mode != MasterMode::default() {
                user["mode"] = json!(mode);
            }
            endpoint.insert("masterUser".to_owned(), user);
        }
        Value::Object(endpoint)
    }

    fn account(&self, secret: &SecretKeyRef) -> Value {
        let mut account = json!({"username": self.url.username});
        match (&self.master, &self.credential) {
            (Some(_), _) => {}
            (None, PairCredential::Token) => account["tokenSecretRef"] = json!(secret),
            (None, PairCredential::Password) => account["passwordSecretRef"] = json!(secret),
            (None, PairCredential::Grant(name)) => account["grantSecretRef"] = json!({"name": name}),
        }
        account
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        local::manifest,
        sync::{checkpoint::fingerprint, spec::SyncSpec},
    };
    use jiff::Timestamp;
    use secrecy::SecretBox;

    fn side(url: &str) -> PairSide {
        PairSide {
            url: url.parse().unwrap(),
            master: None,
            credential: PairCredential::Password,
            trust: ExtraTrust::Nothing,
        }
    }

    fn pair(source: &str, destination: &str) -> AccountPair {
        AccountPair { source: side(source), destination: side(destination), settings: Map::new() }
    }

    const OLD: &str = "imaps://alice@acme.example@imap.old.example";
    const NEW: &str = "imap://Alice Doe@[2001:db8::7]:1143";

    fn resolved(pair: &AccountPair) -> SyncSpec {
        let mut manifests = manifest::from_command_line(pair.manifest()).unwrap();
        for side in [Side::Source, Side::Destination] {
            manifests.give_secret(pair.secret(side), SecretBox::new(b"hush".as_slice().into()));
        }
        manifests.specs(&manifests.migrations()[0], Timestamp::UNIX_EPOCH).remove(0).unwrap()
    }

    #[test]
    fn a_pair_is_the_shortest_manifest_that_says_the_same() {
        let name = pair(OLD, NEW).name();
        assert!(name.starts_with("alice-doe-") && name.len() == "alice-doe-".len() + HASH_DIGITS, "{name}");
        let expected = json!({
            "apiVersion": "mailferry.io/v1alpha1",
            "kind": "MailMigration",
            "metadata": {"name": name},
            "spec": {
                "source": {"server": {"host": "imap.old.example"}},
                "destination": {"server": {"host": "2001:db8::7", "port": 1143, "tls": {"mode": "StartTLS"}}},
                "mailboxes": [{
                    "name": "alice@acme.example",
                    "source": {"username": "alice@acme.example", "passwordSecretRef": {"name": name, "key": "source"}},
                    "destination": {"username": "Alice Doe", "passwordSecretRef": {"name": name, "key": "destination"}},
                }],
            },
        });
        assert_eq!(pair(OLD, NEW).manifest(), expected);
    }

    #[test]
    fn administrators_tokens_and_certificates_stand_where_a_manifest_has_them() {
        let mut pair = pair(OLD, NEW);
        pair.source.credential = PairCredential::Token;
        pair.source.trust = ExtraTrust::Anything;
        pair.destination.master = Some(("root".to_owned(), MasterMode::Suffix));
        pair.destination.trust = ExtraTrust::Authorities("-----BEGIN CERTIFICATE-----".to_owned());
        let spec = &pair.manifest()["spec"];
        assert_eq!(spec["source"]["server"]["tls"], json!({"insecureSkipVerify": true}));
        assert_eq!(spec["mailboxes"][0]["source"]["tokenSecretRef"]["key"], "source");
        assert_eq!(spec["destination"]["masterUser"]["mode"], "Suffix");
        assert_eq!(spec["destination"]["server"]["tls"]["caBundle"], "-----BEGIN CERTIFICATE-----");
        assert_eq!(spec["mailboxes"][0]["destination"], json!({"username": "Alice Doe"}));
        manifest::from_command_line(pair.manifest()).unwrap();
    }

    #[test]
    fn pairs_have_one_name_exactly_where_their_checkpoints_have_one_fingerprint() {
        let pairs = [
            pair(OLD, NEW),
            pair("ALICE@acme.example@IMAP.old.example.:993", NEW),
            pair("imap://alice@acme.example@imap.old.example", NEW),
            pair("imap://alice@acme.example@imap.old.example:993", NEW),
            pair("bob@imap.old.example", NEW),
            pair(OLD, "imap://alice-doe@[2001:db8::7]:1143"),
        ];
        let known: Vec<(String, String)> = pairs
            .iter()
            .map(|pair| {
                let spec = resolved(pair);
                (pair.name(), fingerprint(&spec.source, &spec.destination))
            })
            .collect();
        for (name, accounts) in &known {
            for (other, others) in &known {
                assert_eq!(name == other, accounts == others, "{name} {other}");
            }
        }
        assert_eq!(pairs[0].name(), pairs[1].name());
    }

    #[test]
    fn users_of_any_kind_give_names_that_a_manifest_takes() {
        for user in ["日本", "-", "grün*master", "DOM\\alice", "a b", &"x".repeat(320)] {
            let pair = pair(&format!("imaps://{user}@a.example"), &format!("imaps://{user}@b.example"));
            let spec = resolved(&pair);
            assert_eq!(spec.source.login.username, user);
        }
    }

    #[test]
    fn a_saved_manifest_says_how_it_is_run_and_is_the_same_manifest() {
        let pair = pair(OLD, NEW);
        let places =
            [CredentialPlace::File("/run/it's\nhere".into()), CredentialPlace::Environment("NEW_PASSWORD".into())];
        let text = pair.file_text("acme.yaml", &places).unwrap();
        let name = pair.name();
        let command = text.lines().find(|line| line.contains("mailferry run")).unwrap();
        let variable = variable(&pair.secret(Side::Destination));
        assert_eq!(
            command,
            format!(
                r#"#   {variable}="$NEW_PASSWORD" mailferry run acme.yaml --secret {name}/source='/run/it'\''s\nhere'"#
            )
        );
        let documents = yaml::read_stream("saved", &text).unwrap();
        assert_eq!((documents.len(), &documents[0].value), (1, &pair.manifest()));
        let text = pair.file_text("acme.yaml", &[CredentialPlace::Nowhere, CredentialPlace::Nowhere]).unwrap();
        assert!(text.contains(&format!("--secret {name}/source=PATH --secret {name}/destination=PATH")), "{text}");
    }
}
