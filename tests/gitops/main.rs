//! Those who deploy by `GitOps` see what is going on: kstatus and Argo CD judge objects in every state that the operator
//! writes, and the examples are right.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests too

mod examples;
mod judges;
mod statuses;

use std::collections::BTreeSet;

use kube::{
    Api,
    api::{ApiResource, DynamicObject},
    core::GroupVersionKind,
};
use mailferry::api::{MailMigrationStatus, crd, not_copied::NotCopied};
use mailferry_testkit::cluster::{ControlPlane, apply};
use serde_json::{Value, json};

use judges::{argo_cd, kstatus};
use statuses::{Mailbox, Migration, fresh, mailboxes, migrations, refused, servers};

/// What both say of an object.
fn verdicts(object: &Value) -> [String; 2] {
    [kstatus(object).status, argo_cd(object).status]
}

const GOOD: [&str; 2] = ["Current", "Healthy"];
const WAITING: [&str; 2] = ["InProgress", "Progressing"];
const WRONG: [&str; 2] = ["Failed", "Degraded"];
const SUSPENDED: [&str; 2] = ["Current", "Suspended"];

fn phase(object: &Value) -> String {
    object["status"]["phase"].as_str().unwrap().to_owned()
}

#[test]
fn an_object_that_the_operator_has_not_seen_is_in_progress() {
    for kind in ["MailMigration", "MailboxSync", "MailServer"] {
        let mut object = fresh(kind);
        assert_eq!(verdicts(&object), WAITING, "{kind}");
        // Where the definition is an older one, Argo CD knows it too.
        object.as_object_mut().unwrap().remove("status");
        assert_eq!(argo_cd(&object).status, "Progressing", "{kind}");
    }
}

#[tokio::test]
async fn what_the_api_server_shows_of_a_new_object_is_in_progress() {
    let plane = ControlPlane::start().await;
    let client = plane.client();
    apply(&client, None, &crd::all_yaml().unwrap()).await.unwrap();
    apply(&client, None, "apiVersion: v1\nkind: Namespace\nmetadata: {name: customers}\n").await.unwrap();
    let made = apply(&client, None, &examples::customers()).await.unwrap();
    assert_eq!(made.len(), 3);
    for object in made {
        let kind = object.types.unwrap().kind;
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("mailferry.io", "v1alpha1", &kind));
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), "customers", &resource);
        let seen = serde_json::to_value(api.get(&object.metadata.name.unwrap()).await.unwrap()).unwrap();
        assert_eq!(verdicts(&seen), WAITING, "{seen}");
    }
}

#[test]
fn a_mailbox_is_good_while_it_goes_on_by_itself_and_wrong_when_a_person_is_needed() {
    let mut phases = BTreeSet::new();
    for (state, mailbox) in mailboxes() {
        let object = mailbox.object();
        phases.insert(phase(&object));
        let expected = match state {
            "before its time"
            | "waits for its turn"
            | "waits for a time window"
            | "waits for another migration"
            | "runs"
            | "synced"
            | "synced, all copied"
            | "synced, not all copied"
            | "cancelled" => GOOD,
            "its migration is suspended" | "its migration is being deleted" | "suspended" => SUSPENDED,
            "waits after a failure" | "lost its pod" => WAITING,
            "waits for a person"
            | "no room"
            | "given up"
            | "its master user is not allowed"
            | "its grant is not allowed"
            | "its destination is not allowed" => WRONG,
            other => panic!("{other}"),
        };
        assert_eq!(verdicts(&object), expected, "{state}: {}", object["status"]);
    }
    let all = "Backoff Cancelled Failed Pending Queued Running Stalled Suspended Synced";
    assert_eq!(phases.into_iter().collect::<Vec<_>>().join(" "), all);
}

#[test]
fn a_migration_is_good_once_it_is_accepted_and_running() {
    let mut phases = BTreeSet::new();
    for (state, migration) in migrations() {
        let object = migration.object();
        phases.insert(phase(&object));
        let expected = match state {
            "its MailServer may come"
            | "its CSV may come"
            | "its mailboxes are being made"
            | "more mailboxes are being made" => WAITING,
            "its CSV lists nobody"
            | "before its time"
            | "runs"
            | "runs, and some fail"
            | "waits after a failure"
            | "no room, tried again now and then"
            | "drains"
            | "complete"
            | "complete, all copied"
            | "complete, not all copied" => GOOD,
            "suspended" => SUSPENDED,
            "it is wrong"
            | "its CSVs may not be read"
            | "its destination is not allowed"
            | "its CSV became wrong while it runs"
            | "waits for a person"
            | "failed" => WRONG,
            other => panic!("{other}"),
        };
        assert_eq!(verdicts(&object), expected, "{state}: {}", object["status"]);
    }
    let all = "Complete Draining Failed Pending Running Stalled Suspended";
    assert_eq!(phases.into_iter().collect::<Vec<_>>().join(" "), all);
}

fn condition(object: &Value, type_: &str) -> [String; 3] {
    let list = object["status"]["conditions"].as_array().unwrap();
    let found = list.iter().find(|condition| condition["type"] == type_).unwrap();
    ["status", "reason", "message"].map(|field| found[field].as_str().unwrap().to_owned())
}

