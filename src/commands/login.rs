//! `mailferry login`: a person signs in, and what comes of it is a grant that renews its access tokens.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use clap::{Args, ValueEnum};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::{
    error::{Error, ErrorClass, Result},
    oauth::SignIn,
    terminal_text::{printable, shell_word},
    yaml,
};

/// A sign-in that nobody ends is given up after this.
const LIMIT: Duration = Duration::from_mins(10);
/// The longest first line of a browser's request, bytes.
const MAX_REQUEST: u64 = 16 << 10;
/// A browser that says nothing is not waited for longer.
const BROWSER_LIMIT: Duration = Duration::from_secs(10);

/// Sign in at Google, Microsoft or another provider, and write the grant to a file.
///
/// An access token lasts for an hour or so; with the grant, Mailferry asks for new ones by itself. The file is a Secret of type
/// mailferry.io/oauth-grant: `mailferry copy` takes it by --source-grant-file or --destination-grant-file, and
/// `mailferry run` by -f, where a mailbox's grantSecretRef names it.
///
/// You need a client of your own, which docs/google.md and docs/microsoft.md show how to make; none is built in. The browser
/// may run on another machine: open the address there, and paste the one that it ends at.
#[derive(Debug, Clone, Args)]
pub struct LoginArgs {
    /// Who gives the tokens.
    #[arg(value_enum)]
    provider: LoginProvider,

    /// The address that signs in.
    address: String,

    /// The client's id.
    #[arg(long, value_name = "ID")]
    client_id: String,

    /// A file that holds the client's secret, where it has one.
    #[arg(long, value_name = "FILE")]
    client_secret_file: Option<PathBuf>,

    /// Microsoft: the tenant's id or domain [default: common, which is any].
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,

    /// Microsoft: show a code that is typed on another device, instead of an address. Many tenants don't allow that.
    #[arg(long)]
    device: bool,

    /// What is asked for, where it is not the usual.
    #[arg(long, value_name = "SCOPE")]
    scope: Option<String>,

    /// Other providers: where a person signs in.
    #[arg(long, value_name = "URL")]
    authorize_url: Option<String>,

    /// Other providers: where tokens are given.
    #[arg(long, value_name = "URL")]
    token_url: Option<String>,

    /// The IMAP servers that the tokens may be sent to, with commas between them [default: the provider's own].
    #[arg(long, value_name = "HOSTS")]
    imap_hosts: Option<String>,

    /// The file to write, which must not be there yet [default: ADDRESS.grant.yaml in the current folder].
    #[arg(long, value_name = "FILE")]
    grant_file: Option<PathBuf>,
}

/// Who gives the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LoginProvider {
    /// Google Workspace and Gmail.
    Google,
    /// Microsoft 365 and Outlook.com.
    Microsoft,
    /// Any other, by --authorize-url, --token-url and --imap-hosts.
    Other,
}

impl LoginArgs {
    /// Signs in and writes the grant; returns the exit code.
    ///
    /// # Errors
    /// Configuration where a flag or the file is wrong; what the provider says.
    pub async fn run(&self) -> Result<u8> {
        let fields = self.fields()?;
        let file =
            self.grant_file.clone().unwrap_or_else(|| PathBuf::from(format!("{}.grant.yaml", plain(&self.address))));
        if file.exists() || file == Path::new("-") {
            return Err(Error::configuration(format!("{} is there already", file.display()))
                .advice("Name another file by --grant-file; none is replaced, and none is a terminal"));
        }
        let secrets = fields.iter().map(|(key, value)| ((*key).to_owned(), SecretBox::new(value.as_bytes().into())));
        let sign_in = SignIn::new(secrets.collect(), &self.address, self.authorize_url.as_deref())?;
        let refresh_token = if self.device { by_device(&sign_in).await? } else { by_browser(&sign_in).await? };
        let name = secret_name(&self.address);
        write_grant(&file, &name, &fields, &refresh_token)?;
        let shown = shell_word(&file.display().to_string());
        say(&format!(
            "The grant is in {shown}, and as good as a password. Use it so:\n  \
             mailferry copy --source-grant-file {shown} SOURCE DESTINATION\n  \
             mailferry run migration.yaml -f {shown}    with grantSecretRef: {{name: {name}}} in the migration\n"
        ));
        Ok(0)
    }

    /// The fields of the grant, but for its refresh token.
    fn fields(&self) -> Result<BTreeMap<&'static str, String>> {
        let provider = match self.provider {
            LoginProvider::Google => "google",
            LoginProvider::Microsoft => "microsoft",
            LoginProvider::Other => "other",
        };
        let secret = self.client_secret_file.as_ref().map(|path| {
            std::fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(|error| {
                Error::configuration(format!("--client-secret-file {}: it can't be read: {error}", path.display()))
            })
        });
        let tenant = match self.provider {
            LoginProvider::Microsoft => Some(self.tenant.clone().unwrap_or_else(|| "common".to_owned())),
            LoginProvider::Google | LoginProvider::Other => self.tenant.clone(),
        };
        let all = [
            ("provider", Some(provider.to_owned())),
            ("tenant", tenant),
            ("client-id", Some(self.client_id.clone())),
            ("client-secret", secret.transpose()?),
            ("scope", self.scope.clone()),
            ("token-url", self.token_url.clone()),
            ("imap-hosts", self.imap_hosts.clone()),
        ];
        Ok(all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
    }
}

