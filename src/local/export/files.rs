//! Files of exported messages: safe names, and never one message in the place of another.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{AsyncWriteExt as _, BufWriter},
};

use crate::error::{Error, Result};

/// The index in each mailbox's folder.
pub(crate) const INDEX_FILE: &str = "index.jsonl";
/// A name is cut to so many characters; with its hash it stays below what file systems take, whatever the script.
const MAX_CHARS: usize = 55;

/// The folder of one mailbox's messages: `DIR/MAILBOX`.
#[derive(Debug)]
pub(crate) struct ExportFolder {
    root: PathBuf,
}

impl ExportFolder {
    /// Makes the folder, for its owner only.
    ///
    /// # Errors
    /// Internal, when it cannot be made.
    pub(crate) async fn open(dir: &Path, mailbox: &str) -> Result<Self> {
        let root = dir.join(file_name_for(mailbox));
        make_folder(&root).await?;
        Ok(Self { root })
    }

    /// Where the mailbox's messages are.
    #[must_use]
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Begins a file for a message of this folder.
    ///
    /// # Errors
    /// Internal, when it cannot be made.
    pub(crate) async fn begin_message(&self, folder: &str, uid_validity: u32, uid: u32) -> Result<MessageDraft> {
        let name = file_name_for(folder);
        let name = if name.eq_ignore_ascii_case(INDEX_FILE) { format!("{name}-{}", hash(folder)) } else { name };
        let folder = self.root.join(name);
        make_folder(&folder).await?;
        let stem = format!("{uid_validity}-{uid}");
        let path = folder.join(format!(".{stem}.{}.part", std::process::id()));
        let file = create(&path).await?;
        Ok(MessageDraft { folder, stem, path, file })
    }

    /// Begins the index anew; the old one stays until [`ExportIndex::finish`].
    ///
    /// # Errors
    /// Internal, when it cannot be made.
    pub(crate) async fn begin_index(&self) -> Result<ExportIndex> {
        let path = self.root.join(format!(".{INDEX_FILE}.{}.part", std::process::id()));
        let file = BufWriter::new(create(&path).await?);
        Ok(ExportIndex { path, to: self.root.join(INDEX_FILE), file })
    }
}

/// A message that is not complete yet.
#[derive(Debug)]
pub(crate) struct MessageDraft {
    folder: PathBuf,
    stem: String,
    path: PathBuf,
    /// Takes the message's bytes.
    pub file: File,
}

impl MessageDraft {
    /// Gives the message its name: `UIDVALIDITY-UID.eml`. A file that is there already stays as it is: with the same
    /// bytes it is this message, else this one gets a number.
    ///
    /// # Errors
    /// Internal, when that fails.
    pub(crate) async fn commit(mut self) -> Result<PathBuf> {
        self.file.flush().await.map_err(|e| unusable("write", &self.path, &e))?;
        drop(self.file);
        let (folder, stem, path) = (self.folder, self.stem, self.path);
        let named = tokio::task::spawn_blocking(move || {
            let kept = place(&folder, &stem, &path);
            drop(std::fs::remove_file(&path));
            kept.map_err(|e| unusable("name", &path, &e))
        });
        named.await.map_err(|_| Error::internal("a message could not be named: its task ended early"))?
    }

    /// Gives it up.
    pub(crate) async fn discard(self) {
        drop(fs::remove_file(&self.path).await);
    }
}

/// Gives a file its name, unless another has it. A hard link fails where the name is taken. Where the file system has
/// no hard links, the name is looked up first.
fn place(folder: &Path, stem: &str, path: &Path) -> io::Result<PathBuf> {
    let mut number = 1_u32;
    loop {
        let name = if number == 1 { format!("{stem}.eml") } else { format!("{stem}-{number}.eml") };
        let name = folder.join(name);
        let linked = match std::fs::hard_link(path, &name) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !std::fs::exists(&name)? => {
                std::fs::rename(path, &name)
            }
            other => other,
        };
        match linked {
            Ok(()) => return Ok(name),
            Err(_) if std::fs::exists(&name)? => {
                if same_bytes(path, &name)? {
                    return Ok(name);
                }
                number = number.saturating_add(1);
            }
            Err(error) => return Err(error),
        }
    }
}

