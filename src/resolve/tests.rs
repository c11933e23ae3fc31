//! What manifests mean for the engine, from the whole of a migration.

use std::{collections::BTreeMap, path::PathBuf};

use secrecy::SecretBox;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::SecretKeyRef,
    imap::{ConnectionSecurity, ConnectionTimeouts, LoginCredential, MasterLogin},
    sync::{
        set_aside::SetAsideReason,
        spec::{AcceptedLosses, MessageFilter},
        uid::SourceUid,
    },
};

/// Secrets by `name/key`; those whose value starts with `file:` are files.
struct GivenSecrets(BTreeMap<&'static str, &'static [u8]>);

impl SecretProvider for GivenSecrets {
    fn value(&self, secret: &SecretKeyRef) -> Result<SecretBox<[u8]>, SecretError> {
        let of = |path: &&&str| path.split('/').next() == Some(secret.name.as_str());
        match self.0.get(format!("{}/{}", secret.name, secret.key).as_str()) {
            Some(value) => Ok(SecretBox::new((*value).into())),
            None if self.0.keys().any(|path| of(&path)) => {
                let key = |path: &&str| path.split('/').next_back().unwrap().to_owned();
                Err(SecretError::NoKey(self.0.keys().filter(of).map(key).collect()))
            }
            None => Err(SecretError::NoSecret),
        }
    }

    fn file(&self, secret: &SecretKeyRef) -> Option<PathBuf> {
        (secret.name == "files").then(|| PathBuf::from(format!("/run/{}", secret.key)))
    }

    fn how_to_provide(&self, _: &SecretKeyRef) -> String {
        "Create it".to_owned()
    }
}

fn secrets() -> GivenSecrets {
    GivenSecrets(BTreeMap::from([
        ("s/a", &b"p\"a\\s s\xe2\x82\xac"[..]),
        ("s/empty", b""),
        ("s/nul", b"a\0b"),
        ("m/password", b"master"),
        ("ca/ca.crt", b"-----BEGIN CERTIFICATE-----\n"),
        ("ca/other", b"hush"),
    ]))
}

fn migration(changes: &[(&str, Value)]) -> MailMigration {
    let mut value = json!({
        "apiVersion": "mailferry.io/v1alpha1", "kind": "MailMigration", "metadata": {"name": "acme"},
        "spec": {
            "source": {"server": {"host": "old.example"}},
            "destination": {
                "server": {"host": "new.example", "tls": {"mode": "StartTLS"}},
                "masterUser": {"username": "migrator", "passwordSecretRef": {"name": "m", "key": "password"}},
            },
            "mailboxes": [{
                "name": "alice",
                "source": {"username": "alice@acme.example", "passwordSecretRef": {"name": "s", "key": "a"}},
            }],
        },
    });
    for (pointer, new) in changes {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match value.pointer_mut(parent).unwrap() {
            Value::Object(object) => object.insert(name.to_owned(), new.clone()),
            other => panic!("{other}"),
        };
    }
    serde_json::from_value(value).unwrap()
}

fn now() -> Timestamp {
    "2026-03-01T00:00:00Z".parse().unwrap()
}

fn convert(changes: &[(&str, Value)]) -> Result<SyncSpec> {
    let migration = migration(changes);
    let sync = resolve_mailbox(&migration, &migration.spec.mailboxes[0], |_| None)?;
    build_sync_spec(&sync, &secrets(), now())
}

#[test]
fn a_mailbox_is_converted_with_its_defaults() {
    let spec = convert(&[]).unwrap();
    assert_eq!(
        (spec.source.address().as_str(), spec.source.tls.mode),
        ("old.example:993", ConnectionSecurity::Implicit)
    );
    assert_eq!(spec.source.login.username, "alice@acme.example");
    assert_eq!(spec.source.login.credential.expose(), Some("p\"a\\s s€".as_bytes()));
    assert_eq!(spec.source.login.master, None);
    assert_eq!(
        (spec.destination.address().as_str(), spec.destination.tls.mode),
        ("new.example:143", ConnectionSecurity::StartTls)
    );
    assert_eq!(spec.destination.login.username, "alice@acme.example");
    assert_eq!(
        spec.destination.login.master,
        Some(MasterLogin::AuthorizationIdentity { username: "migrator".to_owned() })
    );
    assert_eq!(spec.destination.login.credential.expose(), Some(&b"master"[..]));
    assert_eq!((spec.connections, spec.dry_run), (4, false));
    assert_eq!((spec.flag_policy, spec.delete_policy), (FlagHandling::SourceWins, DeletionHandling::Keep));
    assert_eq!(spec.source.timeouts, ConnectionTimeouts::default());
    assert_eq!(spec.retry, RetryPolicy::default());
    assert_eq!(spec.messages, MessageFilter::default());
}

