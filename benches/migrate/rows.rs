//! What is measured: the rows of the table.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use mailferry_testkit::{
    Corpus, CorpusMessage, Dovecot, DovecotOptions, FaultyProxy, RawImap, TestAccount, imap_client::quoted,
};

use crate::tools::{Cost, End, Tool};

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Into an empty account.
    Copy,
    /// After a run that copied everything.
    Nothing,
    /// The same, and 50 messages are new at the source, 100 changed flags, 20 gone.
    Delta,
    /// The same of one account over and over: it is too large to be made anew for each run.
    DeltaAgain,
    /// After a run that copied everything, and whose state is lost.
    Adopt,
    /// Comparing both sides, message for message, after a run that copied everything.
    Verify,
}

impl Work {
    /// It begins with two accounts that are equal.
    fn needs_copy(self) -> bool {
        self != Self::Copy
    }

    /// Something changes at the source before it.
    fn needs_changes(self) -> bool {
        matches!(self, Self::Delta | Self::DeltaAgain)
    }
}

/// One scenario, run with every tool.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// For `--only`.
    pub key: &'static str,
    /// As the table says it.
    pub title: &'static str,
    pub messages: usize,
    pub bytes: u64,
    pub folders: usize,
    /// Milliseconds, on both sides.
    pub round_trip: u64,
    /// Dovecot's default `mail_fsync`, or never.
    pub fsync: bool,
    pub work: Work,
    pub tools: &'static [Tool],
}

const ALL: &[Tool] = &[Tool::Mbsync, Tool::Limit(1), Tool::Mailferry];
const FOUR: &[Tool] = &[Tool::Mbsync, Tool::Limit(1), Tool::Limit(4), Tool::Mailferry];
const STATEFUL: &[Tool] = &[Tool::Mbsync, Tool::Mailferry];
const OWN: &[Tool] = &[Tool::Mailferry];
const READING: &[Tool] = &[Tool::Limit(1), Tool::Mailferry];

const THOUSAND: Scenario = Scenario {
    key: "rtt",
    title: "1,000 messages, 37 MB, 16 folders, 100 ms round trip",
    messages: 1_000,
    bytes: 37_000_000,
    folders: 16,
    round_trip: 100,
    fsync: false,
    work: Work::Copy,
    tools: ALL,
};

/// All of them, in the order of the table.
pub const SCENARIOS: [Scenario; 11] = [
    THOUSAND,
    Scenario {
        key: "big",
        title: "5,000 messages, 193 MB, 16 folders",
        messages: 5_000,
        bytes: 193_000_000,
        round_trip: 0,
        tools: FOUR,
        ..THOUSAND
    },
    Scenario {
        key: "fsync",
        title: "the same with Dovecot's default fsync",
        messages: 5_000,
        bytes: 193_000_000,
        round_trip: 0,
        fsync: true,
        tools: FOUR,
        ..THOUSAND
    },
    Scenario {
        key: "small",
        title: "50,000 messages of 1 kB in one folder",
        messages: 50_000,
        bytes: 50_000_000,
        folders: 1,
        round_trip: 0,
        ..THOUSAND
    },
    Scenario {
        key: "nothing",
        title: "nothing to do, 1,000 messages, 100 ms",
        work: Work::Nothing,
        tools: STATEFUL,
        ..THOUSAND
    },
    Scenario {
        key: "delta",
        title: "50 new, 100 flag changes, 20 deletions, 1,000 messages, 100 ms",
        work: Work::Delta,
        tools: STATEFUL,
        ..THOUSAND
    },
    Scenario {
        key: "folders",
        title: "nothing to do, 2,000 folders",
        messages: 4_000,
        bytes: 4_000_000,
        folders: 2_000,
        round_trip: 0,
        work: Work::Nothing,
        tools: STATEFUL,
        ..THOUSAND
    },
    Scenario {
        key: "huge",
        title: "50 new, 100 flag changes, 20 deletions, 500,000 messages",
        messages: 500_000,
        bytes: 250_000_000,
        folders: 10,
        round_trip: 0,
        work: Work::DeltaAgain,
        tools: OWN,
        ..THOUSAND
    },
    Scenario {
        key: "adopt",
        title: "100,000 messages that are there, without a checkpoint",
        messages: 100_000,
        bytes: 50_000_000,
        folders: 1,
        round_trip: 0,
        work: Work::Adopt,
        tools: OWN,
        ..THOUSAND
    },
    Scenario {
        key: "verify",
        title: "comparing 5,000 messages, 193 MB, with their copies",
        messages: 5_000,
        bytes: 193_000_000,
        round_trip: 0,
        work: Work::Verify,
        tools: READING,
        ..THOUSAND
    },
    Scenario {
        key: "large",
        title: "one message of 100 MB",
        messages: 1,
        bytes: 100_000_000,
        folders: 1,
        round_trip: 0,
        ..THOUSAND
    },
];

