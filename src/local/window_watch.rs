//! Which mailboxes may run now by the time windows of their servers, and when that changes.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;

use super::mailbox_queue::ServerLimits;
use crate::{
    api::time_window::TimeWindow,
    error::Error,
    sync::spec::SyncSpec,
    sync_times::{ClosedTimes, SyncTimes, sync_times, windows_text},
};

/// The windows that count for the mailboxes of a run, as they were looked at last.
#[derive(Debug, Default)]
pub(crate) struct WindowWatch {
    routes: Vec<WindowedRoute>,
    /// The route of each mailbox that windows count for, by the caller's number for the mailbox.
    of_mailbox: HashMap<usize, usize>,
}

/// Servers that mailboxes have in common.
#[derive(Debug)]
struct WindowedRoute {
    servers: Vec<(String, Vec<TimeWindow>)>,
    times: SyncTimes,
}

impl WindowedRoute {
    fn look(&mut self, now: Timestamp) {
        self.times =
            sync_times(self.servers.iter().map(|(server, windows)| (server.as_str(), windows.as_slice())), now);
    }
}

impl WindowWatch {
    /// Takes up a mailbox, as its servers' windows are now.
    pub(crate) fn add(&mut self, mailbox: usize, spec: &SyncSpec, limits: &ServerLimits, now: Timestamp) {
        let mut addresses = vec![spec.source.address().to_lowercase(), spec.destination.address().to_lowercase()];
        addresses.dedup();
        let limited = addresses.into_iter().filter_map(|address| Some((limits.get(&address)?, address)));
        let servers: Vec<_> = limited
            .flat_map(|(limit, address)| limit.windows.iter().map(move |windows| (address.clone(), windows.clone())))
            .collect();
        if servers.is_empty() {
            return;
        }
        let known = self.routes.iter().position(|route| route.servers == servers);
        let route = known.unwrap_or_else(|| {
            let mut route = WindowedRoute { servers, times: SyncTimes::ALWAYS };
            route.look(now);
            self.routes.push(route);
            self.routes.len() - 1
        });
        self.of_mailbox.insert(mailbox, route);
    }

    /// Brings it up to date.
    pub(crate) fn look(&mut self, now: Timestamp) {
        self.routes.iter_mut().for_each(|route| route.look(now));
    }

    /// Why a mailbox may not run now, if it may not.
    #[must_use]
    pub(crate) fn closed(&self, mailbox: usize) -> Option<&ClosedTimes> {
        self.routes.get(*self.of_mailbox.get(&mailbox)?)?.times.closed()
    }

    /// When another mailbox may run, or may no more.
    #[must_use]
    pub(crate) fn next_change(&self) -> Option<Timestamp> {
        self.routes.iter().filter_map(|route| route.times.changes_at()).min()
    }
}

/// Why no sync of a mailbox can ever run, by the windows of its servers.
#[must_use]
pub(crate) fn never_open(spec: &SyncSpec, limits: &ServerLimits, now: Timestamp) -> Option<Error> {
    let mut watch = WindowWatch::default();
    watch.add(0, spec, limits, now);
    let closed = watch.closed(0).filter(|closed| closed.opens_at.is_none())?;
    Some(Error::configuration(closed.words.clone()).advice("Correct limits.windows").in_mailbox(&spec.mailbox))
}

/// The windows of one server, and whether one is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServerWindows {
    /// Host and port.
    pub server: String,
    /// As people read them.
    pub windows: String,
    /// True while one is open.
    pub open: bool,
    /// When that changes; none: not soon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

impl ServerWindows {
    /// One line for people.
    #[must_use]
    pub(crate) fn line(&self) -> String {
        let (now, until) = match (self.open, &self.until) {
            (true, None) => ("open", String::new()),
            (true, Some(until)) => ("open", format!(" until {until}")),
            (false, None) => ("closed for ever", String::new()),
            (false, Some(until)) => ("closed", format!(" until {until}")),
        };
        format!("time windows of {}: {}, now {now}{until}", self.server, self.windows)
    }
}

/// The windows of all servers that have some.
#[must_use]
pub(crate) fn windows_of_servers(limits: &ServerLimits, now: Timestamp) -> Vec<ServerWindows> {
    let all = limits.iter().flat_map(|(server, limit)| limit.windows.iter().map(move |windows| (server, windows)));
    let found = all.map(|(server, windows)| {
        let times = sync_times([(server.as_str(), windows.as_slice())], now);
        let (open, until) = (times.closed().is_none(), times.changes_at().map(|at| at.to_string()));
        ServerWindows { server: server.clone(), windows: windows_text(windows), open, until }
    });
    found.collect()
}
