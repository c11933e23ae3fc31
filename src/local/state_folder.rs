//! The state folder: the lock that makes a run the only one, and one checkpoint file per mailbox.
//!
//! ```text
//! ~/.local/state/mailferry/acme/       one folder per migration, mode 0700
//!   lock                               held (flock) while a run lasts; holds the pid
//!   alice-3bc51062973c458d.checkpoint  mode 0600, replaced by rename only
//!   alice-3bc51062973c458d.checkpoint.aside-1   one that could not be used
//! ```
//! A file is named by the accounts that it is for: the destination's user and a hash of both accounts. So whatever a manifest
//! calls the mailbox, its checkpoint is found.
//!
//! A checkpoint file holds exactly what the engine encoded: `mailferry checkpoint FILE` prints it.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::{FutureExt as _, future::BoxFuture};
use sha2::{Digest as _, Sha256};

use super::file_lock::{LockFailure, holder_text, take_lock};
use crate::{
    error::{Error, Result},
    sync::{
        checkpoint::{Checkpoint, fingerprint},
        checkpoint_store::CheckpointStore,
        spec::SyncSpec,
    },
};

/// The state folder of one migration, locked or read-only.
#[derive(Debug)]
pub struct StateFolder {
    folder: PathBuf,
    /// Absent when the state is read-only.
    lock: Option<Arc<File>>,
    /// The checkpoints that were there when it was opened.
    kept: Arc<Vec<PathBuf>>,
}

impl StateFolder {
    /// Opens the state folder for a run, making it where it is missing, and excludes every other run until the state
    /// and all its [`CheckpointFile`]s are dropped or the process ends.
    ///
    /// # Errors
    /// Configuration when another process holds the lock; Internal when the folder cannot be used.
    pub fn open(folder: &Path) -> Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| unusable("make", folder, &e))?;
        let path = folder.join("lock");
        let lock = take_lock(&path).map_err(|failure| match failure {
            LockFailure::Held(pid) => in_use(folder, pid),
            LockFailure::Unusable(error) => unusable("lock", &path, &error),
        })?;
        Ok(Self { folder: folder.to_owned(), lock: Some(Arc::new(lock)), kept: Arc::new(checkpoints_in(folder)) })
    }

    /// Opens the state folder for a look at it: nothing is made, locked, written or moved. For dry runs.
    #[must_use]
    pub fn read_only(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), lock: None, kept: Arc::new(checkpoints_in(folder)) }
    }

    /// The state of one mailbox.
    #[must_use]
    pub fn checkpoint_file(&self, spec: &SyncSpec) -> CheckpointFile {
        let SyncSpec { mailbox, source, destination, .. } = spec;
        let fingerprint = fingerprint(source, destination);
        let file = SharedFile {
            path: self.folder.join(file_name(&destination.login.username, &fingerprint)),
            earlier_path: self.folder.join(earlier_file_name(mailbox)),
            fingerprint,
            written: Mutex::new(0),
            issued: AtomicU64::new(0),
            lock: self.lock.clone(),
            kept: Arc::clone(&self.kept),
        };
        CheckpointFile { file: Arc::new(file) }
    }
}

/// The checkpoint file of one mailbox.
#[derive(Debug, Clone)]
pub struct CheckpointFile {
    file: Arc<SharedFile>,
}

#[derive(Debug)]
struct SharedFile {
    path: PathBuf,
    /// Where version 0.1.0 kept it.
    earlier_path: PathBuf,
    /// The accounts that it is for.
    fingerprint: String,
    /// The ticket of the newest checkpoint on disk; also keeps two writers from one temporary file.
    written: Mutex<u64>,
    issued: AtomicU64,
    /// A write that outlives the run still holds the lock. Absent when the state is read-only.
    lock: Option<Arc<File>>,
    /// The checkpoints that were there when the state folder was opened.
    kept: Arc<Vec<PathBuf>>,
}

/// What an earlier run left of a mailbox.
#[derive(Debug, Default)]
pub struct RecalledCheckpoint {
    /// What to go on from.
    pub checkpoint: Option<Checkpoint>,
    /// What to tell the user about it.
    pub note: Option<String>,
}

