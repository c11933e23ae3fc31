//! Which mailboxes need tokens now, what was written for them, and what is due.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Notify;

use super::{
    decide::{RenewalStep, TokenFacts, TokenFailures, WrittenTokens, is_ready, next_step},
    provider::ProviderTokens,
    secret::TokenReader,
};
use crate::{
    api::{MailboxSyncSpec, mailbox_sync::GrantedBy, names},
    clock::since_boot,
    controller::{cache::NamespacedName, grants::granted_sides, mailbox::observe::TokensSeen},
    error::{Error, Result, Side},
};

/// After so long it counts as ended, whatever became of its task.
const GIVEN_UP: Duration = Duration::from_mins(3);
/// The longest sleep while nothing is due.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

/// The tokens of all mailboxes that need some now, in memory: what is lost with the process is got again.
pub(crate) struct TokenKeeper {
    /// Gives them.
    pub(super) provider: ProviderTokens,
    kept: Mutex<HashMap<String, KeptTokens>>,
    /// Tells of mailboxes that want some.
    pub(super) changed: Notify,
}

/// The tokens of one mailbox.
struct KeptTokens {
    mailbox: NamespacedName,
    logins: Vec<GrantedLogin>,
    facts: TokenFacts,
    /// What was written last.
    values: BTreeMap<Side, SecretString>,
    /// Those of them that a server refused.
    refused: BTreeSet<Side>,
    /// The pod that told so.
    reader: Option<TokenReader>,
    /// The last failure, until tokens are written.
    error: Option<Error>,
    /// Until when a task is at work on it.
    busy_until: Option<Duration>,
}

/// One login by a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GrantedLogin {
    /// The side.
    pub side: Side,
    /// By what it logs in.
    pub by: GrantedBy,
    /// The user whose mailbox it is.
    pub subject: String,
    /// The mail server's host.
    pub host: String,
    /// The same with its port, as errors name it.
    pub address: String,
}

/// Tokens that have to be got now.
pub(super) struct DueTokens {
    /// The MailboxSync's UID.
    pub uid: String,
    /// The MailboxSync.
    pub mailbox: NamespacedName,
    /// Those that need one.
    pub logins: Vec<GrantedLogin>,
    /// Those that a server refused.
    pub refused: BTreeMap<Side, SecretString>,
    /// The pod that waits for others.
    pub reader: Option<TokenReader>,
}

/// Tokens that were written.
pub(super) struct WrittenValues {
    /// The tokens.
    pub values: BTreeMap<Side, SecretString>,
    /// When the first of them ends, since boot.
    pub expires: Duration,
}

fn granted_logins(spec: &MailboxSyncSpec) -> Vec<GrantedLogin> {
    granted_sides(spec)
        .map(|(side, endpoint, by)| GrantedLogin {
            side,
            by,
            host: endpoint.server.host.clone(),
            subject: endpoint.account.username.clone().unwrap_or_default(),
            address: format!("{}:{}", endpoint.server.host, endpoint.server.effective_port()),
        })
        .collect()
}

impl TokenKeeper {
    /// Keeps no tokens yet.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self { provider: ProviderTokens::default(), kept: Mutex::default(), changed: Notify::new() }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<String, KeptTokens>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a mailbox's tokens; `has_pod`: a pod has those of the mailbox as it was when the attempt began.
    #[must_use]
    pub(crate) fn look_up(&self, uid: &str, spec: &MailboxSyncSpec, has_pod: bool) -> TokensSeen {
        let logins = granted_logins(spec);
        if logins.is_empty() {
            return TokensSeen::NotNeeded;
        }
        let kept = self.kept();
        let Some(tokens) = kept.get(uid).filter(|tokens| has_pod || tokens.logins == logins) else {
            return TokensSeen::Absent;
        };
        match &tokens.error {
            _ if is_ready(&tokens.facts, since_boot()) => TokensSeen::Ready,
            Some(error) => TokensSeen::Failed(error.clone()),
            // A pod that runs reads them again by itself.
            None if has_pod => TokensSeen::Ready,
            None => TokensSeen::Absent,
        }
    }

