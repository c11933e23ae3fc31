//! Refresh tokens that a provider replaced, one file for each that a user gave:
//!
//! ```text
//! ~/.local/state/mailferry/grants/      mode 0700
//!   3bc51062973c458d….json              mode 0600: the current token of the seed with this hash
//!   3bc51062973c458d….lock              held (flock) by who asks with it
//! ```
//! The folder is one for all migrations, since a token that two of them use must not be asked with twice: a provider that
//! replaces tokens may take that for theft. With `--state DIR` it is `DIR/grants`.

use std::{
    fmt, fs,
    io::ErrorKind,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    file_lock::{LockFailure, holder_text, take_lock},
    state_folder::write_atomically,
    state_location::shared_state_folder,
};
use crate::{
    error::{Error, Result},
    oauth::{HeldRefreshToken, RefreshSeed, RefreshTokenStore},
};

/// Another process that asks is waited for so long, in steps.
const STEP: Duration = Duration::from_millis(100);
const STEPS: u32 = 600;

/// The folder of refresh tokens.
#[derive(Debug, Default)]
pub(crate) struct GrantFolder {
    named: OnceLock<PathBuf>,
}

impl GrantFolder {
    /// The state folder that the user names, if one is named; without it, or before, the user's own is used.
    pub(crate) fn keep_in(&self, state: Option<&Path>) {
        if let Some(state) = state {
            let _ = self.named.set(state.join("grants")); // the first one counts
        }
    }

    fn folder(&self) -> Result<PathBuf> {
        let found = self.named.get().cloned().or_else(|| shared_state_folder().map(|state| state.join("grants")));
        found.ok_or_else(|| {
            Error::configuration("there is no home folder to keep refresh tokens in")
                .advice("Name a folder that stays, by --state DIR")
        })
    }
}

/// What a file holds.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredToken {
    /// The hash of the token that the user gave.
    seed: String,
    refresh_token: Zeroizing<String>,
    /// Somebody asks with it, or did and ended before the answer was kept.
    #[serde(default)]
    in_use: bool,
}

/// A refresh token with its lock.
struct HeldFile {
    path: PathBuf,
    seed: String,
    current: SecretString,
    was_in_use: bool,
    /// Held until this is dropped.
    _lock: fs::File,
}

impl fmt::Debug for HeldFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldFile").field("path", &self.path).finish_non_exhaustive()
    }
}

fn unusable(path: &Path, error: impl fmt::Display) -> Error {
    Error::internal(format!("the refresh token in {} can't be kept: {error}", path.display()))
        .advice("The folder must be writable and on a disk with room; --state DIR names another one")
}

impl RefreshTokenStore for GrantFolder {
    fn hold<'a>(&'a self, seed: &'a RefreshSeed) -> BoxFuture<'a, Result<Box<dyn HeldRefreshToken>>> {
        async move {
            let folder = self.folder()?;
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(|error| unusable(&folder, error))?;
            let lock = lock(&folder.join(format!("{}.lock", seed.hash()))).await?;
            let path = folder.join(format!("{}.json", seed.hash()));
            let stored = read(&path, seed.hash())?;
            let was_in_use = stored.as_ref().is_some_and(|stored| stored.in_use);
            let current =
                stored.map_or_else(|| seed.token().clone(), |stored| SecretString::from(&**stored.refresh_token));
            let held = HeldFile { path, seed: seed.hash().to_owned(), current, was_in_use, _lock: lock };
            Ok(Box::new(held) as Box<dyn HeldRefreshToken>)
        }
        .boxed()
    }
}

async fn lock(path: &Path) -> Result<fs::File> {
    let mut holder = None;
    for _ in 0..STEPS {
        match take_lock(path) {
            Ok(file) => return Ok(file),
            Err(LockFailure::Unusable(error)) => return Err(unusable(path, error)),
            Err(LockFailure::Held(pid)) => holder = pid,
        }
        tokio::time::sleep(STEP).await;
    }
    let (holder, stop) = holder_text(holder);
    Err(Error::network(format!("{holder} asks with the same refresh token and does not end"))
        .advice(format!("Wait for it{stop}")))
}

