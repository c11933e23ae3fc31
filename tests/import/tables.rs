//! Tables as they come, and what is said about them.

use crate::desk::{Desk, SERVERS};

#[test]
fn every_problem_is_said_with_its_line_and_nothing_is_made() {
    let desk = Desk::new();
    desk.write(
        "users.csv",
        "email,password,new password\n\
         alice@x.example,hush1,hush2\n\
         bob@x.example,,hush3\n\
         carol@x.example,hush4,hush5,hush6\n\
         ,hush7,hush8\n\
         dave@x.example,hush9,\"hush10\"hush11\n\
         alice@x.example,hush12,hush2\n\
         erin@x.example,hush13,\"hush14\n\
         frank@x.example,hush15,hush16\n",
    );
    let ran = desk.import(&[]).exits(2).hides(&["hush"]);
    for (line, what) in [
        (3, "source_password (column 2) is empty"),
        (4, "4 fields, more than the header has (3)"),
        (5, "source_username (column 1) is empty"),
        (6, "text behind a closing quote"),
        (7, "the same two accounts as on line 2, but something differs"),
        (8, "a quote is not closed; what follows was not read"),
    ] {
        assert!(ran.stderr.contains(&format!("problem: users.csv, line {line}: {what}")), "{line} {what}: {ran:#?}");
    }
    ran.says(&["error: Configuration: users.csv: 6 problems; nothing was made"]);
    assert!(!desk.path("users").exists());
}

#[test]
fn what_is_seldom_meant_is_warned_of_and_kept() {
    let desk = Desk::new();
    desk.write(
        "users.csv",
        "E-Mail;Passwort\r\nalice@x.example ;hush1 \r\nbob@x.example;hush2\r\nbob@x.example;hush2\r\n\
         carol smith;$6$rounds=5000$hushhushhush\r\n;\r\n",
    );
    desk.import(&["--check"])
        .exits(0)
        .hides(&["hush"])
        .says(&["warning: users.csv, line 2: source_username (column 1) has spaces around it: they are left out"])
        .says(&["warning: users.csv, line 2: source_password (column 2) ends with a space: it is kept"])
        .says(&["warning: users.csv, line 4: the same as line 3: left out"])
        .says(&["warning: users.csv, line 5: source_username (column 1) has a space in it"])
        .says(&["warning: users.csv, line 5: source_password (column 2) looks like a hash"])
        .says(&["users.csv: 4 rows, 3 mailboxes: 1 MailMigration, 3 Secrets"])
        .says(&["columns: 1 username of both sides, 2 password of both sides"]);
    assert!(!desk.path("users").exists());
}

#[test]
fn user_and_domain_are_joined_and_what_lacks_a_domain_is_warned_of() {
    let desk = Desk::new();
    desk.write(
        "users.csv",
        "Utilisateur;Domaine;Ancien mot de passe;Nouveau mot de passe;Compte\n\
         alice;x.example;hush1;hush2;Enabled\nbob;@y.example;hush3;hush4;disabled\ncarol@z.example;x.example;hush5;hush6;\n\
         dave;;hush7;hush8;Enabled\n",
    );
    desk.import(&[])
        .exits(0)
        .hides(&["hush"])
        .says(&["columns: 1 username of both sides, 2 domain of both sides, 3 source_password, 4 destination_password; not used: 5"])
        .says(&["warning: users.csv: column 5 is not used: its heading is one of user names, but it says in each row whether"])
        .says(&["warning: users.csv, line 5: source_username (column 1) has no @, unlike others"]);
    let migration = desk.read("users/migration.yaml");
    for name in ["name: alice@x.example", "name: bob@y.example", "name: carol@z.example", "name: dave\n"] {
        assert!(migration.contains(name), "{name}: {migration}");
    }
    desk.write("users.csv", "user,domain,password\nalice,hush!,p\n");
    desk.import(&["--force"])
        .exits(2)
        .hides(&["hush"])
        .says(&["users.csv, line 2: source_domain (column 2) must be a domain such as example.com"])
        .says(&["columns: 1 username of both sides, 2 domain of both sides, 3 password of both sides"]);
    desk.write("users.csv", "user,password\nalice,p\nbob,p\n");
    let ran = desk.import(&["--check"]).exits(0);
    assert_eq!(ran.stderr.matches("has no @").count(), 1, "{ran:#?}");
}

