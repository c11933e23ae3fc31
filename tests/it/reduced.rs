//! A checkpoint that had no room for a folder's whole map: what the user did at the destination stays as it is, nothing is
//! doubled, nothing is lost, and what is no longer followed is told.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use mailferry::{
    Side,
    sync::{
        checkpoint::{
            Checkpoint, FolderState,
            high_water_mark::{HighWaterMark, MapCoverage},
        },
        report::MailboxReport,
        spec::{DeletionHandling, MessageFilter},
    },
};
use mailferry_testkit::{
    CorpusMessage, FaultyProxy, RawImap, SharedServer, differences, dovecot::TestAccount, shared_server,
};

use crate::{
    fake::{Act, Fake, MODERN, Mail, all_bodies, asks_for, hasty, mails},
    rig::{Rig, adopted, copied, endpoint},
};

const INBOX: &[u8] = b"INBOX";

/// True for a third of all UIDs, in which no compression finds a rule.
fn is_missing(uid: u32) -> bool {
    (u64::from(uid).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % 3 == 0
}

/// The UIDs up to `last` that are not missing.
fn present(last: u32) -> Vec<u32> {
    (1..=last).filter(|uid| !is_missing(*uid)).collect()
}

fn set(uids: &[u32]) -> String {
    uids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

fn numbered(n: u32, size: usize) -> CorpusMessage {
    let head = format!("Message-ID: <n{n}@example.org>\r\nSubject: {n}\r\n\r\n");
    CorpusMessage::new([head.as_bytes(), &vec![b'x'; size]].concat()).flagged(&["\\Seen"])
}

const LAST: u32 = 300;

/// True for some UIDs below the last.
fn is_large(uid: u32) -> bool {
    uid != LAST && is_missing(uid * 3)
}

/// An account whose INBOX has gaps. Messages of which `is_large` have 2,000 bytes.
async fn seed(account: &TestAccount<'_>, is_large: impl Fn(u32) -> bool) -> RawImap {
    let mut imap = account.connect().await;
    let messages: Vec<_> = (1..=LAST).map(|uid| numbered(uid, if is_large(uid) { 2000 } else { 20 })).collect();
    imap.append("INBOX", &messages).await;
    let missing: Vec<u32> = (1..=LAST).filter(|uid| is_missing(*uid)).collect();
    imap.expunge("INBOX", &set(&missing)).await;
    imap
}

fn mark(state: &FolderState) -> Option<&HighWaterMark> {
    match &state.coverage {
        MapCoverage::AboveMark(mark) => Some(mark),
        _ => None,
    }
}

/// Puts a reduced checkpoint in the place of the last one; gives the mark.
fn reduce(rig: &Rig, wanted: impl Fn(&HighWaterMark) -> bool) -> HighWaterMark {
    let has_mark = |state: &FolderState| mark(state).is_some_and(|mark| mark.uid.0 > 0 && wanted(mark));
    let kept = rig.store.shrink(|kept| kept.folders.get(INBOX).is_some_and(has_mark));
    mark(&kept.folders[INBOX]).unwrap().clone()
}

fn notes(report: &MailboxReport, words: &str) -> usize {
    report.notes.iter().filter(|note| note.contains(words)).count()
}

/// Two accounts on Dovecots, synced once.
async fn synced<'a>(
    source: &TestAccount<'a>,
    destination: &TestAccount<'a>,
    rules: MessageFilter,
    is_large: impl Fn(u32) -> bool,
) -> (Rig, RawImap, RawImap) {
    let left = seed(source, is_large).await;
    let mut rig = Rig::new(source, destination);
    rig.spec.messages = rules;
    rig.sync().await;
    (rig, left, destination.connect().await)
}

/// What the destination holds: subjects and flags, sorted.
async fn there(imap: &mut RawImap) -> Vec<(u64, Vec<String>)> {
    let mut facts: Vec<_> =
        imap.folder_facts("INBOX").await.1.into_iter().map(|fact| (fact.size, fact.flags)).collect();
    facts.sort();
    facts
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_user_removed_or_marked_below_the_mark_stays_so_and_new_mail_goes_on() {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let (rig, mut left, mut right) = synced(&source, &destination, MessageFilter::default(), |_| false).await;
    let mark = reduce(&rig, |_| true);
    assert_eq!((u64::from(LAST), mark.listed), (mark.uid.0.into(), present(LAST).len() as u64));
    right.expunge("INBOX", "1:5").await;
    right.store("INBOX", "10:12", "-FLAGS (\\Seen)").await;
    let before = there(&mut right).await;
    assert!(rig.sync().await.folders[0].unchanged);
    let (mut mark, mut all, mut last) = (mark, present(LAST).len() as u64, LAST);
    for round in 1..3 {
        let (uids, first) = (last + 1..=last + 60, last + 1);
        left.append("INBOX", &uids.clone().map(|uid| numbered(uid, 5000)).collect::<Vec<_>>()).await;
        let missing: Vec<u32> = uids.filter(|uid| is_missing(*uid)).collect();
        left.expunge("INBOX", &set(&missing)).await;
        let new = 60 - missing.len() as u64;
        last = first + 59;
        let report = rig.sync().await;
        assert_eq!((copied(&report), adopted(&report), report.folders[0].flags_updated), (new, 0, 0), "{report:#?}");
        assert_eq!(report.folders[0].copied_before, all, "{report:#?}");
        assert_eq!(notes(&report, "is no longer known"), 1, "{report:#?}");
        let mut after = there(&mut right).await;
        after.retain(|(size, _)| *size < 5000);
        assert_eq!(after, before, "round {round}");
        // It is reduced again, above the new mail.
        all += new;
        mark = reduce(&rig, |again| again.uid > mark.uid);
        assert_eq!(mark.listed, all);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_and_deletions_are_followed_above_the_mark_alone() {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let (mut rig, mut left, mut right) = synced(&source, &destination, MessageFilter::default(), |_| false).await;
    rig.spec.delete_policy = DeletionHandling::Mirror;
    reduce(&rig, |_| true);
    left.append("INBOX", &[numbered(901, 5000), numbered(902, 6000), numbered(903, 7000)]).await;
    assert_eq!(copied(&rig.sync().await), 3);
    let before = there(&mut right).await;
    let old = present(LAST);
    left.expunge("INBOX", &set(&old[3..8])).await;
    left.store("INBOX", &set(&old[10..20]), "-FLAGS (\\Seen)").await;
    left.expunge("INBOX", &(LAST + 1).to_string()).await;
    left.store("INBOX", &(LAST + 2).to_string(), "+FLAGS (\\Flagged)").await;
    let report = rig.sync().await;
    assert_eq!((report.folders[0].deleted, report.folders[0].flags_updated), (1, 1), "{report:#?}");
    assert!(report.folders[0].doubts.is_empty(), "{report:#?}");
    assert_eq!(notes(&report, "are no longer followed"), 1, "{report:#?}");
    let (old, new): (Vec<_>, Vec<_>) = there(&mut right).await.into_iter().partition(|(size, _)| *size < 5000);
    assert_eq!(old, before[..before.len() - 3]);
    assert_eq!(new.iter().map(|(_, flags)| flags.len()).collect::<Vec<_>>(), [2, 1]);
    assert!(rig.sync().await.folders[0].unchanged, "nothing is left to do");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rules_left_out_below_the_mark_is_copied_once_they_let_it_through() {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let rules = MessageFilter { max_size: Some(1000), ..MessageFilter::default() };
    let (mut rig, mut left, mut right) = synced(&source, &destination, rules.clone(), is_large).await;
    let large = present(LAST).into_iter().filter(|uid| is_large(*uid)).count() as u64;
    let mark = reduce(&rig, |mark| mark.left_out.is_none());
    assert_eq!(mark.exceptions.len(), large);
    right.expunge("INBOX", "1:5").await;
    let same = rig.sync().await;
    assert_eq!((copied(&same), same.folders[0].left_out["larger than maxSize"]), (0, large), "{same:#?}");
    assert_eq!(same.folders[0].copied_before, present(LAST).len() as u64 - large);
    rig.spec.messages = MessageFilter::default();
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (large, 0), "{report:#?}");
    assert_eq!(there(&mut right).await.len(), there(&mut left).await.len() - 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_change_are_told_and_matched_where_what_they_left_out_is_known_by_them_alone() {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let rules = MessageFilter { max_size: Some(1000), ..MessageFilter::default() };
    let (mut rig, mut left, mut right) = synced(&source, &destination, rules.clone(), is_large).await;
    let (all, large) =
        (present(LAST).len() as u64, present(LAST).into_iter().filter(|uid| is_large(*uid)).count() as u64);
    let mark = reduce(&rig, |mark| mark.left_out.is_some());
    assert_eq!(mark.left_out.unwrap().messages, large);
    right.store("INBOX", "10:12", "-FLAGS (\\Seen)").await;
    left.append("INBOX", &[numbered(901, 500)]).await;
    let same = rig.sync().await;
    assert_eq!((copied(&same), adopted(&same)), (1, 0), "{same:#?}");
    assert_eq!((same.folders[0].copied_before, same.folders[0].left_out.values().sum()), (all - large, large));
    rig.spec.messages = MessageFilter { max_size: Some(3000), ..rules };
    let report = rig.sync().await;
    assert_eq!((copied(&report), notes(&report, "the message rules changed")), (large, 1), "{report:#?}");
    let there = there(&mut right).await;
    assert_eq!(there.len() as u64, all + 1, "nothing is doubled");
    assert_eq!(there.iter().filter(|(_, flags)| flags.is_empty()).count(), 3, "what the user marked stays so");
    assert_eq!(copied(&rig.sync().await), 0);
}

/// Ordinary messages with gaps between their UIDs.
fn gapped() -> Vec<Mail> {
    mails(LAST).into_iter().filter(|mail| !is_missing(mail.uid)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_refused_below_the_mark_is_tried_again() {
    let mut all = gapped();
    let refused = all[20].uid;
    all[20].body.resize(777, b'x');
    let source = Fake::start(MODERN, all.clone()).await;
    let closed = Arc::new(AtomicBool::new(true));
    let now = Arc::clone(&closed);
    let destination = Fake::twisted(MODERN, Vec::new(), move |command, _| {
        let hit = command.starts_with("APPEND") && command.contains("{777") && now.load(SeqCst);
        hit.then(|| Act::send("{tag} NO [CANNOT] no such message here\r\n"))
    })
    .await;
    let rig = hasty(&source, &destination);
    let report = rig.sync().await;
    assert_eq!(copied(&report), all.len() as u64 - 1, "{report:#?}");
    let mark = reduce(&rig, |_| true);
    assert_eq!(mark.exceptions.to_string(), refused.to_string());
    closed.store(false, SeqCst);
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (1, 0), "{report:#?}");
    assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_come_to_light_below_the_mark_are_copied_and_the_others_are_matched() {
    let all = gapped();
    let hidden: BTreeSet<u32> = [5, 40, 90].map(|at| all[at].uid).into();
    let source = Fake::start(MODERN, all.clone()).await;
    source.change("INBOX", |mails| mails.retain(|mail| !hidden.contains(&mail.uid)));
    let destination = Fake::start(MODERN, Vec::new()).await;
    let rig = hasty(&source, &destination);
    rig.sync().await;
    reduce(&rig, |_| true);
    source.change("INBOX", |mails| mails.clone_from(&all));
    let report = rig.sync().await;
    assert_eq!((copied(&report), notes(&report, "lists more messages")), (3, 1), "{report:#?}");
    assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&all));
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report), notes(&report, "UID")), (0, 0, 0), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_could_not_be_read_is_not_taken_for_its_twin_below_the_mark() {
    let mut all = gapped();
    let unreadable = all[30].uid;
    (all[30].body, all[30].date) = (all[20].body.clone(), all[20].date.clone());
    let is_broken = Arc::new(AtomicBool::new(true));
    let now = Arc::clone(&is_broken);
    let source = Fake::twisted(MODERN, all.clone(), move |command, _| {
        let hit = now.load(SeqCst) && command.contains("BODY.PEEK[]") && asks_for(command, unreadable);
        hit.then(|| Act::send("{tag} NO [SERVERBUG] it can't be read\r\n"))
    })
    .await;
    let own = Mail::new(1, "Subject: the user's own\r\n\r\nx\r\n");
    let destination = Fake::start(MODERN, vec![own.clone()]).await;
    let rig = hasty(&source, &destination);
    assert_eq!(copied(&rig.sync().await), all.len() as u64 - 1);
    assert_eq!(reduce(&rig, |_| true).exceptions.to_string(), unreadable.to_string());
    is_broken.store(false, SeqCst);
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (1, 0), "{report:#?}");
    all.push(own);
    assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_had_no_room_at_all_is_matched_and_told() {
    let source = Fake::start(MODERN, gapped()).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let rig = hasty(&source, &destination);
    rig.sync().await;
    let mut checkpoint = rig.store.checkpoint().unwrap();
    let inbox = checkpoint.folders.get_mut(INBOX).unwrap();
    inbox.coverage = MapCoverage::SamplesOnly;
    checkpoint.dropped_folders = 2;
    rig.store.set(&checkpoint);
    let mut all = gapped();
    all.push(Mail::new(LAST + 7, "Subject: new\r\n\r\nx\r\n"));
    source.change("INBOX", |mails| mails.clone_from(&all));
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (1, all.len() as u64 - 1), "{report:#?}");
    assert_eq!(notes(&report, "INBOX: what was copied before is no longer known"), 1, "{report:#?}");
    assert!(report.warnings.iter().any(|warning| warning.contains("of 2 folders")), "{report:#?}");
    assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&all));
    assert_eq!(rig.store.checkpoint().unwrap().dropped_folders, 0);
    assert!(rig.sync().await.warnings.is_empty());
}

/// True when something is known of each folder by its UIDs.
fn is_useful(kept: &Checkpoint) -> bool {
    !kept.folders.is_empty() && kept.folders.values().all(|state| state.coverage != MapCoverage::SamplesOnly)
}

/// Breaks first syncs off, puts in the place of what was saved what `reduce` leaves of it, and goes on.
async fn killed_and_reduced(reduce: impl Fn(&Rig) -> Checkpoint) {
    let mut marks = 0;
    for round in 1..5_u64 {
        let (source, destination) =
            (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
        let mut left = seed(&source, |uid| uid % 2 == 0).await;
        let proxy = FaultyProxy::start(destination.server.tls_port(), Duration::ZERO);
        let mut rig = Rig::new(&source, &destination);
        rig.spec.destination = endpoint(Side::Destination, proxy.port(), &destination.user, &destination.password);
        rig.store.eager.store(true, SeqCst);
        for kill in 1..3 {
            rig.sync_killed_after(&proxy, round * 40_000 + kill * 60_000).await;
            if rig.store.checkpoint().is_some_and(|saved| saved.folders.contains_key(INBOX)) {
                marks += u64::from(reduce(&rig).folders.get(INBOX).and_then(mark).is_some());
            }
        }
        rig.sync().await;
        let mut right = destination.connect().await;
        assert_eq!(differences(&left.snapshot().await, &right.snapshot().await), Vec::<String>::new(), "round {round}");
        assert!(mark(&reduce(&rig).folders[INBOX]).is_some());
        assert_eq!(copied(&rig.sync().await), 0);
    }
    assert!(marks > 0, "no checkpoint of a killed sync was reduced");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_is_killed_goes_on_from_a_reduced_checkpoint_without_losing_or_doubling() {
    killed_and_reduced(|rig| {
        let is_reduced = |state: &FolderState| mark(state).is_some() || state.map.len() < 20;
        rig.store.shrink(|kept| is_useful(kept) && kept.folders.values().all(is_reduced))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_is_killed_goes_on_from_the_least_that_is_kept_without_losing_or_doubling() {
    killed_and_reduced(|rig| rig.store.shrink_most(is_useful)).await;
}
