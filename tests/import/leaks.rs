//! Lines whose fields do not stand where they seem to: no piece of a password is shown, or written but to a Secret.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    path::Path,
    thread,
};

use mailferry_testkit::CommandOutput;

use crate::desk::Desk;

const IMAPSYNC: [&str; 2] = ["--format", "imapsync"];
/// Where an administrator logs in, the last password may be missing.
const MASTER: [&str; 4] = ["--destination-master-user", "migrator", "--destination-master-secret", "migrator/password"];

/// Imports a table whose passwords are all pieces of `hush`, and expects none of these anywhere.
fn import(desk: &Desk, table: &str, args: &[&str]) -> CommandOutput {
    desk.write("users.csv", table);
    let ran = desk.run(&[&["import", "users.csv"], args].concat());
    let said = format!("{}{}", ran.stdout, ran.stderr).to_lowercase();
    assert!(!said.contains("hush"), "{table}\n{ran:#?}");
    silent(&desk.path("."), &["users.csv", "secrets.yaml"]);
    ran
}

/// Expects `hush` in no file and in no name, but in these files.
#[track_caller]
fn silent(folder: &Path, but: &[&str]) {
    for entry in fs::read_dir(folder).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name().into_string().unwrap())).unwrap();
        assert!(!name.to_lowercase().contains("hush"), "{name}");
        if path.is_dir() {
            silent(&path, but);
        } else if !but.contains(&name.as_str()) {
            let text = fs::read_to_string(&path).unwrap();
            assert!(!text.to_lowercase().contains("hush"), "{}\n{text}", path.display());
        }
    }
}

/// Expects that the table's first row is a problem, and that nothing was made.
#[track_caller]
fn refuses(table: &str, args: &[&str], what: &str) {
    let desk = Desk::new();
    let ran = import(&desk, table, args);
    assert_eq!(ran.code, 2, "{table}\n{ran:#?}");
    ran.says(&["problem: users.csv", what]);
    assert_eq!(fs::read_dir(desk.path(".")).unwrap().count(), 1, "{table}");
}

#[test]
fn a_password_that_was_cut_in_a_list_of_imapsync_is_shown_nowhere() {
    for (list, what) in [
        ("old.example;alice;hush1;hush2;new.example;alice;hush3\n", "line 1: field 7 is no option of imapsync"),
        ("old.example;alice;hush1;hush.two;new.example;alice;hush3;\r\n", "line 1: field 7 is no option of imapsync"),
        ("old.example;alice;hush1;x9!hush;new.example;alice;hush3;--ssl1;\n", "line 1: field 7 is no option"),
        ("old.example;alice;hush1;hush2;hush3;new.example;alice;;hush4\n", "line 1: field 7 is no option"),
        ("old.example;alice;hush;new.example;alice;hush1;hush2\n", "line 1: field 7 is no option"),
        ("old.example;alice;hush1;hush.two;new.example;alice;--9hush\n", "line 1: field 7 is no option"),
        ("old.example;alice;hush1;hush2;new.example;alice;--hush\n", "line 1: destination_host (column 4) must be"),
        ("old.example;alice;hush1;hush2;new.example;alice\n", "line 1: destination_host (column 4) must be"),
        ("old.example;alice;hush1;hush2.x;new.example;alice;;\n", "line 1: destination_host (column 4) must be"),
        ("old.example;hush;alice;hush\n", "line 1: 4 fields, fewer than six"),
        ("hush1;old.example;alice;hush2;new.example;alice\n", "line 1: source_host (column 1) must be"),
    ] {
        refuses(list, &IMAPSYNC, what);
        refuses(list, &[&IMAPSYNC[..], &MASTER].concat(), what);
    }
}

#[test]
fn a_server_where_an_account_should_be_gives_a_moved_line_away() {
    let args = [&IMAPSYNC[..], &MASTER].concat();
    let right = "old.example;bob;hush;new.example;bob;\n";
    let what = "line 1: a user name or a password is the name of a server";
    for list in [
        // Cut, and nothing behind the sixth field.
        "old.example;alice;hush1;hush.two;new.example;alice;\n",
        "old.example;alice;hush1;hush.two;NEW.example;alice;;\n",
        // The first password is missing.
        "old.example;alice;new.example;al.ice;hush;\n",
    ] {
        refuses(&format!("{list}{right}"), &args, what);
    }
    import(&Desk::new(), right, &args).exits(0);
}

