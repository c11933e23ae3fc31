//! Scripts that call imapsync, once for each mailbox, as rows of a table and rules of a migration. Nothing of them is run,
//! and no finding shows what stands in them but the names of options that are known.

use std::{io, path::Path};

use regex::Regex;
use secrecy::SecretBox;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{
    findings::TableFindings,
    imapsync_options::{FlagOption, OptionMeaning, RuleOption, SecurityOption, SideOption, option_meaning},
    login::{CredentialKind, RowAccount, RowCredential},
    rows::{self, TableRow},
    script_words::{ScriptCommand, ScriptWord, read_commands},
    side_settings::{SideSettings, is_host},
    table::ImportTable,
};
use crate::api::{TlsMode, common::MAX_USERNAME};

/// Reads a file that a script names, for its password.
pub(crate) type PasswordFiles<'a> = &'a dyn Fn(&Path) -> io::Result<Zeroizing<Vec<u8>>>;

/// What is the same for all mailboxes of a script.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScriptSettings {
    /// How each side is connected to, where that is said.
    pub tls: [Option<TlsMode>; 2],
    /// Further fields of the MailMigration's spec.
    pub rules: Map<String, Value>,
}

/// Reads a script. `sides` are source and destination, as far as the command line knows them.
#[must_use]
pub(crate) fn read(text: &[u8], sides: [&SideSettings; 2], files: PasswordFiles<'_>) -> (ImportTable, ScriptSettings) {
    let mut table = ImportTable::default();
    let Ok(text) = std::str::from_utf8(text) else {
        table.findings.problem_of_all("it is not UTF-8: save it as UTF-8, or say --encoding");
        return (table, ScriptSettings::default());
    };
    let mut first: Option<(usize, ScriptSettings)> = None;
    let mut rows = Vec::new();
    for command in read_commands(text, &mut table.findings) {
        if !is_imapsync(&command) {
            table.findings.problem(
                command.line,
                "it is no imapsync command. Loops, variables and other programs are not understood: write one command \
                 for each mailbox, with its values",
            );
            continue;
        }
        table.count += 1;
        let before = table.findings.problems.len();
        let reader = CommandReader {
            line: command.line,
            findings: &mut table.findings,
            masters: sides.map(|side| side.master.is_some()),
            files,
        };
        let (row, settings) = reader.read(&command.words);
        if table.findings.problems.len() > before {
            continue;
        }
        match &first {
            Some((line, other)) if *other != settings => table.findings.problem(
                command.line,
                format!("its folders, messages or TLS are others than on line {line}: import it in a file of its own"),
            ),
            Some(_) => {}
            None => first = Some((command.line, settings)),
        }
        rows.extend(row);
    }
    if table.count == 0 && table.findings.problems.is_empty() {
        table.findings.problem_of_all("there is no imapsync command in it");
    }
    table.rows = rows::check_duplicates(rows, sides, &mut table.findings);
    let settings = first.map(|(_, settings)| settings).unwrap_or_default();
    if settings.rules.contains_key("folders") {
        table.findings.warning_of_all(
            "look at spec.folders: there, names have / between levels and no prefix (INBOX.) of the server",
        );
    }
    (table, settings)
}

fn is_imapsync(command: &ScriptCommand) -> bool {
    command.words.first().is_some_and(|word| word.rsplit('/').next() == Some("imapsync"))
}

/// One side of a command.
#[derive(Default)]
struct CommandSide {
    host: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    password: Option<Zeroizing<Vec<u8>>>,
    administrator: bool,
    implicit: Option<bool>,
    start_tls: Option<bool>,
}

/// Reads one command.
struct CommandReader<'a> {
    line: usize,
    findings: &'a mut TableFindings,
    /// Whether the command line names an administrator for a side.
    masters: [bool; 2],
    files: PasswordFiles<'a>,
}

/// The rules of one command.
#[derive(Default)]
struct CommandRules {
    include: Vec<String>,
    exclude: Vec<String>,
    rename: Vec<Value>,
    into: Option<String>,
    messages: Map<String, Value>,
    spec: Map<String, Value>,
    map_special_use: bool,
    ignore_subscriptions: bool,
}

