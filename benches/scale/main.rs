//! Measures the operator with one migration of many mailboxes against a real API server; pods are played. See
//! `docs/benchmarks-operator.md`, which it writes.
//!
//! `make bench-operator`, or `cargo bench --bench scale -- [--mailboxes N] [--checkpoint BYTES] [--at-rest]`; with any of
//! them the table is printed and not kept. `--at-rest` syncs nothing, and measures only what an operator needs to start.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that cannot go on ends")]

mod bare;
mod memory;
mod operator;
mod player;

use std::{env, fmt::Write as _, fs, path::Path, process::ExitCode, time::Instant};

use kube::Api;
use mailferry::{
    api::{MailMigration, crd},
    controller::condition::is_true,
};
use mailferry_testkit::cluster::{self, ControlPlane};
use operator::Operator;
use serde_json::json;
use tokio::time::{Duration, sleep};

/// What is measured.
#[derive(Clone, Copy)]
struct Size {
    mailboxes: usize,
    /// Bytes of each checkpoint.
    checkpoint: usize,
    /// Nothing is synced: only starts of the operator are measured.
    at_rest: bool,
}

/// Mailboxes that are synced at one time.
const PARALLELISM: usize = 200;

fn main() -> ExitCode {
    let mut size = Size { mailboxes: 10_000, checkpoint: 65_536, at_rest: false };
    let mut kept = true;
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
        match arg.as_str() {
            "--bench" => continue,
            "--mailboxes" => number(args.next()).map(|n| size.mailboxes = n),
            "--checkpoint" => number(args.next()).map(|n| size.checkpoint = n),
            "--at-rest" => {
                size.at_rest = true;
                Some(())
            }
            _ => None,
        }
        .unwrap_or_else(|| {
            eprintln!("usage: [--mailboxes N] [--checkpoint BYTES] [--at-rest]");
            std::process::exit(2);
        });
        kept = false;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let page = runtime.block_on(measure(size));
    print!("{page}");
    if kept && !size.at_rest {
        fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmarks-operator.md"), page).expect("docs");
    }
    ExitCode::SUCCESS
}

async fn measure(size: Size) -> String {
    let plane = ControlPlane::start().await;
    let client = plane.client();
    cluster::apply(&client, None, &crd::all_yaml().unwrap()).await.unwrap();
    let namespace = plane.namespace().await;
    let folder = tempfile::tempdir().unwrap();

    if size.at_rest {
        let mut operator = Operator::start(&plane.kubeconfig(), folder.path()).await;
        apply(&client, &namespace, size.mailboxes, json!({"startAt": "2099-01-01T00:00:00Z"})).await;
        memory::all(&client, &namespace, size.mailboxes).await;
        operator.stop().await;
        memory::sync_all(&client, &namespace, size.mailboxes, size.checkpoint).await;
        return table(&starts(&plane, &namespace, folder.path(), size.mailboxes).await);
    }
    eprintln!("one migration of {} mailboxes", size.mailboxes);
    let mut operator = Operator::start(&plane.kubeconfig(), folder.path()).await;
    let player = player::start(client.clone(), namespace.clone(), size.checkpoint);
    let began = Instant::now();
    apply(&client, &namespace, size.mailboxes, json!({})).await;
    let migrations: Api<MailMigration> = Api::namespaced(client.clone(), &namespace);
    until_complete(&migrations, began).await;
    let took = began.elapsed();
    let writes = operator.writes().await;
    let (memory, cpu) = (operator.peak_memory(), operator.cpu());

    eprintln!("synced in {took:.0?}; peak {memory:.0} MiB, CPU {cpu:.0?}; writes: {writes}");
    eprintln!("idle");
    sleep(Duration::from_secs(15)).await;
    let (before, writes_before) = (operator.cpu(), operator.writes().await.total());
    let idle = Duration::from_secs(30);
    sleep(idle).await;
    let idle_cpu = operator.cpu().saturating_sub(before).as_secs_f64() / idle.as_secs_f64();
    let idle_writes = operator.writes().await.total() - writes_before;
    let reports = player.stop();

    eprintln!("idle: {:.2} % of a core, {idle_writes} writes", idle_cpu * 100.0);
    operator.stop().await;
    let starts = starts(&plane, &namespace, folder.path(), size.mailboxes).await;

    eprintln!("the same writes by a bare loop");
    let bare_namespace = plane.namespace().await;
    let per_mailbox = writes.of("mailboxsyncs/status", "patch").div_ceil(size.mailboxes).max(2);
    let bare = bare::run(&client, &bare_namespace, size, per_mailbox).await;

    let mut page = String::new();
    let float = |number: usize| f64::from(u32::try_from(number).unwrap());
    let n = float(size.mailboxes);
    let _ = write!(
        page,
        "# The operator, measured\n\n\
         One MailMigration of {} mailboxes (a CSV), {PARALLELISM} at one time, against a real API server and etcd on this machine\n\
         with {} cores; pods are played by the benchmark, each with a checkpoint of {} bytes. `make bench-operator` measures again.\n\n\
         | what | measured | target |\n| --- | --- | --- |\n",
        size.mailboxes,
        std::thread::available_parallelism().map_or(0, usize::from),
        size.checkpoint,
    );
    let total = writes.total() + reports;
    let mut row = |what: &str, measured: String, target: &str| {
        let _ = writeln!(page, "| {what} | {measured} | {target} |");
    };
    row("all Synced", format!("{:.0} s, {:.1} mailboxes/s", took.as_secs_f64(), n / took.as_secs_f64()), "");
    row(
        "the same writes by a bare loop",
        format!("{:.0} s, {:.1} mailboxes/s", bare.as_secs_f64(), n / bare.as_secs_f64()),
        "",
    );
    row("API writes per mailbox, workers' too", format!("{:.1}", float(total) / n), "≤ 12");
    row("of these the operator's", format!("{:.1}", float(writes.total()) / n), "");
    row("operator's memory at its peak", format!("{memory:.0} MiB"), "≤ 96 MiB");
    row("operator's CPU time", format!("{:.0} s", cpu.as_secs_f64()), "");
    row("idle: CPU", format!("{:.2} % of a core", idle_cpu * 100.0), "< 1 %");
    row("idle: writes in 30 s", idle_writes.to_string(), "0");
    page.push_str(&table(&starts));
    let _ = write!(page, "\nThe operator's writes by resource and verb: {writes}.\n");
    page
}