#[test]
fn a_migration_that_is_complete_says_whether_all_is_copied_and_is_good_either_way() {
    let copied = || Mailbox::synced_but("alice", NotCopied::default());
    let of = |mailboxes: Vec<Mailbox>| {
        let object = Migration::of(mailboxes).object();
        let [complete, reason, _] = condition(&object, "Complete");
        assert_eq!((complete.as_str(), verdicts(&object)), ("True", GOOD.map(str::to_owned)));
        let [all_copied, _, why] = condition(&object, "AllCopied");
        let told = argo_cd(&object).message;
        assert_eq!(told.contains(&why), all_copied != "True", "{told}");
        assert_eq!(condition(&object, "Ready")[1], "Complete");
        (all_copied, reason, told)
    };
    let (all_copied, reason, told) = of(vec![copied()]);
    assert_eq!([&*all_copied, &*reason, &*told], ["True", "Complete", "1 of 1 mailboxes are synced"]);
    let (all_copied, reason, told) = of(vec![copied(), Mailbox::synced_but("bob", refused(3))]);
    assert_eq!([&*all_copied, &*reason], ["False", "CompleteNotAllCopied"]);
    assert!(told.starts_with("2 of 2 mailboxes are synced; 3 messages are not copied: 3 refused; "), "{told}");
    // One of them has not told.
    let (all_copied, reason, _) = of(vec![copied(), Mailbox::synced("bob")]);
    assert_eq!([&*all_copied, &*reason], ["Unknown", "CompleteNotAllCopied"]);
    let accepted = NotCopied { accepted: [("tooLarge".to_owned(), 2)].into(), ..NotCopied::default() };
    assert_eq!(of(vec![Mailbox::synced_but("bob", accepted)]).0, "True");
}

#[test]
fn a_migration_that_runs_tells_argo_cd_what_is_not_copied_and_not_what_is_not_known() {
    let runs = |mailbox| argo_cd(&Migration::of(vec![Mailbox::running("alice"), mailbox]).object()).message;
    assert_eq!(runs(Mailbox::synced("bob")), "1 of 2 mailboxes are synced");
    let told = runs(Mailbox::synced_but("bob", refused(1)));
    assert!(told.starts_with("1 of 2 mailboxes are synced; 1 message is not copied: 1 refused"), "{told}");
}

#[test]
fn whatever_a_migration_was_before_its_next_state_is_judged_alike() {
    let states = migrations();
    for (was, before) in &states {
        let before = before.after(MailMigrationStatus::default()).status.unwrap();
        for (state, migration) in &states {
            let object = serde_json::to_value(migration.after(before.clone())).unwrap();
            let types: Vec<_> =
                object["status"]["conditions"].as_array().unwrap().iter().map(|c| c["type"].to_string()).collect();
            assert_eq!(types.len(), types.iter().collect::<BTreeSet<_>>().len(), "{was}, {state}: {types:?}");
            let both = ["\"Reconciling\"", "\"Stalled\""].map(|type_| types.iter().any(|t| t == type_));
            assert_ne!(both, [true, true], "{was}, {state}: kstatus would take whichever comes first");
            let alone = migration.object();
            let kinds = |object: &Value| {
                let list = object["status"]["conditions"].as_array().unwrap();
                list.iter().map(|c| format!("{}{}{}", c["type"], c["status"], c["reason"])).collect::<BTreeSet<_>>()
            };
            assert_eq!(kinds(&object), kinds(&alone), "{was}, then {state}");
        }
    }
}

#[test]
fn a_mail_server_is_good_when_it_answers_and_wrong_when_its_spec_is() {
    for (state, object) in servers() {
        let expected = match state {
            "it answers" => GOOD,
            "nobody answers" | "it has no time" | "an older spec was tested" => WAITING,
            "its certificate is wrong" | "it may not be connected to" => WRONG,
            other => panic!("{other}"),
        };
        assert_eq!(verdicts(&object), expected, "{state}: {}", object["status"]);
    }
}

#[test]
fn a_change_that_the_operator_has_not_seen_is_in_progress_whatever_was_before() {
    let objects = migrations().into_iter().map(|(state, migration)| (state, migration.object()));
    let objects = objects.chain(mailboxes().into_iter().map(|(state, mailbox)| (state, mailbox.object())));
    for (state, mut object) in objects.chain(servers()) {
        object["metadata"]["generation"] = json!(99);
        assert_eq!(verdicts(&object), WAITING, "{state}");
    }
}

#[test]
fn an_object_that_is_being_deleted_is_no_longer_current() {
    let mut object = Migration::of(vec![Mailbox::synced("alice")]).object();
    object["metadata"]["deletionTimestamp"] = json!("2026-03-01T00:00:00Z");
    assert_eq!(kstatus(&object).status, "Terminating");
}

#[test]
fn what_went_wrong_is_told_with_the_verdict() {
    let object = Migration::of(vec![Mailbox::failed("alice", mailferry::ErrorClass::Authentication)]).object();
    for verdict in [kstatus(&object), argo_cd(&object)] {
        assert_eq!(verdict.message, "1 mailboxes wait for a person; alice: Authentication: it went wrong");
    }
}
