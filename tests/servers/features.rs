//! What must work between any two servers. Each says what is wrong, if anything.

use std::{collections::BTreeSet, time::Duration};

use mailferry::{
    Side,
    imap::{ConnectionSecurity, Endpoint, TlsOptions},
    sync::{report::MailboxReport, spec::DeletionHandling},
};
use mailferry_testkit::{CorpusMessage, FaultyProxy, ServerAccount, ServerMake};
use serde_json::Value;

use crate::{
    corpus::{NAMES, is_listed_right, nasty, numbered, plain, seed},
    rig::{Rig, adopted, copied, endpoint},
    truth::{self, Mailbox, append_each, complaints},
};

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// All of a plain mailbox arrives.
    FirstRun,
    /// A second run copies nothing.
    Rerun,
    /// A run without the checkpoint adopts everything.
    StateLost,
    /// A run that was killed is gone on with.
    Resume,
    /// New mail and changed flags follow, deleted mail stays.
    Delta,
    /// Deleted mail is deleted, and nothing else.
    Mirror,
    /// Every odd message arrives or is told.
    OddMessages,
    /// Every odd folder name is there or told.
    OddNames,
}

impl Feature {
    pub const ALL: [Self; 8] = [
        Self::FirstRun,
        Self::Rerun,
        Self::StateLost,
        Self::Resume,
        Self::Delta,
        Self::Mirror,
        Self::OddMessages,
        Self::OddNames,
    ];

    /// The column's title.
    pub fn title(self) -> &'static str {
        match self {
            Self::FirstRun => "first run",
            Self::Rerun => "rerun",
            Self::StateLost => "state lost",
            Self::Resume => "resume",
            Self::Delta => "delta",
            Self::Mirror => "mirror",
            Self::OddMessages => "odd messages",
            Self::OddNames => "odd names",
        }
    }

    /// Tries it with two new accounts; what is wrong.
    pub async fn try_between(self, from: ServerMake, to: ServerMake) -> Vec<String> {
        let pair = Pair { source: from.shared().account(), destination: to.shared().account() };
        match self {
            Self::FirstRun => first_run(&pair).await,
            Self::Rerun => rerun(&pair).await,
            Self::StateLost => state_lost(&pair).await,
            Self::Resume => resume(&pair).await,
            Self::Delta => delta(&pair).await,
            Self::Mirror => mirror(&pair).await,
            Self::OddMessages => odd_messages(&pair).await,
            Self::OddNames => odd_names(&pair).await,
        }
    }
}

/// Two accounts.
struct Pair {
    source: ServerAccount<'static>,
    destination: ServerAccount<'static>,
}

fn plaintext(side: Side, port: u16, account: &ServerAccount<'_>) -> Endpoint {
    let mut endpoint = endpoint(side, port, &account.user, &account.password);
    endpoint.tls = TlsOptions { mode: ConnectionSecurity::None, ..TlsOptions::default() };
    endpoint
}

impl Pair {
    fn rig(&self) -> Rig {
        self.rig_by(self.destination.server.port())
    }

    /// The destination is behind a port of its own.
    fn rig_by(&self, port: u16) -> Rig {
        let source = plaintext(Side::Source, self.source.server.port(), &self.source);
        Rig::between(source, plaintext(Side::Destination, port, &self.destination))
    }

    /// Syncs, and says what is wrong with what the destination holds now.
    async fn sync(&self, rig: &Rig) -> (MailboxReport, Vec<String>) {
        self.sync_after(rig, &[]).await
    }

    /// The same after other runs.
    async fn sync_after(&self, rig: &Rig, earlier: &[MailboxReport]) -> (MailboxReport, Vec<String>) {
        let before = truth::read(&self.source).await;
        let report = rig.try_sync().await;
        let after = truth::read(&self.destination).await;
        let reports: Vec<Value> = earlier.iter().chain([&report]).map(|r| serde_json::to_value(r).unwrap()).collect();
        let mut wrong = complaints(&before, &after, &self.destination, &reports).await;
        wrong.extend(report.gravest_error().map(|error| format!("ended with an error: {error}")));
        let unfinished = report.folders.iter().filter(|folder| !folder.complete && folder.error.is_none());
        wrong.extend(unfinished.map(|folder| format!("{}: not complete: {:?}", folder.source, folder.doubts)));
        if content(&truth::read(&self.source).await) != content(&before) {
            wrong.push("the source was changed".to_owned());
        }
        (report, wrong)
    }
}

