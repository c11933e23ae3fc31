//! Makes the destination's folders, under other names where it refuses those.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{
    folder_name::{MAX_RAW_NAME, NameLimits},
    folder_plan::{FolderPlan, FolderPlanInput, PlannedFolder, RefusedPaths, plan_folders},
    special_use::SpecialUse,
};
use crate::{
    error::{Error, ErrorClass, Result},
    imap::{
        Session, Tag,
        account_listing::{AccountListing, MAX_LISTED_BYTES},
        refusal::{CommandKind, already_exists},
        response::{ListItem, StatusCondition, StatusLine, UntaggedResponse},
    },
};

/// So often a refused folder gets another name.
const MAX_RENAMES: u32 = 5;

/// What came of making folders, by raw destination name.
#[derive(Default)]
pub(crate) struct CreatedFolders {
    /// Made by this run.
    pub created: BTreeSet<Vec<u8>>,
    /// Were not listed, and are there all the same, as the destination says.
    pub said_to_exist: BTreeSet<Vec<u8>>,
    /// Could not be made.
    pub refused: BTreeMap<Vec<u8>, Error>,
    /// How many were subscribed.
    pub subscribed: u64,
    /// The folders that the destination says it subscribed to.
    pub said_to_be_subscribed: BTreeSet<Vec<u8>>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Makes the plan's folders. What the destination refuses gets a name that every known server takes, then a number, or a
/// place beside the folder that it was below; the others, and the names in `frozen`, stay.
pub(crate) async fn make_or_rename(
    input: &FolderPlanInput<'_>,
    plan: &mut FolderPlan,
    listing: &AccountListing,
    destination: &mut Session,
) -> Result<CreatedFolders> {
    let mut made = make_folders(plan, CreatedFolders::default(), listing, destination).await?;
    let mut refused_paths = RefusedPaths::default();
    for round in 0..MAX_RENAMES {
        if made.refused.is_empty() {
            break;
        }
        let (refused, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut plan.folders).into_iter().partition(|f| made.refused.contains_key(&f.destination_raw));
        if round > 0 {
            refused_paths.add(&refused.iter().map(|f| f.destination_levels.clone()).collect());
        }
        let kept = kept.into_iter().map(|f| (f.source_raw, f.destination_raw));
        let frozen = kept.chain(input.frozen.clone()).collect();
        let said = std::mem::take(&mut plan.notes);
        let limits = &NameLimits::strict();
        *plan = plan_folders(&FolderPlanInput { frozen: &frozen, limits, refused: &refused_paths, ..*input });
        plan.notes.extend(said.into_iter().filter(|(name, _)| refused.iter().all(|f| f.source_name != *name)));
        plan.notes.sort();
        plan.notes.dedup();
        made.refused.clear();
        made = make_folders(plan, made, listing, destination).await?;
    }
    Ok(made)
}

/// The raw names of all folders as they are listed now.
///
/// # Errors
/// When the connection ends or the server refuses.
pub(crate) async fn list_names(session: &mut Session) -> Result<Vec<Bytes>> {
    let mut listed = ListedNames::default();
    let tag = session.send_command("LIST \"\" \"*\"");
    let line = session
        .wait(tag, |data| {
            if let UntaggedResponse::List(item) = data {
                listed.add(item);
            }
        })
        .await?;
    if line.status != StatusCondition::Ok {
        return Err(session.refusal_error(&line, CommandKind::Other, "LIST"));
    }
    Ok(listed.names)
}

/// Names as they are listed, as far as a folder can have them, and as many as fit into [`MAX_LISTED_BYTES`].
#[derive(Debug, Default)]
pub(super) struct ListedNames {
    pub(super) names: Vec<Bytes>,
    bytes: usize,
}

impl ListedNames {
    pub(super) fn add(&mut self, item: ListItem) {
        self.bytes = self.bytes.saturating_add(size_of::<Bytes>() + item.name.len());
        if item.name.len() <= MAX_RAW_NAME && self.bytes <= MAX_LISTED_BYTES {
            self.names.push(item.name);
        }
    }
}

/// Makes missing folders, parents first, and subscribes to what the source is subscribed to, all in one go.
async fn make_folders(
    plan: &FolderPlan,
    mut made: CreatedFolders,
    there: &AccountListing,
    session: &mut Session,
) -> Result<CreatedFolders> {
    let takes_uses = session.capabilities().has("CREATE-SPECIAL-USE");
    let use_of =
        |folder: &PlannedFolder| folder.special_use.filter(|special| takes_uses && !announces(there, *special));
    let missing = plan.folders.iter().filter(|f| f.create && !made.created.contains(&f.destination_raw));
    let asked: Vec<(Tag, &PlannedFolder)> =
        missing.map(|folder| (send_create(session, folder, use_of(folder)), folder)).collect();
    let wanted = plan.folders.iter().filter(|folder| folder.subscribe);
    let unsubscribed = wanted.filter(|f| !there.folder(&f.destination_raw).is_some_and(|f| f.subscribed));
    let subscribing: Vec<(Tag, &PlannedFolder)> = unsubscribed
        .map(|folder| (session.send_folder_command("SUBSCRIBE", &folder.destination_raw, ""), folder))
        .collect();
    let tags: Vec<Tag> = asked.iter().chain(&subscribing).map(|(tag, _)| *tag).collect();
    let mut lines = session.wait_all(&tags, |_| {}).await?;
    let subscribed = lines.split_off(asked.len().min(lines.len()));
    for (line, (_, folder)) in lines.into_iter().zip(asked) {
        let mut line = line;
        let special = use_of(folder);
        let mut is_marked = special.is_some();
        if special.is_some() && line.status != StatusCondition::Ok && !already_exists(&line) {
            // Without the use it may be taken.
            is_marked = false;
            let tag = send_create(session, folder, None);
            line = session.wait(tag, |_| {}).await?;
        }
        record_creation(&mut made, session, folder, &line)?;
        if line.status == StatusCondition::Ok && !is_marked && is_use_lost(folder, there, session) {
            let use_name = folder.special_use.map_or("", SpecialUse::attribute);
            let name = &folder.destination_name;
            made.notes
                .push(format!("{name}: it is the source's {use_name} folder; the destination does not mark it so"));
        }
    }
    for (line, (_, folder)) in subscribed.into_iter().zip(subscribing) {
        if line.status == StatusCondition::Ok {
            made.subscribed += 1;
            made.said_to_be_subscribed.insert(folder.destination_raw.clone());
        } else if !made.refused.contains_key(&folder.destination_raw) {
            made.notes
                .push(format!("{}: the destination did not subscribe to it: {}", folder.destination_name, line.text));
        }
    }
    Ok(made)
}

/// True when a folder of the account is said to be for this use.
fn announces(account: &AccountListing, special: SpecialUse) -> bool {
    account.folders.iter().any(|folder| SpecialUse::of(&folder.item.attributes) == Some(special))
}

fn send_create(session: &mut Session, folder: &PlannedFolder, special: Option<SpecialUse>) -> Tag {
    let uses = special.map(|special| format!(" (USE ({}))", special.attribute())).unwrap_or_default();
    session.send_folder_command("CREATE", &folder.destination_raw, &uses)
}

/// True when the source says what a folder is for, and the destination, which says so of others, does not.
fn is_use_lost(folder: &PlannedFolder, there: &AccountListing, session: &Session) -> bool {
    folder.special_use.is_some_and(|special| !announces(there, special)) && session.capabilities().has("SPECIAL-USE")
}

/// Takes the answer to a CREATE.
fn record_creation(
    made: &mut CreatedFolders,
    session: &Session,
    folder: &PlannedFolder,
    line: &StatusLine,
) -> Result<()> {
    match line.status {
        StatusCondition::Ok => {
            made.created.insert(folder.destination_raw.clone());
        }
        StatusCondition::No if already_exists(line) => {
            made.said_to_exist.insert(folder.destination_raw.clone());
        }
        _ => {
            let error = session.refusal_error(line, CommandKind::Other, "to make the folder");
            if matches!(error.class, ErrorClass::Throttled | ErrorClass::Network) {
                // The name is not to blame.
                return Err(error.in_folder(&folder.destination_name));
            }
            let error = match error.advice {
                Some(_) => error,
                None => error.advice("Give the folder another name by a rename rule"),
            };
            made.refused.insert(folder.destination_raw.clone(), error.in_folder(&folder.destination_name));
        }
    }
    Ok(())
}
