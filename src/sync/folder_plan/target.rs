//! What decides where a folder goes: an earlier sync, a rule, what it is for, or its own name.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    entry::{FolderTarget, PlanEntry},
    path::FolderPlanner,
};
use crate::sync::{folder_name::FolderInfo, special_use::SpecialUse};

impl FolderPlanner<'_> {
    /// Decides what decides, and promises names to the folders that have the best right to them.
    pub(super) fn choose_targets(
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
        let holders = entries.iter().enumerate().filter(|(_, entry)| entry.info.selectable && !entry.only_archived);
        for (index, entry) in holders {
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
        self.aim_at_archive(entries);
    }

    /// Sends what was archived to the destination's archive, or, where that is another folder's place, to one beside it.
    fn aim_at_archive(&mut self, entries: &mut [PlanEntry]) {
        let taken_names = entries.iter().filter_map(|entry| match &entry.aim {
            FolderTarget::Renamed(new) => Some(self.limits.collision_key(&self.path(new, &mut Vec::new()))),
            _ => None,
        });
        let taken_names: BTreeSet<String> = taken_names.collect();
        let is_own = |entry: &PlanEntry| entry.only_archived && entry.aim == FolderTarget::Own;
        for (index, entry) in entries.iter_mut().enumerate().filter(|(_, entry)| is_own(entry)) {
            let may_meet = self.root.is_empty() && !self.rules.ignore_special_use;
            let announced = self.announced_folder(SpecialUse::Archive).filter(|_| may_meet);
            let wanted = announced.unwrap_or_else(|| self.path("Archive", &mut Vec::new()));
            let key = self.limits.collision_key(&wanted);
            let is_anothers = self.claimed.contains(&key)
                || taken_names.contains(&key)
                || self.promised.get(&key).is_some_and(|owner| *owner != index);
            let target = if is_anothers { self.path("Archive (Gmail)", &mut Vec::new()) } else { wanted };
            self.promised.entry(self.limits.collision_key(&target)).or_insert(index);
            entry.notes.push(format!(
                "its messages that no other folder shows (archived ones) go to \"{}\"",
                target.join("/")
            ));
            entry.aim = FolderTarget::Special(target);
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
}
