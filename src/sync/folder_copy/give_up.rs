//! Messages that are left uncopied, each set aside with its reason.

use std::collections::BTreeMap;

use super::FolderCopy;
use crate::{
    error::{ErrorClass, Result},
    imap::UidSet,
    sync::{
        set_aside::{SetAsideGroup, SetAsideReason},
        uid::SourceUid,
    },
};

impl FolderCopy<'_> {
    pub(super) fn set_aside(&mut self, groups: Vec<SetAsideGroup>) -> Result<()> {
        let uids = groups.iter().fold(UidSet::default(), |all, group| all.union(&group.uids));
        self.work.retain(|m| !uids.contains(m.uid));
        self.finished = self.finished.union(&uids);
        self.shared.live_checkpoint.update_folder(&self.job.source_raw, |state| {
            for group in groups {
                state.set_aside.add_group(group);
            }
        })
    }

    /// What ends the connections was narrowed down for long enough: the next run tries the rest.
    pub(super) fn leave_rest(&mut self) -> Result<()> {
        self.drop_copied();
        let uids: UidSet<SourceUid> = self.work.iter().map(|m| m.uid).collect();
        self.memory.suspects.take_remaining();
        let why = "other messages of the folder ended the connections for too long; the next run tries it";
        let facts = self.shared.try_facts(self.context.append_limit);
        let group = SetAsideGroup::without_refusal(SetAsideReason::NotTried, ErrorClass::Network, why, &facts, uids);
        self.set_aside(vec![group])
    }

    /// Takes out of the work what the source failed to deliver too often.
    pub(super) fn give_up_unreadable(&mut self) -> Result<()> {
        let failures = &self.memory.failures;
        let uids: UidSet<SourceUid> =
            self.work.iter().map(|m| m.uid).filter(|uid| failures.is_unreadable(*uid)).collect();
        if uids.is_empty() {
            return Ok(());
        }
        for uid in uids.iter() {
            self.memory.suspects.remove(uid);
        }
        let facts = self.shared.try_facts(self.context.append_limit);
        let mut by_reason: BTreeMap<&str, UidSet<SourceUid>> = BTreeMap::new();
        for uid in uids.iter() {
            let failed = "the source failed again and again to deliver it";
            let what = self.memory.stand_ins.get(&uid).map_or(failed, |stand_in| stand_in.what());
            by_reason.entry(what).or_default().insert(uid);
        }
        let unreadable = |(what, uids)| {
            let why = format!("{what}; every run tries it");
            SetAsideGroup::without_refusal(SetAsideReason::Unreadable, ErrorClass::Protocol, &why, &facts, uids)
        };
        self.set_aside(by_reason.into_iter().map(unreadable).collect())
    }

    /// What turned out larger than the destination says that it takes.
    pub(super) fn set_aside_too_large(&mut self) -> Result<()> {
        let too_large = std::mem::take(&mut self.memory.too_large);
        if too_large.is_empty() {
            return Ok(());
        }
        for uid in too_large.keys() {
            self.memory.suspects.remove(*uid);
        }
        let why = "it is larger than the destination says that it takes (APPENDLIMIT)";
        let uids = too_large.into_keys().collect();
        let facts = self.shared.try_facts(self.context.append_limit);
        let group =
            SetAsideGroup::without_refusal(SetAsideReason::TooLarge, ErrorClass::MessageRejected, why, &facts, uids);
        self.set_aside(vec![group])
    }
}
