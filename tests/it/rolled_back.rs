//! Checkpoints that are older than what was done by them, and say that nothing is in doubt: of a restored backup, or of an
//! etcd that was rolled back.

use crate::{
    fake::{Fake, MODERN, Mail, all_bodies, hasty, mails},
    rig::{adopted, copied},
};

/// Without LITERAL+ and UIDPLUS.
const OLD: &str = "IMAP4rev1 AUTH=PLAIN SASL-IR NAMESPACE";

const INBOX: &[u8] = b"INBOX";

#[tokio::test(start_paused = true)]
async fn what_a_run_copied_whose_checkpoint_was_rolled_back_is_found_and_not_copied_again() {
    for capabilities in [MODERN, OLD] {
        for copied_before in [0, 10] {
            let source = Fake::start(MODERN, mails(copied_before)).await;
            let destination = Fake::start(capabilities, Vec::new()).await;
            let rig = hasty(&source, &destination);
            rig.sync().await;
            let saved = rig.store.checkpoint().unwrap();
            let state = &saved.folders[INBOX];
            assert!(!state.append_in_doubt && state.destination_next == copied_before + 1, "{state:?}");
            source.change("INBOX", |there| there.clone_from(&mails(30)));
            rig.sync().await;
            rig.store.set(&saved);
            let report = rig.sync().await;
            let found = u64::from(30 - copied_before);
            assert_eq!((copied(&report), adopted(&report)), (0, found), "{capabilities}: {report:#?}");
            assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&mails(30)));
            // That is all: nobody is waited for who might still write.
            let state = &rig.store.checkpoint().unwrap().folders[INBOX];
            assert!(state.doubted.is_empty() && state.settled.is_some(), "{state:?}");
            assert_eq!((state.destination_next, state.map.len()), (31, 30));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn mail_that_others_deliver_to_the_destination_is_looked_at_once_and_stays() {
    let source = Fake::start(&format!("{MODERN} CONDSTORE"), mails(10)).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let rig = hasty(&source, &destination);
    rig.sync().await;
    destination.change("INBOX", |there| there.push(Mail::new(11, "Subject: delivered\r\n\r\nhere\r\n")));
    // Nothing changed at the source: the folder is not opened, and what came is no news later.
    let opened = destination.heard("SELECT");
    rig.sync().await;
    assert_eq!(destination.heard("SELECT"), opened);
    let state = &rig.store.checkpoint().unwrap().folders[INBOX];
    assert_eq!(state.destination_next, 12);
    let read = destination.heard("BODY.PEEK[]");
    source.change("INBOX", |there| there.clone_from(&mails(11)));
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (1, 0), "{report:#?}");
    assert_eq!(destination.heard("BODY.PEEK[]"), read, "what was delivered before is not read");
    // Between two syncs that both have work it is.
    destination.change("INBOX", |there| there.push(Mail::new(13, "Subject: delivered\r\n\r\ntoo\r\n")));
    source.change("INBOX", |there| there.clone_from(&mails(12)));
    let report = rig.sync().await;
    assert_eq!((copied(&report), adopted(&report)), (1, 0), "{report:#?}");
    let state = &rig.store.checkpoint().unwrap().folders[INBOX];
    assert_eq!((destination.mails("INBOX").len(), state.destination_next, state.map.len()), (14, 15, 12));
    assert!(state.doubted.is_empty() && state.settled.is_some(), "{state:?}");
}
