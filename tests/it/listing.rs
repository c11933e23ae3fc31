//! What a source lists is held against what it counts: nothing that it leaves out of an answer is lost, forgotten or
//! taken for deleted.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use mailferry::{
    Side,
    sync::{
        report::MailboxReport,
        set_aside::SetAsideReason,
        spec::{DeletionHandling, FlagHandling},
    },
};

use crate::{
    fake::{Act, Fake, Listed, MODERN, Mail, asks_for, mails},
    rig::{Rig, copied},
};

fn rig(source: &Fake, destination: &Fake) -> Rig {
    Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination))
}

/// Ten messages, of which some are listed elsewhere than the others.
fn partly_listed(uids: &[u32], listed: Listed) -> Vec<Mail> {
    let one = |mail: Mail| if uids.contains(&mail.uid) { mail.listed(listed) } else { mail };
    mails(10).into_iter().map(one).collect()
}

fn list_everywhere(source: &Fake) {
    source.change("INBOX", |mails| mails.iter_mut().for_each(|mail| mail.listed = Listed::Everywhere));
}

fn unlisted(report: &MailboxReport) -> Option<u64> {
    report.folders[0].skipped.get("unlisted").copied()
}

#[tokio::test(start_paused = true)]
async fn messages_that_are_counted_and_listed_nowhere_count_as_not_copied_until_they_are_listed() {
    let source = Fake::start(MODERN, partly_listed(&[4, 10], Listed::Nowhere)).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let mut rig = rig(&source, &destination);
    // A folder in which nothing is left to do would not be opened again.
    rig.spec.flag_policy = FlagHandling::Ignore;
    for copies in [8, 0] {
        let report = rig.sync().await;
        assert_eq!((copied(&report), unlisted(&report)), (copies, Some(2)), "{report:#?}");
        assert_eq!((report.folders[0].source_messages, report.folders[0].unchanged), (10, false), "{report:#?}");
        let not_copied = report.not_copied.unwrap();
        assert_eq!((not_copied.messages, not_copied.reasons["unlisted"]), (2, 2));
        assert_eq!(rig.store.checkpoint().unwrap().folders[b"INBOX".as_slice()].unlisted, 2);
    }
    rig.spec.accepted_losses.reasons.insert(SetAsideReason::Unlisted);
    let accepted = rig.sync().await.not_copied.unwrap();
    assert_eq!((accepted.messages, accepted.accepted["unlisted"]), (0, 2));

    list_everywhere(&source);
    let report = rig.sync().await;
    assert_eq!((copied(&report), unlisted(&report)), (2, None), "{report:#?}");
    assert!(rig.sync().await.folders[0].unchanged);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_only_its_sequence_number_finds_is_copied() {
    let source = Fake::start(MODERN, partly_listed(&[4], Listed::WhenAskedFor)).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let rig = rig(&source, &destination);
    let report = rig.sync().await;
    assert_eq!((copied(&report), unlisted(&report)), (10, None), "{report:#?}");
    assert_eq!((copied(&rig.sync().await), destination.mails("INBOX").len()), (0, 10));
}

#[tokio::test(start_paused = true)]
async fn what_was_set_aside_is_tried_again_though_a_search_lists_only_the_newest() {
    let healed = Arc::new(AtomicBool::new(false));
    let is_healed = Arc::clone(&healed);
    let source = Fake::twisted(MODERN, mails(20), move |command, _| {
        if command.starts_with("UID SEARCH") {
            return Some(Act::send("* ESEARCH UID ALL 17:20\r\n{tag} OK done\r\n"));
        }
        let fails = asks_for(command, 3) && !is_healed.load(SeqCst);
        fails.then(|| Act::send("{tag} NO internal problem with that message\r\n"))
    })
    .await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let rig = rig(&source, &destination);
    for copies in [19, 0] {
        let report = rig.sync().await;
        assert_eq!(copied(&report), copies, "{report:#?}");
        assert_eq!((report.folders[0].skipped.get("unreadable"), unlisted(&report)), (Some(&1), None), "{report:#?}");
    }
    healed.store(true, SeqCst);
    source.change("INBOX", |inbox| inbox.extend(mails(21).into_iter().skip(20)));
    let report = rig.sync().await;
    assert_eq!((copied(&report), report.folders[0].skipped.len()), (2, 0), "{report:#?}");
    assert_eq!((report.folders[0].source_messages, destination.mails("INBOX").len()), (21, 21));
}

#[tokio::test(start_paused = true)]
async fn what_was_set_aside_is_not_forgotten_while_messages_are_listed_nowhere() {
    let source = Fake::twisted(MODERN, mails(10), |command, _| {
        asks_for(command, 3).then(|| Act::send("{tag} NO internal problem with that message\r\n"))
    })
    .await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let rig = rig(&source, &destination);
    rig.sync().await;
    source.change("INBOX", |mails| mails[2].listed = Listed::Nowhere);
    let report = rig.sync().await;
    assert_eq!((report.folders[0].skipped.get("unreadable"), unlisted(&report)), (Some(&1), Some(1)), "{report:#?}");
    list_everywhere(&source);
    let report = rig.sync().await;
    assert_eq!((report.folders[0].skipped.get("unreadable"), unlisted(&report)), (Some(&1), None), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn no_copy_is_deleted_because_the_source_lists_less_than_it_counts() {
    let source = Fake::start(MODERN, mails(10)).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let mut rig = rig(&source, &destination);
    rig.spec.delete_policy = DeletionHandling::Mirror;
    rig.sync().await;
    source.change("INBOX", |inbox| *inbox = partly_listed(&[1, 2], Listed::Nowhere));
    let report = rig.sync().await;
    assert!(report.folders[0].doubts[0].contains("2 of the source's 10 messages are listed nowhere"), "{report:#?}");
    assert_eq!((report.folders[0].deleted, destination.heard("EXPUNGE")), (0, 0), "{report:#?}");
}
