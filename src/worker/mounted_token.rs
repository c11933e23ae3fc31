//! The access token that the operator writes for this mailbox: a mounted file, read at each login. One that a server refuses
//! is reported, and another one is waited for.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use crate::{
    api::names,
    error::{Error, Result, Side},
    imap::{LoginToken, TokenSource},
    sync::progress::SyncProgress,
};

/// How long another token is waited for: kubelet looks for a new one within a minute or two, whatever happens.
const PATIENCE: Duration = Duration::from_mins(5);
/// How often the file is looked at meanwhile.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// The tokens that servers refused, as hashes by side, while others are waited for.
#[derive(Debug, Default)]
pub(crate) struct TokenRefusals(Mutex<BTreeMap<Side, String>>);

impl TokenRefusals {
    fn refused(&self) -> MutexGuard<'_, BTreeMap<Side, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that are refused now.
    #[must_use]
    pub(crate) fn current(&self) -> BTreeMap<Side, String> {
        self.refused().clone()
    }
}

/// A side's token.
#[derive(Clone)]
pub(crate) struct MountedToken {
    /// The file.
    pub path: PathBuf,
    /// Whose login it is for.
    pub side: Side,
    /// Where a refusal is told.
    pub refusals: Arc<TokenRefusals>,
    /// Where a wait is told.
    pub progress: Arc<SyncProgress>,
}

impl fmt::Debug for MountedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountedToken").field("path", &self.path).finish_non_exhaustive()
    }
}

impl TokenSource for MountedToken {
    fn token(&self, refused: Option<&SecretString>) -> BoxFuture<'static, Result<LoginToken>> {
        let (this, refused) = (self.clone(), refused.cloned());
        Box::pin(async move {
            let token = read(&this.path).await?;
            let token = match refused {
                Some(refused) if refused.expose_secret() == token.expose_secret() => {
                    this.wait_for_another(refused).await?
                }
                _ => token,
            };
            Ok(LoginToken {
                token,
                origin: "the operator's grant".to_owned(),
                refused_advice:
                    "The operator got it by its grant: check that the grant may open this mailbox, and that \
                                 IMAP is switched on for it"
                        .to_owned(),
            })
        })
    }
}

impl MountedToken {
    /// Gives another token than the refused one as soon as the file holds it, else the same.
    async fn wait_for_another(&self, refused: SecretString) -> Result<SecretString> {
        tracing::warn!(side = %self.side, "the access token was refused; another one is waited for");
        let told = ToldRefusal::tell(self, &refused);
        let _wait =
            self.progress.begin_wait("an access token was refused; the operator gets another one".to_owned(), PATIENCE);
        let until = Instant::now() + PATIENCE;
        let mut token = refused.clone();
        while Instant::now() < until && token.expose_secret() == refused.expose_secret() {
            sleep(LOOK_PERIOD).await;
            token = read(&self.path).await?;
        }
        drop(told);
        Ok(token)
    }
}

/// A refusal that is told until this is dropped.
struct ToldRefusal<'a>(&'a MountedToken);

impl<'a> ToldRefusal<'a> {
    fn tell(token: &'a MountedToken, refused: &SecretString) -> Self {
        token.refusals.refused().insert(token.side, names::token_hash(refused.expose_secret()));
        Self(token)
    }
}

impl Drop for ToldRefusal<'_> {
    fn drop(&mut self) {
        self.0.refusals.refused().remove(&self.0.side);
    }
}

/// The token that the file holds now.
async fn read(path: &Path) -> Result<SecretString> {
    let missing = || {
        Error::network("the access token is not there yet")
            .advice("The operator writes it; another attempt looks again")
    };
    let bytes = Zeroizing::new(tokio::fs::read(path).await.map_err(|_| missing())?);
    let text = std::str::from_utf8(bytes.trim_ascii()).map_err(|_| Error::internal("the access token is no text"))?;
    if text.is_empty() { Err(missing()) } else { Ok(SecretString::from(text)) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::error::ErrorClass;

    fn mounted(folder: &tempfile::TempDir) -> MountedToken {
        let path = folder.path().join("source");
        fs::write(&path, "one\n").unwrap();
        MountedToken { path, side: Side::Source, refusals: Arc::default(), progress: Arc::default() }
    }

    async fn given(token: &MountedToken, refused: Option<&str>) -> String {
        let refused = refused.map(SecretString::from);
        token.token(refused.as_ref()).await.unwrap().token.expose_secret().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_token_is_told_until_the_file_holds_another() {
        let folder = tempfile::tempdir().unwrap();
        let token = mounted(&folder);
        assert_eq!(given(&token, None).await, "one");
        let waiting = tokio::spawn({
            let token = token.clone();
            async move { given(&token, Some("one")).await }
        });
        while token.refusals.current().is_empty() {
            tokio::task::yield_now().await;
        }
        let told = token.refusals.current();
        assert_eq!(told, BTreeMap::from([(Side::Source, names::token_hash("one"))]));
        assert!(token.progress.snapshot().waiting.is_some() && !format!("{told:?} {token:?}").contains("one"));
        fs::write(&token.path, "two").unwrap();
        assert_eq!(waiting.await.unwrap(), "two");
        assert!(token.refusals.current().is_empty() && token.progress.snapshot().waiting.is_none());
        assert_eq!(given(&token, Some("one")).await, "two", "what is there already is not waited for");
    }

    #[tokio::test(start_paused = true)]
    async fn after_five_minutes_without_another_the_refusal_stands() {
        let folder = tempfile::tempdir().unwrap();
        let token = mounted(&folder);
        assert_eq!(given(&token, Some("one")).await, "one");
    }

    #[tokio::test]
    async fn a_token_that_is_not_there_is_waited_for_by_another_attempt() {
        let folder = tempfile::tempdir().unwrap();
        let token = mounted(&folder);
        for empty in [Some(""), None] {
            match empty {
                Some(text) => fs::write(&token.path, text).unwrap(),
                None => fs::remove_file(&token.path).unwrap(),
            }
            assert_eq!(token.token(None).await.unwrap_err().class, ErrorClass::Network);
        }
    }
}