impl CommandRules {
    /// As fields of a MailMigration's spec.
    fn fields(self) -> Map<String, Value> {
        let mut folders = Map::new();
        for (key, list) in
            [("include", json!(self.include)), ("exclude", json!(self.exclude)), ("rename", json!(self.rename))]
        {
            if list.as_array().is_some_and(|list| !list.is_empty()) {
                folders.insert(key.to_owned(), list);
            }
        }
        folders.extend(self.into.map(|into| ("into".to_owned(), json!(into))));
        // What imapsync does without --automap.
        if !self.map_special_use {
            folders.insert("specialUse".to_owned(), json!("Ignore"));
        }
        if self.ignore_subscriptions {
            folders.insert("subscriptions".to_owned(), json!("Ignore"));
        }
        let mut spec = self.spec;
        for (key, fields) in [("folders", folders), ("messages", self.messages)] {
            if !fields.is_empty() {
                spec.insert(key.to_owned(), Value::Object(fields));
            }
        }
        spec
    }
}

impl CommandReader<'_> {
    fn problem(&mut self, what: impl Into<String>) {
        self.findings.problem(self.line, what);
    }

    /// The row of a command, where it has all that belongs to one; and what must be the same in all.
    fn read(mut self, words: &[ScriptWord]) -> (Option<TableRow>, ScriptSettings) {
        let mut sides = [CommandSide::default(), CommandSide::default()];
        let mut rules = CommandRules::default();
        let mut rest = words.iter().skip(1).enumerate();
        while let Some((index, word)) = rest.next() {
            let Some(option) =
                word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|name| !name.is_empty())
            else {
                self.problem(format!("word {} is no option and no option's value", index + 2));
                continue;
            };
            let (name, own) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
            let name = name.to_ascii_lowercase();
            let Some(meaning) = option_meaning(&name) else {
                // Not shown: it may be a password that starts with a dash.
                self.problem(format!("word {} is an option of imapsync that is not known here", index + 2));
                continue;
            };
            let value = match (meaning.has_value(), own) {
                (false, Some(_)) => {
                    self.problem(format!("--{name} has no value"));
                    continue;
                }
                (false, None) => "",
                (true, Some(value)) => value,
                (true, None) => {
                    let Some((_, value)) = rest.next() else {
                        self.problem(format!("the value of --{name} is missing"));
                        continue;
                    };
                    value.as_str()
                }
            };
            match meaning {
                OptionMeaning::Side(option, side) => self.side_option(&name, option, value, &mut sides[side]),
                OptionMeaning::Security(option, side) => security(option, &mut sides[side]),
                OptionMeaning::Rule(option) => self.rule(&name, option, value, &mut rules),
                OptionMeaning::Flag(option) => flag(option, &mut rules),
                OptionMeaning::Ignored(_) => {}
                OptionMeaning::LeftOut(_, why) => {
                    self.findings.warning(self.line, format!("--{name} is left out: {why}"));
                }
                OptionMeaning::Refused(_, why) => self.problem(format!("--{name} has no counterpart: {why}")),
            }
        }
        let tls = [self.tls_mode(1, &sides[0]), self.tls_mode(2, &sides[1])];
        let [source, destination] = sides;
        let (source, destination) = (self.account(0, source), self.account(1, destination));
        let row = source.zip(destination);
        let row = row.map(|(source, destination)| TableRow { line: self.line, name: None, source, destination });
        (row, ScriptSettings { tls, rules: rules.fields() })
    }

    fn side_option(&mut self, name: &str, option: SideOption, value: &str, side: &mut CommandSide) {
        match option {
            SideOption::Host if is_host(value) => side.host = Some(value.to_owned()),
            SideOption::Host => self.problem(format!("--{name} is no host's name or address")),
            SideOption::Port => match value.parse() {
                Ok(port) if port > 0 => side.port = Some(port),
                _ => self.problem(format!("--{name} is no number from 1 to 65535")),
            },
            SideOption::User => {
                let length = value.chars().count();
                if length == 0 || length > MAX_USERNAME as usize || value.contains(char::is_control) {
                    self.problem(format!(
                        "--{name} is no user's name: it is empty, too long, or has control characters"
                    ));
                } else {
                    side.user = Some(value.to_owned());
                }
            }
            SideOption::Password => side.password = Some(Zeroizing::new(value.as_bytes().to_vec())),
            SideOption::PasswordFile => match (self.files)(Path::new(value)) {
                // Like imapsync: its first line.
                Ok(content) => {
                    let first = content.split(|b| *b == b'\n').next().unwrap_or_default();
                    let first = first.strip_suffix(b"\r").unwrap_or(first);
                    side.password = Some(Zeroizing::new(first.to_vec()));
                }
                Err(error) => self.problem(format!("the file of --{name} can't be read: {}", error.kind())),
            },
            SideOption::Administrator => side.administrator = true,
            SideOption::Mechanism if ["PLAIN", "LOGIN", "CRAM-MD5"].iter().any(|m| value.eq_ignore_ascii_case(m)) => {}
            SideOption::Mechanism => self.problem(format!("--{name} is none of PLAIN, LOGIN and CRAM-MD5")),
        }
    }

    fn rule(&mut self, name: &str, option: RuleOption, value: &str, rules: &mut CommandRules) {
        let number = value.parse::<u64>().ok();
        let mut limit = |key: &str| {
            let Some(number) = number else {
                return self.findings.problem(self.line, format!("--{name} is no whole number"));
            };
            // A size is text, with or without a unit.
            let value = if key.ends_with("Size") { json!(number.to_string()) } else { json!(number) };
            rules.messages.insert(key.to_owned(), value);
        };
        match option {
            RuleOption::MaxAge => limit("maxAgeDays"),
            RuleOption::MinAge => limit("minAgeDays"),
            RuleOption::MaxSize => limit("maxSize"),
            RuleOption::MinSize => limit("minSize"),
            RuleOption::Folder => rules.include.push(folder_pattern(value, false)),
            RuleOption::FolderWithBelow => rules.include.push(folder_pattern(value, true)),
            RuleOption::Include => rules.include.extend(self.found_pattern(name, value)),
            RuleOption::Exclude => rules.exclude.extend(self.found_pattern(name, value)),
            RuleOption::Rename => match value.split_once('=') {
                Some((old, new)) if !old.is_empty() && !new.is_empty() => rules
                    .rename
                    .push(json!({"from": format!("/{}/", regex::escape(old)), "to": new.replace('$', "$$")})),
                _ => self.problem(format!("--{name} is not OLD=NEW")),
            },
            RuleOption::Into => rules.into = Some(value.to_owned()),
        }
    }

    /// A pattern for what imapsync finds anywhere in a name.
    fn found_pattern(&mut self, name: &str, value: &str) -> Option<String> {
        if Regex::new(value).is_err() {
            self.problem(format!("--{name} is no regular expression that is understood here: write it in another way"));
            return None;
        }
        Some(format!("/.*(?:{value}).*/"))
    }

    fn tls_mode(&mut self, number: usize, side: &CommandSide) -> Option<TlsMode> {
        match (side.implicit, side.start_tls) {
            (Some(true), Some(true)) => {
                self.problem(format!("--ssl{number} and --tls{number} contradict each other"));
                None
            }
            (Some(true), _) => Some(TlsMode::Implicit),
            (_, Some(true)) | (Some(false), None) => Some(TlsMode::StartTls),
            (Some(false), Some(false)) => {
                self.problem(format!(
                    "--nossl{number} --notls{number} asks for a password in the clear: leave them out, and say it by --source-tls or --destination-tls where it is meant"
                ));
                None
            }
            // imapsync takes what it finds: there is no TLS from the first byte on this port.
            (None, _) => (side.port == Some(143)).then_some(TlsMode::StartTls),
        }
    }

    fn account(&mut self, index: usize, side: CommandSide) -> Option<RowAccount> {
        let number = index + 1;
        if side.host.is_none() {
            self.problem(format!("--host{number} is missing"));
        }
        if side.user.is_none() {
            self.problem(format!("--user{number} is missing"));
        }
        let own = match (self.masters[index], side.administrator) {
            // The password is the administrator's.
            (true, true) => None,
            (false, true) => {
                self.problem(format!(
                    "--authuser{number} is an administrator: say who by --source-master-user and --source-master-secret, or --destination-..."
                ));
                return None;
            }
            (master, false) => {
                let empty = side.password.as_ref().is_none_or(|password| password.is_empty());
                if empty && !master {
                    self.problem(format!("there is neither --password{number} nor --passfile{number}, or it is empty"));
                    return None;
                }
                side.password.filter(|_| !empty)
            }
        };
        let credential = own.map(|password| RowCredential {
            kind: CredentialKind::Password,
            value: SecretBox::new(password.as_slice().into()),
        });
        Some(RowAccount { host: Some(side.host?), port: side.port, username: side.user?, credential })
    }
}

