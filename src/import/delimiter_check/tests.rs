use proptest::prelude::*;

use super::*;
use crate::{
    api::{MasterUser, SecretKeyRef},
    import::{
        objects::ImportMetadata,
        plan::{self, ImportSettings, ObjectLimits},
        side_settings::{ServerChoice, SideSettings},
        table::{self, TableFormat, TableOptions},
    },
};

fn side(host: Option<&str>, has_master: bool) -> SideSettings {
    let master = has_master.then(|| MasterUser {
        username: "m".into(),
        password_secret_ref: SecretKeyRef { name: "s".into(), key: "k".into() },
        mode: crate::api::MasterMode::default(),
        separator: None,
    });
    SideSettings { server: host.map(|host| ServerChoice::Host(host.into())), master, ..SideSettings::default() }
}

fn imapsync_lists() -> TableOptions {
    TableOptions { format: TableFormat::Imapsync, ..TableOptions::default() }
}

fn with(told: &str) -> TableOptions {
    TableOptions {
        column_settings: told.split_whitespace().map(|told| told.parse().unwrap()).collect(),
        ..TableOptions::default()
    }
}

/// The problems with a table, and all that is shown of it: findings, columns and MailMigrations.
fn read(text: &str, reading: &TableOptions, sides: [SideSettings; 2]) -> (String, String) {
    let mut table = table::read(text.as_bytes(), reading, [&sides[0], &sides[1]]);
    let common = ImportMetadata { import: "acme".into(), namespace: None };
    let settings = ImportSettings {
        common,
        sides,
        parallelism: None,
        suspend: false,
        config_maps: false,
        rules: serde_json::Map::new(),
    };
    let mut shown = String::new();
    if table.findings.problems.is_empty() {
        let plan = plan::plan(&table.rows, &settings, ObjectLimits::default(), &mut table.findings).unwrap();
        shown.extend(plan.migrations.iter().map(|migration| migration.yaml().unwrap()));
        shown.extend(plan.secrets.iter().map(|secret| secret.name.clone()));
    }
    let problems = TableFindings { problems: table.findings.problems.clone(), ..TableFindings::default() };
    (problems.text("f"), format!("{shown}{}{}{table:?}", table.findings.text("f"), table.columns.text()))
}

/// The same where rows name their servers, and a user of the destination may have no password.
fn problems(text: &str, reading: &TableOptions) -> String {
    read(text, reading, [side(None, false), side(None, true)]).0
}

#[test]
fn options_alone_may_stand_behind_the_sixth_field() {
    for tail in ["", ";", ";;", "; ", ";--ssl1", "; --ssl1 --ssl2;", ";--automap;--folder INBOX;;\r"] {
        let list = format!("old.example;a;p;new.example;a;q{tail}\n");
        assert_eq!(problems(&list, &imapsync_lists()), "", "{list}");
    }
    for (tail, number) in
        [(";x", 7), (";;x", 8), (";-ssl1", 7), (";--", 7), (";--9", 7), (";--ssl1;x", 8), (";\u{a0}", 7)]
    {
        let list = format!("# a;b\nold.example;a;p;new.example;a;q{tail}\n");
        let found = problems(&list, &imapsync_lists());
        assert!(found.starts_with(&format!("problem: f, line 2: field {number} is no option")), "{list}{found}");
    }
}

#[test]
fn every_line_of_a_table_has_as_many_fields() {
    let header = "host1,user1,password1,host2,user2,password2\n";
    let row = "old.example,a,p,new.example,a,q";
    let found = |rows: &str| problems(&format!("{header}{rows}\n"), &TableOptions::default());
    assert_eq!(found(&format!("{row}\n\n,,,\n{row}")), "");
    assert_eq!(found(&format!("{row},,\n{row},,")), "");
    assert!(found(&format!("{row}\n{row},")).contains("line 3: 7 fields, but 6 on line 2"));
    assert!(found(&format!("{row},x")).contains("line 2: 7 fields, more than the header has (6)"));
    assert!(found("old.example,a,p,new.example,a").contains("line 2: 5 fields, fewer than the header has (6)"));
    let reading = TableOptions { no_header: true, ..with("username=1 password=2 source_host=3 destination_host=3") };
    assert!(problems("a,p,x.example\nb,p\n", &reading).contains("line 2: 2 fields, fewer than the first line has (3)"));
}

