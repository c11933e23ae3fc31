//! The pod that an attempt runs in: restricted, without anything writable, with nothing of the cluster but the right to
//! report.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, EnvVar, KeyToPath, LocalObjectReference, Pod, PodSecurityContext, PodSpec,
        ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, OwnerReference},
    },
};

use super::{
    config::WorkerConfig,
    mailbox::observe::FLUSH_SECONDS,
    names,
    objects::{POD_FINALIZER, SYNC_LABEL},
};
use crate::api::{API_VERSION, MailboxSyncSpec, SecretKeyRef, SyncEndpoint, pod::PodOverrides};

/// The `ServiceAccount`, the `ClusterRole` and the `RoleBinding` of sync pods.
pub const WORKER: &str = "mailferry-worker";
/// Where Secrets are mounted: `<root>/<Secret>/<key>`.
pub const SECRETS_ROOT: &str = "/var/run/secrets/mailferry.io";
/// Names in the pod's environment.
pub mod env {
    /// The MailboxSync's namespace.
    pub const NAMESPACE: &str = "MAILFERRY_NAMESPACE";
    /// Its name.
    pub const MAILBOX_SYNC: &str = "MAILFERRY_MAILBOXSYNC";
    /// The attempt.
    pub const ATTEMPT: &str = "MAILFERRY_ATTEMPT";
    /// Networks that are not connected to, by comma.
    pub const DENY_ADDRESSES: &str = "MAILFERRY_DENY_ADDRESSES";
    /// Networks that are, although denied.
    pub const ALLOW_ADDRESSES: &str = "MAILFERRY_ALLOW_ADDRESSES";
}
/// A pod that outlives its deadline by this many seconds is ended by its node: where no operator is left to do it.
const BACKSTOP_SECONDS: i64 = 3600;
/// The user of the container: none of the image's.
const USER: i64 = 65_532;

/// Which MailboxSync and attempt a pod is for.
#[derive(Debug, Clone, Copy)]
pub struct For<'a> {
    /// The MailboxSync's namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
    /// Its spec.
    pub spec: &'a MailboxSyncSpec,
    /// The attempt.
    pub attempt: i64,
}

