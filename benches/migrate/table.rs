//! The table that is kept in `docs/benchmarks.md`.

use std::{fmt::Write as _, fs, process::Command};

use crate::{
    rows::{Measured, SCENARIOS},
    tools::{Cost, Tool},
};

/// What is to be reached.
enum Target {
    /// So many times what another tool took.
    Times(f64, Tool),
    /// The same, after the wait before an empty INBOX.
    TimesAndWait(f64, Tool),
    /// So much.
    AtMost(f64),
}

/// An empty INBOX must still be empty so many seconds after it was listed.
const WAIT: f64 = 2.0;

/// A line of the table: which number of which scenario.
struct Line {
    scenario: &'static str,
    title: String,
    number: fn(&Cost) -> f64,
    unit: &'static str,
    target: Option<Target>,
}

fn lines() -> Vec<Line> {
    let target = |key: &str| match key {
        "rtt" | "verify" => Some(Target::Times(1.05, Tool::Limit(1))),
        "big" | "fsync" => Some(Target::Times(1.05, Tool::Limit(4))),
        "small" | "large" => Some(Target::TimesAndWait(1.05, Tool::Limit(1))),
        "nothing" => Some(Target::AtMost(1.2)),
        "delta" => Some(Target::AtMost(1.5)),
        _ => None,
    };
    let mut lines: Vec<Line> = (SCENARIOS.iter())
        .map(|s| Line {
            scenario: s.key,
            title: s.title.to_owned(),
            number: |cost| cost.wall,
            unit: "s",
            target: target(s.key),
        })
        .collect();
    let memory = |scenario, what: &str| Line {
        scenario,
        title: format!("peak memory, {what}"),
        number: |cost| cost.memory,
        unit: "MiB",
        target: Some(Target::AtMost(32.0)),
    };
    lines.push(memory("big", "5,000 messages, 193 MB"));
    lines.push(memory("small", "50,000 messages"));
    lines.push(memory("adopt", "100,000 messages that are there"));
    lines.push(memory("huge", "a delta of 500,000 messages"));
    lines.push(memory("folders", "2,000 folders"));
    lines.push(memory("verify", "comparing 193 MB"));
    lines.push(memory("large", "a message of 100 MB"));
    lines.push(Line {
        scenario: "big",
        title: "own processor time, 5,000 messages".to_owned(),
        number: |cost| cost.cpu,
        unit: "s",
        target: Some(Target::AtMost(1.0)),
    });
    lines
}

/// The table, for the scenarios that were measured.
pub fn table(measured: &[Measured]) -> String {
    let tools = [Tool::Mbsync, Tool::Limit(1), Tool::Limit(4), Tool::Mailferry];
    let mut out = String::from("| | mbsync | limit | limit, 4 pairs | **mailferry** | to reach | |\n");
    out.push_str("| --- | ---: | ---: | ---: | ---: | ---: | --- |\n");
    for line in lines() {
        let rows: Vec<&Measured> = measured.iter().filter(|row| row.scenario == line.scenario).collect();
        if rows.is_empty() {
            continue;
        }
        let number = |tool: Tool| {
            let row = rows.iter().find(|row| row.tool == tool)?;
            Some(row.median().map(|cost| (line.number)(&cost)))
        };
        let show =
            |value: f64| format!("{value:.*} {}", usize::from(value < 10.0) + usize::from(value < 1.0), line.unit);
        write!(out, "| {} |", line.title).expect("string");
        for tool in tools {
            let cell = match number(tool) {
                None => String::new(),
                Some(None) => "failed".to_owned(),
                Some(Some(value)) => show(value),
            };
            write!(out, " {cell} |").expect("string");
        }
        let limit = line.target.as_ref().and_then(|target| match target {
            Target::AtMost(most) => Some(*most),
            Target::Times(factor, tool) => number(*tool).flatten().map(|value| value * factor),
            Target::TimesAndWait(factor, tool) => number(*tool).flatten().map(|value| value * factor + WAIT),
        });
        let verdict = match (number(Tool::Mailferry).flatten(), limit) {
            (Some(value), Some(limit)) if value <= limit => "reached",
            (Some(_), Some(_)) => "missed",
            _ => "",
        };
        writeln!(out, " {} | {verdict} |", limit.map_or_else(String::new, show)).expect("string");
    }
    out
}

/// The whole page.
pub fn page(measured: &[Measured], runs: usize) -> String {
    format!(
        "# Benchmarks\n\n\
         Written by `make bench`; {runs} runs of each, in turns, the median of each number. {}\n\n\
         Two Dovecots (Maildir) and the tool share the machine, with TLS; a proxy without bandwidth limit makes the\n\
         round trips, on both sides. Every run copies into a new account. `mail_fsync` is off unless said.\n\n\
         `limit` is a plain copier that does nothing else: one FETCH per folder, APPENDs of 50 messages that wait for\n\
         nothing, the target selected, no state, no checks. `mbsync` is isync's, with its defaults, keeping dates.\n\n\
         Of the comparison `limit` is a plain reader, which reads and hashes every message of both sides and compares\n\
         nothing.\n\n\
         An INBOX that is there and empty must still be empty two seconds later before Mailferry writes to it, since\n\
         a killed run's messages may still be arriving and its notes may be lost. Other folders are copied meanwhile;\n\
         what has none to wait with (50,000 messages in one folder, one of 100 MB) has this wait in `to reach`, too.\n\n\
         {}",
        machine(),
        table(measured)
    )
}

fn machine() -> String {
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let said = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        text.lines().next().unwrap_or("unknown").to_owned()
    };
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_owned()
    };
    let cpu = file("/proc/cpuinfo");
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let memory = value(&file("/proc/meminfo"), "MemTotal");
    let gib = memory.split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0).div_ceil(1 << 20);
    format!(
        "Measured on {cores} cores of {}, {gib} GiB, Linux {}, Dovecot {}, {}, mailferry {}.",
        value(&cpu, "model name"),
        file("/proc/sys/kernel/osrelease").trim(),
        said("dovecot", "--version").split(' ').next().unwrap_or_default(),
        said("mbsync", "--version"),
        env!("CARGO_PKG_VERSION"),
    )
}
