//! What would keep a migration from ending well, found before it starts. [`inspect_account`] reads the accounts; all
//! decisions are pure.

mod findings;
mod inspect;
mod provider;
mod report;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub(crate) use self::{
    findings::{
        CheckWarning, CheckedMapping, IncomingMail, LabelledMail, MailboxCheck, MappedFolder, MissingExtension,
        QuotaRoom, SideFindings, WarningTopic,
    },
    inspect::{InspectedAccount, inspect_account},
    report::{mailbox, report},
};
use crate::{
    error::{Error, ErrorClass, Result, Side},
    forecast::WorkLeft,
    imap::{
        ServerKind,
        account_listing::{AccountListing, ListedFolder, is_same_folder_name},
        capability::{Capabilities, LiteralSupport},
        certificate::Certificate,
        response::FolderStatus,
    },
    sync::{
        archived_mail::MailVolume,
        folder_plan::{FolderPlan, PlannedFolder},
        plan_preview::preview_plan,
        report::LeftOut,
        spec::{DeletionHandling, MessageFilter, SyncSpec},
        special_use::SpecialUse,
    },
    terminal_text::{format_bytes, format_count},
};

/// A certificate that expires sooner is warned of, days.
const EXPIRES_SOON: i64 = 14;
/// A source of INBOX alone with at most this many messages looks as if its mail was fetched by POP3.
const POP3_MESSAGES: u64 = 20;

/// The class of the gravest problem of all mailboxes; none when there is none.
#[must_use]
pub(crate) fn gravest_class(checks: &[MailboxCheck]) -> Option<ErrorClass> {
    let classes = checks.iter().flat_map(|check| &check.problems).map(|problem| problem.class);
    ErrorClass::gravest(classes)
}

/// What a run would copy into all mailboxes of which both sides could be read.
#[must_use]
pub(crate) fn work_ahead(checks: &[MailboxCheck]) -> WorkLeft {
    let listed = checks.iter().filter_map(|check| check.incoming);
    let none = WorkLeft { mailboxes: 0, messages: Some(0), bytes: Some(0) };
    listed.fold(none, |sum, incoming| WorkLeft {
        mailboxes: sum.mailboxes + 1,
        messages: sum.messages.map(|messages| messages.saturating_add(incoming.messages)),
        bytes: sum.bytes.zip(incoming.bytes).map(|(sum, bytes)| sum.saturating_add(bytes)),
    })
}

/// Judges what was found on both sides. `frozen` is where an earlier run put the folders.
#[must_use]
pub(crate) fn assess_mailbox(
    spec: &SyncSpec,
    source: Result<InspectedAccount>,
    destination: Result<InspectedAccount>,
    frozen: &BTreeMap<Vec<u8>, Vec<u8>>,
    now: Timestamp,
) -> MailboxCheck {
    let mut check = MailboxCheck { mailbox: spec.mailbox.clone(), ..MailboxCheck::default() };
    let told = spec.warnings.iter().cloned();
    check.warnings.extend(told.map(|what| CheckWarning { topic: WarningTopic::Credential, side: None, what }));
    for (side, inspected) in [(Side::Source, &source), (Side::Destination, &destination)] {
        match inspected {
            Ok(inspected) => {
                warn_of_connection(side, inspected, now, &mut check.warnings);
                check.warnings.extend(provider::host_warning(side, inspected));
            }
            Err(error) => check.problems.push(error.clone().on(side, address(spec, side))),
        }
    }
    let (source, destination) = (source.ok(), destination.ok());
    if let Some(source) = &source {
        check.warnings.extend(suspicious_source(&source.account.survey));
        check.source = Some(findings(source, Side::Source));
    }
    if let Some(destination) = &destination {
        check.destination = Some(findings(destination, Side::Destination));
        check.warnings.extend(unsupported(spec, &destination.capabilities));
    }
    if let (Some(source), Some(destination)) = (&source, &destination) {
        match compare_accounts(source, destination) {
            AccountSameness::Same(what) => check.problems.push(same_account(spec, what)),
            AccountSameness::Suspected(what) => {
                check.warnings.push(CheckWarning { topic: WarningTopic::SameServer, side: None, what });
            }
            AccountSameness::Different => {}
        }
        let plan = preview_plan(spec, &source.account, &destination.account, frozen);
        check.warnings.extend(not_empty(&destination.account.survey, frozen));
        check.warnings.extend(folder_warnings(&plan, &source.account.survey));
        let archived = source.archived.as_ref().map(|archived| archived.archived);
        let incoming = incoming_mail(&plan, archived, &source.account.survey, &destination.account.survey);
        if let Some(found) = &check.destination {
            match quota_shortage(found, incoming, &spec.messages) {
                Some(QuotaShortage::Certain(error)) => check.problems.push(error.on(Side::Destination, &found.address)),
                Some(QuotaShortage::Possible(what)) => {
                    check.warnings.push(CheckWarning {
                        topic: WarningTopic::Quota,
                        side: Some(Side::Destination),
                        what,
                    });
                }
                None => {}
            }
        }
        for (side, inspected) in [(Side::Source, source), (Side::Destination, destination)] {
            check.warnings.extend(provider::allowance_warning(side, inspected, incoming));
        }
        check.incoming = Some(incoming);
        check.mapping = Some(mapping(&plan, archived, &source.account.survey));
    }
    check.problems = check.problems.into_iter().map(|problem| problem.in_mailbox(&spec.mailbox)).collect();
    check
}

