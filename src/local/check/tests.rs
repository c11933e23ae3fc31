use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::{
    forecast::KnownRates,
    imap::{
        response::{ListItem, QuotaResource},
        session::ConnectionFacts,
    },
    local::{report_text::TextLayout, window_watch::ServerWindows},
    sync::{plan_preview::ListedAccount, spec::FolderPattern, testing::spec},
};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn folder(name: &str, messages: u32, size: Option<u64>) -> ListedFolder {
    ListedFolder {
        item: ListItem { attributes: vec![], delimiter: Some(b'/'), name: Bytes::copy_from_slice(name.as_bytes()) },
        subscribed: false,
        status: Some(FolderStatus {
            messages: Some(messages),
            uid_next: Some(messages + 1),
            uid_validity: Some(7),
            size,
            ..FolderStatus::default()
        }),
    }
}

/// An account with these folders on a host with this address.
fn seen(side: Side, address: &str, folders: Vec<ListedFolder>) -> InspectedAccount {
    let spec = spec("alice");
    let endpoint = if side == Side::Source { spec.source } else { spec.destination };
    let capabilities = "IMAP4REV1 UIDPLUS MULTIAPPEND LITERAL+ CONDSTORE STATUS=SIZE QUOTA LIST-STATUS";
    InspectedAccount {
        facts: ConnectionFacts {
            tls_version: Some("TLSv1_3".into()),
            peer: Some(address.parse().unwrap()),
            mechanisms: vec!["PLAIN".into()],
            login: "PLAIN".into(),
            ..ConnectionFacts::default()
        },
        capabilities: capabilities.split(' ').map(str::to_owned).collect(),
        account: ListedAccount {
            survey: AccountListing { folders, delimiter: Some(b'/'), ..AccountListing::default() },
            kind: ServerKind::Dovecot,
            has_labels: false,
        },
        endpoint: Arc::new(endpoint),
        archived: None,
        quota: Vec::new(),
    }
}

fn filled() -> InspectedAccount {
    seen(Side::Source, "192.0.2.1:993", vec![folder("INBOX", 100, Some(1_000_000)), folder("Sent", 50, Some(500_000))])
}

fn empty() -> InspectedAccount {
    seen(Side::Destination, "192.0.2.2:993", vec![folder("INBOX", 0, Some(0))])
}

fn assessed(source: InspectedAccount, destination: InspectedAccount) -> MailboxCheck {
    assess_mailbox(&spec("alice"), Ok(source), Ok(destination), &BTreeMap::new(), NOW)
}

fn topics(check: &MailboxCheck) -> Vec<WarningTopic> {
    check.warnings.iter().map(|warning| warning.topic).collect()
}

fn storage(limit_kib: u64) -> InspectedAccount {
    let resource = QuotaResource { name: "STORAGE".into(), usage: 10, limit: limit_kib };
    InspectedAccount { quota: vec![resource], ..empty() }
}

#[test]
fn two_healthy_sides_are_ready_and_show_where_folders_go() {
    let check = assessed(filled(), empty());
    assert!(check.problems.is_empty() && check.warnings.is_empty(), "{check:?}");
    let mapping = check.mapping.as_ref().unwrap();
    let rows: Vec<_> = mapping.folders.iter().map(|f| (f.source.as_str(), f.messages, f.exists)).collect();
    assert_eq!(rows, [("INBOX", Some(100), true), ("Sent", Some(50), false)]);
    let source = check.source.as_ref().unwrap();
    assert_eq!((source.folders, source.messages, source.bytes), (2, 150, Some(1_500_000)));
    assert_eq!(source.tls.as_deref(), Some("TLS 1.3"));
    assert_eq!(gravest_class(&[check]), None);
}

#[test]
fn a_login_that_failed_is_a_problem_of_its_side_and_the_other_side_is_still_shown() {
    let wrong = Error::new(ErrorClass::Authentication, "wrong password").advice("Check it");
    let check = assess_mailbox(&spec("alice"), Err(wrong), Ok(empty()), &BTreeMap::new(), NOW);
    let [problem] = check.problems.as_slice() else { panic!("{check:?}") };
    assert_eq!(problem.to_string(), "mailbox alice: source old.example:993: Authentication: wrong password. Check it");
    assert!(check.source.is_none() && check.destination.is_some() && check.mapping.is_none());
    assert_eq!(gravest_class(&[check]), Some(ErrorClass::Authentication));
}

