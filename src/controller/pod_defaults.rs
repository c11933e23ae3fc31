//! What whoever runs the cluster gives to every sync pod. What a migration's `podOverrides` say is added, and wins.

use std::{collections::BTreeMap, num::NonZeroU32};

use k8s_openapi::{
    api::core::v1::{ConfigMapVolumeSource, PodDNSConfig, ResourceRequirements, Toleration, Volume, VolumeMount},
    apimachinery::pkg::api::resource::Quantity,
};
use serde::{Deserialize, Serialize};

use crate::api::pod_overrides::{PodOverrides, PodResources};

/// The user and group of sync pods, unless others are given: none of the image's.
const USER: u32 = 65_532;
/// Where certificates of further authorities are mounted, each `ConfigMap` by its number.
const CERTIFICATES_ROOT: &str = "/etc/mailferry/certificates";
/// Where the image has those of the system.
const SYSTEM_CERTIFICATES: &str = "/etc/ssl/certs";

/// What every sync pod has, unless its migration says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PodDefaults {
    /// Labels. Those that Mailferry sets itself win.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Requests and limits of the container, over 50m of CPU and 64Mi of memory.
    pub resources: PodResources,
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that are tolerated.
    pub tolerations: Vec<Toleration>,
    /// The priority class.
    pub priority_class_name: Option<String>,
    /// The user and the group that the sync runs as; none: the cluster chooses, as `OpenShift` does. Never root.
    pub run_as_user: Option<NonZeroU32>,
    /// The group that may read mounted Secrets; none: the cluster chooses.
    pub fs_group: Option<NonZeroU32>,
    /// How names are looked up, beside what the cluster says.
    pub dns_config: Option<PodDNSConfig>,
    /// `ConfigMap`s with certificates of authorities (PEM) that are trusted beside the system's, in each namespace with
    /// migrations. One that is not there is left out.
    pub ca_config_maps: Vec<String>,
}

impl Default for PodDefaults {
    fn default() -> Self {
        Self {
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            resources: PodResources::default(),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            priority_class_name: None,
            run_as_user: NonZeroU32::new(USER),
            fs_group: NonZeroU32::new(USER),
            dns_config: None,
            ca_config_maps: Vec::new(),
        }
    }
}

impl PodDefaults {
    /// True where somebody names this key, as a label or as an annotation.
    pub(super) fn names_key(&self, overrides: &PodOverrides, key: &str) -> bool {
        [&self.labels, &self.annotations, &overrides.labels, &overrides.annotations]
            .iter()
            .any(|map| map.contains_key(key))
    }

    /// Requests and limits of the container.
    pub(super) fn resources(&self, overrides: &PodOverrides) -> ResourceRequirements {
        let quantity = |text: &str| Quantity(text.to_owned());
        let mut requests =
            BTreeMap::from([("cpu".to_owned(), quantity("50m")), ("memory".to_owned(), quantity("64Mi"))]);
        let mut limits = BTreeMap::from([("memory".to_owned(), quantity("64Mi"))]);
        for resources in [Some(&self.resources), overrides.resources.as_ref()].into_iter().flatten() {
            requests.extend(resources.requests.clone());
            limits.extend(resources.limits.clone());
        }
        ResourceRequirements { requests: Some(requests), limits: Some(limits), claims: None }
    }

    /// Labels of nodes that are asked for; none where any will do.
    pub(super) fn node_selector(&self, overrides: &PodOverrides) -> Option<BTreeMap<String, String>> {
        let mut selector = self.node_selector.clone();
        selector.extend(overrides.node_selector.clone());
        Some(selector).filter(|selector| !selector.is_empty())
    }

    /// Taints that are tolerated; none where there are none.
    pub(super) fn tolerations(&self, overrides: &PodOverrides) -> Option<Vec<Toleration>> {
        let tolerations = [self.tolerations.as_slice(), &overrides.tolerations].concat();
        Some(tolerations).filter(|tolerations| !tolerations.is_empty())
    }

