//! `mailferry checkpoint`: what a checkpoint holds, for people; and checkpoints of a cluster into a file and back.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};

use self::transfer::{CheckpointExportArgs, CheckpointImportArgs};
use crate::{
    error::{Error, Result},
    sync::checkpoint::Checkpoint,
    terminal_text::printable_json,
};

pub mod archive;
pub mod transfer;

const STATE_FOLDER_HINT: &str =
    "Checkpoints are in the state folder: ~/.local/state/mailferry/MIGRATION/USER-....checkpoint";

/// Print what a checkpoint holds, as JSON: accounts' fingerprint, folders, UIDVALIDITYs, UID maps. Or export the
/// checkpoints of a cluster, and import them.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct CheckpointArgs {
    /// Between a file and a cluster, where that is asked for.
    #[command(subcommand)]
    pub transfer: Option<CheckpointTransfer>,

    /// A checkpoint file from a state folder; `-` reads stdin.
    #[arg(value_name = "FILE", required = true)]
    file: Option<PathBuf>,
}

/// Checkpoints of a cluster into a file, and back.
#[derive(Debug, Clone, Subcommand)]
pub enum CheckpointTransfer {
    Export(CheckpointExportArgs),
    Import(CheckpointImportArgs),
}

impl CheckpointTransfer {
    /// Transfers checkpoints; gives the exit code.
    ///
    /// # Errors
    /// Configuration when a file cannot be read or is no checkpoint; what the API server refuses.
    pub async fn run(&self) -> Result<u8> {
        match self {
            Self::Export(args) => args.run().await,
            Self::Import(args) => args.run().await,
        }
    }
}

impl CheckpointArgs {
    /// The checkpoint as pretty-printed JSON.
    ///
    /// # Errors
    /// Configuration when the file cannot be read or is no checkpoint.
    pub fn render(&self) -> Result<String> {
        render(self.file.as_deref().unwrap_or(Path::new("-")))
    }
}

/// A checkpoint as pretty-printed JSON.
///
/// # Errors
/// Configuration when the file cannot be read or is no checkpoint.
fn render(file: &Path) -> Result<String> {
    serde_json::to_string_pretty(&read(file)?.describe())
        .map(|json| printable_json(&json).into_owned())
        .map_err(|e| Error::internal(format!("cannot write the checkpoint as JSON: {e}")))
}

/// The checkpoint in a file; `-` is stdin.
///
/// # Errors
/// Configuration when the file cannot be read or is no checkpoint.
pub(crate) fn read(file: &Path) -> Result<Checkpoint> {
    let path = file.display();
    let mut encoded = Vec::new();
    let read = if file.as_os_str() == "-" {
        io::stdin().lock().read_to_end(&mut encoded).map(drop)
    } else {
        std::fs::read(file).map(|bytes| encoded = bytes)
    };
    read.map_err(|e| Error::configuration(format!("cannot read {path}: {e}")).advice(STATE_FOLDER_HINT))?;
    // A state file holds the bytes, a MailboxSync's status the same as text.
    let checkpoint = Checkpoint::decode(&encoded).or_else(|error| match std::str::from_utf8(&encoded) {
        Ok(text) => Checkpoint::decode_text(text.trim()),
        Err(_) => Err(error),
    });
    checkpoint.map_err(|e| Error::configuration(format!("{path}: {}", e.what)).advice(STATE_FOLDER_HINT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(content: &[u8]) -> Result<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        render(file.path())
    }

    #[test]
    fn a_checkpoint_is_printed_as_json_from_a_state_file_and_from_a_status() {
        let checkpoint = Checkpoint { fingerprint: "0123abcd".into(), ..Checkpoint::default() };
        let from_file = printed(&checkpoint.encode().unwrap()).unwrap();
        let from_status = printed(format!("{}\n", checkpoint.encode_text().unwrap()).as_bytes()).unwrap();
        assert_eq!(from_file, from_status);
        let value: serde_json::Value = serde_json::from_str(&from_file).unwrap();
        assert_eq!(value["fingerprint"], "0123abcd");
    }

    #[test]
    fn what_is_no_checkpoint_is_a_configuration_error() {
        for content in [&b"not a checkpoint"[..], &[0xff, 0x00], &[]] {
            assert_eq!(printed(content).unwrap_err().class, crate::ErrorClass::Configuration);
        }
    }
}
