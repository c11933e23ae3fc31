use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;
use crate::{
    api::SecretKeyRef,
    import::{side_settings::ServerChoice, table},
};

fn host(host: &str) -> SideSettings {
    SideSettings { server: Some(ServerChoice::Host(host.into())), ..SideSettings::default() }
}

fn settings() -> ImportSettings {
    ImportSettings {
        common: ImportMetadata { import: "acme".into(), namespace: None },
        sides: [host("old.example"), host("new.example")],
        parallelism: None,
        suspend: false,
        config_maps: false,
        rules: serde_json::Map::new(),
    }
}

fn import(text: &[u8], settings: &ImportSettings, limits: ObjectLimits) -> ImportPlan {
    let [source, destination] = &settings.sides;
    let table = table::read(text, &table::TableOptions::default(), [source, destination]);
    let mut findings = table.findings;
    assert_eq!(findings.problems, [], "{text:?}");
    let made = plan(&table.rows, settings, limits, &mut findings).unwrap();
    assert_eq!(findings.problems, []);
    made
}

fn user_list(users: impl Iterator<Item = usize>) -> String {
    let rows = users.map(|user| format!("user{user}@acme.example,\"old,{user}\",new{user}\n"));
    format!("email,password,new password\n{}", rows.collect::<Vec<_>>().concat())
}

/// Migration, source user, destination user, source password, destination password.
type PlannedMove = (String, String, String, Vec<u8>, Vec<u8>);

/// Everything that a plan moves.
fn moved(plan: &ImportPlan) -> Vec<PlannedMove> {
    let secrets: HashMap<&str, &SecretObject> =
        plan.secrets.iter().map(|secret| (secret.name.as_str(), secret)).collect();
    let value =
        |reference: &SecretKeyRef| secrets[reference.name.as_str()].values[&reference.key].expose_secret().to_vec();
    let mut moved = Vec::new();
    for made in &plan.migrations {
        let migration: MailMigration = serde_json::from_value(made.object.clone()).unwrap();
        let mut add = |entry: &crate::api::MailboxEntry, value: &dyn Fn(&SecretKeyRef) -> Vec<u8>| {
            let source = entry.source.username.clone().unwrap_or_else(|| entry.name.clone());
            let destination = entry.destination.username.clone().unwrap_or_else(|| source.clone());
            let of = |account: &crate::api::Account| {
                account.credential().and_then(|c| c.secret().map(value)).unwrap_or_default()
            };
            moved.push((made.name.clone(), source, destination, of(&entry.source), of(&entry.destination)));
        };
        for entry in &migration.spec.mailboxes {
            add(entry, &value);
        }
        for reference in &migration.spec.mailbox_secrets {
            for row in csv::parse("csv", &value(reference), |_| "row".into()).unwrap() {
                add(&row.entry, &|reference| row.secrets[reference.key.as_str()].expose_secret().to_vec());
            }
        }
    }
    moved.sort();
    moved
}

fn files(plan: &ImportPlan) -> BTreeMap<String, String> {
    let common = settings().common;
    let migrations = plan.migrations.iter().map(|migration| (migration.name.clone(), migration.yaml().unwrap()));
    migrations
        .chain(plan.secrets.iter().map(|secret| (secret.name.clone(), secret.yaml(&common).to_string())))
        .collect()
}

#[test]
fn a_short_list_becomes_one_migration_with_a_secret_for_each_mailbox() {
    let plan = import(user_list(0..2).as_bytes(), &settings(), ObjectLimits::default());
    let [migration] = plan.migrations.as_slice() else { panic!("{plan:?}") };
    let names: Vec<&str> = plan.secrets.iter().map(|secret| secret.name.as_str()).collect();
    let reference = |index: usize, side: &str| json!({"passwordSecretRef": {"name": names[index], "key": format!("{side}-password")}});
    let entry = |index: usize| {
        json!({
            "name": format!("user{index}@acme.example"),
            "source": reference(index, "source"), "destination": reference(index, "destination"),
        })
    };
    assert_eq!(
        migration.object,
        json!({
            "apiVersion": "mailferry.io/v1alpha1", "kind": "MailMigration",
            "metadata": {"name": "acme", "labels": {"mailferry.io/import": "acme"}},
            "spec": {
                "source": {"server": {"host": "old.example"}}, "destination": {"server": {"host": "new.example"}},
                "mailboxes": [entry(0), entry(1)],
            },
        })
    );
    assert!(names[0].starts_with("acme-user0-acme-example-"), "{names:?}");
    assert_eq!(plan.secrets[1].values["source-password"].expose_secret(), b"old,1");
}

