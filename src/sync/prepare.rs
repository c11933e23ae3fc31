//! Before the first message: survey both accounts, plan where folders go, make what is missing, and find out which
//! folders changed at all.

use tokio::time::Instant;

use super::{
    checkpoint::{Checkpoint, FolderState, Settled},
    doubt::Look,
    folder::Job,
    folder_map::{FolderInfo, FolderPlan, PlannedFolder, SideFolders, plan},
    ledger::Ledger,
    pair::Pair,
    renames::follow_renames,
    report::{FolderReport, MailboxReport},
    spec::{DeletePolicy, FlagPolicy, SyncSpec},
};
use crate::{
    error::{Error, Result},
    imap::{
        Session, Tag,
        classify::Asked,
        folders::{Survey, survey},
        response::{Code, FolderStatus, Status},
    },
};

/// What is to be done.
pub struct Prepared {
    /// Folders to open, in the order of work.
    pub jobs: Vec<Job>,
    /// Folders in which nothing changed.
    pub unchanged: Vec<FolderReport>,
}

/// Surveys, plans, makes folders and subscriptions, and writes into the checkpoint what must be known before anything is
/// appended.
///
/// # Errors
/// When a connection ends or a side refuses what cannot be done without; Configuration when both sides turn out to be the
/// same account.
pub async fn prepare(
    spec: &SyncSpec,
    pair: &mut Pair,
    ledger: &Ledger,
    report: &mut MailboxReport,
) -> Result<Prepared> {
    refuse_same_account(pair)?;
    let Pair { source, destination } = pair;
    let (source, destination) = tokio::join!(survey(source, false), survey(destination, false));
    let (source, destination) = (source?, destination?);
    let looked_at = Instant::now();

    follow_renames(pair, ledger, &source, report).await?;
    let frozen = ledger.read(|checkpoint| checkpoint.mapping.clone());
    let plan = plan(&side(&source), &side(&destination), &spec.folders, &frozen, spec.destination.quirks);
    report.left_out.clone_from(&plan.left_out);
    report.notes.extend(plan.notes.iter().map(|(folder, note)| format!("{folder}: {note}")));
    let created = if spec.dry_run { Vec::new() } else { make_folders(&plan, &destination, pair, report).await? };
    if !spec.dry_run {
        ledger.update(|checkpoint| {
            for folder in &plan.folders {
                checkpoint.mapping.insert(folder.source_raw.clone(), folder.destination_raw.clone());
            }
        });
    }

    let mut prepared = Prepared { jobs: Vec::new(), unchanged: Vec::new() };
    for folder in plan.folders.iter().filter(|folder| !folder.is_container) {
        let listed = source.folder(&folder.source_raw).and_then(|f| f.status.clone()).unwrap_or_default();
        let there = destination.folder(&folder.destination_raw).and_then(|f| f.status.clone());
        let state = ledger.read(|checkpoint| checkpoint.folders.get(&folder.source_raw).cloned());
        let job = job(folder, &listed, there.as_ref(), created.contains(&folder.destination_raw), spec, looked_at);
        match (&state, &there) {
            (Some(state), Some(there)) if is_unchanged(state, &listed, there, spec) => {
                let mut unchanged = job.report();
                unchanged.unchanged = true;
                unchanged.complete = true;
                unchanged.source_messages = u64::from(job.messages);
                unchanged.copied_before = state.map.len();
                prepared.unchanged.push(unchanged);
            }
            _ => prepared.jobs.push(job),
        }
    }
    // Folders in which a look must be waited for come last, so that the wait costs nothing; large ones come first.
    ledger.read(|checkpoint| {
        prepared.jobs.sort_by_key(|job| (needs_look(job, checkpoint), std::cmp::Reverse(job.messages)));
    });
    if !spec.dry_run {
        mark_open(ledger, &prepared.jobs).await?;
    }
    Ok(prepared)
}

/// A checkpoint that says "nothing in doubt" must not outlive the first APPEND: all folders that will be opened are marked
/// in one go, with the UIDNEXT that was just seen.
async fn mark_open(ledger: &Ledger, jobs: &[Job]) -> Result<()> {
    let mut marked = false;
    ledger.update(|checkpoint| {
        for job in jobs {
            if let (Some(state), Some(look)) = (checkpoint.folders.get_mut(&job.source_raw), job.look)
                && !state.open
            {
                state.tail_from = state.tail_from.max(look.uid_next);
                marked = true;
            }
        }
    });
    if marked { ledger.save().await } else { Ok(()) }
}

fn needs_look(job: &Job, checkpoint: &Checkpoint) -> bool {
    match checkpoint.folders.get(&job.source_raw) {
        Some(state) => state.open,
        None => !job.new_at_destination,
    }
}