/// One tool's runs of one scenario.
#[derive(Debug, Clone)]
pub struct Measured {
    pub scenario: &'static str,
    pub tool: Tool,
    pub costs: Vec<Cost>,
    pub errors: Vec<String>,
}

impl Measured {
    /// The middle one of the runs, each number by itself; nothing where a run failed.
    pub fn median(&self) -> Option<Cost> {
        if self.costs.is_empty() || !self.errors.is_empty() {
            return None;
        }
        let middle = |number: fn(&Cost) -> f64| {
            let mut numbers: Vec<f64> = self.costs.iter().map(number).collect();
            numbers.sort_by(f64::total_cmp);
            f64::midpoint(numbers[(numbers.len() - 1) / 2], numbers[numbers.len() / 2])
        };
        Some(Cost { wall: middle(|c| c.wall), cpu: middle(|c| c.cpu), memory: middle(|c| c.memory) })
    }
}

impl Scenario {
    /// Runs every tool so many times, in turns, so that what slows the machine down slows all.
    pub async fn measure(&'static self, runs: usize, dir: &Path) -> Vec<Measured> {
        let options = DovecotOptions { fsync: self.fsync, ..DovecotOptions::default() };
        let servers = [Dovecot::start(&options), Dovecot::start(&options)];
        let proxies = [&servers[0], &servers[1]].map(|server| FaultyProxy::start(server.tls_port(), Duration::ZERO));
        let stage = Stage { scenario: self, servers: &servers, proxies: &proxies, dir };
        let corpus = self.corpus();
        let source = servers[0].account();
        source.connect().await.seed(&corpus).await;
        // The first reader of a mailbox fills the server's caches for all others.
        let warm_up = Stage { scenario: &Self { work: Work::Copy, ..*self }, ..stage };
        warm_up.once(Tool::Limit(1), &source, "warm-up").await.expect("the warm-up run");
        let lasting = match self.work {
            Work::DeltaAgain => Some(stage.copied(Tool::Mailferry, &source, "lasting").expect("the copy")),
            _ => None,
        };
        let mut measured: Vec<Measured> = (self.tools.iter())
            .map(|&tool| Measured { scenario: self.key, tool, costs: Vec::new(), errors: Vec::new() })
            .collect();
        for run in 0..runs {
            for row in &mut measured {
                let name = format!("{}-{}-{run}", self.key, row.tool.name().replace(", ", "-").replace(' ', "-"));
                let once = match &lasting {
                    Some((destination, dir)) => stage.again(row.tool, &source, destination, dir).await,
                    None => stage.once(row.tool, &source, &name).await,
                };
                match once {
                    Ok(cost) => {
                        eprintln!("{name}: {:.2} s, own CPU {:.2} s, {:.1} MiB", cost.wall, cost.cpu, cost.memory);
                        row.costs.push(cost);
                    }
                    Err(error) => {
                        eprintln!("{name}: {error}");
                        row.errors.push(error);
                    }
                }
            }
        }
        measured
    }

    fn corpus(&self) -> Corpus {
        if self.messages == 1 {
            return Corpus::default().with_large(usize::try_from(self.bytes).expect("fits"));
        }
        Corpus::bulk(self.messages, self.bytes, self.folders, 1)
    }
}

/// Where a scenario is played.
#[derive(Clone, Copy)]
struct Stage<'a> {
    scenario: &'a Scenario,
    servers: &'a [Dovecot; 2],
    proxies: &'a [FaultyProxy; 2],
    dir: &'a Path,
}