#[test]
fn a_long_list_goes_into_csvs_that_fit_and_none_is_lost() {
    let list = user_list(0..3000);
    let plan = import(list.as_bytes(), &settings(), ObjectLimits::default());
    assert_eq!((plan.migrations.len(), plan.mailboxes), (1, 3000));
    assert!(
        plan.migrations[0].object["spec"]["mailboxSecrets"].as_array().unwrap().len() > 1 || plan.secrets.len() == 1
    );
    assert_eq!(moved(&plan).len(), 3000);
    let small = ObjectLimits { listed: 10, object: 20_000, csvs: 4 };
    let plan = import(list.as_bytes(), &settings(), small);
    assert!(plan.migrations.len() > 1);
    let common = settings().common;
    for secret in &plan.secrets {
        assert!(serde_json::to_string(&secret.object(&common)).unwrap().len() <= small.object, "{}", secret.name);
    }
    for migration in &plan.migrations {
        assert!(migration.object["spec"]["mailboxSecrets"].as_array().unwrap().len() <= small.csvs);
    }
    let moved = moved(&plan);
    assert_eq!(moved.len(), 3000);
    let (_, source, destination, old, new) = &moved[0];
    assert_eq!(source, destination);
    let number = source.trim_start_matches("user").split('@').next().unwrap();
    assert_eq!(
        (old.as_slice(), new.as_slice()),
        (format!("old,{number}").as_bytes(), format!("new{number}").as_bytes())
    );
}

#[test]
fn a_thousand_mailboxes_are_listed_and_fit_into_kubectl_apply() {
    let plan = import(user_list(0..1000).as_bytes(), &settings(), ObjectLimits::default());
    assert_eq!(plan.secrets.len(), 1000);
    assert!(plan.migrations[0].object.to_string().len() < 256 << 10);
    let plan = import(user_list(0..1001).as_bytes(), &settings(), ObjectLimits::default());
    assert!(plan.secrets.len() < 10);
}

#[test]
fn one_mailbox_more_changes_one_secret_and_another_order_nothing() {
    let small = ObjectLimits { listed: 10, object: 20_000, csvs: 64 };
    for limits in [ObjectLimits::default(), small] {
        let before = files(&import(user_list(0..900).as_bytes(), &settings(), limits));
        let after = files(&import(user_list(0..901).as_bytes(), &settings(), limits));
        let changed: Vec<&String> =
            after.iter().filter(|(name, yaml)| before.get(*name) != Some(yaml)).map(|(name, _)| name).collect();
        assert!(changed.len() <= 2, "{changed:?}");
        assert!(before.keys().all(|name| after.contains_key(name)));
        assert!(before == files(&import(user_list((0..900).rev()).as_bytes(), &settings(), limits)));
    }
}

#[test]
fn rows_with_other_servers_make_migrations_of_their_own() {
    let text = "host1,user1,password1,host2,user2,password2\n\
                a.example,u,p,n.example,u,q\nb.example,u,p,n.example,u2,q\nA.example,v,p,n.example,v,q\n";
    let none = SideSettings::default();
    let settings = ImportSettings { sides: [none.clone(), none], ..settings() };
    let plan = import(text.as_bytes(), &settings, ObjectLimits::default());
    let names: Vec<&str> = plan.migrations.iter().map(|migration| migration.name.as_str()).collect();
    assert_eq!(names, ["acme-a-example-n-example", "acme-b-example-n-example"]);
    assert_eq!(moved(&plan).len(), 3);
    let one = import(text.replace("b.example", "a.example").as_bytes(), &settings, ObjectLimits::default());
    assert_eq!(one.migrations[0].name, "acme");
}

#[test]
fn no_password_is_in_debug_output() {
    let settings = settings();
    let [source, destination] = &settings.sides;
    let table = table::read(b"user,password\na,hush\n", &table::TableOptions::default(), [source, destination]);
    let plan = super::plan(&table.rows, &settings, ObjectLimits::default(), &mut TableFindings::default()).unwrap();
    assert_eq!(plan.secrets.len(), 1);
    assert!(!format!("{table:?} {plan:?}").contains("hush"));
}

