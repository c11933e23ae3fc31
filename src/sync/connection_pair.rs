//! A pair of connections: one to each side.

use std::sync::Arc;

use super::progress::SyncProgress;
use crate::{
    error::{Error, Result, Side},
    imap::{Endpoint, Session, connect, permit::WritePermit},
};

/// One connection to each side.
#[derive(Debug)]
pub(crate) struct ConnectionPair {
    /// Reads; opens folders by EXAMINE only.
    pub source: Session,
    /// Writes.
    pub destination: Session,
}

impl ConnectionPair {
    /// Connects and logs in on both sides at once. Nothing is written to the destination without the permit.
    ///
    /// # Errors
    /// The source's error, or else the destination's.
    pub(crate) async fn connect(
        source: &Arc<Endpoint>,
        destination: &Arc<Endpoint>,
        progress: &SyncProgress,
        permit: &Arc<dyn WritePermit>,
    ) -> Result<Self> {
        let moved = &progress.bytes_moved;
        let to_destination = async {
            permit.check()?;
            let mut session = connect(destination, moved).await?;
            session.require_permit(Arc::clone(permit));
            progress.record_login();
            Ok::<_, Error>(session)
        };
        let (source, destination) = tokio::join!(connect(source, moved), to_destination);
        Ok(Self { source: source?, destination: destination? })
    }

    /// Keeps both connections alive while nothing is asked; `but` names a side that must be left alone.
    ///
    /// # Errors
    /// When one of them ends.
    pub(crate) async fn keep_alive(&mut self, but: Option<Side>) -> Result<()> {
        for session in [&mut self.source, &mut self.destination] {
            let endpoint = session.endpoint();
            if Some(endpoint.side) != but && session.idle() >= endpoint.timeouts.keepalive {
                session.run("NOOP").await?;
            }
        }
        Ok(())
    }

    /// Finds out whether both connections are there still.
    ///
    /// # Errors
    /// When one of them ended.
    pub(crate) async fn check(&mut self) -> Result<()> {
        let (source, destination) = tokio::join!(self.source.run("NOOP"), self.destination.run("NOOP"));
        source.and(destination).map(|_| ())
    }

    /// Says goodbye on both sides.
    pub(crate) async fn logout(self) {
        tokio::join!(self.source.logout(), self.destination.logout());
    }
}
