//! Files that `mailferry check`, `mailferry run` and a person read.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use jiff::Timestamp;
use mailferry::local::manifest;
use mailferry_testkit::{Corpus, SharedServer, pki::pki, shared_server};

use crate::desk::Desk;

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_imported_checked_and_moved() {
    let (source, destination) = (shared_server(SharedServer::Maildir), shared_server(SharedServer::Mdbox));
    // Passwords that every format on the way could break, and one that is no text.
    let odd = " p;a\"s,s\u{20ac}'#: ";
    let from =
        [source.add_user("imp alice@x.example", odd), source.add_user_with("impbob@x.example", b"\xff\xfe\"", "")];
    let to = [
        destination.add_user("imp alice@x.example", odd),
        destination.add_user_with("impbob@x.example", b"\xff\xfe\"", ""),
    ];
    from[0].connect().await.seed(&Corpus::bulk(5, 10 << 10, 2, 7)).await;
    let desk = Desk::new();
    let mut table = b"Login;Old Password\r\n".to_vec();
    table.extend_from_slice(format!("{};\"{}\"\r\n", from[0].user, odd.replace('"', "\"\"")).as_bytes());
    table.extend_from_slice(b"impbob@x.example;\"\xff\xfe\"\"\"\r\n");
    desk.write("users.csv", table);
    desk.write("ca.pem", &pki().ca);
    let ports = [source.tls_port().to_string(), destination.tls_port().to_string()];
    let import = |more: &[&str]| {
        let servers = [
            "import",
            "users.csv",
            "--source-host",
            "127.0.0.1",
            "--source-port",
            &ports[0],
            "--source-ca-file",
            "ca.pem",
            "--destination-host",
            "localhost",
            "--destination-port",
            &ports[1],
            "--destination-ca-file",
            "ca.pem",
        ];
        desk.run(&[&servers[..], more].concat()).hides(&[odd, odd.trim()])
    };
    // The heading says whose password it is: the destination's is missing.
    import(&[]).exits(2).says(&["there is no column with the passwords of the destination"]);
    import(&["--columns", "password=2"])
        .exits(0)
        .says(&["mailferry check -f users/migration.yaml -f users/secrets.yaml"]);
    let files = ["-f", "users/migration.yaml", "-f", "users/secrets.yaml"];
    desk.run(&[&["check", "--output", "json"][..], &files].concat())
        .exits(0)
        .says(&["\"event\":\"summary\"", "\"ready\":2"]);
    desk.run(&[&["run"][..], &files].concat()).exits(0);
    desk.run(&[&["verify"][..], &files].concat()).exits(0);
    assert_eq!(
        to[0].connect().await.snapshot().await["INBOX"].messages.len(),
        from[0].connect().await.snapshot().await["INBOX"].messages.len()
    );
}

fn list(users: usize) -> String {
    let rows = (0..users).map(|user| format!("user{user}@x.example,hush-{user},hush+{user}\n"));
    format!("email,password,new_password\n{}", rows.collect::<Vec<_>>().concat())
}

#[test]
fn thousands_of_mailboxes_are_read_again_each_with_its_passwords() {
    let desk = Desk::new();
    for users in [1000, 5000] {
        desk.write("users.csv", list(users));
        desk.import(&["--force"]).exits(0).hides(&["hush"]).says(&[&format!("{users} mailboxes")]);
        let files: Vec<PathBuf> = ["users/migration.yaml", "users/secrets.yaml"].map(|file| desk.path(file)).to_vec();
        let manifests = manifest::load(&files, &[], &|_| None).unwrap();
        let specs = manifests.specs(&manifests.migrations()[0], Timestamp::now());
        assert_eq!(specs.len(), users);
        for spec in specs {
            let spec = spec.unwrap();
            let user = spec.mailbox.trim_start_matches("user").split('@').next().unwrap();
            let (source, destination) = (&spec.source.login, &spec.destination.login);
            assert_eq!((&source.username, &destination.username), (&spec.mailbox, &spec.mailbox));
            assert_eq!(source.credential.expose().unwrap(), format!("hush-{user}").as_bytes());
            assert_eq!(destination.credential.expose().unwrap(), format!("hush+{user}").as_bytes());
        }
    }
}

#[test]
fn secrets_are_for_their_owner_and_nothing_is_replaced_unasked() {
    let desk = Desk::new();
    desk.write("users.csv", list(2));
    desk.import(&["--output", "out"]).exits(0);
    let mode = |name: &str| fs::metadata(desk.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("out/secrets.yaml"), 0o600);
    let before = desk.read("out/migration.yaml");
    assert!(!before.contains("hush"));
    desk.import(&["--output", "out"]).exits(0).says(&["out/migration.yaml (unchanged)"]);
    desk.write("users.csv", list(3));
    desk.import(&["--output", "out"]).exits(2).says(&["is there already", "--force"]);
    assert_eq!(desk.read("out/migration.yaml"), before);
    desk.import(&["--output", "out", "--force"]).exits(0);
    // What was there stays as it was: a small difference.
    let after = desk.read("out/migration.yaml");
    assert!(before.lines().all(|line| after.contains(line)));
    assert_eq!(mode("out/secrets.yaml"), 0o600);
}

#[test]
fn an_administrator_logs_in_where_the_table_has_no_password() {
    let desk = Desk::new();
    desk.write("users.csv", list(2));
    let master = ["--destination-master-user", "migrator", "--destination-master-secret", "migrator/password"];
    desk.import(&[&master[..], &["--columns", "destination_password=", "--suspend", "--parallelism", "3"]].concat())
        .exits(0)
        .says(&["Secret migrator with the key password must be there too"]);
    let files: Vec<PathBuf> = ["users/migration.yaml", "users/secrets.yaml"].map(|file| desk.path(file)).to_vec();
    let manifests =
        manifest::load(&files, &[], &|name| (name == "MAILFERRY_SECRET_MIGRATOR_PASSWORD").then(|| "m".into()))
            .unwrap();
    let migration = &manifests.migrations()[0];
    assert_eq!((migration.spec.suspend, migration.spec.parallelism), (true, 3));
    for spec in manifests.specs(migration, Timestamp::now()) {
        assert_eq!(spec.unwrap().destination.login.credential.expose().unwrap(), b"m");
    }
}

#[test]
fn the_example_is_right() {
    let desk = Desk::new();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/users.csv");
    desk.run(&[&["import", example, "--check"][..], &crate::desk::SERVERS].concat())
        .exits(0)
        .says(&["3 rows, 3 mailboxes: 1 MailMigration, 3 Secrets"]);
}
