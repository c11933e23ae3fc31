//! A sync that may write no more stops at once; and a checkpoint that was too large to be kept whole doubles nothing.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use mailferry::{
    Error, ErrorClass, Result,
    imap::permit::WritePermit,
    sync::{checkpoint::high_water_mark::MapCoverage, progress::SyncProgress},
};
use mailferry_testkit::{Corpus, CorpusMessage, SharedServer, differences, eventually, shared_server, so};

use crate::rig::{Rig, adopted, copied};

/// Where a sync is in the middle of its work: so many messages are done.
const MIDDLE: u64 = 150;

/// Granted until the sync is in the middle of its work.
#[derive(Debug)]
struct Withdrawn {
    progress: Arc<SyncProgress>,
    asked_after: AtomicU64,
}

impl WritePermit for Withdrawn {
    fn check(&self) -> Result<()> {
        if self.progress.messages_done.load(SeqCst) >= MIDDLE {
            self.asked_after.fetch_add(1, SeqCst);
            return Err(Error::internal("fenced: another attempt has taken over"));
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_permit_no_connection_sends_anything_more_and_the_next_sync_goes_on() {
    let corpus = Corpus::bulk(900, 9 << 20, 6, 31).with_large(4 << 20);
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    left.seed(&corpus).await;
    let mut rig = Rig::new(&source, &destination);
    let permit = Arc::new(Withdrawn { progress: Arc::clone(&rig.progress), asked_after: AtomicU64::new(0) });
    rig.permit = Arc::clone(&permit) as Arc<dyn WritePermit>;
    let report = rig.try_sync().await;
    let error = report.error.expect("an error");
    assert_eq!((error.class, error.what.as_str()), (ErrorClass::Internal, "fenced: another attempt has taken over"));
    assert!(report.folders.iter().map(|f| f.copied_now).sum::<u64>() < corpus.messages() as u64);
    let asked = permit.asked_after.load(SeqCst);
    assert!((1..=12).contains(&asked), "three connections ask once each, and once more to say goodbye: {asked}");

    rig.permit = Arc::new(mailferry::imap::permit::AlwaysPermitted);
    rig.sync().await;
    assert_eq!(differences(&left.snapshot().await, &right.snapshot().await), Vec::<String>::new());
}

/// Held from the middle of the work on, until it is released.
#[derive(Debug)]
struct Held {
    progress: Arc<SyncProgress>,
    began: AtomicBool,
    released: AtomicBool,
}

impl WritePermit for Held {
    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn is_suspended(&self) -> bool {
        let held = self.progress.messages_done.load(SeqCst) >= MIDDLE && !self.released.load(SeqCst);
        self.began.fetch_or(held, SeqCst);
        held
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_permit_is_held_nothing_is_sent_and_then_the_sync_goes_on_without_reconnecting() {
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    left.seed(&Corpus::bulk(2000, 20 << 20, 6, 31)).await;
    let mut rig = Rig::new(&source, &destination);
    let permit = Arc::new(Held {
        progress: Arc::clone(&rig.progress),
        began: AtomicBool::new(false),
        released: AtomicBool::new(false),
    });
    rig.permit = Arc::clone(&permit) as Arc<dyn WritePermit>;
    let pause = async {
        eventually("something would have been sent", async || so(permit.began.load(SeqCst), "nothing yet")).await;
        let done = eventually("what was sent before is answered", async || {
            let before = rig.progress.messages_done.load(SeqCst);
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            let now = rig.progress.messages_done.load(SeqCst);
            so(now == before, format!("{now} messages are done")).map(|()| now)
        })
        .await;
        permit.released.store(true, SeqCst);
        done
    };
    let (report, done) = tokio::join!(rig.sync(), pause);
    assert!(done < 2000, "it stood still on the way");
    assert_eq!(report.reconnects, 0);
    assert_eq!(differences(&left.snapshot().await, &right.snapshot().await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_above_its_mark_is_left_alone_or_goes_on_and_nothing_is_doubled() {
    let corpus = Corpus::bulk(300, 1 << 20, 3, 31);
    let (source, destination) =
        (shared_server(SharedServer::Maildir).account(), shared_server(SharedServer::Mdbox).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    left.seed(&corpus).await;
    let rig = Rig::new(&source, &destination);
    rig.sync().await;
    let reduce = || {
        rig.store.shrink(|kept| kept.folders.values().all(|state| state.coverage != MapCoverage::Whole));
    };

    reduce();
    let unchanged = rig.sync().await;
    assert!(unchanged.folders.iter().all(|folder| folder.unchanged), "{unchanged:#?}");

    left.append("INBOX", &[CorpusMessage::new("Subject: one more\r\n\r\n")]).await;
    reduce();
    let delta = rig.sync().await;
    assert_eq!(copied(&delta), 1, "{delta:#?}");
    assert_eq!(adopted(&delta), 0, "nothing is matched that counts as copied");
    assert_eq!(differences(&left.snapshot().await, &right.snapshot().await), Vec::<String>::new());
}
