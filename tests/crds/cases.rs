//! Manifests that are right, and the changes that make them wrong: for the rules as a library evaluates them (beside this
//! file) and as a real API server does (tests/operator).

use mailferry::api::cel_rules::{self, CelRule};
use serde_json::{Value, json};

/// A MailMigration.
pub fn migration() -> Value {
    json!({
        "apiVersion": "mailferry.io/v1alpha1", "kind": "MailMigration", "metadata": {"name": "m"},
        "spec": {
            "source": {"server": {"host": "old.example"}},
            "destination": {
                "serverRef": {"name": "new"},
                "masterUser": {"username": "m", "passwordSecretRef": {"name": "m", "key": "p"}},
            },
            "mailboxes": [{"name": "a", "source": {"passwordSecretRef": {"name": "s", "key": "a"}}}],
            "folders": {}, "messages": {}, "timeouts": {}, "retry": {}, "finishedPodsTTL": "5h",
            "syncRequest": "again", "syncRequestFor": {"phases": ["Failed"]},
        },
    })
}

/// The object with one field set, or taken away where the value is null.
pub fn with(object: &Value, pointer: &str, value: Value) -> Value {
    let mut object = object.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap();
    if value.is_null() {
        parent.as_object_mut().unwrap().remove(name);
    } else {
        parent[name] = value;
    }
    object
}

