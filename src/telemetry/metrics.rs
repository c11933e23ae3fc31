//! The operator's metrics, for Prometheus. Their number does not grow with mailboxes, and none names a person, a host
//! or a namespace.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder, core::Collector, proto::MetricFamily,
};

use super::metric_labels::{CONTROLLERS, DIFFERENCE_KINDS, NOT_COPIED_REASONS, SIDES, side_label};
pub use super::metric_labels::{MailboxTally, ReconcileResult, RestartReason, SyncResult, TransferDelta};
pub(crate) use super::metric_labels::{kind_label, reason_label};
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

/// The operator's metrics. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct Metrics(Arc<MetricsInner>);

type GaugeRefresh = Box<dyn Fn(&Metrics) + Send + Sync>;

struct MetricsInner {
    registry: Registry,
    /// Brings gauges up to date.
    before: OnceLock<GaugeRefresh>,
    migrations: IntGaugeVec,
    mailboxes: IntGaugeVec,
    failing: IntGaugeVec,
    missed: IntGauge,
    overdue: IntGauge,
    not_copied: IntGaugeVec,
    differences: IntGaugeVec,
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
    longest_reconcile: Gauge,
    reconciles_due: IntGaugeVec,
    reconcile_overdue: GaugeVec,
    server_checks: IntCounterVec,
    leader: IntGauge,
    reads_secrets: IntGauge,
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
        let of = MetricFactory(&registry);
        let build = of.gauges("build_info", "The running version of Mailferry; always 1.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let inner = MetricsInner {
            migrations: of.gauges("migrations", "MailMigrations by phase.", &["phase"])?,
            mailboxes: of.gauges("mailboxes", "MailboxSyncs by phase.", &["phase"])?,
            failing: of.gauges(
                "mailboxes_failing",
                "MailboxSyncs in phase Backoff, Stalled or Failed, by the class and side of their last error.",
                &["class", "side"],
            )?,
            missed: of.gauge(
                "delta_syncs_missed",
                "Delta syncs that have been due, and did not begin, for longer than the time between two of them.",
            )?,
            overdue: of.gauge(
                "delta_sync_overdue_seconds",
                "How long the delta sync has been due that waits longest to begin.",
            )?,
            not_copied: of.gauges(
                "messages_not_copied",
                "Messages that sources hold and destinations did not get, by reason; those that are accepted aside.",
                &["reason"],
            )?,
            differences: of.gauges(
                "messages_different",
                "Messages whose copies differ from them, by kind.",
                &["kind"],
            )?,
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
            messages: of.counter("messages_total", "Messages that syncs copied, or found at the destination.")?,
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
                "Requests to the API server by verb, resource and HTTP status; `error`: no answer, `timeout`: none in time.",
                &["verb", "resource", "code"],
            )?,
            reconciles: of.histograms(
                "reconcile_duration_seconds",
                "How long one look at an object took, by controller and result; conflict: at an older version.",
                &["controller", "result"],
                &RECONCILE_BUCKETS,
            )?,
            longest_reconcile: of.seconds(
                "reconcile_longest_wait_seconds",
                "How long the look at an object has waited for an answer of the API server that has waited longest.",
            )?,
            reconciles_due: of.gauges(
                "reconciles_due",
                "Objects that are due to be looked at, and wait for a place, by controller.",
                &["controller"],
            )?,
            reconcile_overdue: of.seconds_by(
                "reconcile_overdue_seconds",
                "How long the object has been due to be looked at that waits longest for a place, by controller.",
                &["controller"],
            )?,
            server_checks: of.counters(
                "server_checks_total",
                "Connection tests of MailServers, by the class of the error, or Ready.",
                &["result"],
            )?,
            leader: of.gauge("leader", "1 while this process leads, else 0.")?,
            reads_secrets: of.gauge(
                "reads_secrets",
                "1 where the operator has the right to get Secrets; 0: a refused login waits for a syncRequest.",
            )?,
            registry,
            before: OnceLock::new(),
        };
        let metrics = Self(Arc::new(inner));
        metrics.begin_at_zero();
        Ok(metrics)
    }

    /// Makes every series that is known beforehand: the first error of a class is a rise from zero, not a series that
    /// comes out of nothing. Phases are exported by the leader alone.
    fn begin_at_zero(&self) {
        let inner = &self.0;
        for result in SyncResult::ALL {
            inner.syncs.with_label_values(&[result.label()]);
        }
        for class in ErrorClass::ALL {
            for side in SIDES {
                inner.errors.with_label_values(&[&class.to_string(), side_label(side)]);
            }
            inner.server_checks.with_label_values(&[&class.to_string()]);
        }
        inner.server_checks.with_label_values(&["Ready"]);
        for why in RestartReason::ALL {
            inner.restarts.with_label_values(&[why.label()]);
        }
        for controller in CONTROLLERS {
            inner.reconciles_due.with_label_values(&[controller]);
            inner.reconcile_overdue.with_label_values(&[controller]);
            for result in ReconcileResult::ALL {
                inner.reconciles.with_label_values(&[controller, result.label()]);
            }
        }
    }

    /// What is called before each reading, to bring gauges up to date; only the first is kept.
    pub(crate) fn refresh_gauges_by(&self, bring: impl Fn(&Self) + Send + Sync + 'static) {
        drop(self.0.before.set(Box::new(bring)));
    }

    /// How many migrations are in which phase; phases that are left out have none.
    pub fn set_migrations(&self, counts: impl IntoIterator<Item = (MigrationPhase, usize)>) {
        let counts: Vec<_> = counts.into_iter().collect();
        for phase in MigrationPhase::ALL {
            let count = counts.iter().filter(|(counted, _)| *counted == phase).map(|(_, count)| count).sum();
            self.0.migrations.with_label_values(&[&format!("{phase:?}")]).set(gauge(count));
        }
    }

    /// How mailboxes are doing; what is left out is zero.
    pub fn set_mailboxes(&self, tally: &MailboxTally) {
        for phase in SyncPhase::ALL {
            let count = tally.phases.get(&phase).copied().unwrap_or(0);
            self.0.mailboxes.with_label_values(&[&format!("{phase:?}")]).set(gauge(count));
        }
        for class in ErrorClass::ALL {
            for side in SIDES {
                let count = tally.failing.get(&(class, side)).copied().unwrap_or(0);
                self.0.failing.with_label_values(&[&class.to_string(), side_label(side)]).set(gauge(count));
            }
        }
        let number = |counts: &BTreeMap<&'static str, u64>, label| {
            i64::try_from(counts.get(label).copied().unwrap_or(0)).unwrap_or(i64::MAX)
        };
        for reason in NOT_COPIED_REASONS {
            self.0.not_copied.with_label_values(&[reason]).set(number(&tally.not_copied, reason));
        }
        for kind in DIFFERENCE_KINDS {
            self.0.differences.with_label_values(&[kind]).set(number(&tally.differences, kind));
        }
        self.0.missed.set(gauge(tally.missed));
        self.0.overdue.set(i64::try_from(tally.overdue.as_secs()).unwrap_or(i64::MAX));
    }

    /// An attempt ended.
    pub fn sync_ended(&self, result: SyncResult, took: Duration) {
        self.0.syncs.with_label_values(&[result.label()]).observe(took.as_secs_f64());
    }

    /// An attempt ended with an error.
    pub fn sync_error(&self, class: ErrorClass, side: Option<Side>) {
        self.0.errors.with_label_values(&[&class.to_string(), side_label(side)]).inc();
    }

    /// An attempt was stopped, to be restarted.
    pub fn restarted(&self, why: RestartReason) {
        self.0.restarts.with_label_values(&[why.label()]).inc();
    }

    /// Counts what a worker did since it was last counted.
    pub fn count_transfer(&self, moved: TransferDelta) {
        self.0.messages.inc_by(moved.messages);
        self.0.bytes.inc_by(moved.bytes);
    }

    /// How many syncs wait for slots, and how many hold theirs.
    pub fn set_queue(&self, waiting: usize, running: usize) {
        self.0.queued.set(gauge(waiting));
        self.0.running.set(gauge(running));
    }

    /// A sync was given its slots after it waited so long.
    pub fn observe_queue_wait(&self, waited: Duration) {
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
    pub fn reconciled(&self, controller: &str, result: ReconcileResult, took: Duration) {
        self.0.reconciles.with_label_values(&[controller, result.label()]).observe(took.as_secs_f64());
    }

    /// How long the look at an object that waits longest has waited for an answer of the API server.
    pub fn set_longest_reconcile_wait(&self, wait: Duration) {
        self.0.longest_reconcile.set(wait.as_secs_f64());
    }

    /// How many objects of a controller are due and wait for a place, and how long the first of them has.
    pub fn set_reconcile_backlog(&self, controller: &str, due: usize, overdue: Duration) {
        self.0.reconciles_due.with_label_values(&[controller]).set(gauge(due));
        self.0.reconcile_overdue.with_label_values(&[controller]).set(overdue.as_secs_f64());
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

    /// Whether this process was installed with the right to get Secrets.
    pub fn set_reads_secrets(&self, reads: bool) {
        self.0.reads_secrets.set(i64::from(reads));
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

/// Makes metrics and registers them.
struct MetricFactory<'a>(&'a Registry);

impl MetricFactory<'_> {
    fn register<M: Collector + Clone + 'static>(&self, metric: M) -> Result<M, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::with_opts(opts(name, help))?)
    }

    fn seconds(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        self.register(Gauge::with_opts(opts(name, help))?)
    }

    fn seconds_by(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
        self.register(GaugeVec::new(opts(name, help), labels)?)
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
    use std::collections::BTreeSet;

    use prometheus::proto::MetricType;

    use super::*;

    /// Each at least once.
    fn used() -> Metrics {
        let metrics = Metrics::new().unwrap();
        metrics.set_migrations([(MigrationPhase::Running, 1)]);
        metrics.set_mailboxes(&MailboxTally {
            phases: BTreeMap::from([(SyncPhase::Running, 2), (SyncPhase::Synced, 3), (SyncPhase::Stalled, 1)]),
            failing: BTreeMap::from([((ErrorClass::Quota, Some(Side::Destination)), 1)]),
            missed: 1,
            overdue: Duration::from_secs(4000),
            not_copied: BTreeMap::from([("refused", 3)]),
            differences: BTreeMap::from([("flags", 5)]),
        });
        for result in SyncResult::ALL {
            metrics.sync_ended(result, Duration::from_secs(90));
        }
        metrics.sync_error(ErrorClass::Quota, Some(Side::Destination));
        metrics.restarted(RestartReason::Deadline);
        metrics.count_transfer(TransferDelta { messages: 6, bytes: 1000 });
        metrics.set_queue(7, 2);
        metrics.observe_queue_wait(Duration::from_secs(3));
        metrics.set_longest_reconcile_wait(Duration::from_millis(40));
        metrics.set_reconcile_backlog("MailboxSync", 3, Duration::from_millis(900));
        metrics.pod_refused();
        metrics.api_request("patch", "mailboxsyncs/status", "200");
        metrics.reconciled("MailboxSync", ReconcileResult::Ok, Duration::from_millis(2));
        metrics.server_checked(None);
        metrics.set_leader(true);
        metrics.set_reads_secrets(true);
        metrics
    }

    #[test]
    fn names_and_units_are_as_prometheus_wants_them() {
        let families = used().families();
        assert_eq!(families.len(), 25);
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
        const LABELS: [&str; 10] =
            ["phase", "result", "class", "side", "reason", "kind", "verb", "resource", "code", "controller"];
        for family in used().families() {
            for label in family.get_metric().iter().flat_map(prometheus::proto::Metric::get_label) {
                assert!(LABELS.contains(&label.name()) || label.name() == "version", "{}", label.name());
            }
        }
    }

    #[test]
    fn a_phase_that_nothing_is_in_any_more_falls_to_zero() {
        let metrics = used();
        metrics.set_migrations([(MigrationPhase::Complete, 1)]);
        metrics.set_mailboxes(&MailboxTally {
            phases: BTreeMap::from([(SyncPhase::Synced, 5)]),
            ..MailboxTally::default()
        });
        let text = metrics.text().unwrap();
        for line in [
            "mailferry_migrations{phase=\"Running\"} 0",
            "mailferry_migrations{phase=\"Complete\"} 1",
            "mailferry_mailboxes{phase=\"Running\"} 0",
            "mailferry_mailboxes{phase=\"Synced\"} 5",
            "mailferry_mailboxes_failing{class=\"Quota\",side=\"destination\"} 0",
            "mailferry_messages_not_copied{reason=\"refused\"} 0",
            "mailferry_messages_different{kind=\"flags\"} 0",
            "mailferry_delta_syncs_missed 0",
            "mailferry_delta_sync_overdue_seconds 0",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn every_phase_is_exported_once_a_leader_told_of_any() {
        let metrics = Metrics::new().unwrap();
        assert!(!metrics.text().unwrap().contains("phase="), "who does not lead knows of no phase");
        metrics.set_migrations([]);
        metrics.set_mailboxes(&MailboxTally::default());
        let exported = |name: &str| {
            let families = metrics.families();
            let family = families.iter().find(|family| family.name() == name).unwrap();
            family.get_metric().iter().map(|metric| metric.get_label()[0].value().to_owned()).collect::<BTreeSet<_>>()
        };
        // Each variant of a phase has a text of its own, so that it has a schema of its own.
        let variants = |schema: schemars::Schema| {
            let variants = schema.as_value()["oneOf"].as_array().unwrap().clone();
            variants.iter().map(|v| v["const"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
        };
        assert_eq!(exported("mailferry_migrations"), variants(schemars::schema_for!(MigrationPhase)));
        assert_eq!(exported("mailferry_mailboxes"), variants(schemars::schema_for!(SyncPhase)));
    }

    #[test]
    fn what_is_known_beforehand_begins_at_zero() {
        let text = Metrics::new().unwrap().text().unwrap();
        for line in [
            "mailferry_sync_errors_total{class=\"Authentication\",side=\"source\"} 0",
            "mailferry_sync_restarts_total{reason=\"lost_contact\"} 0",
            "mailferry_sync_duration_seconds_count{result=\"failed\"} 0",
            "mailferry_server_checks_total{result=\"Ready\"} 0",
            "mailferry_reconcile_duration_seconds_count{controller=\"MailServer\",result=\"error\"} 0",
            "mailferry_pods_refused_total 0",
            "mailferry_leader 0",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn one_process_exposes_few_series_however_much_it_carries() {
        let metrics = used();
        let series = metrics.text().unwrap().lines().filter(|line| !line.starts_with('#')).count();
        assert!(series < 400, "{series}");
    }

    #[test]
    fn two_processes_worth_of_metrics_live_side_by_side() {
        let (one, other) = (used(), Metrics::new().unwrap());
        assert!(one.text().unwrap().contains("mailferry_moved_bytes_total 1000\n"));
        assert!(other.text().unwrap().contains("mailferry_moved_bytes_total 0\n"));
    }
}
