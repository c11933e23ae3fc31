//! The operator as a process of its own, and what can be measured of it from outside.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

const ADDRESS: &str = "127.0.0.1:18080";

pub struct Operator(Child);

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Writes to the API server, by resource and verb.
#[derive(Default)]
pub struct Writes(BTreeMap<(String, String), usize>);

impl Writes {
    pub fn total(&self) -> usize {
        self.0.iter().filter(|((_, verb), _)| !verb.starts_with("refused")).map(|(_, count)| count).sum()
    }

    pub fn of(&self, resource: &str, verb: &str) -> usize {
        self.0.get(&(resource.to_owned(), verb.to_owned())).copied().unwrap_or(0)
    }
}

impl fmt::Display for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(|((resource, verb), count)| format!("{resource} {verb} {count}")).collect();
        f.write_str(&all.join(", "))
    }
}

impl Operator {
    /// Starts it and waits until it has seen the cluster.
    pub async fn start(kubeconfig: &Path, folder: &Path) -> Self {
        let config = folder.join("config.yaml");
        fs::write(&config, "{maxSyncs: 200, podStartsPerSecond: 10000}").unwrap();
        let log = File::options().create(true).append(true).open(folder.join("operator.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_mailferry"))
            .args([
                "controller",
                "--worker-image",
                "none",
                "--leader-election",
                "false",
                "--listen",
                ADDRESS,
                "--config",
            ])
            .arg(&config)
            .env("KUBECONFIG", kubeconfig)
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned()))
            .stderr(log)
            .spawn()
            .unwrap();
        let operator = Self(child);
        while !get("/readyz").await.is_some_and(|answer| answer.contains("200 OK")) {
            sleep(Duration::from_millis(20)).await;
        }
        operator
    }

    /// Ends it, as Kubernetes does.
    pub async fn stop(&mut self) {
        Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        while self.0.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it has looked at so many objects of a kind.
    pub async fn has_looked_at(&self, kind: &str, count: usize) {
        let prefix = format!("mailferry_reconcile_duration_seconds_count{{controller=\"{kind}\"");
        loop {
            let text = get("/metrics").await.unwrap_or_default();
            let looked: usize = text.lines().filter(|line| line.starts_with(&prefix)).map(value).sum();
            if looked >= count {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// What it wrote so far.
    pub async fn writes(&self) -> Writes {
        let mut writes = Writes::default();
        for line in
            get("/metrics").await.unwrap().lines().filter(|line| line.starts_with("mailferry_api_requests_total{"))
        {
            let label = |name: &str| {
                let rest = line.split_once(&format!("{name}=\"")).unwrap().1;
                rest.split('"').next().unwrap().to_owned()
            };
            let code = label("code");
            let verb = if code.starts_with('2') { label("verb") } else { format!("refused-{code}") };
            if !matches!(verb.as_str(), "get" | "list" | "watch") {
                *writes.0.entry((label("resource"), verb)).or_default() += value(line);
            }
        }
        writes
    }

    /// The most memory that it ever had resident, MiB.
    pub fn peak_memory(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }

    /// CPU time used so far.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }
}

fn value(line: &str) -> usize {
    line.rsplit_once(' ').and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

async fn get(path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(ADDRESS).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}
