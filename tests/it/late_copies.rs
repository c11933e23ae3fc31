//! A destination that stores what a lost connection had sent only after it was looked for: nothing but what cannot be
//! known is doubled, and what is doubled is told.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use mailferry::sync::report::MailboxReport;

use crate::{
    fake::{Act, Fake, MODERN, all_bodies, hasty, mails},
    rig::{Rig, adopted, copied},
};

/// A destination that takes the first `taken` APPENDs, ends the connection, and stores them right before the next one.
async fn late_destination(capabilities: &str, taken: usize) -> Fake {
    let appends = Arc::new(AtomicUsize::new(0));
    Fake::twisted(capabilities, Vec::new(), move |command, _| {
        let nth = if command.starts_with("APPEND") { appends.fetch_add(1, SeqCst) + 1 } else { usize::MAX };
        match nth {
            nth if nth < taken => Some(Act::Held(Vec::new())),
            nth if nth == taken => Some(Act::Held(b"* BYE the backend is gone\r\n".to_vec())),
            _ => None,
        }
    })
    .await
}

fn doubled(report: &MailboxReport) -> u64 {
    report.folders.iter().filter_map(|folder| folder.differences.get("doubled")).sum()
}

fn doubted(rig: &Rig) -> u64 {
    rig.store.checkpoint().unwrap().folders[b"INBOX".as_slice()].doubted.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_doubt_one_message_goes_alone_and_what_comes_late_is_not_sent_again() {
    // Without UIDPLUS, the folder is looked at instead of the UID.
    for capabilities in [MODERN, &MODERN.replace(" UIDPLUS", "")] {
        let source = Fake::start(MODERN, mails(8)).await;
        let destination = late_destination(capabilities, 8).await;
        let rig = hasty(&source, &destination);
        let report = rig.sync().await;
        assert_eq!((copied(&report), adopted(&report), doubled(&report)), (1, 7, 1), "{report:#?}");
        let mut expected = mails(8);
        expected.push(mails(1).remove(0));
        assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&expected), "{report:#?}");
        // The next run looks once more, and the one after need not.
        assert_eq!(doubted(&rig), 8);
        let report = rig.sync().await;
        assert_eq!((copied(&report), adopted(&report), doubled(&report)), (0, 0, 0), "{report:#?}");
        assert_eq!(doubted(&rig), 0);
        let settled = rig.store.checkpoint().unwrap().folders[b"INBOX".as_slice()].settled;
        assert_eq!((settled.is_some(), destination.mails("INBOX").len()), (true, 9));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_come_after_the_run_are_told_by_the_next() {
    let source = Fake::start(MODERN, mails(3)).await;
    let destination = late_destination(MODERN, 3).await;
    let rig = hasty(&source, &destination);
    // It is stopped when the connection has ended: what was sent stays in doubt.
    let stop = rig.stop.clone();
    let (report, ()) = tokio::join!(rig.try_sync(), async {
        while destination.heard("APPEND") < 3 {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    });
    assert_eq!(copied(&report), 0, "{report:#?}");
    let rig = Rig { stop: tokio_util::sync::CancellationToken::new(), ..rig };
    assert_eq!(doubted(&rig), 3);
    // Nothing comes for as long as it is looked for, and all of it with the first that is sent again.
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report), doubled(&report)), (1, 2, 1), "{report:#?}");
    destination.change("INBOX", |inbox| {
        let mut late = inbox[1].clone();
        late.uid = 50;
        inbox.push(late);
    });
    let report = rig.sync().await;
    assert_eq!((copied(&report), doubled(&report)), (0, 1), "{report:#?}");
    assert_eq!(destination.mails("INBOX").len(), 5);
}