fn address(spec: &SyncSpec, side: Side) -> String {
    match side {
        Side::Source => spec.source.address(),
        Side::Destination => spec.destination.address(),
    }
}

/// Warns of what is wrong with the connection to a server.
fn warn_of_connection(side: Side, inspected: &InspectedAccount, now: Timestamp, warnings: &mut Vec<CheckWarning>) {
    let mut warn = |topic, what| warnings.push(CheckWarning { topic, side: Some(side), what });
    if inspected.facts.tls_version.is_none() {
        let what =
            "passwords and mail travel in the clear: set tls.mode Implicit or StartTLS, unless the wire is private";
        warn(WarningTopic::Unprotected, what.to_owned());
    } else if inspected.endpoint.tls.insecure_skip_verify {
        let what =
            "any certificate is accepted (tls.insecureSkipVerify): whoever is on the way can read passwords and mail";
        warn(WarningTopic::Unprotected, what.to_owned());
    }
    let certificate = inspected.facts.certificate();
    if let Some(left) = certificate.map(|certificate| days_left(&certificate, now)).filter(|left| *left < EXPIRES_SOON)
    {
        let what = match left {
            ..0 => "the server's certificate has expired: renew it".to_owned(),
            0 => "the server's certificate expires within a day: renew it, or a run will fail".to_owned(),
            days => {
                let days = format_count(days.unsigned_abs(), "day");
                format!("the server's certificate expires in {days}: renew it, or later syncs will fail")
            }
        };
        warn(WarningTopic::Certificate, what);
    }
}

/// Whole days until the certificate expires; negative when it has.
fn days_left(certificate: &Certificate, now: Timestamp) -> i64 {
    (certificate.not_after - now.as_second()).div_euclid(24 * 3600)
}

/// The extensions that matter on each side, and what it costs when they are missing.
const COSTS: [(Option<Side>, &str, &str); 11] = [
    (Some(Side::Destination), "LITERAL+", "each message waits for the server's go-ahead: slower on long ways"),
    (Some(Side::Destination), "MULTIAPPEND", "one command per message instead of per hundred: slower"),
    (Some(Side::Destination), "UIDPLUS", "where copies are is found out by comparing; deletions cannot be mirrored"),
    (Some(Side::Destination), "APPENDLIMIT", "a message that is too large is found only when it is refused"),
    (Some(Side::Destination), "QUOTA", "whether there is room for what is coming is not known"),
    (Some(Side::Source), "CONDSTORE", "later syncs list the flags of all messages to find those that changed"),
    (Some(Side::Source), "ESEARCH", "later syncs list all messages at length"),
    (None, "LIST-STATUS", "each sync asks for every folder by itself"),
    (None, "SPECIAL-USE", "folders for sent mail, drafts and so on are known by their names only"),
    (None, "NAMESPACE", "the prefix of folder names is guessed"),
    (None, "STATUS=SIZE", "how many bytes there are is asked message by message, or not known"),
];