#[test]
fn a_row_of_another_length_than_the_header_is_shown_nowhere() {
    let hosts = "host1,user1,password1,host2,user2,password2";
    let users = "old user,old password,new user,new password";
    let servers = [&crate::desk::SERVERS[..], &MASTER].concat();
    let both = "line 2: 5 fields, fewer than the header has (6)";
    refuses(&format!("{hosts}\nold.example,alice,new.example,al.ice,hush\n"), &MASTER, both);
    let notes = format!("{hosts},notes\nold.example,alice,hush1,hush.two,new.example,alice,\n");
    refuses(&format!("{notes}old.example,bob,hush,new.example,bob,\n"), &MASTER, "line 3: 6 fields, fewer");
    let cut = format!("{users}\nalice,hush1,hush2,alice,\nbob,hush,bob,\n");
    refuses(&cut, &servers, "line 3: 4 fields, but 5 on line 2");
    refuses("email,password\nhush\n", &servers, "line 2: 1 field, fewer than the header has (2)");
}

#[test]
fn columns_that_are_swapped_are_shown_nowhere() {
    let servers = [&crate::desk::SERVERS[..], &["--columns", "source_host="]].concat();
    refuses(
        "email,password,host1\nalice@x.example,old.example,Hush7\n",
        &["--destination-host", "new.example"],
        "line 2: source_host (column 3) must be",
    );
    refuses("password,email\nalice@x.example,hush1\nbob@x.example,hush@2\n", &servers, "are the two swapped?");
    let told = [&servers[..], &["--columns", "password=2"]].concat();
    let desk = Desk::new();
    desk.write("users.csv", "user,password\nalice,alice@x.example\n");
    desk.run(&[&["import", "users.csv"], &told[..]].concat()).exits(0).hides(&["alice@x.example"]);
}

#[test]
fn a_wrong_delimiter_shows_nothing_of_a_row() {
    let servers = crate::desk::SERVERS;
    refuses(
        "email,password\nalice;hush1,hush2\n",
        &servers,
        "line 2: source_username (column 1) has a character in it that may divide",
    );
    let columns = [&servers[..], &["--no-header", "--columns", "username=1,password=2"]].concat();
    for row in ["alice|hush1,hush2\n", "alice:hush1,hush2\n", "alice hush1,hush2\n"] {
        refuses(row, &columns, "line 1: source_username (column 1) has a character");
    }
    let desk = Desk::new();
    let told = [&columns[..], &["--delimiter", ","]].concat();
    import(&desk, "al ice,hush2\n", &told).exits(0);
}

#[test]
fn what_an_api_server_says_of_a_password_is_not_logged() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let head: Vec<String> = reader.by_ref().lines().map(Result::unwrap).take_while(|l| !l.is_empty()).collect();
            let length =
                head.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            reader.by_ref().take(length.unwrap_or(0)).read_to_end(&mut Vec::new()).unwrap();
            let is_get = head[0].starts_with("GET");
            let (code, reason) = if is_get { (404, "NotFound") } else { (422, "Invalid") };
            let body = format!(
                r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"hush is too weak","reason":"{reason}","code":{code}}}"#
            );
            let answer =
                format!("HTTP/1.1 {code} No\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            (&stream).write_all(answer.as_bytes()).unwrap();
        }
    });
    let desk = Desk::new();
    desk.write(
        "kubeconfig",
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: 'http://{address}'}}}}]\n\
             users: [{{name: u, user: {{}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
        ),
    );
    let user = Desk::with_kubeconfig(desk.path("kubeconfig"));
    let args = [&crate::desk::SERVERS[..], &["--apply"]].concat();
    import(&user, "email,password\nalice@x.example,hush\n", &args).exits(2).says(&["the API server says: Invalid"]);
}
