//! `mailferry worker` as a process with its pod's token, between a real API server and two real mail servers. The test is
//! operator and kubelet.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use k8s_openapi::api::{core::v1::Pod, rbac::v1::RoleBinding};
use kube::api::{DeleteParams, PostParams};
use mailferry::{
    ErrorClass,
    api::{
        MailboxSync,
        mailbox_sync::{Outcome, WorkerPhase, WorkerStatus},
    },
    sync::checkpoint::Checkpoint,
};
use mailferry_testkit::{
    Corpus, CorpusMessage, FaultyProxy, SharedServer,
    cluster::{ControlPlane, wait_for},
    differences,
    dovecot::TestAccount,
    eventually,
    pki::pki,
    proxy::{BreakMode, Direction},
    shared_server, so,
};
use serde_json::{Value, json};

use crate::rig::{Rig, WORKER, install, read};

/// A mailbox on its way, and its worker's folder.
pub struct Mailbox<'a> {
    rig: &'a Rig,
    name: &'a str,
    pub source: TestAccount<'a>,
    destination: TestAccount<'a>,
    proxy: FaultyProxy,
    folder: tempfile::TempDir,
}

/// An attempt at work.
pub struct Attempt {
    child: Child,
    number: i64,
    folder: PathBuf,
}

/// How an attempt ended.
pub struct Ended {
    pub code: Option<i32>,
    /// What it logged.
    pub log: String,
    /// Its termination message, as it stands.
    last_word: String,
}

impl<'a> Mailbox<'a> {
    /// Between two new accounts; settings beyond the defaults.
    async fn new(rig: &'a Rig, name: &'a str, settings: Value) -> Self {
        Self::into(rig, name, shared_server(SharedServer::Mdbox).account(), settings).await
    }