fn is_offered(capabilities: &Capabilities, extension: &str) -> bool {
    match extension {
        "LITERAL+" => capabilities.literal_support() == LiteralSupport::Plus,
        "CONDSTORE" => capabilities.condstore(),
        // Mailferry's single listing needs both.
        "LIST-STATUS" => capabilities.has("LIST-STATUS") && capabilities.has("LIST-EXTENDED"),
        "QUOTA" | "APPENDLIMIT" => {
            capabilities.has(extension)
                || capabilities.iter().any(|c| c.strip_prefix(extension).is_some_and(|rest| rest.starts_with('=')))
        }
        _ => capabilities.has(extension),
    }
}

fn findings(inspected: &InspectedAccount, side: Side) -> SideFindings {
    let InspectedAccount { endpoint, facts, capabilities, account, .. } = inspected;
    let selectable = || account.survey.folders.iter().filter(|folder| folder.selectable());
    let matter = || COSTS.iter().filter(|(on, ..)| on.is_none_or(|on| on == side));
    let statuses = || selectable().map(|folder| folder.status.clone().unwrap_or_default());
    let sizes: Option<Vec<u64>> = statuses().map(|status| status.size).collect();
    SideFindings {
        address: endpoint.address(),
        username: endpoint.login.username.clone(),
        peer: facts.peer,
        server: kind(account.kind).to_owned(),
        provider: provider::provider_of(inspected).map(|provider| provider.name),
        name: account.survey.server.clone().unwrap_or_else(|| facts.greeting.clone()),
        tls: facts.tls(),
        certificate: facts.certificate(),
        mechanisms: facts.mechanisms.clone(),
        login: facts.login.clone(),
        labels: inspected.archived.as_ref().map(|found| {
            let volume = |messages, bytes| IncomingMail { messages, bytes: Some(bytes) };
            let (shown, only) = (found.shown, found.archived);
            LabelledMail {
                folders: volume(shown.messages + only.messages, shown.bytes.saturating_add(only.bytes)),
                once: volume(found.once.messages, found.once.bytes),
            }
        }),
        token: facts.token_origin.clone(),
        offers: matter()
            .filter(|(_, name, _)| is_offered(capabilities, name))
            .map(|(_, name, _)| (*name).into())
            .collect(),
        lacks: matter()
            .filter(|(_, name, _)| !is_offered(capabilities, name))
            .map(|(_, extension, cost)| MissingExtension { extension, cost })
            .collect(),
        folders: selectable().count() as u64,
        messages: statuses().map(|status| u64::from(status.messages.unwrap_or(0))).sum(),
        bytes: sizes.map(|sizes| sizes.iter().sum()),
        append_limit: capabilities.append_limit(),
        storage: tightest(inspected, "STORAGE", 1024),
        message_room: tightest(inspected, "MESSAGE", 1),
    }
}

const fn kind(kind: ServerKind) -> &'static str {
    match kind {
        ServerKind::Generic => "Generic",
        ServerKind::Gmail => "Gmail",
        ServerKind::Exchange => "Exchange",
        ServerKind::Cyrus => "Cyrus",
        ServerKind::Courier => "Courier",
        ServerKind::Dovecot => "Dovecot",
    }
}

/// Of all limits of a kind, the one that leaves least.
fn tightest(inspected: &InspectedAccount, resource: &str, unit: u64) -> Option<QuotaRoom> {
    let limits = inspected.quota.iter().filter(|quota| quota.name.eq_ignore_ascii_case(resource));
    let rooms = limits.map(|q| QuotaRoom { used: q.usage.saturating_mul(unit), limit: q.limit.saturating_mul(unit) });
    rooms.min_by_key(|room| room.free())
}