    /// Has the tokens of a mailbox got, and renewed until they are let go of.
    pub(crate) fn keep(&self, uid: &str, mailbox: &NamespacedName, spec: &MailboxSyncSpec) {
        let logins = granted_logins(spec);
        let mut kept = self.kept();
        if kept.get(uid).is_none_or(|tokens| tokens.logins != logins) {
            let tokens = KeptTokens {
                mailbox: mailbox.clone(),
                logins,
                facts: TokenFacts::default(),
                values: BTreeMap::new(),
                refused: BTreeSet::new(),
                reader: None,
                error: None,
                busy_until: None,
            };
            kept.insert(uid.to_owned(), tokens);
            self.changed.notify_one();
        }
    }

    /// A server refused the token with this hash, as the pod says that waits for another one: the one that is there is
    /// renewed, unless it is another one by now.
    pub(crate) fn note_refusal(&self, uid: &str, side: Side, hash: &str, reader: &TokenReader) {
        let mut kept = self.kept();
        let Some(tokens) = kept.get_mut(uid) else { return };
        let is_it = tokens.values.get(&side).is_some_and(|token| names::token_hash(token.expose_secret()) == hash);
        if is_it && tokens.refused.insert(side) {
            tokens.facts.refused = true;
            tokens.reader = Some(reader.clone());
            self.changed.notify_one();
        }
    }

    /// Renews a mailbox's tokens no more.
    pub(crate) fn let_go(&self, uid: &str) {
        self.kept().remove(uid);
    }

    /// True while they are kept.
    #[must_use]
    pub(crate) fn is_kept(&self, uid: &str) -> bool {
        self.kept().contains_key(uid)
    }

    /// Takes up to `most` mailboxes whose tokens are due, and says how long there is nothing to do after them.
    pub(super) fn take_due(&self, now: Duration, most: usize) -> (Vec<DueTokens>, Duration) {
        let (mut due, mut wait) = (Vec::new(), LONGEST_SLEEP);
        for (uid, tokens) in self.kept().iter_mut() {
            if tokens.busy_until.is_some_and(|until| until > now) {
                continue;
            }
            match next_step(&tokens.facts, now) {
                RenewalStep::WaitUntil(until) => wait = wait.min(until.saturating_sub(now)),
                // The end of one that is at work wakes the loop.
                RenewalStep::Renew if due.len() >= most => {}
                RenewalStep::Renew => {
                    tokens.busy_until = Some(now + GIVEN_UP);
                    due.push(DueTokens {
                        uid: uid.clone(),
                        mailbox: tokens.mailbox.clone(),
                        logins: tokens.logins.clone(),
                        refused: tokens
                            .refused
                            .iter()
                            .filter_map(|side| Some((*side, tokens.values.get(side)?.clone())))
                            .collect(),
                        reader: tokens.reader.clone(),
                    });
                }
            }
        }
        (due, wait)
    }

    /// True while the tokens that were due still are wanted.
    pub(super) fn is_wanted(&self, due: &DueTokens) -> bool {
        self.kept().get(&due.uid).is_some_and(|tokens| tokens.logins == due.logins)
    }

