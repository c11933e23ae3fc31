//! A certificate authority of the test run's own, and the certificates, good and bad, that the servers show.

use std::sync::{Arc, OnceLock};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::cluster::node;

/// A certificate and its key, both PEM.
#[derive(Debug, Clone)]
pub struct TlsIdentity {
    /// The certificate, PEM.
    pub cert: String,
    /// The private key, PEM (PKCS #8).
    pub key: String,
}

/// The authority and what it signed.
#[derive(Debug)]
pub struct TestPki {
    /// The authority's certificate, PEM: what a client must trust.
    pub ca: String,
    /// For `localhost`, `127.0.0.1`, `::1` and this machine as a node's pods reach it.
    pub good: TlsIdentity,
    /// The same names, out of date since 2021.
    pub expired: TlsIdentity,
    /// In date, for `elsewhere.example` only.
    pub wrong_name: TlsIdentity,
}

/// The one authority of this process, made on first use.
pub fn pki() -> &'static TestPki {
    static PKI: OnceLock<TestPki> = OnceLock::new();
    PKI.get_or_init(TestPki::generate)
}

impl TestPki {
    fn generate() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, "Mailferry test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2060, 1, 1);
        let key = KeyPair::generate().expect("key");
        let ca = params.self_signed(&key).expect("self-signed certificate").pem();
        let issuer = Issuer::new(params, key);
        let sign = |names: &[&str], until: i32| {
            let mut params =
                CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).expect("names");
            params.distinguished_name.push(DnType::CommonName, names[0]);
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(until, 1, 1);
            let key = KeyPair::generate().expect("key");
            TlsIdentity { cert: params.signed_by(&key, &issuer).expect("certificate").pem(), key: key.serialize_pem() }
        };
        let node = node::ADDRESS.to_string();
        let here = ["localhost", "127.0.0.1", "::1", &node];
        Self { good: sign(&here, 2059), expired: sign(&here, 2021), wrong_name: sign(&["elsewhere.example"], 2059), ca }
    }

    /// A client's settings that trust this authority and nothing else.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes()).expect("CA PEM")).expect("CA");
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

impl TlsIdentity {
    /// A server's settings that show this certificate.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(self.cert.as_bytes()).expect("certificate PEM")],
                PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("key PEM"),
            )
            .expect("certificate and key");
        Arc::new(config)
    }
}