/// The same password everywhere.
struct OnePassword(&'static [u8]);

impl SecretProvider for OnePassword {
    fn value(&self, _: &SecretKeyRef) -> Result<SecretBox<[u8]>, SecretError> {
        Ok(SecretBox::new(self.0.into()))
    }

    fn file(&self, _: &SecretKeyRef) -> Option<std::path::PathBuf> {
        None
    }

    fn how_to_provide(&self, _: &SecretKeyRef) -> String {
        String::new()
    }
}

#[test]
fn a_password_that_ends_with_a_line_end_is_sent_as_it_is_and_warned_of() {
    let migration = migration(&[]);
    let sync = resolve_mailbox(&migration, &migration.spec.mailboxes[0], |_| None).unwrap();
    let warnings = |password| build_sync_spec(&sync, &OnePassword(password), now()).unwrap().warnings;
    let said = warnings(b"hush\r\n");
    assert_eq!(said.len(), 2, "own password and that of the master user: {said:?}");
    assert!(
        said[0].contains("the password at the source (Secret ") && said[0].contains("ends with a line end"),
        "{said:?}"
    );
    assert!(!said.concat().contains("hush"));
    for fine in [&b"hush"[..], b"hu\nsh", b"hush "] {
        assert_eq!(warnings(fine), [] as [&str; 0]);
    }
}

#[test]
fn a_username_defaults_to_the_mailboxs_name() {
    let source = json!({"passwordSecretRef": {"name": "s", "key": "a"}});
    let mailboxes = json!([{"name": "bob@acme.example", "source": source}]);
    let spec = convert(&[("/spec/mailboxes", mailboxes)]).unwrap();
    assert_eq!(spec.source.login.username, "bob@acme.example");
    assert_eq!(spec.destination.login.username, "bob@acme.example");
}

#[test]
fn dovecots_master_login_has_a_separator() {
    let master = json!({"username": "m", "passwordSecretRef": {"name": "m", "key": "password"}, "mode": "Suffix"});
    let spec = convert(&[("/spec/destination/masterUser", master)]).unwrap();
    let expected = MasterLogin::Suffix { username: "m".to_owned(), separator: "*".to_owned() };
    assert_eq!(spec.destination.login.master, Some(expected));
}

#[test]
fn a_mailboxs_own_password_comes_before_the_master_user() {
    let mailboxes = json!([{
        "name": "alice",
        "source": {"passwordSecretRef": {"name": "s", "key": "a"}},
        "destination": {"username": "al", "passwordSecretRef": {"name": "s", "key": "a"}},
    }]);
    let spec = convert(&[("/spec/mailboxes", mailboxes)]).unwrap();
    assert_eq!((spec.destination.login.master, spec.destination.login.username.as_str()), (None, "al"));
}

#[test]
fn a_token_in_a_file_is_read_at_each_connect() {
    let mailboxes = json!([{"name": "alice", "source": {"tokenSecretRef": {"name": "files", "key": "t"}}}]);
    let spec = convert(&[("/spec/mailboxes", mailboxes)]).unwrap();
    let LoginCredential::TokenFile(path) = spec.source.login.credential else { panic!("no file") };
    assert_eq!(path, PathBuf::from("/run/t"));
    let mailboxes = json!([{"name": "alice", "source": {"tokenSecretRef": {"name": "s", "key": "a"}}}]);
    let spec = convert(&[("/spec/mailboxes", mailboxes)]).unwrap();
    assert!(matches!(spec.source.login.credential, LoginCredential::Token(_)));
}

#[test]
fn errors_name_mailbox_side_secret_key_and_remedy() {
    let with = |name: &str, key: &str| {
        let source = json!({"passwordSecretRef": {"name": name, "key": key}});
        let error = convert(&[("/spec/mailboxes", json!([{"name": "alice", "source": source}]))]).unwrap_err();
        error.to_string()
    };
    let start = "mailbox alice: source old.example:993: Configuration: ";
    assert_eq!(with("t", "a"), format!("{start}there is no Secret t (key a, source.passwordSecretRef). Create it"));
    assert_eq!(
        with("s", "b"),
        format!("{start}Secret s has no key b (source.passwordSecretRef); its keys: a, empty, nul. Create it")
    );
    assert!(with("s", "empty").contains("Secret s key empty (source.passwordSecretRef) is empty"));
    assert!(with("s", "nul").contains("NUL byte"));
}

#[test]
fn what_is_missing_on_one_side_is_said() {
    let error = convert(&[("/spec/destination", json!({"server": {"host": "new.example"}}))]).unwrap_err();
    let error = error.to_string();
    assert!(error.starts_with("mailbox alice: destination: Configuration: no credential for alice@acme"), "{error}");
    let error = convert(&[("/spec/source", json!({"serverRef": {"name": "gone"}}))]).unwrap_err().to_string();
    assert!(error.contains("source: Configuration: there is no MailServer gone. Add the MailServer"), "{error}");
}

#[test]
fn one_account_on_both_sides_is_refused() {
    for (host, port, tls) in [("OLD.example", 993, "Implicit"), ("old.example.", 143, "StartTLS")] {
        let server = json!({"host": host, "port": port, "tls": {"mode": tls}});
        let error = convert(&[("/spec/destination/server", server)]).unwrap_err().to_string();
        assert!(error.contains("source and destination are the same account: alice@acme.example on old"), "{error}");
    }
    let server = json!({"host": "old.example", "port": 20_993});
    assert!(convert(&[("/spec/destination/server", server)]).is_ok());
}

#[test]
fn a_certificate_bundle_comes_from_text_or_a_secret() {
    let tls = |tls: Value| convert(&[("/spec/source/server", json!({"host": "h", "tls": tls}))]);
    let spec = tls(json!({"caBundleRef": {"name": "ca", "key": "ca.crt"}, "serverName": "n"})).unwrap();
    assert!(spec.source.tls.ca_bundle.starts_with(b"-----BEGIN"));
    assert_eq!(spec.source.tls.server_name.as_deref(), Some("n"));
    let error = tls(json!({"caBundleRef": {"name": "ca", "key": "other"}})).unwrap_err().to_string();
    assert!(error.contains("Secret ca key other holds no certificate") && !error.contains("hush"), "{error}");
}

#[test]
fn limits_of_a_server_lower_the_connections() {
    let server = json!({"host": "h", "limits": {"maxConnectionsPerMailbox": 2}});
    assert_eq!(convert(&[("/spec/source/server", server)]).unwrap().connections, 2);
}

#[test]
fn folder_patterns_are_globs_or_regular_expressions() {
    let spec = convert(&[(
        "/spec/folders",
        json!({"include": ["Work/*", "All/**", "inbox"], "exclude": ["/20[0-9]{2}/"], "specialUse": "Ignore",
               "subscriptions": "Ignore", "namespaces": "All", "into": "Old"}),
    )])
    .unwrap();
    let [work, all, inbox] = spec.folders.include.as_slice() else { panic!("three patterns") };
    assert!(work.matches("Work/a") && !work.matches("Work/a/b") && !work.matches("Work"));
    assert!(all.matches("All/a/b") && inbox.matches("INBOX"));
    let year = &spec.folders.exclude[0];
    assert!(year.matches("2024") && !year.matches("2024x") && !year.matches("x2024"));
    let rules = &spec.folders;
    assert!(rules.ignore_special_use && rules.ignore_subscriptions && rules.everything);
    assert_eq!(rules.into.as_deref(), Some("Old"));
}

#[test]
fn renames_take_subfolders_along_and_expressions_insert_groups() {
    let renamed = |from: &str, to: &str, name: &str| {
        rules::rename(&api::Rename { from: from.to_owned(), to: to.to_owned() }).unwrap().apply(name)
    };
    assert_eq!(renamed("Work", "Job$1", "Work/2024").as_deref(), Some("Job$1/2024"));
    assert_eq!(renamed("Work", "Job", "Work").as_deref(), Some("Job"));
    assert_eq!(renamed("Work", "Job", "Workshop"), None);
    assert_eq!(renamed("a.b", "c", "axb"), None);
    assert_eq!(renamed("inbox", "Old", "INBOX").as_deref(), Some("Old"));
    assert_eq!(renamed("/Old (.*)/", "Archive/$1", "Old Mail").as_deref(), Some("Archive/Mail"));
    assert_eq!(renamed("/Old (.*)/", "Archive/$1", "My Old Mail"), None);
}

#[test]
fn wrong_patterns_are_explained() {
    for (folders, message) in [
        (json!({"include": ["/(/"]}), "folder pattern `/(/` is not a regular expression: unclosed group"),
        (json!({"exclude": ["a[b"]}), "folder pattern `a[b`"),
        (json!({"rename": [{"from": "/(.*)/", "to": "$1x"}]}), "there is no group 1x"),
        (json!({"rename": [{"from": "/a/", "to": "$2"}]}), "there is no group 2"),
    ] {
        let error = convert(&[("/spec/folders", folders)]).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn message_rules_become_seconds_and_bytes() {
    let rules = json!({"since": "2024-01-01T00:00:00.5Z", "maxAgeDays": 10_000, "minAgeDays": 1,
                       "before": "2025-06-01T02:00:00+02:00", "minSize": "1Ki", "maxSize": "25Mi", "skipDeleted": true});
    let expected = MessageFilter {
        since: Some(1_704_067_201),
        before: Some(1_748_736_000),
        max_size: Some(26_214_400),
        min_size: Some(1024),
        skip_deleted: true,
    };
    assert_eq!(convert(&[("/spec/messages", rules)]).unwrap().messages, expected);
    let days = convert(&[("/spec/messages", json!({"maxAgeDays": 1}))]).unwrap();
    assert_eq!(days.messages.since, Some(now().as_second() - 86_400));
}

#[test]
fn accepted_messages_are_named_by_reason_or_by_folder_uidvalidity_and_uids() {
    let accept = |entries: Value| convert(&[("/spec/messages", json!({"acceptNotCopied": entries}))]);
    let spec = accept(json!([
        {"reason": "TooLarge"},
        {"folder": "inbox", "messages": ["1500000000:7,9:12", "1500000000:40"]},
        {"folder": "Work/2024", "messages": ["3:1"]},
    ]));
    let accepted = spec.unwrap().accepted_losses;
    let refused =
        |folder: &str, validity, uid| accepted.accepts(SetAsideReason::Refused, folder, validity, SourceUid(uid));
    assert!(accepted.accepts(SetAsideReason::TooLarge, "Anything", 1, SourceUid(1)));
    assert!([7, 9, 12, 40].iter().all(|uid| refused("INBOX", 1_500_000_000, *uid)));
    assert!(refused("Work/2024", 3, 1));
    assert!(!refused("INBOX", 1_500_000_000, 8) && !refused("INBOX", 1_500_000_001, 7) && !refused("Work", 3, 1));
    assert_eq!(convert(&[]).unwrap().accepted_losses, AcceptedLosses::default());
    for wrong in ["5000000000:1", "1:5000000000", "1:0", "7"] {
        let error = accept(json!([{"folder": "INBOX", "messages": [wrong]}])).unwrap_err().to_string();
        assert!(error.contains(wrong) && error.contains("such as 1500000000:7,9:12"), "{error}");
    }
}

#[test]
fn patience_is_as_long_as_the_migration_says() {
    let spec = convert(&[("/spec/retry", json!({"patience": "1h"}))]).unwrap();
    assert_eq!(spec.retry.patience, std::time::Duration::from_hours(1));
    let none = convert(&[("/spec/retry", json!({"patience": "0s"}))]).unwrap();
    assert!(none.retry.patience.is_zero());
}

#[test]
fn no_secret_is_in_debug_output() {
    let shown = format!("{:?}", convert(&[]).unwrap());
    assert!(!shown.contains("p\\\"a") && !shown.contains("\"master\"") && shown.contains("Password(..)"), "{shown}");
}
