//! From nothing to a logged-in [`Session`]: TCP, TLS, greeting, authentication (by async-imap), COMPRESS.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use async_imap::{Authenticator, Client};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use futures::FutureExt;
use secrecy::ExposeSecret;
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout},
};
use zeroize::Zeroizing;

use super::{
    address,
    bearer::{BearerMechanism, refusal_in_challenge, require_checked_tls},
    capability::Capabilities,
    dial::{first_to_answer, in_turn},
    endpoint::{ConnectionSecurity, Endpoint, LoginCredential, MasterLogin},
    hidden_secrets::HiddenSecrets,
    login_stream::LoginStream,
    provider::Provider,
    refusal::{CommandKind, QuotaMeaning, refusal_error, says_imap_is_off},
    response::StatusCondition,
    server_kind::ServerKind,
    session::{ByteCounter, ConnectionFacts, Session},
    tls,
    token_source::LoginToken,
    transport::Transport,
    wire::FramedConnection,
};
use crate::error::{Error, ErrorClass, Result, Side};

/// A connection on which nothing moves is probed after this long, this often, and so many times before it counts as dead.
const PROBE_AFTER: Duration = Duration::from_mins(1);
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;

/// The port of IMAP with TLS from the first byte (RFC 8314).
const TLS_PORT: u16 = 993;

/// Connects and logs in.
///
/// # Errors
/// Of every class that names a reason: Network, Tls, Authentication, Throttled, Configuration, Protocol; with side and
/// host, never with a secret.
pub(crate) async fn connect(endpoint: &Arc<Endpoint>, moved: &ByteCounter) -> Result<Session> {
    // A panic in async-imap's parser ends this connection only.
    match AssertUnwindSafe(Box::pin(establish_with_credential(endpoint, moved))).catch_unwind().await {
        Ok(result) => result,
        Err(_) => Err(Error::protocol("the server's answer could not be read")),
    }
    .map_err(|error| error.on(endpoint.side, endpoint.address()))
}

/// Connected, and protected as the endpoint wants it; nobody is logged in.
pub(super) async fn open_client(
    endpoint: &Endpoint,
    moved: &ByteCounter,
    facts: &mut ConnectionFacts,
) -> Result<(Client<LoginStream>, Capabilities)> {
    let (side, limit) = (endpoint.side, endpoint.timeouts.connect);
    let socket = with_timeout(limit, "connect", dial(endpoint)).await?;
    facts.peer = socket.peer_addr().ok();
    let wire = |io| FramedConnection::new(io, endpoint.timeouts.reply, Arc::clone(moved));
    // Nobody greets in clear on the port for TLS, however long one waits.
    let in_clear = |error: Error| {
        let on_tls_port = endpoint.port == TLS_PORT && error.class == ErrorClass::Network;
        Error { nobody_there: error.nobody_there || on_tls_port, ..error }
    };

    let mut client = match endpoint.tls.mode {
        ConnectionSecurity::Implicit => {
            let stream = with_timeout(limit, "finish the TLS handshake", tls::handshake(endpoint, socket)).await?;
            let lease = LoginStream::new(wire(Transport::Tls(Box::new(stream))));
            with_timeout(limit, "greet", read_greeting(side, lease, facts)).await?
        }
        ConnectionSecurity::None => {
            let lease = LoginStream::new(wire(Transport::Plain(socket)));
            greet_in_clear(side, limit, lease, facts).await.map_err(in_clear)?
        }
        ConnectionSecurity::StartTls => {
            let lease = LoginStream::new(wire(Transport::Plain(socket)));
            let client = greet_in_clear(side, limit, lease, facts).await.map_err(in_clear)?;
            let io = with_timeout(limit, "begin TLS", start_tls(client)).await?;
            let Transport::Plain(socket) = io else {
                return Err(Error::internal("STARTTLS over TLS"));
            };
            let stream = with_timeout(limit, "finish the TLS handshake", tls::handshake(endpoint, socket)).await?;
            Client::new(LoginStream::new(wire(Transport::Tls(Box::new(stream)))))
        }
    };
    record_tls_facts(&client, facts);

    let offered = with_timeout(limit, "tell its capabilities", fetch_capabilities(&mut client)).await?;
    facts.mechanisms = offered.mechanisms().map(str::to_owned).collect();
    client.get_mut().forget_responses();
    Ok((client, offered))
}

