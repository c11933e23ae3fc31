//! Keeps access tokens while they last: each is asked for once at a time, renewed at half its life, and an endpoint that is
//! unwell is left alone.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    answer::{TokenAnswer, read_answer},
    endpoint::{HttpsEndpoint, TokenEndpoint},
    grant::{Grant, GrantProof},
    refresh_store::RefreshTokenStore,
    request::token_request,
};
use crate::{
    clock::since_boot,
    error::{Error, ErrorClass, ErrorRemedy, Result},
};

/// A refusal that waits for a person is believed for so long, before the endpoint is asked again.
const REFUSAL_HOLDS: Duration = Duration::from_secs(30);
/// The first wait for an endpoint that is unwell; it doubles with each failure in a row.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait, where the endpoint states none.
const LONGEST_WAIT: Duration = Duration::from_mins(2);
/// A token that is younger and refused is not at fault: what it opens is. A quarter of its life, at most this.
const FRESH: Duration = Duration::from_secs(30);
/// A token is used until so much of its life is left: a login takes a moment.
const RESERVE: Duration = Duration::from_secs(30);

/// Access tokens of all grants of a process.
pub(crate) struct TokenCache {
    endpoint: Arc<dyn TokenEndpoint>,
    store: Arc<dyn RefreshTokenStore>,
    /// Time that goes on while the machine sleeps, and that nobody sets.
    clock: fn() -> Duration,
    slots: Mutex<HashMap<TokenKey, Arc<TokenSlot>>>,
    /// How the endpoints are, by address.
    health: Mutex<HashMap<String, EndpointHealth>>,
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenCache(..)")
    }
}

/// A grant's identity, and whose token it is.
type TokenKey = (String, Option<String>);
/// What is known of one token; who holds it may ask for a new one.
type TokenSlot = tokio::sync::Mutex<TokenState>;

/// What is known of one token.
#[derive(Default)]
struct TokenState {
    token: Option<HeldToken>,
    /// The last refusal that waits for a person, and when it came.
    refusal: Option<(Error, Duration)>,
}

/// An access token with its times.
#[derive(Clone)]
struct HeldToken {
    token: SecretString,
    /// When it was asked for.
    since: Duration,
    lifetime: Duration,
}

/// How an endpoint is.
#[derive(Debug, Clone)]
struct EndpointHealth {
    failures: u32,
    not_before: Duration,
    error: Error,
}

/// What is done about a token.
#[derive(Debug, PartialEq, Eq)]
enum TokenStep {
    /// The token that is there is used.
    Use,
    /// A new one is asked for; the one that is there does as long as none comes.
    Renew,
    /// A new one is asked for.
    Ask,
    /// The last refusal still holds.
    Refused,
}

impl HeldToken {
    fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.since)
    }

    /// True until shortly before its end.
    fn works(&self, now: Duration) -> bool {
        self.age(now) + RESERVE.min(self.lifetime / 4) < self.lifetime
    }

    fn is_fresh(&self, now: Duration) -> bool {
        self.age(now) < FRESH.min(self.lifetime / 4)
    }
}

impl TokenState {
    /// What is done at `now`, where a server refused the token `refused`.
    fn step(&self, now: Duration, refused: Option<&str>) -> TokenStep {
        let token = self.token.as_ref();
        let is_refused = |held: &HeldToken| refused.is_some_and(|refused| refused == held.token.expose_secret());
        let usable = token.filter(|held| held.works(now) && (!is_refused(held) || held.is_fresh(now)));
        let refusal = self.refusal.as_ref().is_some_and(|(_, at)| now.saturating_sub(*at) < REFUSAL_HOLDS);
        match usable {
            Some(held) if refusal || held.age(now) < held.lifetime / 2 => TokenStep::Use,
            Some(_) => TokenStep::Renew,
            None if refusal => TokenStep::Refused,
            None => TokenStep::Ask,
        }
    }
}

/// A grant with the mailbox that its tokens are for.
#[derive(Debug, Clone)]
pub(crate) struct CachedGrant {
    cache: Arc<TokenCache>,
    grant: Arc<Grant>,
    user: String,
}

