//! Where each source folder goes.
//!
//! Every name is settled once and then frozen in the checkpoint. Two source folders never share a destination folder,
//! not even on a server that does not tell `a` from `A`. The plan depends on what is listed, not on the order.

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use super::folder_name::{FolderInfo, NameLimits, SideFolders};
use super::{
    folder_name::{FolderName, cut, encoded_len, hash_ending, is_inbox},
    report::LeftOut,
    spec::{FolderMappingRules, FolderPattern},
    special_use::SpecialUse,
};

/// A level is never squeezed below this; its folder moves up instead. Bytes.
const LEAST_LEVEL: usize = 32;

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

/// Destination paths that the server refused to make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RefusedPaths {
    /// Names that it does not take at the top: they get a number.
    names: BTreeSet<Vec<String>>,
    /// Folders below which it takes none: what belongs there goes beside them.
    parents: BTreeSet<Vec<String>>,
}

impl RefusedPaths {
    /// Takes note of refused paths. What lies below another refused one follows that, and is not to blame itself.
    pub(crate) fn add(&mut self, refused: &BTreeSet<Vec<String>>) {
        let is_below_refused = |path: &[String]| {
            (1..path.len()).any(|length| refused.iter().any(|other| path.get(..length) == Some(other)))
        };
        for path in refused.iter().filter(|path| !is_below_refused(path)) {
            match path.split_last() {
                Some((_, parent)) if !parent.is_empty() => self.parents.insert(parent.to_vec()),
                _ => self.names.insert(path.clone()),
            };
        }
    }
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
}

/// What decides where folders go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FolderPlanInput<'a> {
    /// The source's folders.
    pub source: &'a SideFolders,
    /// The destination's folders.
    pub destination: &'a SideFolders,
    /// What the user wrote.
    pub rules: &'a FolderMappingRules,
    /// The checkpoint's mapping, raw names: those folders stay where they are, and no other folder gets their names.
    pub frozen: &'a BTreeMap<Vec<u8>, Vec<u8>>,
    /// What names the destination can take.
    pub limits: &'a NameLimits,
    /// What it refused to make.
    pub refused: &'a RefusedPaths,
}

