//! Manifests in files: what is taken, what is refused and how it is said, and what the engine is told to do.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

use std::{ffi::OsString, fs, path::PathBuf};

use jiff::Timestamp;
use mailferry::{
    Error, ErrorClass,
    api::SecretKeyRef,
    imap::{LoginCredential, MasterLogin},
    local::{
        manifest::{ManifestSet, load},
        secrets::SecretSource,
    },
    sync::spec::SyncSpec,
};

/// A folder of its own for one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mailferry-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn nothing(_: &str) -> Option<OsString> {
    None
}

fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

fn specs(manifests: &ManifestSet) -> Vec<Result<SyncSpec, Error>> {
    let now: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
    manifests.specs(&manifests.migrations()[0], now)
}

/// What is said about one file with this text.
fn refused(test: &str, manifest: impl AsRef<[u8]>) -> String {
    let folder = Folder::new(test);
    let path = folder.file("m.yaml", manifest);
    let error = load(std::slice::from_ref(&path), &[], &nothing).unwrap_err();
    assert_eq!(error.class, ErrorClass::Configuration);
    let line = error.to_string();
    assert!(!line.contains('\n'), "{line}");
    line.replace(&path.display().to_string(), "m.yaml")
}

const MIGRATION: &str = r"
apiVersion: mailferry.io/v1alpha1
kind: MailMigration
metadata: {name: acme}
spec:
  source: {server: {host: old.example}}
  destination: {server: {host: new.example}}
  mailboxes:
    - name: alice
      source: {passwordSecretRef: {name: mail, key: alice}}
      destination: {passwordSecretRef: {name: mail, key: alice}}
    - name: bob
      source: {passwordSecretRef: {name: mail, key: bob}}
      destination: {passwordSecretRef: {name: mail, key: bob}}
";

fn password(spec: &SyncSpec) -> &[u8] {
    spec.source.login.credential.expose().unwrap()
}

