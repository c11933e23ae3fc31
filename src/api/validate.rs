//! Checks manifests by the rules of the API where there is no API server.

use std::sync::LazyLock;

use regex::Regex;

use super::{
    cel_rules::{
        ACCEPTED_MESSAGES, AGES, BACKOFF, CONFIG_MAP_LOGIN, CONNECT, CUTOVER_EVERY, CUTOVER_MAX_EVERY, CelRule,
        DEADLINE, DESTINATION_CREDENTIAL, DRAIN_FOR, EVERY, FINISHED_PODS_TTL, HOST, INSECURE, INTO, KEEPALIVE,
        MAILBOX_NAME, NO_TLS, OFFLINE_GRACE, ONE_ACCEPTED, ONE_CA, ONE_CREDENTIAL, ONE_LOGIN, ONE_SERVER, ONE_TTL,
        PACE, PATIENCE, PATTERNS, PEM, RECONNECT_BACKOFF, REPLY, REQUEST_TEXT, SEPARATOR, SINCE_BEFORE, SIZES,
        SOME_MAILBOX, SOME_REQUESTED, SOURCE_CREDENTIAL, STALL_AFTER, TWO_CONNECTIONS, WINDOW,
    },
    common::{Account, FolderRules, MasterMode, MasterUser, MessageRules, Retry, Timeouts},
    mail_migration::{EndpointSpec, MailMigrationSpec, MailboxEntry},
    mail_server::{MailServerSpec, Tls, TlsMode},
    scalar::Duration,
};

/// A rule that a manifest breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestProblem {
    /// The field, such as `spec.source`.
    pub path: String,
    /// What is wrong and what to write instead.
    pub message: String,
    /// True when the field is missing, or has no business there: a rule that looks for it would only say so again.
    pub presence: bool,
}

impl ManifestProblem {
    /// A problem with the value of a field; the path is empty for the object itself.
    pub(crate) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), presence: false }
    }
}

/// Collects problems below one path.
struct ProblemCollector<'a> {
    problems: &'a mut Vec<ManifestProblem>,
    path: String,
}

impl ProblemCollector<'_> {
    fn at_field(&mut self, field: &str) -> ProblemCollector<'_> {
        let path =
            if field.starts_with('[') { format!("{}{field}", self.path) } else { format!("{}.{field}", self.path) };
        ProblemCollector { problems: self.problems, path }
    }

    fn require(&mut self, holds: bool, rule: CelRule) {
        if !holds {
            self.problems.push(ManifestProblem::new(&self.path, rule.message));
        }
    }

    fn require_within(&mut self, field: &str, value: Duration, (least, most): (u64, u64), rule: CelRule) {
        let holds = (Duration::from_secs(least)..=Duration::from_secs(most)).contains(&value);
        self.at_field(field).require(holds, rule);
    }
}

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;

