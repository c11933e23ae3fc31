//! Leader election: one operator leads, and another takes over when it goes, or falls silent.

use std::{path::Path, time::Duration};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use mailferry::{
    ErrorClass,
    controller::leader::{LeaderCandidate, Leadership, LeaseTimes},
};
use mailferry_testkit::{
    cluster::{self, ChildProcess, ControlPlane, wait_for},
    eventually::{PATIENCE, eventually},
    so,
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::rig::Rig;

const NAME: &str = "mailferry-controller";

/// Short. Between a leader's loss and another's lead there is room for a busy machine.
const TIMES: LeaseTimes = LeaseTimes {
    duration: Duration::from_secs(10),
    renew_deadline: Duration::from_secs(3),
    retry: Duration::from_millis(300),
};

struct Place {
    plane: &'static ControlPlane,
    namespace: String,
}

impl Place {
    async fn new() -> Self {
        let plane = cluster::shared_control_plane();
        Self { plane, namespace: plane.namespace().await }
    }

    /// A candidate, as a process of its own would be.
    fn candidate(&self, identity: &str) -> LeaderCandidate {
        let client = self.plane.client();
        LeaderCandidate::new(client, &self.namespace, NAME, identity.to_owned()).with_times(TIMES)
    }

    fn wait(&self, identity: &str) -> JoinHandle<Leadership> {
        tokio::spawn(self.candidate(identity).wait_for_lead())
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.plane.client(), &self.namespace)
    }

    async fn holder(&self) -> Option<String> {
        self.leases().get(NAME).await.unwrap().spec.unwrap().holder_identity
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("soon")
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_candidates_one_leads_and_keeps_the_lead() {
    let place = Place::new().await;
    let mut waiting: Vec<_> = (0..8).map(|n| place.wait(&format!("op-{n}"))).collect();
    let (leader, at, _) = soon(futures::future::select_all(&mut waiting)).await;
    let leader = leader.unwrap();
    assert_eq!(place.holder().await, Some(format!("op-{at}")));
    // Renewed for longer than a lease lasts, it is still the only one.
    let first = place.leases().get(NAME).await.unwrap().spec.unwrap().renew_time.unwrap().0;
    let later = move |lease: Option<&Lease>| {
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.clone());
        renewed.is_some_and(|at| at.0.duration_since(first).unsigned_abs() > TIMES.duration + TIMES.retry)
    };
    soon(wait_for(&place.leases(), NAME, later)).await;
    assert!(leader.holds());
    waiting.remove(at);
    assert!(waiting.iter().all(|candidate| !candidate.is_finished()));
    assert_eq!(place.leases().get(NAME).await.unwrap().spec.unwrap().lease_transitions, Some(0));
    waiting.iter().for_each(JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_that_is_given_back_is_taken_at_once() {
    let place = Place::new().await;
    let first = soon(place.candidate("first").wait_for_lead()).await;
    let second = place.wait("second");
    first.release().await;
    // Not only after the lease's duration.
    timeout(TIMES.duration / 2, second).await.expect("at once").unwrap();
    assert_eq!(place.holder().await.as_deref(), Some("second"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_vanishes_is_followed_when_its_time_is_over() {
    let place = Place::new().await;
    drop(soon(place.candidate("first").wait_for_lead()).await);
    let second = soon(place.candidate("second").wait_for_lead()).await;
    assert!(second.holds());
    let spec = place.leases().get(NAME).await.unwrap().spec.unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("second"), Some(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_lease_another_holds_learns_it() {
    let place = Place::new().await;
    let mut leader = soon(place.candidate("first").wait_for_lead()).await;
    let stolen = serde_json::json!({"spec": {"holderIdentity": "second"}});
    place.leases().patch(NAME, &kube::api::PatchParams::default(), &kube::api::Patch::Merge(stolen)).await.unwrap();
    let error = soon(leader.wait_until_lost()).await;
    assert!(error.what.contains("second holds the lease"), "{error}");
    assert!(!leader.holds());
    assert_eq!(place.holder().await.as_deref(), Some("second"), "it renewed another's lease");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_an_api_server_knows_that_it_lost_before_another_may_lead() {
    let plane = ControlPlane::start().await;
    for hangs in [false, true] {
        let client = plane.client();
        let candidate = LeaderCandidate::new(client, "default", NAME, format!("hangs-{hangs}")).with_times(TIMES);
        let mut leader = soon(candidate.wait_for_lead()).await;
        if hangs {
            // It keeps its connections, and answers nothing.
            plane.pause_api_server();
        } else {
            plane.stop_api_server();
        }
        let error = timeout(TIMES.duration, leader.wait_until_lost()).await.expect("in time");
        assert_eq!(error.class, ErrorClass::Network);
        assert!(error.what.contains("could not be renewed for 3 s"), "{error}");
        if hangs {
            plane.resume_api_server();
        } else {
            plane.start_api_server().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_that_ends_in_time_costs_no_lead() {
    let plane = ControlPlane::start().await;
    let times = LeaseTimes { duration: PATIENCE, renew_deadline: PATIENCE / 2, ..TIMES };
    let candidate = LeaderCandidate::new(plane.client(), "default", NAME, "only".to_owned()).with_times(times);
    let leader = soon(candidate.wait_for_lead()).await;
    let leases: Api<Lease> = Api::namespaced(plane.client(), "default");
    let before = leases.get(NAME).await.unwrap().metadata.resource_version;
    plane.pause_api_server();
    // Some renewals are due meanwhile.
    sleep(times.retry * 4).await;
    plane.resume_api_server();
    let renewed = move |lease: Option<&Lease>| lease.is_some_and(|l| l.metadata.resource_version != before);
    soon(wait_for(&leases, NAME, renewed)).await;
    assert!(leader.holds());
}

/// A whole operator, in a process of its own.
fn operator(rig: &Rig, folder: &Path, pod: &str) -> ChildProcess {
    let own = folder.join(pod);
    std::fs::create_dir(&own).unwrap();
    let args = [
        &format!("KUBECONFIG={}", rig.plane.kubeconfig().display()),
        &format!("POD_NAME={pod}"),
        env!("CARGO_BIN_EXE_mailferry"),
        "controller",
        "--worker-image=example/mailferry",
        "--listen=none",
        &format!("--namespace={}", rig.namespace),
        &format!("--lease-namespace={}", rig.namespace),
    ];
    ChildProcess::start(Path::new("/usr/bin/env"), args, &own)
}

/// The exit code that it ends with.
async fn exit_code(process: &mut ChildProcess) -> Option<i32> {
    eventually("the operator ends", async || match process.ended() {
        Some(status) => Ok(status.code()),
        None => Err(process.log_tail()),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_slept_exits_when_it_wakes_and_one_that_is_stopped_gives_the_lead_back() {
    let rig = Rig::new().await;
    let folder = tempfile::tempdir().unwrap();
    let leases: Api<Lease> = rig.api();
    let held_by = |pod: Option<&'static str>| {
        let leases = &leases;
        let is = move |lease: Option<&Lease>| {
            let holder = lease.and_then(|lease| lease.spec.as_ref()?.holder_identity.as_deref());
            lease.is_some() && holder.and_then(|holder| holder.split('_').next()) == pod
        };
        async move { soon(wait_for(leases, NAME, is)).await }
    };
    let mut first = operator(&rig, folder.path(), "first");
    held_by(Some("first")).await;
    let mut second = operator(&rig, folder.path(), "second");
    first.signal("STOP");
    held_by(Some("second")).await;
    first.signal("CONT");
    assert_eq!(exit_code(&mut first).await, Some(i32::from(ErrorClass::Network.exit_code())));
    assert!(first.log_tail().contains("leads no more"), "{}", first.log_tail());
    // Its Lease is seen before its own answer is: until it works as the leader, there is nothing that it could give back.
    eventually("the second operator is ready", async || {
        let log = second.log_tail();
        so(log.contains("the operator is ready"), log)
    })
    .await;
    second.signal("TERM");
    assert_eq!(exit_code(&mut second).await, Some(0), "{}", second.log_tail());
    held_by(None).await;
}
