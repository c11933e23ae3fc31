//! TLS: trust, handshake, and what its failures mean.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, InvalidMessage, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use rustls_platform_verifier::Verifier;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::endpoint::{Endpoint, TlsOptions};
use crate::error::{Error, ErrorClass, Result};

/// Configurations by what they trust: loading the system's roots costs milliseconds, and sessions resume only within one.
static CONFIGS: LazyLock<Mutex<HashMap<TrustSettings, Arc<ClientConfig>>>> = LazyLock::new(Mutex::default);

/// More are not kept: an operator sees whatever its users write.
const MAX_CONFIGS: usize = 64;

/// The extra roots, and whether anything is accepted.
type TrustSettings = (Vec<u8>, bool);

/// Performs the handshake on a connected socket.
///
/// # Errors
/// Tls, with what to do about it; Configuration for a CA bundle or server name that cannot be read.
pub(crate) async fn handshake(endpoint: &Endpoint, socket: TcpStream) -> Result<TlsStream<TcpStream>> {
    let name = endpoint.tls.server_name.as_ref().unwrap_or(&endpoint.host);
    let server_name = ServerName::try_from(name.clone())
        .map_err(|_| Error::configuration(format!("{name:?} is neither a host name nor an IP address")))?;
    let connector = TlsConnector::from(config(&endpoint.tls)?);
    connector.connect(server_name, socket).await.map_err(|error| handshake_error(&error, name))
}

fn config(tls: &TlsOptions) -> Result<Arc<ClientConfig>> {
    let key = (tls.ca_bundle.clone(), tls.insecure_skip_verify);
    let mut configs = CONFIGS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(config) = configs.get(&key) {
        return Ok(Arc::clone(config));
    }
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = if tls.insecure_skip_verify {
        Arc::new(AcceptAnyCertificate(Arc::clone(&provider)))
    } else {
        trust(tls, &provider)?
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal(format!("TLS cannot be set up: {e}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let config = Arc::new(config);
    if configs.len() >= MAX_CONFIGS {
        configs.clear();
    }
    configs.insert(key, Arc::clone(&config));
    Ok(config)
}

/// The system's roots and the extra ones; the extra ones alone where the system has none.
fn trust(tls: &TlsOptions, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
    let extra =
        CertificateDer::pem_slice_iter(&tls.ca_bundle).collect::<std::result::Result<Vec<_>, _>>().map_err(|_| {
            Error::configuration("the CA bundle is not PEM").advice("Give one or more BEGIN CERTIFICATE blocks")
        })?;
    if extra.is_empty() && !tls.ca_bundle.is_empty() {
        return Err(Error::configuration("the CA bundle holds no certificate")
            .advice("Give one or more BEGIN CERTIFICATE blocks"));
    }
    match Verifier::new_with_extra_roots(extra.clone(), Arc::clone(provider)) {
        Ok(verifier) => Ok(Arc::new(verifier)),
        Err(error) if extra.is_empty() => Err(Error::new(ErrorClass::Tls, format!("no trusted roots: {error}"))
            .advice("Install the system's ca-certificates, or give tls.caBundle")),
        Err(_) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add_parsable_certificates(extra);
            let verifier =
                rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                    .build()
                    .map_err(|e| Error::configuration(format!("the CA bundle cannot be used: {e}")))?;
            Ok(verifier)
        }
    }
}

/// Turns a failed handshake into what a hosting operator can act on.
fn handshake_error(error: &std::io::Error, name: &str) -> Error {
    let tls = |what: String, advice: &str| Error::new(ErrorClass::Tls, what).advice(advice.to_owned());
    let Some(cause) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) else {
        return if error.kind() == std::io::ErrorKind::UnexpectedEof {
            tls(
                "the server closed the connection during the TLS handshake".into(),
                "Check that this port speaks TLS from the first byte; for port 143 use tls.mode StartTLS",
            )
        } else {
            Error::network(format!("the connection was lost during the TLS handshake: {error}"))
        };
    };
    match cause {
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => tls(
            "this port does not speak TLS from the first byte".into(),
            "Use tls.mode StartTLS for port 143, or port 993",
        ),
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure)
        | rustls::Error::PeerIncompatible(_) => tls(
            format!("the server offers no TLS that is safe today: {cause}"),
            "It needs TLS 1.2 with ECDHE or TLS 1.3; put a TLS proxy (stunnel) beside a server that is too old: \
             docs/servers.md says how",
        ),
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::Expired => {
                tls("the server's certificate has expired".into(), "Renew it, or set tls.insecureSkipVerify knowingly")
            }
            CertificateError::ExpiredContext { not_after, .. } => tls(
                format!("the server's certificate expired on {}", day(*not_after)),
                "Renew it, or set tls.insecureSkipVerify knowingly",
            ),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                tls("the server's certificate is not valid yet".into(), "Check the clocks on both machines")
            }
            CertificateError::NotValidForName => tls(format!("the server's certificate is not for {name}"), OTHER_NAME),
            CertificateError::NotValidForNameContext { presented, .. } => {
                let names = presented.iter().take(5).map(|name| bare(name)).collect::<Vec<_>>().join(", ");
                tls(format!("the server's certificate is not for {name}, but for {names}"), OTHER_NAME)
            }
            CertificateError::UnknownIssuer => tls(
                "the server's certificate comes from an authority that is not trusted here".into(),
                "Give the authority's certificate as tls.caBundle",
            ),
            CertificateError::BadSignature => tls(
                "the server's certificate has a signature that cannot be accepted (too weak, or broken)".into(),
                "Renew it with a key of today's strength, such as RSA 2048 or ECDSA P-256",
            ),
            other => tls(format!("the server's certificate is refused: {other}"), "Renew the certificate"),
        },
        other => tls(format!("the TLS handshake failed: {other}"), "Check the port and the server's TLS settings"),
    }
}

const OTHER_NAME: &str = "Connect by a name that the certificate carries, or give that name as tls.serverName";

/// `DnsName("imap.example")` as rustls prints it, without its wrapping.
fn bare(presented: &str) -> &str {
    presented.split_once('(').map_or(presented, |(_, rest)| rest.trim_end_matches(')').trim_matches('"'))
}

/// A moment as a day, `2021-01-01`.
fn day(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "an unknown day".to_owned(), |t| t.strftime("%F").to_string())
}

/// Accepts any certificate, but no forged handshake.
#[derive(Debug)]
struct AcceptAnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
