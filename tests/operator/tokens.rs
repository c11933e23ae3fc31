//! Access tokens: the operator gets them by a grant of its configuration, and pods see nothing else.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use axum::{Router, body::Bytes, http::StatusCode, routing::post};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Api, ResourceExt as _, api::PostParams};
use mailferry::{
    api::{MailboxSync, names},
    controller::config::OperatorConfig,
};
use mailferry_testkit::cluster::wait_for;
use serde_json::{Value, json};

use crate::{
    rig::{Rig, read},
    stage::{Ending, Stage},
};

/// What no pod may ever see.
const CLIENT_SECRET: &str = "hush-hush-client-secret";

/// A token endpoint on this machine.
#[derive(Clone)]
struct TokenEndpoint {
    address: String,
    /// Tokens that it gave.
    given: Arc<AtomicUsize>,
    /// How long they are good, seconds; 0: it refuses the client.
    life: Arc<AtomicU64>,
}

impl TokenEndpoint {
    async fn start(life: u64) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Self {
            address: format!("http://{}/token", listener.local_addr().unwrap()),
            given: Arc::default(),
            life: Arc::new(AtomicU64::new(life)),
        };
        let answering = endpoint.clone();
        let answer = move |form: Bytes| {
            let endpoint = answering.clone();
            async move { endpoint.answer(&String::from_utf8_lossy(&form)) }
        };
        let router = Router::new().route("/token", post(answer));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        endpoint
    }

    fn answer(&self, form: &str) -> (StatusCode, [(&'static str, &'static str); 1], String) {
        let header = [("content-type", "application/json")];
        let life = self.life.load(Ordering::SeqCst);
        if life == 0 || !form.contains(CLIENT_SECRET) {
            return (StatusCode::UNAUTHORIZED, header, json!({"error": "invalid_client"}).to_string());
        }
        let number = self.given.fetch_add(1, Ordering::SeqCst) + 1;
        let given = json!({"access_token": format!("token-{number}"), "token_type": "Bearer", "expires_in": life});
        (StatusCode::OK, header, given.to_string())
    }
}

/// An operator with a grant for users of `acme.example` at `old.example`, and its Secret.
async fn stage_with(endpoint: &TokenEndpoint) -> Stage {
    let rig = Rig::new().await;
    let secret = format!("{}-client", rig.namespace);
    let secrets: Api<Secret> = Api::namespaced(rig.client.clone(), "mailferry-system");
    let object = json!({"metadata": {"name": secret}, "stringData": {"client-secret": CLIENT_SECRET}});
    secrets.create(&PostParams::default(), &read(object)).await.unwrap();
    let grant = json!({
        "name": "acme", "provider": "Other", "tokenEndpoint": endpoint.address, "clientId": "app",
        "secretRef": {"name": secret}, "imapHosts": ["old.example"], "namespaces": [rig.namespace],
        "users": ["@acme.example"],
    });
    let mut stage = Stage::at(rig);
    stage.configure(OperatorConfig { grants: vec![read(grant)], ..OperatorConfig::default() });
    stage.start().await;
    stage
}

/// A migration of one mailbox, whose source logs in by the grant.
async fn migration_of(stage: &Stage, user: &str, more: Value) -> String {
    let own = json!({"username": user, "passwordSecretRef": {"name": "mail", "key": "key"}});
    let mut source = json!({"server": {"host": "old.example"}, "grantRef": {"name": "acme"}});
    source.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mailbox = json!({"name": "alice", "source": {"username": user}, "destination": own});
    stage.migration("m", &[], json!({"source": source, "mailboxes": [mailbox]})).await;
    Stage::sync("m", "alice")
}

/// The token that a mailbox's Secret holds.
fn token(secret: &Secret) -> String {
    let data = secret.data.as_ref().unwrap();
    assert_eq!(data.keys().collect::<Vec<_>>(), ["source"]);
    String::from_utf8(data["source"].0.clone()).unwrap()
}