/// An access token, and how long it lasts.
pub(crate) struct GrantedToken {
    /// The token.
    pub(crate) token: SecretString,
    /// Until when it is good.
    pub(crate) until: Timestamp,
}

impl CachedGrant {
    /// The grant.
    #[must_use]
    pub(crate) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// A token that is good now. `refused` is one that a server just refused, though it should be: it counts as ended,
    /// unless it is so young that it can't be at fault.
    ///
    /// # Errors
    /// What the endpoint says, or that it can't be asked now; never with a secret.
    pub(crate) async fn token(&self, refused: Option<&SecretString>) -> Result<GrantedToken> {
        // A task of its own: what an endpoint gave is kept, even where nobody waits for it any more.
        let (this, refused) = (self.clone(), refused.cloned());
        let asked = tokio::spawn(async move { this.cache.token(&this.grant, &this.user, refused.as_ref()).await });
        let held = asked.await.map_err(|_| Error::internal("asking for a token broke off"))??;
        let left = held.lifetime.saturating_sub(held.age((self.cache.clock)()));
        let left = jiff::SignedDuration::try_from(left).unwrap_or_default();
        Ok(GrantedToken { token: held.token, until: Timestamp::now().saturating_add(left).unwrap_or(Timestamp::MAX) })
    }
}

impl TokenCache {
    /// A cache that asks over HTTPS; refresh tokens are kept in `store`.
    #[must_use]
    pub(crate) fn new(store: Arc<dyn RefreshTokenStore>) -> Arc<Self> {
        Self::with_endpoint(Arc::new(HttpsEndpoint), store, since_boot)
    }

    fn with_endpoint(
        endpoint: Arc<dyn TokenEndpoint>,
        store: Arc<dyn RefreshTokenStore>,
        clock: fn() -> Duration,
    ) -> Arc<Self> {
        Arc::new(Self { endpoint, store, clock, slots: Mutex::default(), health: Mutex::default() })
    }

    /// The grant with the mailbox `user`, whose tokens are kept here.
    #[must_use]
    pub(crate) fn granted(self: &Arc<Self>, grant: Arc<Grant>, user: &str) -> CachedGrant {
        CachedGrant { cache: Arc::clone(self), grant, user: user.to_owned() }
    }

    /// Waits until nobody asks an endpoint any more: what it gave must be kept before the process ends.
    pub(crate) async fn settle(&self) {
        let slots: Vec<_> = locked(&self.slots).values().cloned().collect();
        for slot in slots {
            drop(slot.lock().await);
        }
    }

    async fn token(&self, grant: &Grant, user: &str, refused: Option<&SecretString>) -> Result<HeldToken> {
        let key = (grant.identity().to_owned(), grant.subject(user).map(str::to_owned));
        let slot = Arc::clone(locked(&self.slots).entry(key).or_default());
        let mut state = slot.lock().await;
        let now = (self.clock)();
        let step = state.step(now, refused.map(SecretString::expose_secret));
        let usable = || state.token.clone().ok_or_else(|| Error::internal("a token is gone"));
        match step {
            TokenStep::Use => return usable(),
            TokenStep::Refused => {
                return Err(state
                    .refusal
                    .as_ref()
                    .map_or_else(|| Error::internal("a refusal is gone"), |(e, _)| e.clone()));
            }
            TokenStep::Renew | TokenStep::Ask => {}
        }
        let fallback = if step == TokenStep::Renew { Some(usable()?) } else { None };
        match self.ask_if_well(grant, user, now).await {
            Ok(answer) => {
                let held = HeldToken { token: answer.token, since: now, lifetime: answer.lifetime };
                *state = TokenState { token: Some(held.clone()), refusal: None };
                Ok(held)
            }
            Err(error) => {
                if error.class.remedy() != ErrorRemedy::RetryWithBackoff {
                    state.refusal = Some((error.clone(), now));
                }
                match fallback {
                    Some(held) => {
                        tracing::info!(error = %error, "a token can't be renewed now, and is used until its end");
                        Ok(held)
                    }
                    None => Err(error),
                }
            }
        }
    }

