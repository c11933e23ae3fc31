//! What each value does to what is rendered: one value is changed, one thing is seen.

use mailferry::controller::config::OperatorConfig;
use serde_json::{Value, json};

use crate::helm::{Objects, RELEASE, SYSTEM, at, is_there, rendered, rendered_as};

fn operators_config(objects: &Objects) -> OperatorConfig {
    let text = objects.one("ConfigMap")["data"]["operator.yaml"].as_str().unwrap();
    mailferry::yaml::read("operator.yaml", text).unwrap()
}

/// A test that needs helm: given each its name, what is set, and what is seen.
macro_rules! cases {
    ($($name:ident: $values:expr, |$objects:ident| $body:block)*) => {$(
        #[test]
        fn $name() {
            if is_there() {
                let $objects = rendered(&$values);
                $body
            }
        }
    )*};
}

fn labels(object: &Value) -> &Value {
    &object["metadata"]["labels"]
}

cases! {
    by_default_nothing_is_there_that_was_not_asked_for: json!({}), |objects| {
        let mut kinds: Vec<_> = objects.0.iter().map(|object| object["kind"].as_str().unwrap()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds, [
            "ClusterRole", "ClusterRoleBinding", "ConfigMap", "CustomResourceDefinition", "Deployment", "NetworkPolicy",
            "Pod", "Role", "RoleBinding", "ServiceAccount", "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
        ]);
    }

    definitions_stay_when_the_release_goes: json!({}), |objects| {
        assert_eq!(objects.of("CustomResourceDefinition").len(), 3);
        for definition in objects.of("CustomResourceDefinition") {
            assert_eq!(definition["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
            assert_eq!(labels(definition)["app.kubernetes.io/managed-by"], "Helm");
        }
    }

    definitions_go_with_the_release_on_request: at("crds.keep", false), |objects| {
        assert_eq!(objects.of("CustomResourceDefinition").len(), 3);
        for definition in objects.of("CustomResourceDefinition") {
            assert!(definition["metadata"].get("annotations").is_none());
        }
    }

    definitions_are_left_to_others: at("crds.enabled", false), |objects| {
        assert_eq!(objects.of("CustomResourceDefinition").len(), 0);
    }

    the_image_is_of_the_charts_version: json!({}), |objects| {
        let image = concat!("ghcr.io/mailferry/mailferry:", env!("CARGO_PKG_VERSION"));
        assert_eq!(objects.container()["image"], image);
        assert_eq!(objects.env("MAILFERRY_WORKER_IMAGE"), Some(image));
    }

    the_image_of_operator_and_sync_pods_has_the_tag: at("image.tag", "1.2"), |objects| {
        assert_eq!(objects.container()["image"], "ghcr.io/mailferry/mailferry:1.2");
        assert_eq!(objects.env("MAILFERRY_WORKER_IMAGE"), Some("ghcr.io/mailferry/mailferry:1.2"));
    }

    a_digest_goes_before_a_tag:
    json!({"image": {"repository": "mirror.example:5000/m", "tag": "1.2", "digest": format!("sha256:{}", "a1".repeat(32))}}),
    |objects| {
        let image = format!("mirror.example:5000/m@sha256:{}", "a1".repeat(32));
        assert_eq!(objects.container()["image"], image.as_str());
        assert_eq!(objects.env("MAILFERRY_WORKER_IMAGE"), Some(image.as_str()));
    }

    the_image_is_pulled_by_operator_and_sync_pods_alike: at("image.pullPolicy", "Never"), |objects| {
        assert_eq!(objects.container()["imagePullPolicy"], "Never");
        assert_eq!(objects.env("MAILFERRY_WORKER_IMAGE_PULL_POLICY"), Some("Never"));
    }

    secrets_for_pulling_are_for_sync_pods_too: json!({"imagePullSecrets": [{"name": "registry"}]}), |objects| {
        assert_eq!(objects.pod()["spec"]["imagePullSecrets"], json!([{"name": "registry"}]));
        assert_eq!(operators_config(&objects).image_pull_secrets, ["registry"]);
    }

    one_replica_has_no_disruption_budget: json!({}), |objects| {
        assert_eq!(objects.one("Deployment")["spec"]["replicas"], 1);
        assert_eq!(objects.of("PodDisruptionBudget").len(), 0);
    }

    of_several_replicas_one_may_go_at_a_time: at("replicas", 2), |objects| {
        assert_eq!(objects.one("Deployment")["spec"]["replicas"], 2);
        let budget = &objects.one("PodDisruptionBudget")["spec"];
        assert_eq!(budget["maxUnavailable"], 1);
        assert_eq!(budget["selector"], objects.one("Deployment")["spec"]["selector"]);
    }

    a_disruption_budget_may_say_what_stays:
    json!({"replicas": 3, "podDisruptionBudget": {"maxUnavailable": null, "minAvailable": "50%"}}), |objects| {
        let budget = &objects.one("PodDisruptionBudget")["spec"];
        assert_eq!((&budget["minAvailable"], budget.get("maxUnavailable")), (&json!("50%"), None));
    }

    a_disruption_budget_can_be_left_out: json!({"replicas": 2, "podDisruptionBudget": {"enabled": false}}), |objects| {
        assert_eq!(objects.of("PodDisruptionBudget").len(), 0);
    }

    replicas_are_spread_over_nodes: json!({}), |objects| {
        let spread = &objects.pod()["spec"]["topologySpreadConstraints"];
        assert_eq!(spread[0]["topologyKey"], "kubernetes.io/hostname");
        assert_eq!(spread[0]["labelSelector"], objects.one("Deployment")["spec"]["selector"]);
    }

    replicas_are_spread_by_ones_own_selector:
    json!({"topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
                                    "labelSelector": {"matchLabels": {"a": "b"}}}]}), |objects| {
        let spread = &objects.pod()["spec"]["topologySpreadConstraints"];
        assert_eq!(*spread, json!([{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
                                    "labelSelector": {"matchLabels": {
                                        "a": "b", "app.kubernetes.io/name": "mailferry",
                                        "app.kubernetes.io/instance": "mailferry",
                                        "app.kubernetes.io/component": "controller"}}}]));
    }

    the_operator_may_be_important: at("priorityClassName", "system-cluster-critical"), |objects| {
        assert_eq!(objects.pod()["spec"]["priorityClassName"], "system-cluster-critical");
    }

    the_operator_can_be_placed:
    json!({"nodeSelector": {"pool": "system"}, "tolerations": [{"key": "system", "operator": "Exists"}],
     "affinity": {"nodeAffinity": {"a": 1}}}), |objects| {
        let spec = &objects.pod()["spec"];
        assert_eq!(spec["nodeSelector"], json!({"kubernetes.io/os": "linux", "pool": "system"}));
        assert_eq!(spec["tolerations"], json!([{"key": "system", "operator": "Exists"}]));
        assert_eq!(spec["affinity"], json!({"nodeAffinity": {"a": 1}}));
    }

    labels_and_annotations_of_ones_own_stand_beside_ours:
    json!({"commonLabels": {"team": "mail"}, "podLabels": {"cost": "7", "app.kubernetes.io/component": "x"},
     "annotations": {"a": "b"}, "podAnnotations": {"c": "d"}}), |objects| {
        for object in &objects.0 {
            assert_eq!(labels(object)["team"], "mail", "{}", object["metadata"]["name"]);
        }
        let (deployment, pod) = (objects.one("Deployment"), objects.pod());
        assert_eq!(deployment["metadata"]["annotations"], json!({"a": "b"}));
        assert_eq!(pod["metadata"]["annotations"]["c"], "d");
        assert_eq!((&labels(pod)["team"], &labels(pod)["cost"]), (&json!("mail"), &json!("7")));
        let selector = deployment["spec"]["selector"]["matchLabels"].as_object().unwrap();
        assert!(selector.iter().all(|(key, value)| labels(pod)[key] == *value), "{pod}");
        assert!(!selector.contains_key("team"), "a selector can't be changed later");
    }

    more_environment_reaches_the_operator: json!({"extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy"}]}), |objects| {
        assert_eq!(objects.env("HTTPS_PROXY"), Some("http://proxy"));
    }

    the_operator_is_restricted_and_writes_nowhere: json!({}), |objects| {
        assert_eq!(objects.pod()["spec"]["securityContext"], json!({
            "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"},
        }));
        assert_eq!(objects.container()["securityContext"], json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
        }));
        assert!(objects.container()["resources"]["limits"]["memory"].is_string());
        let mounts = objects.container()["volumeMounts"].as_array().unwrap();
        assert!(mounts.iter().all(|mount| mount["readOnly"] == true));
    }

    only_who_asks_the_api_server_has_a_token: json!({}), |objects| {
        assert_eq!(objects.one("ServiceAccount")["automountServiceAccountToken"], false);
        assert_eq!(objects.pod()["spec"]["automountServiceAccountToken"], true);
    }

    the_service_account_has_a_name_and_annotations: json!({"serviceAccount": {"name": "ferry", "annotations": {"a": "b"}}}),
    |objects| {
        let account = &objects.one("ServiceAccount")["metadata"];
        assert_eq!((&account["name"], &account["annotations"]), (&json!("ferry"), &json!({"a": "b"})));
        assert_eq!(objects.pod()["spec"]["serviceAccountName"], "ferry");
        for binding in [objects.of("ClusterRoleBinding"), objects.of("RoleBinding")].concat() {
            assert_eq!(binding["subjects"], json!([{"kind": "ServiceAccount", "name": "ferry", "namespace": SYSTEM}]));
        }
    }

    the_service_account_can_be_anothers: json!({"serviceAccount": {"create": false, "name": "ferry"}}), |objects| {
        assert_eq!(objects.of("ServiceAccount").len(), 0);
        assert_eq!(objects.pod()["spec"]["serviceAccountName"], "ferry");
    }

    rights_can_be_left_to_others: at("rbac.create", false), |objects| {
        for kind in ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"] {
            assert_eq!(objects.of(kind).len(), 0, "{kind}");
        }
    }

    the_configuration_is_what_the_values_say:
    json!({"config": {
        "maxSyncs": 1000, "podStartsPerSecond": 5, "maxMailboxesPerNamespace": 50, "workerLogLevel": "debug",
        "injectSidecars": true, "schedulingTimeout": "1h",
        "hostLimits": {"imap.old.example:143": {"maxConnections": 40, "startsPerMinute": 30}},
        "maxSyncsPerNamespace": 20, "namespaces": {"customers": {"maxSyncs": 80, "weight": 4}},
        "addresses": {"detectCluster": false, "deny": ["10.0.0.0/8"], "allow": ["10.1.0.0/16", "2001:db8::/32"]}},
     "policy": {"masterUsers": [{"namespace": "customers", "users": ["@acme.example", "*"]}]}}), |objects| {
        let config = serde_json::to_value(operators_config(&objects)).unwrap();
        for (key, expected) in [
            ("maxSyncs", json!(1000)),
            ("podStartsPerSecond", json!(5)),
            ("maxMailboxesPerNamespace", json!(50)),
            ("maxSyncsPerNamespace", json!(20)),
            ("namespaces", json!({"customers": {"maxSyncs": 80, "weight": 4}})),
            ("workerLogLevel", json!("debug")),
            ("injectSidecars", json!(true)),
            ("schedulingTimeout", json!("1h")),
            ("hostLimits", json!({"imap.old.example:143": {"maxConnections": 40, "startsPerMinute": 30}})),
            ("addresses", json!({"detectCluster": false, "deny": ["10.0.0.0/8"],
                                 "allow": ["10.1.0.0/16", "2001:db8::/32"]})),
            ("masterUsers", json!([{"namespace": "customers", "users": ["@acme.example", "*"]}])),
        ] {
            assert_eq!(config[key], expected, "{key}");
        }
    }

    every_sync_pod_has_what_the_values_say:
    json!({"workerPods": {
        "resources": {"requests": {"cpu": 1}, "limits": {"memory": "96Mi"}}, "nodeSelector": {"pool": "mail"},
        "tolerations": [{"key": "mail", "operator": "Exists"}], "priorityClassName": "low", "labels": {"cost": "7"},
        "annotations": {"a": "b"}, "runAsUser": null, "fsGroup": 1000,
        "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}},
     "caConfigMaps": ["company-ca"]}), |objects| {
        let pods = serde_json::to_value(operators_config(&objects)).unwrap()["workerPods"].clone();
        assert_eq!(pods, json!({
            "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "96Mi"}}, "nodeSelector": {"pool": "mail"},
            "tolerations": [{"key": "mail", "operator": "Exists"}], "priorityClassName": "low", "labels": {"cost": "7"},
            "annotations": {"a": "b"}, "runAsUser": null, "fsGroup": 1000,
            "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}, "caConfigMaps": ["company-ca"],
        }));
    }

    the_operator_trusts_further_authorities_too: at("caConfigMaps", json!(["company-ca", "partners"])), |objects| {
        let folders = "/etc/ssl/certs:/etc/mailferry-certificates/0:/etc/mailferry-certificates/1";
        assert_eq!(objects.env("SSL_CERT_DIR"), Some(folders));
        let volumes = &objects.pod()["spec"]["volumes"];
        assert_eq!(volumes[2], json!({"name": "certificates-1", "configMap": {"name": "partners", "optional": true}}));
        let mount = json!({"name": "certificates-1", "mountPath": "/etc/mailferry-certificates/1", "readOnly": true});
        assert_eq!(objects.container()["volumeMounts"][2], mount);
    }

    the_operators_log_level_is_its_own: at("config.logLevel", "debug"), |objects| {
        assert_eq!(objects.env("RUST_LOG"), Some("debug"));
        assert_eq!(operators_config(&objects).worker_log_level, "info");
    }

    an_operator_of_all_namespaces_binds_its_rights_everywhere: json!({}), |objects| {
        assert_eq!(objects.env("MAILFERRY_WATCH_NAMESPACES"), None);
        objects.named("ClusterRoleBinding", "mailferry-controller");
        // For the Lease alone.
        assert_eq!(objects.one("RoleBinding")["metadata"]["name"], "mailferry-leader-election");
    }

    an_operator_of_some_namespaces_has_roles_in_them_and_reads_only_nodes_and_networks_elsewhere:
    at("watchNamespaces", json!(["a", "b"])), |objects| {
        assert_eq!(objects.env("MAILFERRY_WATCH_NAMESPACES"), Some("a,b"));
        let place = |kind: &str, name: &str| -> Vec<String> {
            let named = objects.of(kind).into_iter().filter(|object| object["metadata"]["name"] == name);
            named.map(|object| object["metadata"]["namespace"].as_str().unwrap().to_owned()).collect()
        };
        for kind in ["Role", "RoleBinding"] {
            assert_eq!(place(kind, "mailferry-controller"), ["a", "b"], "{kind}");
        }
        assert_eq!(place("Role", "mailferry-worker"), ["a", "b"]);
        let resources: Vec<_> = objects.named("ClusterRole", "mailferry-cluster.mailferry-system")["rules"].as_array().unwrap().iter()
            .flat_map(|rule| rule["resources"].as_array().unwrap()).collect();
        assert_eq!(resources, ["nodes", "nodes", "servicecidrs"]);
        assert_eq!(objects.config()["workerRole"], json!({"kind": "Role", "name": "mailferry-worker"}));
        let bind = objects.of("Role")[0]["rules"].as_array().unwrap().iter()
            .find(|rule| rule["verbs"] == json!(["bind"])).unwrap();
        assert_eq!((&bind["resources"], &bind["resourceNames"]), (&json!(["roles"]), &json!(["mailferry-worker"])));
    }

    without_rights_on_the_cluster_nothing_of_the_cluster_is_made:
    json!({"watchNamespaces": ["a"], "rbac": {"clusterScoped": false}, "config": {"addresses": {"detectCluster": false}},
     "crds": {"enabled": false}, "admissionPolicies": {"enabled": false}}), |objects| {
        for object in &objects.0 {
            assert!(object["metadata"]["namespace"].is_string(), "{} {}", object["kind"], object["metadata"]["name"]);
        }
    }

    an_operator_can_do_without_secrets: at("rbac.secrets", false), |objects| {
        assert_eq!(objects.env("MAILFERRY_READ_SECRETS"), Some("false"));
        let rules = objects.named("ClusterRole", "mailferry-controller")["rules"].as_array().unwrap();
        assert!(rules.iter().all(|rule| rule["resources"] != json!(["secrets"])), "{rules:?}");
    }

    users_roles_are_parts_of_kubernetes_own: json!({}), |objects| {
        let parts = |name: &str| {
            let labels = labels(objects.named("ClusterRole", name)).as_object().unwrap();
            let parts = labels.keys().filter_map(|key| key.strip_prefix("rbac.authorization.k8s.io/aggregate-to-"));
            parts.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(parts("mailferry-view"), ["admin", "edit", "view"]);
        assert_eq!(parts("mailferry-edit"), ["admin", "edit"]);
    }

    users_roles_of_an_operator_of_some_namespaces_have_names_of_their_own: at("watchNamespaces", json!(["a"])), |objects| {
        objects.named("ClusterRole", "mailferry-edit.mailferry-system");
        objects.named("ClusterRole", "mailferry-view.mailferry-system");
    }

    users_roles_can_be_left_to_others: at("rbac.userRoles", false), |objects| {
        let names: Vec<_> = objects.of("ClusterRole").iter().map(|role| &role["metadata"]["name"]).collect();
        assert_eq!(names, ["mailferry-controller", "mailferry-worker", "mailferry-cluster"]);
    }

    what_the_operator_does_not_ask_it_may_not_read: at("config.addresses.detectCluster", false), |objects| {
        let rules = &objects.named("ClusterRole", "mailferry-cluster")["rules"];
        assert_eq!(*rules, json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]));
    }

    admission_policies_hold_everywhere_for_an_operator_of_all_namespaces: json!({}), |objects| {
        for binding in objects.of("ValidatingAdmissionPolicyBinding") {
            // One tells only, and refuses nothing.
            let tells = binding["metadata"]["name"] == "mailferry-deprecated-fields";
            assert_eq!(binding["spec"]["validationActions"], json!([if tells { "Warn" } else { "Deny" }]), "{binding}");
            assert!(binding["spec"].get("matchResources").is_none(), "{binding}");
        }
    }

    admission_policies_hold_in_the_operators_namespaces_only: at("watchNamespaces", json!(["a", "b"])), |objects| {
        let policies = objects.of("ValidatingAdmissionPolicyBinding");
        assert!(!policies.is_empty());
        for binding in policies {
            assert_eq!(binding["spec"]["matchResources"], json!({"namespaceSelector": {"matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a", "b"]}]}}));
            let policy = binding["spec"]["policyName"].as_str().unwrap();
            assert!(policy.ends_with(".mailferry-system"), "{policy}");
            objects.named("ValidatingAdmissionPolicy", policy);
        }
    }

    the_operators_fence_names_its_account_and_role:
    json!({"watchNamespaces": ["a"], "fullnameOverride": "ferry", "serviceAccount": {"name": "captain"}}), |objects| {
        let policy = objects.named("ValidatingAdmissionPolicy", "ferry-controller-rolebindings.mailferry-system");
        let condition = &policy["spec"]["matchConditions"][0]["expression"];
        assert_eq!(*condition, "request.userInfo.username == 'system:serviceaccount:mailferry-system:captain'");
        let role = policy["spec"]["variables"].as_array().unwrap().iter().find(|it| it["name"] == "workerRole");
        assert_eq!(role.unwrap()["expression"], "{'kind': 'Role', 'name': 'ferry-worker'}");
    }

    the_operators_fence_lets_injected_containers_be_only_where_they_are_wanted:
    at("config.injectSidecars", true), |objects| {
        let policy = objects.named("ValidatingAdmissionPolicy", "mailferry-controller-pods");
        let variables = policy["spec"]["variables"].as_array().unwrap();
        let injected = variables.iter().find(|it| it["name"] == "injectSidecars");
        assert_eq!(injected.unwrap()["expression"], "true");
    }

    only_this_releases_operator_may_create_mailbox_syncs:
    json!({"watchNamespaces": ["a"], "fullnameOverride": "ferry", "serviceAccount": {"name": "captain"}}), |objects| {
        let policy = objects.named("ValidatingAdmissionPolicy", "ferry-mailboxsyncs.mailferry-system");
        let rule = &policy["spec"]["validations"][0]["expression"];
        assert_eq!(*rule, "request.userInfo.username == 'system:serviceaccount:mailferry-system:captain'");
    }

    destinations_are_judged_when_applied_where_some_are_allowed:
    at("policy.allowedDestinations", json!([".new.example", "192.0.2.7"])), |objects| {
        let policy = objects.named("ValidatingAdmissionPolicy", "mailferry-destinations");
        let allowed = policy["spec"]["variables"].as_array().unwrap().iter().find(|it| it["name"] == "allowed");
        assert_eq!(allowed.unwrap()["expression"], r#"[".new.example","192.0.2.7"]"#);
        assert_eq!(operators_config(&objects).policy.allowed_destinations.len(), 2);
    }

    destinations_are_not_judged_when_applied_where_all_are_allowed: json!({}), |objects| {
        let policies = objects.of("ValidatingAdmissionPolicy").into_iter();
        assert_eq!(policies.filter(|it| it["metadata"]["name"] == "mailferry-destinations").count(), 0);
    }

    admission_policies_can_be_left_to_others: at("admissionPolicies.enabled", false), |objects| {
        assert_eq!(objects.of("ValidatingAdmissionPolicy").len(), 0);
        assert_eq!(objects.of("ValidatingAdmissionPolicyBinding").len(), 0);
    }

    the_operators_network_is_closed_but_for_what_it_needs: json!({}), |objects| {
        let policy = &objects.one("NetworkPolicy")["spec"];
        assert_eq!(policy["podSelector"], objects.one("Deployment")["spec"]["selector"]);
        assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(policy["ingress"], json!([{"ports": [{"protocol": "TCP", "port": "http"}]}]));
        let tcp = |port: u16| json!({"protocol": "TCP", "port": port});
        assert_eq!(policy["egress"], json!([
            {"ports": [{"protocol": "UDP", "port": 53}, tcp(53)]},
            {"ports": [tcp(443), tcp(6443), tcp(8443), tcp(16443)]},
            {"ports": [tcp(143), tcp(993)]},
        ]));
    }

    sync_pods_of_known_namespaces_talk_to_mail_servers_and_nobody_to_them: at("watchNamespaces", json!(["a", "b"])),
    |objects| {
        let operators = objects.named("NetworkPolicy", "mailferry-controller");
        let workers: Vec<_> = objects.of("NetworkPolicy").into_iter()
            .filter(|policy| policy["metadata"]["name"] == "mailferry-worker").collect();
        let places: Vec<_> = workers.iter().map(|policy| &policy["metadata"]["namespace"]).collect();
        assert_eq!(places, ["a", "b"]);
        for policy in workers {
            assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
            assert!(policy["spec"].get("ingress").is_none());
            assert_eq!(policy["spec"]["egress"], operators["spec"]["egress"]);
            assert_eq!(policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"], "worker");
        }
    }

    sync_pods_of_an_operator_of_all_namespaces_have_a_network_policy_where_listed:
    at("networkPolicy.workerNamespaces", json!(["customers"])), |objects| {
        assert_eq!(objects.named("NetworkPolicy", "mailferry-worker")["metadata"]["namespace"], "customers");
    }

    the_network_opens_for_what_is_configured:
    json!({"networkPolicy": {
        "imap": {"ports": [10993], "to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
        "dns": {"ports": [5353]}, "apiServer": {"ports": [443], "to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]},
        "metrics": {"from": [{"namespaceSelector": {}}]}}}), |objects| {
        let policy = &objects.one("NetworkPolicy")["spec"];
        assert_eq!(policy["ingress"][0]["from"], json!([{"namespaceSelector": {}}]));
        let tcp = |port: u16| json!({"protocol": "TCP", "port": port});
        assert_eq!(policy["egress"], json!([
            {"ports": [{"protocol": "UDP", "port": 5353}, tcp(5353)]},
            {"ports": [tcp(443)], "to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]},
            {"ports": [tcp(10993)], "to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
        ]));
    }

    the_operator_gets_at_what_its_grants_need_and_sync_pods_at_no_more:
    json!({"networkPolicy": {"workerNamespaces": ["customers"], "apiServer": {"ports": [6443]}}, "policy": {"grants": [
        {"name": "acme", "provider": "Microsoft", "tenant": "acme.example", "clientId": "app",
         "secretRef": {"name": "acme-microsoft"}, "namespaces": ["customers"], "users": ["@acme.example"]}]}}), |objects| {
        let grant = &operators_config(&objects).grants[0];
        assert_eq!((grant.name.as_str(), grant.secret_ref.name.as_str()), ("acme", "acme-microsoft"));
        let rule = json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["acme-microsoft"], "verbs": ["get"]});
        let rules = objects.named("Role", "mailferry-leader-election")["rules"].as_array().unwrap();
        assert!(rules.contains(&rule), "{rules:?}");
        let https = json!({"ports": [{"protocol": "TCP", "port": 443}]});
        let egress = |name| objects.named("NetworkPolicy", name)["spec"]["egress"].as_array().unwrap().clone();
        assert!(egress("mailferry-controller").contains(&https));
        assert!(!egress("mailferry-worker").contains(&https));
    }

    network_policies_can_be_left_out: json!({"networkPolicy": {"enabled": false}, "watchNamespaces": ["a"]}), |objects| {
        assert_eq!(objects.of("NetworkPolicy").len(), 0);
    }

    values_for_other_charts_are_left_alone: json!({"global": {"anything": 1}, "enabled": true}), |objects| {
        assert_eq!(objects.of("Deployment").len(), 1);
    }

    the_test_runs_the_operators_image_with_its_rights_and_configuration: json!({}), |objects| {
        let test = objects.one("Pod");
        assert_eq!(test["metadata"]["annotations"]["helm.sh/hook"], "test");
        let container = &test["spec"]["containers"][0];
        assert_eq!(container["args"][0], "doctor");
        for part in ["image", "imagePullPolicy", "env", "securityContext", "volumeMounts"] {
            assert_eq!(container[part], objects.container()[part], "{part}");
        }
        for part in ["serviceAccountName", "securityContext", "volumes", "nodeSelector"] {
            assert_eq!(test["spec"][part], objects.pod()["spec"][part], "{part}");
        }
        // Or the PodDisruptionBudget and the NetworkPolicy would take it for an operator.
        assert_ne!(labels(test)["app.kubernetes.io/component"], "controller");
    }
}

/// The pod's checksum of the configuration.
fn checksum(values: &Value) -> Value {
    rendered(values).pod()["metadata"]["annotations"]["checksum/config"].clone()
}

#[test]
fn a_changed_configuration_restarts_the_operator_and_a_changed_label_does_not() {
    if is_there() {
        let before = checksum(&json!({}));
        assert!(before.is_string());
        assert_ne!(checksum(&at("config.maxSyncs", 201)), before);
        assert_ne!(checksum(&at("policy.masterUsers", json!([{"namespace": "a", "users": ["b"]}]))), before);
        assert_eq!(checksum(&at("commonLabels.team", "mail")), before);
    }
}

#[test]
fn names_begin_with_the_releases_name() {
    if is_there() {
        for (release, values, beginning) in [
            (RELEASE, json!({}), "mailferry"),
            ("mail", json!({}), "mail-mailferry"),
            ("mail", json!({"nameOverride": "ferry"}), "mail-ferry"),
            ("mail", json!({"fullnameOverride": "ferry"}), "ferry"),
            ("old-mailferry", json!({}), "old-mailferry"),
        ] {
            let objects = rendered_as((release, "here"), &values);
            let others = objects.0.iter().filter(|object| object["kind"] != "CustomResourceDefinition");
            for object in others {
                let name = object["metadata"]["name"].as_str().unwrap();
                let rest = name.strip_prefix(beginning);
                assert!(rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-')), "{release}: {name}");
            }
            assert_eq!(objects.one("Deployment")["metadata"]["name"], beginning);
            let role = json!({"kind": "ClusterRole", "name": format!("{beginning}-worker")});
            objects.named("ClusterRole", role["name"].as_str().unwrap());
            if beginning != RELEASE {
                assert_eq!(objects.config()["workerRole"], role);
            }
            assert_eq!(objects.env("MAILFERRY_LEASE_NAME"), Some(format!("{beginning}-controller").as_str()));
        }
    }
}

#[test]
fn a_long_name_leaves_room_for_endings() {
    if is_there() {
        let objects = rendered_as((&"r".repeat(53), "here"), &json!({"watchNamespaces": ["a"], "replicas": 2}));
        for object in &objects.0 {
            let name = object["metadata"]["name"].as_str().unwrap();
            let room = if object["metadata"]["namespace"].is_null() { 253 } else { 63 };
            assert!(name.len() <= room, "{name}");
        }
    }
}

#[test]
fn two_releases_of_disjoint_namespaces_share_no_name_and_no_lease() {
    if is_there() {
        let values = |namespace: &str| json!({"watchNamespaces": [namespace], "crds": {"enabled": false}});
        let names = |release, namespace| {
            let objects = rendered_as(release, &values(namespace));
            objects.names().lines().skip(1).map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
        };
        let first = names((RELEASE, "one"), "customers-one");
        for (release, namespace) in [((RELEASE, "two"), "customers-two"), (("mailferry-two", "one"), "customers-two")] {
            let second = names(release, namespace);
            assert_eq!(first.intersection(&second).count(), 0, "{first:?} {second:?}");
        }
        let lease = |release| rendered_as(release, &values("c")).env("MAILFERRY_LEASE_NAME").unwrap().to_owned();
        assert_ne!(lease((RELEASE, "one")), lease(("mailferry-two", "one")));
    }
}