#[tokio::test]
async fn a_pod_gets_the_access_token_of_its_mailbox_and_nothing_that_gives_others() {
    let endpoint = TokenEndpoint::start(3600).await;
    let stage = stage_with(&endpoint).await;
    let alice = migration_of(&stage, "alice@acme.example", json!({})).await;
    let pod = stage.running(&alice, 1).await;
    let secret: Secret = stage.until(&names::token_secret(&alice), |_| true).await;
    assert_eq!((token(&secret).as_str(), secret.type_.as_deref()), ("token-1", Some("mailferry.io/access-token")));
    let sync: MailboxSync = stage.until(&alice, |_| true).await;
    let owner = &secret.owner_references()[0];
    assert_eq!((owner.controller, Some(&owner.uid)), (Some(true), sync.metadata.uid.as_ref()));

    let spec = serde_json::to_value(&pod).unwrap()["spec"].clone();
    let mounted = |volume: &Value| (volume["secret"]["secretName"].clone(), volume["secret"]["items"].clone());
    let mounted: Vec<_> =
        spec["volumes"].as_array().unwrap().iter().filter(|v| v.get("secret").is_some()).map(mounted).collect();
    let item = |key: &str| json!([{"key": key, "path": key}]);
    assert_eq!(mounted, [(json!(names::token_secret(&alice)), item("source")), (json!("mail"), item("key"))]);
    let text = spec.to_string();
    assert!(!text.contains(CLIENT_SECRET) && !text.contains("-client") && !text.contains("token-1"), "{text}");
    let status = serde_json::to_string(&sync.status).unwrap();
    assert!(!status.contains(CLIENT_SECRET) && !status.contains("token-1"), "{status}");

    stage.ends(&alice, 1, Ending::Synced).await;
    stage.until_gone::<Secret>(&names::token_secret(&alice)).await;
    stage.until_condition("m", "Complete", "True").await;
}

#[tokio::test]
async fn a_token_is_renewed_while_its_pod_runs_whatever_becomes_of_the_operator() {
    let endpoint = TokenEndpoint::start(24).await;
    let mut stage = stage_with(&endpoint).await;
    let alice = migration_of(&stage, "alice@acme.example", json!({})).await;
    stage.running(&alice, 1).await;
    let renewed = async |stage: &Stage, before: usize| {
        let is = move |secret: &Secret| token(secret).trim_start_matches("token-").parse::<usize>().unwrap() > before;
        stage.until::<Secret>(&names::token_secret(&alice), is).await;
    };
    renewed(&stage, 1).await;
    let before = endpoint.given.load(Ordering::SeqCst);
    stage.kill().await;
    stage.start().await;
    renewed(&stage, before).await;
    stage.ends(&alice, 1, Ending::Synced).await;
    stage.until_gone::<Secret>(&names::token_secret(&alice)).await;
}

