//! Every extension is used when offered and done without when not: exact either way.

use futures::future::join_all;
use mailferry::Side;
use mailferry_testkit::{
    Corpus, CorpusMessage, Dovecot, DovecotOptions, MailFormat, SharedServer, differences, shared_server,
};

use crate::{
    fake::{Fake, MODERN, Mail, OLD, mails},
    lesser::Lesser,
    rig::{Rig, adopted, copied, endpoint},
};

/// What a server of the old days has not.
const BEYOND_BASE: [&str; 13] = [
    "LITERAL+",
    "MULTIAPPEND",
    "UIDPLUS",
    "LIST-EXTENDED",
    "LIST-STATUS",
    "SASL-IR",
    "ESEARCH",
    "NAMESPACE",
    "SPECIAL-USE",
    "CONDSTORE",
    "QRESYNC",
    "ID",
    "ENABLE",
];

fn hiding(format: MailFormat, hide: &[&'static str]) -> Dovecot {
    Dovecot::start(&DovecotOptions { format, hide: hide.to_vec(), ..DovecotOptions::default() })
}

/// Copies a varied mailbox, follows changes, and does it again without the checkpoint.
async fn exact_without(from: &[&'static str], to: &[&'static str]) {
    let (from, to) = (hiding(MailFormat::Maildir, from), hiding(MailFormat::Mdbox, to));
    let (source, destination) = (from.account(), to.account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    let corpus = Corpus::varied(5).with_large(2 << 20);
    left.seed(&corpus).await;
    let before = left.snapshot().await;
    let mut rig = Rig::new(&source, &destination);
    // INBOX may stay empty where it is not the source's: only then does no message arrive unnoticed.
    let report = rig.sync().await;
    assert_eq!(copied(&report), corpus.messages() as u64, "{report:#?}");
    assert_eq!(differences(&before, &right.snapshot().await), Vec::<String>::new(), "{report:#?}");
    assert_eq!(differences(&before, &left.snapshot().await), Vec::<String>::new(), "the source was changed");

    left.append("INBOX", &[CorpusMessage::new("Subject: new\r\n\r\nnew\r\n").flagged(&["\\Flagged", "$New"])]).await;
    left.store("INBOX", "1:5", "+FLAGS (\\Answered $Late)").await;
    left.store("Sent", "1:*", "-FLAGS (\\Seen)").await;
    let before = left.snapshot().await;
    let delta = rig.sync().await;
    assert_eq!(copied(&delta), 1, "{delta:#?}");
    assert_eq!(differences(&before, &right.snapshot().await), Vec::<String>::new(), "{delta:#?}");

    rig.store.lose();
    rig.spec.connections = 1;
    let adopting = rig.sync().await;
    assert_eq!((copied(&adopting), adopted(&adopting)), (0, corpus.messages() as u64 + 1), "{adopting:#?}");
    assert_eq!(differences(&before, &right.snapshot().await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_arrives_exactly_without_non_synchronizing_literals() {
    exact_without(&[], &["LITERAL+"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_arrives_exactly_without_multiappend() {
    exact_without(&[], &["MULTIAPPEND"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_arrives_exactly_with_nothing_but_the_base_protocol_at_the_destination() {
    // Without UIDPLUS is another story.
    let hidden: Vec<&str> = BEYOND_BASE.into_iter().filter(|name| *name != "UIDPLUS").collect();
    exact_without(&[], &hidden).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_arrives_exactly_with_nothing_but_the_base_protocol_at_the_source() {
    exact_without(&BEYOND_BASE, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_follow_without_modsequences_by_comparing_all() {
    exact_without(&["CONDSTORE", "QRESYNC"], &["CONDSTORE", "QRESYNC"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_arrives_exactly_without_extended_lists() {
    exact_without(&["LIST-EXTENDED", "LIST-STATUS"], &["LIST-EXTENDED", "LIST-STATUS", "NAMESPACE"]).await;
}

/// The flags of each copy, by body.
fn kept(fake: &Fake) -> Vec<(Vec<u8>, String)> {
    fake.mails("INBOX").into_iter().map(|m| (m.body, String::from_utf8(m.flags).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_uidplus_copies_are_found_again_and_their_flags_follow() {
    let source = Fake::start(MODERN, mails(30)).await;
    let server = Lesser::start();
    let account = server.dovecot.account();
    let mut right = account.connect().await;
    right.append("INBOX", &[CorpusMessage::new("Subject: mine\r\n\r\nmine\r\n")]).await;
    let relay = server.relay().await;
    let rig = Rig::between(source.endpoint(Side::Source), relay.endpoint(&account));
    let report = rig.sync().await;
    assert_eq!(copied(&report), 30, "{report:#?}");
    let (_, facts) = right.folder_facts("INBOX").await;
    assert_eq!(facts.len(), 31);

    source.change("INBOX", |mails| {
        mails[3].flags = b"\\Flagged $Late".to_vec();
        mails.push(Mail::new(31, "Subject: new\r\n\r\nnew\r\n"));
    });
    let delta = rig.sync().await;
    assert_eq!(copied(&delta), 1, "{delta:#?}");
    let (_, facts) = right.folder_facts("INBOX").await;
    assert_eq!(facts.len(), 32);
    assert_eq!(facts[4].flags, ["$Late", "\\Flagged"], "{delta:#?}");
    assert!(facts[0].flags.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_uidplus_identical_copies_keep_their_own_flags() {
    let source = Fake::start(MODERN, Vec::new()).await;
    source.change("INBOX", |mails| {
        for uid in 1..=6 {
            mails.push(Mail::new(uid, "Message-ID: <twin@x>\r\n\r\nthe same\r\n").flagged(""));
        }
    });
    let server = Lesser::start();
    let account = server.dovecot.account();
    let relay = server.relay().await;
    let rig = Rig::between(source.endpoint(Side::Source), relay.endpoint(&account));
    assert_eq!(copied(&rig.sync().await), 6);
    source.change("INBOX", |mails| mails[2].flags = b"\\Flagged".to_vec());
    let delta = rig.sync().await;
    assert_eq!(copied(&delta), 0, "{delta:#?}");
    let (_, facts) = account.connect().await.folder_facts("INBOX").await;
    let flagged = facts.iter().filter(|f| f.flags.contains(&"\\Flagged".to_owned())).count();
    assert_eq!((facts.len(), flagged), (6, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_killed_without_uidplus_neither_loses_nor_doubles() {
    let server = Lesser::start();
    join_all((0..4).map(|seed| killed_twice(&server, seed))).await;
}

async fn killed_twice(server: &Lesser, seed: u64) {
    let from = shared_server(SharedServer::Maildir).account();
    let mut left = from.connect().await;
    left.seed(&Corpus::bulk(300, 2 << 20, 2, seed)).await;
    let account = server.dovecot.account();
    let relay = server.relay().await;
    let from = endpoint(Side::Source, from.server.tls_port(), &from.user, &from.password);
    let rig = Rig::between(from, relay.endpoint(&account));
    for kill in 1..=2 {
        let limit = (seed * 150 + kill * 500) << 10;
        tokio::select! {
            _ = rig.try_sync() => {}
            () = async {
                while relay.written() < limit {
                    tokio::task::yield_now().await;
                }
            } => {}
        }
    }
    rig.sync().await;
    let mut right = account.connect().await;
    assert_eq!(differences(&left.snapshot().await, &right.snapshot().await), Vec::<String>::new(), "seed {seed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn between_servers_of_the_old_days_everything_arrives_once() {
    let source = Fake::start(OLD, mails(40)).await;
    let destination = Fake::start(OLD, Vec::new()).await;
    let rig = Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination));
    assert_eq!(copied(&rig.sync().await), 40);
    let arrived: Vec<Vec<u8>> = kept(&destination).into_iter().map(|(body, _)| body).collect();
    assert_eq!(arrived, mails(40).into_iter().map(|m| m.body).collect::<Vec<_>>());
    assert_eq!(copied(&rig.sync().await), 0);
    rig.store.lose();
    let adopting = rig.sync().await;
    assert_eq!((copied(&adopting), adopted(&adopting)), (0, 40), "{adopting:#?}");
    assert_eq!(destination.heard("+}"), 0, "a literal was sent without being asked for");
    assert_eq!(destination.mails("INBOX").len(), 40);
}

#[tokio::test(start_paused = true)]
async fn gmail_is_never_told_that_a_message_is_deleted() {
    // It would remove such a message at once.
    let marked = |mail: Mail| if mail.uid < 3 { mail.flagged("\\Seen \\Deleted") } else { mail };
    let source = Fake::start(MODERN, mails(5).into_iter().map(marked).collect()).await;
    // Two are there already.
    let own = mails(5).into_iter().skip(1).step_by(2).zip(1..).map(|(mail, uid)| Mail { uid, ..mail }).collect();
    let destination = Fake::start(&format!("{MODERN} X-GM-EXT-1"), own).await;
    let rig = Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination));
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (3, 2), "{report:#?}");
    source
        .change("INBOX", |mails| mails.iter_mut().for_each(|mail| mail.flags = b"\\Seen \\Deleted \\Flagged".to_vec()));
    let report = rig.sync().await;
    assert!(destination.heard("\\Flagged") > 0, "{report:#?}");
    assert_eq!(destination.heard("\\Deleted"), 0, "{report:#?}");
}
