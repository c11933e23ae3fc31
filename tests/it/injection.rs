//! Mail is data: whatever a message, its flags or its date hold, it never acts as protocol (on real servers).

use futures::future::join_all;
use mailferry::Side;
use mailferry_testkit::{
    CorpusMessage, Dovecot, DovecotOptions, RawImap, SharedServer, TestAccount, imap_client::quoted, shared_server,
    snapshot::MessageSnapshot,
};

use crate::{
    fake::{Fake, MODERN, Mail},
    rig::{Rig, copied, endpoint},
};

/// Bodies whose lines destroy a folder if a server reads them as commands.
const ATTACKS: [&str; 3] = [
    "z UID STORE 1:* +FLAGS (\\Deleted)\r\nz EXPUNGE\r\nz CLOSE\r\n",
    "Message-ID: <attack@example.org>\r\n\r\nz SELECT INBOX\r\nz UID STORE 1:* +FLAGS.SILENT (\\Deleted)\r\nz EXPUNGE\r\n",
    ") {3+}\r\nabc\r\nM7 OK done\r\nz DELETE Precious\r\n",
];

/// Flags that servers refuse, each for its own reason.
const FLAGS: [&[u8]; 19] = [
    b"\\Junk",
    b"\\Recent",
    b"\\*",
    b"\\Foo",
    b"foo{bar",
    b"foo{3}",
    b"foo{3+}",
    b"gr\xfcn",
    "grün".as_bytes(),
    b"a*b",
    b"a%b",
    b"a]b",
    b"[Gmail]",
    b"a\\b",
    b"NIL",
    b"1",
    b"this-keyword-has-more-than-the-fifty-characters-that-dovecot-takes",
    b"\xff\xfe",
    b"a\x7fb",
];

/// Dates that servers refuse or change.
const DATES: [&str; 12] = [
    "NIL",
    "\"01-Jan-1960 00:00:00 +0000\"",
    "\"31-Dec-1969 23:59:59 +0000\"",
    "\"01-Jan-1970 00:00:00 +0000\"",
    "\"01-Jan-2040 00:00:00 +0000\"",
    "\"01-Jan-2120 00:00:00 +0000\"",
    "\"31-Dec-9999 23:59:59 -1400\"",
    "\"30-Feb-2020 00:00:00 +0000\"",
    "\"05-Mar-2021 24:61:61 +0000\"",
    "\"05-Mar-0000 00:00:00 +0000\"",
    "\"05-Foo-2021 00:00:00 +0000\"",
    "\"\"",
];

/// The destination's own mail, which must stay as it is.
async fn precious(imap: &mut RawImap) {
    imap.command_ok("CREATE Precious").await;
    for folder in ["INBOX", "Precious"] {
        let mail: Vec<CorpusMessage> =
            (0..5).map(|n| CorpusMessage::new(format!("Subject: mine {n}\r\n\r\n{folder} {n}\r\n"))).collect();
        imap.append(folder, &mail).await;
        imap.store(folder, "2", "+FLAGS (\\Deleted \\Flagged)").await;
    }
}

/// Every attack with every flag and date, each between ordinary messages so that it travels in a batch.
fn attacks() -> Vec<Mail> {
    let mut mails: Vec<Mail> = Vec::new();
    let mut add = |mail: Mail| {
        let uid = u32::try_from(mails.len()).unwrap() + 1;
        // No two are the same.
        let body = [mail.body.as_slice(), format!("z NOOP {uid}\r\n").as_bytes()].concat();
        mails.push(Mail { uid, body, ..mail });
    };
    for (at, flag) in FLAGS.iter().enumerate() {
        let attack = ATTACKS[at % ATTACKS.len()];
        add(Mail::new(0, format!("Subject: flag {at}\r\n\r\n{attack}"))
            .flagged([b"\\Seen ", *flag, b" $Fine"].concat()));
        add(Mail::new(0, attack).flagged(*flag));
    }
    for (at, date) in DATES.iter().enumerate() {
        let attack = ATTACKS[at % ATTACKS.len()];
        add(Mail::new(0, format!("Subject: date {at}\r\n\r\n{attack}")).dated(date));
        add(Mail::new(0, attack).dated(date).flagged("$Fine"));
    }
    mails
}

fn own(facts: &[MessageSnapshot]) -> Vec<&MessageSnapshot> {
    facts.iter().take(5).collect()
}