#[test]
fn a_host_may_have_its_port_in_the_table_and_on_the_command_line() {
    let desk = Desk::new();
    desk.write(
        "users.csv",
        "user,password,host1,port1\na@x.example,hush1,imap.old.example:143,\nb@x.example,hush2,imap.old.example,143\n\
         c@x.example,hush3,imap.old.example:993,993\n",
    );
    desk.run(&["import", "users.csv", "--destination-host", "new.example:1993"]).exits(0).hides(&["hush"]);
    let migration = desk.read("users/migration.yaml");
    assert_eq!(migration.matches("kind: MailMigration").count(), 2, "{migration}");
    for port in ["port: 143", "port: 993", "port: 1993"] {
        assert!(migration.contains(port), "{port}: {migration}");
    }
    desk.write(
        "users.csv",
        "user,password,host1,port1\na@x.example,hush1,imap.old.example:143,993\nb@x.example,hush2,hush3:1,\n",
    );
    desk.run(&["import", "users.csv", "--destination-host", "new.example"])
        .exits(2)
        .hides(&["hush"])
        .says(&["line 2: two ports of the source"])
        .says(&["line 3: source_host (column 3) must be an IP address or a host name"]);
    desk.run(&["import", "users.csv", "--destination-host", "new.example:1", "--destination-port", "2"])
        .exits(2)
        .says(&["--destination-host has another port than --destination-port"]);
}

#[test]
fn lists_without_passwords_go_into_config_maps_on_request_and_others_do_not() {
    let desk = Desk::new();
    desk.write("users.csv", "user1,user2\nalice@x.example,al@y.example\nbob@x.example,bob@x.example\n");
    let masters = [
        "--source-master-user",
        "m",
        "--source-master-secret",
        "s/k",
        "--destination-master-user",
        "m",
        "--destination-master-secret",
        "s/k",
        "--config-map",
    ];
    desk.import(&masters).exits(0).says(&["2 rows, 2 mailboxes: 1 MailMigration, 1 ConfigMap"]);
    let made = desk.read("users/migration.yaml");
    assert!(!desk.path("users/secrets.yaml").exists());
    for part in
        ["kind: ConfigMap", "mailboxConfigMaps:", "name,destination_username", "alice@x.example", "al@y.example"]
    {
        assert!(made.contains(part), "{part}: {made}");
    }
    let checked =
        desk.run(&["check", "users/migration.yaml", "--secret", "s/k=users.csv", "--mailbox", "nobody"]).exits(2);
    assert!(checked.stderr.contains("--mailbox nobody"), "the manifests are read: {checked:#?}");
    desk.write("users.csv", "user,password\nalice@x.example,hush\n");
    desk.import(&["--config-map", "--force"])
        .exits(2)
        .hides(&["hush"])
        .says(&["--config-map: the table has passwords"]);
}

#[test]
fn a_template_is_printed_and_can_be_imported_and_each_migration_has_its_next_step() {
    let desk = Desk::new();
    let template = desk.run(&["import", "--template"]).exits(0).stdout;
    desk.write("users.csv", &template);
    desk.run(&["import", "users.csv"]).exits(0).says(&["2 rows, 2 mailboxes: 1 MailMigration, 2 Secrets"]);
    desk.write("users.csv", template.replacen("mail.newhost.example", "other.newhost.example", 1));
    let ran = desk.run(&["import", "users.csv", "--force"]).exits(0);
    for command in ["check", "run"] {
        assert_eq!(ran.stderr.matches(&format!("  mailferry {command} -f")).count(), 2, "{ran:#?}");
    }
    assert_eq!(ran.stderr.matches("--migration users-").count(), 4, "{ran:#?}");
    desk.run(&["import"]).exits(2).says(&["FILE"]);
    desk.run(&["import", "--template", "users.csv"]).exits(2);
}

#[test]
fn a_long_list_of_problems_stays_readable() {
    let desk = Desk::new();
    let rows: Vec<String> = (0..200).map(|user| format!("user{user},\n")).collect();
    desk.write("users.csv", format!("user,password\n{}", rows.concat()));
    let ran = desk.import(&["--check"]).exits(2).says(&["and 180 more problems"]).says(&["users.csv: 200 problems"]);
    assert!(ran.stderr.lines().count() < 30);
}

#[test]
fn a_forgotten_header_is_asked_for_and_a_list_without_one_is_read() {
    let desk = Desk::new();
    desk.write("users.csv", "alice@x.example,hush1,hush2\nbob@x.example,hush3,hush4\n");
    desk.import(&["--check"]).exits(2).hides(&["hush", "alice"]).says(&["did you forget the header?", "--no-header"]);
    let columns = "username=1,source_password=2,destination_password=3";
    desk.import(&["--check", "--no-header", "--columns", columns]).exits(0).hides(&["hush"]).says(&["2 mailboxes"]);
}

