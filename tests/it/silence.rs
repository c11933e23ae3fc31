//! Servers that are there and bring nothing to an end: each wait has a bound, and what is taken late is waited for.

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use mailferry::{Side, sync::spec::WaitSteps};
use tokio::time::Instant;

use crate::{
    fake::{Act, Fake, MODERN, OLD, all_bodies, mails},
    rig::Rig,
};

fn patient(source: &Fake, destination: &Fake) -> Rig {
    let mut rig = Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination));
    rig.spec.retry.waits = WaitSteps::default();
    rig.spec.retry.patience = Duration::from_mins(15);
    rig
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_of_use_for_ever_is_given_up_within_its_bound() {
    for noise in [
        "*",
        "* OK still here\r\n",
        "* 5 EXISTS\r\n",
        "* 1 FETCH (FLAGS (\\Seen))\r\n",
        "* 1 FETCH (UID 1 FLAGS (\\Seen))\r\n",
        "* FLAGS (\\Seen)\r\n",
    ] {
        for at in ["LIST", "EXAMINE", "UID FETCH"] {
            let count = AtomicUsize::new(0);
            let source = Fake::twisted(MODERN, mails(5), move |command, _| {
                let hit = command.starts_with(at) && count.fetch_add(1, SeqCst) == 0;
                hit.then(|| Act::Endless(noise.into(), Duration::from_secs(10)))
            })
            .await;
            let destination = Fake::start(MODERN, Vec::new()).await;
            let rig = patient(&source, &destination);
            let started = Instant::now();
            rig.sync().await;
            // Eight times as long as any answer may take, and the way back.
            let limit = rig.spec.source.timeouts.reply * 8 + Duration::from_mins(2);
            assert!(started.elapsed() <= limit, "{noise:?} at {at}: {:?}", started.elapsed());
            assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&mails(5)), "{noise:?} at {at}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_committed_late_is_waited_for_whichever_side_ended_the_connection() {
    let (appends, noops) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // The destination takes five minutes; the source ends the connection of the waiting client before that.
    let source = Fake::twisted(MODERN, mails(3), move |command, _| {
        let hit = command.starts_with("NOOP") && noops.fetch_add(1, SeqCst) == 1;
        hit.then(|| Act::Bye(Vec::new()))
    })
    .await;
    let destination = Fake::twisted(MODERN, Vec::new(), move |command, _| {
        let hit = command.starts_with("APPEND") && appends.fetch_add(1, SeqCst) == 0;
        hit.then(|| Act::Slowly(Duration::from_mins(5)))
    })
    .await;
    let report = patient(&source, &destination).sync().await;
    assert_eq!(report.reconnects, 1, "{report:#?}");
    assert_eq!(all_bodies(&destination.mails("INBOX")), all_bodies(&mails(3)), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_stores_and_never_answers_does_not_hold_a_run_up_for_each_message() {
    let source = Fake::start(MODERN, mails(60)).await;
    // One at a time, and each is waited for as long as patience says.
    let destination =
        Fake::twisted(OLD, Vec::new(), |command, _| command.starts_with("APPEND").then(|| Act::Covertly(Vec::new())))
            .await;
    let rig = patient(&source, &destination);
    let started = Instant::now();
    let report = rig.try_sync().await;
    assert!(started.elapsed() < Duration::from_hours(3), "{:?}: {report:#?}", started.elapsed());
    let there = destination.mails("INBOX").len() as u64;
    let left = report.not_copied.as_ref().unwrap().messages;
    assert_eq!(there + left, 60, "{report:#?}");
    assert!(left > 0, "{report:#?}");
}