/// What a sync must not change at the source. Not the date: Dovecot itself tells one of 1969 otherwise in a while.
fn content(mailbox: &Mailbox) -> Vec<(&str, u32, &[u8], &BTreeSet<String>)> {
    let messages = mailbox.iter().flat_map(|(path, folder)| folder.messages.iter().flatten().map(move |m| (path, m)));
    messages.map(|(path, message)| (path.as_str(), message.uid, &message.body[..], &message.flags)).collect()
}

async fn first_run(pair: &Pair) -> Vec<String> {
    seed(&pair.source, &plain()).await;
    let (report, mut wrong) = pair.sync(&pair.rig()).await;
    let mail = plain().iter().map(|(_, _, messages)| messages.len() as u64).sum::<u64>();
    if copied(&report) != mail {
        wrong.push(format!("{} of {mail} messages told as copied", copied(&report)));
    }
    let after = truth::read(&pair.destination).await;
    for (path, _, _) in plain() {
        if !after.contains_key(path) {
            wrong.push(format!("no folder {path:?} at the destination"));
        }
    }
    wrong
}

async fn rerun(pair: &Pair) -> Vec<String> {
    seed(&pair.source, &plain()).await;
    let rig = pair.rig();
    let first = rig.try_sync().await;
    let before = truth::read(&pair.destination).await;
    let (report, mut wrong) = pair.sync_after(&rig, &[first]).await;
    let (again, taken) = (copied(&report), adopted(&report));
    if again + taken > 0 {
        wrong.push(format!("the second run copied {again} and adopted {taken}"));
    }
    if truth::read(&pair.destination).await != before {
        wrong.push("the second run changed the destination".to_owned());
    }
    wrong
}

async fn state_lost(pair: &Pair) -> Vec<String> {
    seed(&pair.source, &plain()).await;
    let rig = pair.rig();
    let first = rig.try_sync().await;
    let before = truth::read(&pair.destination).await;
    rig.store.lose();
    let (report, mut wrong) = pair.sync_after(&rig, &[first]).await;
    if copied(&report) > 0 {
        wrong.push(format!("{} copied again without the checkpoint", copied(&report)));
    }
    if truth::read(&pair.destination).await != before {
        wrong.push("the run without a checkpoint changed the destination".to_owned());
    }
    wrong
}

async fn resume(pair: &Pair) -> Vec<String> {
    let mail = numbered("many", 60);
    let bytes: u64 = mail.iter().map(|message| message.body.len() as u64).sum();
    seed(&pair.source, &[("INBOX", true, mail)]).await;
    let proxy = FaultyProxy::start(pair.destination.server.port(), Duration::ZERO);
    let rig = pair.rig_by(proxy.port());
    rig.sync_killed_after(&proxy, bytes / 2).await;
    let (_, wrong) = pair.sync(&rig).await;
    let twins = pair.destination.uids_of_one_file();
    let is_twin = |what: &String| twins.iter().any(|uid| what.contains(&format!("too many: UID {uid} ")));
    wrong.into_iter().map(|what| if is_twin(&what) { format!("one file, two UIDs: {what}") } else { what }).collect()
}

/// The UIDs of an account's INBOX.
async fn uids(account: &ServerAccount<'_>) -> Vec<u32> {
    truth::read_inbox(account).await.iter().map(|message| message.uid).collect()
}

async fn delta(pair: &Pair) -> Vec<String> {
    seed(&pair.source, &[("INBOX", true, numbered("first", 10))]).await;
    let rig = pair.rig();
    let first = rig.try_sync().await;
    let uids = uids(&pair.source).await;
    let mut source = pair.source.connect().await;
    source.store("INBOX", &format!("{}:{}", uids[0], uids[1]), "+FLAGS (\\Flagged \\Draft)").await;
    source.store("INBOX", &uids[2].to_string(), "-FLAGS (\\Seen)").await;
    source.expunge("INBOX", &uids[9].to_string()).await;
    append_each(&pair.source, "INBOX", &numbered("later", 3)).await;
    let gone = truth::read_inbox(&pair.destination).await.last().cloned();
    let (report, wrong) = pair.sync_after(&rig, &[first]).await;
    // The deleted one stays at the destination: the only one too many.
    let expected = gone.map(|gone| format!("UID {} ", gone.uid)).unwrap_or_default();
    let (stays, mut wrong): (Vec<_>, Vec<_>) =
        wrong.into_iter().partition(|what| what.contains("too many: ") && what.contains(&expected));
    if stays.len() != 1 {
        wrong.push("the message that was deleted at the source is not kept".to_owned());
    }
    if copied(&report) != 3 {
        wrong.push(format!("{} copied of 3 that are new", copied(&report)));
    }
    wrong
}

