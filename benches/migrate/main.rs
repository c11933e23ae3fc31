//! Measures `mailferry run` against isync's `mbsync` and against a plain copier. See `docs/benchmarks.md`, which it
//! writes.
//!
//! `make bench`, or `cargo bench --bench migrate -- [--only KEY]... [--runs N]`; with `--only` the table is
//! printed and not kept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that cannot go on ends")]

mod limit;
mod rows;
mod table;
mod tools;

use std::{env, fs, process::ExitCode};

use rows::SCENARIOS;

fn main() -> ExitCode {
    let mut args = env::args().skip(1).peekable();
    if args.peek().map(String::as_str) == Some("limit") {
        let args: Vec<String> = args.skip(1).collect();
        limit_process(&args);
        return ExitCode::SUCCESS;
    }
    let mut only = Vec::new();
    let mut runs = 3;
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.peek()) {
            // Cargo says this to every benchmark.
            ("--bench", _) => continue,
            ("--only", Some(key)) if SCENARIOS.iter().any(|s| s.key == key) => only.push(key.clone()),
            ("--runs", Some(number)) if number.parse().is_ok_and(|n: usize| n > 0) => {
                runs = number.parse().expect("a number");
            }
            _ => {
                let keys: Vec<&str> = SCENARIOS.iter().map(|s| s.key).collect();
                eprintln!("usage: [--only {}]... [--runs N]", keys.join("|"));
                return ExitCode::from(2);
            }
        }
        args.next();
    }
    let dir = env::temp_dir().join(format!("mailferry-bench-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let measured = runtime.block_on(async {
        let mut measured = Vec::new();
        for scenario in SCENARIOS.iter().filter(|s| only.is_empty() || only.iter().any(|key| key == s.key)) {
            eprintln!("\n{}", scenario.title);
            measured.extend(scenario.measure(runs, &dir).await);
        }
        measured
    });
    let failed = measured.iter().any(|row| !row.errors.is_empty());
    if only.is_empty() {
        let page = table::page(&measured, runs);
        print!("{page}");
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmarks.md");
        fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).expect("docs");
        fs::write(path, page).expect("docs/benchmarks.md");
    } else {
        print!("{}", table::table(&measured));
    }
    if failed {
        eprintln!("what failed is kept in {}", dir.display());
        return ExitCode::FAILURE;
    }
    fs::remove_dir_all(&dir).ok();
    ExitCode::SUCCESS
}

/// The plain copier as a process of its own: `limit <logins> <ca> <pairs>`, or the plain reader: `limit <logins> <ca> read`.
fn limit_process(args: &[String]) {
    let logins = fs::read_to_string(&args[0]).expect("logins");
    let mut lines = logins.lines().map(str::to_owned);
    let mut login = || limit::Login {
        port: lines.next().expect("port").parse().expect("port"),
        user: lines.next().expect("user"),
        password: lines.next().expect("password"),
    };
    let (source, destination) = (login(), login());
    let ca = fs::read(&args[1]).expect("CA");
    let reads = args[2] == "read";
    let pairs: usize = if reads { 1 } else { args[2].parse().expect("pairs") };
    // One thread for one pair: handing bytes from thread to thread costs more than it brings.
    let mut builder = match pairs {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.enable_all().build().expect("runtime");
    if reads {
        runtime.block_on(limit::read(&source, &destination, &ca));
    } else {
        runtime.block_on(limit::copy(&source, &destination, &ca, pairs));
    }
}
