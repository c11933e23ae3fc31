//! An import as files: one with MailMigrations and ConfigMaps, for everybody to read, and one with Secrets, for its owner only.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{objects::ImportMetadata, plan::ImportPlan};
use crate::error::{Error, Result};

/// The file with MailMigrations.
pub(crate) const MIGRATIONS_FILE: &str = "migration.yaml";
/// The file with Secrets.
pub(crate) const SECRETS_FILE: &str = "secrets.yaml";

/// A file to write.
struct OutputFile {
    path: PathBuf,
    text: Zeroizing<String>,
    mode: u32,
}

/// What happened to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrittenFile {
    /// Where it is.
    pub path: PathBuf,
    /// It held the same already.
    pub unchanged: bool,
}

/// Writes an import into a folder, which is made where it is not there. A file that holds something else is not replaced
/// without `force`; then nothing is written at all.
///
/// # Errors
/// Configuration when a file is there already, or can't be written.
pub(crate) fn write(
    folder: &Path,
    plan: &ImportPlan,
    common: &ImportMetadata,
    force: bool,
) -> Result<Vec<WrittenFile>> {
    let files = files(folder, plan, common)?;
    let mut same = Vec::new();
    for OutputFile { path, text, .. } in &files {
        let there = match fs::read(path) {
            Ok(bytes) => Some(Zeroizing::new(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(unwritable(path, &error)),
        };
        if !force && there.as_ref().is_some_and(|there| there.as_slice() != text.as_bytes()) {
            return Err(Error::configuration(format!("{} is there already and holds something else", path.display()))
                .advice("Replace it by --force, or write elsewhere by --output DIR"));
        }
        same.push(there.is_some_and(|there| there.as_slice() == text.as_bytes()));
    }
    fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
    files
        .into_iter()
        .zip(same)
        .map(|(file, unchanged)| {
            // What is there may be readable by others: the mode is set in any case.
            replace(&file).map_err(|error| unwritable(&file.path, &error))?;
            Ok(WrittenFile { path: file.path, unchanged })
        })
        .collect()
}

fn files(folder: &Path, plan: &ImportPlan, common: &ImportMetadata) -> Result<Vec<OutputFile>> {
    let config_maps = plan.config_maps.iter().map(|map| map.yaml(common));
    let migrations = plan.migrations.iter().map(super::objects::MigrationManifest::yaml);
    let migrations: Vec<String> = config_maps.chain(migrations).collect::<Result<_>>()?;
    let text = format!("# Written by `mailferry import`.\n{}", migrations.join("---\n"));
    let mut files = vec![OutputFile { path: folder.join(MIGRATIONS_FILE), text: Zeroizing::new(text), mode: 0o666 }];
    if !plan.secrets.is_empty() {
        let documents: Vec<_> = plan.secrets.iter().map(|secret| secret.yaml(common)).collect();
        let start = "# Written by `mailferry import`. Passwords in base64, which anybody can read: encrypt this file \
                     before it goes into a repository.\n";
        let length = start.len() + documents.iter().map(|document| document.len() + 4).sum::<usize>();
        let mut text = Zeroizing::new(String::with_capacity(length));
        text.push_str(start);
        for (index, document) in documents.iter().enumerate() {
            if index > 0 {
                text.push_str("---\n");
            }
            text.push_str(document);
        }
        files.push(OutputFile { path: folder.join(SECRETS_FILE), text, mode: 0o600 });
    }
    Ok(files)
}

/// Writes beside the file and puts it in its place: a reader sees the old one or the new one, and never with the old one's
/// mode.
fn replace(OutputFile { path, text, mode }: &OutputFile) -> io::Result<()> {
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(*mode).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&beside)))
}

fn unwritable(path: &Path, error: &io::Error) -> Error {
    Error::configuration(format!("cannot write {}: {error}", path.display()))
        .advice("Give a folder that you may write to by --output")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use secrecy::SecretBox;
    use serde_json::json;

    use super::*;
    use crate::import::objects::{MigrationManifest, SecretObject};

    fn common() -> ImportMetadata {
        ImportMetadata { import: "acme".into(), namespace: None }
    }

    fn plan(password: &str) -> ImportPlan {
        let values = [("k".to_owned(), SecretBox::new(password.as_bytes().into()))];
        let secret = SecretObject { name: "s".into(), values: values.into() };
        let migration = MigrationManifest::new(&common(), "acme", &json!({}));
        ImportPlan { migrations: vec![migration], secrets: vec![secret], config_maps: Vec::new(), mailboxes: 1 }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn secrets_are_for_their_owner_only_and_nothing_is_replaced_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("acme");
        let secrets = target.join(SECRETS_FILE);
        let write = |password: &str, force| write(&target, &plan(password), &common(), force);
        assert_eq!(write("a", false).unwrap().len(), 2);
        assert_eq!(mode(&secrets), 0o600);
        assert!(write("a", false).unwrap().iter().all(|written| written.unchanged));

        fs::set_permissions(&secrets, fs::Permissions::from_mode(0o644)).unwrap();
        let before = fs::read(&secrets).unwrap();
        let error = write("b", false).unwrap_err().to_string();
        assert!(error.contains("secrets.yaml is there already") && error.contains("--force"), "{error}");
        assert_eq!(fs::read(&secrets).unwrap(), before);
        let written = write("b", true).unwrap();
        assert_eq!(written.iter().map(|written| written.unchanged).collect::<Vec<_>>(), [true, false]);
        assert!(fs::read(&secrets).unwrap() != before);
        assert_eq!(mode(&secrets), 0o600);
        assert_eq!(fs::read_dir(&target).unwrap().count(), 2);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = write(&file.join("sub"), &plan("a"), &common(), false).unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("--output"), "{error}");
    }
}
