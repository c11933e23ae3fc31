//! The loop of one controller: an object is looked at when its turn has come and a place is free.
//!
//! kube's own scheduler takes any object that is due, so that of ten thousand some wait for minutes. It is given one only
//! when there is a place for it: the order is that of [`ReconcileQueue`].

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, future::ready, stream};
use kube::{
    Resource,
    runtime::{
        controller::{Action, Config, Error, applier},
        reflector::{ObjectRef, Store},
    },
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    cache::{NamespacedName, namespaced_name},
    reconcile_queue::{ReconcileQueue, Urgency},
};

/// The objects of one kind that are due, or will be: what happens puts them in, the kind's loop takes them out.
#[derive(Debug, Default)]
pub(crate) struct DueObjects {
    queue: Mutex<ReconcileQueue<NamespacedName>>,
    /// Something was put in, or a place is free.
    changed: Notify,
}

impl DueObjects {
    /// Never held across an await.
    fn queue(&self) -> MutexGuard<'_, ReconcileQueue<NamespacedName>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened to the object of this name.
    pub(crate) fn add(&self, name: &NamespacedName, urgency: Urgency) {
        self.queue().add(name, urgency, Instant::now());
        self.changed.notify_one();
    }

    /// Something happened to an object.
    pub(crate) fn add_object(&self, object: &impl Resource, urgency: Urgency) {
        if let Some(name) = namespaced_name(object) {
            self.add(&name, urgency);
        }
    }

    /// An object is gone.
    pub(crate) fn forget(&self, object: &impl Resource) {
        if let Some(name) = namespaced_name(object) {
            self.queue().forget(&name);
        }
    }

    /// How many are due and not looked at, and for how long the first of them has been.
    pub(crate) fn backlog(&self) -> (usize, Duration) {
        self.queue().backlog(Instant::now())
    }

    /// Has an object looked at after this time at the latest.
    fn wake_after(&self, name: &NamespacedName, wait: Duration) {
        if let Some(at) = Instant::now().checked_add(wait) {
            self.queue().wake_at(name, at);
            self.changed.notify_one();
        }
    }

    fn finish(&self, name: &NamespacedName) {
        self.queue().finish(name, Instant::now());
        self.changed.notify_one();
    }

    /// Waits for a place, of so many, and for an object that is due.
    async fn next(&self, places: usize) -> NamespacedName {
        loop {
            let wake = {
                let mut queue = self.queue();
                if queue.running() < places {
                    if let Some(name) = queue.take(Instant::now()) {
                        return name;
                    }
                    queue.next_wake()
                } else {
                    None
                }
            };
            // A change since the look above is remembered.
            let changed = self.changed.notified();
            match wake {
                Some(at) => drop(timeout_at(at, changed).await),
                None => changed.await,
            }
        }
    }
}

/// Looks at objects that are due, so many at one time, until `stop`; then waits for the looks under way. A look says after
/// how long another one is due though nothing happens.
pub(crate) async fn run_loop<K, F>(
    due: Arc<DueObjects>,
    store: Store<K>,
    places: u16,
    stop: CancellationToken,
    mut look: impl FnMut(Arc<K>) -> F,
) where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
    F: Future<Output = Option<Duration>> + Send + 'static,
{
    let fed = stream::unfold(Arc::clone(&due), move |due| async move {
        let name = due.next(usize::from(places)).await;
        Some((Ok::<_, Infallible>(name.to_object_ref::<K>()), due))
    });
    let reconcile = move |object: Arc<K>, due: Arc<DueObjects>| {
        let look = look(Arc::clone(&object));
        async move {
            if let (Some(wait), Some(name)) = (look.await, namespaced_name(&*object)) {
                due.wake_after(&name, wait);
            }
            Ok::<_, Infallible>(Action::await_change())
        }
        .boxed()
    };
    let never_fails = |_: Arc<K>, never: &Infallible, _: Arc<DueObjects>| match *never {};
    let config = Config::default().concurrency(places);
    applier(reconcile, never_fails, Arc::clone(&due), store, fed.take_until(stop.cancelled_owned()), config)
        .for_each(|ended| {
            let name = match ended {
                Ok((object, _)) => Some(name_of(object)),
                // It went after its turn had come.
                Err(Error::ObjectNotFound(object)) => Some(name_of(*object)),
                Err(_) => None,
            };
            if let Some(name) = name {
                due.finish(&name);
            }
            ready(())
        })
        .await;
}