fn messages(folder: &ListedFolder) -> u64 {
    u64::from(folder.status.as_ref().and_then(|status| status.messages).unwrap_or(0))
}

fn suspicious_source(survey: &AccountListing) -> Option<CheckWarning> {
    let filled: Vec<&ListedFolder> = survey.folders.iter().filter(|folder| messages(folder) > 0).collect();
    let warn = |topic, what: String| Some(CheckWarning { topic, side: Some(Side::Source), what });
    match filled.as_slice() {
        [] => warn(
            WarningTopic::EmptySource,
            "it holds no messages. If the customer read mail over POP3, it is on the customer's computer only"
                .to_owned(),
        ),
        [inbox] if is_same_folder_name(&inbox.item.name, b"INBOX") && messages(inbox) <= POP3_MESSAGES => warn(
            WarningTopic::Pop3,
            format!(
                "it holds {} in INBOX and nothing else: it may be read over POP3, and older mail may only be on \
                 the customer's computer. Ask before the old host is switched off",
                format_count(messages(inbox), "message")
            ),
        ),
        _ => None,
    }
}

fn unsupported(spec: &SyncSpec, capabilities: &Capabilities) -> Option<CheckWarning> {
    (spec.delete_policy == DeletionHandling::Mirror && !capabilities.has("UIDPLUS")).then(|| CheckWarning {
        topic: WarningTopic::Unsupported,
        side: Some(Side::Destination),
        what: "the server has no UIDPLUS: deletions Mirror removes nothing there, since no single message could be removed"
            .to_owned(),
    })
}

fn not_empty(destination: &AccountListing, frozen: &BTreeMap<Vec<u8>, Vec<u8>>) -> Option<CheckWarning> {
    let there: u64 = destination.folders.iter().map(messages).sum();
    // After an earlier run that is as it should be.
    (there > 0 && frozen.is_empty()).then(|| CheckWarning {
        topic: WarningTopic::NotEmpty,
        side: Some(Side::Destination),
        what: format!(
            "it holds {} already: a run compares them with the source's, copies what is missing and removes \
             none of them",
            format_count(there, "message")
        ),
    })
}

/// What is odd about the rules for folders, and what would not be copied though no rule says so.
fn folder_warnings(plan: &FolderPlan, source: &AccountListing) -> Vec<CheckWarning> {
    let warning = |topic, what| CheckWarning { topic, side: Some(Side::Source), what };
    let odd = plan.warnings.iter().map(|what| warning(WarningTopic::Folders, what.clone()));
    let synced = plan.folders.iter().filter(|folder| !folder.is_container);
    let synced = synced.filter_map(|folder| source.folder(&folder.source_raw)).map(messages).sum();
    let unwanted = plan.left_out.iter().filter(|left_out| !left_out.by_rule && !left_out.no_mail);
    let lacking = unwanted.filter_map(|left_out| {
        let found = not_copied(left_out, source.folder(&left_out.raw), synced)?;
        let what = format!(
            "{} {found}: {}. Exclude it (folders.exclude) where that is right; namespaces All copies it, too",
            left_out.folder, left_out.reason
        );
        Some(warning(WarningTopic::NotCopied, what))
    });
    odd.chain(lacking).collect()
}