#[test]
fn the_demo_needs_only_its_authority() {
    let folder = Folder::new("demo");
    let ca = folder.file("ca.crt", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n");
    let source = format!("demo-ca/ca.crt={}", ca.display()).parse().unwrap();
    let manifests = load(&[example("demo.yaml")], &[source], &nothing).unwrap();
    let specs = specs(&manifests);
    let spec = specs[0].as_ref().unwrap();
    assert_eq!(specs.len(), 1);
    assert_eq!(spec.source.address(), "127.0.0.1:10993");
    assert_eq!(spec.destination.address(), "127.0.0.1:20993");
    assert_eq!(password(spec), "p\"a\\s s€".as_bytes());
    assert_eq!(spec.destination.login.credential.expose().unwrap(), b"it's {5} % fine");
    assert!(spec.source.tls.ca_bundle.ends_with(b"-----END CERTIFICATE-----"));
}

#[test]
fn the_demo_without_its_authority_says_what_to_give() {
    let manifests = load(&[example("demo.yaml")], &[], &nothing).unwrap();
    let error = specs(&manifests)[0].as_ref().unwrap_err().to_string();
    assert!(
        error.starts_with("mailbox alice: source 127.0.0.1:10993: Configuration: there is no Secret demo-ca"),
        "{error}"
    );
    assert!(error.contains("--secret demo-ca/ca.crt=PATH or MAILFERRY_SECRET_DEMO_CA_CA_CRT"), "{error}");
}

#[test]
fn the_full_example_is_right() {
    let manifests = load(&[example("migration.yaml")], &[], &nothing).unwrap();
    let specs: Vec<_> = specs(&manifests).into_iter().map(Result::unwrap).collect();
    let names: Vec<_> = specs.iter().map(|spec| spec.mailbox.as_str()).collect();
    assert_eq!(names, ["alice", "bob@acme.example", "carol", "dave@acme.example", "erin@acme.example"]);
    assert_eq!(specs[0].destination.login.username, "alice.smith@acme.example");
    assert_eq!(specs[1].destination.login.username, "bob@acme.example");
    assert!(matches!(specs[2].source.login.credential, LoginCredential::Token(_)));
    assert_eq!((password(&specs[3]), password(&specs[4])), (&b"se\"cret, really"[..], &b"pa ss"[..]));
    assert_eq!(specs[3].destination.login.username, "dave.jones@acme.example");
    assert_eq!(
        specs[4].destination.login.master,
        Some(MasterLogin::AuthorizationIdentity { username: "migrator".into() })
    );
    let migration = &manifests.migrations()[0];
    let limits = &manifests.server(migration, &migration.spec.source).unwrap().limits;
    assert_eq!(limits.max_connections, Some(40));
}

#[test]
fn one_wrong_mailbox_does_not_stop_the_others() {
    let folder = Folder::new("one-wrong");
    let migration = folder.file("m.yaml", MIGRATION);
    let secret = folder.file("s.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: mail}\nstringData: {bob: b}\n");
    let manifests = load(&[migration, secret], &[], &nothing).unwrap();
    let specs = specs(&manifests);
    let error = specs[0].as_ref().unwrap_err().to_string();
    assert!(
        error.contains("mailbox alice: source old.example:993: Configuration: Secret mail has no key alice"),
        "{error}"
    );
    assert!(error.contains("its keys: bob. Add the Secret"), "{error}");
    assert_eq!(password(specs[1].as_ref().unwrap()), b"b");
}

#[test]
fn secrets_come_from_files_the_environment_and_manifests() {
    let folder = Folder::new("sources");
    let migration = folder.file("m.yaml", MIGRATION);
    let file = folder.file("alice", " a\\\"€ \n");
    let source: SecretSource = format!("mail/alice={}", file.display()).parse().unwrap();
    assert_eq!(source.secret, SecretKeyRef { name: "mail".into(), key: "alice".into() });
    let env = |name: &str| (name == "MAILFERRY_SECRET_MAIL_BOB").then(|| OsString::from("b\n"));
    let manifests = load(&[migration], &[source], &env).unwrap();
    let specs: Vec<_> = specs(&manifests).into_iter().map(Result::unwrap).collect();
    assert_eq!(password(&specs[0]), " a\\\"€ ".as_bytes());
    assert_eq!(password(&specs[1]), b"b\n");
}

#[test]
fn a_misspelt_field_is_named_with_file_document_path_and_the_right_name() {
    let text = format!(
        "# first\n---\n{}",
        MIGRATION.replace("passwordSecretRef: {name: mail, key: bob}", "passwordRef: {name: mail, key: bob}")
    );
    let error = refused("misspelt", text);
    assert_eq!(
        error,
        "Configuration: m.yaml, line 15, column 16: MailMigration acme: spec.mailboxes[1].source.passwordRef: unknown \
         field; did you mean passwordSecretRef? (and 1 more)"
    );
}

/// All that is said about one file with this text, as the program prints it.
fn all_refused(test: &str, manifest: &str) -> Vec<String> {
    let folder = Folder::new(test);
    let path = folder.file("m.yaml", manifest);
    let error = load(std::slice::from_ref(&path), &[], &nothing).unwrap_err();
    let plain = |text: &str| text.replace(&path.display().to_string(), "m.yaml");
    [plain(&error.what)].into_iter().chain(error.also.iter().map(|also| plain(also))).collect()
}

#[test]
fn all_that_is_wrong_is_said_at_once_each_with_its_line_and_column() {
    let migration = MIGRATION
        .replace("host: old.example", "host: imaps://old.example")
        .replace("  mailboxes:", "  deletions: mirorr\n  parallelism: 0\n  paralellism: 4\n  mailboxes:")
        .replace("    - name: bob", "    - name: alice");
    let more = "---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: Mail\n  label: {a: b}\ndata: {a: hush!, b c: eA==}\n\
                ---\nkind: ConfigMap\nmetadata: {name: a}\n---\n{\"apiVersion\": \"v1\",\n \"kind\": \"Sekret\"}\n";
    assert_eq!(
        all_refused("all", &format!("{migration}{more}")),
        [
            "m.yaml, line 8, column 3: MailMigration acme: spec.deletions: `mirorr` is not one of Keep, Mirror; did you mean \
             Mirror?",
            "m.yaml, line 9, column 3: MailMigration acme: spec.parallelism: must be from 1 to 10000, not 0",
            "m.yaml, line 10, column 3: MailMigration acme: spec.paralellism: unknown field; did you mean parallelism?",
            "m.yaml, line 15, column 7: MailMigration acme: spec.mailboxes[1]: `alice` is there already as \
             spec.mailboxes[0]: each may be there once",
            "m.yaml, line 22, column 3: Secret Mail: metadata.name: must be an object's name: lower-case letters, digits, - \
             and . only, a letter or digit first and last",
            "m.yaml, line 23, column 3: Secret Mail: metadata.label: unknown field; did you mean labels?",
            "m.yaml, line 24, column 8: Secret Mail: data.a: is not base64: write the value itself under stringData instead \
             of data",
            "m.yaml, line 24, column 18: Secret Mail: data.b c: must be a key of a Secret: letters, digits, -, _ and . only",
            "m.yaml, line 26, column 1: apiVersion of a ConfigMap must be v1",
            "m.yaml, line 30, column 2: kind `Sekret` has no meaning here; did you mean Secret?. Mailferry reads \
             MailMigration, MailServer, Secret and ConfigMap; leave other manifests out",
        ]
    );
}

#[test]
fn values_and_rules_of_one_object_are_told_together_and_no_rule_repeats_what_is_misspelt() {
    let wrong = MIGRATION.replace("host: old.example", "host: imaps://old.example, port: 70000");
    let said = all_refused("values-rules", &wrong);
    assert!(said.len() == 2 && said[0].contains("spec.source.server.host: host must be"), "{said:?}");
    assert!(
        said[1].starts_with("m.yaml, line 6, column 48: ") && said[1].contains("server.port: must be from 1"),
        "{said:?}"
    );
    let misspelt = MIGRATION.replace("  mailboxes:", "  mailboxs:");
    assert_eq!(all_refused("no-echo", &misspelt).len(), 1);
}

#[test]
fn the_items_of_a_list_have_their_own_lines_and_no_fault_hides_what_other_files_hold() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  metadata: {name: a}\n  strData: {}\n\
                - just text\n";
    let said = all_refused("list-lines", list);
    assert!(
        said[0].starts_with("m.yaml, line 7, column 3: Secret a: strData: unknown field; did you mean"),
        "{said:?}"
    );
    assert!(said[1].starts_with("m.yaml, line 8, column 3: it is no manifest"), "{said:?}");
    let folder = Folder::new("two-files");
    let files = [folder.file("1.yaml", "a: [\n"), folder.file("2.yaml", list)];
    assert_eq!(load(&files, &[], &nothing).unwrap_err().also.len(), 2);
}

