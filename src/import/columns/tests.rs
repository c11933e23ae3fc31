use super::*;

const SERVERS: KnownSides = KnownSides {
    source: KnownSide { server: true, master: false },
    destination: KnownSide { server: true, master: false },
};

fn headings(line: &str) -> Vec<String> {
    line.split(',').map(str::to_owned).collect()
}

fn found(line: &str, told: &str, given: KnownSides) -> (TableColumns, TableFindings) {
    let told: Vec<ColumnSetting> = told.split_whitespace().map(|told| told.parse().unwrap()).collect();
    let (headings, mut findings) = (headings(line), TableFindings::default());
    let columns = find(Some(&headings), (headings.len(), &[]), &told, given, &mut findings);
    if findings.problems.is_empty() {
        check_complete(&columns, given, &mut findings);
    }
    (columns, findings)
}

fn reads(line: &str) -> String {
    let (columns, findings) = found(line, "", SERVERS);
    assert_eq!(findings, TableFindings::default(), "{line}");
    columns.text()
}

#[test]
fn headings_are_known_in_peoples_own_words() {
    for (line, columns) in [
        (
            "source_username,source_password,destination_username,destination_password",
            "1 source_username, 2 source_password, 3 destination_username, 4 destination_password",
        ),
        (
            "Old User,Old Password,New User,New Password",
            "1 source_username, 2 source_password, 3 destination_username, 4 destination_password",
        ),
        (
            "user1;password1;user2;password2".replace(';', ",").as_str(),
            "1 source_username, 2 source_password, 3 destination_username, 4 destination_password",
        ),
        ("E-Mail,Password", "1 username of both sides, 2 password of both sides"),
        ("Email Address [Required],Password [Required]", "1 username of both sides, 2 password of both sides"),
        (
            "E-Mail-Adresse,Passwort alt,Passwort neu",
            "1 username of both sides, 2 source_password, 3 destination_password",
        ),
        ("email,password,new_password", "1 username of both sides, 2 source_password, 3 destination_password"),
        ("LOGIN,PASS,name", "1 username of both sides, 2 password of both sides, 3 name"),
        ("from,to,password", "1 source_username, 2 destination_username, 3 password of both sides"),
        ("old_login,login,pw", "1 source_username, 2 destination_username, 3 password of both sides"),
        ("user,source token,destination token", "1 username of both sides, 2 source_token, 3 destination_token"),
    ] {
        assert_eq!(reads(line), columns, "{line}");
    }
}

#[test]
fn hosts_of_imapsync_lists_and_of_account_lists_are_found() {
    let nothing = KnownSides::default();
    let (columns, findings) = found("host1,user1,password1,host2,user2,password2", "", nothing);
    assert_eq!(findings, TableFindings::default());
    assert_eq!((columns.source.host, columns.destination.host), (Some(0), Some(3)));
    let given = KnownSides { destination: KnownSide { server: true, master: true }, ..nothing };
    let (columns, findings) = found("email,password,server,port", "", given);
    assert_eq!(findings, TableFindings::default());
    let expected = "1 username of both sides, 2 source_password, 3 source_host, 4 source_port";
    assert_eq!(columns.text(), expected);
}

#[test]
fn an_administrators_side_needs_no_password() {
    let mut given = SERVERS;
    given.destination.master = true;
    let (columns, findings) = found("email,password", "", given);
    assert_eq!((findings, columns.destination.password), (TableFindings::default(), None));
}

#[test]
fn the_command_line_wins_over_headings() {
    let (columns, findings) = found("a,b,Password", "username=b password=1 name=", SERVERS);
    assert_eq!(
        (columns.text().as_str(), columns.unused.as_slice()),
        ("1 password of both sides, 2 username of both sides", &[2][..])
    );
    assert_eq!(findings, TableFindings::default());
    let (columns, _) = found("name,email,password", "name=", SERVERS);
    assert_eq!(columns.name, None);
}