    /// The same with this destination.
    pub async fn into(rig: &'a Rig, name: &'a str, destination: TestAccount<'a>, settings: Value) -> Self {
        let source = shared_server(SharedServer::Maildir).account();
        let proxy = FaultyProxy::start(destination.server.tls_port(), Duration::ZERO);
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("mail")).unwrap();
        fs::write(folder.path().join("mail/source"), &source.password).unwrap();
        fs::write(folder.path().join("mail/destination"), &destination.password).unwrap();
        let mailbox = Self { rig, name, source, destination, proxy, folder };
        let side = |port: u16, user: &str, key: &str| {
            json!({
                "server": {"host": "localhost", "port": port, "tls": {"caBundle": pki().ca}},
                "account": {"username": user, "passwordSecretRef": {"name": "mail", "key": key}},
            })
        };
        let object = json!({
            "apiVersion": "mailferry.io/v1alpha1", "kind": "MailboxSync", "metadata": {"name": name},
            "spec": {
                "migration": "m", "mailbox": name, "settings": settings,
                "source": side(mailbox.source.server.tls_port(), &mailbox.source.user, "source"),
                "destination": side(mailbox.proxy.port(), &mailbox.destination.user, "destination"),
            },
        });
        rig.api::<MailboxSync>().create(&PostParams::default(), &read(object)).await.unwrap();
        mailbox
    }

    /// Does what the operator does before an attempt: attempt first, then the pod, then its UID.
    async fn hand_out(&self, attempt: i64) -> Pod {
        let pod = format!("{}-{attempt}", self.name);
        let status = json!({"attempt": attempt, "slots": 2, "podName": pod, "podUID": null, "phase": "Running"});
        self.rig.patch_status(self.name, status).await.unwrap();
        let pod = self.rig.worker_pod(&pod).await;
        self.rig.patch_status(self.name, json!({"podUID": pod.metadata.uid})).await.unwrap();
        pod
    }

    /// Starts an attempt in its own pod's name.
    pub async fn start(&self, attempt: i64) -> Attempt {
        let pod = self.hand_out(attempt).await;
        self.start_as(attempt, &pod).await
    }

    async fn start_as(&self, number: i64, pod: &Pod) -> Attempt {
        let token = self.rig.plane.token(&self.rig.namespace, WORKER, Some(pod)).await;
        let mut config: Value =
            serde_yaml::from_str(&fs::read_to_string(self.rig.plane.kubeconfig()).unwrap()).unwrap();
        config["users"][0]["user"] = json!({ "token": token });
        let folder = self.folder.path().to_owned();
        let kubeconfig = folder.join(format!("kubeconfig-{number}"));
        fs::write(&kubeconfig, config.to_string()).unwrap();
        let log = fs::File::create(folder.join(format!("log-{number}"))).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_mailferry"))
            .arg("worker")
            .env_clear()
            .env("KUBECONFIG", kubeconfig)
            .env("MAILFERRY_NAMESPACE", &self.rig.namespace)
            .env("MAILFERRY_MAILBOXSYNC", self.name)
            .env("MAILFERRY_ATTEMPT", number.to_string())
            .env(
                "MAILFERRY_ALLOW_ADDRESSES",
                fs::read_to_string(folder.join("allow")).unwrap_or("127.0.0.0/8,::1".into()),
            )
            .env("MAILFERRY_SOURCE_ADDRESSES", fs::read_to_string(folder.join("sources")).unwrap_or_default())
            .env("MAILFERRY_SECRETS", &folder)
            .env("MAILFERRY_TERMINATION_LOG", folder.join(format!("word-{number}")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Attempt { child, number, folder }
    }

    /// What the worker reported last.
    pub async fn worker(&self) -> WorkerStatus {
        let sync = self.rig.api::<MailboxSync>().get(self.name).await.unwrap();
        sync.status.unwrap().worker.unwrap()
    }

    /// Waits until the worker's report says so.
    async fn until(&self, says: impl Fn(&WorkerStatus) -> bool) -> WorkerStatus {
        let reached =
            |sync: Option<&MailboxSync>| sync.and_then(|sync| sync.status.as_ref()?.worker.as_ref()).is_some_and(&says);
        wait_for(&self.rig.api::<MailboxSync>(), self.name, reached).await.unwrap().status.unwrap().worker.unwrap()
    }

    /// Once the sync is copying, makes its link so slow that 40 MB take a minute.
    async fn slow_down(&self) {
        self.moved(1 << 20).await;
        self.proxy.set_delay(Duration::from_secs(3));
    }

    /// Waits until so many bytes went to the destination, in all.
    async fn moved(&self, bytes: u64) {
        eventually(&format!("{bytes} bytes went to the destination"), async || {
            let carried = self.proxy.bytes_carried(Direction::ToServer);
            so(carried >= bytes, format!("{carried} did"))
        })
        .await;
    }

    /// Waits until the first attempt has logged this.
    async fn first_attempt_logs(&self, words: &str) {
        eventually(&format!("{words:?} is logged"), async || {
            let log = fs::read_to_string(self.folder.path().join("log-1")).unwrap();
            so(log.contains(words), log)
        })
        .await;
    }

    async fn assert_same_mail(&self) {
        let (mut left, mut right) = (self.source.connect().await, self.destination.connect().await);
        assert_eq!(differences(&left.snapshot().await, &right.snapshot().await), Vec::<String>::new());
    }

    pub async fn copies(&self) -> usize {
        let snapshot = self.destination.connect().await.snapshot().await;
        snapshot.values().map(|folder| folder.messages.len()).sum()
    }
}

impl Attempt {
    pub async fn end(mut self) -> Ended {
        let (status, attempt) = tokio::task::spawn_blocking(move || (self.child.wait().unwrap(), self)).await.unwrap();
        let file = |name: &str| fs::read_to_string(attempt.folder.join(format!("{name}-{}", attempt.number)));
        Ended { code: status.code(), log: file("log").unwrap(), last_word: file("word").unwrap_or_default() }
    }

    fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    pub fn word(&self) -> WorkerStatus {
        serde_json::from_str(&self.last_word)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.last_word, self.log))
    }
}

/// 40 MB of mail.
fn large() -> Corpus {
    Corpus::bulk(400, 40 << 20, 2, 31)
}

