//! Watches of one kind, one for each namespace, and the one store that they fill.

use std::{collections::HashSet, fmt::Debug, sync::Arc, time::Duration};

use backon::ExponentialBuilder;
use futures::{StreamExt as _, channel::mpsc::UnboundedSender, stream::select_all};
use kube::{
    Api, Client, Resource,
    core::{DeserializeGuard, NamespaceResourceScope},
    runtime::{
        WatchStreamExt as _,
        reflector::{ObjectRef, Store, store::Writer},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

/// The first wait before an API server that is away is asked again; doubles.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The longest such wait: whoever waited for the API server should not wait for the operator after it.
const MAX_RETRY: Duration = Duration::from_secs(5);
/// How often the errors of one watch are logged at most.
const LOG_PERIOD: Duration = Duration::from_mins(1);

/// A namespace to watch; none: all of them.
pub(crate) type WatchScope = Option<String>;

/// The scopes of the watches of one kind: these namespaces, or all where there are none.
#[must_use]
pub(crate) fn scopes(namespaces: &[String]) -> Vec<WatchScope> {
    if namespaces.is_empty() { vec![None] } else { namespaces.iter().cloned().map(Some).collect() }
}

/// What happened to an object, after the caches took it in.
#[derive(Debug)]
pub(crate) enum ObjectChange<K> {
    /// It was created or changed, or listed anew.
    Applied(K),
    /// It is gone.
    Deleted(K),
}

/// How one kind is watched.
pub(crate) struct WatchSpec<K: Resource<DynamicType = ()> + Clone + 'static> {
    /// Which objects are listed and watched, and how many one request lists.
    pub config: watcher::Config,
    /// Drops the parts of an object that no decision needs.
    pub slim: Box<dyn Fn(&mut K) + Send + Sync>,
    /// Fills the store.
    pub writer: Writer<K>,
    /// Takes each change, after the store has it.
    pub changes: UnboundedSender<ObjectChange<K>>,
}

/// What is called as the store is filled, before the changes are sent on.
pub(crate) struct WatchHooks<'a, K> {
    /// Called once for each namespace, when it was listed for the first time.
    pub listed: &'a (dyn Fn() + Sync),
    /// Called with each change.
    pub changed: &'a (dyn Fn(&ObjectChange<K>) + Sync),
}

impl<K> WatchSpec<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    /// Watches for as long as it is polled, and as somebody takes the changes. An API server that is away is asked again,
    /// with backoff.
    pub(crate) async fn watch(self, client: &Client, scopes: &[WatchScope], hooks: WatchHooks<'_, K>) {
        let mut joined = MultiNamespaceStore::new(self.writer, scopes.to_vec());
        let mut logged_at: Vec<Option<Instant>> = vec![None; scopes.len()];
        let watches = scopes.iter().enumerate().map(|(number, scope)| {
            let api: Api<DeserializeGuard<K>> = match scope {
                Some(namespace) => Api::namespaced(client.clone(), namespace),
                None => Api::all(client.clone()),
            };
            let again = ExponentialBuilder::default().with_min_delay(FIRST_RETRY).with_max_delay(MAX_RETRY);
            let again = watcher::ExponentialBackoff::from(again.with_jitter().without_max_times());
            watcher(api, self.config.clone()).backoff(again).map(move |event| (number, event)).boxed()
        });
        let mut events = select_all(watches);
        while let Some((number, event)) = events.next().await {
            match event {
                Ok(event) => {
                    let left = joined.unlisted_count();
                    for change in joined.apply_event(number, decode_event(event, &*self.slim)) {
                        (hooks.changed)(&change);
                        if self.changes.unbounded_send(change).is_err() {
                            return;
                        }
                    }
                    if joined.unlisted_count() < left {
                        (hooks.listed)();
                    }
                }
                Err(error) => {
                    let before = logged_at.get_mut(number);
                    if before.as_ref().is_none_or(|before| before.is_none_or(|at| at.elapsed() >= LOG_PERIOD)) {
                        before.map(|before| before.replace(Instant::now()));
                        log_watch_error::<K>(scopes.get(number), &error);
                    }
                }
            }
        }
    }
}

fn log_watch_error<K: Resource<DynamicType = ()>>(scope: Option<&WatchScope>, error: &watcher::Error) {
    let (kind, namespace) = (K::kind(&()), scope.cloned().flatten());
    if is_forbidden(error) {
        tracing::error!(
            kind = &*kind,
            namespace,
            %error,
            "the operator may not watch here: give it its role in this namespace, or have it watch others"
        );
    } else {
        tracing::warn!(kind = &*kind, namespace, %error, "a watch was interrupted; it goes on");
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(answer))
        | watcher::Error::WatchStartFailed(kube::Error::Api(answer))
        | watcher::Error::WatchError(answer) => answer.code == 403,
        _ => false,
    }
}

/// An object, or which one can't be read.
type DecodedObject<K> = Result<K, ObjectRef<K>>;