fn name_of<K: kube::runtime::reflector::Lookup>(object: ObjectRef<K>) -> NamespacedName {
    NamespacedName { namespace: object.namespace.unwrap_or_default(), name: object.name }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use kube::runtime::{
        reflector::{self, store::Writer},
        watcher::Event,
    };
    use tokio::time::sleep;

    use super::*;
    use crate::api::{MailServer, MailServerSpec};

    const PLACES: u16 = 32;
    const LOOK: Duration = Duration::from_millis(100);

    fn server(name: &str) -> MailServer {
        let mut server = MailServer::new(name, MailServerSpec::default());
        server.metadata.namespace = Some("ns".to_owned());
        server
    }

    fn name(name: &str) -> NamespacedName {
        NamespacedName::new("ns", name)
    }

    fn stored(names: impl IntoIterator<Item = String>) -> (Store<MailServer>, Writer<MailServer>) {
        let (store, mut writer) = reflector::store();
        writer.apply_watcher_event(&Event::Init);
        for name in names {
            writer.apply_watcher_event(&Event::InitApply(server(&name)));
        }
        writer.apply_watcher_event(&Event::InitDone);
        (store, writer)
    }

    /// When looks began, by name.
    type Looks = Arc<Mutex<Vec<(String, Instant)>>>;

    /// Looks take a while, and what each writes is seen by the watch, three times in a row: the object is due again.
    fn slow_look(
        due: &Arc<DueObjects>,
        looks: &Looks,
    ) -> impl FnMut(Arc<MailServer>) -> futures::future::BoxFuture<'static, Option<Duration>> + use<> {
        let (due, looks) = (Arc::clone(due), Arc::clone(looks));
        let mut counts: HashMap<String, u32> = HashMap::new();
        move |server| {
            let key = server.metadata.name.clone().unwrap();
            looks.lock().unwrap().push((key.clone(), Instant::now()));
            let count = counts.entry(key.clone()).or_default();
            *count += 1;
            let (due, written) = (Arc::clone(&due), *count <= 3);
            async move {
                sleep(LOOK / 2).await;
                if written {
                    due.add(&name(&key), Urgency::Ordinary);
                }
                sleep(LOOK / 2).await;
                None
            }
            .boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_that_are_due_at_once_are_each_looked_at_before_any_is_a_second_time() {
        const COUNT: usize = 10_000;
        let names: Vec<_> = (0..COUNT).map(|number| format!("s{number}")).collect();
        let (store, _writer) = stored(names.clone());
        let (due, looks, stop) = (Arc::<DueObjects>::default(), Looks::default(), CancellationToken::new());
        for key in &names {
            due.add(&name(key), Urgency::Ordinary);
        }
        let began = Instant::now();
        let look = slow_look(&due, &looks);
        let turning = tokio::spawn(run_loop(Arc::clone(&due), store, PLACES, stop.clone(), look));
        while looks.lock().unwrap().len() < COUNT * 4 {
            sleep(Duration::from_secs(1)).await;
        }
        stop.cancel();
        turning.await.unwrap();
        let looks = looks.lock().unwrap();
        // Those that begin at one moment are begun in any order.
        let strays = |(place, (key, _)): &(usize, &(String, Instant))| {
            key[1..].parse::<usize>().unwrap().abs_diff(*place) >= usize::from(PLACES)
        };
        assert_eq!(looks[..COUNT].iter().enumerate().find(strays), None, "not in the order in which they were due");
        let longest = looks[COUNT - 1].1 - began;
        let fair = LOOK * u32::try_from(COUNT.div_ceil(usize::from(PLACES))).unwrap();
        assert!(longest <= fair, "the last one waited for {longest:?}, and its turn came after {fair:?}");
        assert_eq!((looks.len(), due.backlog().0), (COUNT * 4, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_is_stopped_takes_nothing_more_and_ends_what_it_began() {
        let (store, _writer) = stored((0..100).map(|number| format!("s{number}")));
        let (due, looks, stop) = (Arc::<DueObjects>::default(), Looks::default(), CancellationToken::new());
        for number in 0..100 {
            due.add(&name(&format!("s{number}")), Urgency::Ordinary);
        }
        let turning = tokio::spawn(run_loop(Arc::clone(&due), store, PLACES, stop.clone(), slow_look(&due, &looks)));
        sleep(LOOK / 4).await;
        stop.cancel();
        let began = Instant::now();
        turning.await.unwrap();
        assert_eq!(began.elapsed(), LOOK * 3 / 4, "the looks under way are waited for");
        assert_eq!(looks.lock().unwrap().len(), usize::from(PLACES));
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_is_not_there_takes_no_place_and_one_that_asked_is_looked_at_in_time() {
        let (store, _writer) = stored(["there".to_owned()]);
        let (due, stop) = (Arc::<DueObjects>::default(), CancellationToken::new());
        let looks = Looks::default();
        let seen = Arc::clone(&looks);
        for number in 0..40 {
            due.add(&name(&format!("gone-{number}")), Urgency::Urgent);
        }
        due.add(&name("there"), Urgency::Ordinary);
        let began = Instant::now();
        let look = move |server: Arc<MailServer>| {
            seen.lock().unwrap().push((server.metadata.name.clone().unwrap(), Instant::now()));
            ready(Some(Duration::from_mins(1)))
        };
        let turning = tokio::spawn(run_loop(Arc::clone(&due), store, 1, stop.clone(), look));
        sleep(Duration::from_secs(150)).await;
        stop.cancel();
        turning.await.unwrap();
        let times: Vec<_> = looks.lock().unwrap().iter().map(|(_, at)| (*at - began).as_secs()).collect();
        assert_eq!(times, [0, 60, 120]);
    }
}