/// Connects with the credential as it is now. A grant's token that is refused is renewed at once, where it may be at fault.
async fn establish_with_credential(endpoint: &Arc<Endpoint>, moved: &ByteCounter) -> Result<Session> {
    let LoginCredential::Grant(source) = &endpoint.login.credential else {
        return establish(endpoint, moved, None).await;
    };
    require_checked_tls(endpoint)?;
    let token = source.token(None).await?;
    let refused = match establish(endpoint, moved, Some(&token)).await {
        Err(error) if error.class == ErrorClass::Authentication => error,
        other => return other,
    };
    let next = source.token(Some(&token.token)).await?;
    if next.token.expose_secret() == token.token.expose_secret() {
        return Err(refused);
    }
    tracing::info!(error = %refused, "the token was refused and is renewed");
    establish(endpoint, moved, Some(&next)).await
}

/// Connects and logs in; `granted` is the token of a grant, where it is one that logs in.
async fn establish(endpoint: &Arc<Endpoint>, moved: &ByteCounter, granted: Option<&LoginToken>) -> Result<Session> {
    let limit = endpoint.timeouts.connect;
    let wire = |io| FramedConnection::new(io, endpoint.timeouts.reply, Arc::clone(moved));
    let mut facts = ConnectionFacts::default();
    let (client, offered) = open_client(endpoint, moved, &mut facts).await?;
    let started = Instant::now();
    let mut hidden = HiddenSecrets::default();
    let login = log_in(client, (endpoint, granted, &mut hidden), &offered, &mut facts);
    let mut imap = with_timeout(endpoint.timeouts.reply, "answer the login", login).await?;
    let round_trip = started.elapsed();

    let announced: Option<Capabilities> = imap.as_mut().capabilities().map(|list| list.into_iter().collect());
    let deflate = endpoint.compress && announced.as_ref().is_some_and(|a| a.has("COMPRESS=DEFLATE"));
    let mut lent = if deflate {
        wire(with_timeout(limit, "begin to compress", compress(imap)).await?)
    } else {
        imap.as_mut().take_wire()?
    };
    lent.hide(hidden);
    lent.accept_long_responses();
    // Before, little moves, and what others do must not make a login late.
    lent.set_pace(endpoint.pace.clone());
    let mut session = Session::new(lent, Arc::clone(endpoint), facts, round_trip);
    match announced {
        Some(capabilities) => session.set_capabilities(capabilities),
        None => {
            session.run("CAPABILITY").await?;
        }
    }
    session.introduce();
    Ok(session)
}

/// Compresses both directions from here on (RFC 4978).
async fn compress(session: async_imap::Session<LoginStream>) -> Result<Transport> {
    let mut compressed = None;
    session
        .compress(|mut stream| {
            stream.get_mut().pass_through();
            compressed = Some(stream);
            tokio::io::empty()
        })
        .await
        .map_err(|error| Error::protocol(format!("the server offers COMPRESS and then fails it: {error}")))?;
    let stream = compressed.ok_or_else(|| Error::internal("a compressed stream was not handed over"))?;
    Ok(Transport::Deflate(Box::new(stream)))
}

async fn with_timeout<T>(limit: Duration, what: &str, step: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout(limit, step).await {
        Ok(result) => result,
        Err(_) => Err(Error::network(format!("the server did not {what} within {} s", limit.as_secs_f32()))
            .advice("Check host, port and firewall; raise the timeouts if the server is just slow")),
    }
}

