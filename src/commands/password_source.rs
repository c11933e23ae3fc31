//! Where the password of an account comes from that the command line names: never from the command line itself, which other
//! users see and the shell remembers.

use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    path::PathBuf,
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use secrecy::SecretBox;
use zeroize::Zeroizing;

use crate::{
    error::{Error, Result, Side},
    local::secrets::without_line_end,
    terminal_text::printable,
};

/// Where a password comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PasswordSource {
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// An open file descriptor.
    Descriptor(u16),
    /// A person who types it.
    Terminal,
}

/// Shows a question on the terminal and reads the answer without showing it; none where there is no terminal.
pub(crate) type PasswordPrompt = fn(&str) -> io::Result<Option<Zeroizing<Vec<u8>>>>;

/// The longest line that a terminal gives (Linux' line discipline).
const MAX_LINE: usize = 4096;

/// Asks on the terminal of this process, wherever stdin and stdout go.
pub(crate) fn ask_on_terminal(question: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let Some(terminal) = open_terminal() else { return Ok(None) };
    // Before the question: what is typed at once is not shown either.
    let hidden = HiddenInput::begin(&terminal)?;
    let line = ask(&terminal, question);
    drop(hidden);
    (&terminal).write_all(b"\n")?;
    Ok(Some(Zeroizing::new(without_line_end(&line?).to_vec())))
}

/// The same for what is no secret, and is shown while it is typed. None also where the input ends without a line.
pub(crate) fn ask_openly(question: &str) -> io::Result<Option<String>> {
    let Some(terminal) = open_terminal() else { return Ok(None) };
    let line = ask(&terminal, question)?;
    let text = String::from_utf8_lossy(without_line_end(&line)).into_owned();
    Ok(Some(text).filter(|_| !line.is_empty()))
}

fn open_terminal() -> Option<fs::File> {
    fs::OpenOptions::new().read(true).write(true).open("/dev/tty").ok()
}

/// A terminal gives one line at a time.
fn ask(mut terminal: &fs::File, question: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    terminal.write_all(question.as_bytes())?;
    let mut line = Zeroizing::new(vec![0; MAX_LINE]);
    let length = terminal.read(&mut line)?;
    line.truncate(length);
    Ok(line)
}

/// While it lives, the terminal shows nothing that is typed.
struct HiddenInput<'a> {
    terminal: &'a fs::File,
    before: Termios,
}

impl<'a> HiddenInput<'a> {
    fn begin(terminal: &'a fs::File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL);
        tcsetattr(terminal, OptionalActions::Flush, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for HiddenInput<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before); // a terminal that is gone needs nothing
    }
}

impl PasswordSource {
    /// The password; `whose` it is a person is told.
    ///
    /// # Errors
    /// Configuration where it is not there or empty.
    pub(crate) fn read(&self, side: Side, whose: &str, prompt: PasswordPrompt) -> Result<SecretBox<[u8]>> {
        let wrong = |what: &str| Error::configuration(format!("{}: {what}", self.flag(side)));
        let unreadable = |error: io::Error| wrong(&format!("it can't be read: {error}"));
        let bytes = match self {
            Self::File(path) => in_file(path).map_err(unreadable)?,
            // Linux and the BSDs have it; opening it anew needs no code that takes over a descriptor of others.
            Self::Descriptor(number) => in_file(&PathBuf::from(format!("/dev/fd/{number}"))).map_err(unreadable)?,
            Self::Environment(variable) => match env::var_os(variable) {
                Some(value) => Zeroizing::new(value.into_encoded_bytes()),
                None => return Err(wrong("there is no such variable").advice("Export it, or name another one")),
            },
            Self::Terminal => {
                let question = format!("Password at the {side} ({}): ", printable(whose));
                let typed = prompt(&question).map_err(|error| wrong(&format!("it can't be asked for: {error}")))?;
                typed.ok_or_else(|| {
                    Error::configuration(format!("there is no terminal to ask for the password of the {side} on"))
                        .advice(format!(
                            "Give it by --{side}-password-file, --{side}-password-env or --{side}-password-fd"
                        ))
                })?
            }
        };
        if bytes.is_empty() {
            return Err(wrong("it is empty").advice("A login needs a password"));
        }
        Ok(SecretBox::new(bytes.as_slice().into()))
    }

    /// What the user gave, for errors.
    fn flag(&self, side: Side) -> String {
        match self {
            Self::File(path) => format!("--{side}-password-file {}", path.display()),
            Self::Environment(variable) => format!("--{side}-password-env {variable}"),
            Self::Descriptor(number) => format!("--{side}-password-fd {number}"),
            Self::Terminal => format!("the password of the {side}"),
        }
    }
}

fn in_file(path: &PathBuf) -> io::Result<Zeroizing<Vec<u8>>> {
    let whole = Zeroizing::new(fs::read(path)?);
    Ok(Zeroizing::new(without_line_end(&whole).to_vec()))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::ErrorClass;

    fn read(source: &PasswordSource, prompt: PasswordPrompt) -> Result<Vec<u8>> {
        source.read(Side::Source, "alice\u{1b}[2J at old.example", prompt).map(|value| value.expose_secret().to_vec())
    }

    /// There is no terminal.
    const NOBODY: PasswordPrompt = |_| Ok(None);

    #[test]
    fn a_password_is_what_the_file_holds_without_one_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        for (content, password) in
            [("hush", "hush"), (" hu sh \n", " hu sh "), ("hush\r\n", "hush"), ("hush\n\n", "hush\n")]
        {
            fs::write(&path, content).unwrap();
            assert_eq!(read(&PasswordSource::File(path.clone()), NOBODY).unwrap(), password.as_bytes());
        }
        for content in ["", "\n"] {
            fs::write(&path, content).unwrap();
            let error = read(&PasswordSource::File(path.clone()), NOBODY).unwrap_err();
            assert!(error.what.contains("--source-password-file") && error.what.contains("empty"), "{error}");
        }
        let error = read(&PasswordSource::File(folder.path().join("none")), NOBODY).unwrap_err();
        assert_eq!(error.class, ErrorClass::Configuration);
    }

    #[test]
    fn the_question_says_whose_password_it_is_and_holds_nothing_that_a_terminal_obeys() {
        let asked = |question: &str| {
            assert_eq!(question, "Password at the source (alice\\u{1b}[2J at old.example): ");
            Ok(Some(b"hush".to_vec().into()))
        };
        assert_eq!(read(&PasswordSource::Terminal, asked).unwrap(), b"hush");
    }

    #[test]
    fn without_a_terminal_a_person_is_told_what_to_give_instead() {
        let error = read(&PasswordSource::Terminal, NOBODY).unwrap_err();
        assert!(error.advice.unwrap().contains("--source-password-file"));
        let nothing = |_: &str| Ok(Some(Vec::new().into()));
        assert!(read(&PasswordSource::Terminal, nothing).unwrap_err().what.contains("empty"));
    }

    #[test]
    fn a_variable_that_is_not_there_is_named() {
        let source = PasswordSource::Environment("MAILFERRY_TEST_NO_SUCH_VARIABLE".to_owned());
        let error = read(&source, NOBODY).unwrap_err();
        assert!(error.what.contains("--source-password-env MAILFERRY_TEST_NO_SUCH_VARIABLE"), "{error}");
    }
}