/// A field of [`migration`], a value that may not stand there, and the one rule that it breaks.
#[allow(clippy::too_many_lines, reason = "a table")]
pub fn refused() -> Vec<(&'static str, Value, CelRule)> {
    let reference = json!({"name": "s", "key": "k"});
    let server = |tls: Value| json!({"host": "h", "tls": tls});
    vec![
        ("/spec/source/server/host", json!("imaps://h"), cel_rules::HOST),
        ("/spec/source/server/host", json!("old.example:993"), cel_rules::HOST),
        ("/spec/source/server/host", json!("[::1]"), cel_rules::HOST),
        (
            "/spec/source/server",
            server(json!({"caBundle": "-----BEGIN CERTIFICATE-----", "caBundleRef": reference})),
            cel_rules::ONE_CA,
        ),
        ("/spec/source/server", server(json!({"mode": "None", "serverName": "n"})), cel_rules::NO_TLS),
        ("/spec/source/server", server(json!({"mode": "None", "insecureSkipVerify": true})), cel_rules::NO_TLS),
        (
            "/spec/source/server",
            server(json!({"insecureSkipVerify": true, "caBundleRef": reference})),
            cel_rules::INSECURE,
        ),
        ("/spec/source/server", server(json!({"caBundle": "/etc/ssl/ca.pem"})), cel_rules::PEM),
        (
            "/spec/source/server",
            json!({"host": "h", "limits": {"windows": [{"from": "06:00", "to": "06:00", "timeZone": "UTC"}]}}),
            cel_rules::WINDOW,
        ),
        ("/spec/source/server", json!({"host": "h", "limits": {"bytesPerSecond": "1Mi"}}), cel_rules::PACE),
        (
            "/spec/source/server",
            json!({"host": "h", "limits": {"bytesPerSecond": "63Ki", "maxConnections": 4}}),
            cel_rules::PACE,
        ),
        ("/spec/source/serverRef", json!({"name": "old"}), cel_rules::ONE_SERVER),
        ("/spec/destination/serverRef", Value::Null, cel_rules::ONE_SERVER),
        ("/spec/mailboxes/0/source/tokenSecretRef", reference.clone(), cel_rules::ONE_CREDENTIAL),
        ("/spec/mailboxes/0/source/grantSecretRef", json!({"name": "g"}), cel_rules::ONE_CREDENTIAL),
        ("/spec/destination/grantSecretRef", json!({"name": "g"}), cel_rules::ONE_LOGIN),
        ("/spec/destination/masterUser/separator", json!("*"), cel_rules::SEPARATOR),
        ("/spec/destination/grantRef", json!({"name": "microsoft"}), cel_rules::ONE_LOGIN),
        ("/spec/mailboxes", json!([]), cel_rules::SOME_MAILBOX),
        (
            "/spec/destination",
            json!({
                "server": {"host": "old.example", "limits": {"maxConnections": 1}},
                "masterUser": {"username": "m", "passwordSecretRef": {"name": "m", "key": "p"}},
            }),
            cel_rules::TWO_CONNECTIONS,
        ),
        ("/spec/mailboxes/0/source", json!({"username": "a"}), cel_rules::SOURCE_CREDENTIAL),
        ("/spec/mailboxes/0/source", Value::Null, cel_rules::SOURCE_CREDENTIAL),
        ("/spec/destination/masterUser", Value::Null, cel_rules::DESTINATION_CREDENTIAL),
        ("/spec/mailboxes/0/name", json!("a b"), cel_rules::MAILBOX_NAME),
        ("/spec/mailboxes/0/name", json!("-a"), cel_rules::MAILBOX_NAME),
        ("/spec/mailboxes/0/name", json!("jürgen"), cel_rules::MAILBOX_NAME),
        ("/spec/folders/include", json!(["a", "/b"]), cel_rules::PATTERNS),
        ("/spec/folders/exclude", json!(["//"]), cel_rules::PATTERNS),
        ("/spec/folders/rename", json!([{"from": "/b", "to": "c"}]), cel_rules::PATTERNS),
        ("/spec/folders/into", json!("/Old"), cel_rules::INTO),
        ("/spec/folders/into", json!("Old/"), cel_rules::INTO),
        (
            "/spec/messages",
            json!({"since": "2025-01-01T00:00:00Z", "before": "2025-01-01T00:00:00Z"}),
            cel_rules::SINCE_BEFORE,
        ),
        ("/spec/messages", json!({"minAgeDays": 5, "maxAgeDays": 5}), cel_rules::AGES),
        ("/spec/messages", json!({"minSize": "1M", "maxSize": "900Ki"}), cel_rules::SIZES),
        ("/spec/messages/acceptNotCopied", json!([{}]), cel_rules::ONE_ACCEPTED),
        (
            "/spec/messages/acceptNotCopied",
            json!([{"reason": "Empty"}, {"reason": "Refused", "folder": "INBOX", "messages": ["1:2"]}]),
            cel_rules::ONE_ACCEPTED,
        ),
        ("/spec/messages/acceptNotCopied", json!([{"folder": "INBOX"}]), cel_rules::ACCEPTED_MESSAGES),
        ("/spec/messages/acceptNotCopied", json!([{"folder": "INBOX", "messages": []}]), cel_rules::ACCEPTED_MESSAGES),
        (
            "/spec/messages/acceptNotCopied",
            json!([{"reason": "Refused", "messages": ["1:2"]}]),
            cel_rules::ACCEPTED_MESSAGES,
        ),
        ("/spec/timeouts/connect", json!("500ms"), cel_rules::CONNECT),
        ("/spec/timeouts/reply", json!("61m"), cel_rules::REPLY),
        ("/spec/timeouts/keepalive", json!("29m"), cel_rules::KEEPALIVE),
        ("/spec/retry/reconnectBackoff", json!("2m"), cel_rules::RECONNECT_BACKOFF),
        ("/spec/retry/initialBackoff", json!("2h"), cel_rules::BACKOFF),
        ("/spec/retry/maxBackoff", json!("25h"), cel_rules::BACKOFF),
        ("/spec/retry/patience", json!("24h1s"), cel_rules::PATIENCE),
        ("/spec/deadline", json!("9s"), cel_rules::DEADLINE),
        ("/spec/deadline", json!("720h1s"), cel_rules::DEADLINE),
        ("/spec/deadline", json!("30d1s"), cel_rules::DEADLINE),
        ("/spec/retry/maxBackoff", json!("1d1m"), cel_rules::BACKOFF),
        ("/spec/stallAfter", json!("0s"), cel_rules::STALL_AFTER),
        ("/spec/offlineGrace", json!("25h"), cel_rules::OFFLINE_GRACE),
        ("/spec/mailboxConfigMaps", json!([{"name": "m", "key": "m.csv"}]), cel_rules::CONFIG_MAP_LOGIN),
        ("/spec/syncRequestFor", json!({}), cel_rules::SOME_REQUESTED),
        ("/spec/syncRequestFor", json!({"mailboxes": [], "phases": []}), cel_rules::SOME_REQUESTED),
        ("/spec/syncRequest", Value::Null, cel_rules::REQUEST_TEXT),
        ("/spec/finishedPodsTTL", json!("8761h"), cel_rules::FINISHED_PODS_TTL),
        ("/spec/ttl", json!("3h"), cel_rules::ONE_TTL),
        ("/spec/schedule", json!({"every": "1s"}), cel_rules::EVERY),
        ("/spec/cutover", json!({"every": "1s"}), cel_rules::CUTOVER_EVERY),
        ("/spec/cutover", json!({"maxEvery": "25h"}), cel_rules::CUTOVER_MAX_EVERY),
        ("/spec/cutover", json!({"drainFor": "721h"}), cel_rules::DRAIN_FOR),
        ("/spec/cutover", json!({"drainFor": "99999d"}), cel_rules::DRAIN_FOR),
    ]
}