#[test]
fn what_the_command_line_says_is_in_the_migration() {
    let mut settings = settings();
    (settings.parallelism, settings.suspend, settings.common.namespace) = (Some(7), true, Some("mail".into()));
    settings.sides[0].server = Some(ServerChoice::Reference("oldhost".into()));
    let plan = import(user_list(0..1).as_bytes(), &settings, ObjectLimits::default());
    let migration: MailMigration = serde_json::from_value(plan.migrations[0].object.clone()).unwrap();
    assert_eq!((migration.spec.parallelism, migration.spec.suspend), (7, true));
    assert_eq!(migration.metadata.namespace.as_deref(), Some("mail"));
    assert_eq!(migration.spec.source.server_ref.unwrap().name, "oldhost");
    settings.sides[0].server = Some(ServerChoice::Reference("Old Host".into()));
    let [source, destination] = &settings.sides;
    let table = table::read(user_list(0..1).as_bytes(), &table::TableOptions::default(), [source, destination]);
    let error = plan_error(&table.rows, &settings);
    assert!(error.contains("spec.source.serverRef.name: must be an object's name"), "{error}");
}

fn plan_error(rows: &[(TableRow, [ServerLocation; 2])], settings: &ImportSettings) -> String {
    super::plan(rows, settings, ObjectLimits::default(), &mut TableFindings::default()).unwrap_err().to_string()
}

/// A field as a careful spreadsheet writes it.
fn quoted(field: &[u8]) -> Vec<u8> {
    let mut text = vec![b'"'];
    for byte in field {
        text.extend(std::iter::repeat_n(*byte, if *byte == b'"' { 2 } else { 1 }));
    }
    text.push(b'"');
    text
}

fn bytes_but_nul() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(1_u8.., 1..60)
}

proptest! {
    #[test]
    fn any_password_survives(old in bytes_but_nul(), new in bytes_but_nul(), listed in 0..2_usize) {
        let header = b"user;old password;new password\r\nu@x;";
        let text = [&header[..], &quoted(&old), b";", &quoted(&new), b"\r\n"].concat();
        let plan = import(&text, &settings(), ObjectLimits { listed, ..ObjectLimits::default() });
        prop_assert_eq!(moved(&plan), [("acme".to_owned(), "u@x".to_owned(), "u@x".to_owned(), old, new)]);
    }

    /// Whatever is wrong with a table: what is said about it holds none of its words.
    #[test]
    fn nothing_that_is_said_holds_a_word_of_the_table(
        lines in prop::collection::vec(prop::collection::vec(
            prop_oneof![
                "hush-[a-z]{4}", "[ \t\u{a0}]hush-[a-z]{4}", "\"hush-[a-z]{4}\"", "\"hush-[a-z]{4}", "\"hush\"x",
                Just(String::new()),
                "[a-z]{1,3}@x.example", Just("user".to_owned()), Just("password".to_owned()),
                Just("new password".to_owned()),
                Just("name".to_owned()), Just("source_host".to_owned()), "hush[\u{1}-\u{ff}]{0,9}",
            ], 1..5), 0..6),
        delimiter in "[,;\t|]",
    ) {
        let text: String = lines.iter().map(|line| line.join(&delimiter) + "\n").collect();
        let settings = settings();
        for format in [table::TableFormat::Csv, table::TableFormat::Imapsync] {
            let [source, destination] = &settings.sides;
            let reading = table::TableOptions { format, ..table::TableOptions::default() };
            let table = table::read(text.as_bytes(), &reading, [source, destination]);
            let mut findings = table.findings;
            let _ = super::plan(&table.rows, &settings, ObjectLimits::default(), &mut findings);
            let said = format!("{} {} {findings:?}", findings.text("f"), table.columns.text());
            prop_assert!(!said.contains("hush"), "{}", said);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let settings = settings();
        let [source, destination] = &settings.sides;
        let table = table::read(&bytes, &table::TableOptions::default(), [source, destination]);
        prop_assert!(table.rows.len() <= bytes.len());
    }
}