#[tokio::test]
async fn no_token_is_got_for_another_user_or_host_or_for_a_host_whose_certificate_a_tenant_vouches_for() {
    let endpoint = TokenEndpoint::start(3600).await;
    for (user, more, words) in [
        ("alice@other.example", json!({}), "the grant acme is not for alice@other.example"),
        (
            "alice@acme.example",
            json!({"server": {"host": "evil.example"}}),
            "no token of the grant acme is sent to evil.example",
        ),
        (
            "alice@acme.example",
            json!({"server": {"host": "old.example", "tls": {"insecureSkipVerify": true}}}),
            "only where the certificate is checked",
        ),
        ("alice@acme.example", json!({"grantRef": {"name": "theirs"}}), "there is no grant theirs for namespace"),
    ] {
        let stage = stage_with(&endpoint).await;
        let alice = migration_of(&stage, user, more).await;
        let refused = |sync: &MailboxSync| {
            let conditions = sync.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
            ready.is_some_and(|ready| ready.reason == "GrantNotAllowed" && ready.message.contains(words))
        };
        stage.until::<MailboxSync>(&alice, refused).await;
        assert!(stage.pods().await.is_empty(), "{words}");
        assert!(stage.api::<Secret>().get_opt(&names::token_secret(&alice)).await.unwrap().is_none(), "{words}");
    }
    assert_eq!(endpoint.given.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_refused_grant_makes_no_pod_and_is_told_without_what_it_is_made_of() {
    let endpoint = TokenEndpoint::start(0).await;
    let stage = stage_with(&endpoint).await;
    let alice = migration_of(&stage, "alice@acme.example", json!({})).await;
    let status = stage.until_phase(&alice, "Stalled").await;
    let error = status.last_error.as_ref().unwrap();
    assert_eq!(format!("{:?} {:?}", error.class, error.side), "Authentication Some(Source)", "{error:?}");
    assert!(status.login_refused && status.secret_versions.iter().any(|version| version.starts_with("grant:acme=")));
    assert!(stage.pods().await.is_empty() && !format!("{status:?}").contains(CLIENT_SECRET));
    // Corrected at the provider, which nobody sees here.
    endpoint.life.store(3600, Ordering::SeqCst);
    stage.change("m", json!({"syncRequest": "again"})).await;
    stage.running(&alice, 1).await;
    let name = names::token_secret(&alice);
    wait_for(&stage.api::<Secret>(), &name, |secret: Option<&Secret>| secret.is_some()).await;
    stage.ends(&alice, 1, Ending::Synced).await;
    stage.until_condition("m", "Complete", "True").await;
}

#[tokio::test]
async fn a_token_that_a_server_refused_is_replaced_while_its_pod_waits() {
    let endpoint = TokenEndpoint::start(60).await;
    let stage = stage_with(&endpoint).await;
    let alice = migration_of(&stage, "alice@acme.example", json!({})).await;
    let pod = stage.running(&alice, 1).await;
    let name = names::token_secret(&alice);
    stage.until::<Secret>(&name, |secret| token(secret) == "token-1").await;
    let refused = json!({"phase": "Connecting", "refusedSourceToken": names::token_hash("token-1")});
    stage.report(&alice, 1, 2, refused).await;
    stage.until::<Secret>(&name, |secret| token(secret) == "token-2").await;
    // What makes its node look at once.
    stage.until::<Pod>(&pod.name_any(), |pod| pod.annotations().contains_key("mailferry.io/token-written-at")).await;
    stage.ends(&alice, 1, Ending::Synced).await;
    stage.until_gone::<Secret>(&name).await;
}

#[tokio::test]
async fn what_tokens_are_got_with_is_mounted_into_no_pod_and_no_other_secret_is_taken_for_it() {
    let stage = Stage::new().await;
    let client = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "client"}, "type": "mailferry.io/oauth-client",
        "stringData": {"provider": "google", "client-id": "app", "client-secret": CLIENT_SECRET},
    });
    stage.rig.apply(&client.to_string()).await;
    stage.secret("plain", &[("client-secret", CLIENT_SECRET)]).await;
    let own = json!({"username": "alice", "passwordSecretRef": {"name": "mail", "key": "key"}});
    for (name, source, words) in [
        (
            "mounts",
            json!({"passwordSecretRef": {"name": "client", "key": "client-secret"}}),
            "the Secret client is of type mailferry.io/oauth-client, which is mounted into no pod",
        ),
        ("takes", json!({"grantSecretRef": {"name": "plain"}}), "the Secret plain is of type Opaque, and so no grant"),
    ] {
        let server = json!({"server": {"host": "imap.gmail.com"}});
        let mailboxes = json!([{"name": "alice", "source": source, "destination": own}]);
        stage.migration(name, &[], json!({"source": server, "mailboxes": mailboxes})).await;
        let alice = Stage::sync(name, "alice");
        let told = |sync: &MailboxSync| {
            let error = sync.status.as_ref().and_then(|status| status.last_error.as_ref());
            error.is_some_and(|error| error.message.contains(words))
        };
        stage.until::<MailboxSync>(&alice, told).await;
        stage.until_phase(&alice, "Stalled").await;
    }
    assert!(stage.pods().await.is_empty());
}