#[test]
fn messages_of_folders_that_mailferry_leaves_out_by_itself_are_foretold_and_keep_no_run_from_starting() {
    let mut source = filled();
    let mut all = folder("[Gmail]/All Mail", 170, None);
    all.item.attributes = vec!["\\All".into()];
    source.account.survey.folders.push(all);
    let check = assessed(source.clone(), empty());
    let [warning] = check.warnings.as_slice() else { panic!("{check:?}") };
    assert_eq!((warning.topic, warning.side), (WarningTopic::NotCopied, Some(Side::Source)));
    assert!(
        warning.what.starts_with(
            "[Gmail]/All Mail holds at least 20 messages that are in no other folder and would not be copied: it is a view"
        ),
        "{}",
        warning.what
    );
    assert_eq!(gravest_class(&[check]), None);

    let mut spec = spec("alice");
    spec.folders.exclude = vec![FolderPattern::parse("*/All Mail").unwrap(), FolderPattern::parse("Spam").unwrap()];
    let check = assess_mailbox(&spec, Ok(source), Ok(empty()), &BTreeMap::new(), NOW);
    let [warning] = check.warnings.as_slice() else { panic!("{check:?}") };
    assert_eq!(
        warning.topic,
        WarningTopic::Folders,
        "what the user leaves out is no loss, but what is misspelled is told"
    );
    assert_eq!(warning.what, "folders.exclude: `Spam` matches no folder of the source");
}

#[test]
fn of_a_view_only_what_no_synced_folder_can_hold_is_foretold_as_lost() {
    let with = |attribute: &str, messages: u32| {
        let mut source = filled();
        let mut view = folder("View", messages, None);
        view.item.attributes = vec![attribute.into()];
        source.account.survey.folders.push(view);
        let check = assessed(source, empty());
        let topics = topics(&check);
        (check.warnings.into_iter().map(|warning| warning.what).next(), topics)
    };
    // INBOX and Sent hold 150: no number tells how many of these are archived.
    let (what, topics) = with("\\All", 150);
    assert_eq!(topics, [WarningTopic::NotCopied]);
    let what = what.unwrap_or_default();
    assert!(
        what.starts_with(
            "View shows 150 messages; those that are in no other folder (archived ones) would not be copied"
        ),
        "{what}"
    );
    assert_eq!(with("\\Flagged", 150).1, []);
    let (what, topics) = with("\\Flagged", 151);
    assert_eq!(topics, [WarningTopic::NotCopied]);
    assert!(what.is_some_and(|what| what.contains("at least 1 message that is in no other folder")));
    assert_eq!(with("\\All", 0).1, []);
}

#[test]
fn the_gravest_problem_of_all_mailboxes_decides() {
    let failed = |class| MailboxCheck { problems: vec![Error::new(class, "x")], ..MailboxCheck::default() };
    let checks = [failed(ErrorClass::Network), failed(ErrorClass::Configuration), failed(ErrorClass::Quota)];
    assert_eq!(gravest_class(&checks), Some(ErrorClass::Configuration));
}

#[test]
fn a_quota_too_small_for_what_is_coming_is_a_problem() {
    let check = assessed(filled(), storage(1000));
    let [problem] = check.problems.as_slice() else { panic!("{check:?}") };
    assert_eq!(problem.class, ErrorClass::Quota);
    insta::assert_snapshot!(problem, @"mailbox alice: destination new.example:993: Quota: the quota leaves 1.01 MB of 1.02 MB, and 1.50 MB are coming. Raise the quota of the destination account to at least 1.51 MB");
    assert!(assessed(filled(), storage(2000)).problems.is_empty());
}

#[test]
fn what_was_copied_before_is_not_coming_again() {
    let mut destination = storage(1500);
    destination.account.survey.folders = vec![folder("INBOX", 100, Some(1_000_000)), folder("Sent", 0, Some(0))];
    let check = assessed(filled(), destination);
    assert!(check.problems.is_empty(), "{check:?}");
    assert_eq!(topics(&check), [WarningTopic::NotEmpty]);
}

