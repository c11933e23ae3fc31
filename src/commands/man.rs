//! `mailferry man`: the manual pages, made of what `--help` says.

use std::{fs, path::PathBuf};

use clap::{Args, Command};

use crate::error::{Error, Result};

/// Write the manual pages, one for each command, into a folder: `make install` puts them where man looks.
#[derive(Debug, Clone, Args)]
pub struct ManArgs {
    /// The folder; it is made where it is missing.
    #[arg(long, value_name = "DIR", required = true)]
    write: PathBuf,
}

impl ManArgs {
    /// Writes the pages of a program with this command line; returns where they are, for people.
    ///
    /// # Errors
    /// Configuration when they can't be written.
    pub fn render(&self, command_line: Command) -> Result<String> {
        let folder = &self.write;
        fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(command_line, folder)).map_err(|error| {
            Error::configuration(format!("cannot write manual pages into {}: {error}", folder.display()))
                .advice("Give a folder that you may write to by --write")
        })?;
        Ok(folder.display().to_string())
    }
}
