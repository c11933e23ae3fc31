//! Signed assertions (JWT, RFC 7519 and 7523) by which a client or a service account shows who it is.
//!
//! They are signed with `ring`, which TLS uses here, too. The crate `jsonwebtoken` would bring a second backend of
//! cryptography (aws-lc or `RustCrypto`), and all that is needed of it is one header, one object and one signature.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// A private RSA key of at least 2048 bits.
pub(super) struct SigningKey(RsaKeyPair);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// How an assertion is signed (RFC 7518, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SigningAlgorithm {
    /// `RSASSA-PKCS1-v1_5` with SHA-256: Google.
    Rs256,
    /// RSASSA-PSS with SHA-256: Microsoft.
    Ps256,
}

impl SigningKey {
    /// Reads a PEM key: PKCS #8 (`BEGIN PRIVATE KEY`) or PKCS #1 (`BEGIN RSA PRIVATE KEY`). `field` names it in errors.
    ///
    /// # Errors
    /// Configuration where it is none that can sign; it holds nothing of the key.
    pub(super) fn from_pem(field: &str, pem: &[u8]) -> Result<Self> {
        let wrong = |what: &str| {
            Error::configuration(format!("{field} {what}")).advice(
                "Give an RSA key of 2048 to 8192 bits without a passphrase, as PEM: -----BEGIN PRIVATE KEY-----",
            )
        };
        if memchr::memmem::find(pem, b"ENCRYPTED").is_some() {
            return Err(wrong("has a passphrase"));
        }
        let key = match PrivateKeyDer::from_pem_slice(pem).map_err(|_| wrong("is no PEM key"))? {
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            _ => return Err(wrong("is no RSA key")),
        };
        key.map(Self).map_err(|rejected| wrong(&format!("cannot be used ({rejected})")))
    }

    /// A signed assertion of these claims; `header` is what its header holds besides `alg` and `typ`.
    ///
    /// # Errors
    /// Internal where there is no randomness.
    pub(super) fn sign(
        &self,
        algorithm: SigningAlgorithm,
        mut header: Value,
        claims: &Value,
    ) -> Result<Zeroizing<String>> {
        let (name, encoding): (_, &'static dyn RsaEncoding) = match algorithm {
            SigningAlgorithm::Rs256 => ("RS256", &RSA_PKCS1_SHA256),
            SigningAlgorithm::Ps256 => ("PS256", &RSA_PSS_SHA256),
        };
        header["alg"] = json!(name);
        header["typ"] = json!("JWT");
        let mut text = Zeroizing::new(format!(
            "{}.{}",
            BASE64URL.encode(header.to_string()),
            BASE64URL.encode(claims.to_string())
        ));
        let mut signature = vec![0; self.0.public().modulus_len()];
        self.0
            .sign(encoding, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_| Error::internal("an assertion cannot be signed"))?;
        text.push('.');
        BASE64URL.encode_string(&signature, &mut text);
        Ok(text)
    }
}

/// The certificate that a client is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientCertificate {
    /// SHA-256 of the certificate, as the header `x5t#S256` has it (RFC 7515, section 4.1.8).
    pub thumbprint: String,
    /// Its last moment.
    pub not_after: jiff::Timestamp,
}

impl ClientCertificate {
    /// Reads a PEM certificate, the first of several. `field` names it in errors.
    ///
    /// # Errors
    /// Configuration where it is none.
    pub(super) fn from_pem(field: &str, pem: &[u8]) -> Result<Self> {
        let wrong = || {
            Error::configuration(format!("{field} is no certificate"))
                .advice("Give the certificate that was uploaded for the app, as PEM: -----BEGIN CERTIFICATE-----")
        };
        let der = CertificateDer::from_pem_slice(pem).map_err(|_| wrong())?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|_| wrong())?;
        let not_after = jiff::Timestamp::from_second(parsed.validity().not_after.timestamp()).map_err(|_| wrong())?;
        Ok(Self { thumbprint: BASE64URL.encode(Sha256::digest(&der)), not_after })
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{
        KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
    };

    use super::*;
    use crate::oauth::testing::{CERTIFICATE, RSA_KEY, RSA_KEY_PKCS1};

    fn parts(jwt: &str) -> (Value, Value, Vec<u8>, String) {
        let (text, signature) = jwt.rsplit_once('.').unwrap();
        let (header, claims) = text.split_once('.').unwrap();
        let json = |part: &str| serde_json::from_slice(&BASE64URL.decode(part).unwrap()).unwrap();
        (json(header), json(claims), BASE64URL.decode(signature).unwrap(), text.to_owned())
    }

    #[test]
    fn an_assertion_carries_its_claims_and_a_signature_that_the_public_key_confirms() {
        let verifiers: [(_, &dyn VerificationAlgorithm, _); 2] = [
            (SigningAlgorithm::Rs256, &RSA_PKCS1_2048_8192_SHA256, "RS256"),
            (SigningAlgorithm::Ps256, &RSA_PSS_2048_8192_SHA256, "PS256"),
        ];
        for pem in [RSA_KEY, RSA_KEY_PKCS1] {
            let key = SigningKey::from_pem("private-key", pem.as_bytes()).unwrap();
            for (algorithm, verifier, name) in verifiers {
                let jwt = key.sign(algorithm, json!({"kid": "7"}), &json!({"sub": "alice@acme.example"})).unwrap();
                let (header, claims, signature, text) = parts(&jwt);
                assert_eq!(header, json!({"alg": name, "typ": "JWT", "kid": "7"}));
                assert_eq!(claims, json!({"sub": "alice@acme.example"}));
                let public = UnparsedPublicKey::new(verifier, key.0.public_key().as_ref());
                public.verify(text.as_bytes(), &signature).unwrap();
                public.verify(format!("{text}x").as_bytes(), &signature).unwrap_err();
            }
        }
    }

    #[test]
    fn what_cannot_sign_is_refused_without_being_shown() {
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let broken = RSA_KEY.replace("MII", "AAA");
        for (pem, why) in [("hush", "no PEM key"), (encrypted, "passphrase"), (&broken, "cannot be used"), ("", "PEM")]
        {
            let error = SigningKey::from_pem("private-key", pem.as_bytes()).unwrap_err();
            assert!(error.what.starts_with("private-key ") && error.what.contains(why), "{error}");
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }

    #[test]
    fn a_certificate_gives_its_thumbprint_and_its_end() {
        let certificate = ClientCertificate::from_pem("certificate", CERTIFICATE.as_bytes()).unwrap();
        // openssl x509 -outform der | sha256sum
        assert_eq!(certificate.thumbprint, crate::oauth::testing::CERTIFICATE_THUMBPRINT);
        assert!(certificate.not_after > "2035-01-01T00:00:00Z".parse().unwrap());
        ClientCertificate::from_pem("certificate", RSA_KEY.as_bytes()).unwrap_err();
    }
}
