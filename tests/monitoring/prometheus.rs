//! A real Prometheus on loopback; it ends with the test, however that ends.

use std::{fmt::Write as _, fs, net::SocketAddr, path::Path};

use mailferry_testkit::{cluster::ChildProcess, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

pub struct Prometheus {
    process: ChildProcess,
    address: SocketAddr,
    _folder: TempDir,
}

impl Prometheus {
    /// One that scrapes this address, several times a second, and evaluates these rules.
    pub async fn start(target: SocketAddr, rules: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("mailferry-prometheus-").tempdir().unwrap();
        let config = json!({
            "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms"},
            "rule_files": [rules],
            "scrape_configs": [{"job_name": "mailferry", "static_configs": [{"targets": [target.to_string()]}]}],
        });
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, config.to_string()).unwrap();
        let flags = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", folder.path().join("data").display()),
            "--web.listen-address=127.0.0.1:0".to_owned(),
        ];
        let mut process = ChildProcess::start(Path::new("prometheus"), flags, folder.path());
        let log = folder.path().join("prometheus.log");
        let address = eventually("Prometheus listens", async || {
            process.assert_running();
            let said = fs::read_to_string(&log).unwrap_or_default();
            let line = said.lines().find(|line| line.contains("Listening on"));
            match line.and_then(|line| line.split_once("address=")) {
                Some((_, address)) => Ok(address.split_whitespace().next().unwrap().parse().unwrap()),
                None => Err(said),
            }
        })
        .await;
        Self { process, address, _folder: folder }
    }

    /// The data that its HTTP API answers with.
    async fn get(&self, path: &str) -> Result<Value, String> {
        let mut stream = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
        // HTTP 1.0: the answer ends with the connection.
        let request = format!("GET /api/v1/{path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map_err(|error| error.to_string())?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let mut answer: Value = serde_json::from_str(body).map_err(|error| format!("{error}: {answer}"))?;
        if answer["status"] == "success" { Ok(answer["data"].take()) } else { Err(answer.to_string()) }
    }

    /// The series that an expression gives now.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let data = self.get(&format!("query?query={}", encoded(expression))).await?;
        data["result"].as_array().cloned().ok_or_else(|| format!("no list: {data}"))
    }

    /// Its rules, with the health of each.
    pub async fn rules(&self) -> Vec<Value> {
        let data = self.get("rules").await.unwrap();
        let groups = data["groups"].as_array().unwrap();
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).cloned().collect()
    }

    /// Waits until something is so; `look` says what it finds, or what is missing.
    pub async fn until<T>(&mut self, look: impl AsyncFn(&Self) -> Result<T, String>) -> T {
        eventually("Prometheus has seen it", async || {
            self.process.assert_running();
            look(self).await
        })
        .await
    }
}

fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        write!(encoded, "%{byte:02X}").unwrap();
    }
    encoded
}