/// Reads the objects of an event. One malformed object never stops a watch: it is logged, and left alone.
fn decode_event<K: Resource<DynamicType = ()>>(
    event: Event<DeserializeGuard<K>>,
    slim: &(dyn Fn(&mut K) + Send + Sync),
) -> Event<DecodedObject<K>> {
    let read = |guard: DeserializeGuard<K>| match guard.0 {
        Ok(mut object) => {
            slim(&mut object);
            Ok(object)
        }
        Err(invalid) => {
            let (namespace, name) = (invalid.metadata.namespace, invalid.metadata.name.unwrap_or_default());
            tracing::warn!(
                kind = &*K::kind(&()),
                namespace,
                name,
                error = invalid.error,
                "an object can't be read; it is left alone"
            );
            Err(ObjectRef::new(&name).within(&namespace.unwrap_or_default()))
        }
    };
    match event {
        Event::Apply(guard) => Event::Apply(read(guard)),
        Event::Delete(guard) => Event::Delete(read(guard)),
        Event::InitApply(guard) => Event::InitApply(read(guard)),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    }
}

/// One store that several watches fill, each with a namespace's objects. What one of them lists anew takes away only its
/// own; so `reflector`, which replaces the whole store after a list, is not used.
struct MultiNamespaceStore<K: Resource<DynamicType = ()> + Clone + 'static> {
    writer: Writer<K>,
    store: Store<K>,
    watches: Vec<NamespaceWatch<K>>,
}

struct NamespaceWatch<K: Resource<DynamicType = ()>> {
    scope: WatchScope,
    /// What was listed so far, while a list is under way.
    listing: Option<HashSet<ObjectRef<K>>>,
    /// A list was complete once.
    listed: bool,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> MultiNamespaceStore<K> {
    fn new(mut writer: Writer<K>, scopes: Vec<WatchScope>) -> Self {
        let store = writer.as_reader();
        // For kube the store is ready from the start; whether it is, `unlisted` tells.
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitDone);
        let watches = scopes.into_iter().map(|scope| NamespaceWatch { scope, listing: None, listed: false }).collect();
        Self { writer, store, watches }
    }

    /// How many namespaces were never listed.
    fn unlisted_count(&self) -> usize {
        self.watches.iter().filter(|watch| !watch.listed).count()
    }

