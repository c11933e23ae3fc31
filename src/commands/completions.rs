//! `mailferry completions`: what a shell needs to complete commands and flags.

use clap::{Args, Command};
use clap_complete::{Shell, generate};

use crate::error::{Error, Result};

/// Print what a shell needs to complete commands and flags: `source <(mailferry completions bash)`.
///
/// `make install` puts it where bash, zsh and fish look for it.
#[derive(Debug, Clone, Copy, Args)]
pub struct CompletionsArgs {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl CompletionsArgs {
    /// The script for a program with this command line.
    ///
    /// # Errors
    /// Internal when it is no text.
    pub fn render(self, mut command_line: Command) -> Result<String> {
        let name = command_line.get_name().to_owned();
        let mut script = Vec::new();
        generate(self.shell, &mut command_line, name, &mut script);
        String::from_utf8(script).map_err(|_| Error::internal("a script for a shell is not UTF-8"))
    }
}