/// Plans all folders.
#[must_use]
pub(crate) fn plan_folders(input: &FolderPlanInput<'_>) -> FolderPlan {
    let FolderPlanInput { source, rules, frozen, .. } = *input;
    let mut plan = FolderPlan::default();
    let mut planner = FolderPlanner::new(input);
    let mut entries = Vec::new();
    let listed = listed(source);
    plan.warnings = idle_rules(&listed, rules);
    for entry in listed {
        match entry.left_out_by(rules) {
            Some((by_rule, reason)) => {
                // Other users' mail is not this mailbox's.
                let messages = entry.info.messages.filter(|_| !entry.name.is_foreign).map(u64::from);
                let foreign = entry.name.is_foreign;
                let (raw, is_view) = (entry.info.raw.clone(), !by_rule && !foreign);
                plan.left_out.push(LeftOut {
                    folder: entry.text,
                    reason,
                    by_rule,
                    foreign,
                    messages,
                    not_elsewhere: None,
                    is_view,
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
    let parents: BTreeSet<Vec<String>> = placed
        .iter()
        .filter(|(entry, _)| entry.info.selectable)
        .flat_map(|(_, levels)| (1..levels.len()).map(|length| levels.iter().take(length).cloned().collect()))
        .collect();
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
            special_use: entry.info.special_use.filter(|special| !special.is_view()),
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

/// Rules that are for no folder of the source: they may be misspelled.
fn idle_rules(listed: &[PlanEntry<'_>], rules: &FolderMappingRules) -> Vec<String> {
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

/// A source folder.
#[derive(Debug, Clone)]
struct PlanEntry<'a> {
    info: &'a FolderInfo,
    name: FolderName,
    text: String,
    aim: FolderTarget,
    notes: Vec<String>,
}

/// What decides where a folder goes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum FolderTarget {
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
fn listed(source: &SideFolders) -> Vec<PlanEntry<'_>> {
    let mut entries: Vec<PlanEntry> = source
        .folders
        .iter()
        .map(|info| {
            let name = source.parse_name(&info.raw, info.delimiter);
            PlanEntry { info, text: name.text(), name, aim: FolderTarget::Own, notes: Vec::new() }
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
    fn left_out_by(&self, rules: &FolderMappingRules) -> Option<(bool, String)> {
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

struct FolderPlanner<'a> {
    destination: &'a SideFolders,
    rules: &'a FolderMappingRules,
    limits: &'a NameLimits,
    refused: &'a RefusedPaths,
    /// Everything goes below this.
    root: Vec<String>,
    /// The destination's own folders by levels.
    existing: BTreeMap<Vec<String>, &'a FolderInfo>,
    /// Spellings of existing folders by key.
    spellings: BTreeMap<String, BTreeSet<Vec<String>>>,
    /// Keys that have a source folder.
    claimed: BTreeSet<String>,
    /// Keys that are promised to the source folder of that index.
    promised: BTreeMap<String, usize>,
    /// Where source paths went whose children follow.
    followed: BTreeMap<Vec<String>, Vec<String>>,
}

impl<'a> FolderPlanner<'a> {
    fn new(input: &FolderPlanInput<'a>) -> Self {
        let FolderPlanInput { destination, rules, limits, refused, .. } = *input;
        let mut sorted: Vec<&FolderInfo> = destination.folders.iter().collect();
        sorted.sort_by(|a, b| (&a.raw, !a.selectable, !a.subscribed).cmp(&(&b.raw, !b.selectable, !b.subscribed)));
        let mut planner = Self {
            destination,
            rules,
            limits,
            refused,
            root: Vec::new(),
            existing: BTreeMap::new(),
            spellings: BTreeMap::new(),
            claimed: BTreeSet::new(),
            promised: BTreeMap::new(),
            followed: BTreeMap::new(),
        };
        for info in sorted {
            let name = destination.parse_name(&info.raw, info.delimiter);
            let is_nameless = |c: char| destination.delimiter.is_some_and(|delimiter| c == char::from(delimiter));
            if name.is_foreign || name.levels.iter().any(|level| level.contains(is_nameless)) {
                continue; // a bare prefix has no level that could be written
            }
            planner.spellings.entry(limits.collision_key(&name.levels)).or_default().insert(name.levels.clone());
            // Of two raw names for the same text, the one that we would make.
            if !planner.existing.contains_key(&name.levels) || destination.raw_name(&name.levels) == info.raw {
                planner.existing.insert(name.levels, info);
            }
        }
        planner.root = planner.path(rules.into.as_deref().unwrap_or_default(), &mut Vec::new());
        planner
    }

    /// The raw name of a destination path: the existing spelling where there is such a folder.
    fn raw(&self, levels: &[String]) -> Vec<u8> {
        match self.existing.get(levels) {
            Some(info) if info.selectable && levels != ["INBOX"] => info.raw.clone(),
            _ => self.destination.raw_name(levels),
        }
    }

    /// Claims every frozen name, also those of folders that are gone or left out now.
    fn claim_frozen_names(&mut self, frozen: &BTreeMap<Vec<u8>, Vec<u8>>) {
        for raw in frozen.values() {
            let name = self.destination.parse_name(raw, self.destination.delimiter);
            self.claimed.insert(self.limits.collision_key(&name.levels));
        }
    }

    /// Decides what decides, and promises names to the folders that have the best right to them.
    fn choose_targets(
        &mut self,
        entries: &mut [PlanEntry],
        frozen: &BTreeMap<Vec<u8>, Vec<u8>>,
        source_announces: bool,
    ) {
        for entry in &mut *entries {
            if let Some(raw) = frozen.get(&entry.info.raw) {
                entry.aim = FolderTarget::Frozen(raw.clone());
            } else if let Some(new) = self.rules.rename.iter().find_map(|rule| rule.apply(&entry.text)) {
                if new.split('/').all(str::is_empty) {
                    entry.notes.push("a rename rule gives it an empty name and is ignored".to_owned());
                } else {
                    entry.aim = FolderTarget::Renamed(new);
                }
            }
        }
        let mut owners = Vec::new();
        for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.info.selectable) {
            let levels: Vec<String> = self.root.iter().chain(&entry.name.levels).cloned().collect();
            let is_kept = levels.iter().all(|l| self.limits.clean_level(l, self.destination.delimiter) == *l);
            if entry.aim == FolderTarget::Own && is_kept && (entry.name.is_inbox || !self.is_reserved(&levels)) {
                owners.push((!self.existing.contains_key(&levels), index, self.limits.collision_key(&levels)));
            }
        }
        owners.sort();
        for (_, index, key) in owners {
            self.promised.entry(key).or_insert(index);
        }
        if self.root.is_empty() && !self.rules.ignore_special_use {
            let renamed = entries.iter().filter_map(|entry| match &entry.aim {
                FolderTarget::Renamed(new) => Some(self.limits.collision_key(&self.path(new, &mut Vec::new()))),
                _ => None,
            });
            let renamed: BTreeSet<String> = renamed.collect();
            let announced = |entry: &PlanEntry| entry.info.special_use.is_some();
            let mut candidates: Vec<usize> = (0..entries.len()).collect();
            candidates.sort_by_key(|index| !announced(&entries[*index]));
            for index in candidates {
                self.aim_by_use(entries, index, source_announces, &renamed);
            }
        }
    }

    fn aim_by_use(
        &mut self,
        entries: &mut [PlanEntry],
        index: usize,
        source_announces: bool,
        renamed: &BTreeSet<String>,
    ) {
        let entry = &mut entries[index];
        if entry.aim != FolderTarget::Own || !entry.info.selectable || entry.name.is_inbox || entry.name.is_foreign {
            return;
        }
        let by_name = match entry.name.levels.as_slice() {
            [only] if !source_announces => SpecialUse::by_name(only),
            _ => None,
        };
        let Some(special) = entry.info.special_use.or(by_name).filter(|special| !special.is_view()) else { return };
        let has_own = self.existing.contains_key(&entry.name.levels);
        let is_announced = entry.info.special_use.is_some();
        let target = match self.announced_folder(special) {
            Some(target) if is_announced || !has_own => Some(target),
            None if is_announced && !has_own => self.folder_named_for(special, index, renamed),
            _ => None,
        };
        let Some(target) = target.filter(|target| *target != entry.name.levels) else { return };
        let key = self.limits.collision_key(&target);
        let use_name = special.attribute();
        let there = target.join("/");
        if self.claimed.contains(&key) || self.promised.get(&key).is_some_and(|owner| *owner != index) {
            entry.notes.push(format!(
                "it keeps its name: the destination's {use_name} folder \"{there}\" is the place of another folder"
            ));
            return;
        }
        entry.notes.push(format!("it goes to the destination's {use_name} folder \"{there}\""));
        self.promised.retain(|_, owner| *owner != index);
        self.promised.insert(key, index);
        entry.aim = FolderTarget::Special(target);
    }

    /// The destination's folder that announces this use.
    fn announced_folder(&self, special: SpecialUse) -> Option<Vec<String>> {
        let is_it = |info: &FolderInfo| info.selectable && info.special_use == Some(special);
        let found = self.existing.iter().filter(|(levels, info)| is_it(info) && *levels != &["INBOX"]);
        found.map(|(levels, _)| levels).min_by_key(|levels| (levels.len(), *levels)).cloned()
    }

    /// The only folder of the destination that is named for this use, where it announces no uses at all; those that
    /// other source folders go to by their names do not count. A guess must not put mail where a server may purge it,
    /// so there is none for \Trash.
    fn folder_named_for(&self, special: SpecialUse, index: usize, renamed: &BTreeSet<String>) -> Option<Vec<String>> {
        if special == SpecialUse::Trash || self.existing.values().any(|info| info.special_use.is_some()) {
            return None;
        }
        let is_it = |levels: &[String]| {
            let key = self.limits.collision_key(levels);
            matches!(levels, [only] if SpecialUse::by_name(only) == Some(special))
                && !renamed.contains(&key)
                && self.promised.get(&key).is_none_or(|owner| *owner == index)
        };
        let mut found = self.existing.iter().filter(|(levels, info)| info.selectable && is_it(levels));
        let (levels, _) = found.next()?;
        found.next().is_none().then(|| levels.clone())
    }

    /// The destination path of a source folder.
    fn place_folder(&mut self, index: usize, entry: &mut PlanEntry) -> Vec<String> {
        let mut notes = std::mem::take(&mut entry.notes);
        notes.extend(entry.name.anomalies.iter().map(|&anomaly| anomaly.to_owned()));
        let source_levels = &entry.name.levels;
        let levels = match &entry.aim {
            FolderTarget::Frozen(raw) => self.destination.parse_name(raw, self.destination.delimiter).levels,
            FolderTarget::Renamed(new) => {
                let wanted = self.path(new, &mut notes);
                self.claim_path(index, entry, wanted, true, &mut notes)
            }
            FolderTarget::Special(levels) => self.claim_path(index, entry, levels.clone(), false, &mut notes),
            FolderTarget::Own => {
                let wanted = self.path_below_parent(source_levels, &mut notes);
                self.claim_path(index, entry, wanted, false, &mut notes)
            }
        };
        if !matches!(entry.aim, FolderTarget::Renamed(_)) {
            self.followed.entry(source_levels.clone()).or_insert_with(|| levels.clone());
        }
        if let (Some(purged), [only]) = (self.limits.purges, levels.as_slice())
            && only == purged
            && entry.info.selectable
        {
            notes.push(format!("the destination's server by default removes old messages from \"{purged}\" by itself"));
        }
        entry.notes = notes;
        levels
    }

    /// The path of a source folder below wherever its parent went.
    fn path_below_parent(&self, source: &[String], notes: &mut Vec<String>) -> Vec<String> {
        let Some((last, parents)) = source.split_last() else { return self.root.clone() };
        let parent = match self.followed.get(parents) {
            Some(followed) => followed.clone(),
            None => self.path_below_parent(parents, notes),
        };
        self.attach_level(parent, last, notes)
    }

    /// The path that a person wrote with `/` between levels, below the root.
    fn path(&self, text: &str, notes: &mut Vec<String>) -> Vec<String> {
        let mut path = self.root.clone();
        for level in text.split('/').filter(|level| !level.is_empty()) {
            path = self.attach_level(path, level, notes);
        }
        if let Some(first) = path.first_mut().filter(|first| is_inbox(first.as_bytes())) {
            first.make_ascii_uppercase();
        }
        path
    }

    /// `level` below `parent`, as the destination can take it.
    fn attach_level(&self, mut parent: Vec<String>, level: &str, notes: &mut Vec<String>) -> Vec<String> {
        let delimiter = self.destination.delimiter;
        let mut clean = self.limits.clean_level(level, delimiter);
        if clean != level {
            notes.push("the destination can't take all characters of its name".to_owned());
        }
        while let Some(last) = parent.last()
            && (delimiter.is_none()
                || self.refused.parents.contains(&parent)
                || self.existing.get(&parent).is_some_and(|info| info.is_childless()))
        {
            notes.push(format!("the destination has no folders below \"{}\"", parent.join("/")));
            clean = format!("{last}_{clean}");
            parent.pop();
        }
        loop {
            let budget = self.budget(&parent);
            if encoded_len(&clean) <= budget {
                break;
            }
            if budget < LEAST_LEVEL && !parent.is_empty() {
                notes.push("it is nested too deep for the destination and moves up".to_owned());
                clean = format!("{clean}{}", hash_ending(&parent.join("/")));
                parent.pop();
                continue;
            }
            notes.push("its name is too long for the destination".to_owned());
            clean = cut(&clean, &hash_ending(&clean), budget);
            break;
        }
        parent.push(clean);
        if self.is_in_other_namespace(&parent) {
            notes.push("its name would be in another namespace of the destination".to_owned());
            if let Some(last) = parent.last_mut() {
                last.insert(0, '_');
            }
        }
        parent
    }

    /// Bytes that a level below `parent` may take.
    fn budget(&self, parent: &[String]) -> usize {
        let above = match parent {
            [] => self.destination.prefix.len(),
            // INBOX alone has no prefix; what is below it has.
            _ => self.destination.raw_name(&[parent, &[String::new()]].concat()).len(),
        };
        self.limits.max_path.saturating_sub(above)
    }

    fn is_in_other_namespace(&self, levels: &[String]) -> bool {
        let mut raw = self.destination.raw_name(levels);
        raw.extend(self.destination.delimiter);
        let is_longer = |prefix: &&Vec<u8>| prefix.len() > self.destination.prefix.len();
        self.destination.other_prefixes.iter().filter(is_longer).any(|prefix| self.destination.is_in(&raw, prefix))
    }

    /// True for INBOX: only the source's INBOX, or a rename rule, goes there.
    fn is_reserved(&self, levels: &[String]) -> bool {
        self.limits.collision_key(levels) == self.limits.collision_key(&["INBOX".to_owned()])
    }

    /// The wanted path, or the first numbered one that no other folder has a right to; claimed.
    fn claim_path(
        &mut self,
        index: usize,
        entry: &PlanEntry,
        wanted: Vec<String>,
        is_explicit: bool,
        notes: &mut Vec<String>,
    ) -> Vec<String> {
        if !entry.info.selectable {
            return wanted; // its path may be another folder's place too: it holds nothing that could merge
        }
        let mut path = wanted.clone();
        for number in 2.. {
            match self.taken(index, &path, is_explicit || entry.name.is_inbox) {
                None => break,
                Some(why) if number == 2 => notes.push(format!("\"{}\" is {why}", wanted.join("/"))),
                Some(_) => {}
            }
            path = self.numbered(&wanted, number);
        }
        self.claimed.insert(self.limits.collision_key(&path));
        if path != wanted {
            notes.push(format!("it is called \"{}\" at the destination", path.join("/")));
        }
        path
    }

    /// Why a path is not free for the folder of that index.
    fn taken(&self, index: usize, path: &[String], may_be_inbox: bool) -> Option<&'static str> {
        let key = self.limits.collision_key(path);
        if self.claimed.contains(&key) || self.promised.get(&key).is_some_and(|owner| *owner != index) {
            return Some("the place of another folder of this mailbox");
        }
        if self.refused.names.contains(path) {
            return Some("refused by the destination");
        }
        if self.is_reserved(path) {
            return (!may_be_inbox).then_some("the destination's INBOX");
        }
        let differs = self.spellings.get(&key).is_some_and(|spellings| !spellings.contains(path));
        differs.then_some("at the destination already in another spelling")
    }

    fn numbered(&self, path: &[String], number: u32) -> Vec<String> {
        let Some((last, parent)) = path.split_last() else { return Vec::new() };
        let numbered = cut(last, &format!(" ({number})"), self.budget(parent));
        [parent, &[numbered]].concat()
    }
}

#[cfg(test)]
mod tests;