#[test]
fn what_is_unclear_is_asked_without_a_word_of_the_table() {
    for (line, told, message) in [
        ("alice,hush", "", "did you forget the header?"),
        ("password,hush@x.example", "", "did you forget the header?"),
        (
            "email,login,password",
            "",
            "columns 1 and 2 both seem to hold username: choose one by --columns username=1 or =2",
        ),
        ("old user,from,password", "", "columns 1 and 2 both seem to hold source_username"),
        ("email,hush", "", "there is no column with the passwords of the source"),
        ("password,hush", "", "there is no column with user names"),
        ("email,password,host1", "", "column 3 names the source's server, and the command line too"),
        ("email,password", "username=hush", "--columns username: no column has this heading"),
        ("email,password", "username=7", "there is no column 7, but 2"),
        ("email,password", "source_username=1 username=1", "says twice where source_username is"),
    ] {
        let text = found(line, told, SERVERS).1.text("f");
        assert!(text.contains(message), "{line}: {text}");
        assert!(!text.contains("hush"), "{text}");
    }
    let (columns, findings) = found("email,old,new", "source_password=old", SERVERS);
    let text = findings.text("f");
    assert_eq!((columns.destination.username, columns.unused.as_slice()), (Some(0), &[2][..]));
    assert!(text.contains("column 3 says whose it is, but not what it holds"), "{text}");
    assert!(text.contains("--columns destination_password=3"), "{text}");
    let text = found("email,password,destinaton_password", "", SERVERS).1.text("f");
    assert!(text.contains("warning: f: column 3 is not used: did you mean destination_password?"), "{text}");
}

#[test]
fn without_a_header_columns_have_numbers() {
    let mut findings = TableFindings::default();
    let told: Vec<ColumnSetting> = ["username=1", "password=2"].map(|told| told.parse().unwrap()).to_vec();
    let columns = find(None, (3, &[]), &told, SERVERS, &mut findings);
    assert_eq!(
        (columns.text().as_str(), columns.unused.as_slice()),
        ("1 username of both sides, 2 password of both sides", &[2][..])
    );
    find(None, (3, &[]), &["username=mail".parse().unwrap()], SERVERS, &mut findings);
    assert!(findings.text("f").contains("columns have numbers"));
}

#[test]
fn a_wrong_meaning_is_refused() {
    assert!("usr=1".parse::<ColumnSetting>().unwrap_err().contains("a column holds name"));
    assert!("username".parse::<ColumnSetting>().is_err());
    assert_eq!("Source-Username=1".parse::<ColumnSetting>().unwrap().meaning.to_string(), "source_username");
}

#[test]
fn a_password_that_is_taken_for_a_heading_is_not_told_by_a_suggestion() {
    let given = KnownSide { server: true, master: true };
    for line in ["info,mail,tokne", "info,secret,usernam"] {
        let text = found(line, "", KnownSides { source: given, destination: given }).1.text("f");
        assert!(!text.contains("did you mean"), "{text}");
    }
}

#[test]
fn a_column_of_switches_is_no_user_name_unless_the_command_line_says_so() {
    let headings = headings("email,password,login");
    let find_columns = |told: &[ColumnSetting]| {
        let mut findings = TableFindings::default();
        (find(Some(&headings), (3, &[2]), told, SERVERS, &mut findings), findings)
    };
    let (columns, findings) = find_columns(&[]);
    assert_eq!(columns.text(), "1 username of both sides, 2 password of both sides");
    assert!(findings.problems.is_empty() && columns.unused == [2]);
    assert!(findings.text("f").contains("column 3 is not used: its heading is one of user names"));
    let (columns, findings) = find_columns(&["username=3".parse().unwrap()]);
    assert_eq!((columns.source.username, findings), (Some(2), TableFindings::default()));
}

#[test]
fn a_domain_has_a_column_of_its_own_for_both_sides_or_one() {
    assert_eq!(
        reads("user,domain,password"),
        "1 username of both sides, 2 domain of both sides, 3 password of both sides"
    );
    assert_eq!(
        reads("login,old domain,new domain,password"),
        "1 username of both sides, 2 source_domain, 3 destination_domain, 4 password of both sides"
    );
}
