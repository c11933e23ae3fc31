//! One operator at a time: leader election on a Lease (coordination.k8s.io/v1), with kube's own rules of the game.
//!
//! Written here since kube-lease-manager 0.13 cannot tell a loss in time: it never says that it lost the lease while the
//! API server fails (it goes on trying, for ever), its requests have no timeout, takes over by patches without a
//! resourceVersion, so that two candidates may both believe that they won, and compares its clock with the other's.
//!
//! - A candidate takes a Lease that nobody holds, or that it has watched for the Lease's whole duration without a change,
//!   on its own monotonic clock: clocks of two machines need not agree.
//! - Every write carries the resourceVersion that was seen: of two candidates one gets a conflict.
//! - A leader that could not renew for [`LeaseTimes::renew_deadline`], counted from the sending of the last renewal that
//!   worked, has lost; that is well before another may take over. All its writes ask [`LeadershipStatus::holds`] first (see
//!   [`super::write_guard`]): a process that did not run meanwhile learns of its loss late.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{clock::Moment, error::Error};

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTimes {
    /// A Lease that was not renewed for so long is free. Whole seconds.
    pub duration: Duration,
    /// A leader that could not renew for so long has lost; less than `duration`, by what it takes to stop.
    pub renew_deadline: Duration,
    /// Between two renewals, and between two looks of a candidate.
    pub retry: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// A candidate.
#[derive(Clone)]
pub struct LeaderCandidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    times: LeaseTimes,
}

/// A Lease as it was first seen.
struct SeenLease {
    spec: LeaseSpec,
    at: Instant,
}

