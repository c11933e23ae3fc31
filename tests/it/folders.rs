//! Which folders are synced, where they go and what is said of it; which messages are.

use std::collections::BTreeMap;

use mailferry::{
    Side,
    sync::{
        report::MailboxReport,
        spec::{FolderMappingRules, FolderPattern, FolderRename, MessageFilter},
    },
};
use mailferry_testkit::{
    Corpus, CorpusMessage, Dovecot, DovecotOptions, MailFormat, RawImap, SharedServer, corpus::CorpusFolder,
    differences, shared_server, snapshot,
};

use crate::{
    fake::{Act, Change, Fake, MODERN, mails},
    rig::{Rig, copied, endpoint},
};

fn in_folder(name: &str) -> CorpusMessage {
    CorpusMessage::new(format!("Subject: in {name}\r\n\r\n{name}\r\n"))
}

fn corpus(names: &[&str]) -> Corpus {
    Corpus { folders: names.iter().map(|name| CorpusFolder::new(name, vec![in_folder(name)])).collect() }
}

/// Where each folder of the source went, as the destination itself tells: by what the message in it says.
async fn whereabouts(imap: &mut RawImap, names: &[&str]) -> BTreeMap<String, String> {
    use sha2::{Digest as _, Sha256};
    let snapshot = imap.snapshot().await;
    let mut found = BTreeMap::new();
    for name in names {
        let hash: [u8; 32] = Sha256::digest(&in_folder(name).body).into();
        let places: Vec<&String> = snapshot
            .iter()
            .filter(|(_, f)| f.messages.iter().any(|m| m.sha256 == hash))
            .map(|(path, _)| path)
            .collect();
        assert!(places.len() < 2, "{name} is in {places:?}");
        if let Some(place) = places.first() {
            found.insert((*name).to_owned(), (*place).clone());
        }
    }
    found
}

fn pairs(found: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    found.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect()
}

async fn sync_with(names: &[&str], rules: FolderMappingRules) -> (MailboxReport, BTreeMap<String, String>) {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    left.seed(&corpus(names)).await;
    let mut rig = Rig::new(&source, &destination);
    rig.spec.folders = rules;
    let report = rig.sync().await;
    let found = whereabouts(&mut right, names).await;
    let again = rig.sync().await;
    assert_eq!(copied(&again), 0, "{again:#?}");
    (report, found)
}

