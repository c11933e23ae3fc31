//! `mailferry doctor` with the rights and the configuration that the chart gives to the operator: what `helm test` runs.

use std::{fs, path::Path, process::Command};

use mailferry_testkit::cluster::{ChildProcess, ControlPlane};
use serde_json::{Value, json};

use crate::{
    helm::{Objects, is_there, rendered_as},
    install::{Release, plane},
};

const MAILFERRY: &str = env!("CARGO_BIN_EXE_mailferry");

/// The operator's environment in the release's pod, as far as it can be had outside of one.
async fn environment(plane: &ControlPlane, release: &Release, values: &Value, folder: &Path) -> Vec<String> {
    let objects: Objects = rendered_as((&release.called, &release.namespace), values);
    let config = folder.join("operator.yaml");
    fs::write(&config, objects.one("ConfigMap")["data"]["operator.yaml"].as_str().unwrap()).unwrap();
    let token = plane.token(&release.namespace, &release.name, None).await;
    let authority = plane.kubeconfig().with_file_name("ca.crt");
    let kubeconfig = folder.join("kubeconfig");
    let cluster = json!({"server": plane.url(), "certificate-authority": authority});
    let context = json!({"cluster": "c", "user": "u", "namespace": release.namespace});
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": context}],
    });
    fs::write(&kubeconfig, text.to_string()).unwrap();
    let variables = objects.container()["env"].as_array().unwrap().iter().filter_map(|variable| {
        let (name, value) = (variable["name"].as_str()?, variable["value"].as_str()?);
        (name != "MAILFERRY_CONFIG").then(|| format!("{name}={value}"))
    });
    variables
        .chain([
            format!("MAILFERRY_CONFIG={}", config.display()),
            format!("KUBECONFIG={}", kubeconfig.display()),
            format!("POD_NAMESPACE={}", release.namespace),
            "POD_NAME=operator".to_owned(),
        ])
        .collect()
}

/// The doctor's exit code, and what it printed.
fn doctor(environment: &[String], wait: &str) -> (i32, String) {
    let output =
        Command::new("env").arg("-i").args(environment).args([MAILFERRY, "doctor", "--wait", wait]).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn an_operator_with_what_the_chart_gives_it_works_and_the_doctor_says_so() {
    if !is_there() {
        return;
    }
    let plane = plane();
    let [home, there] = [plane.namespace().await, plane.namespace().await];
    for (release, values) in [
        (Release::default_one(), json!({})),
        (Release::named("mailferry", &home), json!({"watchNamespaces": [there]})),
        (Release::named("blind", &home), json!({"watchNamespaces": [there], "rbac": {"secrets": false}})),
        (
            Release::named("careful", &home),
            json!({"watchNamespaces": [there], "rbac": {"clusterScoped": false},
                   "config": {"addresses": {"detectCluster": false}}}),
        ),
    ] {
        if values != json!({}) {
            Release::install(plane, &release.called, &home, &values);
        }
        let folder = tempfile::tempdir().unwrap();
        let environment = environment(plane, &release, &values, folder.path()).await;
        let arguments = ["-i".to_owned()].into_iter().chain(environment.clone());
        let arguments = arguments.chain([MAILFERRY, "controller", "--listen", "none"].map(str::to_owned));
        let operator = ChildProcess::start(Path::new("/usr/bin/env"), arguments, folder.path());
        let (code, said) = doctor(&environment, "1m");
        assert_eq!(code, 0, "{values}: {said}\n{}", operator.log_tail());
        assert!(said.contains("ok       an operator leads: "), "{said}");
        assert!(!said.contains("PROBLEM"), "{said}");
    }
}

#[tokio::test]
async fn the_doctor_names_what_is_missing() {
    if !is_there() {
        return;
    }
    let plane = plane();
    let namespace = plane.namespace().await;
    let values = json!({"watchNamespaces": [namespace], "rbac": {"create": false}});
    let release = Release::install(plane, "mailferry", &namespace, &values);
    let folder = tempfile::tempdir().unwrap();
    let environment = environment(plane, &release, &values, folder.path()).await;
    let (code, said) = doctor(&environment, "0s");
    assert_eq!(code, 11, "{said}");
    for part in [
        "ok       the API server answers: Kubernetes v1.",
        "ok       the definitions of the resources have every field",
        &format!(
            "PROBLEM  Authorization: the operator may not create pods in namespace {namespace}. Give it the roles"
        ),
        "PROBLEM  Authorization: the operator may not list servicecidrs.networking.k8s.io. Give",
        &format!("may not bind roles.rbac.authorization.k8s.io mailferry-worker in namespace {namespace}"),
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test]
async fn the_doctor_sees_that_no_operator_leads() {
    if !is_there() {
        return;
    }
    let plane = plane();
    let namespace = plane.namespace().await;
    let values = json!({"watchNamespaces": [namespace]});
    let release = Release::install(plane, "mailferry", &namespace, &values);
    let folder = tempfile::tempdir().unwrap();
    let environment = environment(plane, &release, &values, folder.path()).await;
    let (code, said) = doctor(&environment, "0s");
    let expected =
        format!("PROBLEM  Configuration: no operator leads: there is no Lease {namespace}/mailferry-controller");
    assert!(code == 2 && said.contains(&expected), "{code} {said}");
    assert_eq!(said.matches("PROBLEM").count(), 1, "{said}");
}

#[tokio::test]
async fn the_doctor_sees_that_the_definitions_are_not_installed() {
    if !is_there() {
        return;
    }
    let plane = ControlPlane::start().await;
    let namespace = plane.namespace().await;
    let release = Release::install(&plane, "mailferry", &namespace, &json!({}));
    let folder = tempfile::tempdir().unwrap();
    let environment = environment(&plane, &release, &json!({}), folder.path()).await;
    let (code, said) = doctor(&environment, "0s");
    assert_eq!(code, 2, "{said}");
    let expected =
        "PROBLEM  Configuration: the definitions of the resources are not installed. Install those of this version";
    assert!(said.contains(expected), "{said}");
}
