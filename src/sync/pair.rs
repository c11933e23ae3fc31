//! A pair of connections: one to each side.

use std::sync::Arc;

use crate::{
    error::Result,
    imap::{Endpoint, Session, connect, session::Moved},
};

/// One connection to each side.
#[derive(Debug)]
pub struct Pair {
    /// Reads; opens folders by EXAMINE only.
    pub source: Session,
    /// Writes.
    pub destination: Session,
}

impl Pair {
    /// Connects and logs in on both sides at once.
    ///
    /// # Errors
    /// The source's error, or else the destination's.
    pub async fn connect(source: &Arc<Endpoint>, destination: &Arc<Endpoint>, moved: &Moved) -> Result<Self> {
        let (source, destination) = tokio::join!(connect(source, moved), connect(destination, moved));
        Ok(Self { source: source?, destination: destination? })
    }

    /// Says goodbye on both sides.
    pub async fn logout(self) {
        tokio::join!(self.source.logout(), self.destination.logout());
    }
}