/// The rules that a MailMigration's spec breaks.
#[must_use]
pub fn migration_problems(spec: &MailMigrationSpec) -> Vec<ManifestProblem> {
    let mut problems = Vec::new();
    let mut at = ProblemCollector { problems: &mut problems, path: "spec".to_owned() };
    check_endpoint(&mut at.at_field("source"), &spec.source);
    check_endpoint(&mut at.at_field("destination"), &spec.destination);
    at.require(!spec.mailboxes.is_empty() || spec.csvs().next().is_some(), SOME_MAILBOX);
    let masters = spec.source.logs_in_for_all() && spec.destination.logs_in_for_all();
    at.require(spec.mailbox_config_maps.is_empty() || masters, CONFIG_MAP_LOGIN);
    if let (Some(source), Some(destination)) = (&spec.source.server, &spec.destination.server) {
        let same_server = source.host == destination.host
            && source.tls.mode == destination.tls.mode
            && source.port == destination.port;
        let limits = [source, destination].map(|server| server.limits.max_connections);
        at.require(!same_server || limits.into_iter().flatten().all(|limit| limit > 1), TWO_CONNECTIONS);
    }
    let all_log_in = |endpoint: &EndpointSpec, side: fn(&MailboxEntry) -> &Account| {
        endpoint.logs_in_for_all() || spec.mailboxes.iter().all(|m| side(m).credential().is_some())
    };
    at.require(all_log_in(&spec.source, |m| &m.source), SOURCE_CREDENTIAL);
    at.require(all_log_in(&spec.destination, |m| &m.destination), DESTINATION_CREDENTIAL);
    for (index, mailbox) in spec.mailboxes.iter().enumerate() {
        let mut at = at.at_field(&format!("mailboxes[{index}]"));
        at.at_field("name").require(is_mailbox_name(&mailbox.name), MAILBOX_NAME);
        check_account(&mut at.at_field("source"), &mailbox.source);
        check_account(&mut at.at_field("destination"), &mailbox.destination);
    }
    check_folders(&mut at.at_field("folders"), &spec.folders);
    check_messages(&mut at.at_field("messages"), &spec.messages);
    check_timeouts(&mut at.at_field("timeouts"), &spec.timeouts);
    check_retry(&mut at.at_field("retry"), &spec.retry);
    at.require_within("deadline", spec.deadline, (10, 720 * HOUR), DEADLINE);
    at.require_within("stallAfter", spec.stall_after, (10, 24 * HOUR), STALL_AFTER);
    at.require_within("offlineGrace", spec.offline_grace, (10, 24 * HOUR), OFFLINE_GRACE);
    at.require(spec.finished_pods_ttl.is_none() || !spec.has_former_ttl(), ONE_TTL);
    for (field, ttl) in [("finishedPodsTTL", spec.finished_pods_ttl), ("ttl", spec.ttl)] {
        at.require_within(field, ttl.unwrap_or_default(), (0, 8760 * HOUR), FINISHED_PODS_TTL);
    }
    if let Some(chosen) = &spec.sync_request_for {
        at.require(spec.sync_request.is_some(), REQUEST_TEXT);
        let some = !chosen.mailboxes.is_empty() || !chosen.phases.is_empty();
        at.at_field("syncRequestFor").require(some, SOME_REQUESTED);
    }
    if let Some(schedule) = &spec.schedule {
        at.at_field("schedule").require_within("every", schedule.every, (10, 720 * HOUR), EVERY);
    }
    if let Some(cutover) = &spec.cutover {
        at.at_field("cutover").require_within("every", cutover.every, (10, 24 * HOUR), CUTOVER_EVERY);
        at.at_field("cutover").require_within("maxEvery", cutover.max_every, (10, 24 * HOUR), CUTOVER_MAX_EVERY);
        at.at_field("cutover").require_within("drainFor", cutover.drain_for, (0, 720 * HOUR), DRAIN_FOR);
    }
    problems
}

/// The rules that a MailServer's spec breaks.
#[must_use]
pub fn server_problems(spec: &MailServerSpec) -> Vec<ManifestProblem> {
    let mut problems = Vec::new();
    check_server(&mut ProblemCollector { problems: &mut problems, path: "spec".to_owned() }, spec);
    problems
}

/// True when this can be a mailbox's name in a migration.
#[must_use]
pub(crate) fn is_mailbox_name(name: &str) -> bool {
    let alphanumeric = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"._@+=-".contains(b))
}

fn check_server(at: &mut ProblemCollector<'_>, spec: &MailServerSpec) {
    static HOST_CHARACTERS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new("^[0-9A-Za-z._:-]+$").ok());
    let characters = HOST_CHARACTERS.as_ref().is_some_and(|r| r.is_match(&spec.host));
    at.at_field("host").require(characters && spec.host.matches(':').count() != 1, HOST);
    check_tls(&mut at.at_field("tls"), &spec.tls);
    let limits = &spec.limits;
    let paced = limits.bytes_per_second.is_none_or(|rate| rate.bytes() >= 64 << 10 && limits.max_connections.is_some());
    at.at_field("limits").require(paced, PACE);
    for (index, window) in limits.windows.iter().enumerate() {
        at.at_field(&format!("limits.windows[{index}]")).require(window.from != window.to, WINDOW);
    }
}

