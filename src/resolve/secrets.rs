//! Where secrets come from, and what is said of one that is missing or wrong. Never a value.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use secrecy::{ExposeSecret as _, SecretBox};

use crate::{
    api::{CredentialRef, SecretKeyRef, SyncEndpoint},
    error::{Error, Result, Side},
    imap::LoginCredential,
    oauth::{GrantForm, TokenCache},
};

/// Gives the values of Secrets: from files in a pod, from manifests on this machine, from the API server.
pub(crate) trait SecretProvider {
    /// The bytes of a secret, exactly as they are stored.
    fn value(&self, secret: &SecretKeyRef) -> Result<SecretBox<[u8]>, SecretError>;

    /// The file that holds a secret and may get a new value later, if there is one.
    fn file(&self, secret: &SecretKeyRef) -> Option<PathBuf>;

    /// The same for a password, where the file holds it byte by byte.
    fn password_file(&self, _: &SecretKeyRef) -> Option<PathBuf> {
        None
    }

    /// The Secret of a grant, by its name.
    ///
    /// # Errors
    /// Configuration where there is none, or it is another kind of Secret.
    fn grant(&self, _: &str) -> Result<GrantSecret> {
        Err(Error::configuration("grantSecretRef is not known here").advice("Use passwordSecretRef or tokenSecretRef"))
    }

    /// The access tokens of one side, which an operator gets; none where no operator is.
    fn operator_tokens(&self, _: Side) -> Option<LoginCredential> {
        None
    }

    /// What a person can do when this secret is missing, as a clause without a trailing dot.
    fn how_to_provide(&self, secret: &SecretKeyRef) -> String;
}

/// A grant as it is stored, and where its tokens are kept.
pub(crate) struct GrantSecret {
    /// What kind of grant the Secret's type says that it is.
    pub form: GrantForm,
    /// All that it holds.
    pub fields: BTreeMap<String, SecretBox<[u8]>>,
    /// Where its tokens are kept.
    pub tokens: Arc<TokenCache>,
}

/// Why a secret has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretError {
    /// There is no Secret of this name.
    NoSecret,
    /// The Secret has no such key, but these.
    NoKey(Vec<String>),
    /// The Secret is there, but can't be read: why.
    Unreadable(String),
}

/// A password or token, as a login can send it. `field` names the reference in errors.
pub(super) fn read_credential(
    reference: &SecretKeyRef,
    field: &str,
    secrets: &dyn SecretProvider,
) -> Result<Box<[u8]>> {
    let value = read(reference, field, secrets)?;
    let bytes = value.expose_secret();
    let wrong = |what: &str| {
        let what = format!("Secret {} key {} ({field}) {what}", reference.name, reference.key);
        Error::configuration(what).advice("Write the password or token itself as the key's value")
    };
    if bytes.is_empty() {
        return Err(wrong("is empty"));
    }
    if bytes.contains(&0) {
        return Err(wrong("contains a NUL byte, which no IMAP login can send"));
    }
    Ok(bytes.into())
}

/// A warning where the password that logs in at a side ends with a line end: it is sent as it is stored, and few have one. Of a
/// token, white space around it is never sent.
pub(super) fn line_end_warning(side: Side, endpoint: &SyncEndpoint, secrets: &dyn SecretProvider) -> Option<String> {
    let reference = match (endpoint.account.credential(), &endpoint.master_user) {
        (Some(CredentialRef::Password(own)), _) => own,
        (Some(CredentialRef::Token(_) | CredentialRef::Grant(_)), _) | (None, None) => return None,
        (None, Some(master)) => &master.password_secret_ref,
    };
    let value = secrets.value(reference).ok()?;
    value.expose_secret().ends_with(b"\n").then(|| {
        let SecretKeyRef { name, key } = reference;
        format!(
            "the password at the {side} (Secret {name} key {key}) ends with a line end, which is sent as a part of it. If it is \
             none, store the password without it, as printf %s and kubectl's --from-literal do"
        )
    })
}

/// The bytes of a secret. `field` names the reference in errors.
pub(super) fn read(reference: &SecretKeyRef, field: &str, secrets: &dyn SecretProvider) -> Result<SecretBox<[u8]>> {
    secrets.value(reference).map_err(|missing| {
        let SecretKeyRef { name, key } = reference;
        let how = secrets.how_to_provide(reference);
        match missing {
            SecretError::NoSecret => {
                Error::configuration(format!("there is no Secret {name} (key {key}, {field})")).advice(how)
            }
            SecretError::NoKey(present) => {
                let has = if present.is_empty() { "none".to_owned() } else { present.join(", ") };
                Error::configuration(format!("Secret {name} has no key {key} ({field}); its keys: {has}")).advice(how)
            }
            SecretError::Unreadable(why) => {
                Error::configuration(format!("Secret {name} key {key} ({field}) can't be read: {why}")).advice(how)
            }
        }
    })
}
