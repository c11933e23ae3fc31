//! What is left of a migration, from what its mailboxes have told: pure.

use crate::{
    api::{
        MailServerSpec, MailboxSyncStatus,
        mail_migration::Forecast,
        mailbox_sync::{SyncPhase, WorkerProgress},
    },
    controller::config::OperatorConfig,
    forecast::{KnownRates, WorkLeft, forecast_text, smoothed_speed, time_left},
};

/// Adds up what the mailboxes of a migration tell of their first syncs. Those that were not listed yet count like the
/// others on average.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListedWork {
    /// Mailboxes that are not synced, and not given up.
    left: u64,
    messages: ListedNumber,
    bytes: ListedNumber,
}

/// Messages or bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct ListedNumber {
    /// Mailboxes of which it is known, synced ones too.
    mailboxes: u64,
    /// What all of these hold.
    total: u64,
    /// What of it is not copied.
    left: u64,
    /// Mailboxes that are not synced, and of which it is not known.
    unknown: u64,
}

impl ListedNumber {
    fn add(&mut self, total: i64, left: Option<i64>) {
        let Some(left) = left else { return self.unknown += 1 };
        self.mailboxes += 1;
        self.total = self.total.saturating_add(u64::try_from(total).unwrap_or(0));
        self.left = self.left.saturating_add(u64::try_from(left).unwrap_or(0));
    }

    fn estimate(&self) -> Option<u64> {
        if self.unknown == 0 {
            return Some(self.left);
        }
        let mean = self.total.checked_div(self.mailboxes)?;
        Some(self.left.saturating_add(mean.saturating_mul(self.unknown)))
    }
}

impl ListedWork {
    /// Adds a mailbox; none: nothing is known of it.
    pub(crate) fn add(&mut self, status: Option<&MailboxSyncStatus>) {
        let phase = status.and_then(|status| status.phase);
        if matches!(phase, Some(SyncPhase::Failed | SyncPhase::Cancelled)) {
            return;
        }
        let progress = status.and_then(|status| status.worker.as_ref()?.progress.as_ref());
        if status.is_some_and(|status| status.syncs > 0) {
            // Its deltas are no part of the forecast.
            if let Some(progress) = progress {
                self.messages.add(progress.messages_total, Some(0));
                self.bytes.add(progress.bytes_total, Some(0));
            }
            return;
        }
        self.left += 1;
        let listed = progress.filter(|progress| progress.bytes_left.is_some() || progress.messages_total > 0);
        let none = WorkerProgress::default();
        let progress = listed.unwrap_or(&none);
        let messages_left = listed.map(|progress| progress.messages_total.saturating_sub(progress.messages_done));
        self.messages.add(progress.messages_total, messages_left);
        let bytes_left = progress.bytes_left;
        self.bytes.add(progress.bytes_done.saturating_add(bytes_left.unwrap_or(0)), bytes_left);
    }

    fn work_left(&self) -> WorkLeft {
        let Self { left, messages, bytes } = self;
        WorkLeft { mailboxes: *left, messages: messages.estimate(), bytes: bytes.estimate() }
    }

    /// The forecast of the migration; none once all mailboxes are synced. `before` is the one that stands, `speed` what is
    /// copied now, bytes per second.
    #[must_use]
    pub(crate) fn forecast(&self, before: Option<&Forecast>, speed: i64, limits: KnownRates) -> Option<Forecast> {
        let work = self.work_left();
        if work.mailboxes == 0 {
            return None;
        }
        let before = before.and_then(|before| before.bytes_per_second).and_then(|speed| u64::try_from(speed).ok());
        let measured = smoothed_speed(before, u64::try_from(speed).unwrap_or(0));
        let time = time_left(&work, &KnownRates { measured, ..limits });
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Some(Forecast {
            text: forecast_text(&work, &time),
            mailboxes_left: number(work.mailboxes),
            mailboxes_unlisted: number(self.messages.unknown),
            messages_left: work.messages.map(number),
            bytes_left: work.bytes.map(number),
            bytes_per_second: measured.map(number),
            seconds_left: time.seconds().map(number),
        })
    }
}