#[test]
fn a_server_in_the_place_of_a_user_or_a_password_is_a_moved_row() {
    let what = "line 2: a user name or a password is the name of a server in this table";
    for row in [
        "old.example;b;p;a.piece;new.example;b;",
        "old.example;b;p;a.piece;NEW.example.;b;",
        "new.example;b;p;a.piece;new.example;b;",
        "old.example;b;new.example;b.piece;q;",
    ] {
        let found = problems(&format!("old.example;a;p;new.example;a;\n{row}\n"), &imapsync_lists());
        assert!(found.contains(what), "{row}: {found}");
    }
}

#[test]
fn a_user_name_is_not_left_in_one_piece_with_what_follows() {
    let servers = || [side(Some("a"), false), side(Some("b"), false)];
    let columns = with("username=1 password=2");
    for user in ["a;b", "a|b", "a:b"] {
        let text = format!("user,password\n{user},p\n");
        assert!(
            read(&text, &TableOptions::default(), servers()).0.contains("source_username (column 1) has"),
            "{user}"
        );
        let told = TableOptions { delimiter: Some(b','), ..TableOptions::default() };
        assert_eq!(read(&text, &told, servers()).0, "");
    }
    // A header says that spaces divide nothing.
    assert_eq!(read("user,password\na b,p\n", &TableOptions::default(), servers()).0, "");
    let found = read("a b,p\n", &TableOptions { no_header: true, ..columns }, servers()).0;
    assert!(found.contains("line 1: source_username (column 1) has"), "{found}");
    let found = read("old user,user,password\na;b,b;c,p\n", &TableOptions::default(), servers()).0;
    assert_eq!(found.lines().count(), 2, "{found}");
}

#[test]
fn addresses_that_are_all_passwords_are_asked_about() {
    let servers = || [side(Some("a"), false), side(Some("b"), false)];
    let swapped = "password,user\na@x.example,p\nb@x.example,q@r\n";
    let found = read(swapped, &TableOptions::default(), servers()).0;
    assert_eq!(found.lines().count(), 1, "{found}");
    assert!(found.contains("the source's passwords (column 1) are all addresses"), "{found}");
    for right in [swapped.replace("q@r", "b@x.example"), swapped.replace("b@x.example", "b")] {
        assert_eq!(read(&right, &TableOptions::default(), servers()).0, "");
    }
    assert_eq!(read(swapped, &with("password=1"), servers()).0, "");
    assert_eq!(
        read("user,old password\n", &TableOptions::default(), [side(Some("a"), false), side(Some("b"), true)]).0,
        "problem: f: there are no rows\n"
    );
}

proptest! {
    /// Unquoted, a password with the delimiter in it moves what follows.
    #[test]
    fn no_piece_of_an_unquoted_password_is_shown(
        old in "(hush[a-z0-9]{0,3}(\\.[a-z]{2}|[;,!-]){0,2}){1,4}",
        new in "(hush[a-z0-9]{0,3}(\\.[a-z]{2}|[;,!-]){0,2}){1,4}",
        tail in "(;|;;|;--ssl1)?",
        has_master: bool,
    ) {
        let sides = || [side(None, false), side(None, has_master)];
        let line = format!("old.example;alice;{old};new.example;alice@x;{new}");
        let (_, shown) = read(&format!("{line}{tail}\n"), &imapsync_lists(), sides());
        prop_assert!(!shown.contains("hush"), "{}", shown);
        let header = "host1;user1;password1;host2;user2;password2";
        for (header, line) in [(header, &line), (&header.replace(';', ","), &line.replace(';', ","))] {
            let (_, shown) = read(&format!("{header}\n{line}\n"), &TableOptions::default(), sides());
            prop_assert!(!shown.contains("hush"), "{}", shown);
        }
    }

    /// One field of a row is missing, and a delimiter at its end may make up for it.
    #[test]
    fn nothing_of_a_row_that_lacks_a_field_is_shown(
        missing in 0..6_usize,
        password in "hush[a-z0-9.!]{0,9}hush",
        last in ";?",
        has_master: bool,
    ) {
        // The password for the user whom an administrator logs in for: nothing tells them apart.
        prop_assume!(missing != 4 || !has_master);
        let mut fields = vec!["old.example", "alice", password.as_str(), "new.example", "alice@x", "hush"];
        fields.remove(missing);
        let line = format!("{}{last}", fields.join(";"));
        let right = "old.example;bob;secret;new.example;bob@x;secret";
        let sides = || [side(None, has_master), side(None, has_master)];
        let (_, shown) = read(&format!("{line}\n{right}\n"), &imapsync_lists(), sides());
        prop_assert!(!shown.contains("hush"), "{}", shown);
        let header = "host1;user1;password1;host2;user2;password2";
        let (_, shown) = read(&format!("{header}\n{line}\n{right}\n"), &TableOptions::default(), sides());
        prop_assert!(!shown.contains("hush"), "{}", shown);
    }
}