/// Builds an attempt's pod.
#[must_use]
pub fn build(to: For<'_>, config: &WorkerConfig) -> Pod {
    let none = PodOverrides::default();
    let overrides = to.spec.pod_overrides.as_ref().unwrap_or(&none);
    let (volumes, mounts) = volumes(&secrets(to.spec));
    let ours = [
        ("app.kubernetes.io/name", "mailferry"),
        ("app.kubernetes.io/component", "worker"),
        ("app.kubernetes.io/managed-by", "mailferry"),
        (SYNC_LABEL, to.name),
    ];
    let mut labels = overrides.labels.clone();
    labels.extend(ours.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let annotations = Some(overrides.annotations.clone()).filter(|annotations| !annotations.is_empty());
    let deadline = i64::try_from(to.spec.settings.deadline.as_std().as_secs()).unwrap_or(i64::MAX / 2);
    Pod {
        metadata: ObjectMeta {
            name: Some(names::pod(to.name, to.attempt)),
            namespace: Some(to.namespace.to_owned()),
            labels: Some(labels),
            annotations,
            finalizers: Some(vec![POD_FINALIZER.to_owned()]),
            owner_references: Some(vec![OwnerReference {
                api_version: API_VERSION.to_owned(),
                kind: "MailboxSync".to_owned(),
                name: to.name.to_owned(),
                uid: to.uid.to_owned(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            restart_policy: Some("Never".to_owned()),
            service_account_name: Some(WORKER.to_owned()),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(FLUSH_SECONDS),
            active_deadline_seconds: Some(deadline.saturating_add(BACKSTOP_SECONDS)),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                fs_group: Some(USER),
                seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
                ..PodSecurityContext::default()
            }),
            node_selector: Some(overrides.node_selector.clone()).filter(|selector| !selector.is_empty()),
            tolerations: Some(overrides.tolerations.clone()).filter(|tolerations| !tolerations.is_empty()),
            affinity: overrides.affinity.clone(),
            image_pull_secrets: Some(
                overrides
                    .image_pull_secrets
                    .iter()
                    .map(|secret| LocalObjectReference { name: secret.name.clone() })
                    .collect::<Vec<_>>(),
            )
            .filter(|secrets| !secrets.is_empty()),
            containers: vec![Container {
                name: "sync".to_owned(),
                image: Some(config.image.clone()),
                image_pull_policy: config.image_pull_policy.clone(),
                args: Some(vec!["worker".to_owned()]),
                env: Some(environment(to, config)),
                resources: Some(resources(overrides)),
                security_context: Some(SecurityContext {
                    allow_privilege_escalation: Some(false),
                    read_only_root_filesystem: Some(true),
                    capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
                    ..SecurityContext::default()
                }),
                volume_mounts: Some(mounts),
                ..Container::default()
            }],
            volumes: Some(volumes),
            ..PodSpec::default()
        }),
        status: None,
    }
}

/// The Secrets that a mailbox needs, each with its keys.
#[must_use]
pub fn secrets(spec: &MailboxSyncSpec) -> BTreeMap<String, BTreeSet<String>> {
    let mut secrets: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for SecretKeyRef { name, key } in [&spec.source, &spec.destination].into_iter().flat_map(secrets_of) {
        secrets.entry(name.clone()).or_default().insert(key.clone());
    }
    secrets
}

fn secrets_of(endpoint: &SyncEndpoint) -> impl Iterator<Item = &SecretKeyRef> {
    let account = &endpoint.account;
    let own = account.password_secret_ref.as_ref().or(account.token_secret_ref.as_ref());
    let master = endpoint.master_user.as_ref().map(|master| &master.password_secret_ref);
    own.or(master).into_iter().chain(endpoint.server.tls.ca_bundle_ref.as_ref())
}

fn volumes(secrets: &BTreeMap<String, BTreeSet<String>>) -> (Vec<Volume>, Vec<VolumeMount>) {
    let volume = |(number, (name, keys)): (usize, (&String, &BTreeSet<String>))| {
        let items = keys.iter().map(|key| KeyToPath { key: key.clone(), path: key.clone(), mode: None });
        let volume = Volume {
            name: format!("secret-{number}"),
            secret: Some(SecretVolumeSource {
                secret_name: Some(name.clone()),
                items: Some(items.collect()),
                default_mode: Some(0o440),
                // A key that is not there shall be an error that the worker words, not a pod that never starts.
                optional: Some(true),
            }),
            ..Volume::default()
        };
        let mount = VolumeMount {
            name: volume.name.clone(),
            mount_path: format!("{SECRETS_ROOT}/{name}"),
            read_only: Some(true),
            ..VolumeMount::default()
        };
        (volume, mount)
    };
    secrets.iter().enumerate().map(volume).unzip()
}

fn environment(to: For<'_>, config: &WorkerConfig) -> Vec<EnvVar> {
    let value = |name: &str, value: String| EnvVar { name: name.to_owned(), value: Some(value), value_from: None };
    vec![
        value(env::NAMESPACE, to.namespace.to_owned()),
        value(env::MAILBOX_SYNC, to.name.to_owned()),
        value(env::ATTEMPT, to.attempt.to_string()),
        value(env::DENY_ADDRESSES, config.deny_addresses.clone()),
        value(env::ALLOW_ADDRESSES, config.allow_addresses.clone()),
        value("RUST_LOG", config.log_level.clone()),
    ]
}

fn resources(overrides: &PodOverrides) -> ResourceRequirements {
    let quantity = |text: &str| Quantity(text.to_owned());
    let mut requests = BTreeMap::from([("cpu".to_owned(), quantity("50m")), ("memory".to_owned(), quantity("64Mi"))]);
    let mut limits = BTreeMap::from([("memory".to_owned(), quantity("64Mi"))]);
    if let Some(resources) = &overrides.resources {
        requests.extend(resources.requests.clone());
        limits.extend(resources.limits.clone());
    }
    ResourceRequirements { requests: Some(requests), limits: Some(limits), claims: None }
}
