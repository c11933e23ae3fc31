//! One side as the engine connects to it: the server, its TLS, and the login.

use secrecy::ExposeSecret as _;

use super::{
    grant_login::grant_credential,
    secrets::{SecretProvider, read, read_credential},
};
use crate::{
    api::{self, MailServerSpec, MasterUser, SecretKeyRef, SyncEndpoint},
    error::{Error, Result, Side},
    imap::{
        AccountLogin, AddressPolicy, ConnectionSecurity, ConnectionTimeouts, Endpoint, LoginCredential, MasterLogin,
        OpenedMark, ServerKind, TlsOptions,
        provider::{Provider, ProviderChoice, ProviderName},
    },
};

/// One side of a mailbox, with its secrets.
pub(super) fn endpoint(
    side: Side,
    sync: &SyncEndpoint,
    timeouts: &api::Timeouts,
    secrets: &dyn SecretProvider,
) -> Result<Endpoint> {
    let mut endpoint = server_endpoint(side, &sync.server, timeouts, secrets)?;
    endpoint.login = login(side, sync, secrets).map_err(|error| error.on(side, endpoint.address()))?;
    Ok(endpoint)
}

/// A server by itself, with an empty login: enough to connect to it and look at what it says before one.
pub(crate) fn server_endpoint(
    side: Side,
    server: &MailServerSpec,
    timeouts: &api::Timeouts,
    secrets: &dyn SecretProvider,
) -> Result<Endpoint> {
    let port = u16::try_from(server.effective_port())
        .map_err(|_| Error::configuration("port must be from 1 to 65535").on(side, &server.host))?;
    let mut endpoint = Endpoint {
        side,
        host: server.host.clone(),
        port,
        tls: TlsOptions::default(),
        login: AccountLogin { username: String::new(), master: None, credential: LoginCredential::password([]) },
        timeouts: ConnectionTimeouts {
            connect: timeouts.connect.as_std(),
            reply: timeouts.reply.as_std(),
            keepalive: timeouts.keepalive.as_std(),
        },
        quirks: match server.quirks {
            api::Quirks::Generic => ServerKind::Generic,
            api::Quirks::Gmail => ServerKind::Gmail,
            api::Quirks::Exchange => ServerKind::Exchange,
            api::Quirks::Cyrus => ServerKind::Cyrus,
            api::Quirks::Courier => ServerKind::Courier,
            api::Quirks::Dovecot => ServerKind::Dovecot,
        },
        provider: provider(server.provider),
        compress: server.compress,
        addresses: AddressPolicy::default(),
        opened: OpenedMark::default(),
        pace: None,
    };
    endpoint.tls = tls(&server.tls, secrets).map_err(|error| error.on(side, endpoint.address()))?;
    Ok(endpoint)
}

/// Whom a server belongs to, as the manifest says.
const fn provider(provider: api::MailProvider) -> ProviderChoice {
    use ProviderChoice::Named;
    match provider {
        api::MailProvider::Auto => ProviderChoice::FoundOut,
        api::MailProvider::None => ProviderChoice::Unknown,
        api::MailProvider::Aol => Named(ProviderName::Aol),
        api::MailProvider::Domino => Named(ProviderName::Domino),
        api::MailProvider::Fastmail => Named(ProviderName::Fastmail),
        api::MailProvider::Gmail => Named(ProviderName::Gmail),
        api::MailProvider::Gmx => Named(ProviderName::Gmx),
        api::MailProvider::HMailServer => Named(ProviderName::HMailServer),
        api::MailProvider::ICloud => Named(ProviderName::ICloud),
        api::MailProvider::Kerio => Named(ProviderName::Kerio),
        api::MailProvider::Microsoft => Named(ProviderName::Microsoft),
        api::MailProvider::NetEase => Named(ProviderName::NetEase),
        api::MailProvider::WebDe => Named(ProviderName::WebDe),
        api::MailProvider::Yahoo => Named(ProviderName::Yahoo),
        api::MailProvider::Zimbra => Named(ProviderName::Zimbra),
        api::MailProvider::Zoho => Named(ProviderName::Zoho),
    }
}

/// The most connections that one account may have at the provider of its server; none where that is not known.
pub(super) fn provider_connections(server: &MailServerSpec) -> Option<i32> {
    let known = Provider::find(provider(server.provider), &server.host, "")?.connections?;
    i32::try_from(known).ok()
}

