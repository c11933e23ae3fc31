//! A source that behaves as Exchange Online does: folders that hold no mail, sizes that are estimates, few extensions, and
//! a pace that it asks for to the millisecond.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use mailferry::Side;
use tokio::time::Instant;

use crate::{
    fake::{Act, Fake, MODERN, Mail, mails},
    rig::{Rig, copied},
};

/// As outlook.office365.com announces them: neither CONDSTORE nor LIST-STATUS nor SPECIAL-USE nor ESEARCH.
const EXCHANGE: &str =
    "IMAP4 IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 SASL-IR UIDPLUS MOVE ID UNSELECT CHILDREN IDLE NAMESPACE LITERAL+";

fn introduction(command: &str) -> Option<Act> {
    let name =
        "* ID (\"name\" \"Microsoft.Exchange.Imap4.Imap4Server\" \"version\" \"15.20\")\r\n{tag} OK ID completed.\r\n";
    command.starts_with("ID ").then(|| Act::send(name))
}

/// With folders of an account in German, and sizes that are a little off.
async fn exchange(twist: impl Fn(&str, usize) -> Option<Act> + Send + Sync + 'static) -> Fake {
    let source =
        Fake::twisted(EXCHANGE, Vec::new(), move |command, n| introduction(command).or_else(|| twist(command, n)))
            .await;
    let sized = |count: u32| {
        let estimate = |mail: Mail| Mail { size: Some(mail.body.len() as u64 + u64::from(mail.uid % 7) * 11), ..mail };
        mails(count).into_iter().map(estimate).collect::<Vec<_>>()
    };
    for (folder, count) in
        [("INBOX", 60), ("Kunden", 5), ("Notes", 2), ("Kalender", 9), ("Kontakte", 4), ("Notizen", 1)]
    {
        source.change(folder, |mails| *mails = sized(count));
    }
    source.change("Kalender/Geburtstage", |mails| *mails = sized(3));
    source
}

fn rig(source: &Fake, destination: &Fake) -> Rig {
    Rig::between(source.endpoint(Side::Source), destination.endpoint(Side::Destination))
}

#[tokio::test(start_paused = true)]
async fn folders_of_exchange_that_hold_no_mail_are_left_out_and_told() {
    let source = exchange(|_, _| None).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let report = rig(&source, &destination).sync().await;
    let left: Vec<_> = report.left_out.iter().map(|left| left.folder.as_str()).collect();
    assert_eq!(left, ["Kalender", "Kalender/Geburtstage", "Kontakte", "Notizen"], "{report:#?}");
    assert!(report.left_out.iter().all(|left| left.reason.contains("no mail") && left.messages.is_some()));
    assert_eq!(report.not_copied.as_ref().map(|not_copied| not_copied.messages), Some(0), "{report:#?}");
    assert_eq!((copied(&report), destination.mails("Notes").len()), (67, 2), "Notes is a folder of its user");
}

#[tokio::test(start_paused = true)]
async fn estimated_sizes_and_few_extensions_cost_no_message_and_no_second_reading() {
    let source = exchange(|_, _| None).await;
    let destination = Fake::start(MODERN, Vec::new()).await;
    let rig = rig(&source, &destination);
    let report = rig.sync().await;
    assert_eq!(copied(&report), 67, "{report:#?}");
    assert!(report.folders.iter().all(|folder| folder.differences.is_empty()), "{report:#?}");
    let bodies = |fake: &Fake| fake.heard("BODY.PEEK[]");
    let (read, commands) = (bodies(&source), source.heard(""));
    let report = rig.sync().await;
    assert_eq!((copied(&report), bodies(&source) - read), (0, 0), "{report:#?}");
    let commands = source.heard("") - commands;
    assert!(commands < 40, "{commands} commands for three folders in which nothing changed");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_throttles_is_left_alone_on_all_connections_as_long_as_it_asks() {
    const WAIT: Duration = Duration::from_millis(92_415);
    for throttled in ["UID FETCH", "EXAMINE", "STATUS"] {
        let heard: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let asked: Arc<Mutex<Option<Instant>>> = Arc::default();
        let (all, first) = (Arc::clone(&heard), Arc::clone(&asked));
        let source = exchange(move |command, _| {
            let now = Instant::now();
            let mut first = first.lock().unwrap();
            if first.is_none() && command.starts_with(throttled) {
                *first = Some(now);
                return Some(Act::send(
                    "{tag} BAD Request is throttled. Suggested Backoff Time: 92415 milliseconds\r\n",
                ));
            }
            all.lock().unwrap().push(now);
            None
        })
        .await;
        let destination = Fake::start(MODERN, Vec::new()).await;
        let mut rig = rig(&source, &destination);
        rig.spec.retry.patience = Duration::from_mins(15);
        let report = rig.sync().await;
        assert_eq!(copied(&report), 67, "{report:#?}");
        let asked = asked.lock().unwrap().expect("it asked");
        // What was on its way comes at once.
        let after = asked + Duration::from_millis(100);
        let early = heard.lock().unwrap().iter().filter(|at| **at > after && **at < asked + WAIT).count();
        assert_eq!(early, 0, "commands came before the {throttled}'s time was over");
        let waited = Instant::now() - asked;
        assert!(waited < WAIT + Duration::from_secs(30), "{throttled}: {waited:?}");
    }
}