/// The lowest rates that limits on either side allow all syncs of a migration together.
#[must_use]
pub(crate) fn rates_within_limits(servers: &[MailServerSpec], config: &OperatorConfig) -> KnownRates {
    let starts = servers.iter().flat_map(|server| {
        let cluster = config.host_limit(&server.host, server.effective_port()).starts_per_minute;
        let own = server.limits.starts_per_minute.and_then(|limit| u64::try_from(limit).ok());
        [own, cluster.and_then(|limit| u64::try_from(limit).ok())]
    });
    let limit = servers.iter().filter_map(|server| Some(server.limits.bytes_per_second?.bytes())).min();
    KnownRates { measured: None, limit, starts_per_minute: starts.flatten().min() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::WorkerStatus,
        controller::config::{HostLimit, OperatorConfig},
    };

    /// A mailbox in its first sync, with so many messages and bytes, half of which are copied.
    fn listed(messages: i64, bytes: Option<i64>) -> MailboxSyncStatus {
        let half = bytes.unwrap_or(0) / 2;
        let progress = WorkerProgress {
            messages_total: messages,
            messages_done: messages / 2,
            bytes_total: bytes.unwrap_or(0),
            bytes_done: half,
            bytes_left: bytes.map(|bytes| bytes - half),
            ..WorkerProgress::default()
        };
        let worker = Some(WorkerStatus { progress: Some(progress), ..WorkerStatus::default() });
        MailboxSyncStatus { phase: Some(SyncPhase::Running), worker, ..MailboxSyncStatus::default() }
    }

    fn forecast(mailboxes: &[Option<MailboxSyncStatus>], speed: i64) -> Option<Forecast> {
        let mut work = ListedWork::default();
        for status in mailboxes {
            work.add(status.as_ref());
        }
        work.forecast(None, speed, KnownRates::default())
    }

    #[test]
    fn mailboxes_that_were_not_listed_count_like_the_others() {
        let mailboxes = [Some(listed(100, Some(1000))), Some(listed(300, Some(3000))), None];
        let told = forecast(&mailboxes, 10).unwrap();
        assert_eq!((told.mailboxes_left, told.mailboxes_unlisted), (3, 1));
        assert_eq!((told.messages_left, told.bytes_left), (Some(50 + 150 + 200), Some(500 + 1500 + 2000)));
        assert_eq!((told.seconds_left, told.bytes_per_second), (Some(400), Some(10)));
        assert_eq!(told.text, "3.9 KiB: about 7 minutes at 10 B/s");
    }

    #[test]
    fn a_source_that_tells_no_sizes_leaves_the_time_unknown() {
        let told = forecast(&[Some(listed(100, None)), None], 10).unwrap();
        assert_eq!((told.messages_left, told.bytes_left, told.seconds_left), (Some(150), None, None));
        assert_eq!(told.text, "150 messages of unknown size: time unknown");
        let told = forecast(&[None, Some(MailboxSyncStatus::default())], 0).unwrap();
        assert_eq!(told.text, "2 mailboxes of unknown size: time unknown");
    }

    #[test]
    fn who_is_synced_or_given_up_is_not_waited_for() {
        let synced = MailboxSyncStatus { syncs: 1, phase: Some(SyncPhase::Queued), ..listed(100, Some(1000)) };
        let failed = MailboxSyncStatus { phase: Some(SyncPhase::Failed), ..listed(100, Some(1000)) };
        assert_eq!(forecast(&[Some(synced.clone()), Some(failed)], 10), None);
        let told = forecast(&[Some(synced), None], 0).unwrap();
        assert_eq!((told.mailboxes_left, told.bytes_left), (1, Some(1000)), "the synced one tells how large they are");
    }

    #[test]
    fn the_speed_that_was_measured_stays_while_nothing_runs() {
        let mut work = ListedWork::default();
        work.add(Some(&listed(100, Some(1000))));
        let first = work.forecast(None, 100, KnownRates::default());
        assert_eq!(work.forecast(first.as_ref(), 0, KnownRates::default()), first);
    }

    #[test]
    fn of_all_limits_on_starts_the_lowest_counts() {
        let server = |host: &str, starts| {
            let mut server = MailServerSpec { host: host.to_owned(), ..MailServerSpec::default() };
            server.limits.starts_per_minute = starts;
            server
        };
        let limit = HostLimit { starts_per_minute: Some(5), ..HostLimit::default() };
        let config = OperatorConfig { host_limits: [("new.example".to_owned(), limit)].into(), ..Default::default() };
        let servers = [server("old.example", Some(30)), server("new.example", None)];
        assert_eq!(rates_within_limits(&servers, &config).starts_per_minute, Some(5));
        assert_eq!(rates_within_limits(&servers[..1], &config).starts_per_minute, Some(30));
        assert_eq!(rates_within_limits(&[], &config), KnownRates::default());
    }
}