#[test]
fn a_password_in_the_wrong_place_is_not_shown() {
    let text = MIGRATION.replace("passwordSecretRef: {name: mail, key: bob}", "password: hush");
    assert!(!refused("leak-field", text).contains("hush"));
    let secret = format!("{MIGRATION}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: mail}}\n");
    for (name, wrong) in [
        ("leak-data", "data: {bob: hush!}"),
        ("leak-type", "stringData: hush"),
        ("leak-yaml", "stringData: {bob: hush"),
    ] {
        let error = refused(name, format!("{secret}{wrong}\n"));
        assert!(!error.contains("hush"), "{error}");
    }
}

#[test]
fn a_rule_is_broken_by_path_and_message() {
    let error = refused("rule", MIGRATION.replace("host: old.example", "host: imaps://old.example"));
    assert!(error.contains("MailMigration acme: spec.source.server.host: host must be a host name"), "{error}");
}

#[test]
fn what_is_no_manifest_of_ours_is_refused_by_its_kind() {
    for (text, message) in [
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nstringData: {a: b}\n",
            "ConfigMap a: stringData: unknown field",
        ),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n",
            "kind `Deployment` has no meaning here. Mailferry reads",
        ),
        (
            "apiVersion: mailferry.io/v1alpha1\nkind: Mailmigration\nmetadata: {name: a}\n",
            "did you mean MailMigration?",
        ),
        (
            "apiVersion: mailferry.io/v1alpha1\nkind: MailboxSync\nmetadata: {name: a}\n",
            "made by the operator. Write a MailMigration",
        ),
        (
            "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: a}\n",
            "only plain Secrets can be read",
        ),
        (
            "apiVersion: mailferry.io/v1\nkind: MailServer\nmetadata: {name: a}\n",
            "apiVersion of a MailServer must be mailferry.io/v1alpha1",
        ),
        ("kind: Secret\nmetadata: {name: a}\n", "apiVersion of a Secret must be v1"),
        ("apiVersion: v1\nmetadata: {name: a}\n", "kind is missing"),
        ("apiVersion: v1\nkind: Secret\n", "m.yaml, line 1, column 1: Secret: metadata: is missing"),
        ("apiVersion: v1\nkind: Secret\nmetadata: {}\n", "m.yaml, line 3, column 1: Secret: metadata.name: is missing"),
        ("- a\n", "it is no manifest"),
        ("just text\n", "it is no manifest"),
        ("", "there is no MailMigration in m.yaml"),
        ("a: [\n", "m.yaml, line"),
    ] {
        let error = refused("kinds", text);
        assert!(error.contains(message), "{error}");
    }
    assert!(refused("utf8", b"a: \xff\n").contains("it is not UTF-8"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = load(&[PathBuf::from("/nonexistent/m.yaml")], &[], &nothing).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/m.yaml can't be read: No such file") && error.contains("-f"), "{error}");
}

#[test]
fn one_object_given_twice_is_refused_and_a_list_is_unfolded() {
    let folder = Folder::new("twice");
    let (first, second) = (folder.file("1.yaml", MIGRATION), folder.file("2.yaml", MIGRATION));
    let error = load(&[first, second], &[], &nothing).unwrap_err().to_string();
    assert!(
        error.contains("2.yaml, line 4, column 12: MailMigration acme is there already, in ")
            && error.contains("1.yaml, line 2, column 1"),
        "{error}"
    );
    let item = MIGRATION.trim().replace('\n', "\n    ");
    let list = folder.file("list.yaml", format!("apiVersion: v1\nkind: List\nitems:\n  - {item}\n"));
    assert_eq!(load(&[list], &[], &nothing).unwrap().migrations().len(), 1);
}

#[test]
fn a_csv_with_an_error_is_one_error_and_names_its_line() {
    let folder = Folder::new("csv");
    let migration =
        MIGRATION.replace("  mailboxes:", "  mailboxSecrets: [{name: csv, key: c}, {name: csv, key: d}]\n  mailboxes:");
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: csv}\nstringData:\n  c: \"name,password\\na,hush\"\n  \
                  d: \"name,source_password,destination_password\\ndave,x,y\\nbob,x,y\"\n";
    let files = [folder.file("m.yaml", migration), folder.file("s.yaml", secret)];
    let env = |name: &str| name.starts_with("MAILFERRY_SECRET_MAIL").then(|| OsString::from("p"));
    let manifests = load(&files, &[], &env).unwrap();
    let specs = specs(&manifests);
    assert_eq!(specs.len(), 5);
    let error = specs[2].as_ref().unwrap_err().to_string();
    assert!(
        error.contains("Secret csv key c, line 1: the name of column 2 is not known") && !error.contains("hush"),
        "{error}"
    );
    let dave = specs[3].as_ref().unwrap();
    assert_eq!((dave.mailbox.as_str(), password(dave)), ("dave", &b"x"[..]));
    assert_eq!(dave.destination.login.credential.expose().unwrap(), b"y");
    let error = specs[4].as_ref().unwrap_err().to_string();
    assert!(
        error.contains("mailbox bob: Configuration: Secret csv key d, line 3: the migration has a mailbox"),
        "{error}"
    );
}