/// Both sides the same account would copy each message onto itself.
fn refuse_same_account(pair: &Pair) -> Result<()> {
    let (source, destination) = (pair.source.endpoint(), pair.destination.endpoint());
    let same_peer = pair.source.facts.peer.is_some() && pair.source.facts.peer == pair.destination.facts.peer;
    if same_peer && source.login.username.eq_ignore_ascii_case(&destination.login.username) {
        return Err(Error::configuration(format!(
            "source {} and destination {} are the same account on the same server",
            source.address(),
            destination.address()
        ))
        .advice("The source's host name may already point to the new host (DNS): give the old server's own name or IP"));
    }
    Ok(())
}

fn side(survey: &Survey) -> SideFolders {
    let namespaces = survey.namespaces.clone().unwrap_or_default();
    SideFolders {
        delimiter: survey.delimiter,
        prefix: survey.prefix().to_vec(),
        other_prefixes: namespaces
            .other_users
            .iter()
            .chain(&namespaces.shared)
            .map(|namespace| namespace.prefix.to_vec())
            .collect(),
        folders: survey
            .folders
            .iter()
            .map(|folder| FolderInfo::new(&folder.item, folder.selectable(), folder.subscribed))
            .collect(),
    }
}

fn job(
    folder: &PlannedFolder,
    listed: &FolderStatus,
    there: Option<&FolderStatus>,
    created: bool,
    spec: &SyncSpec,
    looked_at: Instant,
) -> Job {
    Job {
        source_raw: folder.source_raw.clone(),
        destination_raw: folder.destination_raw.clone(),
        source_name: folder.source_name.clone(),
        destination_name: folder.destination_name.clone(),
        new_at_destination: created || (spec.dry_run && there.is_none()),
        messages: listed.messages.unwrap_or(0),
        status: settled(listed),
        look: there.and_then(|s| s.uid_next).map(|uid_next| Look { at: looked_at, uid_next }),
        append_limit: there.and_then(|s| s.append_limit),
        mailbox_id: listed.mailbox_id.clone(),
    }
}

fn settled(status: &FolderStatus) -> Option<Settled> {
    Some(Settled {
        uid_next: status.uid_next?,
        messages: status.messages?,
        highest_modseq: status.highest_modseq.filter(|modseq| *modseq > 0),
    })
}

/// True when both sides' listings prove that a folder needs no work.
fn is_unchanged(state: &FolderState, source: &FolderStatus, destination: &FolderStatus, spec: &SyncSpec) -> bool {
    let same_validity = Some(state.source_uid_validity) == source.uid_validity
        && Some(state.destination_uid_validity) == destination.uid_validity;
    let told_flags = state.settled.is_some_and(|s| s.highest_modseq.is_some()) || spec.flag_policy == FlagPolicy::Ignore;
    let told_deletions = spec.delete_policy == DeletePolicy::Keep
        || state.map.copied().len() <= u64::from(source.messages.unwrap_or(0));
    !state.open
        && same_validity
        && told_flags
        && told_deletions
        && state.settled.is_some()
        && state.settled == settled(source)
}

/// Makes missing folders, parents first, and subscribes; all in one go. Gives the raw names of those that were made now.
async fn make_folders(
    plan: &FolderPlan,
    there: &Survey,
    pair: &mut Pair,
    report: &mut MailboxReport,
) -> Result<Vec<Vec<u8>>> {
    let session: &mut Session = &mut pair.destination;
    let mut asked: Vec<(Tag, &PlannedFolder)> = Vec::new();
    for folder in plan.folders.iter().filter(|folder| folder.create) {
        let tag = session.folder_command("CREATE", &folder.destination_raw, "");
        asked.push((tag, folder));
    }
    let tags: Vec<Tag> = asked.iter().map(|(tag, _)| *tag).collect();
    let lines = session.wait_all(&tags, |_| {}).await?;
    let mut created = Vec::new();
    for (line, (_, folder)) in lines.iter().zip(&asked) {
        match line.status {
            Status::Ok => created.push(folder.destination_raw.clone()),
            Status::No if line.code.as_ref().is_some_and(|code: &Code| code.is("ALREADYEXISTS")) => {}
            Status::No if line.text.to_ascii_lowercase().contains("exist") => {}
            _ => {
                let error = session.refusal(line, Asked::Other, "to make the folder").in_folder(&folder.destination_name);
                report.notes.push(error.to_string());
            }
        }
    }
    let mut tags = Vec::new();
    for folder in plan.folders.iter().filter(|folder| folder.subscribe) {
        if !there.folder(&folder.destination_raw).is_some_and(|f| f.subscribed) {
            tags.push(session.folder_command("SUBSCRIBE", &folder.destination_raw, ""));
        }
    }
    let lines = session.wait_all(&tags, |_| {}).await?;
    report.subscribed += lines.iter().filter(|line| line.status == Status::Ok).count() as u64;
    Ok(created)
}
