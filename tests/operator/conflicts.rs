//! Somebody else writes a mailbox while the operator decides about it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use http::{Method, Request};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    client::Body,
};
use mailferry::api::MailboxSync;
use serde_json::json;

use crate::stage::{Answer, Ending, Stage, send};

/// Writes a mailbox right before every second write of its status, which is refused then.
#[derive(Clone)]
struct Intruder {
    api: Api<MailboxSync>,
    /// Writes of each mailbox' status so far.
    written: Arc<Mutex<HashMap<String, usize>>>,
    conflicts: Arc<AtomicUsize>,
}

impl Intruder {
    fn meet(&self, client: Client, request: Request<Body>) -> Answer {
        let intruder = self.clone();
        let path = request.uri().path().trim_end_matches('/').to_owned();
        let name = path.strip_suffix("/status").and_then(|path| path.rsplit_once("/mailboxsyncs/"));
        let name = name.filter(|_| request.method() == Method::PATCH).map(|(_, name)| name.to_owned());
        // It is sent when it is polled first.
        let sent = send(client, request);
        let Some(name) = name else { return sent };
        Box::pin(async move {
            let number = {
                let mut written = intruder.written.lock().unwrap();
                let number = written.entry(name.clone()).or_default();
                *number += 1;
                *number - 1
            };
            if number.is_multiple_of(2) {
                let body = json!({"metadata": {"annotations": {"intruder": number.to_string()}}});
                intruder.api.patch(&name, &PatchParams::default(), &Patch::Merge(body)).await.unwrap();
            }
            let answer = sent.await;
            if answer.as_ref().is_ok_and(|answer| answer.status() == 409) {
                intruder.conflicts.fetch_add(1, SeqCst);
            }
            answer
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_wrote_is_decided_on_at_once_and_is_no_failure() {
    let mut stage = Stage::idle().await;
    let _player = stage.play(|_, _| Ending::Synced);
    stage.migration("acme", &["a", "b", "c", "d"], json!({"parallelism": 4})).await;
    let conflicts = Arc::new(AtomicUsize::new(0));
    let intruder = Intruder { api: stage.api(), written: Arc::default(), conflicts: Arc::clone(&conflicts) };
    stage.start_through(move |client, request| intruder.meet(client, request)).await;
    stage.until_condition("acme", "Complete", "True").await;
    for sync in stage.syncs().await {
        let status = sync.status.unwrap();
        assert_eq!((status.attempt, status.syncs, status.failures), (1, 1, None));
    }
    assert!(conflicts.load(SeqCst) >= 4, "{conflicts:?}");
    let text = stage.metrics.text().unwrap();
    for result in ["conflict", "error"] {
        let series = "mailferry_reconcile_duration_seconds_count{controller=\"MailboxSync\",result=";
        assert!(text.contains(&format!("{series}\"{result}\"}} 0\n")), "{text}");
    }
}
