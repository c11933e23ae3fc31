//! The pod that an attempt runs in: restricted, without anything writable, with nothing of the cluster but the right to
//! report.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, EnvVar, KeyToPath, LocalObjectReference, Pod, PodSecurityContext, PodSpec,
        SeccompProfile, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use super::{
    address_guard::PodAddresses,
    cached_objects::{POD_FINALIZER, SYNC_CONTAINER, SYNC_LABEL},
    config::WorkerConfig,
    grants::granted_sides,
    mailbox::observe::FLUSH_SECONDS,
};
use crate::api::{
    API_VERSION, MailboxSyncSpec, SecretKeyRef, SyncEndpoint,
    names::{self, WORKER_NAME},
    pod_overrides::PodOverrides,
};
use crate::error::Side;

/// Where Secrets are mounted: `<root>/<Secret>/<key>`.
pub(crate) const SECRETS_ROOT: &str = "/var/run/secrets/mailferry.io";
/// Names in the pod's environment.
pub mod env {
    /// The MailboxSync's namespace.
    pub(crate) const NAMESPACE: &str = "MAILFERRY_NAMESPACE";
    /// Its name.
    pub(crate) const MAILBOX_SYNC: &str = "MAILFERRY_MAILBOXSYNC";
    /// The attempt.
    pub(crate) const ATTEMPT: &str = "MAILFERRY_ATTEMPT";
    /// Networks that are not connected to, by comma.
    pub(crate) const DENY_ADDRESSES: &str = "MAILFERRY_DENY_ADDRESSES";
    /// Networks that are, although denied.
    pub(crate) const ALLOW_ADDRESSES: &str = "MAILFERRY_ALLOW_ADDRESSES";
    /// Networks that the source must be in besides, by comma.
    pub(crate) const SOURCE_ADDRESSES: &str = "MAILFERRY_SOURCE_ADDRESSES";
    /// The one host that the destination may be; empty: any.
    pub(crate) const DESTINATION_HOST: &str = "MAILFERRY_DESTINATION_HOST";
    /// The account whose access token is mounted for the source, as a hash; empty: none is.
    pub(crate) const SOURCE_TOKEN_FOR: &str = "MAILFERRY_SOURCE_TOKEN_FOR";
    /// The same for the destination.
    pub(crate) const DESTINATION_TOKEN_FOR: &str = "MAILFERRY_DESTINATION_TOKEN_FOR";
}
/// What asks a service mesh to leave a pod alone: a sync needs none, and a proxy that runs on after it keeps its pod from
/// ending. Istio reads its key as a label and, of old, as an annotation.
const OPT_OUT_LABELS: [(&str, &str); 1] = [("sidecar.istio.io/inject", "false")];
/// The same as annotations.
const OPT_OUT_ANNOTATIONS: [(&str, &str); 2] =
    [("sidecar.istio.io/inject", "false"), ("linkerd.io/inject", "disabled")];
/// A pod that outlives its deadline by this many seconds is ended by its node: where no operator is left to do it.
const BACKSTOP_SECONDS: i64 = 3600;

/// Which MailboxSync and attempt a pod is for.
#[derive(Debug, Clone, Copy)]
pub struct AttemptRef<'a> {
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