    /// The volumes of further authorities' certificates, and where each is mounted.
    pub(super) fn certificate_volumes(&self) -> (Vec<Volume>, Vec<VolumeMount>) {
        let volume = |(number, name): (usize, &String)| {
            let volume = Volume {
                name: format!("certificates-{number}"),
                config_map: Some(ConfigMapVolumeSource {
                    name: name.clone(),
                    // A namespace may do without.
                    optional: Some(true),
                    ..ConfigMapVolumeSource::default()
                }),
                ..Volume::default()
            };
            let mount = VolumeMount {
                name: volume.name.clone(),
                mount_path: format!("{CERTIFICATES_ROOT}/{number}"),
                read_only: Some(true),
                ..VolumeMount::default()
            };
            (volume, mount)
        };
        self.ca_config_maps.iter().enumerate().map(volume).unzip()
    }

    /// `SSL_CERT_DIR`: where trusted authorities are looked for; none: where the system has them.
    pub(super) fn certificate_folders(&self) -> Option<String> {
        let ours = (0..self.ca_config_maps.len()).map(|number| format!("{CERTIFICATES_ROOT}/{number}"));
        let folders: Vec<_> = std::iter::once(SYSTEM_CERTIFICATES.to_owned()).chain(ours).collect();
        (folders.len() > 1).then(|| folders.join(":"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::yaml;

    fn defaults(text: &str) -> PodDefaults {
        yaml::read("the configuration", text).unwrap()
    }

    fn overrides(value: serde_json::Value) -> PodOverrides {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_a_migration_says_is_added_and_wins() {
        let defaults = defaults(
            "{resources: {requests: {memory: 96Mi}, limits: {memory: 96Mi, cpu: '1'}}, nodeSelector: {pool: mail, zone: a}, \
             tolerations: [{key: mail, operator: Exists}]}",
        );
        let none = PodOverrides::default();
        let resources = defaults.resources(&none);
        let expected = json!({"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"cpu": "1", "memory": "96Mi"}});
        assert_eq!(json!(resources), expected);
        let more = overrides(json!({
            "resources": {"limits": {"memory": "1Gi"}}, "nodeSelector": {"zone": "b"}, "tolerations": [{"key": "big"}],
        }));
        assert_eq!(json!(defaults.resources(&more))["limits"], json!({"cpu": "1", "memory": "1Gi"}));
        assert_eq!(json!(defaults.node_selector(&more)), json!({"pool": "mail", "zone": "b"}));
        let keys: Vec<_> = defaults.tolerations(&more).unwrap().into_iter().map(|toleration| toleration.key).collect();
        assert_eq!(keys, [Some("mail".to_owned()), Some("big".to_owned())]);
        assert_eq!(PodDefaults::default().node_selector(&none), None);
        assert_eq!(PodDefaults::default().tolerations(&none), None);
    }

    #[test]
    fn the_cluster_chooses_the_user_where_that_is_asked_for_and_nobody_runs_as_root() {
        assert_eq!(defaults("{}").run_as_user, NonZeroU32::new(65_532));
        assert_eq!(defaults("{runAsUser: null, fsGroup: 1000}").run_as_user, None);
        assert!(yaml::read::<PodDefaults>("the configuration", "{runAsUser: 0}").is_err());
    }

    #[test]
    fn certificates_of_further_authorities_stand_beside_the_systems() {
        let with = defaults("{caConfigMaps: [company, partners]}");
        let (volumes, mounts) = with.certificate_volumes();
        assert_eq!(
            json!(volumes[1]),
            json!({"name": "certificates-1", "configMap": {"name": "partners", "optional": true}})
        );
        assert_eq!((mounts[0].mount_path.as_str(), mounts[0].read_only), ("/etc/mailferry/certificates/0", Some(true)));
        let folders = "/etc/ssl/certs:/etc/mailferry/certificates/0:/etc/mailferry/certificates/1";
        assert_eq!(with.certificate_folders().as_deref(), Some(folders));
        assert_eq!(PodDefaults::default().certificate_folders(), None);
    }
}
