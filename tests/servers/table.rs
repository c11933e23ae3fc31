//! docs/servers.md: what works between which servers, and what each server makes of odd mail.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
};

use mailferry_testkit::{CorpusMessage, ServerMake, imap_client::quoted, snapshot::parse_date_time};

use crate::{
    can_run,
    corpus::{NAMES, nasty},
    features::Feature,
    known::known_faults,
    truth::{self, Message},
};

const PAGE: &str = "docs/servers.md";

/// Compares a part of the page, from its marker to the next, with what it should be; writes it where asked to.
fn part_is_fresh(part: &str, text: &str) {
    static WRITER: Mutex<()> = Mutex::new(());
    let _held = WRITER.lock().unwrap_or_else(PoisonError::into_inner);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- {part} -->\n"), format!("<!-- end of {part} -->"));
    let (before, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("{PAGE} has no {begin}"));
    let (there, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{PAGE} has no {end}"));
    if env::var_os("MAILFERRY_WRITE").is_some() {
        fs::write(&path, [before, &begin, text, &end, after].concat()).unwrap();
    } else {
        assert_eq!(there, text, "{PAGE} is stale: MAILFERRY_WRITE=yes cargo test --test servers table");
    }
}

#[test]
fn the_table_of_pairs_is_fresh() {
    let mut notes: Vec<&str> = Vec::new();
    let titles: Vec<&str> = Feature::ALL.iter().map(|feature| feature.title()).collect();
    let mut table = format!("| from | to | {} |\n|---|---|{}\n", titles.join(" | "), "---|".repeat(titles.len()));
    for from in ServerMake::ALL {
        for to in ServerMake::ALL.into_iter().filter(|to| from != ServerMake::Dovecot || *to != ServerMake::Dovecot) {
            write!(table, "| {} | {} |", from.name(), to.name()).unwrap();
            for feature in Feature::ALL {
                let faults = known_faults(from, to, feature).into_iter().map(|fault| fault.what);
                let numbers: Vec<String> = faults
                    .map(|what| {
                        let at = notes.iter().position(|note| *note == what).unwrap_or_else(|| {
                            notes.push(what);
                            notes.len() - 1
                        });
                        (at + 1).to_string()
                    })
                    .collect();
                let cell = if numbers.is_empty() { "yes".to_owned() } else { format!("but {}", numbers.join(", ")) };
                write!(table, " {cell} |").unwrap();
            }
            table.push('\n');
        }
    }
    table.push('\n');
    for (at, note) in notes.iter().enumerate() {
        writeln!(table, "{}. {note}", at + 1).unwrap();
    }
    part_is_fresh("pairs", &table);
}

/// What became of a message, in a word or two.
fn outcome(sent: &CorpusMessage, stored: Option<&Message>) -> String {
    let Some(stored) = stored else { return "refused".to_owned() };
    let mut what = Vec::new();
    if stored.body != sent.body {
        what.push(changed(&sent.body, &stored.body));
    }
    if sent.flags.iter().any(|flag| !stored.flags.contains(&flag.to_lowercase())) {
        what.push("flags lost".to_owned());
    }
    if sent.date.as_ref().is_some_and(|date| parse_date_time(date) != stored.date) {
        what.push("other date".to_owned());
    }
    if what.is_empty() { "kept".to_owned() } else { what.join(", ") }
}

/// How a body was changed.
fn changed(sent: &[u8], stored: &[u8]) -> String {
    let with_lf = |body: &[u8]| -> Vec<u8> {
        let ends = body.windows(2).map(|pair| pair == b"\r\n").chain([false]);
        body.iter().zip(ends).filter(|(_, end)| !end).map(|(byte, _)| *byte).collect()
    };
    let without = |body: &[u8], what: u8| -> Vec<u8> { body.iter().copied().filter(|byte| *byte != what).collect() };
    let replaced = |from: &dyn Fn(u8) -> bool, to: u8| -> Vec<u8> {
        sent.iter().zip(stored).map(|(s, d)| if from(*s) && *d == to { to } else { *s }).collect()
    };
    let (sent_lines, stored_lines) = (with_lf(sent), with_lf(stored));
    let what = match stored {
        [] => "content gone",
        _ if stored_lines == sent_lines => "other line ends",
        _ if stored_lines.trim_ascii_end() == sent_lines.trim_ascii_end() => "line end added",
        _ if stored == replaced(&|byte| byte >= 0x80, b'X') => "8-bit in header: X",
        _ if stored == replaced(&|byte| byte == 0, 0x80) => "NUL: 0x80",
        _ if without(stored, b'\r') == without(sent, b'\r') => "CR lost",
        _ => "changed",
    };
    what.to_owned()
}

/// A table with one column for each server: rows by their order, cells by the server's name.
fn columns(title: &str, rows: &[(String, BTreeMap<&str, String>)]) -> String {
    let names: Vec<&str> = ServerMake::ALL.iter().map(|make| make.name()).collect();
    let mut table = format!("| {title} | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for (row, cells) in rows {
        let cells: Vec<&str> = names.iter().map(|name| cells[name].as_str()).collect();
        writeln!(table, "| {} | {} |", row.replace('|', "\\|"), cells.join(" | ")).unwrap();
    }
    table
}

#[tokio::test(flavor = "multi_thread")]
async fn what_servers_make_of_odd_messages_is_as_the_page_says() {
    if !can_run(&ServerMake::ALL) {
        return;
    }
    let mut rows: Vec<(String, BTreeMap<&str, String>)> =
        nasty().iter().map(|(name, _)| ((*name).to_owned(), BTreeMap::new())).collect();
    let messages: Vec<CorpusMessage> = nasty().into_iter().map(|(_, message)| message).collect();
    for make in ServerMake::ALL {
        let server = tokio::task::spawn_blocking(move || make.shared()).await.unwrap();
        let stored = truth::stored(&server.account(), &messages).await;
        for ((_, cells), (sent, stored)) in rows.iter_mut().zip(messages.iter().zip(&stored)) {
            cells.insert(make.name(), outcome(sent, stored.as_ref()));
        }
    }
    // Where all agree there is nothing to tell; pymap keeps mail in files with LF.
    rows.retain(|(_, cells)| cells.iter().any(|(name, cell)| *name != "pymap" && cell != "kept"));
    part_is_fresh("odd messages", &columns("message", &rows));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_servers_make_of_odd_folder_names_is_as_the_page_says() {
    if !can_run(&ServerMake::ALL) {
        return;
    }
    let mut rows: Vec<(String, BTreeMap<&str, String>)> = Vec::new();
    for name in NAMES {
        rows.push((format!("`{name}`"), BTreeMap::new()));
    }
    for make in ServerMake::ALL {
        let server = tokio::task::spawn_blocking(move || make.shared()).await.unwrap();
        let account = server.account();
        let namespace = account.connect().await.namespace().await;
        for ((_, cells), name) in rows.iter_mut().zip(NAMES) {
            let cell = if name.contains(namespace.separator) && !name.contains('/') {
                "separator".to_owned()
            } else {
                let raw = namespace.raw(name);
                let (creator, create) = (account.clone(), format!("CREATE {}", quoted(&raw)));
                let created =
                    tokio::spawn(
                        async move { creator.connect().await.command(create.as_bytes()).await.status == "OK" },
                    );
                let Ok(created) = created.await else {
                    cells.insert(make.name(), "connection closed".to_owned());
                    continue;
                };
                let listed = account.connect().await.folders().await;
                match (created, listed.iter().any(|folder| folder.raw == raw)) {
                    (true, true) => "taken".to_owned(),
                    (true, false) => "taken, listed otherwise".to_owned(),
                    (false, true) => "there already".to_owned(),
                    (false, false) => "refused".to_owned(),
                }
            };
            cells.insert(make.name(), cell);
        }
    }
    rows.retain(|(_, cells)| cells.values().any(|cell| cell != "taken"));
    part_is_fresh("odd names", &columns("name", &rows));
}
