//! The rules that go beyond types and ranges: each once, as the CEL text that the API server evaluates and as the
//! message that says what to write instead. `validate` applies the same rules where there is no API server;
//! a test holds both to the same verdicts.

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CelRule {
    /// What must be true, in CEL.
    pub cel: &'static str,
    /// What to write instead.
    pub message: &'static str,
}

/// The days that a duration begins with, as text, in CEL.
macro_rules! days_of {
    ($field:literal) => {
        concat!($field, ".substring(0, ", $field, ".indexOf('d'))")
    };
}

/// The duration that a field holds, in CEL, whose own `duration()` knows no days: `7d12h` is `70h70h7h7h7h7h12h`, since 24
/// is 10 + 10 + 1 + 1 + 1 + 1. Durations can't be multiplied, and for a number that is made a text the API server bounds no
/// cost. The schema's pattern has days first, and only once.
macro_rules! duration_of {
    ($field:literal) => {
        concat!(
            "duration(",
            $field,
            ".contains('d') ? ",
            days_of!($field),
            " + '0h' + ",
            days_of!($field),
            " + '0h' + ",
            days_of!($field),
            " + 'h' + ",
            days_of!($field),
            " + 'h' + ",
            days_of!($field),
            " + 'h' + ",
            days_of!($field),
            " + 'h' + ",
            $field,
            ".substring(",
            $field,
            ".indexOf('d') + 1) : ",
            $field,
            ")"
        )
    };
}

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident: $cel:expr => $message:literal;)*) => {
        $($(#[$doc])* pub const $name: CelRule = CelRule { cel: $cel, message: $message };)*
        /// Every rule, for tests and documentation.
        pub const ALL: &[(&str, CelRule)] = &[$((stringify!($name), $name)),*];
    };
}

rules! {
    /// On `host`.
    HOST: "self.matches('^[0-9A-Za-z._:-]+$') && !self.matches('^[^:]*:[^:]*$')"
        => "host must be a host name or an IP address alone, such as imap.example.com or 2001:db8::7: the port goes into port, no scheme, no brackets, no path";
    /// On `tls`.
    ONE_CA: "!has(self.caBundle) || !has(self.caBundleRef)"
        => "write either caBundle (PEM text) or caBundleRef (a Secret's key), not both";
    /// On `tls`.
    NO_TLS: "self.mode != 'None' || !(has(self.caBundle) || has(self.caBundleRef) || has(self.serverName) || self.insecureSkipVerify)"
        => "mode None has no certificate to check: remove caBundle, caBundleRef, serverName and insecureSkipVerify, or use mode Implicit or StartTLS";
    /// On `tls`.
    INSECURE: "!self.insecureSkipVerify || !(has(self.caBundle) || has(self.caBundleRef) || has(self.serverName))"
        => "insecureSkipVerify accepts any certificate: remove it, or remove caBundle, caBundleRef and serverName";
    /// On `tls.caBundle`.
    PEM: "self.contains('-----BEGIN CERTIFICATE-----')"
        => "caBundle must be PEM text that starts with -----BEGIN CERTIFICATE-----";
    /// On `limits`.
    PACE: "!has(self.bytesPerSecond) || (has(self.maxConnections) && quantity(self.bytesPerSecond).compareTo(quantity('64Ki')) >= 0)"
        => "bytesPerSecond is at least 64Ki and needs maxConnections: each connection gets its part of it";
    /// On an entry of `limits.windows`.
    WINDOW: "self.from != self.to"
        => "from and to must differ: a whole day is from 00:00 to 24:00, a night from 22:00 to 06:00";
    /// On `source` and `destination`.
    ONE_LOGIN: "!(has(self.masterUser) && has(self.grantRef)) && !(has(self.grantSecretRef) && (has(self.masterUser) || has(self.grantRef)))"
        => "write one of masterUser, grantRef and grantSecretRef, not several: each is for the mailboxes without a credential of their own";
    /// On `source` and `destination`.
    ONE_SERVER: "has(self.serverRef) != has(self.server)"
        => "write either serverRef (the name of a MailServer) or server (host, port, tls), exactly one of them";
    /// On an account.
    ONE_CREDENTIAL: "!(has(self.passwordSecretRef) && has(self.tokenSecretRef)) && !(has(self.grantSecretRef) && (has(self.passwordSecretRef) || has(self.tokenSecretRef)))"
        => "write one of passwordSecretRef, tokenSecretRef and grantSecretRef, not several";
    /// On `masterUser`.
    SEPARATOR: "!has(self.separator) || self.mode == 'Suffix'"
        => "separator belongs to mode Suffix: add mode: Suffix or remove separator";
    /// On a MailMigration's spec.
    SOME_MAILBOX: "self.mailboxes.size() + self.mailboxSecrets.size() + self.mailboxConfigMaps.size() > 0"
        => "list at least one mailbox in mailboxes, or a CSV in mailboxSecrets or mailboxConfigMaps";
    /// On a MailMigration's spec.
    CONFIG_MAP_LOGIN: "self.mailboxConfigMaps.size() == 0 || ((has(self.source.masterUser) || has(self.source.grantRef) || has(self.source.grantSecretRef)) && (has(self.destination.masterUser) || has(self.destination.grantRef) || has(self.destination.grantSecretRef)))"
        => "mailboxes of mailboxConfigMaps have no credentials of their own: write masterUser, grantRef or grantSecretRef on both sides, or use mailboxSecrets";
    /// On a MailMigration's spec.
    SOURCE_CREDENTIAL: "has(self.source.masterUser) || has(self.source.grantRef) || has(self.source.grantSecretRef) || self.mailboxes.all(m, has(m.source.passwordSecretRef) || has(m.source.tokenSecretRef) || has(m.source.grantSecretRef))"
        => "each mailbox needs source.passwordSecretRef, source.tokenSecretRef or source.grantSecretRef, unless the migration has source.masterUser, source.grantRef or source.grantSecretRef for all";
    /// On a MailMigration's spec.
    DESTINATION_CREDENTIAL: "has(self.destination.masterUser) || has(self.destination.grantRef) || has(self.destination.grantSecretRef) || self.mailboxes.all(m, has(m.destination.passwordSecretRef) || has(m.destination.tokenSecretRef) || has(m.destination.grantSecretRef))"
        => "each mailbox needs destination.passwordSecretRef, destination.tokenSecretRef or destination.grantSecretRef, unless the migration has destination.masterUser, destination.grantRef or destination.grantSecretRef for all";
    /// On a MailMigration's spec.
    TWO_CONNECTIONS: "!has(self.source.server) || !has(self.destination.server) || self.source.server.host != self.destination.server.host || self.source.server.tls.mode != self.destination.server.tls.mode || has(self.source.server.port) != has(self.destination.server.port) || (has(self.source.server.port) && self.source.server.port != self.destination.server.port) || ((!has(self.source.server.limits) || !has(self.source.server.limits.maxConnections) || self.source.server.limits.maxConnections > 1) && (!has(self.destination.server.limits) || !has(self.destination.server.limits.maxConnections) || self.destination.server.limits.maxConnections > 1))"
        => "source and destination are one server, and a sync needs a connection to each: limits.maxConnections must be at least 2";
    /// On a mailbox's name.
    MAILBOX_NAME: "self.matches('^[0-9A-Za-z]([0-9A-Za-z._@+=-]*[0-9A-Za-z])?$')"
        => "a mailbox's name has letters, digits and . _ @ + = - and starts and ends with a letter or digit, such as alice or alice@example.com; other login names go into username";
    /// On `folders`.
    PATTERNS: "(!has(self.include) || self.include.all(p, !p.startsWith('/') || (p.size() > 2 && p.endsWith('/')))) && (!has(self.exclude) || self.exclude.all(p, !p.startsWith('/') || (p.size() > 2 && p.endsWith('/')))) && (!has(self.rename) || self.rename.all(r, !r.from.startsWith('/') || (r.from.size() > 2 && r.from.endsWith('/'))))"
        => "a pattern that starts with / is a regular expression and ends with / too, such as /20[0-9]{2}/; folder names start without /";
    /// On `folders.into`.
    INTO: "!self.startsWith('/') && !self.endsWith('/')"
        => "into is a folder's name without / at its start or end, such as Old mail or Archive/2024";
    /// On `messages`.
    SINCE_BEFORE: "!has(self.since) || !has(self.before) || self.since < self.before"
        => "since must be earlier than before: no message is both at or after since and earlier than before";
    /// On `messages`.
    AGES: "!has(self.minAgeDays) || !has(self.maxAgeDays) || self.minAgeDays < self.maxAgeDays"
        => "minAgeDays must be smaller than maxAgeDays: no message is older than the one and younger than the other";
    /// On `messages`.
    SIZES: "!has(self.minSize) || !has(self.maxSize) || quantity(self.minSize).compareTo(quantity(self.maxSize)) <= 0"
        => "minSize must not be greater than maxSize";
    /// On an entry of `messages.acceptNotCopied`.
    ONE_ACCEPTED: "has(self.reason) != has(self.folder)"
        => "write either reason (all messages that were not copied for it) or folder with messages, exactly one of them";
    /// On an entry of `messages.acceptNotCopied`.
    ACCEPTED_MESSAGES: "has(self.folder) == (has(self.messages) && self.messages.size() > 0)"
        => "folder and messages belong together: folder: INBOX with messages: ['1500000000:7,9:12'], a UIDVALIDITY and UIDs as a report names them";
    /// On `timeouts.connect`.
    CONNECT: concat!(duration_of!("self"), " >= duration('1s') && ", duration_of!("self"), " <= duration('10m')")
        => "connect must be from 1s to 10m, such as 30s";
    /// On `timeouts.reply`.
    REPLY: concat!(duration_of!("self"), " >= duration('1s') && ", duration_of!("self"), " <= duration('1h')")
        => "reply must be from 1s to 1h, such as 2m";
    /// On `timeouts.keepalive`.
    KEEPALIVE: concat!(duration_of!("self"), " >= duration('1s') && ", duration_of!("self"), " <= duration('25m')")
        => "keepalive must be from 1s to 25m, such as 2m: servers may end a session that is silent for 30m";
    /// On `retry`.
    RECONNECT_BACKOFF: concat!(duration_of!("self.reconnectBackoff"), " <= ", duration_of!("self.reconnectMaxBackoff"), " && ", duration_of!("self.reconnectMaxBackoff"), " <= duration('1h')")
        => "reconnectBackoff must not be greater than reconnectMaxBackoff, and that at most 1h";
    /// On `retry`.
    BACKOFF: concat!(duration_of!("self.initialBackoff"), " >= duration('1s') && ", duration_of!("self.initialBackoff"), " <= ", duration_of!("self.maxBackoff"), " && ", duration_of!("self.maxBackoff"), " <= duration('24h')")
        => "initialBackoff must be at least 1s and not greater than maxBackoff, and that at most 24h";
    /// On `retry`.
    PATIENCE: concat!(duration_of!("self.patience"), " <= duration('24h')")
        => "patience must be at most 24h, such as 15m";
    /// On `deadline`.
    DEADLINE: concat!(duration_of!("self"), " >= duration('10s') && ", duration_of!("self"), " <= duration('720h')")
        => "deadline must be from 10s to 720h, such as 6h";
    /// On `stallAfter`.
    STALL_AFTER: concat!(duration_of!("self"), " >= duration('10s') && ", duration_of!("self"), " <= duration('24h')")
        => "stallAfter must be from 10s to 24h, such as 10m";
    /// On `offlineGrace`.
    OFFLINE_GRACE: concat!(duration_of!("self"), " >= duration('10s') && ", duration_of!("self"), " <= duration('24h')")
        => "offlineGrace must be from 10s to 24h, such as 10m";
    /// On `finishedPodsTTL`, and on `ttl`, its former name.
    FINISHED_PODS_TTL: concat!(duration_of!("self"), " <= duration('8760h')")
        => "finishedPodsTTL must be at most 8760h, such as 24h";
    /// On a MailMigration's spec.
    REQUEST_TEXT: "!has(self.syncRequestFor) || has(self.syncRequest)"
        => "syncRequestFor chooses whom a syncRequest asks: write syncRequest too, with a text that it did not have before";
    /// On `syncRequestFor`.
    SOME_REQUESTED: "(has(self.mailboxes) && self.mailboxes.size() > 0) || (has(self.phases) && self.phases.size() > 0)"
        => "write mailboxes or phases into syncRequestFor, or leave it out: then syncRequest asks every mailbox";
    /// On a MailMigration's spec. Earlier definitions wrote `ttl: 24h` into every object: nobody need take that out.
    ONE_TTL: concat!("!has(self.ttl) || !has(self.finishedPodsTTL) || ", duration_of!("self.ttl"), " == duration('24h')")
        => "ttl is the former name of finishedPodsTTL: write finishedPodsTTL alone, and take ttl out";
    /// On `schedule.every`.
    EVERY: concat!(duration_of!("self"), " >= duration('10s') && ", duration_of!("self"), " <= duration('720h')")
        => "schedule.every must be from 10s to 720h, such as 1h";
    /// On `cutover.every`.
    CUTOVER_EVERY: concat!(duration_of!("self"), " >= duration('10s') && ", duration_of!("self"), " <= duration('24h')")
        => "cutover.every must be from 10s to 24h, such as 10m";
    /// On `cutover.maxEvery`.
    CUTOVER_MAX_EVERY: concat!(duration_of!("self"), " >= duration('10s') && ", duration_of!("self"), " <= duration('24h')")
        => "cutover.maxEvery must be from 10s to 24h, such as 2h";
    /// On `cutover.drainFor`.
    DRAIN_FOR: concat!(duration_of!("self"), " <= duration('720h')")
        => "cutover.drainFor must be at most 720h, such as 48h";
}

/// On a MailMigration as a whole; transitions have no meaning without an API server.
pub const ENDPOINTS_IMMUTABLE: CelRule = CelRule {
    cel: "!has(oldSelf.status) || !has(oldSelf.status.startedAt) || (\
has(self.spec.source.serverRef) == has(oldSelf.spec.source.serverRef) \
&& (!has(self.spec.source.serverRef) || self.spec.source.serverRef.name == oldSelf.spec.source.serverRef.name) \
&& (!has(self.spec.source.server) || !has(oldSelf.spec.source.server) || (self.spec.source.server.host == oldSelf.spec.source.server.host \
&& has(self.spec.source.server.port) == has(oldSelf.spec.source.server.port) \
&& (!has(self.spec.source.server.port) || self.spec.source.server.port == oldSelf.spec.source.server.port))) \
&& has(self.spec.destination.serverRef) == has(oldSelf.spec.destination.serverRef) \
&& (!has(self.spec.destination.serverRef) || self.spec.destination.serverRef.name == oldSelf.spec.destination.serverRef.name) \
&& (!has(self.spec.destination.server) || !has(oldSelf.spec.destination.server) || (self.spec.destination.server.host == oldSelf.spec.destination.server.host \
&& has(self.spec.destination.server.port) == has(oldSelf.spec.destination.server.port) \
&& (!has(self.spec.destination.server.port) || self.spec.destination.server.port == oldSelf.spec.destination.server.port))))",
    message: "the migration has started: serverRef, host and port of source and destination can't change; write a new MailMigration with another name",
};

/// On a MailboxSync's spec: which mailbox it is.
pub const MAILBOX_IMMUTABLE: CelRule = CelRule {
    cel: "self.migration == oldSelf.migration && self.mailbox == oldSelf.mailbox",
    message: "migration and mailbox of a MailboxSync can't change: the operator makes a new one",
};

/// On one side of a MailboxSync's spec.
pub const SYNC_CREDENTIAL: CelRule = CelRule {
    cel: "has(self.masterUser) || has(self.grantRef) || has(self.account.passwordSecretRef) || has(self.account.tokenSecretRef) || has(self.account.grantSecretRef)",
    message: "write account.passwordSecretRef, account.tokenSecretRef, account.grantSecretRef, masterUser or grantRef",
};

/// On a MailboxSync's status: only the worker of the current attempt may report.
pub const FENCE: CelRule = CelRule {
    cel: "(has(self.worker) && self.worker.attempt == self.attempt) || (has(self.worker) == has(oldSelf.worker) && (!has(self.worker) || self.worker == oldSelf.worker))",
    message: "fenced: worker may change only when worker.attempt equals attempt; another attempt has taken over",
};

/// On a MailboxSync's status.
pub const WORKER_ATTEMPT: CelRule = CelRule {
    cel: "!has(self.worker) || self.worker.attempt <= self.attempt",
    message: "worker.attempt can't be ahead of attempt: the operator writes the attempt before it makes the pod",
};

/// On `status.attempt`.
pub const ATTEMPT_GROWS: CelRule = CelRule { cel: "self >= oldSelf", message: "attempt never goes back" };

/// On `status.worker`.
pub const REPORT_GROWS: CelRule = CelRule {
    cel: "self.attempt != oldSelf.attempt || self.report >= oldSelf.report",
    message: "report never goes back within an attempt: a newer report is there already",
};
