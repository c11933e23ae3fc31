//! A migration of several mailboxes, by pods, between two mail servers outside of the cluster.

use std::{fs, net::Ipv4Addr, process::Command, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use mailferry::api::{MailMigration, MailboxSync, mailbox_sync::SyncPhase};
use mailferry_testkit::{
    Corpus, Dovecot, DovecotOptions, FaultyProxy, MailFormat, cluster, differences, pki::pki, proxy::Direction,
};
use serde_json::{Value, json};

use crate::cluster::{Cluster, describe, until};

/// How long a migration may take, faults included.
const ENOUGH: Duration = Duration::from_mins(10);
const SOURCE_PASSWORD: &str = "p\"a\\s s€";
const DESTINATION_PASSWORD: &str = "it's {5} % fine";

/// A migration that has been applied.
pub struct Migration<'a> {
    cluster: &'a Cluster,
    pub client: Client,
    pub namespace: String,
    mailboxes: Vec<&'static str>,
    manifest: String,
    source: Dovecot,
    destination: Dovecot,
    /// Between pods and the source.
    pub source_link: FaultyProxy,
    /// Between pods and the destination.
    pub destination_link: FaultyProxy,
}

/// How a migration is set up.
pub struct Setup {
    /// Its mailboxes.
    pub mailboxes: Vec<&'static str>,
    /// What each holds at the source.
    pub mail: fn(&str) -> Corpus,
    /// How long a byte takes to and from either server.
    pub delay: Duration,
    /// More of the migration's spec.
    pub spec: Value,
}

impl Default for Setup {
    fn default() -> Self {
        Self { mailboxes: vec!["alice"], mail: some_mail, delay: Duration::ZERO, spec: json!({}) }
    }
}

/// Some ten folders with a few hundred messages, a large one too.
pub fn some_mail(mailbox: &str) -> Corpus {
    Corpus::varied(u64::try_from(mailbox.len()).unwrap()).with_large(3 << 20)
}

/// Enough that it takes a while on a slow link: forty folders.
pub fn many_folders(mailbox: &str) -> Corpus {
    Corpus::bulk(1200, 24 << 20, 40, u64::try_from(mailbox.len()).unwrap())
}

impl<'a> Migration<'a> {
    /// Starts two mail servers, fills one, and applies the migration.
    pub async fn apply(cluster: &'a Cluster, setup: Setup) -> Self {
        let client = cluster.client().await;
        let namespace = cluster::namespace(&client).await;
        let source = Dovecot::start(&DovecotOptions::default());
        let destination = Dovecot::start(&DovecotOptions {
            format: MailFormat::Mdbox,
            separator: '.',
            prefix: "INBOX.",
            ..DovecotOptions::default()
        });
        for mailbox in &setup.mailboxes {
            let account = source.add_user(mailbox, SOURCE_PASSWORD);
            // The destination's names for folders have dots between the levels.
            account.connect().await.seed(&(setup.mail)(mailbox).without('.')).await;
            drop(destination.add_user(mailbox, DESTINATION_PASSWORD));
        }
        let source_link = FaultyProxy::start_at(cluster.address, source.tls_port(), setup.delay);
        let destination_link = FaultyProxy::start_at(cluster.address, destination.tls_port(), setup.delay);
        let manifest = manifest(cluster.address, &setup, source_link.port(), destination_link.port());
        cluster::apply(&client, Some(&namespace), &manifest).await.unwrap();
        let mailboxes = setup.mailboxes;
        Self { cluster, client, namespace, mailboxes, manifest, source, destination, source_link, destination_link }
    }

    /// Waits until so many bytes have come from the source: in the middle of the work, if it has more than that.
    pub async fn copies(&self, bytes: u64) {
        let enough = || self.source_link.bytes_carried(Direction::ToClient) >= bytes;
        self.until("the source was read", async || enough()).await;
    }