fn patterns(texts: &[&str]) -> Vec<FolderPattern> {
    texts.iter().map(|text| FolderPattern::parse(text).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_are_included_and_excluded_by_globs_and_regular_expressions() {
    let names = ["INBOX", "Work", "Work/Old", "Work/New", "Work/New/Deep", "Fun", "Funny"];
    let rules = FolderMappingRules {
        include: patterns(&["inbox", "Work/**", "/Fun.*/"]),
        exclude: patterns(&["**/Old", "Funny"]),
        ..FolderMappingRules::default()
    };
    let (report, found) = sync_with(&names, rules).await;
    assert_eq!(found.keys().collect::<Vec<_>>(), ["Fun", "INBOX", "Work/New", "Work/New/Deep"], "{report:#?}");
    let said: BTreeMap<&str, &str> = report.left_out.iter().map(|l| (l.folder.as_str(), l.reason.as_str())).collect();
    assert_eq!(said["Work/Old"], "it is excluded by `**/Old`");
    assert_eq!(said["Funny"], "it is excluded by `Funny`");
    assert_eq!(said["Work"], "no include pattern matches it");
    assert_eq!(said.len(), 3, "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_are_renamed_by_rule_and_put_below_one_folder() {
    let names = ["INBOX", "Archiv/2019", "Archiv/2020", "Other"];
    let rename = vec![FolderRename::parse("Archiv/(.*)", "Archive/Year $1").unwrap()];
    let (_, found) =
        sync_with(&names, FolderMappingRules { rename: rename.clone(), ..FolderMappingRules::default() }).await;
    let wanted = [
        ("Archiv/2019", "Archive/Year 2019"),
        ("Archiv/2020", "Archive/Year 2020"),
        ("INBOX", "INBOX"),
        ("Other", "Other"),
    ];
    assert_eq!(pairs(&found), wanted);
    let rules = FolderMappingRules { rename, into: Some("Old host/Alice".into()), ..FolderMappingRules::default() };
    let (_, found) = sync_with(&names, rules).await;
    assert!(found.iter().all(|(_, to)| to.starts_with("Old host/Alice/")), "{found:?}");
    assert_eq!(found.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_would_merge_two_folders_keep_them_apart_and_say_so() {
    let rename = vec![FolderRename::parse("A|B", "Both").unwrap()];
    let (report, found) =
        sync_with(&["A", "B", "Both"], FolderMappingRules { rename, ..FolderMappingRules::default() }).await;
    let mut places: Vec<&String> = found.values().collect();
    places.sort();
    places.dedup();
    assert_eq!((found.len(), places.len()), (3, 3), "{found:?}");
    assert!(!report.notes.is_empty(), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_equal_but_for_case_or_normalization_stay_on_a_server_that_tells_them_apart() {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::DottedMaildir).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    left.seed(&Corpus::collisions()).await;
    Rig::new(&source, &destination).sync().await;
    assert_eq!(differences(&left.snapshot().await, &right.snapshot().await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_equal_but_for_case_or_normalization_are_kept_apart_on_an_unknown_server() {
    let source = shared_server(SharedServer::Maildir).account();
    let corpus = Corpus::collisions();
    source.connect().await.seed(&corpus).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let from = endpoint(Side::Source, source.server.tls_port(), &source.user, &source.password);
    let rig = Rig::between(from, destination.endpoint(Side::Destination));
    let report = rig.sync().await;
    let mut places: Vec<String> = report.folders.iter().map(|f| f.destination.to_lowercase()).collect();
    places.sort();
    places.dedup();
    assert_eq!((places.len(), copied(&report)), (corpus.folders.len() + 1, 7), "{report:#?}");
    for folder in report.folders.iter().filter(|f| f.source != f.destination) {
        let told = |note: &String| note.starts_with(&folder.source) && note.contains(&folder.destination);
        assert!(report.notes.iter().any(told), "{folder:?}: {:#?}", report.notes);
    }
    assert_eq!(copied(&rig.sync().await), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_hold_the_destinations_separator_arrive_changed_and_said() {
    let names = ["v1.2 release", "a/b.c/d", "v1_2 release", "...", "R&D.x"];
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::DottedMdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    left.seed(&corpus(&names)).await;
    let rig = Rig::new(&source, &destination);
    let report = rig.sync().await;
    let found = whereabouts(&mut right, &names).await;
    assert_eq!(found.len(), names.len(), "{found:?} {report:#?}");
    assert_eq!(found["v1_2 release"], "v1_2 release");
    assert!(found.values().all(|to| !to.contains('.')), "{found:?}");
    for name in ["v1.2 release", "a/b.c", "...", "R&D.x"] {
        assert!(report.notes.iter().any(|note| note.starts_with(name)), "{name}: {report:#?}");
    }
    assert_eq!(copied(&rig.sync().await), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_go_to_the_destinations_folders_of_the_same_use() {
    let used = |names: &[(&'static str, &'static str)]| {
        Dovecot::start(&DovecotOptions {
            format: MailFormat::Mdbox,
            special_use: names.to_vec(),
            special_use_created: true,
            ..DovecotOptions::default()
        })
    };
    let from = used(&[("Sent Items", "\\Sent"), ("Deleted Items", "\\Trash"), ("Drafts", "\\Drafts")]);
    let to = used(&[("Sent", "\\Sent"), ("Trash", "\\Trash"), ("Entwürfe", "\\Drafts")]);
    let (source, destination) = (from.account(), to.account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    let names = ["Sent Items", "Sent Items/2020", "Deleted Items", "Drafts", "Other"];
    left.seed(&corpus(&names)).await;
    let mut rig = Rig::new(&source, &destination);
    let report = rig.sync().await;
    let found = whereabouts(&mut right, &names).await;
    let wanted = [
        ("Deleted Items", "Trash"),
        ("Drafts", "Entwürfe"),
        ("Other", "Other"),
        ("Sent Items", "Sent"),
        ("Sent Items/2020", "Sent/2020"),
    ];
    assert_eq!(pairs(&found), wanted, "{report:#?}");
    assert!(report.notes.iter().any(|n| n.starts_with("Sent Items: ") && n.contains("\\Sent")), "{report:#?}");

    // The mapping is frozen: rules that come later move nothing.
    rig.spec.folders.ignore_special_use = true;
    left.append("Sent Items", &[in_folder("late")]).await;
    assert_eq!(copied(&rig.sync().await), 1);
    assert_eq!(whereabouts(&mut right, &["late"]).await["late"], "Sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn views_of_all_and_flagged_mail_are_left_out_and_said_so() {
    let from = Dovecot::start(&DovecotOptions {
        special_use: vec![("All Mail", "\\All"), ("Starred", "\\Flagged"), ("Sent", "\\Sent")],
        special_use_created: true,
        ..DovecotOptions::default()
    });
    let (source, destination) = (from.account(), shared_server(SharedServer::Mdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    let names = ["INBOX", "All Mail", "Starred", "Sent"];
    left.seed(&corpus(&names)).await;
    let mut rig = Rig::new(&source, &destination);
    let report = rig.sync().await;
    assert_eq!(whereabouts(&mut right, &names).await.keys().collect::<Vec<_>>(), ["INBOX", "Sent"]);
    let said: Vec<&str> = report.left_out.iter().map(|l| l.folder.as_str()).collect();
    assert_eq!(said, ["All Mail", "Starred"], "{report:#?}");
    rig.spec.folders.everything = true;
    rig.sync().await;
    assert_eq!(whereabouts(&mut right, &names).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_namespaces_are_left_out_and_said_so() {
    let extra = "namespace public {\n  type = public\n  separator = /\n  prefix = Public/\n  \
                 location = maildir:~/public:LAYOUT=fs\n  subscriptions = no\n}\n";
    let from = Dovecot::start(&DovecotOptions { extra: extra.to_owned(), ..DovecotOptions::default() });
    let (source, destination) = (from.account(), shared_server(SharedServer::Mdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    let names = ["INBOX", "Publicity", "Public/Team"];
    left.seed(&corpus(&names)).await;
    let mut rig = Rig::new(&source, &destination);
    let report = rig.sync().await;
    assert_eq!(whereabouts(&mut right, &names).await.keys().collect::<Vec<_>>(), ["INBOX", "Publicity"]);
    let said: Vec<&str> = report.left_out.iter().map(|l| l.folder.as_str()).collect();
    assert!(said.contains(&"Public/Team"), "{report:#?}");
    rig.spec.folders.everything = true;
    rig.sync().await;
    assert_eq!(whereabouts(&mut right, &names).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_users_folders_are_left_out_and_said_so() {
    let source = Fake::twisted(MODERN, mails(2), |command, _| {
        let namespaces =
            "* NAMESPACE ((\"\" \"/\")) ((\"Other Users/\" \"/\")) ((\"Shared/\" \"/\"))\r\n{tag} OK done\r\n";
        (command == "NAMESPACE").then(|| Act::Send(namespaces.into()))
    })
    .await;
    for folder in ["Other Users/bob/INBOX", "Shared/Team", "Otherwise"] {
        source.change(folder, |folder| *folder = mails(3));
    }
    let account = shared_server(SharedServer::Mdbox).account();
    let to = endpoint(Side::Destination, account.server.tls_port(), &account.user, &account.password);
    let report = Rig::between(source.endpoint(Side::Source), to).sync().await;
    assert_eq!(copied(&report), 5, "{report:#?}");
    let said: Vec<&str> = report.left_out.iter().map(|l| l.folder.as_str()).collect();
    assert_eq!(said, ["Other Users/bob/INBOX", "Shared/Team"], "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_arrive_and_those_of_the_user_stay() {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::DottedMaildir).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    let mut corpus = corpus(&["INBOX", "A", "B", "C/D"]);
    corpus.folders[2].subscribed = false;
    left.seed(&corpus).await;
    right.command_ok("CREATE INBOX.B").await;
    right.command_ok("SUBSCRIBE INBOX.B").await;
    let report = Rig::new(&source, &destination).sync().await;
    let there = right.snapshot().await;
    assert!(["INBOX", "A", "B", "C/D"].iter().all(|name| there[*name].subscribed), "{report:#?}");
    assert!(!there["C"].selectable);
    assert_eq!(report.subscribed, 3, "{report:#?}");

    let other = shared_server(SharedServer::Mdbox).account();
    let mut rig = Rig::new(&source, &other);
    rig.spec.folders.ignore_subscriptions = true;
    rig.sync().await;
    assert!(other.connect().await.snapshot().await.values().all(|folder| !folder.subscribed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_the_destination_refuses_is_changed_and_its_mail_arrives() {
    // Dovecot refuses names that begin with `~`, and reserved ones; Courier and Cyrus take them.
    let names = ["~home", "cur", "ok", "tmp/new", "..", "a/../b", "x/", "tab\there"];
    let source = Fake::start(MODERN, mails(1)).await;
    for name in names {
        let raw = name.replace('\t', "&AAk-");
        source.change(&raw, |folder| *folder = vec![crate::fake::Mail::new(1, in_folder(name).body)]);
    }
    let account = shared_server(SharedServer::Maildir).account();
    let mut right = account.connect().await;
    let to = endpoint(Side::Destination, account.server.tls_port(), &account.user, &account.password);
    let rig = Rig::between(source.endpoint(Side::Source), to);
    let report = rig.sync().await;
    let found = whereabouts(&mut right, &names).await;
    assert_eq!(found.len(), names.len(), "{found:?} {report:#?}");
    let again = rig.sync().await;
    assert_eq!(copied(&again), 0, "{again:#?}");
    for (from, to) in found.iter().filter(|(from, to)| from != to) {
        // A parent's name may be what changed.
        let said = |note: &String| note.split_once(": ").is_some_and(|(name, _)| from.starts_with(name));
        assert!(report.notes.iter().any(said), "{from} to {to}: {report:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_left_out_by_age_size_and_deletion_and_counted_by_rule() {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    let plain = |n: usize| CorpusMessage::new(format!("Subject: {n}\r\n\r\n{}\r\n", "x".repeat(200)));
    left.append(
        "INBOX",
        &[
            plain(0).dated("01-Jan-2010 00:00:00 +0000"),
            plain(1).dated("31-Dec-2014 23:59:59 -0100"),
            plain(2).dated("31-Dec-2014 23:59:59 +0000"),
            plain(3).dated("01-Jan-2022 00:00:00 +0000"),
            plain(4).flagged(&["\\Deleted"]),
            CorpusMessage::new("tiny"),
            CorpusMessage::new("x".repeat(100_000)),
            plain(7),
        ],
    )
    .await;
    let mut rig = Rig::new(&source, &destination);
    rig.spec.messages = MessageFilter {
        since: Some(snapshot::parse_date_time("01-Jan-2015 00:00:00 +0000")),
        before: Some(snapshot::parse_date_time("01-Jan-2022 00:00:00 +0000")),
        min_size: Some(100),
        max_size: Some(50_000),
        skip_deleted: true,
    };
    let report = rig.sync().await;
    assert_eq!(copied(&report), 2, "{report:#?}");
    let wanted = [
        ("deleted", 1),
        ("larger than maxSize", 1),
        ("not before before", 1),
        ("older than since", 2),
        ("smaller than minSize", 1),
    ];
    let counted = |report: &MailboxReport| {
        report.folders[0].left_out.iter().map(|(rule, n)| (rule.clone(), *n)).collect::<Vec<_>>()
    };
    let wanted: Vec<(String, u64)> = wanted.iter().map(|(rule, n)| ((*rule).to_owned(), *n)).collect();
    assert_eq!(counted(&report), wanted);
    // Counted again by the next run, which copies nothing.
    let again = rig.sync().await;
    assert_eq!((copied(&again), counted(&again)), (0, wanted));
    // What a rule left out is copied once the rule is gone.
    rig.spec.messages = MessageFilter::default();
    assert_eq!(copied(&rig.sync().await), 6);
    let (_, facts) = right.folder_facts("INBOX").await;
    assert_eq!(facts.len(), 8);
    assert!(rig.sync().await.folders.iter().all(|f| f.unchanged));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deep_tree_arrives_below_a_prefix_and_back() {
    let names = ["INBOX", "INBOX/child", "a/b/c/d/e/f/g", "INBOX/INBOX", "x/INBOX"];
    let (first, second, third) = (
        shared_server(SharedServer::Maildir).account(),
        shared_server(SharedServer::DottedMaildir).account(),
        shared_server(SharedServer::Sdbox).account(),
    );
    let mut left = first.connect().await;
    left.seed(&corpus(&names)).await;
    Rig::new(&first, &second).sync().await;
    Rig::new(&second, &third).sync().await;
    let (a, b) = (left.snapshot().await, third.connect().await.snapshot().await);
    assert_eq!(differences(&a, &b), Vec::<String>::new());
}

/// A source whose folder Sent is marked as such.
async fn with_sent() -> Fake {
    let source = Fake::twisted(&format!("{MODERN} SPECIAL-USE"), mails(1), |command, _| {
        command.starts_with("LIST").then(|| {
            Act::Retell(Change::new(|answer: &mut Vec<u8>| {
                let text = String::from_utf8_lossy(answer).replace("() \"/\" \"Sent\"", "(\\Sent) \"/\" \"Sent\"");
                *answer = text.into_bytes();
            }))
        })
    })
    .await;
    source.change("Sent", |folder| *folder = mails(2));
    source
}

#[tokio::test(start_paused = true)]
async fn what_a_folder_is_for_is_carried_where_it_can_be_and_told_where_it_gets_lost() {
    let marks = "CREATE \"Sent\" (USE (\\Sent))";
    for (offered, is_marked, is_told) in
        [("SPECIAL-USE CREATE-SPECIAL-USE", true, false), ("SPECIAL-USE", false, true), ("", false, false)]
    {
        let source = with_sent().await;
        let destination = Fake::start(&format!("{MODERN} {offered}"), Vec::new()).await;
        let report = Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination)).sync().await;
        assert_eq!(destination.mails("Sent").len(), 2, "{report:#?}");
        assert_eq!(destination.heard(marks) == 1, is_marked, "{offered}: {report:#?}");
        assert_eq!(report.notes.iter().any(|note| note.contains("does not mark it so")), is_told, "{report:#?}");
    }
    // Where the destination offers it and refuses it, the folder is made without.
    let source = with_sent().await;
    let destination = Fake::twisted(&format!("{MODERN} SPECIAL-USE CREATE-SPECIAL-USE"), Vec::new(), |command, _| {
        command.contains("(USE").then(|| Act::send("{tag} NO [USEATTR] not that one\r\n"))
    })
    .await;
    let report = Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination)).sync().await;
    assert_eq!(destination.mails("Sent").len(), 2, "{report:#?}");
    assert!(report.notes.iter().any(|note| note.contains("does not mark it so")), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_refused_is_told_and_the_run_goes_on() {
    let source = Fake::start(MODERN, mails(3)).await;
    source.change("Work", |folder| *folder = mails(2));
    let destination = Fake::twisted(MODERN, Vec::new(), |command, _| {
        command.starts_with("SUBSCRIBE").then(|| Act::send("{tag} NO no subscriptions here\r\n"))
    })
    .await;
    let report = Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination)).sync().await;
    assert_eq!((copied(&report), report.subscribed), (5, 0), "{report:#?}");
    let told = |name: &str| report.notes.iter().any(|note| note.starts_with(name) && note.contains("not subscribe"));
    assert!(told("INBOX") || told("Work"), "{report:#?}");
}
