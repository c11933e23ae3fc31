//! `mailferry init`: from two addresses to a manifest that is known to log in.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::PathBuf,
};

use clap::Args;
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretBox};
use serde_json::{Map, Value};

use super::{
    account_args::{CredentialArgs, DestinationCredentialArgs, SourceCredentialArgs},
    connection_args::ConnectionArgs,
    password_source::{PasswordPrompt, PasswordSource, ask_on_terminal, ask_openly},
    saved_file::write_new,
};
use crate::{
    error::{Error, ErrorClass, Result, Side},
    local::{
        account_pair::{AccountPair, CredentialPlace},
        account_url::{AccountUrl, AccountUrlError},
        check::{self, InspectedAccount, assess_mailbox, inspect_account},
        manifest,
        report_text::{ReportDetail, TextLayout},
        secrets::SecretSource,
        server_proposal::propose_servers,
    },
    sync::spec::SyncSpec,
    terminal_text::printable,
};

/// Ask for two mailboxes, log in to both, and write the manifest that moves one to the other: the first step to `mailferry run`.
///
/// Nothing is copied, and no password is written. Whatever a flag says is not asked for. A mailbox is named by its address, whose
/// server is guessed and asked for, or as for `mailferry copy`: `imaps://USER@HOST`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// The manifest that is written. A file that is there is not replaced.
    #[arg(value_name = "FILE", default_value = "migration.yaml")]
    file: PathBuf,

    /// The mailbox that mail is read from: an address, or `imaps://USER@HOST`.
    #[arg(long, value_name = "ACCOUNT")]
    source: Option<String>,

    /// The mailbox that mail is written to, which must exist: an address, or `imaps://USER@HOST`.
    #[arg(long, value_name = "ACCOUNT")]
    destination: Option<String>,

    #[command(flatten)]
    source_credential: SourceCredentialArgs,

    #[command(flatten)]
    destination_credential: DestinationCredentialArgs,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// So often a person is asked for an account that can't be logged in to: servers lock accounts that fail too often.
const MAX_ROUNDS: usize = 3;
/// So often a person is asked the same question.
const MAX_ANSWERS: usize = 5;

/// Shows a question and reads the answer; none where there is nobody to ask.
type LinePrompt = fn(&str) -> io::Result<Option<String>>;

/// One side, once its account and its credential are known.
struct AnsweredSide {
    url: AccountUrl,
    /// None: a token file has it.
    password: Option<SecretBox<[u8]>>,
}

impl InitArgs {
    /// Asks, logs in, and writes the manifest; gives the exit code.
    ///
    /// # Errors
    /// Configuration where something is left out that nobody can be asked for, or the file can't be written; of the login's class
    /// where that is refused.
    pub async fn run(&self) -> Result<u8> {
        self.run_asking(ask_openly, ask_on_terminal).await
    }

    async fn run_asking(&self, ask: LinePrompt, ask_hidden: PasswordPrompt) -> Result<u8> {
        if self.file.exists() {
            return Err(Error::configuration(format!("{} is there already", self.file.display()))
                .advice("Name another file: mailferry init FILE"));
        }
        let mut known: [Option<AnsweredSide>; 2] = [None, None];
        let mut round = 1;
        loop {
            let [source, destination] = self.know_both(known, ask, ask_hidden)?;
            let (pair, spec) = self.migration(&source, &destination)?;
            say("Logging in to both ...");
            let (at_source, at_destination) =
                tokio::join!(inspect_account(&spec.source), inspect_account(&spec.destination));
            let failed = [(Side::Source, &at_source), (Side::Destination, &at_destination)]
                .map(|(side, found)| found.as_ref().err().map(|error| self.login_error(side, error, &spec)));
            let errors: Vec<&Error> = failed.iter().flatten().map(|(error, _)| error).collect();
            let Some(first) = errors.first() else { return self.write(&pair, &spec, [at_source, at_destination]) };
            if round == MAX_ROUNDS || failed.iter().flatten().any(|(_, asks)| !asks) {
                return Err((*first).clone());
            }
            for error in errors {
                say(&printable(&error.to_string()));
            }
            let [at_source, at_destination] = failed;
            known = [(source, at_source), (destination, at_destination)]
                .map(|(side, failed)| failed.is_none().then_some(side));
            round += 1;
        }
    }

    /// An error of a side's login, and whether a person may answer otherwise.
    fn login_error(&self, side: Side, error: &Error, spec: &SyncSpec) -> (Error, bool) {
        let (account, endpoint) = match side {
            Side::Source => (&self.source, &spec.source),
            Side::Destination => (&self.destination, &spec.destination),
        };
        let asks = account.is_none() || self.credential(side).password == PasswordSource::Terminal;
        (error.clone().on(side, endpoint.address()), asks)
    }