/// Connects to the first address of the host that answers, of those that may be connected to.
async fn dial(endpoint: &Endpoint) -> Result<TcpStream> {
    let name = endpoint.addresses.lookup_name(&endpoint.host);
    let addresses = lookup_host((name.as_str(), endpoint.port))
        .await
        .map_err(|error| lookup_error(&endpoint.host, &error.to_string()))?;
    let (permitted, others): (Vec<_>, Vec<_>) = addresses.partition(|a| endpoint.addresses.permits(a.ip()));
    if permitted.is_empty() && !others.is_empty() {
        return Err(address::forbidden_address_error(&endpoint.host));
    }
    let socket = first_to_answer(in_turn(permitted), TcpStream::connect).await.map_err(|failed| match failed {
        None => {
            Error { nobody_there: true, ..Error::network(format!("the host name {} has no address", endpoint.host)) }
        }
        Some((address, error)) => Error {
            nobody_there: error.kind() == std::io::ErrorKind::ConnectionRefused,
            ..Error::network(format!("no connection to {address}: {error}"))
                .advice("Check host and port, and that the server and firewalls let this machine in")
        },
    })?;
    // Small commands must not wait for a delayed acknowledgement; failure costs speed only.
    let _ = socket.set_nodelay(true);
    keep_watch(&socket, endpoint.timeouts.reply);
    Ok(socket)
}

/// What resolvers say of a name that does not exist, or has no address: glibc, musl, macOS. A resolver that does not answer,
/// or has no answer for now, says something else.
const NO_SUCH_HOST: [&str; 4] = [
    "Name or service not known",
    "No address associated with hostname",
    "Name does not resolve",
    "nodename nor servname provided",
];

fn lookup_error(host: &str, said: &str) -> Error {
    if NO_SUCH_HOST.iter().any(|known| said.contains(known)) {
        let error = Error::network(format!("there is no host {host}"));
        return Error { nobody_there: true, ..error.advice("Check how the host is spelled") };
    }
    Error::network(format!("the host name {host} cannot be resolved: {said}"))
        .advice("Check DNS, and how the host is spelled")
}

/// Lets the system find out when the other end is gone: silence alone does not mean that. Twice the reply timeout, since
/// Linux counts a server that does not read for now as well. Failure costs time only.
fn keep_watch(socket: &TcpStream, reply: Duration) {
    let socket = socket2::SockRef::from(socket);
    let probes = socket2::TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_INTERVAL).with_retries(PROBES);
    let _ = socket.set_tcp_keepalive(&probes);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(reply * 2));
    #[cfg(not(target_os = "linux"))]
    let _ = reply;
}

/// A port that speaks TLS from the first byte says nothing: it waits for the handshake.
async fn greet_in_clear(
    side: Side,
    limit: Duration,
    lease: LoginStream,
    facts: &mut ConnectionFacts,
) -> Result<Client<LoginStream>> {
    match timeout(limit, read_greeting(side, lease, facts)).await {
        Ok(greeted) => greeted,
        Err(_) => Err(Error::network(format!("the server did not greet within {} s", limit.as_secs_f32())).advice(
            "If this port speaks TLS from the first byte (993 does), set tls.mode Implicit; else raise the timeouts",
        )),
    }
}

async fn read_greeting(side: Side, lease: LoginStream, facts: &mut ConnectionFacts) -> Result<Client<LoginStream>> {
    let mut client = Client::new(lease);
    let answer = client.read_response().await;
    let lease = client.get_mut();
    if let Err(error) = answer {
        return Err(lease.take_failure().unwrap_or_else(|| Error::protocol(format!("no greeting: {error}"))));
    }
    let greeting = lease.greeting().ok_or_else(|| Error::protocol("the server did not greet as IMAP does"))?;
    match greeting.status {
        StatusCondition::Ok => {
            facts.greeting.clone_from(&greeting.text);
            Ok(client)
        }
        StatusCondition::PreAuth => Err(Error::protocol("the server says that it knows us already (PREAUTH)")
            .advice("Mailferry must log in as the mailbox's user; use another port")),
        _ => {
            facts.goodbye = Some(greeting.clone());
            Err(refusal_error(
                QuotaMeaning::on(side, ServerKind::Generic),
                greeting,
                CommandKind::Other,
                "the connection",
            ))
        }
    }
}

async fn start_tls(mut client: Client<LoginStream>) -> Result<Transport> {
    let outcome = client.run_command_and_check_ok("STARTTLS", None).await;
    if let Err(error) = outcome {
        let failure = client.get_mut().take_failure();
        return Err(failure.unwrap_or_else(|| {
            Error::new(ErrorClass::Tls, format!("the server offers no STARTTLS: {error}"))
                .advice("Use tls.mode Implicit with port 993")
        }));
    }
    client.into_inner().take_wire()?.into_transport()
}