    /// Remembers how it went: until when the tokens that were written are good.
    pub(super) fn finish(&self, due: &DueTokens, result: Result<WrittenValues>, now: Duration) {
        let mut kept = self.kept();
        let Some(tokens) = kept.get_mut(&due.uid).filter(|tokens| tokens.logins == due.logins) else { return };
        tokens.busy_until = None;
        match result {
            Ok(written) => {
                let expires = written.expires;
                tokens.facts =
                    TokenFacts { written: Some(WrittenTokens { at: now, expires }), ..TokenFacts::default() };
                tokens.values = written.values;
                tokens.refused.clear();
                tokens.error = None;
            }
            Err(error) => {
                let in_a_row = tokens.facts.failed.map_or(0, |failed| failed.in_a_row).saturating_add(1);
                tokens.facts.failed = Some(TokenFailures { at: now, in_a_row });
                tokens.error = Some(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::common::LocalRef, controller::testing};

    const S: Duration = Duration::from_secs(1);

    fn by_grant(user: &str) -> MailboxSyncSpec {
        let mut spec = testing::mailbox_spec("m", "alice");
        spec.source.grant_ref = Some(LocalRef { name: "acme".into() });
        spec.source.account.username = Some(user.into());
        spec
    }

    fn written(token: &str, expires: Duration) -> WrittenValues {
        WrittenValues { values: BTreeMap::from([(Side::Source, token.into())]), expires }
    }

    fn kept(user: &str) -> TokenKeeper {
        let keeper = TokenKeeper::new();
        keeper.keep("uid", &NamespacedName::new("ns", "m-alice"), &by_grant(user));
        keeper
    }

    #[test]
    fn tokens_are_got_by_one_task_at_a_time_and_again_at_half_their_life() {
        let keeper = kept("alice");
        let now = since_boot();
        let (due, _) = keeper.take_due(now, 5);
        assert_eq!((due.len(), due[0].logins[0].subject.as_str()), (1, "alice"));
        keeper.keep("uid", &NamespacedName::new("ns", "m-alice"), &by_grant("alice"));
        assert!(keeper.take_due(now, 5).0.is_empty(), "a task is at work on it");
        assert_eq!(keeper.look_up("uid", &by_grant("alice"), false), TokensSeen::Absent);
        keeper.finish(&due[0], Ok(written("one", now + 100 * S)), now);
        assert_eq!(keeper.look_up("uid", &by_grant("alice"), false), TokensSeen::Ready);
        let (none, wait) = keeper.take_due(now + 20 * S, 5);
        assert_eq!((none.len(), wait), (0, 30 * S));
        assert_eq!(keeper.take_due(now + 50 * S, 5).0.len(), 1);
    }

    #[test]
    fn what_fails_is_told_and_tried_again_later() {
        let keeper = kept("alice");
        let now = since_boot();
        let (due, _) = keeper.take_due(now, 5);
        let error = Error::network("the endpoint is away");
        keeper.finish(&due[0], Err(error.clone()), now);
        assert_eq!(keeper.look_up("uid", &by_grant("alice"), false), TokensSeen::Failed(error));
        assert!(keeper.take_due(now + 4 * S, 5).0.is_empty());
        assert_eq!(keeper.take_due(now + 5 * S, 5).0.len(), 1);
    }

    #[test]
    fn tokens_of_another_user_are_not_those_of_a_mailbox() {
        let keeper = kept("alice");
        let now = since_boot();
        let (due, _) = keeper.take_due(now, 5);
        keeper.keep("uid", &NamespacedName::new("ns", "m-alice"), &by_grant("bob"));
        assert!(!keeper.is_wanted(&due[0]), "and they are not written");
        keeper.finish(&due[0], Ok(written("alice's", now + 100 * S)), now);
        assert_eq!(keeper.look_up("uid", &by_grant("bob"), false), TokensSeen::Absent);
        assert_eq!(keeper.take_due(now, 5).0[0].logins[0].subject, "bob");
    }

    #[test]
    fn a_mailbox_that_is_let_go_of_gets_none() {
        let keeper = kept("alice");
        let (due, _) = keeper.take_due(since_boot(), 5);
        keeper.let_go("uid");
        assert!(!keeper.is_wanted(&due[0]) && !keeper.is_kept("uid"));
        assert_eq!(keeper.look_up("uid", &testing::mailbox_spec("m", "bob"), false), TokensSeen::NotNeeded);
    }
}