/// A field of [`migration`], and another value that may stand there.
pub fn accepted() -> Vec<(&'static str, Value)> {
    vec![
        ("/spec/source/server/host", json!("2001:db8::7")),
        ("/spec/source/server/host", json!("192.0.2.7")),
        ("/spec/source/server", json!({"host": "h", "tls": {"mode": "None"}})),
        ("/spec/source/server", json!({"host": "h", "tls": {"insecureSkipVerify": true}})),
        ("/spec/destination/masterUser/mode", json!("AuthorizationIdentity")),
        ("/spec/destination", json!({"serverRef": {"name": "new"}, "grantRef": {"name": "microsoft"}})),
        ("/spec/mailboxes/0/name", json!("alice+x@acme.example")),
        ("/spec/mailboxes/0/source", json!({"tokenSecretRef": {"name": "s", "key": "k"}})),
        ("/spec/folders", json!({"include": ["/x/", "a/**"], "rename": [{"from": "a", "to": "/b"}], "into": "a/b"})),
        ("/spec/messages", json!({"minSize": "1Mi", "maxSize": "1Mi", "since": "2024-01-01T00:00:00Z"})),
        (
            "/spec/messages/acceptNotCopied",
            json!([{"reason": "TooLarge"}, {"folder": "INBOX", "messages": ["1500000000:7,9:12", "1500000000:40"]}]),
        ),
        ("/spec/retry/patience", json!("0s")),
        ("/spec/retry/patience", json!("24h")),
        ("/spec/deadline", json!("10s")),
        ("/spec/deadline", json!("30d")),
        ("/spec/retry", json!({"initialBackoff": "90m", "maxBackoff": "1d", "patience": "0d12h"})),
        ("/spec/cutover", json!({"drainFor": "0s"})),
        ("/spec/cutover", json!({"every": "3h", "maxEvery": "10s"})),
        ("/spec/schedule", json!({"every": "1h30m"})),
        ("/spec/schedule", json!({"every": "1d12h"})),
        ("/spec/finishedPodsTTL", json!("0s")),
        ("/spec/syncRequestFor", json!({"mailboxes": ["a"], "phases": ["Backoff", "Stalled", "Failed"]})),
        ("/spec/syncRequestFor", Value::Null),
        // What definitions of before wrote into every object.
        ("/spec/ttl", json!("24h")),
    ]
}

/// A MailboxSync in its second attempt.
pub fn sync() -> Value {
    let side =
        json!({"server": {"host": "h"}, "account": {"username": "a", "passwordSecretRef": {"name": "s", "key": "k"}}});
    json!({
        "apiVersion": "mailferry.io/v1alpha1", "kind": "MailboxSync", "metadata": {"name": "m"},
        "spec": {"migration": "m", "mailbox": "a", "source": side, "destination": side},
        "status": {"attempt": 2, "worker": {"attempt": 2, "report": 5, "checkpoint": "x"}},
    })
}