/// What a folder that Mailferry leaves out by itself holds and no synced folder does; none where that is nothing, or
/// unknown. `synced` is the number of messages in all folders that are synced: each of them can be in a view at most once.
fn not_copied(left_out: &LeftOut, listed: Option<&ListedFolder>, synced: u64) -> Option<String> {
    let all = left_out.messages.filter(|messages| *messages > 0)?;
    if !left_out.is_view {
        return Some(format!("holds {} that would not be copied", format_count(all, "message")));
    }
    let is_of_all = listed.is_some_and(|folder| {
        SpecialUse::of(&folder.item.attributes).is_some_and(|special| special == SpecialUse::All)
    });
    match all.saturating_sub(synced) {
        0 => is_of_all.then(|| {
            let all = format_count(all, "message");
            format!("shows {all}; those that are in no other folder (archived ones) would not be copied")
        }),
        only => Some(format!(
            "holds at least {} that {} in no other folder and would not be copied",
            format_count(only, "message"),
            if only == 1 { "is" } else { "are" }
        )),
    }
}

/// Whether both sides are one account.
#[derive(Debug, Clone, PartialEq, Eq)]
enum AccountSameness {
    Different,
    /// It may be so; what speaks for it.
    Suspected(String),
    /// It is so; what shows it.
    Same(&'static str),
}

fn compare_accounts(source: &InspectedAccount, destination: &InspectedAccount) -> AccountSameness {
    let (Some(from), Some(to)) = (source.facts.peer, destination.facts.peer) else { return AccountSameness::Different };
    let user = |inspected: &InspectedAccount| inspected.endpoint.login.username.to_lowercase();
    let host = |inspected: &InspectedAccount| inspected.endpoint.host.to_lowercase();
    let one_name = host(source) == host(destination);
    let same_uids = have_same_uids(&source.account.survey, &destination.account.survey);
    if from == to && user(source) == user(destination) {
        AccountSameness::Same("the same account on the same server")
    } else if from.ip() == to.ip() && same_uids && (from == to || !one_name) {
        // Two ports of one name may well be two servers, and those may have been filled by one program.
        AccountSameness::Same(
            "two ways to the same account: one machine, and all folders have the same UIDVALIDITY and UIDs",
        )
    } else if same_uids {
        AccountSameness::Suspected(
            "all folders of both sides have the same UIDVALIDITY and UIDs: if both names lead to one server, give the old \
             server's own name or IP address"
                .to_owned(),
        )
    } else if from.ip() == to.ip() && !one_name {
        AccountSameness::Suspected(format!(
            "{} and {} lead to the same machine ({}): if DNS already points to the new host, give the old server's own \
             name or IP address as source",
            source.endpoint.host,
            destination.endpoint.host,
            from.ip()
        ))
    } else {
        AccountSameness::Different
    }
}

/// True when both accounts have the same folders with the same UIDVALIDITY, UIDNEXT and number of messages, and some hold
/// messages: hardly by chance.
fn have_same_uids(a: &AccountListing, b: &AccountListing) -> bool {
    let marks = |survey: &AccountListing| -> Option<BTreeMap<Vec<u8>, (u32, u32, u32)>> {
        let selectable = survey.folders.iter().filter(|folder| folder.selectable());
        selectable
            .map(|folder| {
                let FolderStatus { messages, uid_next, uid_validity, .. } = folder.status.clone()?;
                Some((folder.item.name.to_vec(), (uid_validity?, uid_next?, messages?)))
            })
            .collect()
    };
    match (marks(a), marks(b)) {
        (Some(a), Some(b)) => a == b && a.values().any(|(_, _, messages)| *messages > 0),
        _ => false,
    }
}

fn same_account(spec: &SyncSpec, what: &str) -> Error {
    let (source, destination) = (spec.source.address(), spec.destination.address());
    Error::configuration(format!("source {source} and destination {destination} are {what}"))
        .advice("The source's host name may already point to the new host (DNS): give the old server's own name or IP")
}

/// What the source's folders hold beyond what is in the destination's, folder by folder: what was copied before counts
/// once.
fn incoming_mail(
    plan: &FolderPlan,
    archived: Option<MailVolume>,
    source: &AccountListing,
    destination: &AccountListing,
) -> IncomingMail {
    let mut sum = IncomingMail { messages: 0, bytes: Some(0) };
    for folder in plan.folders.iter().filter(|folder| !folder.is_container) {
        let status = |survey: &AccountListing, raw: &[u8]| {
            survey.folder(raw).and_then(|folder| folder.status.clone()).unwrap_or_default()
        };
        let here = taken_from(folder, archived, status(source, &folder.source_raw));
        let there = status(destination, &folder.destination_raw);
        let (here_messages, there_messages) = (here.messages.unwrap_or(0), there.messages.unwrap_or(0));
        let missing = here_messages.saturating_sub(there_messages);
        sum.messages += u64::from(missing);
        let there_bytes = if there_messages == 0 { Some(0) } else { there.size };
        let bytes = match (here.size, there_bytes) {
            _ if missing == 0 => Some(0),
            (Some(here), Some(there)) => Some(here.saturating_sub(there)),
            // About as large as the others.
            (Some(here), None) => Some(here / u64::from(here_messages) * u64::from(missing)),
            (None, _) => None,
        };
        sum.bytes = sum.bytes.zip(bytes).map(|(sum, bytes)| sum + bytes);
    }
    sum
}

/// Too little room at the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
enum QuotaShortage {
    Certain(Error),
    Possible(String),
}

fn quota_shortage(destination: &SideFindings, coming: IncomingMail, rules: &MessageFilter) -> Option<QuotaShortage> {
    let filtered = *rules != MessageFilter::default();
    let shortage = |what: String, advice: String| {
        if filtered {
            QuotaShortage::Possible(format!(
                "{what}, before the migration's rules for messages leave some out. {advice}"
            ))
        } else {
            QuotaShortage::Certain(Error::new(ErrorClass::Quota, what).advice(advice))
        }
    };
    if let (Some(room), Some(coming)) = (destination.storage, coming.bytes)
        && coming > room.free()
    {
        let (free, needed) = (format_bytes(room.free()), format_bytes(room.used.saturating_add(coming)));
        let what =
            format!("the quota leaves {free} of {}, and {} are coming", format_bytes(room.limit), format_bytes(coming));
        return Some(shortage(what, format!("Raise the quota of the destination account to at least {needed}")));
    }
    if let Some(room) = destination.message_room
        && coming.messages > room.free()
    {
        let (free, needed) = (room.free(), room.used.saturating_add(coming.messages));
        let what =
            format!("the quota leaves room for {free} of {} messages, and {} are coming", room.limit, coming.messages);
        return Some(shortage(
            what,
            format!("Raise the quota of the destination account to at least {needed} messages"),
        ));
    }
    match (destination.storage, coming.bytes) {
        (Some(room), None) => Some(QuotaShortage::Possible(format!(
            "the quota leaves {}; how much is coming is not known, since the source does not tell sizes",
            format_bytes(room.free())
        ))),
        _ => None,
    }
}

/// What a run takes from a folder with this status: of a view of all messages what was archived, which is not known where
/// nobody found out.
fn taken_from(folder: &PlannedFolder, archived: Option<MailVolume>, status: FolderStatus) -> FolderStatus {
    if !folder.only_archived {
        return status;
    }
    let messages = archived.map(|archived| u32::try_from(archived.messages).unwrap_or(u32::MAX));
    FolderStatus { messages, size: archived.map(|archived| archived.bytes), ..status }
}

fn mapping(plan: &FolderPlan, archived: Option<MailVolume>, source: &AccountListing) -> CheckedMapping {
    let folders = plan.folders.iter().map(|folder| {
        let status = source.folder(&folder.source_raw).and_then(|f| f.status.clone()).unwrap_or_default();
        let status = taken_from(folder, archived, status);
        MappedFolder {
            source: folder.source_name.clone(),
            destination: folder.destination_name.clone(),
            messages: status.messages,
            bytes: status.size,
            exists: !folder.create && !folder.is_container,
            container: folder.is_container,
        }
    });
    CheckedMapping {
        folders: folders.collect(),
        left_out: plan.left_out.clone(),
        notes: plan.notes.iter().map(|(folder, note)| format!("{folder}: {note}")).collect(),
    }
}

#[cfg(test)]
mod tests;
