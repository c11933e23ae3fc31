//! Which folders the source has, and what leaves one out.

use crate::sync::{
    folder_name::{FolderInfo, FolderName, SideFolders},
    spec::{FolderMappingRules, FolderPattern},
    special_use::SpecialUse,
};

/// A source folder.
#[derive(Debug, Clone)]
pub(super) struct PlanEntry<'a> {
    pub info: &'a FolderInfo,
    pub name: FolderName,
    /// The name as rules and people see it.
    pub text: String,
    /// What is wrong with the name, if it is such that no folder can have it.
    pub fault: Option<String>,
    pub aim: FolderTarget,
    pub notes: Vec<String>,
}

/// What decides where a folder goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FolderTarget {
    /// An earlier sync.
    Frozen(Vec<u8>),
    /// A rename rule: the new name.
    Renamed(String),
    /// Its use: the destination's folder for it.
    Special(Vec<String>),
    /// Its own name, below where its parent went.
    Own,
}

/// The source's folders by name, each once.
pub(super) fn listed_entries(source: &SideFolders) -> Vec<PlanEntry<'_>> {
    let mut entries: Vec<PlanEntry> = source
        .folders
        .iter()
        .map(|info| {
            let fault = info.name_fault();
            let name = if fault.is_some() { info.short_name() } else { source.parse_name(&info.raw, info.delimiter) };
            PlanEntry { info, text: name.text(), name, fault, aim: FolderTarget::Own, notes: Vec::new() }
        })
        .collect();
    // INBOX comes first: the priority of its name is not a matter of the alphabet.
    entries.sort_by(|a, b| {
        let key = |entry: &PlanEntry| (!entry.name.is_inbox, entry.name.levels.clone(), entry.info.raw.clone());
        let facts = |entry: &PlanEntry| (!entry.info.selectable, !entry.info.subscribed, entry.info.attributes.clone());
        key(a).cmp(&key(b)).then_with(|| facts(a).cmp(&facts(b)))
    });
    entries.dedup_by(|a, b| a.info.raw == b.info.raw || (a.name.is_inbox && b.name.is_inbox));
    entries
}

impl PlanEntry<'_> {
    /// What leaves this folder out, for people; and whether that is a rule that the user wrote.
    pub(super) fn left_out_by(&self, rules: &FolderMappingRules) -> Option<(bool, String)> {
        if let Some(fault) = &self.fault {
            return Some((false, fault.clone()));
        }
        // What the user leaves out is not Mailferry's doing, whatever the folder is.
        let excluded = || rules.exclude.iter().find(|pattern| pattern.matches(&self.text));
        if self.info.selectable
            && let Some(pattern) = excluded()
        {
            return Some((true, format!("it is excluded by `{}`", pattern.text())));
        }
        if !rules.everything && self.name.is_foreign {
            return Some((false, "it is in another user's or a shared namespace".to_owned()));
        }
        if !self.info.selectable {
            return None;
        }
        let view = self.info.special_use.filter(|special| special.is_view() && !self.name.is_inbox);
        if let Some(special) = view.filter(|_| !rules.everything) {
            let attribute = special.attribute();
            let reason = if special == SpecialUse::All {
                format!("it is a view of all messages ({attribute}); those that are in no other folder are only here")
            } else {
                format!("it is a view of messages in other folders ({attribute})")
            };
            return Some((false, reason));
        }
        let is_included = rules.include.is_empty() || rules.include.iter().any(|pattern| pattern.matches(&self.text));
        (!is_included).then(|| (true, "no include pattern matches it".to_owned()))
    }
}

/// Rules that are for no folder of the source: they may be misspelled.
pub(super) fn idle_rules(listed: &[PlanEntry<'_>], rules: &FolderMappingRules) -> Vec<String> {
    let patterns = |field: &'static str, patterns: &[FolderPattern]| -> Vec<(&'static str, String)> {
        let idle = patterns.iter().filter(|pattern| !listed.iter().any(|entry| pattern.matches(&entry.text)));
        idle.map(|pattern| (field, pattern.text())).collect()
    };
    let renames = rules.rename.iter().filter(|rule| !listed.iter().any(|entry| rule.apply(&entry.text).is_some()));
    patterns("include", &rules.include)
        .into_iter()
        .chain(patterns("exclude", &rules.exclude))
        .chain(renames.map(|rule| ("rename", rule.text.clone())))
        .map(|(field, text)| format!("folders.{field}: `{text}` matches no folder of the source"))
        .collect()
}
