//! The engine between real servers: exact, and exactly once.

use mailferry_testkit::{Corpus, SharedServer, differences, shared_server};

use crate::rig::{Rig, adopted, copied};

async fn arrives_as_it_left(from: SharedServer, to: SharedServer) {
    let (source, destination) = (shared_server(from).account(), shared_server(to).account());
    let (mut left, mut right) = (source.connect().await, destination.connect().await);
    let corpus = Corpus::varied(3).without('.').without('/').with_large(3 << 20);
    left.seed(&corpus).await;
    let before = left.snapshot().await;
    let rig = Rig::new(&source, &destination);

    let report = rig.sync().await;
    assert_eq!(copied(&report), corpus.messages() as u64, "{report:#?}");
    assert_eq!(differences(&before, &right.snapshot().await), Vec::<String>::new(), "{report:#?}");
    assert_eq!(differences(&before, &left.snapshot().await), Vec::<String>::new(), "the source was changed");

    let again = rig.sync().await;
    assert_eq!(copied(&again) + adopted(&again), 0, "{again:#?}");
    assert!(again.folders.iter().all(|f| f.unchanged), "{again:#?}");

    rig.store.lose();
    let adopting = rig.sync().await;
    assert_eq!(copied(&adopting), 0, "{adopting:#?}");
    assert_eq!(adopted(&adopting), corpus.messages() as u64, "{adopting:#?}");
    assert_eq!(differences(&before, &right.snapshot().await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_varied_mailbox_arrives_as_it_left_from_maildir_to_mdbox() {
    arrives_as_it_left(SharedServer::Maildir, SharedServer::Mdbox).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_varied_mailbox_arrives_as_it_left_between_prefixes_and_separators() {
    arrives_as_it_left(SharedServer::Sdbox, SharedServer::DottedMaildir).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_varied_mailbox_arrives_as_it_left_from_a_prefixed_namespace() {
    arrives_as_it_left(SharedServer::DottedMdbox, SharedServer::Maildir).await;
}