    fn credential(&self, side: Side) -> CredentialArgs<'_> {
        match side {
            Side::Source => self.source_credential.credential(),
            Side::Destination => self.destination_credential.credential(),
        }
    }

    /// What is not known of both sides is asked for.
    fn know_both(
        &self,
        known: [Option<AnsweredSide>; 2],
        ask: LinePrompt,
        ask_hidden: PasswordPrompt,
    ) -> Result<[AnsweredSide; 2]> {
        let [source, destination] = known;
        let source = match source {
            Some(source) => source,
            None => self.know(Side::Source, self.source.as_deref(), None, ask, ask_hidden)?,
        };
        let destination = match destination {
            Some(destination) => destination,
            None => self.know(Side::Destination, self.destination.as_deref(), Some(&source.url), ask, ask_hidden)?,
        };
        Ok([source, destination])
    }

    fn know(
        &self,
        side: Side,
        given: Option<&str>,
        other: Option<&AccountUrl>,
        ask: LinePrompt,
        ask_hidden: PasswordPrompt,
    ) -> Result<AnsweredSide> {
        let url = account(side, given, other, ask)?;
        let credential = self.credential(side);
        let password = match credential.token_file.or(credential.grant_file) {
            Some(_) => None,
            None => Some(credential.password.read(side, &url.to_string(), ask_hidden)?),
        };
        Ok(AnsweredSide { url, password })
    }

    /// The migration between two known sides.
    fn migration(&self, source: &AnsweredSide, destination: &AnsweredSide) -> Result<(AccountPair, SyncSpec)> {
        let trust = |side| self.connection.trust(side);
        let mut settings = Map::new();
        let timeouts = self.connection.timeouts();
        if !timeouts.is_empty() {
            settings.insert("timeouts".to_owned(), Value::Object(timeouts));
        }
        let pair = AccountPair {
            source: self.source_credential.pair_side(source.url.clone(), trust(Side::Source)?)?,
            destination: self.destination_credential.pair_side(destination.url.clone(), trust(Side::Destination)?)?,
            settings,
        };
        let mut manifests = manifest::from_command_line(pair.manifest())?;
        for (side, known) in [(Side::Source, source), (Side::Destination, destination)] {
            let secret = pair.secret(side);
            if let Some(path) = self.credential(side).grant_file {
                manifests.add_grant_file(path)?;
                continue;
            }
            match (&known.password, self.credential(side).token_file) {
                (Some(password), _) => {
                    manifests.give_secret(secret, SecretBox::new(password.expose_secret().into()));
                }
                (None, Some(path)) => manifests.give_secret_file(SecretSource { secret, path: path.clone() }),
                (None, None) => return Err(Error::internal("an account without a credential")),
            }
        }
        let [migration] = manifests.migrations() else {
            return Err(Error::internal("two accounts are one migration"));
        };
        let spec = manifests.specs(migration, Timestamp::now()).pop();
        let spec = spec.ok_or_else(|| Error::internal("two accounts are one mailbox"))??;
        Ok((pair, spec))
    }

    /// Writes the manifest, and says what was found and what comes next.
    fn write(&self, pair: &AccountPair, spec: &SyncSpec, found: [Result<InspectedAccount>; 2]) -> Result<u8> {
        let [source, destination] = found;
        let now = Timestamp::now();
        let checked = assess_mailbox(spec, source, destination, &BTreeMap::new(), now);
        say(check::mailbox(&checked, now, TextLayout::of_stdout(ReportDetail::Usual)).trim_end());
        let places = [Side::Source, Side::Destination].map(|side| self.credential(side).place());
        let file = self.file.display().to_string();
        write_new(&self.file, &pair.file_text(&file, &places)?)?;
        say(&format!("\nWritten: {}, without passwords. Next:", printable(&file)));
        if places.contains(&CredentialPlace::Nowhere) {
            say(
                "  put each password into a file of its own that only you can read, and name the files in place of PATH",
            );
        }
        say(&format!("  {}", printable(&pair.run_command(&file, &places))));
        Ok(check::gravest_class(&[checked]).map_or(0, ErrorClass::exit_code))
    }
}

/// A side's account: as it was given, or as a person says.
fn account(side: Side, given: Option<&str>, other: Option<&AccountUrl>, ask: LinePrompt) -> Result<AccountUrl> {
    if let Some(text) = given {
        return account_of(side, text, other, ask);
    }
    let role = match side {
        Side::Source => "Mailbox that mail is read from",
        Side::Destination => "Mailbox that it is written to",
    };
    let question = Question {
        text: format!("{role} (its address, or imaps://USER@HOST)"),
        // The same address at another host is what moves most often.
        usual: other.map(|other| other.username.clone()),
        is_assumed: false,
        flag: format!("--{side}"),
    };
    question.answer(ask, |text| account_of(side, text, other, ask))
}

/// The account that a text means: a URL, or an address whose server is to be found.
fn account_of(side: Side, text: &str, other: Option<&AccountUrl>, ask: LinePrompt) -> Result<AccountUrl> {
    if text.contains("://") {
        return read_url(side, text);
    }
    let at_server = |server: &str| {
        // `imap://HOST` asks for StartTLS.
        let (scheme, host) = server.split_once("://").unwrap_or(("imaps", server));
        read_url(side, &format!("{scheme}://{text}@{host}"))
    };
    // What is wrong with the address is told before anybody is asked for its server.
    at_server("localhost")?;
    let question = Question {
        text: "Its IMAP server".to_owned(),
        usual: propose_servers(text, other).first().map(|account| account.host.to_string()),
        is_assumed: true,
        flag: format!("--{side} imaps://USER@HOST"),
    };
    question.answer(ask, at_server)
}

