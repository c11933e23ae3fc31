//! The operator's metrics, for Prometheus. Their number does not grow with mailboxes, and none names a person, a host or a
//! namespace.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector, proto::MetricFamily,
};

use crate::{
    api::{mail_migration::MigrationPhase, mailbox_sync::SyncPhase},
    error::{Error, ErrorClass, Result, Side},
};

/// From a minute's delta to a deadline's worth, seconds.
const SYNC_BUCKETS: [f64; 11] = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0, 21_600.0];
/// From at once to days, seconds.
const WAIT_BUCKETS: [f64; 10] = [1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0, 21_600.0, 86_400.0, 259_200.0];
/// From a look that finds nothing to do, to many writes, seconds.
const RECONCILE_BUCKETS: [f64; 9] = [0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0];

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncResult {
    /// All that there was to do is done.
    Synced,
    /// Stopped at a checkpoint, on request.
    Stopped,
    /// Ended with an error of the sync.
    Failed,
    /// Its pod was lost: eviction, node loss, preemption, image pull.
    Lost,
}

/// Why an attempt was restarted before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// It ran as long as it may.
    Deadline,
    /// It moved nothing for too long.
    Stall,
    /// Its pod did not run in time.
    NotStarted,
    /// Nothing was heard of it for too long.
    LostContact,
}

/// What a worker did since it was last counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// Messages copied, found at the destination, or skipped with a reason.
    pub messages: u64,
    /// Bytes read or written on IMAP connections.
    pub bytes: u64,
}

/// The operator's metrics. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

type Bring = Box<dyn Fn(&Metrics) + Send + Sync>;

struct Inner {
    registry: Registry,
    /// Brings gauges up to date.
    before: OnceLock<Bring>,
    migrations: IntGaugeVec,
    mailboxes: IntGaugeVec,
    syncs: HistogramVec,
    errors: IntCounterVec,
    restarts: IntCounterVec,
    messages: IntCounter,
    bytes: IntCounter,
    queued: IntGauge,
    running: IntGauge,
    admission_wait: Histogram,
    pods_refused: IntCounter,
    api_requests: IntCounterVec,
    reconciles: HistogramVec,
    server_checks: IntCounterVec,
    leader: IntGauge,
}

impl Metrics {
    /// All at zero.
    ///
    /// # Errors
    /// Internal when two have one name, or a name is none: a defect.
    pub fn new() -> Result<Self> {
        Self::build().map_err(|error| Error::internal(format!("metrics can't be made: {error}")))
    }