#[test]
fn excels_files_are_read_in_every_encoding_it_writes() {
    let desk = Desk::new();
    let text = "E-Mail\tPasswort\r\nalice@x.example\tpässwörd\r\n";
    let utf16: Vec<u8> = [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    desk.write("users.csv", utf16);
    desk.import(&[]).exits(0).hides(&["pässwörd"]).says(&["users.csv (read as UTF-16)"]);
    let secrets = desk.read("users/secrets.yaml");
    let latin: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    desk.write("users.csv", &latin);
    desk.import(&["--encoding", "windows-1252"]).exits(0).says(&["users/secrets.yaml (unchanged)"]);
    desk.import(&["--check"]).exits(0).says(&["line 2", "is not UTF-8: its bytes are taken as they are"]);
    desk.import(&[]).exits(2).says(&["users/secrets.yaml is there already"]);
    desk.write("users.csv", format!("sep=;\r\n\u{feff}{}", text.replace('\t', ";")).replace('\u{feff}', ""));
    desk.import(&[]).exits(0).says(&["users/secrets.yaml (unchanged)"]);
    desk.write("users.csv", format!("\u{feff}{text}"));
    desk.import(&[]).exits(0);
    assert_eq!(desk.read("users/secrets.yaml"), secrets);
    desk.write("users.csv", "PK\u{3}\u{4}hush");
    desk.import(&[]).exits(2).hides(&["hush"]).says(&["a spreadsheet (xlsx, ods)", "save it as CSV"]);
}

#[test]
fn a_list_of_imapsync_is_taken_as_it_is() {
    let desk = Desk::new();
    desk.write(
        "users.csv",
        "# old to new\nold.example;alice;hush\"1;new.example;alice@x;hush2;;\n\
         old.example;bob;hush3;new.example;bob@x;hush4;--ssl1\n",
    );
    let import = |args: &[&str]| desk.run(&[&["import", "users.csv"][..], args].concat()).hides(&["hush"]);
    import(&["--check"]).exits(2).says(&["--format imapsync"]);
    import(&["--check", "--format", "imapsync"])
        .exits(0)
        .says(&["2 rows, 2 mailboxes: 1 MailMigration"])
        .says(&["there is more behind the sixth field", "on 1 line: it is not used"]);
}

#[test]
fn stdin_is_read_and_needs_a_name() {
    let desk = Desk::new();
    let table = b"user,password\nalice,hush\n";
    let args = |more: &[&'static str]| [&["import", "-"][..], &SERVERS, more].concat();
    desk.run_with(&args(&[]), table).exits(2).says(&["Add --name NAME"]);
    desk.run_with(&args(&["--name", "Acme"]), table).exits(2).says(&["can't be the migration's name"]);
    desk.run_with(&args(&["--name", "acme"]), table).exits(0).hides(&["hush"]).says(&["acme/secrets.yaml"]);
    desk.import(&[]).exits(2).says(&["users.csv can't be read: No such file"]);
}

#[test]
fn a_command_line_that_contradicts_itself_is_refused() {
    let desk = Desk::new();
    desk.write("users.csv", "user,password\nalice,hush\n");
    let server = ["--source-server", "s", "--source-port", "143"];
    desk.run(&[&["import", "users.csv"][..], &server].concat()).exits(2).says(&["cannot be used with"]);
    desk.run(&["import", "users.csv"]).exits(2).says(&["the source's server is not known", "--source-host"]);
    desk.import(&["--source-tls", "ssl"]).exits(2).says(&["write Implicit, StartTLS or None"]);
    desk.import(&["--columns", "mail=1"]).exits(2).says(&["a column holds name, or host"]);
    desk.import(&["--source-master-user", "m"]).exits(2).says(&["--source-master-secret"]);
    desk.import(&["--check", "--source-port", "143"]).exits(0).says(&["warning", "StartTLS is usual there"]);
    let hosts = ["--source-host", "imaps://old.example:993", "--destination-host", "n"];
    desk.run(&[&["import", "users.csv"][..], &hosts].concat()).exits(2).says(&["source: host must be a host name"]);
}

#[test]
fn a_script_of_imapsync_becomes_a_migration_and_is_not_run() {
    let desk = Desk::new();
    desk.write("old", "hush 1\nmore\n");
    let common = "--host1 old.example --host2 new.example --tls2 --exclude '^Trash' --maxage 365 --automap";
    desk.write(
        "move.sh",
        format!(
            "#!/bin/sh\n# old to new\nimapsync {common} --user1 alice --passfile1 old --user2 alice@x --password2 'hush$2'\n\
             ./imapsync {common} \\\n  --user1 bob --password1=hush3 --user2 bob@x --password2 \"hush 4\" --nolog\n"
        ),
    );
    let import = |file: &str| desk.run(&["import", file, "--format", "imapsync-script"]).hides(&["hush"]);
    import("move.sh")
        .exits(0)
        .says(&["2 rows, 2 mailboxes: 1 MailMigration, 2 Secrets"])
        .says(&["look at spec.folders"]);
    let migration = std::fs::read_to_string(desk.path("move/migration.yaml")).unwrap();
    for line in ["- /.*(?:^Trash).*/", "maxAgeDays: 365", "mode: StartTLS", "username: bob@x"] {
        assert!(migration.contains(line), "{line} in {migration}");
    }
    assert!(!migration.contains("hush"));

    desk.write("loop.sh", format!("for u in hush; do\n  imapsync {common} --user1 $u\ndone\ntouch ran\n"));
    import("loop.sh").exits(2).says(&["line 1:", "operator of the shell"]).says(&["line 2:", "a variable"]);
    assert!(!desk.path("ran").exists());
}
