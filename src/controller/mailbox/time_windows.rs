//! Whether the time windows of a mailbox's servers let it run. Pure.

use jiff::Timestamp;

use super::slot_request::server_address;
use crate::{
    api::MailServerSpec,
    error::Error,
    sync_times::{SyncTimes, check_windows, sync_times},
};

/// Whether a sync between these servers may run now.
#[must_use]
pub(crate) fn times_of_servers(sides: [&MailServerSpec; 2], now: Timestamp) -> SyncTimes {
    if sides.iter().all(|side| side.limits.windows.is_empty()) {
        return SyncTimes::ALWAYS;
    }
    let addresses = sides.map(server_address);
    let servers = addresses.iter().zip(sides);
    sync_times(servers.map(|(address, side)| (address.as_str(), side.limits.windows.as_slice())), now)
}

/// Why no sync between these servers can ever run, by the windows as they are written.
#[must_use]
pub(crate) fn never_open(sides: [&MailServerSpec; 2], now: Timestamp) -> Option<Error> {
    if let Some(error) = sides.iter().find_map(|side| check_windows(&side.limits.windows).err()) {
        return Some(error);
    }
    let times = times_of_servers(sides, now);
    let closed = times.closed().filter(|closed| closed.opens_at.is_none())?;
    Some(Error::configuration(closed.words.clone()).advice("Let limits.windows of both servers have a time in common"))
}
