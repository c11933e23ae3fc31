//! Lets one pair of connections append alone, while all others make a pause.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::sync::RwLock;

/// Counts those who want to append alone, so that all others make a pause.
#[derive(Debug, Default)]
pub(crate) struct ExclusiveAppend {
    wanted: AtomicUsize,
    /// Held to read by a pass, to write by who appends alone.
    pub lock: RwLock<()>,
}

/// While this is held, passes make a pause.
#[derive(Debug)]
pub(crate) struct ExclusiveRequest<'a>(&'a ExclusiveAppend);

impl ExclusiveAppend {
    /// From now on other passes make a pause.
    pub(crate) fn request(&self) -> ExclusiveRequest<'_> {
        self.wanted.fetch_add(1, SeqCst);
        ExclusiveRequest(self)
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(SeqCst) > 0
    }
}

impl Drop for ExclusiveRequest<'_> {
    fn drop(&mut self) {
        self.0.wanted.fetch_sub(1, SeqCst);
    }
}