    /// Takes in an event of a watch; gives what changed.
    fn apply_event(&mut self, number: usize, event: Event<DecodedObject<K>>) -> Vec<ObjectChange<K>> {
        let Some(watch) = self.watches.get_mut(number) else { return Vec::new() };
        match event {
            Event::Init => {
                watch.listing = Some(HashSet::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                let reference = object.as_ref().map_or_else(Clone::clone, ObjectRef::from_obj);
                watch.listing.get_or_insert_default().insert(reference);
                object.map_or_else(|_| Vec::new(), |object| self.apply_object(object))
            }
            Event::InitDone => {
                watch.listed = true;
                let seen = watch.listing.take().unwrap_or_default();
                let scope = watch.scope.clone();
                let ours = |object: &K| scope.is_none() || object.meta().namespace == scope;
                let gone =
                    self.store.state_filter(|object| ours(object) && !seen.contains(&ObjectRef::from_obj(object)));
                gone.into_iter().map(|object| self.delete_object((*object).clone())).collect()
            }
            Event::Apply(Ok(object)) => self.apply_object(object),
            Event::Apply(Err(_)) => Vec::new(),
            Event::Delete(Ok(object)) => vec![self.delete_object(object)],
            Event::Delete(Err(reference)) => {
                let known = self.store.get(&reference).map(Arc::unwrap_or_clone);
                known.map(|object| self.delete_object(object)).into_iter().collect()
            }
        }
    }

    fn apply_object(&mut self, object: K) -> Vec<ObjectChange<K>> {
        let before = self.store.get(&ObjectRef::from_obj(&object));
        let other = before.filter(|before| before.meta().uid != object.meta().uid);
        self.writer.apply_watcher_event(&Event::Apply(object.clone()));
        // Another of the same name: the one before went while nobody watched.
        let gone = other.map(|other| ObjectChange::Deleted(Arc::unwrap_or_clone(other)));
        gone.into_iter().chain([ObjectChange::Applied(object)]).collect()
    }

    fn delete_object(&mut self, object: K) -> ObjectChange<K> {
        self.writer.apply_watcher_event(&Event::Delete(object.clone()));
        ObjectChange::Deleted(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::MailServer;

    fn server(namespace: &str, name: &str, uid: &str) -> MailServer {
        let mut server = MailServer::new(name, crate::api::MailServerSpec::default());
        server.metadata.namespace = Some(namespace.to_owned());
        server.metadata.uid = Some(uid.to_owned());
        server
    }

    fn unreadable(namespace: &str, name: &str) -> DecodedObject<MailServer> {
        Err(ObjectRef::new(name).within(namespace))
    }

    struct StoreFixture(MultiNamespaceStore<MailServer>);

    impl StoreFixture {
        fn new(namespaces: &[&str]) -> Self {
            let namespaces: Vec<_> = namespaces.iter().map(|name| (*name).to_owned()).collect();
            Self(MultiNamespaceStore::new(Writer::default(), scopes(&namespaces)))
        }

        /// A watch lists these, all that there are; what changed.
        fn lists(&mut self, number: usize, objects: Vec<DecodedObject<MailServer>>) -> Vec<String> {
            let listed = objects.into_iter().map(Event::InitApply);
            let events = [Event::Init].into_iter().chain(listed).chain([Event::InitDone]);
            events.flat_map(|event| self.takes(number, event)).collect()
        }

        fn takes(&mut self, number: usize, event: Event<DecodedObject<MailServer>>) -> Vec<String> {
            let text = |change| match change {
                ObjectChange::Applied(server) => format!("+{}", of(&server)),
                ObjectChange::Deleted(server) => format!("-{}", of(&server)),
            };
            self.0.apply_event(number, event).into_iter().map(text).collect()
        }

        fn there(&self) -> Vec<String> {
            let mut there: Vec<_> = self.0.store.state().iter().map(|server| of(server)).collect();
            there.sort();
            there
        }
    }

    fn of(server: &MailServer) -> String {
        let of = |text: &Option<String>| text.clone().unwrap();
        format!("{}/{}:{}", of(&server.metadata.namespace), of(&server.metadata.name), of(&server.metadata.uid))
    }

    #[test]
    fn what_one_namespace_lists_anew_takes_nothing_from_the_others() {
        let mut case = StoreFixture::new(&["a", "b", "c"]);
        assert_eq!(case.lists(0, vec![Ok(server("a", "x", "1")), Ok(server("a", "y", "2"))]), ["+a/x:1", "+a/y:2"]);
        assert_eq!(case.lists(1, vec![Ok(server("b", "x", "3"))]), ["+b/x:3"]);
        assert_eq!(case.0.unlisted_count(), 1);
        assert_eq!(case.lists(2, vec![]), [""; 0], "a namespace that is not there yet");
        assert_eq!(case.0.unlisted_count(), 0);
        // y went while nobody watched.
        assert_eq!(case.lists(0, vec![Ok(server("a", "x", "1"))]), ["+a/x:1", "-a/y:2"]);
        assert_eq!(case.there(), ["a/x:1", "b/x:3"]);
        assert_eq!(case.takes(2, Event::Apply(Ok(server("c", "z", "4")))), ["+c/z:4"]);
        assert_eq!(case.takes(1, Event::Delete(Ok(server("b", "x", "3")))), ["-b/x:3"]);
        assert_eq!(case.there(), ["a/x:1", "c/z:4"]);
    }

    #[test]
    fn a_list_that_breaks_off_takes_nothing_and_begins_again() {
        let mut case = StoreFixture::new(&["a", "b"]);
        case.lists(0, vec![Ok(server("a", "x", "1")), Ok(server("a", "y", "2"))]);
        case.takes(0, Event::Init);
        case.takes(0, Event::InitApply(Ok(server("a", "x", "1"))));
        assert_eq!(case.there(), ["a/x:1", "a/y:2"]);
        assert_eq!(case.lists(0, vec![Ok(server("a", "y", "2"))]), ["+a/y:2", "-a/x:1"]);
    }

    #[test]
    fn one_watch_of_all_namespaces_knows_them_all() {
        let mut case = StoreFixture::new(&[]);
        case.lists(0, vec![Ok(server("a", "x", "1")), Ok(server("b", "x", "2"))]);
        assert_eq!(case.0.unlisted_count(), 0);
        assert_eq!(case.lists(0, vec![Ok(server("b", "x", "2"))]), ["+b/x:2", "-a/x:1"]);
    }

    #[test]
    fn another_of_the_same_name_means_that_the_one_before_is_gone() {
        let mut case = StoreFixture::new(&["a"]);
        case.lists(0, vec![Ok(server("a", "x", "1"))]);
        assert_eq!(case.lists(0, vec![Ok(server("a", "x", "2"))]), ["-a/x:1", "+a/x:2"]);
        assert_eq!(case.there(), ["a/x:2"]);
    }

    #[test]
    fn what_can_not_be_read_is_left_as_it_was_known_until_it_is_gone() {
        let mut case = StoreFixture::new(&["a"]);
        case.lists(0, vec![Ok(server("a", "x", "1"))]);
        assert_eq!(case.lists(0, vec![unreadable("a", "x"), unreadable("a", "never")]), [""; 0]);
        assert_eq!(case.takes(0, Event::Apply(unreadable("a", "x"))), [""; 0]);
        assert_eq!(case.there(), ["a/x:1"]);
        assert_eq!(case.takes(0, Event::Delete(unreadable("a", "x"))), ["-a/x:1"]);
        assert_eq!(case.there(), [""; 0]);
    }
}