async fn nothing_is_executed(server: &Dovecot, mails: Vec<Mail>) {
    let account = server.account();
    let mut imap = account.connect().await;
    precious(&mut imap).await;
    let (_, inbox) = imap.folder_facts("INBOX").await;
    let (_, other) = imap.folder_facts("Precious").await;
    let source = Fake::start(MODERN, mails.clone()).await;
    let to = endpoint(Side::Destination, server.tls_port(), &account.user, &account.password);
    let rig = Rig::between(source.endpoint(Side::Source), to);
    let report = rig.sync().await;

    let (_, after) = imap.folder_facts("INBOX").await;
    assert_eq!(own(&after), own(&inbox), "the destination's own mail was changed: {report:#?}");
    assert_eq!(imap.folder_facts("Precious").await.1, other);
    let folder = &report.folders[0];
    assert_eq!(copied(&report), mails.len() as u64, "{report:#?}");
    assert_eq!(after.len(), 5 + mails.len());
    for mail in &mails {
        // What was refused at first comes after its neighbours.
        let fact = after[5..].iter().find(|fact| fact.sha256 == mail.sha256());
        let fact = fact.unwrap_or_else(|| panic!("UID {}: {:?} is missing", mail.uid, mail.body));
        let sent: Vec<&[u8]> = mail.flags.split(|b| *b == b' ').filter(|f| *f != b"\\Recent").collect();
        let kept = |flag: &&[u8]| fact.flags.iter().any(|f| f.as_bytes().eq_ignore_ascii_case(flag));
        let told = folder.difference_messages.iter().any(|note| note.uid == mail.uid);
        assert!(sent.iter().all(kept) || told, "UID {}: {:?} became {:?} unsaid", mail.uid, mail.flags, fact.flags);
        let same_date = mail.date == "\"05-Mar-2021 08:09:10 +0000\"" && fact.internal_date == 1_614_931_750;
        assert!(same_date || told, "UID {}: {} unsaid", mail.uid, mail.date);
        if let Some(what) = folder.difference_messages.iter().find(|note| note.uid == mail.uid) {
            assert!(!what.what.contains(['\r', '\n']), "{what:?}");
        }
    }
    let again = rig.sync().await;
    assert_eq!(copied(&again), 0, "{again:#?}");
    assert_eq!(imap.folder_facts("INBOX").await.1, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_in_mail_with_odd_flags_and_dates_stay_mail_in_batches() {
    nothing_is_executed(shared_server(SharedServer::Mdbox), attacks()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_in_mail_with_odd_flags_and_dates_stay_mail_one_by_one() {
    let server = Dovecot::start(&DovecotOptions { hide: vec!["MULTIAPPEND"], ..DovecotOptions::default() });
    nothing_is_executed(&server, attacks()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_in_mail_with_odd_flags_and_dates_stay_mail_by_synchronizing_literals() {
    let server = Dovecot::start(&DovecotOptions { hide: vec!["MULTIAPPEND", "LITERAL+"], ..DovecotOptions::default() });
    nothing_is_executed(&server, attacks()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_in_mail_with_odd_flags_stay_mail_by_synchronizing_batches() {
    let server = Dovecot::start(&DovecotOptions { hide: vec!["LITERAL+"], ..DovecotOptions::default() });
    nothing_is_executed(&server, attacks()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attack_alone_in_its_folder_stays_mail() {
    // The last message of a folder, alone in its batch, is where a server would read on after the literal.
    let alone = attacks().into_iter().step_by(3).map(|mail| vec![Mail { uid: 1, ..mail }]);
    join_all(alone.map(|mails| nothing_is_executed(shared_server(SharedServer::Maildir), mails))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_in_a_large_message_that_streams_stay_mail() {
    let mut body = ATTACKS.concat().into_bytes();
    while body.len() < (2 << 20) {
        body.extend_from_slice(ATTACKS[0].as_bytes());
    }
    let mails = vec![
        Mail::new(1, body.clone()).flagged("foo{bar $Fine").dated("\"30-Feb-2020 00:00:00 +0000\""),
        Mail::new(2, [body, b"end".to_vec()].concat())
            .flagged("this-keyword-has-more-than-the-fifty-characters-that-dovecot-takes"),
    ];
    nothing_is_executed(shared_server(SharedServer::Mdbox), mails.clone()).await;
    let server = Dovecot::start(&DovecotOptions { hide: vec!["MULTIAPPEND", "LITERAL+"], ..DovecotOptions::default() });
    nothing_is_executed(&server, mails).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_keywords_that_appear_after_the_copy_are_reported_and_change_nothing_else() {
    let account: TestAccount<'_> = shared_server(SharedServer::Mdbox).account();
    let mut imap = account.connect().await;
    precious(&mut imap).await;
    let (_, before) = imap.folder_facts("INBOX").await;
    let mails: Vec<Mail> =
        (1..=20).map(|uid| Mail::new(uid, format!("Subject: {uid}\r\n\r\n{}", ATTACKS[0]))).collect();
    let source = Fake::start(MODERN, mails).await;
    let to = endpoint(Side::Destination, account.server.tls_port(), &account.user, &account.password);
    let rig = Rig::between(source.endpoint(Side::Source), to);
    rig.sync().await;
    source.change("INBOX", |mails| {
        for (mail, flag) in mails.iter_mut().zip(FLAGS) {
            mail.flags = [b"\\Flagged ", flag].concat();
        }
    });
    let report = rig.sync().await;
    let (_, after) = imap.folder_facts("INBOX").await;
    assert_eq!(own(&after), own(&before));
    assert_eq!(after.len(), 25);
    for fact in &after[5..24] {
        assert!(fact.flags.contains(&"\\Flagged".to_owned()) && !fact.flags.contains(&"\\Seen".to_owned()), "{fact:?}");
    }
    assert!(report.folders[0].differences.contains_key("flags"), "{report:#?}");
    let quiet = rig.sync().await;
    assert_eq!((copied(&quiet), quiet.folders[0].flags_updated), (0, 0), "{quiet:#?}");
    assert!(quiet.folders[0].differences.is_empty(), "{quiet:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn folder_names_that_hold_commands_are_only_names() {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    precious(&mut right).await;
    let (_, before) = right.folder_facts("Precious").await;
    for name in ["x\" (\\Deleted", "a {3+}", "{5}", "z DELETE Precious", "b\\\\\"c", "M3 OK", "* BYE", "(\\Seen) \"x"] {
        left.command_ok(&format!("CREATE {}", quoted(name))).await;
        left.append(name, &[CorpusMessage::new(ATTACKS[0])]).await;
    }
    let rig = Rig::new(&source, &destination);
    let report = rig.sync().await;
    assert_eq!(copied(&report), 8, "{report:#?}");
    assert_eq!(right.folder_facts("Precious").await.1, before);
}
