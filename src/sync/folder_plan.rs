//! Where each source folder goes.
//!
//! Every name is settled once and then frozen in the checkpoint. Two source folders never share a destination folder,
//! not even on a server that does not tell `a` from `A`. The plan depends on what is listed, not on the order.

mod entry;
mod path;
mod target;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub(crate) use self::path::{FolderPlanInput, RefusedPaths};
use self::{
    entry::{FolderTarget, LeftOutCause, PlanEntry, SourceTraits, idle_rules, listed_entries},
    path::FolderPlanner,
};
use super::{report::LeftOut, special_use::SpecialUse};

/// Which folders are synced, and where they go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FolderPlan {
    /// Destination parents before their children.
    pub folders: Vec<PlannedFolder>,
    /// Source folders that are not synced, and why.
    pub left_out: Vec<LeftOut>,
    /// What is different or was decided: decoded source name, and what.
    pub notes: Vec<(String, String)>,
    /// What a person should look at before trusting the result.
    pub warnings: Vec<String>,
}

/// One source folder and its destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedFolder {
    /// What it is for, as the source announces; views aside.
    pub special_use: Option<SpecialUse>,
    /// The raw source name.
    pub source_raw: Vec<u8>,
    /// Decoded, `/` between levels, without prefix.
    pub source_name: String,
    /// The raw destination name.
    pub destination_raw: Vec<u8>,
    /// Decoded, `/` between levels, without prefix.
    pub destination_name: String,
    /// The levels of that name.
    pub destination_levels: Vec<String>,
    /// It does not exist there yet.
    pub create: bool,
    /// It can't hold messages: there for its children, whose creation makes it.
    pub is_container: bool,
    /// Subscribe it there.
    pub subscribe: bool,
    /// A view of all messages: only those go there that no other folder shows.
    pub only_archived: bool,
}

/// Plans all folders.
#[must_use]
pub(crate) fn plan_folders(input: &FolderPlanInput<'_>) -> FolderPlan {
    let FolderPlanInput { source, rules, frozen, .. } = *input;
    let mut plan = FolderPlan::default();
    let mut planner = FolderPlanner::new(input);
    let mut entries = Vec::new();
    let listed = listed_entries(source);
    plan.warnings = idle_rules(&listed, rules);
    let traits = SourceTraits::new(&listed, input.source_kind, input.has_labels);
    // What an earlier version copied is gone on with.
    let traits_of_known = SourceTraits { no_mail: BTreeSet::new(), has_labels: input.has_labels };
    for mut entry in listed {
        let is_known = frozen.contains_key(&entry.info.raw);
        entry.only_archived = entry.is_archive(&traits, rules);
        match entry.left_out_by(rules, if is_known { &traits_of_known } else { &traits }) {
            Some((cause, reason)) => {
                // Other users' mail is not this mailbox's.
                let messages = entry.info.messages.filter(|_| !entry.name.is_foreign).map(u64::from);
                let foreign = entry.name.is_foreign;
                let (by_rule, is_view) = (cause == LeftOutCause::Rule, cause == LeftOutCause::View);
                let raw = entry.info.raw.clone();
                plan.left_out.push(LeftOut {
                    folder: entry.text,
                    reason,
                    by_rule,
                    foreign,
                    messages,
                    not_elsewhere: None,
                    is_view,
                    no_mail: cause == LeftOutCause::NoMail,
                    raw,
                });
            }
            None => entries.push(entry),
        }
    }
    planner.claim_frozen_names(frozen);
    planner.choose_targets(&mut entries, frozen, source.folders.iter().any(|folder| folder.special_use.is_some()));
    // Entries are sorted: parents are placed before children, which follow them.
    let mut placed = Vec::new();
    for (index, mut entry) in entries.into_iter().enumerate() {
        let levels = planner.place_folder(index, &mut entry);
        placed.push((entry, levels));
    }
    placed.sort_by(|(a, a_levels), (b, b_levels)| {
        let is_inbox = |levels: &[String]| levels == ["INBOX"];
        let order = is_inbox(b_levels).cmp(&is_inbox(a_levels)).then_with(|| a_levels.cmp(b_levels));
        order.then_with(|| a.info.raw.cmp(&b.info.raw))
    });
    let parents = needed_containers(&placed);
    for (entry, levels) in placed {
        let selectable = entry.info.selectable;
        if !selectable && !parents.contains(&levels) {
            let reason = "it can't hold messages, and no folder below it is synced".to_owned();
            plan.left_out.push(LeftOut { folder: entry.text, reason, messages: Some(0), ..LeftOut::default() });
            continue;
        }
        plan.notes.extend(entry.notes.iter().map(|note| (entry.text.clone(), note.clone())));
        let existing = planner.existing.get(&levels);
        let exists = levels == ["INBOX"] || existing.is_some_and(|folder| folder.selectable);
        let wants_subscription = selectable && entry.info.subscribed && !rules.ignore_subscriptions;
        plan.folders.push(PlannedFolder {
            special_use: match entry.info.special_use {
                Some(_) if entry.only_archived => Some(SpecialUse::Archive),
                special => special.filter(|special| !special.is_view()),
            },
            only_archived: entry.only_archived,
            source_raw: entry.info.raw.clone(),
            source_name: entry.text,
            destination_raw: match &entry.aim {
                FolderTarget::Frozen(raw) => raw.clone(),
                _ => planner.raw(&levels),
            },
            destination_name: levels.join("/"),
            destination_levels: levels,
            create: selectable && !exists,
            is_container: !selectable,
            subscribe: wants_subscription && !existing.is_some_and(|folder| folder.subscribed),
        });
    }
    if !plan.left_out.is_empty() && plan.folders.iter().all(|folder| folder.is_container) {
        plan.warnings.push("every folder of the source is left out, so nothing is copied".to_owned());
    }
    plan.left_out.sort_by(|a, b| a.folder.cmp(&b.folder));
    plan.notes.sort();
    plan.notes.dedup();
    plan
}

/// The paths of folders that can't hold messages, as far as one that can lies below.
fn needed_containers(placed: &[(PlanEntry<'_>, Vec<String>)]) -> BTreeSet<Vec<String>> {
    let (holders, containers): (Vec<_>, Vec<_>) = placed.iter().partition(|(entry, _)| entry.info.selectable);
    let containers: BTreeSet<&[String]> = containers.iter().map(|(_, levels)| levels.as_slice()).collect();
    let above = holders.iter().flat_map(|(_, levels)| (1..levels.len()).filter_map(|length| levels.get(..length)));
    above.filter(|levels| containers.contains(levels)).map(<[String]>::to_vec).collect()
}