fn record_tls_facts(client: &Client<LoginStream>, facts: &mut ConnectionFacts) {
    if let Some(tls) = client.get_ref().transport().and_then(Transport::tls) {
        facts.tls_version = tls.protocol_version().and_then(|v| v.as_str().map(str::to_owned));
        facts.certificate = tls.peer_certificates().and_then(|c| c.first()).map(|c| c.to_vec());
    }
}

async fn fetch_capabilities(client: &mut Client<LoginStream>) -> Result<Capabilities> {
    if client.get_ref().capabilities().is_none() {
        let outcome = client.run_command_and_check_ok("CAPABILITY", None).await;
        if let Err(error) = outcome {
            let failure = client.get_mut().take_failure();
            return Err(failure.unwrap_or_else(|| Error::protocol(format!("CAPABILITY failed: {error}"))));
        }
    }
    Ok(client.get_ref().capabilities().unwrap_or_default().into_iter().collect())
}

/// Answers one challenge with the initial response, and any further one (the report on a refused token) with what the
/// mechanism wants there.
struct InitialResponse(Option<Zeroizing<Vec<u8>>>, &'static [u8]);

impl Authenticator for InitialResponse {
    type Response = Vec<u8>;

    fn process(&mut self, _challenge: &[u8]) -> Vec<u8> {
        self.0.take().map_or_else(|| self.1.to_vec(), |response| response.to_vec())
    }
}

/// Answers the LOGIN mechanism's questions: for the name, then for the password. It never was standardized, and servers
/// word the questions differently: their order counts.
struct NameThenPassword(Option<Zeroizing<Vec<u8>>>, Option<Zeroizing<Vec<u8>>>);

impl Authenticator for NameThenPassword {
    type Response = Vec<u8>;

    fn process(&mut self, _challenge: &[u8]) -> Vec<u8> {
        self.0.take().or_else(|| self.1.take()).map(|response| response.to_vec()).unwrap_or_default()
    }
}

/// What to log in with, decided from the credential and what is offered.
enum LoginMethod {
    /// AUTHENTICATE with this mechanism and initial response; `then` goes to a challenge behind it.
    Sasl { mechanism: &'static str, response: Zeroizing<Vec<u8>>, then: &'static [u8] },
    /// LOGIN with this name and password.
    Login { username: String, password: Zeroizing<String> },
    /// AUTHENTICATE LOGIN with this name and password.
    SaslLogin { username: Zeroizing<Vec<u8>>, password: Zeroizing<Vec<u8>> },
}

fn choose_login_method(endpoint: &Endpoint, offered: &Capabilities, secret: &[u8]) -> Result<LoginMethod> {
    let login = &endpoint.login;
    let name = match &login.master {
        Some(MasterLogin::Suffix { username, separator }) => format!("{}{separator}{username}", login.username),
        _ => login.username.clone(),
    };
    // It would end the name, and what stands behind it would be read as something else (RFC 4616; XOAUTH2 by U+0001).
    let master = match &login.master {
        Some(MasterLogin::AuthorizationIdentity { username }) => username.as_str(),
        _ => "",
    };
    if [&name, master].iter().any(|name| name.contains(char::is_control)) {
        return Err(Error::configuration("the user name holds a control character, which no login can carry")
            .advice("Correct the user name: a tab or a line break may have come along from a table"));
    }
    if login.credential.is_token() {
        let mechanism = BearerMechanism::choose(offered);
        let response = mechanism.initial_response(endpoint, &name, secret.trim_ascii());
        return Ok(LoginMethod::Sasl { mechanism: mechanism.name(), response, then: mechanism.reply_to_refusal() });
    }
    let password = secret;
    if password.contains(&0) {
        return Err(Error::configuration("the password holds a NUL byte, which IMAP cannot send"));
    }
    let authorize_as = match &login.master {
        Some(MasterLogin::AuthorizationIdentity { username }) => Some((login.username.as_str(), username.as_str())),
        _ => None,
    };
    let plain = offered.has("AUTH=PLAIN");
    if plain || authorize_as.is_some() {
        let (authorize, authenticate) = authorize_as.unwrap_or(("", name.as_str()));
        let mut response = Zeroizing::new(format!("{authorize}\0{authenticate}\0").into_bytes());
        response.extend_from_slice(password);
        return Ok(LoginMethod::Sasl { mechanism: "PLAIN", response, then: b"" });
    }
    let unsayable = std::str::from_utf8(password).map_or(true, |password| password.contains(['\r', '\n']));
    if offered.has("AUTH=LOGIN") && (unsayable || offered.has("LOGINDISABLED")) {
        return Ok(LoginMethod::SaslLogin {
            username: Zeroizing::new(name.into_bytes()),
            password: Zeroizing::new(password.to_vec()),
        });
    }
    if offered.has("LOGINDISABLED") && ["AUTH=NTLM", "AUTH=GSSAPI"].iter().any(|windows| offered.has(windows)) {
        return Err(Error::configuration(
            "the server lets in by NTLM or Kerberos only, which Mailferry does not speak",
        )
        .advice(
            "Allow passwords over TLS on the server (Exchange: Set-ImapSettings -LoginType SecureLogin), or put \
                 DavMail in front of an Exchange server and name that as the host; docs/servers.md says how",
        ));
    }
    if offered.has("LOGINDISABLED") {
        return Err(Error::configuration("the server allows no password on this connection")
            .advice("Set tls.mode Implicit or StartTLS"));
    }
    let password = std::str::from_utf8(password).map_err(|_| {
        Error::configuration("the password is not UTF-8 and the server offers only LOGIN, which cannot carry it")
            .advice("Change the password, or enable AUTH=PLAIN on the server")
    })?;
    if password.contains(['\r', '\n']) {
        return Err(Error::configuration(
            "the password holds a line break and the server offers only LOGIN, which cannot carry it",
        ));
    }
    Ok(LoginMethod::Login { username: name, password: Zeroizing::new(password.to_owned()) })
}

/// The password or access token as it is now: files are read at each login.
async fn read_secret(credential: &LoginCredential) -> Result<Zeroizing<Vec<u8>>> {
    let (what, path) = match credential {
        LoginCredential::Password(secret) | LoginCredential::Token(secret) => {
            return Ok(Zeroizing::new(secret.expose_secret().to_vec()));
        }
        LoginCredential::PasswordFile(path) => ("password", path),
        LoginCredential::TokenFile(path) => ("token", path),
        LoginCredential::Grant(_) => return Err(Error::internal("a grant's token is asked for before the login")),
    };
    match tokio::fs::read(path).await {
        Ok(bytes) if bytes.is_empty() => {
            Err(Error::configuration(format!("the {what} file {} is empty", path.display())))
        }
        Ok(bytes) => Ok(Zeroizing::new(bytes)),
        Err(error) => Err(Error::configuration(format!("the {what} file {} cannot be read: {error}", path.display()))),
    }
}

async fn log_in(
    mut client: Client<LoginStream>,
    (endpoint, granted, hidden): (&Endpoint, Option<&LoginToken>, &mut HiddenSecrets),
    offered: &Capabilities,
    facts: &mut ConnectionFacts,
) -> Result<async_imap::Session<LoginStream>> {
    let secret = match granted {
        Some(granted) => Zeroizing::new(granted.token.expose_secret().as_bytes().to_vec()),
        None => read_secret(&endpoint.login.credential).await?,
    };
    let method = choose_login_method(endpoint, offered, &secret)?;
    facts.token_origin = granted.map(|granted| granted.origin.clone());
    *hidden = match &method {
        LoginMethod::Sasl { response, .. } => HiddenSecrets::new(&[&secret, response]),
        LoginMethod::Login { .. } | LoginMethod::SaslLogin { .. } => HiddenSecrets::new(&[&secret]),
    };
    client.get_mut().hide(hidden.clone());
    let outcome = match method {
        LoginMethod::Sasl { mechanism, response, then } => {
            mechanism.clone_into(&mut facts.login);
            if offered.has("SASL-IR") {
                let encoded = Zeroizing::new(format!("{mechanism} {}", BASE64.encode(&*response)));
                client.authenticate(encoded.as_str(), InitialResponse(None, then)).await
            } else {
                client.authenticate(mechanism, InitialResponse(Some(response), then)).await
            }
        }
        LoginMethod::SaslLogin { username, password } => {
            "AUTHENTICATE LOGIN".clone_into(&mut facts.login);
            client.authenticate("LOGIN", NameThenPassword(Some(username), Some(password))).await
        }
        LoginMethod::Login { username, password } => {
            "LOGIN".clone_into(&mut facts.login);
            client.login(&username, password.as_str()).await
        }
    };
    let provider = facts.provider(endpoint);
    outcome.map_err(|(_, mut client)| login_error(client.get_mut(), endpoint, granted, provider))
}

/// Why a login failed, as far as the server says.
fn login_error(
    lease: &mut LoginStream,
    endpoint: &Endpoint,
    granted: Option<&LoginToken>,
    provider: Option<&Provider>,
) -> Error {
    let quota = QuotaMeaning::on(endpoint.side, endpoint.known_kind());
    match (lease.take_failure(), lease.last_status()) {
        // A server that hangs up says why before.
        (Some(_), Some(line)) if line.status == StatusCondition::Bye => {
            refusal_error(quota, line, CommandKind::Login, "the login")
        }
        (Some(failure), _) => failure,
        // async-imap's own error text may quote what was sent; the server's line says more.
        (None, Some(line)) => {
            let name = &endpoint.login.username;
            let mut error = refusal_error(quota, line, CommandKind::Login, &format!("the login of {name}"));
            let challenge = lease.last_challenge().filter(|_| endpoint.login.credential.is_token());
            if let Some(said) = challenge.and_then(refusal_in_challenge) {
                error.what = format!("{} ({said})", error.what);
            }
            let error = if says_imap_is_off(line) { error } else { advise(error, endpoint, granted) };
            add_provider_advice(error, endpoint, provider)
        }
        (None, None) => Error::network("the connection ended during the login"),
    }
}

/// Adds what the provider wants of who logs in with a password, and where it says so.
fn add_provider_advice(error: Error, endpoint: &Endpoint, provider: Option<&Provider>) -> Error {
    let by_password =
        matches!(endpoint.login.credential, LoginCredential::Password(_) | LoginCredential::PasswordFile(_));
    let is_refused = matches!(error.class, ErrorClass::Authentication | ErrorClass::Authorization);
    match provider.filter(|_| by_password && is_refused) {
        Some(provider) => {
            let before = error.advice.clone().map_or_else(String::new, |advice| format!("{advice}. "));
            error.advice(format!("{before}{}", provider.login_advice()))
        }
        None => error,
    }
}

/// What to do about a refused login, as far as side and login tell.
fn advise(error: Error, endpoint: &Endpoint, granted: Option<&LoginToken>) -> Error {
    if !matches!(error.class, ErrorClass::Authentication | ErrorClass::Authorization) {
        return error;
    }
    let name = &endpoint.login.username;
    let exists = match endpoint.side {
        Side::Source => String::new(),
        Side::Destination => format!("Mailferry creates no accounts: make sure that {name} exists there. "),
    };
    if let Some(granted) = granted {
        return error.advice(format!("{exists}{}", granted.refused_advice));
    }
    match &endpoint.login.master {
        Some(MasterLogin::AuthorizationIdentity { username } | MasterLogin::Suffix { username, .. }) => error.advice(format!(
            "{exists}Check the password of the master user {username}, that it may log in for {name}, and masterUser.mode"
        )),
        None if endpoint.side == Side::Destination => {
            error.advice(format!("{exists}Then check the password (or token) in the Secret"))
        }
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_does_not_exist_is_told_from_a_resolver_that_does_not_answer() {
        let of = |said: &str| lookup_error("imap.exmaple", &format!("failed to lookup address information: {said}"));
        let missing = of("Name or service not known");
        assert_eq!(missing.to_string(), "Network: there is no host imap.exmaple. Check how the host is spelled");
        assert!(missing.nobody_there && of("Name does not resolve").nobody_there);
        assert!(!of("Temporary failure in name resolution").nobody_there && !of("Try again").nobody_there);
    }
}