fn security(option: SecurityOption, side: &mut CommandSide) {
    match option {
        SecurityOption::Implicit => side.implicit = Some(true),
        SecurityOption::NotImplicit => side.implicit = Some(false),
        SecurityOption::StartTls => side.start_tls = Some(true),
        SecurityOption::NotStartTls => side.start_tls = Some(false),
    }
}

fn flag(option: FlagOption, rules: &mut CommandRules) {
    match option {
        FlagOption::MapSpecialUse => rules.map_special_use = true,
        FlagOption::MirrorDeletions => drop(rules.spec.insert("deletions".to_owned(), json!("Mirror"))),
        FlagOption::IgnoreFlags => drop(rules.spec.insert("flags".to_owned(), json!("Ignore"))),
        FlagOption::IgnoreSubscriptions => rules.ignore_subscriptions = true,
    }
}

/// A pattern for one folder, with all below it or alone.
fn folder_pattern(name: &str, with_below: bool) -> String {
    let below = if with_below { "(?:/.*)?" } else { "" };
    format!("/{}{below}/", regex::escape(name))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn no_file(_: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn imported(text: &str) -> (ImportTable, ScriptSettings) {
        read(text.as_bytes(), [&SideSettings::default(), &SideSettings::default()], &no_file)
    }

    const ALICE: &str = "imapsync --host1 old.example --user1 alice --password1 'hush $1' --host2=new.example --user2=alice@x --password2=hush2";

    fn rules(more: &str) -> Map<String, Value> {
        let (table, settings) = imported(&format!("{ALICE} --automap {more}"));
        assert!(table.findings.problems.is_empty(), "{more}: {:?}", table.findings);
        settings.rules
    }

    fn problem(script: &str) -> String {
        let (table, _) = imported(script);
        let text = table.findings.text("f");
        assert!(!table.findings.problems.is_empty(), "{script}");
        assert!(!text.contains("hush"), "{text}");
        text
    }

    #[test]
    fn a_script_with_a_command_for_each_mailbox_is_a_table() {
        let script = format!(
            "#!/bin/sh\n{ALICE}\n\n/usr/bin/imapsync --host1 old.example --port1 993 --user1 bob \\\n --password1 hush --host2 new.example --user2 bob --password2 hush --nolog --timeout1 120\n"
        );
        let (table, settings) = imported(&script);
        assert_eq!(
            table.findings,
            TableFindings { warnings: table.findings.warnings.clone(), ..TableFindings::default() }
        );
        let [(alice, _), (bob, _)] = table.rows.as_slice() else { unreachable!("{table:?}") };
        assert_eq!((alice.line, bob.line, bob.source.port), (2, 4, Some(993)));
        assert_eq!((alice.source.username.as_str(), alice.destination.username.as_str()), ("alice", "alice@x"));
        assert_eq!(alice.source.credential.as_ref().unwrap().value.expose_secret(), b"hush $1");
        assert_eq!(settings.rules, Map::from_iter([("folders".to_owned(), json!({"specialUse": "Ignore"}))]));
        assert!(!format!("{table:?}").contains("hush"));
    }

    #[test]
    fn options_become_the_fields_that_say_the_same() {
        assert_eq!(rules(""), Map::new());
        let all = rules(
            "--maxage 30 --minsize 100 --maxsize 26214400 --delete2 --noresyncflags --nosubscribe --subfolder2 Old",
        );
        assert_eq!(all["messages"], json!({"maxAgeDays": 30, "minSize": "100", "maxSize": "26214400"}));
        assert_eq!((&all["deletions"], &all["flags"]), (&json!("Mirror"), &json!("Ignore")));
        assert_eq!(all["folders"], json!({"into": "Old", "subscriptions": "Ignore"}));
        let folders =
            &rules("--folder 'Sent Items' --folderrec A.B --exclude '^Trash' --include 'x|y' --f1f2 'Sent Items=$ent'")
                ["folders"];
        assert_eq!(
            folders,
            &json!({
                "include": ["/Sent Items/", "/A\\.B(?:/.*)?/", "/.*(?:x|y).*/"],
                "exclude": ["/.*(?:^Trash).*/"],
                "rename": [{"from": "/Sent Items/", "to": "$$ent"}],
            })
        );
    }

    #[test]
    fn tls_is_what_imapsync_would_use_and_never_none() {
        let tls = |more: &str| imported(&format!("{ALICE} {more}")).1.tls;
        assert_eq!(tls(""), [None, None]);
        assert_eq!(tls("--ssl1 --tls2"), [Some(TlsMode::Implicit), Some(TlsMode::StartTls)]);
        assert_eq!(tls("--port1 143 --nossl2"), [Some(TlsMode::StartTls), Some(TlsMode::StartTls)]);
        assert!(problem(&format!("{ALICE} --nossl1 --notls1")).contains("in the clear"));
    }

    #[test]
    fn what_can_not_be_said_is_refused_by_its_line_without_any_value() {
        for (script, says) in [
            (format!("a=hush\n{ALICE}"), "line 1: it is no imapsync command"),
            (format!("for u in hush\ndo\n{ALICE}\ndone"), "line 4: it is no imapsync command"),
            (format!("{ALICE} --user1 $hush"), "line 1: a variable"),
            (format!("{ALICE} --delete1"), "--delete1 has no counterpart"),
            (format!("{ALICE} --regexmess 's/hush//'"), "--regexmess has no counterpart"),
            (format!("{ALICE} --hush"), "that is not known here"),
            (format!("{ALICE} hush"), "is no option and no option's value"),
            (format!("{ALICE} --maxage hush"), "--maxage is no whole number"),
            (format!("{ALICE} --exclude '(hush'"), "--exclude is no regular expression"),
            (format!("{ALICE} --port1 hush"), "--port1 is no number"),
            (format!("{ALICE} --host1 hush"), "--host1 is no host"),
            (format!("{ALICE} --passfile1 hush"), "--passfile1 can't be read"),
            (format!("{ALICE} --authuser1 hush"), "--source-master-user"),
            (format!("{ALICE} --user1"), "the value of --user1 is missing"),
            ("imapsync --host1 old.example --user1 hush".to_owned(), "--host2 is missing"),
            (format!("{ALICE}\n{} --delete2", ALICE.replace("alice", "bob")), "line 2: its folders, messages or TLS"),
            ("# hush".to_owned(), "there is no imapsync command"),
        ] {
            let text = problem(&script);
            assert!(text.contains(says), "{says} in {text}");
        }
    }

    #[test]
    fn a_password_file_gives_its_first_line_and_an_administrators_password_is_not_taken_for_the_users() {
        let file = |path: &Path| {
            Ok(Zeroizing::new(if path == Path::new("old") { b"hush 1\r\nmore".to_vec() } else { Vec::new() }))
        };
        let script = "imapsync --host1 old.example --user1 a --passfile1 old --host2 new.example --user2 a --authuser2 root --password2 hush2";
        let master = SideSettings {
            master: Some(crate::api::MasterUser {
                username: "root".to_owned(),
                password_secret_ref: crate::api::SecretKeyRef { name: "root".to_owned(), key: "password".to_owned() },
                mode: crate::api::MasterMode::default(),
                separator: None,
            }),
            ..SideSettings::default()
        };
        let (table, _) = read(script.as_bytes(), [&SideSettings::default(), &master], &file);
        let [(row, _)] = table.rows.as_slice() else { unreachable!("{table:?}") };
        assert_eq!(row.source.credential.as_ref().unwrap().value.expose_secret(), b"hush 1");
        assert!(row.destination.credential.is_none());
    }
}
