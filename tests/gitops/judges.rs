//! What those who deploy by `GitOps` make of an object: kstatus (Flux and others), and Argo CD with health.lua.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use mailferry_testkit::cluster::program;
use serde::Deserialize;
use serde_json::Value;

/// The script that Argo CD is given.
pub fn health_lua() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gitops/argocd/health.lua")
}

/// What a judge says.
#[derive(Debug, Deserialize)]
pub struct Verdict {
    pub status: String,
    pub message: String,
}

/// What kstatus says.
pub fn kstatus(object: &Value) -> Verdict {
    ask(Command::new(judge("kstatus")), object)
}

/// What Argo CD says.
pub fn argo_cd(object: &Value) -> Verdict {
    let mut command = Command::new(judge("argocd-health"));
    command.arg(health_lua());
    ask(command, object)
}

fn judge(name: &str) -> PathBuf {
    program(name).unwrap_or_else(|| {
        panic!("there is no {name}: scripts/kubernetes.sh builds it, unless KUBEBUILDER_ASSETS names another folder")
    })
}

fn ask(mut command: Command, object: &Value) -> Verdict {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(object.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
