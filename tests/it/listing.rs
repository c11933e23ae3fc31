//! What a server says is held against what it said: nothing that a source leaves out of an answer is lost, forgotten or
//! taken for deleted, and what contradicts the checkpoint is not believed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
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
    fake::{Account, Act, Change, Fake, Listed, MODERN, Mail, OLD, all_bodies, asks_for, mails},
    rig::{Rig, adopted, copied},
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
async fn what_the_source_lists_or_delivers_late_is_looked_for_before_it_is_copied() {
    let delivers = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&delivers);
    let source = Fake::twisted(MODERN, partly_listed(&[4], Listed::Nowhere), move |command, _| {
        (!is_well.load(SeqCst) && asks_for(command, 7)).then(|| Act::send("{tag} NO cannot read it\r\n"))
    })
    .await;
    // The user has both already; of one only its bytes tell.
    let mut own = mails(10);
    own[6] = own[6].clone().dated("\"06-Apr-2022 08:09:10 +0000\"");
    let own: Vec<Mail> = [3, 6].into_iter().zip(1..).map(|(at, uid)| Mail { uid, ..own[at].clone() }).collect();
    let destination = Fake::start(MODERN, own).await;
    let rig = rig(&source, &destination);
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report), unlisted(&report)), (8, 0, Some(1)), "{report:#?}");
    list_everywhere(&source);
    delivers.store(true, SeqCst);
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report), destination.mails("INBOX").len()), (0, 2, 10), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_listed_late_does_not_take_its_twins_copy_where_the_destination_tells_no_uids() {
    let mut twins = partly_listed(&[4], Listed::Nowhere);
    twins[3].body = twins[8].body.clone();
    let source = Fake::start(MODERN, twins.clone()).await;
    // Where the copies are is not found out in the first run.
    let (destination, refuses) = Fake::refusing_fetches(OLD).await;
    let rig = rig(&source, &destination);
    rig.try_sync().await;
    refuses.store(false, SeqCst);
    list_everywhere(&source);
    let report = rig.sync().await;
    assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&twins), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_left_out_when_copies_are_looked_for_is_asked_for_again() {
    let count = AtomicU64::new(0);
    let source = Fake::twisted(MODERN, mails(10), move |command, _| {
        let hit = asks_for(command, 7) && count.fetch_add(1, SeqCst) == 0;
        hit.then(|| {
            Act::Pretend(Change::new(|account: &mut Account| {
                for mails in account.values_mut() {
                    mails.retain(|mail| mail.uid != 7);
                }
            }))
        })
    })
    .await;
    let own = mails(10).into_iter().map(|mail| mail.dated("\"06-Apr-2022 08:09:10 +0000\"")).collect();
    let destination = Fake::start(MODERN, own).await;
    let report = rig(&source, &destination).sync().await;
    assert_eq!((copied(&report), adopted(&report), destination.mails("INBOX").len()), (0, 10, 10), "{report:#?}");
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

/// Messages with these UIDs and bodies that no others have.
fn others(uids: std::ops::RangeInclusive<u32>) -> Vec<Mail> {
    uids.map(|uid| Mail::new(uid, format!("Message-ID: <other-{uid}@example.org>\r\n\r\nother {uid}\r\n"))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_server_that_touches_few_messages_at_once_is_asked_for_all_of_them() {
    let capabilities = format!("{MODERN} MULTIAPPEND MESSAGELIMIT=3");
    let source = Fake::start(&capabilities, mails(10)).await;
    let destination = Fake::start(&capabilities, Vec::new()).await;
    let rig = rig(&source, &destination);
    let report = rig.sync().await;
    assert_eq!((copied(&report), unlisted(&report)), (10, None), "{report:#?}");
    source.change("INBOX", |inbox| inbox.extend(mails(14).into_iter().skip(10)));
    assert_eq!(copied(&rig.sync().await), 4);
    assert_eq!(source.heard(" FETCH 1:3 (UID FLAGS INTERNALDATE"), 0, "the listing was complete without numbers");
    // The destination's folder is listed page by page, too: else copies would be sent again.
    rig.store.lose();
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report), destination.mails("INBOX").len()), (0, 14, 14), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_is_made_anew_with_its_old_uidvalidity_is_copied_anew() {
    let source = Fake::start(MODERN, mails(10)).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let rig = rig(&source, &destination);
    rig.sync().await;
    // UIDNEXT goes back.
    source.change("INBOX", |inbox| *inbox = others(1..=5));
    assert_eq!(copied(&rig.sync().await), 5);
    // UIDNEXT does not, but a UID appears that was gone.
    source.change("INBOX", |inbox| drop(inbox.remove(1)));
    rig.sync().await;
    rig.store.lose();
    rig.sync().await;
    source.change("INBOX", |inbox| {
        *inbox = others(11..=18).into_iter().map(|mail| Mail { uid: mail.uid - 10, ..mail }).collect();
    });
    assert_eq!(copied(&rig.sync().await), 8);
    assert_eq!(copied(&rig.sync().await), 0);
    assert_eq!(destination.mails("INBOX").len(), 23);
}

#[tokio::test(start_paused = true)]
async fn a_destination_folder_that_is_made_anew_with_its_old_uidvalidity_is_filled_again() {
    let source = Fake::start(MODERN, mails(10)).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let rig = rig(&source, &destination);
    rig.sync().await;
    destination.change("INBOX", Vec::clear);
    assert_eq!(copied(&rig.sync().await), 10);
    assert_eq!(destination.mails("INBOX").len(), 10);
}

#[tokio::test(start_paused = true)]
async fn flags_are_compared_where_modification_sequences_went_back() {
    let modseq = Arc::new(AtomicU64::new(100));
    let now = Arc::clone(&modseq);
    let source = Fake::twisted(&format!("{MODERN} CONDSTORE"), mails(3), move |command, _| {
        if command.contains("CHANGEDSINCE") {
            return Some(Act::send("{tag} OK nothing changed\r\n"));
        }
        let now = now.load(SeqCst);
        command.starts_with("EXAMINE").then(|| {
            Act::Retell(Change::new(move |answer: &mut Vec<u8>| {
                let text = String::from_utf8_lossy(answer)
                    .replace("[HIGHESTMODSEQ ", &format!("[HIGHESTMODSEQ {now}] ok [was "));
                *answer = text.into_bytes();
            }))
        })
    })
    .await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let rig = rig(&source, &destination);
    rig.sync().await;
    let flag = |mails: &mut Vec<Mail>| mails[1].flags = b"\\Seen \\Flagged".to_vec();
    source.change("INBOX", flag);
    assert_eq!(rig.sync().await.folders[0].flags_updated, 0, "the source says that nothing changed");
    modseq.store(50, SeqCst);
    assert_eq!(rig.sync().await.folders[0].flags_updated, 1);
    assert!(String::from_utf8_lossy(&destination.mails("INBOX")[1].flags).contains("\\Flagged"));
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_is_listed_in_another_case_goes_on() {
    let source = Fake::start(MODERN, Vec::new()).await;
    source.change("Sent", |sent| *sent = mails(3));
    let destination = Fake::start(MODERN, Vec::new()).await;
    let rig = rig(&source, &destination);
    assert_eq!(copied(&rig.sync().await), 3);
    source.rename("Sent", "SENT");
    source.change("SENT", |sent| sent.extend(mails(4).into_iter().skip(3)));
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (1, 0), "{report:#?}");
    assert!(report.notes.iter().any(|note| note.starts_with("Sent was renamed to SENT")), "{:?}", report.notes);
    assert_eq!((destination.mails("Sent").len(), destination.mails("SENT").len()), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn a_keyword_that_the_destination_spells_otherwise_is_not_stored_again() {
    let spelled = |keyword: &str| mails(3).into_iter().map(|mail| mail.flagged(keyword)).collect::<Vec<_>>();
    let source = Fake::start(MODERN, spelled("$MdnSent")).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let rig = rig(&source, &destination);
    assert_eq!(copied(&rig.sync().await), 3);
    destination.change("INBOX", |mails| mails.iter_mut().for_each(|mail| mail.flags = b"$MDNSent".to_vec()));
    rig.sync().await;
    rig.store.lose();
    assert_eq!(adopted(&rig.sync().await), 3);
    source.change("INBOX", |inbox| *inbox = spelled("$mdnsent"));
    rig.sync().await;
    assert_eq!(destination.heard("STORE"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn uids_that_stand_for_other_messages_after_a_restore_are_not_taken_for_copied() {
    let source = Fake::start(MODERN, mails(10)).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let rig = rig(&source, &destination);
    rig.sync().await;
    // The source is restored as of message 6, and more mail than was lost arrives: the UIDs begin again, and UIDNEXT is
    // higher than it was.
    source.change("INBOX", |inbox| {
        *inbox = mails(18);
        inbox.drain(6..10);
        for (uid, mail) in (1..).zip(inbox) {
            mail.uid = uid;
        }
    });
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (8, 6), "{report:#?}");
    assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&mails(18)));
    // Where the last copy alone is another message, the rest counts.
    destination.change("INBOX", |inbox| {
        let at = inbox.len() - 1;
        inbox[at].body = b"Message-ID: <else@example.org>\r\n\r\nby the user\r\n".to_vec();
    });
    source.change("INBOX", |inbox| inbox.extend([Mail { uid: 15, ..mails(30).remove(29) }]));
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (1, 0), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn what_comes_along_with_the_listing_counts_only_where_it_is_all_of_a_message() {
    let source = Fake::start(MODERN, mails(3)).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let rig = rig(&source, &destination);
    rig.sync().await;
    let body = |uid: u32, bytes: usize| {
        let header = format!("Message-ID: <{uid}@example.org>\r\n\r\n");
        [header.as_bytes(), &vec![b'x'; bytes - header.len()][..]].concat()
    };
    let understated = Mail { size: Some(100), ..Mail::new(6, body(6, 900)) };
    let new = [Mail::new(4, body(4, 500)), Mail::new(5, body(5, 65_536)), understated, Mail::new(7, body(7, 200_000))];
    source.change("INBOX", |mails| mails.extend(new));
    assert_eq!(copied(&rig.sync().await), 4);
    assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&source.mails("INBOX")));
    assert_eq!(source.heard("BODY.PEEK[]<0.65536>)"), 1);
    let asked = source.server.received_commands();
    assert!(asked.iter().any(|command| command.contains("UID FETCH 5:7 (UID BODY.PEEK[])")), "{asked:?}");
}