    fn build() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let of = Maker(&registry);
        let build = of.gauges("build_info", "The running version of Mailferry; always 1.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let inner = Inner {
            migrations: of.gauges("migrations", "MailMigrations by phase.", &["phase"])?,
            mailboxes: of.gauges("mailboxes", "MailboxSyncs by phase.", &["phase"])?,
            syncs: of.histograms(
                "sync_duration_seconds",
                "How long attempts at syncs ran, by how they ended; the count is the number of attempts.",
                &["result"],
                &SYNC_BUCKETS,
            )?,
            errors: of.counters(
                "sync_errors_total",
                "Errors that ended attempts, by class and by the side that failed.",
                &["class", "side"],
            )?,
            restarts: of.counters("sync_restarts_total", "Attempts that were stopped to be restarted.", &["reason"])?,
            messages: of.counter(
                "messages_total",
                "Messages that syncs dealt with: copied, found at the destination, or skipped with a reason.",
            )?,
            bytes: of.counter("moved_bytes_total", "Bytes that syncs read or wrote on IMAP connections.")?,
            queued: of.gauge("syncs_queued", "Syncs that wait for a slot.")?,
            running: of.gauge("syncs_running", "Syncs that hold their slots.")?,
            admission_wait: of.histogram(
                "sync_queue_wait_seconds",
                "How long syncs waited for a slot.",
                &WAIT_BUCKETS,
            )?,
            pods_refused: of
                .counter("pods_refused_total", "Pods that the API server refused to create, by a quota or a policy.")?,
            api_requests: of.counters(
                "api_requests_total",
                "Requests to the API server by verb, resource and HTTP status; `error` where there was no answer.",
                &["verb", "resource", "code"],
            )?,
            reconciles: of.histograms(
                "reconcile_duration_seconds",
                "How long one look at an object took, by controller and result.",
                &["controller", "result"],
                &RECONCILE_BUCKETS,
            )?,
            server_checks: of.counters(
                "server_checks_total",
                "Connection tests of MailServers, by the class of the error, or Ready.",
                &["result"],
            )?,
            leader: of.gauge("leader", "1 while this process leads, else 0.")?,
            registry,
            before: OnceLock::new(),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// What is called before each reading, to bring gauges up to date; only the first is kept.
    pub fn before_reading(&self, bring: impl Fn(&Self) + Send + Sync + 'static) {
        drop(self.0.before.set(Box::new(bring)));
    }

    /// How many migrations are in which phase; phases that are not told have none.
    pub fn set_migrations(&self, counts: impl IntoIterator<Item = (MigrationPhase, usize)>) {
        set(&self.0.migrations, counts.into_iter().map(|(phase, count)| (format!("{phase:?}"), count)));
    }

    /// How many mailboxes are in which phase; phases that are not told have none.
    pub fn set_mailboxes(&self, counts: impl IntoIterator<Item = (SyncPhase, usize)>) {
        set(&self.0.mailboxes, counts.into_iter().map(|(phase, count)| (format!("{phase:?}"), count)));
    }

    /// An attempt ended.
    pub fn sync_ended(&self, result: SyncResult, took: Duration) {
        let result = match result {
            SyncResult::Synced => "synced",
            SyncResult::Stopped => "stopped",
            SyncResult::Failed => "failed",
            SyncResult::Lost => "lost",
        };
        self.0.syncs.with_label_values(&[result]).observe(took.as_secs_f64());
    }

    /// An attempt ended with an error.
    pub fn sync_error(&self, class: ErrorClass, side: Option<Side>) {
        let side = side.map_or("none", |side| match side {
            Side::Source => "source",
            Side::Destination => "destination",
        });
        self.0.errors.with_label_values(&[&format!("{class}"), side]).inc();
    }

    /// An attempt was stopped, to be restarted.
    pub fn restarted(&self, why: Restart) {
        let why = match why {
            Restart::Deadline => "deadline",
            Restart::Stall => "stall",
            Restart::NotStarted => "not_started",
            Restart::LostContact => "lost_contact",
        };
        self.0.restarts.with_label_values(&[why]).inc();
    }

    /// A worker went on: what it did since the last time that this was told.
    pub fn moved(&self, moved: Moved) {
        self.0.messages.inc_by(moved.messages);
        self.0.bytes.inc_by(moved.bytes);
    }

    /// How many syncs wait for slots, and how many hold theirs.
    pub fn set_queue(&self, waiting: usize, running: usize) {
        self.0.queued.set(gauge(waiting));
        self.0.running.set(gauge(running));
    }

    /// A sync was given its slots after it waited so long.
    pub fn admitted(&self, waited: Duration) {
        self.0.admission_wait.observe(waited.as_secs_f64());
    }

    /// The API server refused to create a pod.
    pub fn pod_refused(&self) {
        self.0.pods_refused.inc();
    }

    /// A request to the API server ended. [`super::api_calls`] tells of all of them.
    pub fn api_request(&self, verb: &str, resource: &str, code: &str) {
        self.0.api_requests.with_label_values(&[verb, resource, code]).inc();
    }

    /// A controller looked after one object.
    pub fn reconciled(&self, controller: &str, well: bool, took: Duration) {
        let result = if well { "ok" } else { "error" };
        self.0.reconciles.with_label_values(&[controller, result]).observe(took.as_secs_f64());
    }

    /// A mail server was tested.
    pub fn server_checked(&self, error: Option<ErrorClass>) {
        let result = error.map_or_else(|| "Ready".to_owned(), |class| class.to_string());
        self.0.server_checks.with_label_values(&[&result]).inc();
    }

    /// Whether this process leads.
    pub fn set_leader(&self, leads: bool) {
        self.0.leader.set(i64::from(leads));
    }

    /// All of them as Prometheus reads them (text format 0.0.4).
    ///
    /// # Errors
    /// When they can't be written as text: a defect.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        if let Some(bring) = self.0.before.get() {
            bring(self);
        }
        TextEncoder::new().encode_to_string(&self.families())
    }

    fn families(&self) -> Vec<MetricFamily> {
        self.0.registry.gather()
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn set(gauges: &IntGaugeVec, counts: impl Iterator<Item = (String, usize)>) {
    let told: Vec<_> = counts.collect();
    for label in gauges.collect().iter().flat_map(MetricFamily::get_metric).filter_map(|m| m.get_label().first()) {
        if told.iter().all(|(phase, _)| phase != label.value()) {
            gauges.with_label_values(&[label.value()]).set(0);
        }
    }
    for (phase, count) in told {
        gauges.with_label_values(&[&phase]).set(gauge(count));
    }
}

/// Makes metrics and registers them.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn register<M: Collector + Clone + 'static>(&self, metric: M) -> Result<M, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::with_opts(opts(name, help))?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(opts(name, help), labels)?)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::with_opts(opts(name, help))?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(opts(name, help), labels)?)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
        self.register(Histogram::with_opts(HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec()))?)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        self.register(HistogramVec::new(HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec()), labels)?)
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("mailferry")
}