    /// Asks the endpoint, unless it was unwell shortly before.
    async fn ask_if_well(&self, grant: &Grant, user: &str, now: Duration) -> Result<TokenAnswer> {
        let address = grant.token_url.to_string();
        if let Some(health) = locked(&self.health).get(&address)
            && let Some(wait) = health.not_before.checked_sub(now).filter(|wait| !wait.is_zero())
        {
            return Err(Error { stated_wait: Some(wait), ..health.error.clone() });
        }
        let asked = self.ask(grant, user).await;
        let mut health = locked(&self.health);
        match &asked {
            Err(error) if error.class.remedy() == ErrorRemedy::RetryWithBackoff => {
                let failures = health.get(&address).map_or(0, |health| health.failures);
                let step = FIRST_WAIT.saturating_mul(1 << failures.min(16)).min(LONGEST_WAIT);
                let wait = error.stated_wait.unwrap_or(step);
                let not_before = (self.clock)() + wait;
                health.insert(address, EndpointHealth { failures: failures + 1, not_before, error: error.clone() });
            }
            _ => {
                health.remove(&address);
            }
        }
        drop(health);
        asked
    }

    async fn ask(&self, grant: &Grant, user: &str) -> Result<TokenAnswer> {
        let seconds = Timestamp::now().as_second();
        let GrantProof::RefreshToken { seed, .. } = &grant.proof else {
            let form = token_request(grant, Some(user), None, seconds)?;
            let reply = self.endpoint.post(&grant.token_url, form).await?;
            return read_answer(grant, &reply, Timestamp::now());
        };
        let mut held = self.store.hold(seed).await?;
        let was_in_use = held.may_be_used_up();
        let form = token_request(grant, Some(user), Some(held.current()), seconds)?;
        held.begin()?;
        let reply = self.endpoint.post(&grant.token_url, form).await?;
        let answer = read_answer(grant, &reply, Timestamp::now());
        match answer {
            Ok(mut answer) => {
                // Kept before the access token is used: what comes next asks with it.
                held.keep(answer.refresh_token.take())?;
                Ok(answer)
            }
            Err(error) if error.class == ErrorClass::Authentication && was_in_use => Err(Error {
                what: format!(
                    "{}; a run before this one ended before it could keep the refresh token that it was given",
                    error.what
                ),
                ..error
            }),
            // It refused, and so replaced nothing.
            Err(error) if (400..500).contains(&reply.status) => {
                held.keep(None)?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        sync::atomic::{AtomicBool, Ordering},
    };

    use futures::future::BoxFuture;

    use super::*;
    use crate::oauth::{
        endpoint::EndpointReply,
        refresh_store::{HeldRefreshToken, RefreshSeed},
        testing::{ScriptedEndpoint, app_grant, refresh_grant, reply},
    };

    thread_local! {
        static NOW: Cell<Duration> = const { Cell::new(Duration::from_secs(1000)) };
    }

    fn now() -> Duration {
        NOW.get()
    }

    fn pass(seconds: u64) {
        NOW.set(NOW.get() + Duration::from_secs(seconds));
    }

    /// Keeps one refresh token in memory, and refuses to write where it is told to.
    #[derive(Debug, Default, Clone)]
    struct MemoryStore {
        token: Arc<Mutex<Option<String>>>,
        in_use: Arc<AtomicBool>,
        full: Arc<AtomicBool>,
    }

    struct HeldInMemory(MemoryStore, SecretString, bool);

    impl RefreshTokenStore for MemoryStore {
        fn hold<'a>(&'a self, seed: &'a RefreshSeed) -> BoxFuture<'a, Result<Box<dyn HeldRefreshToken>>> {
            let kept = locked(&self.token).clone();
            let current = kept.map_or_else(|| seed.token().clone(), SecretString::from);
            let held = HeldInMemory(self.clone(), current, self.in_use.load(Ordering::Relaxed));
            Box::pin(async { Ok(Box::new(held) as Box<dyn HeldRefreshToken>) })
        }
    }

    impl HeldRefreshToken for HeldInMemory {
        fn current(&self) -> &SecretString {
            &self.1
        }

        fn may_be_used_up(&self) -> bool {
            self.2
        }

        fn begin(&mut self) -> Result<()> {
            self.0.in_use.store(true, Ordering::Relaxed);
            Ok(())
        }

        fn keep(&mut self, replacement: Option<SecretString>) -> Result<()> {
            if self.0.full.load(Ordering::Relaxed) {
                return Err(Error::internal("the disk is full"));
            }
            if let Some(replacement) = replacement {
                *locked(&self.0.token) = Some(replacement.expose_secret().to_owned());
            }
            self.0.in_use.store(false, Ordering::Relaxed);
            Ok(())
        }
    }

    #[allow(clippy::unnecessary_wraps, reason = "it stands beside refusals")]
    fn gives(token: &str, seconds: u64) -> Result<EndpointReply> {
        Ok(reply(200, &format!("{{\"access_token\":\"{token}\",\"expires_in\":{seconds}}}")))
    }

    #[allow(clippy::unnecessary_wraps, reason = "it stands beside refusals")]
    fn rotates(token: &str, next: &str) -> Result<EndpointReply> {
        let body = format!("{{\"access_token\":\"{token}\",\"expires_in\":3600,\"refresh_token\":\"{next}\"}}");
        Ok(reply(200, &body))
    }

    fn cache(endpoint: &Arc<ScriptedEndpoint>, store: &MemoryStore) -> Arc<TokenCache> {
        TokenCache::with_endpoint(Arc::clone(endpoint) as Arc<dyn TokenEndpoint>, Arc::new(store.clone()), now)
    }

    fn granted(endpoint: &Arc<ScriptedEndpoint>, grant: Grant) -> CachedGrant {
        cache(endpoint, &MemoryStore::default()).granted(Arc::new(grant), "alice")
    }

    async fn token(grant: &CachedGrant, refused: Option<&str>) -> Result<String> {
        let refused = refused.map(SecretString::from);
        grant.token(refused.as_ref()).await.map(|granted| granted.token.expose_secret().to_owned())
    }

    #[tokio::test]
    async fn many_who_need_a_token_ask_for_it_once() {
        let endpoint = ScriptedEndpoint::new([gives("one", 3600)]);
        let grant = granted(&endpoint, app_grant());
        let tokens = futures::future::join_all((0..16).map(|_| token(&grant, None))).await;
        assert!(tokens.into_iter().all(|token| token.unwrap() == "one"));
        assert_eq!(endpoint.asked().len(), 1);
    }

    #[tokio::test]
    async fn one_app_has_one_token_for_all_mailboxes_and_equal_grants_share_it() {
        let endpoint = ScriptedEndpoint::new([gives("one", 3600)]);
        let cache = cache(&endpoint, &MemoryStore::default());
        for user in ["alice", "bob"] {
            let grant = cache.granted(Arc::new(app_grant()), user);
            assert_eq!(token(&grant, None).await.unwrap(), "one");
        }
    }

    #[tokio::test]
    async fn a_token_is_renewed_at_half_its_life_and_does_until_its_end_where_none_comes() {
        let down = || Ok(reply(503, "down"));
        let endpoint = ScriptedEndpoint::new([gives("one", 3600), down(), gives("two", 3600)]);
        let grant = granted(&endpoint, app_grant());
        for (after, expected, asked) in [(0, "one", 1), (1799, "one", 1), (2, "one", 2), (0, "one", 2), (5, "two", 3)] {
            pass(after);
            assert_eq!(token(&grant, None).await.unwrap(), expected);
            assert_eq!(endpoint.asked().len(), asked);
        }
    }

    #[tokio::test]
    async fn an_endpoint_that_is_unwell_is_left_alone_by_all_its_grants() {
        let endpoint = ScriptedEndpoint::new([
            Ok(EndpointReply { retry_after: Some(Duration::from_mins(1)), ..reply(429, "") }),
            Ok(reply(500, "")),
            Ok(reply(500, "")),
            gives("one", 3600),
        ]);
        let grant = granted(&endpoint, app_grant());
        let error = token(&grant, None).await.unwrap_err();
        assert_eq!((error.class, error.stated_wait), (ErrorClass::Throttled, Some(Duration::from_mins(1))));
        pass(59);
        assert_eq!(token(&grant, None).await.unwrap_err().stated_wait, Some(Duration::from_secs(1)));
        assert_eq!(endpoint.asked().len(), 1);
        pass(1);
        token(&grant, None).await.unwrap_err();
        let wait = token(&grant, None).await.unwrap_err().stated_wait.unwrap();
        assert_eq!((wait, endpoint.asked().len()), (Duration::from_secs(2), 2), "it doubles");
        pass(2);
        token(&grant, None).await.unwrap_err();
        pass(4);
        assert_eq!(token(&grant, None).await.unwrap(), "one");
    }

    #[tokio::test]
    async fn a_refused_token_is_renewed_unless_it_is_too_young_to_be_at_fault() {
        let endpoint = ScriptedEndpoint::new([gives("one", 3600), gives("two", 3600)]);
        let grant = granted(&endpoint, app_grant());
        token(&grant, None).await.unwrap();
        assert_eq!(token(&grant, Some("one")).await.unwrap(), "one");
        pass(31);
        assert_eq!(token(&grant, Some("one")).await.unwrap(), "two");
        // Others that were refused with the former one get what is there.
        assert_eq!(token(&grant, Some("one")).await.unwrap(), "two");
        assert_eq!(endpoint.asked().len(), 2);
    }

    #[tokio::test]
    async fn a_grant_that_was_taken_back_is_told_and_not_asked_for_again_and_again() {
        let revoked = || Ok(reply(400, "{\"error\":\"invalid_grant\"}"));
        let endpoint = ScriptedEndpoint::new([gives("one", 3600), revoked(), revoked()]);
        let grant = granted(&endpoint, refresh_grant());
        token(&grant, None).await.unwrap();
        pass(1801);
        assert_eq!(token(&grant, None).await.unwrap(), "one", "it still is good");
        pass(1795);
        for _ in 0..3 {
            let error = token(&grant, None).await.unwrap_err();
            assert_eq!(error.class, ErrorClass::Authentication);
            assert!(error.advice.unwrap().contains("Sign in again"));
        }
        assert_eq!(endpoint.asked().len(), 3);
    }

    #[tokio::test]
    async fn a_replaced_refresh_token_is_kept_before_its_access_token_is_used() {
        let endpoint = ScriptedEndpoint::new([rotates("one", "seed-2"), rotates("two", "seed-3"), gives("x", 9)]);
        let store = MemoryStore::default();
        let grant = cache(&endpoint, &store).granted(Arc::new(refresh_grant()), "alice");
        assert_eq!(token(&grant, None).await.unwrap(), "one");
        assert_eq!(locked(&store.token).as_deref(), Some("seed-2"));
        store.full.store(true, Ordering::Relaxed);
        pass(3600);
        let error = token(&grant, None).await.unwrap_err();
        assert!(error.what.contains("disk is full"), "{error}");
        assert!(endpoint.asked()[1].contains("refresh_token=seed-2"));
        assert!(store.in_use.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn what_an_endpoint_gave_is_kept_where_nobody_waits_for_it_any_more() {
        let endpoint = ScriptedEndpoint::new([rotates("one", "seed-2")]);
        let store = MemoryStore::default();
        let grant = cache(&endpoint, &store).granted(Arc::new(refresh_grant()), "alice");
        let mut asking = Box::pin(token(&grant, None));
        assert!(futures::poll!(&mut asking).is_pending());
        drop(asking);
        tokio::task::yield_now().await;
        grant.cache.settle().await;
        assert_eq!(locked(&store.token).as_deref(), Some("seed-2"));
        assert_eq!(token(&grant, None).await.unwrap(), "one");
    }

    #[tokio::test]
    async fn a_token_that_may_have_been_used_up_by_a_run_that_ended_is_named_as_the_reason() {
        let endpoint = ScriptedEndpoint::new([Ok(reply(400, "{\"error\":\"invalid_grant\"}"))]);
        let store = MemoryStore::default();
        store.in_use.store(true, Ordering::Relaxed);
        let grant = cache(&endpoint, &store).granted(Arc::new(refresh_grant()), "alice");
        let error = token(&grant, None).await.unwrap_err();
        assert!(error.what.contains("ended before it could keep the refresh token"), "{error}");
        assert!(error.advice.unwrap().contains("Sign in again"));
    }
}
