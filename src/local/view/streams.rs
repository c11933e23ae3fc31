//! Who reads what this process writes: a person, or a program.

use std::{
    fs::{File, Metadata},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
};

use super::OutputMode;

/// What is shown where nobody asked for anything.
#[must_use]
pub(crate) fn usual_output() -> OutputMode {
    let both = pipe_of(&io::stdout()).zip(pipe_of(&io::stderr()));
    // People read what goes to a terminal, a file, another program's input, or with errors into one mail or log. Who gives
    // each stream a pipe of its own is a program, which got JSON lines before it could ask for them.
    if both.is_some_and(|(output, errors)| output != errors) { OutputMode::Json } else { OutputMode::Text }
}

/// Which pipe a stream is, if it is one.
fn pipe_of(stream: &impl AsFd) -> Option<(u64, u64)> {
    let copy: OwnedFd = stream.as_fd().try_clone_to_owned().ok()?;
    let facts: Metadata = File::from(copy).metadata().ok()?;
    facts.file_type().is_fifo().then(|| (facts.dev(), facts.ino()))
}