/// The token that is kept; none where none is.
fn read(path: &Path, seed: &str) -> Result<Option<StoredToken>> {
    let text = match fs::read(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(path, error)),
    };
    // serde's own error may quote what it read.
    match serde_json::from_slice::<StoredToken>(&text) {
        Ok(stored) if stored.seed == seed => Ok(Some(stored)),
        _ => Err(Error::configuration(format!("{} holds no refresh token any more", path.display()))
            .advice("Sign in again with `mailferry login`, and use the new grant")),
    }
}

impl HeldFile {
    fn write(&self, in_use: bool) -> Result<()> {
        let stored = StoredToken {
            seed: self.seed.clone(),
            refresh_token: Zeroizing::new(self.current.expose_secret().to_owned()),
            in_use,
        };
        let text = serde_json::to_vec(&stored).map_err(|error| unusable(&self.path, error))?;
        write_atomically(&self.path, &Zeroizing::new(text)).map_err(|error| unusable(&self.path, error))
    }
}

impl HeldRefreshToken for HeldFile {
    fn current(&self) -> &SecretString {
        &self.current
    }

    fn may_be_used_up(&self) -> bool {
        self.was_in_use
    }

    fn begin(&mut self) -> Result<()> {
        self.write(true)
    }

    fn keep(&mut self, replacement: Option<SecretString>) -> Result<()> {
        if let Some(replacement) = replacement {
            self.current = replacement;
        }
        self.write(false)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::oauth::RefreshSeed;

    fn store(folder: &Path) -> GrantFolder {
        let store = GrantFolder::default();
        store.keep_in(Some(folder));
        store
    }

    fn seed(token: &str) -> RefreshSeed {
        RefreshSeed::new("https://id.example/token", "app", token.to_owned().into())
    }

    #[tokio::test]
    async fn a_replaced_token_is_there_for_the_next_run_and_another_seed_wins() {
        let folder = tempfile::tempdir().unwrap();
        {
            let mut held = store(folder.path()).hold(&seed("one")).await.map_err(|e| e.to_string()).unwrap();
            assert_eq!((held.current().expose_secret(), held.may_be_used_up()), ("one", false));
            held.begin().unwrap();
            held.keep(Some("two".into())).unwrap();
        }
        let again = store(folder.path());
        for (given, current) in [("one", "two"), ("other", "other")] {
            let held = again.hold(&seed(given)).await.map_err(|e| e.to_string()).unwrap();
            assert_eq!((held.current().expose_secret(), held.may_be_used_up()), (current, false));
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let grants = folder.path().join("grants");
        let file = grants.join(format!("{}.json", seed("one").hash()));
        assert_eq!((mode(&grants), mode(&file)), (0o700, 0o600));
    }

    #[tokio::test]
    async fn a_run_that_ended_while_it_asked_is_known_to_the_next() {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path()).hold(&seed("one")).await.map_err(|e| e.to_string()).unwrap().begin().unwrap();
        let held = store(folder.path()).hold(&seed("one")).await.map_err(|e| e.to_string()).unwrap();
        assert_eq!((held.current().expose_secret(), held.may_be_used_up()), ("one", true));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_asks_while_another_one_does() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (store(folder.path()), store(folder.path()));
        let (first, second) = (seed("one"), seed("one"));
        let held = one.hold(&first).await.map_err(|e| e.to_string()).unwrap();
        let mut waiting = other.hold(&second);
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(held);
        waiting.await.map_err(|e| e.to_string()).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_holds_something_else_is_not_asked_with() {
        let folder = tempfile::tempdir().unwrap();
        let grants = folder.path().join("grants");
        fs::create_dir(&grants).unwrap();
        fs::write(grants.join(format!("{}.json", seed("one").hash())), "{\"refreshToken\": \"hush\"").unwrap();
        let error = store(folder.path()).hold(&seed("one")).await.err().unwrap();
        assert!(error.advice.as_ref().unwrap().contains("Sign in again") && !error.to_string().contains("hush"));
    }
}
