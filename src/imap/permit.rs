//! Whether a connection may still write. A sync that was replaced by another, or that cannot know whether it was, must not
//! send one byte more to the destination.

use std::fmt::Debug;

use crate::error::Result;

/// Asked before each write to a destination, so the answer must be cheap.
pub trait WritePermit: Debug + Send + Sync {
    /// Says whether this sync may still write. A refusal is final.
    ///
    /// # Errors
    /// Internal when it may not: no class that is tried again, so that the whole sync ends.
    fn check(&self) -> Result<()>;

    /// True while it is not known whether this sync may still write: writing waits, and asks again soon.
    fn is_suspended(&self) -> bool {
        false
    }
}

/// Always granted: a lock on the state keeps other syncs away.
#[derive(Debug, Clone, Copy, Default)]
pub struct AlwaysPermitted;

impl WritePermit for AlwaysPermitted {
    fn check(&self) -> Result<()> {
        Ok(())
    }
}
