//! The certificates of a cluster: one authority for everything, as nobody should have it outside a test.

use std::{fs, net::IpAddr, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Usage, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::pki::TlsIdentity;

/// The authority and what it signed.
pub(super) struct ClusterPki {
    /// The authority's certificate, PEM.
    pub ca: String,
    /// An administrator, who may do everything.
    pub admin: TlsIdentity,
    issuer: Issuer<'static, KeyPair>,
}

impl ClusterPki {
    /// Makes an authority and writes what the API server needs into `folder`.
    pub fn generate(folder: &Path, address: IpAddr) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, "Mailferry test cluster");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        in_date(&mut params);
        let key = KeyPair::generate().expect("key");
        write(folder, "ca.key", &key.serialize_pem());
        let ca = params.self_signed(&key).expect("self-signed certificate").pem();
        write(folder, "ca.crt", &ca);
        let issuer = Issuer::new(params, key);
        let admin = sign(&issuer, ("system:masters", "mailferry-tests"), Usage::ClientAuth, &[]);
        let pki = Self { ca, admin, issuer };

        let service = "kubernetes.default.svc";
        let mut names: Vec<_> = ["localhost", "kubernetes", "kubernetes.default", service].map(name).into();
        names.extend([name("kubernetes.default.svc.cluster.local")]);
        names.extend([address, super::SERVICE_ADDRESS].map(SanType::IpAddress));
        pki.write(folder, "apiserver", ("", "kube-apiserver"), Usage::ServerAuth, &names);
        pki.write(folder, "apiserver-kubelet", ("system:masters", "apiserver-kubelet"), Usage::ClientAuth, &[]);
        let accounts = KeyPair::generate().expect("key");
        write(folder, "service-accounts.key", &accounts.serialize_pem());
        write(folder, "service-accounts.pub", &accounts.public_key_pem());
        pki
    }

    /// Signs a certificate for (group, user) and writes it and its key.
    pub fn write(
        &self,
        folder: &Path,
        file: &str,
        subject: (&str, &str),
        usage: Usage,
        names: &[SanType],
    ) -> TlsIdentity {
        let identity = sign(&self.issuer, subject, usage, names);
        write(folder, &format!("{file}.crt"), &identity.cert);
        write(folder, &format!("{file}.key"), &identity.key);
        identity
    }

    /// Signs a client's certificate for (group, user).
    pub fn client(&self, subject: (&str, &str)) -> TlsIdentity {
        sign(&self.issuer, subject, Usage::ClientAuth, &[])
    }
}

fn sign(
    issuer: &Issuer<'static, KeyPair>,
    (group, user): (&str, &str),
    usage: Usage,
    names: &[SanType],
) -> TlsIdentity {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    if !group.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.distinguished_name.push(DnType::CommonName, user);
    params.subject_alt_names = names.to_vec();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    in_date(&mut params);
    let key = KeyPair::generate().expect("key");
    TlsIdentity { cert: params.signed_by(&key, issuer).expect("certificate").pem(), key: key.serialize_pem() }
}

fn in_date(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2060, 1, 1);
}

/// A DNS name for a certificate.
pub(super) fn name(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("DNS name"))
}

fn write(folder: &Path, file: &str, text: &str) {
    fs::write(folder.join(file), text).expect("write");
}