fn tls(tls: &api::Tls, secrets: &dyn SecretProvider) -> Result<TlsOptions> {
    let ca_bundle = match (&tls.ca_bundle, &tls.ca_bundle_ref) {
        (Some(_), Some(_)) => return Err(Error::configuration(api::cel_rules::ONE_CA.message)),
        (Some(pem), None) => pem.as_bytes().to_vec(),
        (None, Some(reference)) => {
            let pem = read(reference, "tls.caBundleRef", secrets)?.expose_secret().to_vec();
            if memchr::memmem::find(&pem, b"-----BEGIN CERTIFICATE-----").is_none() {
                let what = format!("Secret {} key {} holds no certificate", reference.name, reference.key);
                return Err(Error::configuration(what).advice(api::cel_rules::PEM.message));
            }
            pem
        }
        (None, None) => Vec::new(),
    };
    Ok(TlsOptions {
        mode: match tls.mode {
            api::TlsMode::Implicit => ConnectionSecurity::Implicit,
            api::TlsMode::StartTls => ConnectionSecurity::StartTls,
            api::TlsMode::None => ConnectionSecurity::None,
        },
        server_name: tls.server_name.clone(),
        ca_bundle,
        insecure_skip_verify: tls.insecure_skip_verify,
    })
}

fn login(side: Side, sync: &SyncEndpoint, secrets: &dyn SecretProvider) -> Result<AccountLogin> {
    let username = sync.account.username.clone().unwrap_or_default();
    check_text(&username, &format!("{side}.username"))?;
    let (credential, master) = match (sync.account.credential(), &sync.master_user, &sync.grant_ref) {
        (Some(own), ..) => (credential(side, own, (&sync.server.host, &username), secrets)?, None),
        (None, Some(master), _) => {
            check_text(&master.username, &format!("{side}.masterUser.username"))?;
            let field = format!("{side}.masterUser.passwordSecretRef");
            let username = master.username.clone();
            let master_login = match master.mode {
                api::common::MasterMode::AuthorizationIdentity => MasterLogin::AuthorizationIdentity { username },
                api::common::MasterMode::Suffix => {
                    let separator =
                        master.separator.clone().unwrap_or_else(|| MasterUser::DEFAULT_SEPARATOR.to_owned());
                    MasterLogin::Suffix { username, separator }
                }
            };
            (password(&master.password_secret_ref, &field, secrets)?, Some(master_login))
        }
        (None, None, Some(grant)) => {
            let missing = || {
                let what = format!(
                    "{side}.grantRef names the grant {} of an operator's configuration, and there is none",
                    grant.name
                );
                Error::configuration(what).advice(
                    "Run the migration in a cluster whose operator has this grant, or give each mailbox its own credential",
                )
            };
            (secrets.operator_tokens(side).ok_or_else(missing)?, None)
        }
        (None, None, None) => return Err(Error::configuration(api::cel_rules::SYNC_CREDENTIAL.message)),
    };
    Ok(AccountLogin { username, master, credential })
}

fn credential(
    side: Side,
    own: api::CredentialRef<'_>,
    account: (&str, &str),
    secrets: &dyn SecretProvider,
) -> Result<LoginCredential> {
    match own {
        api::CredentialRef::Password(reference) => password(reference, &format!("{side}.passwordSecretRef"), secrets),
        api::CredentialRef::Token(reference) => {
            if let Some(path) = secrets.file(reference) {
                Ok(LoginCredential::TokenFile(path))
            } else {
                let token = read_credential(reference, &format!("{side}.tokenSecretRef"), secrets)?;
                Ok(LoginCredential::token(token))
            }
        }
        api::CredentialRef::Grant(reference) => match secrets.operator_tokens(side) {
            Some(tokens) => Ok(tokens),
            None => grant_credential(reference, &format!("{side}.grantSecretRef"), account, secrets),
        },
    }
}

/// A password; that it is there is found out now, even where it is read again later.
fn password(reference: &SecretKeyRef, field: &str, secrets: &dyn SecretProvider) -> Result<LoginCredential> {
    let now = read_credential(reference, field, secrets)?;
    Ok(secrets.password_file(reference).map_or_else(|| LoginCredential::password(now), LoginCredential::PasswordFile))
}

fn check_text(text: &str, field: &str) -> Result<()> {
    if text.is_empty() {
        return Err(Error::configuration(format!("{field} is empty")));
    }
    if text.contains(['\0', '\r', '\n']) {
        return Err(Error::configuration(format!("{field} contains a line break or a NUL byte")));
    }
    Ok(())
}
