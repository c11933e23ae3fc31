//! Connections cut and syncs killed at every kind of moment: nothing lost, nothing doubled.

use std::time::Duration;

use mailferry::Side;
use mailferry_testkit::{
    ConnectionFault, Corpus, FaultyProxy, RawImap, SharedServer,
    corpus::SplitMix64,
    differences,
    dovecot::TestAccount,
    proxy::{BreakMode, BreakPoint, Direction},
    shared_server,
};

use crate::rig::{Rig, copied, endpoint};

/// Two accounts, the source filled.
async fn filled(
    from: SharedServer,
    to: SharedServer,
    corpus: &Corpus,
) -> (TestAccount<'static>, TestAccount<'static>, RawImap, RawImap) {
    let (source, destination) = (shared_server(from).account(), shared_server(to).account());
    let (mut left, right) = (source.connect().await, destination.connect().await);
    left.seed(corpus).await;
    (source, destination, left, right)
}

fn through(proxy: &FaultyProxy, side: Side, account: &TestAccount<'_>) -> mailferry::imap::Endpoint {
    endpoint(side, proxy.port(), &account.user, &account.password)
}

async fn survives(direction: Direction, side: Side, how: BreakMode) {
    let corpus = Corpus::bulk(300, 6 << 20, 3, 11).with_large(2 << 20);
    let (source, destination, mut left, mut right) = filled(SharedServer::Maildir, SharedServer::Mdbox, &corpus).await;
    let proxy = FaultyProxy::start(
        if side == Side::Source { source.server.tls_port() } else { destination.server.tls_port() },
        Duration::ZERO,
    );
    let mut rig = Rig::new(&source, &destination);
    match side {
        Side::Source => rig.spec.source = through(&proxy, side, &source),
        Side::Destination => rig.spec.destination = through(&proxy, side, &destination),
    }
    let mut random = SplitMix64(direction as u64 * 7 + how as u64);
    // Each connection breaks somewhere in what it carries, until the faults are used up.
    proxy.break_next(
        (0..6).map(|_| Some(ConnectionFault { when: BreakPoint::Bytes(direction, 4000 + random.below(3 << 20)), how })),
    );
    let report = rig.sync().await;
    let (a, b) = (left.snapshot().await, right.snapshot().await);
    // What was being taken when two connections ended goes last, and that is told.
    let told = report.folders.iter().filter(|folder| folder.differences.contains_key("order"));
    let told: Vec<String> = told.map(|f| format!("{}: the same messages in another order", f.source)).collect();
    assert_eq!(differences(&a, &b), told, "{report:#?}");
    assert!(proxy.accepted() > 3, "no connection was cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_hangs_up_while_sending_loses_and_doubles_nothing() {
    survives(Direction::ToClient, Side::Source, BreakMode::Close).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_resets_while_receiving_loses_and_doubles_nothing() {
    survives(Direction::ToServer, Side::Destination, BreakMode::Reset).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_hangs_up_while_receiving_loses_and_doubles_nothing() {
    survives(Direction::ToServer, Side::Destination, BreakMode::Close).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_the_destination_that_get_lost_double_nothing() {
    let corpus = Corpus::bulk(400, 4 << 20, 2, 12);
    let (source, destination, mut left, mut right) = filled(SharedServer::Maildir, SharedServer::Mdbox, &corpus).await;
    let proxy = FaultyProxy::start(destination.server.tls_port(), Duration::ZERO);
    let mut rig = Rig::new(&source, &destination);
    rig.spec.destination = through(&proxy, Side::Destination, &destination);
    // After the handshake, login and listing the answers are few and small: each is lost once.
    let faults = (0..8).map(|n| {
        Some(ConnectionFault { when: BreakPoint::Bytes(Direction::ToClient, 5200 + n * 140), how: BreakMode::Close })
    });
    proxy.break_next(faults);
    rig.sync().await;
    assert_eq!(differences(&left.snapshot().await, &right.snapshot().await), Vec::<String>::new());
}

/// Breaks a sync off at once, as SIGKILL would, after some bytes went to the destination, again and again.
async fn killed_and_rerun(lose_state: bool) {
    let corpus = Corpus::bulk(300, 3 << 20, 3, 13);
    for round in 0..4 {
        let (source, destination, mut left, mut right) =
            filled(SharedServer::Maildir, SharedServer::Mdbox, &corpus).await;
        let proxy = FaultyProxy::start(destination.server.tls_port(), Duration::ZERO);
        let mut rig = Rig::new(&source, &destination);
        rig.spec.destination = through(&proxy, Side::Destination, &destination);
        for kill in 1..3_u64 {
            let limit = (round * 300 + kill * 700) << 10;
            rig.sync_killed_after(&proxy, limit).await;
            if lose_state {
                rig.store.lose();
            }
        }
        rig.sync().await;
        assert_eq!(differences(&left.snapshot().await, &right.snapshot().await), Vec::<String>::new(), "round {round}");
        assert_eq!(copied(&rig.sync().await), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_sync_goes_on_without_losing_or_doubling() {
    killed_and_rerun(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_sync_whose_state_is_lost_loses_and_doubles_nothing() {
    killed_and_rerun(true).await;
}
