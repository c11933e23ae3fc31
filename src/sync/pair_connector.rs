//! How pairs of connections are made, and made again after a loss.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{connection_pair::ConnectionPair, progress::SyncProgress, spec::SyncSpec};
use crate::{
    error::Result,
    imap::{Endpoint, permit::WritePermit},
};

/// How connections are made, and made again.
pub(super) struct PairConnector {
    source: Arc<Endpoint>,
    destination: Arc<Endpoint>,
    progress: Arc<SyncProgress>,
    permit: Arc<dyn WritePermit>,
}

/// Further pairs of connections on their way.
pub(super) type SparePairs = JoinSet<Result<ConnectionPair>>;

impl PairConnector {
    /// Connects the accounts of `spec`.
    pub(super) fn new(spec: &SyncSpec, progress: &Arc<SyncProgress>, permit: &Arc<dyn WritePermit>) -> Self {
        Self {
            source: Arc::new(spec.source.clone()),
            destination: Arc::new(spec.destination.clone()),
            progress: Arc::clone(progress),
            permit: Arc::clone(permit),
        }
    }

    /// A new pair of connections; none when it is asked to stop before both are there.
    pub(super) async fn connect_unless(&self, stop: &CancellationToken) -> Result<Option<ConnectionPair>> {
        tokio::select! {
            pair = self.connect() => pair.map(Some),
            () = stop.cancelled() => Ok(None),
        }
    }

    /// Begins to make further pairs, so that there are as many as folders need and `connections` allows.
    pub(super) fn grow(self: &Arc<Self>, spare: &mut SparePairs, connections: usize, folders: usize) {
        for _ in 1..connections.min(folders) {
            let connector = Arc::clone(self);
            spare.spawn(async move { connector.connect().await }.in_current_span());
        }
    }

    async fn connect(&self) -> Result<ConnectionPair> {
        ConnectionPair::connect(&self.source, &self.destination, &self.progress, &self.permit).await
    }
}