fn check_tls(at: &mut ProblemCollector<'_>, tls: &Tls) {
    let bundle = tls.ca_bundle.is_some() || tls.ca_bundle_ref.is_some();
    let named = bundle || tls.server_name.is_some();
    at.require(tls.ca_bundle.is_none() || tls.ca_bundle_ref.is_none(), ONE_CA);
    at.require(tls.mode != TlsMode::None || !(named || tls.insecure_skip_verify), NO_TLS);
    at.require(!tls.insecure_skip_verify || !named, INSECURE);
    if let Some(pem) = &tls.ca_bundle {
        at.at_field("caBundle").require(pem.contains("-----BEGIN CERTIFICATE-----"), PEM);
    }
}

fn check_endpoint(at: &mut ProblemCollector<'_>, endpoint: &EndpointSpec) {
    let ways = [endpoint.master_user.is_some(), endpoint.grant_ref.is_some(), endpoint.grant_secret_ref.is_some()];
    at.require(ways.into_iter().filter(|there| *there).count() <= 1, ONE_LOGIN);
    at.require(endpoint.server.is_some() != endpoint.server_ref.is_some(), ONE_SERVER);
    if let Some(spec) = &endpoint.server {
        check_server(&mut at.at_field("server"), spec);
    }
    if let Some(user) = &endpoint.master_user {
        check_master_user(&mut at.at_field("masterUser"), user);
    }
}

fn check_master_user(at: &mut ProblemCollector<'_>, user: &MasterUser) {
    at.require(user.separator.is_none() || user.mode == MasterMode::Suffix, SEPARATOR);
}

fn check_account(at: &mut ProblemCollector<'_>, account: &Account) {
    let password = account.password_secret_ref.is_some();
    let given = [password, account.token_secret_ref.is_some(), account.grant_secret_ref.is_some()];
    at.require(given.into_iter().filter(|given| *given).count() < 2, ONE_CREDENTIAL);
}

fn check_folders(at: &mut ProblemCollector<'_>, folders: &FolderRules) {
    let from = folders.rename.iter().map(|rename| &rename.from);
    let closed = |p: &String| !p.starts_with('/') || (p.chars().count() > 2 && p.ends_with('/'));
    at.require(folders.include.iter().chain(&folders.exclude).chain(from).all(closed), PATTERNS);
    if let Some(into) = &folders.into {
        at.at_field("into").require(!into.starts_with('/') && !into.ends_with('/'), INTO);
    }
}

fn check_messages(at: &mut ProblemCollector<'_>, messages: &MessageRules) {
    at.require(messages.since.as_ref().zip(messages.before.as_ref()).is_none_or(|(a, b)| a < b), SINCE_BEFORE);
    at.require(messages.min_age_days.zip(messages.max_age_days).is_none_or(|(a, b)| a < b), AGES);
    at.require(messages.min_size.zip(messages.max_size).is_none_or(|(a, b)| a <= b), SIZES);
    for (index, entry) in messages.accept_not_copied.iter().enumerate() {
        let mut at = at.at_field(&format!("acceptNotCopied[{index}]"));
        at.require(entry.reason.is_some() != entry.folder.is_some(), ONE_ACCEPTED);
        at.require(entry.folder.is_some() != entry.messages.is_empty(), ACCEPTED_MESSAGES);
    }
}

fn check_timeouts(at: &mut ProblemCollector<'_>, timeouts: &Timeouts) {
    at.require_within("connect", timeouts.connect, (1, 10 * MINUTE), CONNECT);
    at.require_within("reply", timeouts.reply, (1, HOUR), REPLY);
    at.require_within("keepalive", timeouts.keepalive, (1, 25 * MINUTE), KEEPALIVE);
}

fn check_retry(at: &mut ProblemCollector<'_>, retry: &Retry) {
    let ordered = |first: Duration, last: Duration, most: u64| first <= last && last <= Duration::from_secs(most);
    at.require(ordered(retry.reconnect_backoff, retry.reconnect_max_backoff, HOUR), RECONNECT_BACKOFF);
    let starts = retry.initial_backoff >= Duration::from_secs(1);
    at.require(starts && ordered(retry.initial_backoff, retry.max_backoff, 24 * HOUR), BACKOFF);
    at.require(retry.patience <= Duration::from_secs(24 * HOUR), PATIENCE);
}