#[test]
fn with_rules_for_messages_or_unknown_sizes_a_small_quota_is_a_warning() {
    let mut spec = spec("alice");
    spec.messages.max_size = Some(1000);
    let check = assess_mailbox(&spec, Ok(filled()), Ok(storage(1000)), &BTreeMap::new(), NOW);
    assert!(check.problems.is_empty() && topics(&check) == [WarningTopic::Quota], "{check:?}");
    let unknown = seen(Side::Source, "192.0.2.1:993", vec![folder("INBOX", 100, None)]);
    let check = assessed(unknown, storage(1_000_000));
    assert!(check.problems.is_empty() && topics(&check) == [WarningTopic::Quota], "{check:?}");
}

#[test]
fn a_quota_in_messages_counts_too() {
    let resource = QuotaResource { name: "MESSAGE".into(), usage: 0, limit: 149 };
    let check = assessed(filled(), InspectedAccount { quota: vec![resource], ..empty() });
    assert_eq!(check.problems.iter().map(|p| p.class).collect::<Vec<_>>(), [ErrorClass::Quota]);
}

#[test]
fn a_source_of_a_nearly_empty_inbox_alone_looks_like_pop3() {
    let source = |folders| seen(Side::Source, "192.0.2.1:993", folders);
    let few = source(vec![folder("INBOX", 3, Some(10)), folder("Sent", 0, Some(0))]);
    assert_eq!(topics(&assessed(few, empty())), [WarningTopic::Pop3]);
    let many = source(vec![folder("INBOX", 300, Some(10))]);
    assert_eq!(topics(&assessed(many, empty())), []);
    let sent = source(vec![folder("INBOX", 3, Some(10)), folder("Sent", 1, Some(10))]);
    assert_eq!(topics(&assessed(sent, empty())), []);
    assert_eq!(topics(&assessed(source(vec![folder("INBOX", 0, Some(0))]), empty())), [WarningTopic::EmptySource]);
}

#[test]
fn one_account_as_source_and_destination_is_refused() {
    let mut destination = filled();
    destination.endpoint =
        Arc::new(crate::imap::Endpoint { login: filled().endpoint.login.clone(), ..empty().endpoint.as_ref().clone() });
    let check = assessed(filled(), destination);
    assert_eq!(check.problems.iter().map(|p| p.class).collect::<Vec<_>>(), [ErrorClass::Configuration]);

    // Another port and another spelling of the user, but one machine and the same folders.
    let mut destination = filled();
    destination.endpoint = empty().endpoint;
    destination.facts.peer = Some("192.0.2.1:143".parse().unwrap());
    let check = assessed(filled(), destination);
    assert_eq!(check.problems.iter().map(|p| p.class).collect::<Vec<_>>(), [ErrorClass::Configuration]);
}

#[test]
fn what_may_be_one_account_or_one_machine_is_warned_of() {
    // Behind another address, but the same folders.
    let mut destination = filled();
    destination.endpoint = empty().endpoint;
    destination.facts.peer = empty().facts.peer;
    let check = assessed(filled(), destination);
    assert!(check.problems.is_empty() && topics(&check).contains(&WarningTopic::SameServer), "{check:?}");
    // One machine, but other folders.
    let mut destination = empty();
    destination.facts.peer = filled().facts.peer;
    let check = assessed(filled(), destination);
    assert!(check.problems.is_empty() && topics(&check) == [WarningTopic::SameServer], "{check:?}");
    // One machine on purpose: both sides name it alike.
    let mut destination = empty();
    destination.facts.peer = filled().facts.peer;
    destination.endpoint = Arc::new(crate::imap::Endpoint {
        host: filled().endpoint.host.clone(),
        ..destination.endpoint.as_ref().clone()
    });
    assert_eq!(topics(&assessed(filled(), destination)), []);
}