#[cfg(test)]
mod tests {
    use prometheus::proto::MetricType;

    use super::*;

    /// Each at least once.
    fn used() -> Metrics {
        let metrics = Metrics::new().unwrap();
        metrics.set_migrations([(MigrationPhase::Running, 1)]);
        metrics.set_mailboxes([(SyncPhase::Running, 2), (SyncPhase::Synced, 3)]);
        for result in [SyncResult::Synced, SyncResult::Stopped, SyncResult::Failed, SyncResult::Lost] {
            metrics.sync_ended(result, Duration::from_secs(90));
        }
        metrics.sync_error(ErrorClass::Quota, Some(Side::Destination));
        metrics.restarted(Restart::Deadline);
        metrics.moved(Moved { messages: 6, bytes: 1000 });
        metrics.set_queue(7, 2);
        metrics.admitted(Duration::from_secs(3));
        metrics.pod_refused();
        metrics.api_request("patch", "mailboxsyncs/status", "200");
        metrics.reconciled("MailboxSync", true, Duration::from_millis(2));
        metrics.server_checked(None);
        metrics.set_leader(true);
        metrics
    }

    #[test]
    fn names_and_units_are_as_prometheus_wants_them() {
        let families = used().families();
        assert_eq!(families.len(), 16);
        for family in &families {
            let name = family.name();
            assert!(include_str!("../../docs/operator.md").contains(&format!("`{name}`")), "{name} is not in the docs");
            assert!(name.starts_with("mailferry_") && family.help().ends_with('.'), "{name}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
            let is_counter = family.get_field_type() == MetricType::COUNTER;
            assert_eq!(name.ends_with("_total"), is_counter, "{name}: counters end in _total, and nothing else does");
            if family.get_field_type() == MetricType::HISTOGRAM {
                assert!(name.ends_with("_seconds") || name.ends_with("_bytes"), "{name}: base units");
            }
            for suffix in ["_count", "_sum", "_bucket", "_milliseconds", "_ms", "_minutes", "_kilobytes"] {
                assert!(!name.ends_with(suffix) && !name.contains(&format!("{suffix}_")), "{name}");
            }
        }
    }

    #[test]
    fn no_metric_names_a_mailbox_a_host_or_a_namespace() {
        const LABELS: [&str; 9] =
            ["phase", "result", "class", "side", "reason", "verb", "resource", "code", "controller"];
        for family in used().families() {
            for label in family.get_metric().iter().flat_map(prometheus::proto::Metric::get_label) {
                assert!(LABELS.contains(&label.name()) || label.name() == "version", "{}", label.name());
            }
        }
    }

    #[test]
    fn a_phase_that_nothing_is_in_any_more_falls_to_zero() {
        let metrics = used();
        metrics.set_mailboxes([(SyncPhase::Synced, 5)]);
        let text = metrics.text().unwrap();
        assert!(text.contains("mailferry_mailboxes{phase=\"Running\"} 0\n"), "{text}");
        assert!(text.contains("mailferry_mailboxes{phase=\"Synced\"} 5\n"), "{text}");
    }

    #[test]
    fn two_processes_worth_of_metrics_live_side_by_side() {
        let (one, other) = (used(), Metrics::new().unwrap());
        assert!(one.text().unwrap().contains("mailferry_moved_bytes_total 1000\n"));
        assert!(other.text().unwrap().contains("mailferry_moved_bytes_total 0\n"));
    }
}
