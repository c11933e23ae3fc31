//! Writes a file that was not there before: what a user has is never replaced.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

use crate::error::{Error, Result};

/// Writes a new file. One that is there with the same content is as good.
///
/// # Errors
/// Configuration where it holds something else, or can't be written.
pub(super) fn write_new(path: &Path, text: &str) -> Result<()> {
    let written = OpenOptions::new().write(true).create_new(true).open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    match written {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::read(path) {
            Ok(content) if content == text.as_bytes() => Ok(()),
            _ => Err(Error::configuration(format!("{} holds something else already", path.display()))
                .advice("Remove it, or name another file")),
        },
        Err(error) => Err(Error::configuration(format!("cannot write {}: {error}", path.display()))
            .advice("Name a file that you may write")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_once_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acme.yaml");
        write_new(&path, "one").unwrap();
        write_new(&path, "one").unwrap();
        let error = write_new(&path, "two").unwrap_err();
        assert!(error.what.contains("acme.yaml") && error.advice.unwrap().contains("another file"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        write_new(folder.path(), "x").unwrap_err();
        write_new(&folder.path().join("no/folder"), "x").unwrap_err();
    }
}