impl<'a> Stage<'a> {
    /// Both ends as a tool reaches them. Without delay nothing stands between: a proxy costs processor time of its own.
    fn ends<'b>(&self, source: &'b TestAccount<'b>, destination: &'b TestAccount<'b>) -> [End<'b>; 2] {
        let direct = self.scenario.round_trip == 0;
        let port = |at: usize| if direct { self.servers[at].tls_port() } else { self.proxies[at].port() };
        [End { account: source, port: port(0) }, End { account: destination, port: port(1) }]
    }

    /// A new account into which a tool copied everything, and what the tool remembers of it.
    fn copied(&self, tool: Tool, source: &TestAccount<'_>, name: &str) -> Result<(TestAccount<'a>, PathBuf), String> {
        let (destination, dir) = (self.servers[1].account(), self.dir.join(name));
        self.set_round_trip(0);
        let [from, to] = self.ends(source, &destination);
        // A plain reader copies nothing.
        let tool = if matches!(tool, Tool::Limit(_)) { Tool::Mailferry } else { tool };
        tool.run(Work::Copy, [&from, &to], &dir)?;
        Ok((destination, dir))
    }

    /// One run into a new account, with new state.
    async fn once(&self, tool: Tool, source: &TestAccount<'_>, name: &str) -> Result<Cost, String> {
        let work = self.scenario.work;
        let own_source;
        let source = if work == Work::Delta {
            own_source = self.servers[0].account();
            own_source.connect().await.seed(&self.scenario.corpus()).await;
            &own_source
        } else {
            source
        };
        let (destination, dir) = if work.needs_copy() {
            self.copied(tool, source, name)?
        } else {
            (self.servers[1].account(), self.dir.join(name))
        };
        let cost = self.again(tool, source, &destination, &dir).await?;
        let used = [&destination, source];
        for account in used.into_iter().take(if work == Work::Delta { 2 } else { 1 }) {
            fs::remove_dir_all(account.server.home(&account.user)).map_err(|e| e.to_string())?;
        }
        fs::remove_dir_all(&dir).map_err(|e| e.to_string())?;
        Ok(cost)
    }

    /// One run between these accounts, with the state in `dir`.
    async fn again(
        &self,
        tool: Tool,
        source: &TestAccount<'_>,
        destination: &TestAccount<'_>,
        dir: &Path,
    ) -> Result<Cost, String> {
        let work = self.scenario.work;
        if work.needs_changes() {
            change(&mut source.connect().await).await;
        }
        if work == Work::Adopt {
            fs::remove_dir_all(dir.join("state")).map_err(|e| e.to_string())?;
        }
        // Messages that are gone at the source stay at the destination.
        let before = if work.needs_changes() { messages(&mut destination.connect().await).await } else { 0 };
        self.set_round_trip(self.scenario.round_trip);
        let [from, to] = self.ends(source, destination);
        let cost = tool.run(work, [&from, &to], dir)?;
        // What a tool failed to do must not count as speed.
        let found = messages(&mut destination.connect().await).await;
        let expected = if work.needs_changes() {
            if tool == Tool::Mbsync { before + NEW - DELETED..=before + NEW } else { before + NEW..=before + NEW }
        } else {
            let all = messages(&mut source.connect().await).await;
            all..=all
        };
        if !expected.contains(&found) {
            return Err(format!("{found} messages at the destination instead of {expected:?}"));
        }
        Ok(cost)
    }

    fn set_round_trip(&self, milliseconds: u64) {
        self.proxies.iter().for_each(|proxy| proxy.set_delay(Duration::from_millis(milliseconds) / 2));
    }
}

const NEW: usize = 50;
const DELETED: usize = 20;

/// 50 new messages, 100 flag changes, 20 deletions, over the first ten folders.
async fn change(source: &mut RawImap) {
    let folders = source.folders().await;
    for folder in folders.iter().take(10) {
        let reply = source.command_ok(&format!("STATUS {} (UIDNEXT)", quoted(&folder.raw))).await;
        let next: u32 = reply.untagged[0][2].list()[1].text().parse().expect("UIDNEXT");
        let new = |at: u32| {
            let id = format!("new{}@{}", next + at, folder.raw.len());
            CorpusMessage::new(format!("Message-ID: <{id}>\r\nSubject: new\r\n\r\nnew\r\n"))
        };
        source.append(&folder.raw, &(0..5).map(new).collect::<Vec<_>>()).await;
        // Each time the other way.
        let sign = if next.is_multiple_of(2) { '+' } else { '-' };
        source.store(&folder.raw, "1:10", &format!("{sign}FLAGS.SILENT (\\Flagged)")).await;
        source.expunge(&folder.raw, "11:12").await;
    }
}

/// How many messages an account holds.
async fn messages(imap: &mut RawImap) -> usize {
    let mut total = 0;
    for folder in imap.folders().await {
        let reply = imap.command_ok(&format!("STATUS {} (MESSAGES)", quoted(&folder.raw))).await;
        total += reply.untagged[0][2].list()[1].text().parse::<usize>().expect("MESSAGES");
    }
    total
}
