//! Locks between processes: a file that one process holds (flock) and writes its number into.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Why a lock was not taken.
#[derive(Debug)]
pub(super) enum LockFailure {
    /// Another process holds it; its number, where it could be read.
    Held(Option<u32>),
    /// The file cannot be used.
    Unusable(io::Error),
}

/// Takes the lock, which is held until the file is dropped or the process ends. The file is made where it is missing, mode
/// 0600, and stays.
pub(super) fn take_lock(path: &Path) -> Result<File, LockFailure> {
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(LockFailure::Unusable)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(LockFailure::Held(holder(&mut lock))),
        Err(TryLockError::Error(error)) => return Err(LockFailure::Unusable(error)),
    }
    lock.set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| writeln!(lock, "{}", std::process::id()))
        .map_err(LockFailure::Unusable)?;
    Ok(lock)
}

fn holder(lock: &mut File) -> Option<u32> {
    let mut content = String::new();
    lock.read_to_string(&mut content).ok()?;
    content.trim().parse().ok()
}

/// Who holds a lock, and how to stop it.
pub(super) fn holder_text(pid: Option<u32>) -> (String, String) {
    match pid {
        Some(pid) => (format!("process {pid}"), format!(", or stop it with `kill {pid}`")),
        None => ("another process".to_owned(), String::new()),
    }
}