#[test]
fn a_csv_without_passwords_may_be_in_a_config_map_and_one_with_them_may_not() {
    let folder = Folder::new("config-map");
    let master = "masterUser: {username: m, passwordSecretRef: {name: mail, key: m}}";
    let migration = format!(
        "apiVersion: mailferry.io/v1alpha1\nkind: MailMigration\nmetadata: {{name: acme}}\nspec:\n  source: {{server: \
         {{host: old.example}}, {master}}}\n  destination: {{server: {{host: new.example}}, {master}}}\n  \
         mailboxConfigMaps: [{{name: csv, key: c}}, {{name: csv, key: d}}, {{name: other, key: c}}]\n"
    );
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: csv}\ndata:\n  c: \"name,destination_username\\n\
               dave,david\\n\"\n  d: \"name,source_password\\nbob,hush\\n\"\n";
    let files = [folder.file("m.yaml", migration), folder.file("c.yaml", map)];
    let manifests = load(&files, &[], &|_| Some(OsString::from("p"))).unwrap();
    let [dave, bob, other] = specs(&manifests).try_into().unwrap();
    let dave = dave.unwrap();
    assert_eq!((dave.mailbox.as_str(), dave.destination.login.username.as_str()), ("dave", "david"));
    let refused = bob.unwrap_err().to_string();
    assert!(
        refused.contains("ConfigMap csv key d, line 1: column source_password: a ConfigMap is no place"),
        "{refused}"
    );
    assert!(refused.contains("mailboxSecrets") && !refused.contains("hush"), "{refused}");
    let missing = other.unwrap_err().to_string();
    assert!(missing.contains("there is no ConfigMap other key c (mailboxConfigMaps). Add the ConfigMap"), "{missing}");
}

#[test]
fn cancelled_mailboxes_are_left_out() {
    let folder = Folder::new("cancel");
    let file = folder.file("m.yaml", MIGRATION.replace("  mailboxes:", "  cancel: [alice]\n  mailboxes:"));
    let manifests = load(&[file], &[], &|_| Some("p".into())).unwrap();
    let names: Vec<_> = specs(&manifests).into_iter().map(|spec| spec.unwrap().mailbox).collect();
    assert_eq!(names, ["bob"]);
}

#[test]
fn nothing_secret_is_in_debug_output() {
    let manifests = load(&[example("migration.yaml")], &[], &|_| Some("hush".into())).unwrap();
    let shown = format!("{manifests:?} {:?}", specs(&manifests));
    for secret in ["battery", "nny", "ya29", "a long one", "really", "pa ss", "hush"] {
        assert!(!shown.contains(secret), "{secret}");
    }
}