/// Shows something on stdout; a reader that has gone away changes nothing.
fn say(text: &str) {
    drop(io::stdout().lock().write_all(text.as_bytes()));
    drop(io::stdout().lock().flush());
}

async fn by_device(sign_in: &SignIn) -> Result<SecretString> {
    let device = sign_in.device_code().await?;
    let (uri, code) = (printable(&device.verification_uri), printable(&device.user_code));
    say(&format!("Open {uri} and type the code {code}\n"));
    sign_in.wait_for_device(&device).await
}

/// Waits for a browser on this machine, or for the address that one on another machine ended at.
async fn by_browser(sign_in: &SignIn) -> Result<SecretString> {
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.map_err(|error| Error::internal(format!("no port to listen on: {error}")))?;
    let port = listener.local_addr().map_err(|error| Error::internal(format!("no port to listen on: {error}")))?.port();
    let redirect = format!("http://{}:{port}", sign_in.redirect_host());
    let address = sign_in.address(&redirect);
    say(&format!(
        "Open this address and sign in:\n\n{address}\n\nWhere the browser runs on another machine, it ends at an address that \
         begins with {redirect} and shows nothing: paste that here.\n"
    ));
    open_browser(&address);
    let mut pasted = lines_of_stdin();
    let coming = async {
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((socket, _)) = accepted else { continue };
                    // A browser may open connections and say nothing on them.
                    if let Ok(Some(code)) = tokio::time::timeout(BROWSER_LIMIT, serve(socket, sign_in)).await {
                        return code;
                    }
                }
                Some(line) = pasted.recv() => match sign_in.code_in(&line) {
                    Ok(Some(code)) => return Ok(code),
                    Ok(None) => say("That is not the address that this sign-in ends at. Once more:\n"),
                    Err(error) => return Err(error),
                },
            }
        }
    };
    let too_late = || Error::new(ErrorClass::Authentication, "nobody signed in in time").advice("Try again");
    let code = tokio::time::timeout(LIMIT, coming).await.unwrap_or_else(|_| Err(too_late()))?;
    sign_in.exchange(&code, &redirect).await
}

/// What a browser brings; none where it is not what is waited for.
async fn serve(socket: TcpStream, sign_in: &SignIn) -> Option<Result<SecretString>> {
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    (&mut reader).take(MAX_REQUEST).read_line(&mut line).await.ok()?;
    let path = line.strip_prefix("GET ")?.split(' ').next()?.to_owned();
    let found = sign_in.code_in(&path);
    let (status, words) = match &found {
        Ok(Some(_)) => ("200 OK", "You are signed in. This window may be closed."),
        Ok(None) => ("404 Not Found", "There is nothing here."),
        Err(_) => ("200 OK", "The sign-in was refused; the terminal says more."),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{words}",
        words.len()
    );
    let mut socket = reader.into_inner();
    let _ = socket.write_all(answer.as_bytes()).await; // the code is here, whatever the browser shows
    let _ = socket.shutdown().await;
    found.transpose()
}

/// Lines that a person pastes. A thread of its own, since reading from a terminal cannot be ended.
fn lines_of_stdin() -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lines() {
            let Ok(line) = line else { return };
            if send.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receive
}

/// Opens the address where there is a desktop; the person can do it, too.
fn open_browser(address: &str) {
    if ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|variable| std::env::var_os(variable).is_some()) {
        let mut command = Command::new("xdg-open");
        let quiet = command.arg(address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        drop(quiet.spawn());
    }
}

/// Writes the grant as a Secret that nobody else can read.
fn write_grant(
    file: &Path,
    name: &str,
    fields: &BTreeMap<&'static str, String>,
    refresh_token: &SecretString,
) -> Result<()> {
    let mut data = json!(fields);
    data["refresh-token"] = json!(refresh_token.expose_secret());
    let text = yaml::write(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "type": "mailferry.io/oauth-grant", "stringData": data,
    }))?;
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| {
        Error::configuration(format!("the grant can't be written to {}: {error}", file.display()))
            .advice("Name a file by --grant-file that you may write, and sign in again")
    })
}

/// An address as a part of a file's name.
fn plain(address: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._@+-".contains(c) { c } else { '_' };
    address.trim_start_matches('.').chars().take(200).map(plain).collect()
}

/// A Secret's name for an address.
fn secret_name(address: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = address.chars().take(200).map(plain).collect();
    format!("grant-{}", name.trim_matches('-')).trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::local::manifest::grant_name;

    #[test]
    fn a_grant_is_a_secret_that_nobody_else_can_read_and_no_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("alice.grant.yaml");
        let fields = BTreeMap::from([("provider", "google".to_owned()), ("client-id", "app: #1".to_owned())]);
        write_grant(&file, "grant-alice", &fields, &"1//x".to_owned().into()).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(grant_name(&file).unwrap(), "grant-alice");
        let error = write_grant(&file, "grant-alice", &fields, &"1//y".to_owned().into()).unwrap_err();
        assert!(!error.to_string().contains("1//y"));
        assert!(std::fs::read_to_string(&file).unwrap().contains("1//x"));
    }

    #[test]
    fn names_are_plain_whatever_the_address_is() {
        assert_eq!(secret_name("Alice.Doe+1@Acme.example"), "grant-alice-doe-1-acme-example");
        assert_eq!(secret_name("日本"), "grant");
        assert_eq!(plain("../a b@c"), "_a_b@c");
    }
}
