//! `mailferry crds`: the CustomResourceDefinitions, for a cluster or for editors.

use std::{fs, path::PathBuf};

use clap::Args;

use crate::{
    api::crd,
    error::{Error, Result},
};

/// Print the CustomResourceDefinitions as YAML: `mailferry crds | kubectl apply --server-side -f -`.
#[derive(Debug, Clone, Args)]
pub struct CrdsArgs {
    /// Write each into a file of its own in this folder instead of printing it.
    #[arg(long, value_name = "DIR")]
    pub write: Option<PathBuf>,
}

impl CrdsArgs {
    /// The definitions as one YAML stream, or the paths of the files that were written, a line each.
    ///
    /// # Errors
    /// Configuration when the folder or a file in it cannot be written.
    pub fn render(&self) -> Result<String> {
        let Some(folder) = &self.write else { return crd::all_yaml() };
        let mut written = String::new();
        for (name, yaml) in crd::files()? {
            let path = folder.join(name);
            fs::create_dir_all(folder).and_then(|()| fs::write(&path, yaml)).map_err(|e| {
                Error::configuration(format!("cannot write {}: {e}", path.display()))
                    .advice("Give a folder that you may write to by --write")
            })?;
            written.push_str(&path.display().to_string());
            written.push('\n');
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_hold_what_is_printed() {
        let folder = tempfile::tempdir().unwrap();
        let write = folder.path().join("crds");
        let paths = CrdsArgs { write: Some(write) }.render().unwrap();
        let documents: Vec<String> = paths.lines().map(|path| fs::read_to_string(path).unwrap()).collect();
        assert!(documents.join("---\n") == CrdsArgs { write: None }.render().unwrap());
        assert_eq!(paths.lines().count(), 3);
    }
}