fn read_url(side: Side, text: &str) -> Result<AccountUrl> {
    text.parse().map_err(|error: AccountUrlError| {
        Error::configuration(format!("the {side}'s mailbox: {error}")).advice(error.advice())
    })
}

/// What a person is asked.
struct Question {
    text: String,
    /// What an empty answer means.
    usual: Option<String>,
    /// It means the same where there is nobody to ask.
    is_assumed: bool,
    /// What gives the answer on the command line.
    flag: String,
}

impl Question {
    /// Asks until the answer can be used, but not for ever.
    fn answer<T>(&self, ask: LinePrompt, read: impl Fn(&str) -> Result<T>) -> Result<T> {
        let usual = self.usual.as_deref();
        let shown = usual.map(|usual| format!(" [{}]", printable(usual))).unwrap_or_default();
        let shown = format!("{}{shown}: ", self.text);
        let mut wrong = self.unanswered();
        for _ in 0..MAX_ANSWERS {
            let line = ask(&shown).map_err(|e| Error::configuration(format!("the terminal can't be used: {e}")))?;
            let answer = match (&line, usual) {
                (None, Some(usual)) if self.is_assumed => return read(usual),
                (None, _) => return Err(self.unanswered()),
                (Some(line), usual) => {
                    if line.trim().is_empty() {
                        usual.unwrap_or_default()
                    } else {
                        line.trim()
                    }
                }
            };
            if answer.is_empty() {
                continue;
            }
            match read(answer) {
                Ok(value) => return Ok(value),
                Err(error) => {
                    say(&error.to_string());
                    wrong = error;
                }
            }
        }
        Err(wrong)
    }

    fn unanswered(&self) -> Error {
        Error::configuration(format!("\"{}\" was not answered", self.text)).advice(format!("Give it by {}", self.flag))
    }
}

/// Tells what happens. A reader that has gone away is no failure.
fn say(line: &str) {
    drop(writeln!(io::stdout(), "{line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There is no terminal.
    const NOBODY: LinePrompt = |_| Ok(None);

    fn shown(account: Result<AccountUrl>) -> String {
        account.map_or_else(|error| error.to_string(), |account| account.to_string())
    }

    #[test]
    fn an_address_is_at_the_guessed_server_unless_a_person_says_another() {
        let address = Some("alice@acme.example");
        assert_eq!(shown(account(Side::Source, address, None, NOBODY)), "alice@acme.example at imap.acme.example");
        let another: LinePrompt = |question| {
            assert_eq!(question, "Its IMAP server [imap.acme.example]: ");
            Ok(Some("imap://mail.old.example:1143\n".to_owned()))
        };
        let at = account(Side::Source, address, None, another).unwrap();
        assert_eq!(
            (at.to_string().as_str(), at.tls_mode.default_port()),
            ("alice@acme.example at mail.old.example:1143", 143)
        );
        let usual: LinePrompt = |_| Ok(Some("\n".to_owned()));
        assert_eq!(shown(account(Side::Source, address, None, usual)), "alice@acme.example at imap.acme.example");
    }

    #[test]
    fn the_destination_has_the_same_address_and_another_server_unless_it_is_said() {
        let source: AccountUrl = "imaps://alice@acme.example@imap.acme.example".parse().unwrap();
        let answers: LinePrompt = |question| {
            let server = question.starts_with("Its IMAP server: ");
            assert!(server || question.ends_with(" [alice@acme.example]: "), "{question}");
            Ok(Some(if server { "mail.new.example" } else { "" }.to_owned()))
        };
        let destination = account(Side::Destination, None, Some(&source), answers);
        assert_eq!(shown(destination), "alice@acme.example at mail.new.example");
        let error = account(Side::Destination, Some("alice@acme.example"), Some(&source), NOBODY).unwrap_err();
        assert!(error.advice.unwrap().contains("--destination imaps://USER@HOST"));
    }

    #[test]
    fn what_is_left_out_is_named_where_there_is_nobody_to_ask() {
        let error = account(Side::Source, None, None, NOBODY).unwrap_err();
        assert!(error.what.contains("Mailbox that mail is read from") && error.advice.unwrap().contains("--source"));
    }

    #[test]
    fn a_question_ends_and_shows_no_password() {
        for (given, what) in [(None, "change it"), (Some("alice:hush@acme.example"), "change it")] {
            let said = shown(account(Side::Source, given, None, |_| Ok(Some("alice:hush@acme.example".to_owned()))));
            assert!(said.contains(what) && !said.contains("hush"), "{said}");
        }
        let nothing = shown(account(Side::Source, None, None, |_| Ok(Some(String::new()))));
        assert!(nothing.contains("was not answered"), "{nothing}");
    }
}