pub async fn rig() -> Rig {
    let rig = Rig::new().await;
    rig.allow_workers().await;
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_mailbox_takes_two_writes_and_its_delta_two_more() {
    let rig = rig().await;
    let mailbox = Mailbox::new(&rig, "alice", json!({})).await;
    let corpus = Corpus::varied(3).without('.');
    mailbox.source.connect().await.seed(&corpus).await;

    let first = mailbox.start(1).await.end().await;
    assert_eq!(first.code, Some(0), "{}", first.log);
    mailbox.assert_same_mail().await;
    let worker = mailbox.worker().await;
    assert_eq!((worker.attempt, worker.report), (1, 2), "the claim and the last report");
    assert_eq!(
        (worker.outcome, worker.phase, worker.last_error),
        (Some(Outcome::Synced), Some(WorkerPhase::Done), None)
    );
    let progress = worker.progress.unwrap();
    let messages = i64::try_from(corpus.messages()).unwrap();
    assert_eq!((progress.messages_this_attempt, progress.done.as_deref()), (messages, Some("100%")));
    assert!(progress.bytes_moved > progress.bytes_done && progress.bytes_done > 0, "{progress:?}");
    assert_eq!((worker.changes, progress.bytes_left), (Some(messages), Some(0)));
    assert!(worker.destination_login && worker.flushed_attempt == Some(1));
    let copied: i64 = worker.folders.iter().map(|folder| folder.copied).sum();
    assert_eq!(copied, messages);
    let checkpoint = Checkpoint::decode_text(worker.checkpoint.as_deref().unwrap()).unwrap();
    assert!(checkpoint.folders.values().all(|state| !state.append_in_doubt));
    let word = first.word();
    assert_eq!((word.outcome, word.report, word.checkpoint, word.folders.len()), (Some(Outcome::Synced), 2, None, 0));

    let inbox = worker.inbox_uid_next.unwrap();
    mailbox.source.connect().await.append("INBOX", &[CorpusMessage::new("Subject: new\r\n\r\n")]).await;
    let delta = mailbox.start(2).await.end().await;
    assert_eq!(delta.code, Some(0), "{}", delta.log);
    mailbox.assert_same_mail().await;
    let worker = mailbox.worker().await;
    assert_eq!((worker.attempt, worker.report, worker.flushed_attempt), (2, 2, Some(2)));
    assert_eq!(worker.changes, Some(1));
    let progress = worker.progress.unwrap();
    assert_eq!((progress.messages_this_attempt, progress.folders_total), (1, 1), "only INBOX changed");
    assert_eq!((progress.messages_total, progress.messages_done), (messages + 1, messages + 1));
    assert_eq!(worker.inbox_uid_next, Some(inbox + 1));

    let quiet = mailbox.start(3).await.end().await;
    assert_eq!(quiet.code, Some(0), "{}", quiet.log);
    let worker = mailbox.worker().await;
    assert_eq!((worker.changes, worker.inbox_uid_next), (Some(0), Some(inbox + 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_is_asked_to_stop_flushes_and_the_next_goes_on_from_there() {
    let rig = rig().await;
    let mailbox = Mailbox::new(&rig, "bob", json!({"connections": 2})).await;
    let corpus = Corpus::bulk(600, 6 << 20, 4, 31);
    mailbox.source.connect().await.seed(&corpus).await;
    let attempt = mailbox.start(1).await;
    mailbox.moved(2 << 20).await;
    attempt.terminate();
    let stopped = attempt.end().await;
    assert_eq!(stopped.code, Some(0), "{}", stopped.log);
    assert_eq!(stopped.word().outcome, Some(Outcome::Stopped), "{}", stopped.log);
    let worker = mailbox.worker().await;
    assert_eq!((worker.outcome, worker.flushed_attempt), (Some(Outcome::Stopped), Some(1)));
    let before = Checkpoint::decode_text(worker.checkpoint.as_deref().unwrap()).unwrap();
    let copies: u64 = before.folders.values().map(|state| state.map.len()).sum();
    assert_eq!(copies, mailbox.copies().await as u64, "nothing is in doubt");

    let rest = mailbox.start(2).await.end().await;
    assert_eq!(rest.code, Some(0), "{}", rest.log);
    let progress = mailbox.worker().await.progress.unwrap();
    assert_eq!(progress.messages_this_attempt, i64::try_from(corpus.messages() as u64 - copies).unwrap());
    mailbox.assert_same_mail().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_another_took_over_stops_within_one_report_and_nothing_is_doubled() {
    let rig = rig().await;
    // A short grace means frequent reports.
    let mailbox = Mailbox::new(&rig, "carol", json!({"connections": 1, "offlineGrace": "10s"})).await;
    mailbox.source.connect().await.seed(&large()).await;
    let attempt = mailbox.start(1).await;
    mailbox.slow_down().await;
    let reported = mailbox.until(|worker| worker.checkpoint.is_some()).await;
    assert!(reported.outcome.is_none() && reported.flushed_attempt.is_none());
    let next = mailbox.hand_out(2).await;
    let fenced = attempt.end().await;
    assert_eq!(fenced.code, Some(75), "{}", fenced.log);
    let word = fenced.word();
    assert_eq!((word.outcome, word.last_error.as_ref().unwrap().class), (None, ErrorClass::Internal));
    assert!(word.last_error.unwrap().message.starts_with("fenced: "), "{}", fenced.log);
    let worker = mailbox.worker().await;
    assert_eq!((worker.attempt, worker.outcome), (1, None), "its last word was not taken");
    assert!(mailbox.copies().await < large().messages(), "{}", fenced.log);

    mailbox.proxy.set_delay(Duration::ZERO);
    let second = mailbox.start_as(2, &next).await.end().await;
    assert_eq!(second.code, Some(0), "{}", second.log);
    mailbox.assert_same_mail().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_attempt_leaves_a_checkpoint_in_doubt_and_nothing_is_lost_or_doubled() {
    let rig = rig().await;
    let mailbox = Mailbox::new(&rig, "dave", json!({"connections": 2})).await;
    mailbox.source.connect().await.seed(&Corpus::bulk(400, 4 << 20, 4, 31)).await;
    let synced = mailbox.start(1).await.end().await;
    assert_eq!(synced.code, Some(0), "{}", synced.log);
    let more: Vec<CorpusMessage> =
        (0..300).map(|n| CorpusMessage::new(format!("Subject: {n}\r\n\r\n{}", "x".repeat(100_000)))).collect();
    mailbox.source.connect().await.append("INBOX", &more).await;
    // It dies in the middle of its appends, long before its first report: the checkpoint says that nothing is in doubt.
    let mut attempt = mailbox.start(2).await;
    mailbox.moved(mailbox.proxy.bytes_carried(Direction::ToServer) + (1 << 20)).await;
    attempt.child.kill().unwrap();
    attempt.end().await;
    assert_eq!(mailbox.worker().await.flushed_attempt, Some(1));
    // One that does not get far does not make it certain.
    let password = mailbox.folder.path().join("mail/destination");
    fs::write(&password, "wrong").unwrap();
    let failed = mailbox.start(3).await.end().await;
    assert_eq!(failed.code, Some(i32::from(ErrorClass::Authentication.exit_code())), "{}", failed.log);
    assert_eq!(mailbox.worker().await.flushed_attempt, Some(1));

    fs::write(&password, &mailbox.destination.password).unwrap();
    let last = mailbox.start(4).await.end().await;
    assert_eq!(last.code, Some(0), "{}", last.log);
    assert_eq!(mailbox.worker().await.flushed_attempt, Some(4));
    mailbox.assert_same_mail().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_api_server_is_away_a_sync_goes_on_for_its_grace_and_catches_up() {
    let plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start().await));
    install(plane).await;
    let rig = Rig { plane, client: plane.client(), namespace: plane.namespace().await };
    rig.allow_workers().await;
    let patient = Mailbox::new(&rig, "patient", json!({"connections": 1})).await;
    let short = Mailbox::new(&rig, "short", json!({"connections": 1, "offlineGrace": "10s"})).await;
    for mailbox in [&patient, &short] {
        mailbox.source.connect().await.seed(&large()).await;
    }
    let (going_on, ending) = (patient.start(1).await, short.start(1).await);
    for mailbox in [&patient, &short] {
        mailbox.slow_down().await;
    }
    plane.stop_api_server();
    let ended = ending.end().await;
    assert_eq!(ended.code, Some(75), "{}", ended.log);
    assert!(ended.word().last_error.unwrap().message.contains("could not be reached for 10s"), "{}", ended.log);
    patient.moved(patient.proxy.bytes_carried(Direction::ToServer) + (1 << 20)).await;
    // With what was on its way when it ended.
    let copies = short.copies().await;
    assert!(copies < large().messages(), "{copies} {}", ended.log);

    plane.start_api_server().await;
    patient.until(|worker| worker.report > 1).await;
    patient.proxy.set_delay(Duration::ZERO);
    let caught_up = going_on.end().await;
    assert_eq!(caught_up.code, Some(0), "{}", caught_up.log);
    let worker = patient.worker().await;
    assert_eq!((worker.outcome, worker.flushed_attempt), (Some(Outcome::Synced), Some(1)));
    patient.assert_same_mail().await;

    short.proxy.set_delay(Duration::ZERO);
    let again = short.start(2).await.end().await;
    assert_eq!(again.code, Some(0), "{}", again.log);
    short.assert_same_mail().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_for_a_moment_ends_no_attempt() {
    let rig = rig().await;
    let mailbox = Mailbox::new(&rig, "grace", json!({"connections": 1, "offlineGrace": "30s"})).await;
    mailbox.source.connect().await.seed(&large()).await;
    let attempt = mailbox.start(1).await;
    mailbox.slow_down().await;
    rig.api::<RoleBinding>().delete(WORKER, &DeleteParams::default()).await.unwrap();
    mailbox.first_attempt_logs("refused: nothing is written").await;
    rig.allow_workers().await;
    let before = mailbox.worker().await.report;
    mailbox.until(|worker| worker.report > before).await;
    mailbox.proxy.set_delay(Duration::ZERO);
    let synced = attempt.end().await;
    assert_eq!(synced.code, Some(0), "{}", synced.log);
    mailbox.assert_same_mail().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_until_the_operator_has_written_which_pod_it_is() {
    let rig = rig().await;
    let mailbox = Mailbox::new(&rig, "heidi", json!({})).await;
    mailbox.source.connect().await.append("INBOX", &[CorpusMessage::new("Subject: x\r\n\r\n")]).await;
    let pod = mailbox.hand_out(1).await;
    rig.patch_status("heidi", json!({"podUID": null})).await.unwrap();
    let attempt = mailbox.start_as(1, &pod).await;
    mailbox.first_attempt_logs("could not be claimed yet").await;
    rig.patch_status("heidi", json!({"podUID": pod.metadata.uid})).await.unwrap();
    let synced = attempt.end().await;
    assert_eq!(synced.code, Some(0), "{}", synced.log);
    assert_eq!(mailbox.worker().await.report, 2);
    mailbox.assert_same_mail().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_server_has_fallen_silent_still_ends_in_its_pods_time() {
    let rig = rig().await;
    let mailbox = Mailbox::new(&rig, "ivan", json!({"connections": 1})).await;
    mailbox.source.connect().await.seed(&large()).await;
    let attempt = mailbox.start(1).await;
    mailbox.slow_down().await;
    // The engine waits for answers that are due; the pod's grace period is shorter than timeouts.reply.
    mailbox.proxy.break_all(BreakMode::Stall);
    attempt.terminate();
    let stopped = attempt.end().await;
    assert_eq!(stopped.code, Some(0), "{}", stopped.log);
    let worker = mailbox.worker().await;
    // It does not wait for what is under way: the checkpoint that it leaves says that this is in doubt.
    assert_eq!((worker.outcome, worker.flushed_attempt), (Some(Outcome::Stopped), Some(1)), "{}", stopped.log);
    assert!(worker.checkpoint.is_some());

    mailbox.proxy.set_delay(Duration::ZERO);
    let rest = mailbox.start(2).await.end().await;
    assert_eq!(rest.code, Some(0), "{}", rest.log);
    mailbox.assert_same_mail().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_without_a_secret() {
    let rig = rig().await;
    let mailbox = Mailbox::new(&rig, "erin", json!({})).await;
    fs::write(mailbox.folder.path().join("mail/destination"), "hunter2 is wrong").unwrap();
    let failed = mailbox.start(1).await.end().await;
    assert_eq!(failed.code, Some(i32::from(ErrorClass::Authentication.exit_code())), "{}", failed.log);
    let worker = mailbox.worker().await;
    assert_eq!((worker.outcome, worker.phase), (Some(Outcome::Failed), Some(WorkerPhase::Failed)));
    assert_eq!(worker.last_error.as_ref().unwrap().class, ErrorClass::Authentication);
    assert!(!worker.destination_login);
    assert_eq!(failed.word().last_error.unwrap().class, ErrorClass::Authentication);
    for text in [&failed.last_word, &failed.log, &serde_json::to_string(&worker).unwrap()] {
        assert!(!text.contains("hunter2") && !text.contains(&mailbox.source.password), "{text}");
    }
    assert!(failed.last_word.len() <= 4096);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_key_and_an_address_that_is_not_allowed_are_told_as_configuration() {
    let rig = rig().await;
    let mailbox = Mailbox::new(&rig, "frank", json!({})).await;
    fs::remove_file(mailbox.folder.path().join("mail/source")).unwrap();
    let code = Some(i32::from(ErrorClass::Configuration.exit_code()));
    let failed = mailbox.start(1).await.end().await;
    assert_eq!(failed.code, code, "{}", failed.log);
    let error = mailbox.worker().await.last_error.unwrap();
    assert_eq!(error.class, ErrorClass::Configuration);
    assert!(error.message.contains("there is no Secret mail (key source, "), "{}", error.message);

    fs::write(mailbox.folder.path().join("mail/source"), &mailbox.source.password).unwrap();
    fs::write(mailbox.folder.path().join("allow"), "192.0.2.0/24").unwrap();
    let refused = mailbox.start(2).await.end().await;
    assert_eq!(refused.code, code, "{}", refused.log);
    let error = mailbox.worker().await.last_error.unwrap();
    assert!(error.message.contains("the host localhost has only addresses"), "{}", error.message);
    assert!(!format!("{error:?}{}", refused.log).contains("127.0.0.1"), "{error:?}\n{}", refused.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_connected_to_only_in_its_networks_and_a_destination_is_not_held_to_them() {
    let rig = rig().await;
    let mailbox = Mailbox::new(&rig, "judy", json!({})).await;
    mailbox.source.connect().await.append("INBOX", &[CorpusMessage::new("Subject: x\r\n\r\n")]).await;
    let sources = mailbox.folder.path().join("sources");
    fs::write(&sources, "192.0.2.0/24, 2001:db8::/32").unwrap();
    let refused = mailbox.start(1).await.end().await;
    assert_eq!(refused.code, Some(i32::from(ErrorClass::Configuration.exit_code())), "{}", refused.log);
    let error = mailbox.worker().await.last_error.unwrap();
    assert_eq!(error.side, Some(mailferry::Side::Source));
    assert!(error.message.contains("the host localhost has only addresses"), "{}", error.message);
    assert!(error.advice.as_ref().unwrap().contains("policy.allowedSourceAddresses"), "{error:?}");
    assert!(!format!("{error:?}{}", refused.log).contains("127.0.0.1"), "{error:?}\n{}", refused.log);

    // The same name is the destination's, which only has to be permitted.
    fs::write(&sources, "127.0.0.0/8").unwrap();
    let synced = mailbox.start(2).await.end().await;
    assert_eq!(synced.code, Some(0), "{}", synced.log);
    mailbox.assert_same_mail().await;
}
