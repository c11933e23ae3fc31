//! Which finished pods stay, of all mailboxes together: they take room in the cluster that others share, and in the
//! operator's memory.

use std::{
    cmp::Reverse,
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kube::ResourceExt as _;

use super::{
    cache::{ClusterCaches, NamespacedName},
    cached_objects::{SyncContainerState, SyncPod},
    reconcile_loop::DueObjects,
    reconcile_queue::Urgency,
};

/// The most finished pods that stay. A cluster's own collector would take any tenant's pods, from 12,500 on.
const MAX_FINISHED: usize = 500;
/// How often it is judged which they are, at most.
pub(crate) const JUDGE_PERIOD: Duration = Duration::from_secs(1);

/// The finished pods of all mailboxes that have to go, as they were judged last.
#[derive(Debug, Default)]
pub(crate) struct FinishedPods(Mutex<JudgedPods>);

#[derive(Debug, Default)]
struct JudgedPods {
    at: Option<Instant>,
    /// By UID.
    surplus: HashSet<String>,
}

impl FinishedPods {
    /// The UIDs of those of a mailbox's `pods` that have to go, since there are too many in all; mailboxes whose pods have
    /// to go, too, become `due`. The second is true when it has to be asked again soon.
    pub(crate) fn surplus_of(
        &self,
        pods: &[Arc<SyncPod>],
        caches: &ClusterCaches,
        due: &DueObjects,
    ) -> (Vec<String>, bool) {
        if caches.pods.len() <= MAX_FINISHED || !pods.iter().any(|pod| is_finished(pod)) {
            return (Vec::new(), false);
        }
        let mut judged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = judged.at.is_some_and(|at| at.elapsed() < JUDGE_PERIOD);
        if !recent {
            let all = caches.pods.state();
            let surplus = surplus_pods(all.iter().map(|pod| &**pod), MAX_FINISHED);
            let news = surplus.iter().filter(|pod| !judged.surplus.contains(uid(pod)));
            for (name, namespace) in news.filter_map(|pod| Some((pod.sync_name()?, pod.namespace()?))) {
                due.add(&NamespacedName::new(namespace, name), Urgency::Ordinary);
            }
            let surplus = surplus.into_iter().map(|pod| uid(pod).to_owned()).collect();
            *judged = JudgedPods { at: Some(Instant::now()), surplus };
        }
        let ours = pods.iter().map(|pod| uid(pod)).filter(|uid| judged.surplus.contains(*uid));
        (ours.map(str::to_owned).collect(), recent)
    }
}

fn uid(pod: &SyncPod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// True when nothing is waited for any more: its end is settled, and nobody deletes it yet.
fn is_finished(pod: &SyncPod) -> bool {
    let ended = matches!(pod.container_state(), SyncContainerState::Terminated(_))
        || matches!(pod.status.phase.as_deref(), Some("Succeeded" | "Failed"));
    ended && !pod.has_finalizer() && pod.deleting_since().is_none()
}

/// The finished pods that are too many: pods that failed stay before those that did not, and newer ones before older.
fn surplus_pods<'a>(pods: impl Iterator<Item = &'a SyncPod>, most: usize) -> Vec<&'a SyncPod> {
    let mut finished: Vec<_> = pods
        .filter(|pod| is_finished(pod))
        .map(|pod| {
            let made = pod.metadata.creation_timestamp.as_ref().map(|made| made.0);
            let (code, ended) = match pod.container_state() {
                SyncContainerState::Terminated(exit) => (exit.code, exit.at.or(made)),
                _ => (1, made),
            };
            (Reverse((code != 0, ended)), uid(pod), pod)
        })
        .collect();
    finished.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    finished.into_iter().skip(most).map(|(_, _, pod)| pod).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::{
        api::core::v1::{ContainerState, ContainerStateTerminated},
        apimachinery::pkg::apis::meta::v1::Time,
    };

    use super::*;
    use crate::controller::cached_objects::{ContainerFacts, POD_FINALIZER};

    fn ended(name: &str, exit_code: i32, second: i64) -> SyncPod {
        let at = Time(Timestamp::from_second(second).unwrap());
        let state = ContainerStateTerminated { exit_code, finished_at: Some(at), ..Default::default() };
        let mut pod = SyncPod::default();
        pod.metadata.uid = Some(name.to_owned());
        let state = ContainerState { terminated: Some(state), ..ContainerState::default() };
        pod.status.container_statuses = vec![ContainerFacts::of_sync(Some(state))];
        pod
    }

    fn surplus(pods: &[SyncPod], most: usize) -> Vec<&str> {
        surplus_pods(pods.iter(), most).into_iter().map(uid).collect()
    }

    #[test]
    fn of_too_many_finished_pods_failed_ones_stay_and_the_oldest_go() {
        let pods = [ended("good-1", 0, 1), ended("bad-2", 1, 2), ended("good-3", 0, 3), ended("bad-4", 1, 4)];
        assert_eq!(surplus(&pods, 4), [""; 0]);
        assert_eq!(surplus(&pods, 3), ["good-1"]);
        assert_eq!(surplus(&pods, 1), ["bad-2", "good-3", "good-1"]);
    }

    #[test]
    fn a_pod_whose_end_is_not_settled_or_that_runs_is_not_judged() {
        let mut held = ended("held", 0, 1);
        held.metadata.finalizers = Some(vec![POD_FINALIZER.to_owned()]);
        let mut going = ended("going", 0, 1);
        going.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let running = SyncPod::default();
        assert_eq!(surplus(&[held, going, running], 0), [""; 0]);
    }
}
