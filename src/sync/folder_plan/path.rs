//! The path of one folder at the destination: one that its server can take, and that no other folder has.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{FolderTarget, PlanEntry};
use crate::imap::ServerKind;
use crate::sync::{
    folder_name::{FolderInfo, NameLimits, SideFolders, cut, encoded_len, hash_ending, is_inbox},
    spec::FolderMappingRules,
};

/// A level is never squeezed below this; its folder moves up instead. Bytes.
const LEAST_LEVEL: usize = 32;

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

/// What decides where folders go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FolderPlanInput<'a> {
    /// The source's folders.
    pub source: &'a SideFolders,
    /// What kind of server the source is.
    pub source_kind: ServerKind,
    /// The source shows one message in several folders, by labels (Gmail).
    pub has_labels: bool,
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

/// Finds a place for each folder.
pub(super) struct FolderPlanner<'a> {
    pub(super) destination: &'a SideFolders,
    pub(super) rules: &'a FolderMappingRules,
    pub(super) limits: &'a NameLimits,
    refused: &'a RefusedPaths,
    /// Everything goes below this.
    pub(super) root: Vec<String>,
    /// The destination's own folders by levels.
    pub(super) existing: BTreeMap<Vec<String>, &'a FolderInfo>,
    /// Spellings of existing folders by key.
    spellings: BTreeMap<String, BTreeSet<Vec<String>>>,
    /// Keys that have a source folder.
    pub(super) claimed: BTreeSet<String>,
    /// Keys that are promised to the source folder of that index.
    pub(super) promised: BTreeMap<String, usize>,
    /// Where source paths went whose children follow.
    followed: BTreeMap<Vec<String>, Vec<String>>,
}

impl<'a> FolderPlanner<'a> {
    pub(super) fn new(input: &FolderPlanInput<'a>) -> Self {
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
        for info in sorted.into_iter().filter(|info| info.name_fault().is_none()) {
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
    pub(super) fn raw(&self, levels: &[String]) -> Vec<u8> {
        match self.existing.get(levels) {
            Some(info) if info.selectable && levels != ["INBOX"] => info.raw.clone(),
            _ => self.destination.raw_name(levels),
        }
    }

    /// Claims every frozen name, also those of folders that are gone or left out now.
    pub(super) fn claim_frozen_names(&mut self, frozen: &BTreeMap<Vec<u8>, Vec<u8>>) {
        for raw in frozen.values() {
            let name = self.destination.parse_name(raw, self.destination.delimiter);
            self.claimed.insert(self.limits.collision_key(&name.levels));
        }
    }

    /// The destination path of a source folder.
    pub(super) fn place_folder(&mut self, index: usize, entry: &mut PlanEntry) -> Vec<String> {
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
    pub(super) fn path(&self, text: &str, notes: &mut Vec<String>) -> Vec<String> {
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
    pub(super) fn is_reserved(&self, levels: &[String]) -> bool {
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