impl CheckpointFile {
    /// Where the checkpoint is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// The checkpoint to go on from. One that is torn, of an unknown format or for other accounts counts as none: it is set
    /// aside, and the sync compares both sides instead. One of version 0.1.0 gets its new name.
    ///
    /// # Errors
    /// Internal when the file is there and cannot be read, renamed or set aside.
    pub fn load_checkpoint(&self) -> Result<RecalledCheckpoint> {
        let Some(encoded) = self.read_encoded()? else {
            return Ok(RecalledCheckpoint { checkpoint: None, note: self.note_on_others() });
        };
        let SharedFile { path, earlier_path, fingerprint, lock, .. } = &*self.file;
        if lock.is_some() && !path.exists() {
            fs::rename(earlier_path, path).map_err(|e| unusable("rename", earlier_path, &e))?;
        }
        let why = match Checkpoint::decode(&encoded) {
            Ok(checkpoint) if checkpoint.fingerprint == *fingerprint => {
                return Ok(RecalledCheckpoint { checkpoint: Some(checkpoint), note: None });
            }
            Ok(_) => "is for other accounts".to_owned(),
            Err(error) => format!("could not be read ({})", error.what),
        };
        let kept = self.move_aside()?;
        let note = format!(
            "the checkpoint {why} and is kept as {}; this sync compared both sides, to copy only what is missing",
            kept.display()
        );
        Ok(RecalledCheckpoint { checkpoint: None, note: Some(note) })
    }

    /// Where there is no checkpoint for these accounts but one of the same user elsewhere, somebody may wonder.
    fn note_on_others(&self) -> Option<String> {
        let SharedFile { path, earlier_path, kept, .. } = &*self.file;
        let user = user_of(path)?;
        let other = kept.iter().find(|path| user_of(path) == Some(user));
        let other = other.or_else(|| earlier_path.exists().then_some(earlier_path))?;
        Some(format!(
            "the checkpoint {} is for other accounts (another host, port or user); this sync compared both sides, to copy \
             only what is missing",
            other.display()
        ))
    }

    /// What an earlier run saved about these accounts, for commands that only look; and what to tell the user where there
    /// is a checkpoint that cannot be used. Nothing is moved or written.
    #[must_use]
    pub(crate) fn usable_checkpoint(&self) -> (Option<Checkpoint>, Option<String>) {
        let unused = |why: &str| {
            let path = self.file.path.display();
            (None, Some(format!("the checkpoint {path} {why}: where folders go was decided afresh")))
        };
        let decoded =
            self.read_encoded().and_then(|encoded| encoded.map(|bytes| Checkpoint::decode(&bytes)).transpose());
        match decoded {
            Ok(Some(checkpoint)) if checkpoint.fingerprint != self.file.fingerprint => unused("is for other accounts"),
            Ok(usable) => (usable, None),
            Err(error) => unused(&format!("cannot be used ({})", error.what)),
        }
    }

    /// Where an earlier run put the folders: raw source name to raw destination name; as [`Self::usable_checkpoint`].
    #[must_use]
    pub(crate) fn folder_mapping(&self) -> (BTreeMap<Vec<u8>, Vec<u8>>, Option<String>) {
        let (checkpoint, note) = self.usable_checkpoint();
        (checkpoint.map(|checkpoint| checkpoint.mapping).unwrap_or_default(), note)
    }

    /// What was saved last, if anything was.
    ///
    /// # Errors
    /// Internal when the file is there and cannot be read.
    pub fn read_encoded(&self) -> Result<Option<Vec<u8>>> {
        if let Some(bytes) = read_if_there(&self.file.path)? {
            return Ok(Some(bytes));
        }
        // That name says nothing of accounts: such a file may be another's.
        let is_ours = |bytes: &Vec<u8>| {
            Checkpoint::decode(bytes).is_ok_and(|checkpoint| checkpoint.fingerprint == self.file.fingerprint)
        };
        Ok(read_if_there(&self.file.earlier_path)?.filter(is_ours))
    }

    /// Moves a checkpoint that cannot be used out of the way and keeps it: a person may want to know what it held.
    /// Returns where it is now; a read-only state leaves it where it is.
    ///
    /// # Errors
    /// Internal when the file cannot be renamed.
    pub(crate) fn move_aside(&self) -> Result<PathBuf> {
        let path = &self.file.path;
        if self.file.lock.is_none() {
            return Ok(path.clone());
        }
        let mut number = 1_u32;
        let aside = loop {
            let candidate = with_suffix(path, &format!(".aside-{number}"));
            if !candidate.exists() {
                break candidate;
            }
            number = number.saturating_add(1);
        };
        fs::rename(path, &aside).map_err(|e| unusable("rename", path, &e))?;
        Ok(aside)
    }
}