async fn mirror(pair: &Pair) -> Vec<String> {
    seed(&pair.source, &[("INBOX", true, numbered("first", 10))]).await;
    let mut rig = pair.rig();
    rig.spec.delete_policy = DeletionHandling::Mirror;
    let first = rig.try_sync().await;
    let own = CorpusMessage::new("Message-ID: <own@example.org>\r\nSubject: own\r\n\r\nThe user's own.\r\n");
    append_each(&pair.destination, "INBOX", &[own.flagged(&["\\Deleted"])]).await;
    let uids = uids(&pair.source).await;
    pair.source.connect().await.expunge("INBOX", &format!("{},{}", uids[1], uids[8])).await;
    let (report, wrong) = pair.sync_after(&rig, &[first]).await;
    let (own, mut wrong): (Vec<_>, Vec<_>) =
        wrong.into_iter().partition(|what| what.contains("too many: ") && what.contains("<own@example.org>"));
    if own.len() != 1 {
        wrong.push("the user's own message at the destination is gone".to_owned());
    }
    let deleted: u64 = report.folders.iter().map(|folder| folder.deleted).sum();
    if deleted != 2 {
        let doubts: Vec<_> = report.folders.iter().flat_map(|folder| &folder.doubts).collect();
        wrong.push(format!("{deleted} of 2 deleted: {doubts:?}"));
    }
    wrong
}

async fn odd_messages(pair: &Pair) -> Vec<String> {
    let odd: Vec<CorpusMessage> = nasty().into_iter().map(|(_, message)| message).collect();
    let many: Vec<CorpusMessage> = numbered("keywords", 12)
        .into_iter()
        .enumerate()
        .map(|(at, message)| {
            let keywords: Vec<String> = (0..10).map(|n| format!("kw-{at}-{n}")).collect();
            message.flagged(&keywords.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .collect();
    let around = [numbered("before", 10), odd, numbered("after", 10)].concat();
    seed(&pair.source, &[("INBOX", true, around), ("Keywords", true, many)]).await;
    let rig = pair.rig();
    let (_, mut wrong) = pair.sync(&rig).await;
    let before = truth::read(&pair.destination).await;
    let again = rig.try_sync().await;
    wrong.extend(surplus(&before, &truth::read(&pair.destination).await, "the second run"));
    if copied(&again) > 0 {
        wrong.push(format!("the second run told {} as copied", copied(&again)));
    }
    rig.store.lose();
    rig.try_sync().await;
    wrong.extend(surplus(&before, &truth::read(&pair.destination).await, "the run without a checkpoint"));
    wrong
}

/// The messages that a run added, though it had nothing to do.
fn surplus(before: &Mailbox, after: &Mailbox, run: &str) -> Vec<String> {
    let all = |mailbox: &Mailbox| -> BTreeSet<(String, u32)> {
        content(mailbox).into_iter().map(|(path, uid, _, _)| (path.to_owned(), uid)).collect()
    };
    let had = all(before);
    let new = content(after).into_iter().filter(|(path, uid, _, _)| !had.contains(&((*path).to_owned(), *uid)));
    new.map(|(path, _, body, _)| {
        format!("{path}: copied again by {run}: {:?}", String::from_utf8_lossy(&body[..body.len().min(40)]))
    })
    .collect()
}

async fn odd_names(pair: &Pair) -> Vec<String> {
    let makes = [pair.source.server.make(), pair.destination.server.make()];
    let names = NAMES.iter().filter(|name| makes.iter().all(|make| is_listed_right(*make, name)));
    let folders: Vec<_> = names.enumerate().map(|(at, name)| (*name, true, numbered(&format!("in{at}"), 1))).collect();
    seed(&pair.source, &folders).await;
    let rig = pair.rig();
    let (_, mut wrong) = pair.sync(&rig).await;
    let (report, _) = pair.sync(&rig).await;
    if copied(&report) + adopted(&report) > 0 {
        wrong.push(format!("the second run copied {} and adopted {}", copied(&report), adopted(&report)));
    }
    wrong
}
