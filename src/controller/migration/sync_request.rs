//! Whom a migration's `syncRequest` asks for one more sync, and that it asks nobody twice. Pure.
//!
//! A MailboxSync is asked by another text in its `spec.syncRequest`. So only those that are chosen are written to, and what
//! chose them need not be remembered: phases change as soon as the first of them runs.

use crate::api::{MailMigration, MailboxSync, mail_migration::SyncRequestFor};

/// How a migration's request is passed on to its mailboxes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SyncRequestRoute<'a> {
    text: Option<&'a str>,
    /// None: all are asked.
    chosen: Option<&'a SyncRequestFor>,
    /// All that it asks have the text.
    passed_on: bool,
}

impl<'a> SyncRequestRoute<'a> {
    /// That of a migration; `passed_on`: all that its request asks are known to have it, though the status may not say so yet.
    #[must_use]
    pub(crate) fn new(migration: &'a MailMigration, passed_on: bool) -> Self {
        let text = migration.spec.sync_request.as_deref();
        let told = migration.status.as_ref().and_then(|status| status.sync_request.as_deref());
        let chosen = migration.spec.sync_request_for.as_ref();
        Self { text, chosen, passed_on: passed_on || told == text }
    }

    /// The text that the MailboxSync of this mailbox has from now on; `sync` is the one that is there.
    #[must_use]
    pub(crate) fn text_for(&self, mailbox: &str, sync: Option<&MailboxSync>) -> Option<String> {
        let text = self.text?;
        let before = sync.and_then(|sync| sync.spec.sync_request.clone());
        let asks = match (self.chosen, sync) {
            (None, None) => true,
            (None, Some(_)) => !self.passed_on,
            (Some(chosen), _) => !self.passed_on && is_chosen(chosen, mailbox, sync),
        };
        if asks { Some(text.to_owned()) } else { before }
    }

    /// The names in `syncRequestFor` that no mailbox of the migration has, where its text is being passed on.
    pub(crate) fn unknown_names(&self, is_known: impl Fn(&str) -> bool) -> Vec<&'a str> {
        let names = self.chosen.filter(|_| !self.passed_on).map_or(&[][..], |chosen| &chosen.mailboxes);
        names.iter().map(String::as_str).filter(|name| !is_known(name)).collect()
    }
}

fn is_chosen(chosen: &SyncRequestFor, mailbox: &str, sync: Option<&MailboxSync>) -> bool {
    let phase = sync.and_then(|sync| sync.status.as_ref()).and_then(|status| status.phase);
    chosen.mailboxes.iter().any(|name| name == mailbox) || phase.is_some_and(|phase| chosen.phases.contains(&phase))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api::{MailboxSyncStatus, mailbox_sync::SyncPhase},
        controller::testing,
    };

    fn migration(spec: &Value, told: Option<&str>) -> MailMigration {
        let mut whole = json!({"source": {}, "destination": {}});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let migration = json!({"metadata": {"name": "m"}, "spec": whole, "status": {"syncRequest": told}});
        serde_json::from_value(migration).unwrap()
    }

    fn sync(mailbox: &str, phase: SyncPhase, text: Option<&str>) -> MailboxSync {
        let mut sync = MailboxSync::new(mailbox, testing::mailbox_spec("m", mailbox));
        sync.spec.sync_request = text.map(str::to_owned);
        sync.status = Some(MailboxSyncStatus { phase: Some(phase), ..MailboxSyncStatus::default() });
        sync
    }

    /// What four mailboxes have from now on: one that is synced, one that failed, one that was asked by an earlier text, and
    /// one that is to be made. Nothing: none.
    fn texts(spec: &Value, told: Option<&str>) -> [String; 4] {
        let migration = migration(spec, told);
        let route = SyncRequestRoute::new(&migration, false);
        let [synced, failed, asked] = [
            sync("synced", SyncPhase::Synced, None),
            sync("failed", SyncPhase::Failed, None),
            sync("asked", SyncPhase::Stalled, Some("one")),
        ];
        [("synced", Some(&synced)), ("failed", Some(&failed)), ("asked", Some(&asked)), ("new", None)]
            .map(|(mailbox, sync)| route.text_for(mailbox, sync).unwrap_or_default())
    }

    #[test]
    fn a_new_text_asks_all_where_nobody_is_chosen() {
        assert_eq!(texts(&json!({"syncRequest": "two"}), Some("one")), ["two"; 4]);
    }

    #[test]
    fn a_new_text_asks_those_that_are_chosen_and_the_others_keep_theirs() {
        let failed = json!({"syncRequest": "two", "syncRequestFor": {"phases": ["Failed"]}});
        assert_eq!(texts(&failed, Some("one")), ["", "two", "one", ""]);
        let both =
            json!({"syncRequest": "two", "syncRequestFor": {"phases": ["Stalled"], "mailboxes": ["synced", "new"]}});
        assert_eq!(texts(&both, None), ["two", "", "two", "two"]);
    }

    #[test]
    fn a_text_that_was_passed_on_asks_nobody_whoever_is_chosen_later() {
        let chosen = json!({"syncRequest": "two", "syncRequestFor": {"phases": ["Failed", "Stalled"]}});
        assert_eq!(texts(&chosen, Some("two")), ["", "", "one", ""]);
        // A mailbox that is new has its first sync at once: the text counts as acted on by it.
        assert_eq!(texts(&json!({"syncRequest": "two"}), Some("two")), ["", "", "one", "two"]);
    }

    #[test]
    fn without_a_text_none_stays() {
        assert_eq!(texts(&json!({}), Some("one")), ["", "", "", ""]);
    }

    #[test]
    fn a_name_that_no_mailbox_has_is_found_while_the_text_is_passed_on() {
        let spec = json!({"syncRequest": "two", "syncRequestFor": {"mailboxes": ["alice", "bop"]}});
        let unknown = |told| {
            let migration = migration(&spec, told);
            let names = SyncRequestRoute::new(&migration, false).unknown_names(|name| name == "alice");
            names.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!((unknown(None), unknown(Some("two"))), (vec!["bop".to_owned()], Vec::new()));
    }
}