#[test]
fn mirroring_needs_uidplus_and_no_tls_is_warned_of() {
    let mut spec = spec("alice");
    spec.delete_policy = DeletionHandling::Mirror;
    let mut destination = empty();
    destination.capabilities = ["IMAP4REV1".to_owned()].into_iter().collect();
    destination.facts.tls_version = None;
    let check = assess_mailbox(&spec, Ok(filled()), Ok(destination), &BTreeMap::new(), NOW);
    assert_eq!(topics(&check), [WarningTopic::Unprotected, WarningTopic::Unsupported]);
    let lacks: Vec<&str> = check.destination.as_ref().unwrap().lacks.iter().map(|lack| lack.extension).collect();
    assert!(
        lacks.contains(&"MULTIAPPEND") && lacks.contains(&"LITERAL+") && !lacks.contains(&"CONDSTORE"),
        "{lacks:?}"
    );
}

#[test]
fn a_certificate_is_read_and_its_end_is_warned_of_in_time() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["imap.old.example".into(), "192.0.2.1".into()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "imap.old.example");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2026, 3, 15);
    let der = params.self_signed(&key).unwrap().der().to_vec();
    let read = Certificate::parse(&der).unwrap();
    assert_eq!((read.subject.as_str(), read.issuer.as_str()), ("imap.old.example", "imap.old.example"));
    assert_eq!(read.names, ["imap.old.example", "192.0.2.1"]);
    let warned = |now: &str| {
        let mut source = filled();
        source.facts.certificate = Some(der.clone());
        let check = assess_mailbox(&spec("alice"), Ok(source), Ok(empty()), &BTreeMap::new(), now.parse().unwrap());
        check.warnings.first().map(|warning| warning.what.clone()).unwrap_or_default()
    };
    assert_eq!(warned("2026-03-01T00:00:00Z"), "");
    assert!(warned("2026-03-01T00:00:01Z").contains("expires in 13 days"), "{}", warned("2026-03-01T00:00:01Z"));
    assert!(warned("2026-03-14T12:00:00Z").contains("within a day"));
    assert!(warned("2026-03-15T00:00:01Z").contains("has expired"));
    assert_eq!(Certificate::parse(b"no certificate"), None);
}

