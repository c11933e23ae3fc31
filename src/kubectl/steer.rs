//! What is asked of the operator, as changes to a MailMigration. Pure.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    api::{MailMigration, mailbox_sync::SyncPhase},
    error::{Error, Result},
};

/// Which mailboxes sync once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RetryOf {
    /// Those that fail.
    Failing,
    /// These, whatever they do.
    Named(Vec<String>),
    /// All.
    All,
}

/// What follows from being asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// The migration is changed in this way (a merge patch), which is told by these words.
    Patch(Value, String),
    /// Nothing is to be done, and why.
    Nothing(String),
}

/// Another `syncRequest`.
///
/// # Errors
/// Configuration while the operator has not passed on the one before: writing over it would take it back.
pub(crate) fn retry(migration: &MailMigration, of: &RetryOf, now: Timestamp) -> Result<Step> {
    let status = migration.status.as_ref();
    let passed_on = status.and_then(|status| status.sync_request.as_deref());
    if let Some(text) = migration.spec.sync_request.as_deref()
        && passed_on != Some(text)
    {
        return Err(Error::configuration(format!("the operator has not passed on the syncRequest {text:?} yet"))
            .advice(
                "Ask again once it has; if it doesn't, `kubectl mailferry status` says what the migration waits for",
            ));
    }
    let failing = status.and_then(|status| status.mailboxes).map(|counts| counts.failing);
    let (chosen, words) = match of {
        RetryOf::Failing if failing == Some(0) => {
            return Ok(Step::Nothing("no mailbox fails; --all asks every mailbox for another sync".to_owned()));
        }
        RetryOf::Failing => {
            let phases = [SyncPhase::Backoff, SyncPhase::Stalled, SyncPhase::Failed];
            (
                json!({"phases": phases, "mailboxes": null}),
                "every mailbox that fails is asked for another sync".to_owned(),
            )
        }
        RetryOf::Named(names) => {
            (json!({"phases": null, "mailboxes": names}), format!("{} asked for another sync", names.join(", ")))
        }
        RetryOf::All => (Value::Null, "every mailbox is asked for another sync".to_owned()),
    };
    // Each text is new: it is more exact than two people are quick.
    let spec = json!({"syncRequest": format!("retry {now}"), "syncRequestFor": chosen});
    Ok(Step::Patch(patch(migration, &spec), words))
}

/// `spec.suspend`.
#[must_use]
pub(crate) fn suspend(migration: &MailMigration, suspend: bool) -> Step {
    match (migration.spec.suspend, suspend) {
        (true, true) => Step::Nothing("suspended already".to_owned()),
        (false, false) => Step::Nothing("not suspended".to_owned()),
        (_, true) => Step::Patch(patch(migration, &json!({"suspend": true})), "suspended".to_owned()),
        (_, false) => Step::Patch(patch(migration, &json!({"suspend": false})), "resumed".to_owned()),
    }
}

/// A merge patch that is refused where the migration was changed meanwhile.
fn patch(migration: &MailMigration, spec: &Value) -> Value {
    json!({"metadata": {"resourceVersion": migration.metadata.resource_version}, "spec": spec})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(spec: &Value, status: &Value) -> MailMigration {
        let mut whole = json!({"source": {}, "destination": {}});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let metadata = json!({"name": "acme", "namespace": "customers", "resourceVersion": "7"});
        let object = json!({
            "apiVersion": "mailferry.io/v1alpha1", "kind": "MailMigration",
            "metadata": metadata, "spec": whole, "status": status,
        });
        serde_json::from_value(object).unwrap()
    }

    fn asked(of: &RetryOf) -> Value {
        let migration = migration(
            &json!({"syncRequest": "one", "syncRequestFor": {"mailboxes": ["x"]}}),
            &json!({"syncRequest": "one"}),
        );
        match retry(&migration, of, Timestamp::UNIX_EPOCH).unwrap() {
            Step::Patch(patch, _) => patch,
            Step::Nothing(why) => panic!("{why}"),
        }
    }

    #[test]
    fn a_retry_is_a_new_text_for_those_that_are_meant_and_nobody_else() {
        let text = "retry 1970-01-01T00:00:00Z";
        let patch = |chosen: Value| json!({"metadata": {"resourceVersion": "7"}, "spec": {"syncRequest": text, "syncRequestFor": chosen}});
        let failing = json!({"phases": ["Backoff", "Stalled", "Failed"], "mailboxes": null});
        assert_eq!(asked(&RetryOf::Failing), patch(failing));
        let named = RetryOf::Named(vec!["bob".to_owned()]);
        assert_eq!(asked(&named), patch(json!({"phases": null, "mailboxes": ["bob"]})));
        assert_eq!(asked(&RetryOf::All), patch(Value::Null));
    }

    #[test]
    fn a_request_that_is_not_passed_on_yet_is_not_written_over() {
        let migration = migration(&json!({"syncRequest": "two"}), &json!({"syncRequest": "one"}));
        let error = retry(&migration, &RetryOf::All, Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(error.what.contains("\"two\""), "{error}");
    }

    #[test]
    fn where_nothing_fails_nobody_is_asked() {
        let migration = migration(&json!({}), &json!({"mailboxes": {"total": 3, "failing": 0}}));
        let step = retry(&migration, &RetryOf::Failing, Timestamp::UNIX_EPOCH).unwrap();
        assert!(matches!(step, Step::Nothing(_)), "{step:?}");
        let step = retry(&migration, &RetryOf::All, Timestamp::UNIX_EPOCH).unwrap();
        assert!(matches!(step, Step::Patch(..)), "{step:?}");
    }

    #[test]
    fn what_is_suspended_is_not_suspended_again() {
        let (on, off) =
            (migration(&json!({"suspend": true}), &Value::Null), migration(&json!({"suspend": false}), &Value::Null));
        assert!(matches!(suspend(&on, true), Step::Nothing(_)) && matches!(suspend(&off, false), Step::Nothing(_)));
        let Step::Patch(patch, words) = suspend(&on, false) else { panic!("it is suspended") };
        assert_eq!((patch["spec"].clone(), words.as_str()), (json!({"suspend": false}), "resumed"));
    }
}