/// An operator's start.
struct Start {
    /// What it finds.
    what: &'static str,
    /// Until all is decided again.
    took: Duration,
    /// The most memory that it had resident, MiB.
    memory: f64,
}

/// Starts the operator with so many MailboxSyncs at rest: as they are, with some checkpoints at their bound, and with pods
/// that an operator of before left.
async fn starts(plane: &ControlPlane, namespace: &str, folder: &Path, mailboxes: usize) -> Vec<Start> {
    let client = plane.client();
    let mut starts = vec![start(plane, folder, mailboxes, "restart").await];
    memory::enlarge_checkpoints(&client, namespace, mailboxes).await;
    starts.push(start(plane, folder, mailboxes, "with 1 % of checkpoints at 256 KiB").await);
    memory::keep_pods(&client, namespace, mailboxes).await;
    starts.push(start(plane, folder, mailboxes, "with a finished pod each").await);
    starts
}

async fn start(plane: &ControlPlane, folder: &Path, mailboxes: usize, what: &'static str) -> Start {
    let began = Instant::now();
    let mut operator = Operator::start(&plane.kubeconfig(), folder).await;
    operator.has_looked_at("MailboxSync", mailboxes).await;
    let took = began.elapsed();
    // What it goes on with, such as pods that it deletes.
    sleep(Duration::from_secs(20)).await;
    let memory = operator.peak_memory();
    operator.stop().await;
    eprintln!("{what}: decided again in {took:.1?}; peak {memory:.0} MiB");
    Start { what, took, memory }
}

fn table(starts: &[Start]) -> String {
    let mut rows = String::new();
    for Start { what, took, memory } in starts {
        let _ = writeln!(rows, "| {what}: all decided again | {:.1} s | ≤ 10 s |", took.as_secs_f64());
        let _ = writeln!(rows, "| {what}: memory at its peak | {memory:.0} MiB | ≤ 96 MiB |");
    }
    rows
}

/// Applies a CSV and a migration; `more` is added to its spec.
async fn apply(client: &kube::Client, namespace: &str, mailboxes: usize, more: serde_json::Value) {
    let mut csv = "name,source_password,destination_password\n".to_owned();
    for number in 0..mailboxes {
        let _ = writeln!(csv, "m{number:05}@acme.example,p{number},q{number}");
    }
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "csv"}, "stringData": {"m.csv": csv}});
    cluster::apply(client, Some(namespace), &secret.to_string()).await.unwrap();
    let mut migration = json!({
        "apiVersion": "mailferry.io/v1alpha1", "kind": "MailMigration", "metadata": {"name": "acme"},
        "spec": {
            "source": {"server": {"host": "old.example"}}, "destination": {"server": {"host": "new.example"}},
            "mailboxSecrets": [{"name": "csv", "key": "m.csv"}], "parallelism": PARALLELISM,
        },
    });
    migration["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    cluster::apply(client, Some(namespace), &migration.to_string()).await.unwrap();
}

async fn until_complete(migrations: &Api<MailMigration>, began: Instant) {
    loop {
        sleep(Duration::from_secs(1)).await;
        let status = migrations.get("acme").await.unwrap().status.unwrap_or_default();
        if is_true(&status.conditions, "Complete") {
            return;
        }
        if began.elapsed().as_secs().is_multiple_of(20) {
            eprintln!("{:>5.0} s: {:?}", began.elapsed().as_secs_f64(), status.mailboxes);
        }
    }
}