#[test]
#[allow(clippy::too_many_lines, reason = "one long text")]
fn the_findings_are_readable() {
    let mut source = filled();
    source.account.survey.folders.push(ListedFolder { subscribed: true, ..folder("Sent Items\u{1b}[2J", 1, None) });
    let mut destination = storage(2_000_000);
    destination.account.survey.folders = vec![folder("INBOX", 2, Some(100))];
    let check = assessed(source, destination);
    let took = std::time::Duration::from_secs(2);
    let report = |checks: &[MailboxCheck], windows: &[ServerWindows]| {
        report(checks, (NOW, took), (&KnownRates::default(), windows), TextLayout::default())
    };
    insta::assert_snapshot!(report(std::slice::from_ref(&check), &[]), @r#"
    Warnings
      destination: it holds 2 messages already: a run compares them with the source's, copies what is missing and removes none of them
      destination: the quota leaves 2.05 GB; how much is coming is not known, since the source does not tell sizes

    alice: ready, with 2 warnings
      source old.example:993 (192.0.2.1), alice@old.example
        server   Dovecot
        TLS      TLS 1.3
        login    PLAIN (mechanisms offered: PLAIN)
        holds    3 folders, 151 messages, bytes unknown
        offers   CONDSTORE, STATUS=SIZE
        lacks    ESEARCH: later syncs list all messages at length
        lacks    LIST-STATUS: each sync asks for every folder by itself
        lacks    SPECIAL-USE: folders for sent mail, drafts and so on are known by their names only
        lacks    NAMESPACE: the prefix of folder names is guessed
      destination new.example:993 (192.0.2.2), alice@new.example
        server   Dovecot
        TLS      TLS 1.3
        login    PLAIN (mechanisms offered: PLAIN)
        holds    1 folder, 2 messages, 100 B
        quota    10.24 kB of 2.05 GB used, 2.05 GB free
        offers   LITERAL+, MULTIAPPEND, UIDPLUS, QUOTA, STATUS=SIZE
        lacks    APPENDLIMIT: a message that is too large is found only when it is refused
        lacks    LIST-STATUS: each sync asks for every folder by itself
        lacks    SPECIAL-USE: folders for sent mail, drafts and so on are known by their names only
        lacks    NAMESPACE: the prefix of folder names is guessed
      folders
        folder               messages      bytes  at the destination
        INBOX                     100    1.00 MB  INBOX (exists)
        Sent                       50  500.00 kB  Sent (will be made)
        Sent Items\u{1b}[2J         1          ?  Sent Items_[2J (will be made)
      Notes on folders
        Sent Items\u{1b}[2J: its name is not modified UTF-7 and is taken as it stands
        Sent Items\u{1b}[2J: the destination can't take all characters of its name

    1 mailbox: 1 ready, checked in 2.0s. To be copied: 149 messages of unknown size: time unknown.
    "#);
    let broken = assess_mailbox(&spec("bob"), Err(Error::network("gone")), Ok(empty()), &BTreeMap::new(), NOW);
    let windows = ServerWindows {
        server: "old.example:993".to_owned(),
        windows: "22:00-06:00 Europe/Berlin".to_owned(),
        open: false,
        until: Some("2026-01-16T21:00:00Z".to_owned()),
    };
    insta::assert_snapshot!(report(&[check, broken], &[windows]), @r#"
    Problems (1)
      source old.example:993: Network: gone (bob)

    Warnings
      destination: it holds 2 messages already: a run compares them with the source's, copies what is missing and removes none of them (alice)
      destination: the quota leaves 2.05 GB; how much is coming is not known, since the source does not tell sizes (alice)

    alice: ready, with 2 warnings
      source old.example:993 (192.0.2.1), alice@old.example
        server   Dovecot
        TLS      TLS 1.3
        login    PLAIN (mechanisms offered: PLAIN)
        holds    3 folders, 151 messages, bytes unknown
        offers   CONDSTORE, STATUS=SIZE
        lacks    ESEARCH: later syncs list all messages at length
        lacks    LIST-STATUS: each sync asks for every folder by itself
        lacks    SPECIAL-USE: folders for sent mail, drafts and so on are known by their names only
        lacks    NAMESPACE: the prefix of folder names is guessed
      destination new.example:993 (192.0.2.2), alice@new.example
        server   Dovecot
        TLS      TLS 1.3
        login    PLAIN (mechanisms offered: PLAIN)
        holds    1 folder, 2 messages, 100 B
        quota    10.24 kB of 2.05 GB used, 2.05 GB free
        offers   LITERAL+, MULTIAPPEND, UIDPLUS, QUOTA, STATUS=SIZE
        lacks    APPENDLIMIT: a message that is too large is found only when it is refused
        lacks    LIST-STATUS: each sync asks for every folder by itself
        lacks    SPECIAL-USE: folders for sent mail, drafts and so on are known by their names only
        lacks    NAMESPACE: the prefix of folder names is guessed
      folders
        folder               messages      bytes  at the destination
        INBOX                     100    1.00 MB  INBOX (exists)
        Sent                       50  500.00 kB  Sent (will be made)
        Sent Items\u{1b}[2J         1          ?  Sent Items_[2J (will be made)
      Notes on folders
        Sent Items\u{1b}[2J: its name is not modified UTF-7 and is taken as it stands
        Sent Items\u{1b}[2J: the destination can't take all characters of its name

    bob: 1 problem
      destination new.example:993 (192.0.2.2), alice@new.example
        server   Dovecot
        TLS      TLS 1.3
        login    PLAIN (mechanisms offered: PLAIN)
        holds    1 folder, 0 messages, 0 B
        offers   LITERAL+, MULTIAPPEND, UIDPLUS, QUOTA, STATUS=SIZE
        lacks    APPENDLIMIT: a message that is too large is found only when it is refused
        lacks    LIST-STATUS: each sync asks for every folder by itself
        lacks    SPECIAL-USE: folders for sent mail, drafts and so on are known by their names only
        lacks    NAMESPACE: the prefix of folder names is guessed

    time windows of old.example:993: 22:00-06:00 Europe/Berlin, now closed until 2026-01-16T21:00:00Z

    2 mailboxes: 1 ready, 1 with problems, checked in 2.0s. To be copied: 149 messages of unknown size: time unknown.
    "#);
}
