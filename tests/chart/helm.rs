//! Runs the real helm and kubectl, and finds things in what they print.

use std::{
    fmt::Write as _,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use mailferry_testkit::cluster::{ControlPlane, program};
use serde::Deserialize as _;
use serde_json::{Value, json};

/// The names of a default installation, as in deploy/.
pub const RELEASE: &str = "mailferry";
pub const SYSTEM: &str = "mailferry-system";

/// The chart's folder.
pub fn chart() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("charts/mailferry")
}

/// True where there is a helm; says that a test did not run where not.
pub fn is_there() -> bool {
    let there = program("helm").is_some() && program("kubectl").is_some();
    if !there {
        eprintln!("skipped: KUBEBUILDER_ASSETS has no helm and kubectl");
    }
    there
}

/// Runs a program with something on its standard input.
pub fn run(name: &str, arguments: &[&str], plane: Option<&ControlPlane>, input: &str) -> Output {
    let mut command = Command::new(program(name).expect(name));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    // Nothing of whoever runs the tests.
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("HELM_") || key == "KUBECONFIG") {
        command.env_remove(key);
    }
    let home = std::env::temp_dir().join("mailferry-helm");
    for part in ["CACHE", "CONFIG", "DATA"] {
        command.env(format!("HELM_{part}_HOME"), home.join(part));
    }
    match plane {
        Some(plane) => command.env("KUBECONFIG", plane.kubeconfig()),
        None => command.env("KUBECONFIG", "/nonexistent"),
    };
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// What a program printed; panics with what it said where it failed.
pub fn output(name: &str, arguments: &[&str], plane: Option<&ControlPlane>, input: &str) -> String {
    let output = run(name, arguments, plane, input);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    assert!(output.status.success(), "{name} {arguments:?}: {}{}", text(output.stdout), text(output.stderr));
    text(output.stdout)
}

fn template(release: (&str, &str), values: &Value) -> Output {
    let chart = chart();
    let arguments = ["template", release.0, chart.to_str().unwrap(), "--namespace", release.1, "--values", "-"];
    run("helm", &arguments, None, &values.to_string())
}

/// What the chart renders with these values, as (release, namespace).
pub fn text_as(release: (&str, &str), values: &Value) -> String {
    let output = template(release, values);
    assert!(output.status.success(), "{values}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The objects that the chart renders, as (release, namespace).
pub fn rendered_as(release: (&str, &str), values: &Value) -> Objects {
    Objects::read(&text_as(release, values))
}

/// The objects that the chart renders in a default installation but for these values.
pub fn rendered(values: &Value) -> Objects {
    rendered_as((RELEASE, SYSTEM), values)
}

/// What helm says to values that the chart does not take.
pub fn refusal(values: &Value) -> String {
    let output = template((RELEASE, SYSTEM), values);
    assert!(!output.status.success(), "{values} was taken");
    String::from_utf8(output.stderr).unwrap()
}

/// Kubernetes' objects.
#[derive(Debug, Clone)]
pub struct Objects(pub Vec<Value>);

impl Objects {
    /// Reads a YAML stream.
    pub fn read(yaml: &str) -> Self {
        let document = |document| Option::<Value>::deserialize(document).unwrap_or_else(|e| panic!("{e}: {yaml}"));
        Self(serde_yaml::Deserializer::from_str(yaml).filter_map(document).collect())
    }

    /// All of a kind.
    pub fn of(&self, kind: &str) -> Vec<&Value> {
        self.0.iter().filter(|object| object["kind"] == kind).collect()
    }

    /// The only one of its kind.
    pub fn one(&self, kind: &str) -> &Value {
        let found = self.of(kind);
        assert_eq!(found.len(), 1, "{kind} in{}", self.names());
        found[0]
    }

    /// One by its kind and name.
    pub fn named(&self, kind: &str, name: &str) -> &Value {
        let mut found = self.of(kind).into_iter().filter(|object| object["metadata"]["name"] == name);
        found.next().unwrap_or_else(|| panic!("no {kind} {name} in{}", self.names()))
    }

    /// The operator's pod.
    pub fn pod(&self) -> &Value {
        &self.one("Deployment")["spec"]["template"]
    }

    /// The operator's container.
    pub fn container(&self) -> &Value {
        &self.pod()["spec"]["containers"][0]
    }

    /// A variable of the operator's environment.
    pub fn env(&self, name: &str) -> Option<&str> {
        self.container()["env"].as_array().unwrap().iter().find(|env| env["name"] == name)?["value"].as_str()
    }

    /// The operator's configuration file.
    pub fn config(&self) -> Value {
        serde_yaml::from_str(self.one("ConfigMap")["data"]["operator.yaml"].as_str().unwrap()).unwrap()
    }

    /// Kinds and names, for messages.
    pub fn names(&self) -> String {
        self.0.iter().fold(String::new(), |mut names, object| {
            let metadata = &object["metadata"];
            write!(names, "\n{} {} {}", object["kind"], metadata["namespace"], metadata["name"]).unwrap();
            names
        })
    }
}

/// A value at a path of keys, as values.yaml nests it: `at("image.tag", "1")` is `{image: {tag: 1}}`.
pub fn at(path: &str, value: impl Into<Value>) -> Value {
    path.rsplit('.').fold(value.into(), |inner, key| json!({ key: inner }))
}