/// The checkpoints in a folder, read once: a run may begin thousands of mailboxes in it.
fn checkpoints_in(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    files.filter(|path| user_of(path).is_some()).collect()
}

/// The user in the name of a checkpoint's file.
fn user_of(path: &Path) -> Option<&str> {
    Some(path.file_name()?.to_str()?.strip_suffix(".checkpoint")?.rsplit_once('-')?.0)
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(unusable("read", path, &e)),
    }
}

impl CheckpointStore for CheckpointFile {
    fn save(&self, checkpoint: &Checkpoint) -> BoxFuture<'_, Result<()>> {
        match checkpoint.encode() {
            Ok(encoded) => self.write_encoded(encoded),
            Err(error) => async { Err(error) }.boxed(),
        }
    }
}

impl CheckpointFile {
    /// Replaces the checkpoint by what was encoded, durably.
    fn write_encoded(&self, encoded: Vec<u8>) -> BoxFuture<'_, Result<()>> {
        // The ticket is drawn by the call, not by the first poll: the order of calls decides which checkpoint is newest.
        let ticket = self.file.issued.fetch_add(1, Ordering::Relaxed) + 1;
        let file = Arc::clone(&self.file);
        async move {
            tokio::task::spawn_blocking(move || file.write(ticket, &encoded))
                .await
                .map_err(|_| Error::internal("the checkpoint could not be written: its task ended early"))?
        }
        .boxed()
    }
}

impl SharedFile {
    fn write(&self, ticket: u64, encoded: &[u8]) -> Result<()> {
        if self.lock.is_none() {
            return Ok(()); // a dry run leaves nothing behind
        }
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written > ticket {
            return Ok(());
        }
        write_atomically(&self.path, encoded).map_err(|e| unusable("write", &self.path, &e))?;
        *written = ticket;
        Ok(())
    }
}

/// Replaces `path` so that a crash at any instant leaves the old content or the new, whole and durable.
///
/// # Errors
/// When a file beside it or its folder can't be written.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = with_suffix(path, ".tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    // A file that is named alone is in the working folder.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// A file name that tells a person which account it is, and is never that of others: the fingerprint is that of both
/// accounts. Like that, the name is in lower case.
fn file_name(user: &str, fingerprint: &str) -> String {
    let short: String = fingerprint.chars().take(16).collect();
    format!("{}-{short}.checkpoint", plain_name(&user.to_lowercase()))
}

/// The file name of version 0.1.0: by the mailbox's name in the manifest.
fn earlier_file_name(mailbox: &str) -> String {
    let hash = Sha256::digest(mailbox.as_bytes());
    let short = hash.iter().take(8).fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    format!("{}-{short}.checkpoint", plain_name(mailbox))
}