/// Builds an attempt's pod, which connects to no other `addresses`.
#[must_use]
pub fn build_pod(to: AttemptRef<'_>, config: &WorkerConfig, addresses: PodAddresses) -> Pod {
    let none = PodOverrides::default();
    let overrides = to.spec.pod_overrides.as_deref().unwrap_or(&none);
    let (mut volumes, mut mounts) = volumes(&mounted_secrets(to.name, to.spec));
    let (certificates, mounted) = config.pods.certificate_volumes();
    volumes.extend(certificates);
    mounts.extend(mounted);
    let deadline = i64::try_from(to.spec.settings.deadline.as_std().as_secs()).unwrap_or(i64::MAX / 2);
    Pod {
        metadata: metadata(to, overrides, config),
        spec: Some(PodSpec {
            restart_policy: Some("Never".to_owned()),
            service_account_name: Some(WORKER_NAME.to_owned()),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(FLUSH_SECONDS),
            active_deadline_seconds: Some(deadline.saturating_add(BACKSTOP_SECONDS)),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: config.pods.run_as_user.map(|user| user.get().into()),
                run_as_group: config.pods.run_as_user.map(|group| group.get().into()),
                fs_group: config.pods.fs_group.map(|group| group.get().into()),
                seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
                ..PodSecurityContext::default()
            }),
            node_selector: config.pods.node_selector(overrides),
            tolerations: config.pods.tolerations(overrides),
            priority_class_name: config.pods.priority_class_name.clone(),
            dns_config: config.pods.dns_config.clone(),
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
                name: SYNC_CONTAINER.to_owned(),
                image: Some(config.image.clone()),
                image_pull_policy: config.image_pull_policy.clone(),
                args: Some(vec!["worker".to_owned()]),
                env: Some(environment(to, config, addresses)),
                resources: Some(config.pods.resources(overrides)),
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

/// Its names and labels, its owner, and what keeps it until its end is certain.
fn metadata(to: AttemptRef<'_>, overrides: &PodOverrides, config: &WorkerConfig) -> ObjectMeta {
    let ours = [
        ("app.kubernetes.io/name", "mailferry"),
        ("app.kubernetes.io/component", "worker"),
        ("app.kubernetes.io/managed-by", "mailferry"),
        (SYNC_LABEL, to.name),
    ];
    let opt_out = |from: &[(&str, &str)]| {
        // Who names a mesh's key, as a label or as an annotation, decides by it.
        let left = from.iter().filter(|(key, _)| !config.inject_sidecars && !config.pods.names_key(overrides, key));
        left.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
    };
    let mut labels = opt_out(&OPT_OUT_LABELS);
    labels.extend(config.pods.labels.clone());
    labels.extend(overrides.labels.clone());
    labels.extend(ours.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let mut annotations = opt_out(&OPT_OUT_ANNOTATIONS);
    annotations.extend(config.pods.annotations.clone());
    annotations.extend(overrides.annotations.clone());
    let annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
    ObjectMeta {
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
    }
}

/// The Secrets that a mailbox needs, each with its keys.
#[must_use]
pub(crate) fn required_secrets(spec: &MailboxSyncSpec) -> BTreeMap<String, BTreeSet<String>> {
    let mut secrets: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for SecretKeyRef { name, key } in [&spec.source, &spec.destination].into_iter().flat_map(SyncEndpoint::secrets) {
        secrets.entry(name.clone()).or_default().insert(key.clone());
    }
    secrets
}

/// What a sync's pod mounts: those, and of each grant the access token alone.
fn mounted_secrets(sync: &str, spec: &MailboxSyncSpec) -> BTreeMap<String, BTreeSet<String>> {
    let mut secrets = required_secrets(spec);
    let tokens: BTreeSet<_> = granted_sides(spec).map(|(side, ..)| side.to_string()).collect();
    if !tokens.is_empty() {
        secrets.insert(names::token_secret(sync), tokens);
    }
    secrets
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

fn environment(to: AttemptRef<'_>, config: &WorkerConfig, addresses: PodAddresses) -> Vec<EnvVar> {
    let value = |name: &str, value: String| EnvVar { name: name.to_owned(), value: Some(value), value_from: None };
    let mut variables = vec![
        value(env::NAMESPACE, to.namespace.to_owned()),
        value(env::MAILBOX_SYNC, to.name.to_owned()),
        value(env::ATTEMPT, to.attempt.to_string()),
        value(env::DENY_ADDRESSES, addresses.deny),
        value(env::ALLOW_ADDRESSES, addresses.allow),
        value(env::SOURCE_ADDRESSES, addresses.sources),
        value(
            env::DESTINATION_HOST,
            if addresses.one_destination { to.spec.destination.server.host.clone() } else { String::new() },
        ),
        value("RUST_LOG", config.log_level.clone()),
    ];
    variables.extend(granted_sides(to.spec).map(|(side, endpoint, _)| {
        let name = if side == Side::Source { env::SOURCE_TOKEN_FOR } else { env::DESTINATION_TOKEN_FOR };
        // This account was judged: the mailbox may be another one by the time that the pod starts.
        value(name, names::account_hash(endpoint))
    }));
    variables.extend(config.pods.certificate_folders().map(|folders| value("SSL_CERT_DIR", folders)));
    variables
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controller::pod_defaults::PodDefaults;

    fn spec(overrides: Option<Value>) -> MailboxSyncSpec {
        let endpoint = |host: &str, more: Value| {
            let mut endpoint = json!({"server": {"host": host}, "account": {"username": "bob"}});
            let Value::Object(more) = more else { return endpoint };
            endpoint.as_object_mut().unwrap().extend(more);
            endpoint
        };
        let own = |name: &str, key: &str| json!({"username": "bob", "passwordSecretRef": {"name": name, "key": key}});
        let mut spec = json!({
            "migration": "acme", "mailbox": "bob", "settings": {"deadline": "2h"},
            "source": endpoint("old.example", json!({
                "account": own("mail", "source"),
                // Not needed beside the account's own.
                "masterUser": {"username": "admin", "passwordSecretRef": {"name": "masters", "key": "admin"}},
            })),
            "destination": endpoint("new.example", json!({
                "account": own("mail", "destination"),
                "server": {"host": "new.example", "tls": {"caBundleRef": {"name": "authority", "key": "ca.crt"}}},
            })),
        });
        if let Some(overrides) = overrides {
            spec["podOverrides"] = overrides;
        }
        serde_json::from_value(spec).unwrap()
    }

    fn pod(spec: &MailboxSyncSpec) -> Pod {
        pod_with(spec, false)
    }

    fn pod_with(spec: &MailboxSyncSpec, inject_sidecars: bool) -> Pod {
        pod_of(spec, inject_sidecars, PodDefaults::default())
    }

    fn pod_of(spec: &MailboxSyncSpec, inject_sidecars: bool, pods: PodDefaults) -> Pod {
        let to = AttemptRef { namespace: "customers", name: "acme-bob-1a2b", uid: "u-1", spec, attempt: 3 };
        let config = WorkerConfig {
            image: "example/mailferry:1".into(),
            image_pull_policy: Some("Never".into()),
            log_level: "debug".into(),
            inject_sidecars,
            pods,
        };
        let addresses = PodAddresses {
            deny: "10.0.0.0/8".into(),
            allow: "10.1.0.0/16".into(),
            sources: "192.0.2.0/24".into(),
            one_destination: true,
        };
        build_pod(to, &config, addresses)
    }

    fn as_json(spec: &MailboxSyncSpec) -> Value {
        serde_json::to_value(pod(spec)).unwrap()
    }

    #[test]
    fn the_pod_is_restricted_and_can_write_nowhere() {
        let pod = as_json(&spec(None));
        let spec = &pod["spec"];
        assert_eq!(
            spec["securityContext"],
            json!({
                "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            })
        );
        let containers = spec["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 1);
        assert_eq!(
            containers[0]["securityContext"],
            json!({
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
            })
        );
        for forbidden in ["hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"] {
            assert!(spec.get(forbidden).is_none(), "{forbidden}");
        }
        // Secrets and nothing else: with an emptyDir a drain would stop at it.
        for volume in spec["volumes"].as_array().unwrap() {
            let kinds: Vec<_> = volume.as_object().unwrap().keys().filter(|key| *key != "name").collect();
            assert_eq!(kinds, ["secret"]);
        }
        assert!(containers[0]["volumeMounts"].as_array().unwrap().iter().all(|mount| mount["readOnly"] == true));
    }

    #[test]
    fn the_pod_reserves_what_it_may_have() {
        let pod = as_json(&spec(None));
        let expected = json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}});
        assert_eq!(pod["spec"]["containers"][0]["resources"], expected);
    }

    #[test]
    fn the_pod_stays_until_its_end_is_certain_and_goes_with_its_mailbox() {
        let pod = as_json(&spec(None));
        assert_eq!(pod["metadata"]["name"], "acme-bob-1a2b-3");
        assert_eq!(pod["metadata"]["finalizers"], json!(["mailferry.io/certain-end"]));
        assert_eq!(
            pod["metadata"]["ownerReferences"],
            json!([{
                "apiVersion": "mailferry.io/v1alpha1", "kind": "MailboxSync", "name": "acme-bob-1a2b", "uid": "u-1",
                "controller": true, "blockOwnerDeletion": true,
            }])
        );
        let spec = &pod["spec"];
        assert_eq!((&spec["restartPolicy"], &spec["serviceAccountName"]), (&json!("Never"), &json!(WORKER_NAME)));
        assert_eq!(spec["terminationGracePeriodSeconds"], 60);
        // Its node ends it where no operator does: an hour after its deadline.
        assert_eq!(spec["activeDeadlineSeconds"], 3 * 3600);
    }

    #[test]
    fn secrets_are_mounted_as_far_as_they_are_needed_and_may_come_later() {
        let pod = as_json(&spec(None));
        let secret = |name: &str, keys: &[&str]| {
            let items: Vec<_> = keys.iter().map(|key| json!({"key": key, "path": key})).collect();
            json!({"secretName": name, "items": items, "defaultMode": 0o440, "optional": true})
        };
        let volumes = &pod["spec"]["volumes"];
        assert_eq!(
            *volumes,
            json!([
                {"name": "secret-0", "secret": secret("authority", &["ca.crt"])},
                {"name": "secret-1", "secret": secret("mail", &["destination", "source"])},
            ])
        );
        let paths: Vec<_> = pod["spec"]["containers"][0]["volumeMounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|mount| mount["mountPath"].as_str().unwrap())
            .collect();
        assert_eq!(paths, ["/var/run/secrets/mailferry.io/authority", "/var/run/secrets/mailferry.io/mail"]);
    }

    #[test]
    fn a_master_users_password_is_mounted_where_the_account_has_none() {
        let mut spec = spec(None);
        spec.source.account.password_secret_ref = None;
        let secrets = required_secrets(&spec);
        assert_eq!(secrets["masters"], ["admin".to_owned()].into());
        assert_eq!(secrets["mail"], ["destination".to_owned()].into());
    }

    #[test]
    fn the_worker_is_told_who_it_is_and_where_it_may_connect_to() {
        let pod = as_json(&spec(None));
        let container = &pod["spec"]["containers"][0];
        assert_eq!((&container["image"], &container["args"]), (&json!("example/mailferry:1"), &json!(["worker"])));
        assert_eq!(container["imagePullPolicy"], "Never");
        let expected = [
            ("MAILFERRY_NAMESPACE", "customers"),
            ("MAILFERRY_MAILBOXSYNC", "acme-bob-1a2b"),
            ("MAILFERRY_ATTEMPT", "3"),
            ("MAILFERRY_DENY_ADDRESSES", "10.0.0.0/8"),
            ("MAILFERRY_ALLOW_ADDRESSES", "10.1.0.0/16"),
            ("MAILFERRY_SOURCE_ADDRESSES", "192.0.2.0/24"),
            ("MAILFERRY_DESTINATION_HOST", "new.example"),
            ("RUST_LOG", "debug"),
        ];
        assert_eq!(container["env"], json!(expected.map(|(name, value)| json!({"name": name, "value": value}))));
    }

    #[test]
    fn a_service_mesh_injects_nothing_unless_somebody_asks_for_it() {
        let asks = |overrides: Option<Value>, inject_sidecars: bool| {
            let pod = pod_with(&spec(overrides), inject_sidecars).metadata;
            let keys = ["sidecar.istio.io/inject", "linkerd.io/inject"];
            let of = |map: Option<BTreeMap<String, String>>| {
                keys.map(|key| map.as_ref().and_then(|map| map.get(key)).map(String::to_owned))
            };
            (of(pod.labels), of(pod.annotations))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(asks(None, false), ([some("false"), None], [some("false"), some("disabled")]));
        let istio = json!({"labels": {"sidecar.istio.io/inject": "true"}});
        assert_eq!(asks(Some(istio), false), ([some("true"), None], [None, some("disabled")]));
        let linkerd = json!({"annotations": {"linkerd.io/inject": "enabled"}});
        assert_eq!(asks(Some(linkerd), false), ([some("false"), None], [some("false"), some("enabled")]));
        assert_eq!(asks(None, true), ([None, None], [None, None]), "the namespace decides");
    }

    #[test]
    fn what_whoever_runs_the_cluster_gives_to_every_pod_is_in_it() {
        let defaults = json!({
            "labels": {"cost": "mail", SYNC_LABEL: "another"}, "annotations": {"linkerd.io/inject": "enabled"},
            "resources": {"limits": {"memory": "96Mi"}}, "nodeSelector": {"pool": "mail"},
            "tolerations": [{"key": "mail", "operator": "Exists"}], "priorityClassName": "low", "runAsUser": null,
            "fsGroup": 7, "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}, "caConfigMaps": ["company"],
        });
        let defaults: PodDefaults = serde_json::from_value(defaults).unwrap();
        let pod = json!(pod_of(&spec(None), false, defaults));
        let (labels, annotations) = (&pod["metadata"]["labels"], &pod["metadata"]["annotations"]);
        assert_eq!((&labels["cost"], &labels[SYNC_LABEL]), (&json!("mail"), &json!("acme-bob-1a2b")));
        assert_eq!(annotations["linkerd.io/inject"], "enabled");
        let spec = &pod["spec"];
        assert_eq!(spec["containers"][0]["resources"]["limits"], json!({"memory": "96Mi"}));
        assert_eq!((&spec["nodeSelector"], &spec["priorityClassName"]), (&json!({"pool": "mail"}), &json!("low")));
        assert_eq!(spec["tolerations"], json!([{"key": "mail", "operator": "Exists"}]));
        assert_eq!(spec["dnsConfig"], json!({"options": [{"name": "ndots", "value": "1"}]}));
        let context = &spec["securityContext"];
        assert_eq!((context.get("runAsUser"), context.get("runAsGroup"), &context["fsGroup"]), (None, None, &json!(7)));
        assert_eq!(context["runAsNonRoot"], true);
        assert_eq!(
            spec["volumes"][2],
            json!({"name": "certificates-0", "configMap": {"name": "company", "optional": true}})
        );
        let folders = json!({"name": "SSL_CERT_DIR", "value": "/etc/ssl/certs:/etc/mailferry/certificates/0"});
        assert!(spec["containers"][0]["env"].as_array().unwrap().contains(&folders));
    }

    #[test]
    fn overrides_add_and_never_replace_what_is_ours() {
        let overrides = json!({
            "labels": {
                "team": "mail", SYNC_LABEL: "another", "app.kubernetes.io/name": "x",
                "app.kubernetes.io/component": "x", "app.kubernetes.io/managed-by": "x",
            },
            "annotations": {"note": "hello"},
            "resources": {"limits": {"memory": "128Mi"}, "requests": {"cpu": "1"}},
            "nodeSelector": {"pool": "batch"},
            "imagePullSecrets": [{"name": "registry"}],
        });
        let pod = as_json(&spec(Some(overrides)));
        assert_eq!(
            pod["metadata"]["labels"],
            json!({
                "team": "mail", SYNC_LABEL: "acme-bob-1a2b", "app.kubernetes.io/name": "mailferry",
                "app.kubernetes.io/component": "worker", "app.kubernetes.io/managed-by": "mailferry",
                "sidecar.istio.io/inject": "false",
            })
        );
        assert_eq!(
            pod["metadata"]["annotations"],
            json!({"note": "hello", "sidecar.istio.io/inject": "false", "linkerd.io/inject": "disabled"})
        );
        let resources = json!({"requests": {"cpu": "1", "memory": "64Mi"}, "limits": {"memory": "128Mi"}});
        assert_eq!(pod["spec"]["containers"][0]["resources"], resources);
        assert_eq!(pod["spec"]["nodeSelector"], json!({"pool": "batch"}));
        assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "registry"}]));
        // The rest is as without them.
        let (mut with, mut without) = (pod["spec"].clone(), as_json(&spec(None))["spec"].clone());
        for spec in [&mut with, &mut without] {
            let spec = spec.as_object_mut().unwrap();
            for field in ["nodeSelector", "imagePullSecrets"] {
                spec.remove(field);
            }
            spec["containers"][0]["resources"] = Value::Null;
        }
        assert_eq!(with, without);
    }
}