impl LeaderCandidate {
    /// For the Lease of this name.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, identity: String) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned(), identity, times: LeaseTimes::default() }
    }

    /// With other times.
    #[must_use]
    pub fn with_times(self, times: LeaseTimes) -> Self {
        Self { times, ..self }
    }

    /// Waits until this candidate leads. An API server that is away is waited for.
    pub async fn wait_for_lead(self) -> Leadership {
        let mut seen = None;
        let mut failing = false;
        loop {
            let sent = SendTime::now();
            match timeout(self.times.renew_deadline, self.try_acquire(&mut seen)).await {
                Ok(Ok(Some(lease))) => {
                    tracing::info!(lease = self.name, identity = self.identity, "this process leads");
                    return Leadership::start_renewing(self, &lease, sent);
                }
                Ok(Ok(None)) => failing = false,
                Ok(Err(error)) => self.warn_once(&mut failing, &error),
                Err(_) => self.warn_once(&mut failing, &"no answer"),
            }
            // Not all candidates at once.
            sleep(self.times.retry.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
        }
    }

    /// Says once that the API server is away.
    fn warn_once(&self, failing: &mut bool, why: &dyn std::fmt::Display) {
        if !std::mem::replace(failing, true) {
            tracing::warn!(lease = self.name, %why, "the lease can't be read or taken; trying on");
        }
    }

    /// Takes the Lease if it is free.
    async fn try_acquire(&self, seen: &mut Option<SeenLease>) -> Result<Option<Lease>, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: serde_json::from_value(self.acquired_spec(0)).ok(),
            };
            return none_if_conflict(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        let now = Instant::now();
        let seen = match seen {
            Some(seen) if seen.spec == spec => seen,
            seen => seen.insert(SeenLease { spec, at: now }),
        };
        let promised = seen.spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
        let expires = seen.at + self.times.duration.max(Duration::from_secs(promised));
        if holder.is_some_and(|holder| holder != self.identity) && now < expires {
            return Ok(None);
        }
        let taken = self.acquired_spec(seen.spec.lease_transitions.unwrap_or(0) + 1);
        none_if_conflict(self.patch(&lease, taken).await)
    }

    /// The spec of a Lease that this candidate holds from now on.
    fn acquired_spec(&self, transitions: i32) -> Value {
        let now = MicroTime(Timestamp::now());
        json!({
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self.times.duration.as_secs().max(1),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions,
        })
    }

    /// Writes a Lease if it is still as it was seen.
    async fn patch(&self, seen: &Lease, spec: Value) -> Result<Lease, kube::Error> {
        let patch = json!({"metadata": {"resourceVersion": seen.resource_version()}, "spec": spec});
        self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await
    }

    /// Renews until the lease is lost or given back.
    async fn renew_until_lost(self, mut lease: Lease, state: watch::Sender<LeaseState>, give_back: CancellationToken) {
        let mut failing = false;
        loop {
            let deadline = state.borrow().renewed.at + self.times.renew_deadline;
            let wait = self.times.retry.min(deadline.saturating_duration_since(Instant::now()));
            tokio::select! {
                () = sleep(wait) => {}
                () = give_back.cancelled() => return self.release(&lease).await,
            }
            let sent = SendTime::now();
            let left = deadline.saturating_duration_since(sent.at);
            if left.is_zero() {
                let seconds = self.times.renew_deadline.as_secs_f32();
                return record_loss(&state, format!("the lease could not be renewed for {seconds} s"));
            }
            // A connection that died without a word must not use up all the time there is.
            match timeout(left.min(self.times.renew_deadline / 3), self.renew(&lease)).await {
                Ok(Ok(RenewalOutcome::Yes(renewed))) => {
                    lease = *renewed;
                    failing = false;
                    state.send_modify(|state| state.renewed = sent);
                }
                Ok(Ok(RenewalOutcome::SeenAnew(newer))) => lease = *newer,
                Ok(Ok(RenewalOutcome::Lost(why))) => return record_loss(&state, why),
                Ok(Err(error)) => self.warn_once(&mut failing, &error),
                Err(_) => self.warn_once(&mut failing, &"no answer"),
            }
        }
    }

    async fn renew(&self, lease: &Lease) -> Result<RenewalOutcome, kube::Error> {
        let spec = json!({"holderIdentity": self.identity, "renewTime": MicroTime(Timestamp::now())});
        match self.patch(lease, spec).await {
            Ok(renewed) => Ok(RenewalOutcome::Yes(Box::new(renewed))),
            // Somebody else wrote it; or we did, and the answer got lost.
            Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(match self.api.get_opt(&self.name).await? {
                Some(newer) if holder(&newer) == Some(&self.identity) => RenewalOutcome::SeenAnew(Box::new(newer)),
                Some(newer) => RenewalOutcome::Lost(format!("{} holds the lease", holder(&newer).unwrap_or("nobody"))),
                None => RenewalOutcome::Lost("the lease is gone".to_owned()),
            }),
            Err(kube::Error::Api(answer)) if answer.code == 404 => {
                Ok(RenewalOutcome::Lost("the lease is gone".to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the Lease back, so that another need not wait for its end.
    async fn release(&self, lease: &Lease) {
        let nothing = json!({"holderIdentity": null, "acquireTime": null, "renewTime": null});
        match timeout(self.times.renew_deadline / 2, self.patch(lease, nothing)).await {
            Ok(Ok(_)) => tracing::info!(lease = self.name, "the lease is given back"),
            Ok(Err(error)) => tracing::warn!(lease = self.name, %error, "the lease could not be given back"),
            Err(_) => tracing::warn!(lease = self.name, "the lease could not be given back: no answer"),
        }
    }
}

/// What a renewal came to.
enum RenewalOutcome {
    Yes(Box<Lease>),
    /// It is ours, in a version that was not known.
    SeenAnew(Box<Lease>),
    Lost(String),
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref()
}

/// Somebody else was faster: that is no error.
fn none_if_conflict(answer: Result<Lease, kube::Error>) -> Result<Option<Lease>, kube::Error> {
    match answer {
        Ok(lease) => Ok(Some(lease)),
        Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(None),
        Err(error) => Err(error),
    }
}

fn record_loss(state: &watch::Sender<LeaseState>, why: String) {
    tracing::error!(why, "this process leads no more");
    state.send_modify(|state| state.lost = Some(Arc::from(why)));
}

/// What a leader knows.
struct LeaseState {
    /// When the last renewal that worked was sent.
    renewed: SendTime,
    lost: Option<Arc<str>>,
}

/// When a request was sent.
#[derive(Clone, Copy)]
struct SendTime {
    /// By the clock that timers go by.
    at: Instant,
    /// By clocks that go on while this process does not run.
    moment: Moment,
}

impl SendTime {
    fn now() -> Self {
        Self { at: Instant::now(), moment: Moment::now() }
    }
}

/// Tells whether this process leads.
#[derive(Clone)]
pub(crate) struct LeadershipStatus {
    state: watch::Receiver<LeaseState>,
    renew_deadline: Duration,
}

impl LeadershipStatus {
    /// True while nobody else can lead, with some time left for a request to arrive. A process that slept knows it by this
    /// before its background task does.
    #[must_use]
    pub(crate) fn holds(&self) -> bool {
        !self.time_left().is_zero()
    }

    /// For how long it holds at least, unless it is lost before.
    #[must_use]
    pub(crate) fn time_left(&self) -> Duration {
        let state = self.state.borrow();
        if state.lost.is_some() {
            return Duration::ZERO;
        }
        self.renew_deadline.saturating_sub(state.renewed.moment.until(Moment::now()))
    }

    /// A lead that was renewed now, and is renewed no more.
    #[cfg(test)]
    pub(crate) fn renewed_now(renew_deadline: Duration) -> Self {
        let (_, state) = watch::channel(LeaseState { renewed: SendTime::now(), lost: None });
        Self { state, renew_deadline }
    }
}

/// The lead, renewed in the background. Dropped, it ends without being given back, as by a crash.
pub struct Leadership {
    lead: LeadershipStatus,
    give_back: CancellationToken,
    task: JoinSet<()>,
}

impl Leadership {
    fn start_renewing(candidate: LeaderCandidate, lease: &Lease, sent: SendTime) -> Self {
        let (sender, state) = watch::channel(LeaseState { renewed: sent, lost: None });
        let give_back = CancellationToken::new();
        let lead = LeadershipStatus { state, renew_deadline: candidate.times.renew_deadline };
        let mut task = JoinSet::new();
        task.spawn(candidate.renew_until_lost(lease.clone(), sender, give_back.clone()));
        Self { lead, give_back, task }
    }

    /// Tells whether this process leads, to whoever writes.
    #[must_use]
    pub(crate) fn status(&self) -> LeadershipStatus {
        self.lead.clone()
    }

    /// As [`LeadershipStatus::holds`].
    #[must_use]
    pub fn holds(&self) -> bool {
        self.lead.holds()
    }

    /// Waits for the loss of the lead, and says why. The process must then stop writing at once, and exit.
    pub async fn wait_until_lost(&mut self) -> Error {
        let why = match self.lead.state.wait_for(|state| state.lost.is_some()).await {
            Ok(state) => state.lost.clone(),
            // The task broke off: nobody renews.
            Err(_) => None,
        };
        let why = why.unwrap_or_else(|| Arc::from("nothing renews the lease"));
        Error::network(format!("this operator leads no more: {why}"))
            .advice("It exits and is started anew; see whether the API server was away")
    }

    /// Gives the lead back. All that writes as the leader must have ended.
    pub async fn release(mut self) {
        self.give_back.cancel();
        while self.task.join_next().await.is_some() {}
    }
}

/// A name for this process that no other has: its pod's or host's, and chance.
#[must_use]
pub(crate) fn process_identity() -> String {
    let host = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
    let host = host.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    let chance = getrandom::u32().unwrap_or_else(|_| fastrand::u32(..));
    format!("{host}_{chance:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_on_one_host_are_told_apart() {
        assert_ne!(process_identity(), process_identity());
    }

    #[test]
    fn a_leader_gives_up_before_another_may_take_over() {
        let times = LeaseTimes::default();
        assert!(times.renew_deadline + times.retry < times.duration);
    }
}