/// A name as one plain part of a path.
pub(super) fn plain_name(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._@+-".contains(c) { c } else { '_' };
    let name: String = name.chars().take(80).map(safe).collect();
    match name.strip_prefix('.') {
        Some(rest) => format!("_{rest}"),
        None => name,
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn unusable(verb: &str, path: &Path, error: &io::Error) -> Error {
    Error::internal(format!("cannot {verb} {}: {error}", path.display()))
        .advice("The state folder must be writable and on a disk with room; --state DIR names another one")
}

fn in_use(folder: &Path, pid: Option<u32>) -> Error {
    let (holder, stop) = holder_text(pid);
    Error::configuration(format!("the state folder {} is in use by {holder}", folder.display()))
        .advice(format!("Wait for that run to end{stop}; a run of other mailboxes needs a --state of its own"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::*;
    use crate::{error::ErrorClass, sync::testing::spec};

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_second_run_on_one_state_is_refused_and_told_who_holds_it() {
        let dir = folder();
        let path = dir.path().join("acme");
        let first = StateFolder::open(&path).unwrap();
        let error = StateFolder::open(&path).unwrap_err();
        assert_eq!(error.class, ErrorClass::Configuration);
        assert!(error.what.contains(&format!("process {}", std::process::id())), "{error}");
        assert!(error.advice.unwrap().contains("--state"));
        drop(first);
        StateFolder::open(&path).unwrap();
    }

    #[test]
    fn a_mailbox_whose_write_may_still_come_keeps_the_lock() {
        let dir = folder();
        let state = StateFolder::open(dir.path()).unwrap();
        let mailbox = state.checkpoint_file(&spec("alice"));
        drop(state);
        StateFolder::open(dir.path()).unwrap_err();
        drop(mailbox);
        StateFolder::open(dir.path()).unwrap();
    }

    #[tokio::test]
    async fn a_saved_checkpoint_is_read_back_by_the_next_run_and_only_for_its_mailbox() {
        let dir = folder();
        {
            let state = StateFolder::open(dir.path()).unwrap();
            let alice = state.checkpoint_file(&spec("alice"));
            assert_eq!(alice.read_encoded().unwrap(), None);
            alice.write_encoded(b"one".to_vec()).await.unwrap();
            alice.write_encoded(b"two".to_vec()).await.unwrap();
        }
        let state = StateFolder::open(dir.path()).unwrap();
        assert_eq!(state.checkpoint_file(&spec("alice")).read_encoded().unwrap().unwrap(), b"two");
        assert_eq!(state.checkpoint_file(&spec("bob")).read_encoded().unwrap(), None);
    }

    #[tokio::test]
    async fn the_checkpoint_of_the_later_call_wins_when_the_earlier_one_is_awaited_last() {
        let dir = folder();
        let alice = StateFolder::open(dir.path()).unwrap().checkpoint_file(&spec("alice"));
        let (early, late) = (alice.write_encoded(b"early".to_vec()), alice.write_encoded(b"late".to_vec()));
        late.await.unwrap();
        early.await.unwrap();
        assert_eq!(alice.read_encoded().unwrap().unwrap(), b"late");
    }

    #[tokio::test]
    async fn nobody_else_can_read_the_state_and_no_temporary_file_stays() {
        let dir = folder();
        let path = dir.path().join("acme");
        let state = StateFolder::open(&path).unwrap();
        let alice = state.checkpoint_file(&spec("alice"));
        alice.write_encoded(b"x".to_vec()).await.unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(alice.path())), (0o700, 0o600));
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2, "the lock and the checkpoint");
    }

    #[tokio::test]
    async fn a_torn_temporary_file_of_a_dead_run_does_not_reach_the_checkpoint() {
        let dir = folder();
        let alice = StateFolder::open(dir.path()).unwrap().checkpoint_file(&spec("alice"));
        alice.write_encoded(b"whole".to_vec()).await.unwrap();
        fs::write(with_suffix(alice.path(), ".tmp"), "a torn and much longer leftover").unwrap();
        assert_eq!(alice.read_encoded().unwrap().unwrap(), b"whole");
        alice.write_encoded(b"next".to_vec()).await.unwrap();
        assert_eq!(alice.read_encoded().unwrap().unwrap(), b"next");
    }

    #[tokio::test]
    async fn checkpoints_set_aside_are_all_kept() {
        let dir = folder();
        let alice = StateFolder::open(dir.path()).unwrap().checkpoint_file(&spec("alice"));
        for content in [b"first", b"other"] {
            alice.write_encoded(content.to_vec()).await.unwrap();
            let aside = alice.move_aside().unwrap();
            assert_eq!(fs::read(aside).unwrap(), content);
            assert_eq!(alice.read_encoded().unwrap(), None);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    /// The accounts of a mailbox, as a fingerprint.
    fn accounts(name: &str) -> String {
        fingerprint(&spec(name).source, &spec(name).destination)
    }

    fn of(name: &str) -> Checkpoint {
        Checkpoint { fingerprint: accounts(name), ..Checkpoint::default() }
    }

    #[tokio::test]
    async fn a_checkpoint_that_is_torn_or_for_other_accounts_counts_as_none_and_is_kept() {
        let dir = folder();
        let alice = StateFolder::open(dir.path()).unwrap().checkpoint_file(&spec("alice"));
        assert!(alice.load_checkpoint().unwrap().note.is_none(), "a first run has nothing to tell");

        let whole = of("alice").encode().unwrap();
        alice.write_encoded(whole.clone()).await.unwrap();
        let recalled = alice.load_checkpoint().unwrap();
        assert_eq!((recalled.checkpoint, recalled.note), (Some(of("alice")), None));

        let (torn, others) = (whole[..whole.len() - 1].to_vec(), of("bob").encode().unwrap());
        for (content, why) in [(&torn, "could not be read"), (&others, "other accounts")] {
            alice.write_encoded(content.clone()).await.unwrap();
            let RecalledCheckpoint { checkpoint, note } = alice.load_checkpoint().unwrap();
            assert!(checkpoint.is_none());
            assert!(note.as_ref().unwrap().contains(why), "{note:?}");
            assert_eq!(alice.read_encoded().unwrap(), None);
        }
        for (number, content) in [(1, torn), (2, others)] {
            assert_eq!(fs::read(with_suffix(alice.path(), &format!(".aside-{number}"))).unwrap(), content);
        }
    }

    #[test]
    fn a_checkpoint_that_version_0_1_0_kept_by_the_mailboxs_name_is_found_if_it_is_for_these_accounts() {
        let dir = folder();
        let earlier = dir.path().join(earlier_file_name("alice"));
        for (left, found) in [("bob", None), ("alice", Some(of("alice")))] {
            fs::write(&earlier, of(left).encode().unwrap()).unwrap();
            let looker = StateFolder::read_only(dir.path()).checkpoint_file(&spec("alice"));
            assert_eq!(looker.usable_checkpoint().0, found);
            assert!(earlier.exists(), "a look moves nothing");
            let alice = StateFolder::open(dir.path()).unwrap().checkpoint_file(&spec("alice"));
            assert_eq!(alice.load_checkpoint().unwrap().checkpoint, found);
            assert_eq!((earlier.exists(), alice.path().exists()), (found.is_none(), found.is_some()));
        }
    }

    #[tokio::test]
    async fn a_mailbox_that_the_manifest_calls_otherwise_keeps_its_checkpoint() {
        let dir = folder();
        let state = StateFolder::open(dir.path()).unwrap();
        state.checkpoint_file(&spec("alice")).save(&of("alice")).await.unwrap();
        let mut renamed = SyncSpec { mailbox: "Alice Doe".into(), ..spec("alice") };
        renamed.destination.login.username = "ALICE@new.example".into();
        assert_eq!(state.checkpoint_file(&renamed).load_checkpoint().unwrap().checkpoint, Some(of("alice")));
    }

    #[tokio::test]
    async fn a_read_only_state_reads_and_never_writes() {
        let dir = folder();
        let path = dir.path().join("acme");
        let looker = StateFolder::read_only(&path).checkpoint_file(&spec("alice"));
        looker.write_encoded(b"x".to_vec()).await.unwrap();
        assert!(!path.exists());
        let owner = StateFolder::open(&path).unwrap().checkpoint_file(&spec("alice"));
        owner.write_encoded(b"real".to_vec()).await.unwrap();
        assert_eq!(looker.read_encoded().unwrap().unwrap(), b"real");
        looker.write_encoded(b"dry".to_vec()).await.unwrap();
        looker.move_aside().unwrap();
        assert_eq!(owner.read_encoded().unwrap().unwrap(), b"real");
    }

    proptest! {
        #[test]
        fn any_user_gives_one_plain_file_name(name in any::<String>()) {
            let file = file_name(&name, &accounts("alice"));
            prop_assert!(file.len() < 128);
            prop_assert!(!file.starts_with('.'));
            prop_assert!(file.bytes().all(|b| b.is_ascii_graphic() && b != b'/'));
        }
    }

    #[tokio::test]
    async fn folder_names_are_read_from_a_checkpoint_that_is_for_these_accounts_and_nothing_is_moved() {
        let folder = tempfile::tempdir().unwrap();
        let writer = StateFolder::open(folder.path()).unwrap();
        let names = BTreeMap::from([(b"Sent Items".to_vec(), b"Sent".to_vec())]);
        let checkpoint = Checkpoint { mapping: names.clone(), ..of("alice") };
        writer.checkpoint_file(&spec("alice")).save(&checkpoint).await.unwrap();
        writer.checkpoint_file(&spec("carol")).save(&checkpoint).await.unwrap();
        writer.checkpoint_file(&spec("torn")).write_encoded(vec![1, 2, 3]).await.unwrap();
        let state = StateFolder::read_only(folder.path());
        assert_eq!(state.checkpoint_file(&spec("alice")).folder_mapping(), (names, None));
        for (mailbox, why) in [("carol", "is for other accounts"), ("torn", "cannot be used")] {
            let (mapping, note) = state.checkpoint_file(&spec(mailbox)).folder_mapping();
            assert!(mapping.is_empty() && note.as_ref().is_some_and(|n| n.contains(why)), "{note:?}");
            assert!(state.checkpoint_file(&spec(mailbox)).path().exists());
        }
        assert_eq!(state.checkpoint_file(&spec("nobody")).folder_mapping(), (BTreeMap::new(), None));
    }
}