fn same_bytes(one: &Path, other: &Path) -> io::Result<bool> {
    let (of_one, of_other) = (std::fs::metadata(one)?, std::fs::metadata(other)?);
    if !of_other.is_file() || of_one.len() != of_other.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (std::fs::File::open(one)?, std::fs::File::open(other)?);
    let (mut a, mut b) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let length = one.read(&mut a)?;
        let Some((read, expected)) = a.get(..length).zip(b.get_mut(..length)) else { return Ok(false) };
        if length == 0 {
            return Ok(true);
        }
        match other.read_exact(expected) {
            Ok(()) if read == expected => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// One line of the index.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExportIndexEntry<'a> {
    /// The mailbox's name in the migration.
    pub mailbox: &'a str,
    /// The source's folder, as reports name it.
    pub folder: &'a str,
    /// Its UIDVALIDITY.
    pub uid_validity: u32,
    /// The message's UID.
    pub uid: u32,
    /// Bytes written; else RFC822.SIZE, where it is known.
    pub size: Option<u64>,
    /// INTERNALDATE, where it is known.
    pub date: Option<&'a str>,
    /// Why it was not copied.
    pub reason: &'a str,
    /// What the server said, or what happened.
    pub why: &'a str,
    /// The migration accepts that it is missing.
    pub accepted: bool,
    /// Its file, from the index's own folder on.
    pub file: Option<String>,
    /// Why there is no file.
    pub problem: Option<&'a str>,
}

/// The index while it is written.
#[derive(Debug)]
pub(crate) struct ExportIndex {
    path: PathBuf,
    to: PathBuf,
    file: BufWriter<File>,
}

impl ExportIndex {
    /// Adds a line.
    ///
    /// # Errors
    /// Internal, when it cannot be written.
    pub(crate) async fn add(&mut self, entry: &ExportIndexEntry<'_>) -> Result<()> {
        let mut line = serde_json::to_vec(entry)
            .map_err(|error| Error::internal(format!("cannot write the index as JSON: {error}")))?;
        line.push(b'\n');
        self.file.write_all(&line).await.map_err(|e| unusable("write", &self.path, &e))
    }

    /// Puts it in the place of the old one.
    ///
    /// # Errors
    /// Internal, when that fails.
    pub(crate) async fn finish(mut self) -> Result<()> {
        self.file.flush().await.map_err(|e| unusable("write", &self.path, &e))?;
        fs::rename(&self.path, &self.to).await.map_err(|e| unusable("rename", &self.path, &e))
    }
}

async fn make_folder(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path).await;
    made.map_err(|e| unusable("make", path, &e))
}

/// A new file for its owner only; what a dead process of the same number left is taken away.
async fn create(path: &Path) -> Result<File> {
    drop(fs::remove_file(path).await);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).await;
    file.map_err(|e| unusable("make", path, &e))
}

fn unusable(verb: &str, path: &Path, error: &io::Error) -> Error {
    Error::internal(format!("cannot {verb} {}: {error}", path.display()))
        .advice("The folder of --not-copied must be writable and on a disk with room")
}

/// A file name for any text: readable, of one level, never hidden, an option or too long; one that had to be changed ends
/// in a hash, so that two never meet.
fn file_name_for(text: &str) -> String {
    let safe = |c: char| if c.is_alphanumeric() || " ._@+-=,()".contains(c) { c } else { '_' };
    let mut name: String = text.chars().take(MAX_CHARS).map(safe).collect();
    if name.starts_with(['.', '-', ' ']) {
        name.replace_range(..1, "_");
    }
    if name.is_empty() || name.ends_with(['.', ' ']) {
        name.push('_');
    }
    if name == text { name } else { format!("{name}-{}", hash(text)) }
}

fn hash(text: &str) -> String {
    let hash = Sha256::digest(text.as_bytes());
    hash.iter().take(4).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, os::unix::fs::PermissionsExt as _};

    use proptest::prelude::*;

    use super::*;

    async fn put(files: &ExportFolder, folder: &str, bytes: &[u8]) -> PathBuf {
        let mut draft = files.begin_message(folder, 7, 1).await.unwrap();
        draft.file.write_all(bytes).await.unwrap();
        draft.commit().await.unwrap()
    }

    #[tokio::test]
    async fn a_message_never_takes_the_place_of_another_and_the_same_one_is_there_once() {
        let dir = tempfile::tempdir().unwrap();
        let files = ExportFolder::open(dir.path(), "alice").await.unwrap();
        let first = put(&files, "INBOX", b"one").await;
        assert_eq!(first, dir.path().join("alice/INBOX/7-1.eml"));
        let other = put(&files, "INBOX", b"two").await;
        assert_eq!(other, dir.path().join("alice/INBOX/7-1-2.eml"));
        assert_eq!(put(&files, "INBOX", b"one").await, first);
        assert_eq!(put(&files, "INBOX", b"two").await, other);
        assert_eq!([std::fs::read(&first).unwrap(), std::fs::read(&other).unwrap()], [b"one", b"two"]);
        assert_eq!(std::fs::read_dir(dir.path().join("alice/INBOX")).unwrap().count(), 2, "no draft is left");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&first), mode(first.parent().unwrap()), mode(files.root())), (0o600, 0o700, 0o700));
    }

    #[tokio::test]
    async fn names_of_folders_lead_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let files = ExportFolder::open(dir.path(), "alice").await.unwrap();
        let names =
            ["../../etc", "..", "/etc/passwd", "a/b", "a_b", "", ".ssh", "-rf", "index.jsonl", "a\0b\r\n", "x "];
        let mut paths = BTreeSet::new();
        for name in names {
            let path = put(&files, name, name.as_bytes()).await;
            assert_eq!(path.parent().unwrap().parent(), Some(files.root()), "{name:?}: {}", path.display());
            paths.insert(path);
        }
        assert_eq!(paths.len(), names.len());
        insta::assert_snapshot!(names.map(file_name_for).join(" | "), @"_._.._etc-74ccf3c5 | _._-5ec1f7e7 | _etc_passwd-74acf318 | a_b-c14cddc0 | a_b | _-e3b0c442 | _ssh-9a964bc3 | _rf-686c39ac | index.jsonl | a_b__-eee4d3a8 | x _-2ac3e029");
        files.begin_index().await.unwrap().finish().await.unwrap();
        assert!(files.root().join(INDEX_FILE).is_file());
    }

    proptest! {
        #[test]
        fn any_text_gives_one_plain_file_name(text in any::<String>()) {
            let name = file_name_for(&text);
            prop_assert!(!name.is_empty() && name.len() < 250);
            prop_assert!(!name.starts_with('.') && !name.contains(['/', '\0', '\n']));
        }
    }
}
