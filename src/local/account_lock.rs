//! One writer for each destination account on this machine, whatever migrations and state folders name it.

use std::{
    collections::HashMap,
    fs::{DirBuilder, File},
    os::unix::fs::DirBuilderExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

use super::file_lock::{LockFailure, holder_text, take_lock};
use crate::{
    error::{Error, Result, Side},
    imap::Endpoint,
    sync::checkpoint::accounts_fingerprint,
};

/// The locks of accounts.
#[derive(Debug, Clone)]
pub(crate) struct AccountLocks {
    /// None in a dry run, which takes none.
    folder: Option<PathBuf>,
    /// Mailboxes of this process wait for each other, by account.
    turns: Arc<Mutex<HashMap<String, Turn>>>,
}

type Turn = Arc<tokio::sync::Mutex<()>>;

/// Holds an account until it is dropped.
#[derive(Debug)]
pub(crate) struct AccountLock {
    _file: Option<File>,
    _turn: Option<OwnedMutexGuard<()>>,
}

impl AccountLocks {
    /// Locks that are files in this folder.
    pub(crate) fn in_folder(folder: PathBuf) -> Self {
        Self { folder: Some(folder), turns: Arc::default() }
    }

    /// Takes no locks.
    pub(crate) fn none() -> Self {
        Self { folder: None, turns: Arc::default() }
    }

    /// Excludes all others from writing to this account: waits for mailboxes of this process. Accounts are told apart by host, port and user: another name of
    /// the same server is another account here.
    ///
    /// # Errors
    /// Configuration when another process holds the account; Internal when the folder cannot be used.
    pub(crate) async fn lock(&self, account: &Endpoint) -> Result<AccountLock> {
        let Some(folder) = &self.folder else { return Ok(AccountLock { _file: None, _turn: None }) };
        let name = accounts_fingerprint(&[account]);
        let turn =
            Arc::clone(self.turns.lock().unwrap_or_else(PoisonError::into_inner).entry(name.clone()).or_default());
        let turn = turn.lock_owned().await;
        let unusable = |error: std::io::Error| {
            Error::internal(format!("cannot lock an account in {}: {error}", folder.display()))
                .advice("The folder must be writable")
        };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
        match take_lock(&folder.join(format!("{name}.lock"))) {
            Ok(file) => Ok(AccountLock { _file: Some(file), _turn: Some(turn) }),
            Err(LockFailure::Unusable(error)) => Err(unusable(error)),
            Err(LockFailure::Held(pid)) => {
                let (holder, stop) = holder_text(pid);
                Err(Error::configuration(format!("{holder} writes to this account"))
                    .on(Side::Destination, account.host.as_str())
                    .advice(format!("Wait for that run to end{stop}: two at once would double mail")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::ErrorClass, sync::testing::spec};

    #[tokio::test]
    async fn an_account_is_written_to_by_one_run_at_a_time_whatever_its_state_folder_is() {
        let folder = tempfile::tempdir().unwrap();
        // Each run has its own.
        let locks = || AccountLocks::in_folder(folder.path().join("accounts"));
        let [alice, bob] = ["alice", "bob"].map(|name| spec(name).destination);
        let held = locks().lock(&alice).await.unwrap();
        let error = locks().lock(&alice).await.unwrap_err();
        assert_eq!((error.class, error.side), (ErrorClass::Configuration, Some(Side::Destination)));
        assert!(error.what.contains(&format!("process {}", std::process::id())), "{error}");
        locks().lock(&bob).await.unwrap();
        AccountLocks::none().lock(&alice).await.unwrap();
        drop(held);
        locks().lock(&alice).await.unwrap();
    }

    #[tokio::test]
    async fn two_mailboxes_of_one_run_that_go_to_one_account_take_turns() {
        let folder = tempfile::tempdir().unwrap();
        let (locks, alice) = (AccountLocks::in_folder(folder.path().to_owned()), spec("alice").destination);
        let first = locks.lock(&alice).await.unwrap();
        let mut second = std::pin::pin!(locks.lock(&alice));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        second.await.unwrap();
    }
}