    /// The pod that works on a mailbox, once it runs.
    pub async fn pod(&self, mailbox: &str) -> Pod {
        let mut found = None;
        self.until("a pod runs", async || {
            let name = self.sync(mailbox).await.and_then(|sync| sync.status?.pod_name);
            let pod = match name {
                Some(name) => self.pods().get_opt(&name).await.ok().flatten(),
                None => None,
            };
            found = pod.filter(|pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running"));
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// Pods of this migration.
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The `MailboxSync` of a mailbox.
    pub async fn sync(&self, mailbox: &str) -> Option<MailboxSync> {
        let syncs = Api::<MailboxSync>::namespaced(self.client.clone(), &self.namespace);
        let found = syncs.list(&ListParams::default()).await.ok()?;
        found.into_iter().find(|sync| sync.spec.mailbox == mailbox)
    }

    /// Waits until the migration is Complete, every mailbox in one attempt at least, and compares both sides, by
    /// `mailferry verify` and byte by byte. Gives how the mailboxes ended.
    pub async fn completes_with_nothing_lost_and_nothing_doubled(&self) -> Vec<MailboxSync> {
        self.until("the migration is Complete", async || {
            let migrations = Api::<MailMigration>::namespaced(self.client.clone(), &self.namespace);
            let found = migrations.get("m").await.ok().and_then(|migration| migration.status);
            let conditions = found.map(|status| status.conditions).unwrap_or_default();
            assert!(!conditions.iter().any(|c| c.type_ == "Failed" && c.status == "True"), "{conditions:?}");
            conditions.iter().any(|condition| condition.type_ == "Complete" && condition.status == "True")
        })
        .await;
        self.verify();
        for mailbox in &self.mailboxes {
            let source = self.source.add_user(mailbox, SOURCE_PASSWORD).connect().await.snapshot().await;
            let there = self.destination.add_user(mailbox, DESTINATION_PASSWORD).connect().await.snapshot().await;
            assert_eq!(differences(&source, &there), [""; 0], "{mailbox}");
        }
        let syncs = Api::<MailboxSync>::namespaced(self.client.clone(), &self.namespace);
        let syncs = syncs.list(&ListParams::default()).await.unwrap().items;
        assert_eq!(syncs.len(), self.mailboxes.len());
        for sync in &syncs {
            assert_eq!(sync.status.as_ref().unwrap().phase, Some(SyncPhase::Synced), "{}", sync.name_any());
        }
        syncs
    }

    /// `mailferry verify` with the very manifest that was applied.
    fn verify(&self) {
        for link in [&self.source_link, &self.destination_link] {
            link.set_delay(Duration::ZERO);
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("migration.yaml");
        fs::write(&file, &self.manifest).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_mailferry"))
            .args(["verify", "--strict", "--output", "text", "-f"])
            .arg(&file)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        assert!(output.status.success(), "mailferry verify ({}):\n{out}\n{err}", output.status);
    }

    /// Waits for something; tells all there is to know where it does not come.
    pub async fn until(&self, what: &str, condition: impl AsyncFnMut() -> bool) {
        until(what, ENOUGH, condition, async || self.state().await).await;
    }

    /// What a person would look at.
    async fn state(&self) -> String {
        let syncs = Api::<MailboxSync>::namespaced(self.client.clone(), &self.namespace);
        let mut text = vec![self.cluster.operators_state().await];
        for mut sync in syncs.list(&ListParams::default()).await.into_iter().flatten() {
            if let Some(worker) = sync.status.as_mut().and_then(|status| status.worker.as_mut()) {
                worker.checkpoint = worker.checkpoint.as_ref().map(|checkpoint| format!("{} bytes", checkpoint.len()));
                worker.folders.clear();
            }
            text.push(format!("{}: {}\n", sync.name_any(), json!(sync.status)));
        }
        text.push(describe(&self.pods()).await);
        text.concat()
    }
}

fn manifest(address: Ipv4Addr, setup: &Setup, source_port: u16, destination_port: u16) -> String {
    let server = |port: u16| json!({"host": address, "port": port, "tls": {"caBundle": pki().ca}});
    let side = |password: &str, mailbox: &str| json!({"username": mailbox, "passwordSecretRef": {"name": "mail", "key": password}});
    let mailbox = |name: &&'static str| json!({"name": name, "source": side("source", name), "destination": side("destination", name)});
    let mut spec = json!({
        "source": {"server": server(source_port)},
        "destination": {"server": server(destination_port)},
        "mailboxes": setup.mailboxes.iter().map(mailbox).collect::<Vec<_>>(),
    });
    spec.as_object_mut().unwrap().extend(setup.spec.as_object().unwrap().clone());
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mail"},
                        "stringData": {"source": SOURCE_PASSWORD, "destination": DESTINATION_PASSWORD}});
    let migration = json!({"apiVersion": "mailferry.io/v1alpha1", "kind": "MailMigration", "metadata": {"name": "m"}, "spec": spec});
    format!("{secret}\n---\n{migration}\n")
}
