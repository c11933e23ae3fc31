//! Looks at what the destination made of this run's copies. It said OK to each; that it also kept flags, dates and
//! bytes, and that it shows the message, is another matter.
//!
//! A sample of the folder's copies is looked at, by one FETCH. Only where one of these differs are the others looked at.
//! Flags that got lost are set by STORE. What differs then is told. Only copies of this run are touched.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    connection_pair::ConnectionPair,
    copy::{AppendedCopy, CopyMemory},
    fetch_facts::find_unshown_uids,
    flag_changes::UidsByFlag,
    job::{FolderSyncContext, FolderSyncJob},
    message_limit::command_sets,
    open_folder::open_destination,
    read_back::are_bytes_equal,
    report::FolderReport,
    scan::FolderScan,
    shown_copy::{SHOWN_ITEMS, ShownCopies, ShownCopy},
    store_flags::set_lost_flags,
    uid::{DestinationUid, SourceUid},
    uncertain_copies::{judge_unfound, report_missing, settle_shared_uids},
};
use crate::{
    error::Result,
    imap::{
        ServerKind, UidSet,
        response::Flag,
        select::{SelectedFolder, replaced_error},
    },
};

/// So many copies are looked at first.
const SAMPLE: usize = 100;
/// ... so many more of those whose bytes are unusual
const SAMPLE_OF_UNUSUAL: usize = 100;
/// ... and so many more of those with each flag: the first may have none.
const SAMPLE_OF_EACH_FLAG: usize = 3;
/// ... of at most so many flags.
const SAMPLED_FLAGS: usize = 30;
/// Where sizes differ, the bytes of so many copies tell whether the server only counts otherwise, and those of as many
/// unusual ones.
const COMPARED_BODIES: usize = 3;
/// A look that ended the connection so often is given up.
const MAX_BROKEN_LOOKS: u32 = 3;

/// Looks at what this run copied into the folder, and repairs and tells what differs. `compared` are messages whose bytes
/// were compared already.
///
/// # Errors
/// When a connection ends, or the destination is unwell.
pub(crate) async fn check_copies(
    shared: &FolderSyncContext,
    job: &FolderSyncJob,
    (scan, selected): (&FolderScan, &SelectedFolder),
    compared: &UidSet<SourceUid>,
    (pair, memory, report): (&mut ConnectionPair, &mut CopyMemory, &mut FolderReport),
) -> Result<()> {
    if memory.appended.is_empty() {
        return Ok(());
    }
    if memory.broken_looks >= MAX_BROKEN_LOOKS {
        memory.appended.clear();
        report.notes.push("what was copied could not be looked at: the connection ended each time".to_owned());
        return Ok(());
    }
    memory.broken_looks += 1;
    let any_unknown = memory.appended.iter().any(|copy| !copy.is_known());
    let (found, flags) = shared.live_checkpoint.update_folder(&job.source_raw, |state| {
        (any_unknown.then(|| (state.map.index(), state.map.destination_uids().clone())), state.flags.clone())
    })?;
    if let Some((index, known)) = found {
        for copy in memory.appended.iter_mut().filter(|copy| !copy.is_known()) {
            copy.destination_uid = index.get(copy.source_uid).and_then(|(uid, _)| uid).unwrap_or(copy.destination_uid);
        }
        let unfound: Vec<SourceUid> =
            memory.appended.iter().filter(|copy| !copy.is_known()).map(|copy| copy.source_uid).collect();
        if !unfound.is_empty() {
            let from = memory.copies_from.unwrap_or(1);
            let missing = judge_unfound(&mut pair.destination, (from, &known), &unfound, report).await?;
            report_missing(&missing, report);
            // Told once.
            memory.appended.retain(AppendedCopy::is_known);
        }
    }
    let missing = settle_shared_uids(pair, scan, &mut memory.appended).await?;
    report_missing(&missing, report);
    let purges = pair.destination.server_kind() == ServerKind::Gmail;
    let sent = |flag: &Flag| selected.may_keep_flag(flag) && !(purges && *flag == Flag::Deleted);
    let expected = flags.into_iter().map(|(text, uids)| SentFlag { flag: Flag::parse(text.as_bytes()), text, uids });
    let flags = expected.filter(|expected| sent(&expected.flag)).collect();
    let check = CopyCheck {
        shared,
        job,
        scan,
        selected,
        compared,
        pair,
        report,
        flags,
        sizes: SizeMeaning::Bytes,
        first_view: true,
        sources: HashMap::new(),
    };
    check.run(&memory.appended, &memory.shown).await?;
    memory.broken_looks = 0;
    memory.appended.clear();
    memory.shown = ShownCopies::default();
    Ok(())
}

/// A flag that was sent with some of the messages.
struct SentFlag {
    text: String,
    flag: Flag,
    uids: UidSet<SourceUid>,
}

/// How a copy differs from what was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct CopyFaults<'a> {
    lost_flags: Vec<&'a str>,
    date: bool,
    size: bool,
}

/// What another RFC822.SIZE at the destination means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SizeMeaning {
    /// Other bytes.
    Bytes,
    /// Other bytes in some copies, and not in others.
    Unclear,
    /// That the server counts otherwise.
    Nothing,
}

/// What was found, over many copies.
#[derive(Debug, Default)]
struct FoundFaults {
    lost_flags: UidsByFlag<DestinationUid>,
    /// The same of copies that are not touched: neither date nor size is that of the message.
    untouched_flags: UidsByFlag<DestinationUid>,
    dates: Vec<AppendedCopy>,
    sizes: Vec<AppendedCopy>,
    /// Copies that the destination does not show.
    missing: Vec<AppendedCopy>,
}

impl FoundFaults {
    fn is_empty(&self) -> bool {
        self.lost_flags.is_empty()
            && self.untouched_flags.is_empty()
            && self.dates.is_empty()
            && self.sizes.is_empty()
            && self.missing.is_empty()
    }

    fn add(&mut self, copy: AppendedCopy, faults: &CopyFaults<'_>) {
        let is_another = faults.date && faults.size;
        let sets = if is_another { &mut self.untouched_flags } else { &mut self.lost_flags };
        for flag in &faults.lost_flags {
            sets.entry((*flag).to_owned()).or_default().insert(copy.destination_uid);
        }
        if faults.date {
            self.dates.push(copy);
        }
        if faults.size {
            self.sizes.push(copy);
        }
    }

    fn merge(&mut self, more: Self) {
        for (sets, more) in [(&mut self.lost_flags, more.lost_flags), (&mut self.untouched_flags, more.untouched_flags)]
        {
            for (flag, uids) in more {
                let set = sets.entry(flag).or_default();
                *set = set.union(&uids);
            }
        }
        self.dates.extend(more.dates);
        self.sizes.extend(more.sizes);
        self.missing.extend(more.missing);
    }
}

/// Compares one copy with what was sent. Flags that the copy has more than the message are its reader's own.
fn find_faults<'a>(copy: &AppendedCopy, sent: &'a [SentFlag], shown: &ShownCopy) -> CopyFaults<'a> {
    let expected = |sent: &&SentFlag| !copy.weakened && sent.uids.contains(copy.source_uid);
    let is_lost = |sent: &&SentFlag| shown.flags.as_ref().is_some_and(|shown| !has_flag(shown, &sent.flag));
    CopyFaults {
        lost_flags: sent.iter().filter(expected).filter(is_lost).map(|sent| sent.text.as_str()).collect(),
        date: copy.epoch != AppendedCopy::NO_DATE && shown.epoch.is_some_and(|epoch| epoch != copy.epoch),
        size: copy.bytes != u32::MAX && shown.size.is_some_and(|size| size != u64::from(copy.bytes)),
    }
}

/// Which copies are looked at first.
fn choose_sample(copies: &[AppendedCopy], sent: &[SentFlag]) -> HashSet<DestinationUid> {
    let mut chosen: HashSet<DestinationUid> = copies.iter().take(SAMPLE).map(|copy| copy.destination_uid).collect();
    if copies.len() > SAMPLE {
        let unusual = copies.iter().filter(|copy| copy.is_unusual);
        chosen.extend(unusual.take(SAMPLE_OF_UNUSUAL).map(|copy| copy.destination_uid));
        for flag in sent.iter().take(SAMPLED_FLAGS) {
            let with_flag = copies.iter().filter(|copy| flag.uids.contains(copy.source_uid));
            chosen.extend(with_flag.take(SAMPLE_OF_EACH_FLAG).map(|copy| copy.destination_uid));
        }
    }
    chosen
}

/// One look at a folder's copies.
struct CopyCheck<'a> {
    shared: &'a FolderSyncContext,
    job: &'a FolderSyncJob,
    scan: &'a FolderScan,
    selected: &'a SelectedFolder,
    compared: &'a UidSet<SourceUid>,
    pair: &'a mut ConnectionPair,
    report: &'a mut FolderReport,
    flags: Vec<SentFlag>,
    sizes: SizeMeaning,
    /// The folder was not opened anew.
    first_view: bool,
    /// What each copy is the copy of, once something differs.
    sources: HashMap<DestinationUid, SourceUid>,
}

impl CopyCheck<'_> {
    /// `shown` is what was seen of copies before: what is there as it was sent is not asked for again.
    async fn run(mut self, copies: &[AppendedCopy], shown: &ShownCopies) -> Result<()> {
        if copies.is_empty() {
            return Ok(());
        }
        let chosen = choose_sample(copies, &self.flags);
        let is_chosen = |copy: &&AppendedCopy| chosen.contains(&copy.destination_uid);
        let is_as_sent = |copy: &AppendedCopy| {
            let shown = shown.get(copy.destination_uid).filter(|shown| shown.is_whole());
            shown.is_some_and(|shown| find_faults(copy, &self.flags, shown) == CopyFaults::default())
        };
        let sample = copies.iter().filter(is_chosen).filter(|copy| !is_as_sent(copy));
        let sample: Vec<AppendedCopy> = sample.copied().collect();
        if sample.is_empty() {
            return Ok(());
        }
        // Courier shows nothing that is new before it is asked; Dovecot answers out of order, so it is waited for.
        if !self.pair.destination.just_told_exists() {
            self.pair.destination.run("NOOP").await?;
        }
        let Some(mut faults) = self.look_at(&sample).await? else {
            self.report.notes.push("what was copied could not be looked at: the destination refused FETCH".to_owned());
            return Ok(());
        };
        self.judge_sizes(&mut faults).await?;
        let others: Vec<AppendedCopy> = copies.iter().filter(|copy| !is_chosen(copy)).copied().collect();
        // A sample tells how a server changes what it takes; what it drops may be any.
        let looked_for = others.iter().map(|copy| copy.destination_uid).collect();
        let unshown = find_unshown_uids(&mut self.pair.destination, &looked_for).await?;
        if faults.is_empty() && unshown.is_empty() {
            return Ok(());
        }
        self.sources = copies.iter().map(|copy| (copy.destination_uid, copy.source_uid)).collect();
        // Where nothing else differs, only what is not shown is looked for once more.
        let suspected = |copy: &AppendedCopy| !faults.is_empty() || unshown.contains(copy.destination_uid);
        let others: Vec<AppendedCopy> = others.into_iter().filter(suspected).collect();
        if let Some(more) = self.look_at(&others).await? {
            faults.merge(more);
        } else {
            let what = "copies differ, and not all could be looked at: the destination refused FETCH";
            self.report.notes.push(what.to_owned());
        }
        // Told once: what may end the connection comes first.
        let changed = self.find_changed(std::mem::take(&mut faults.sizes)).await?;
        self.repair_flags(std::mem::take(&mut faults.lost_flags)).await?;
        self.report_flags(&faults.untouched_flags, &BTreeMap::new());
        for copy in &faults.dates {
            let what = "the destination stored another date than it was given";
            self.report.add_difference(copy.source_uid, "internalDate", what);
        }
        for copy in &changed {
            let what = "the destination stored it changed (it has another size)";
            self.report.add_difference(copy.source_uid, "content", what);
        }
        report_missing(&faults.missing.iter().map(|copy| copy.source_uid).collect(), self.report);
        Ok(())
    }

    /// Looks at these copies; what is not shown is asked for again once the folder was opened anew. None when the
    /// destination refuses to tell.
    async fn look_at(&mut self, copies: &[AppendedCopy]) -> Result<Option<FoundFaults>> {
        let Some(mut faults) = self.fetch_facts(copies).await? else { return Ok(None) };
        if !faults.missing.is_empty() {
            self.reopen().await?;
            let again = std::mem::take(&mut faults.missing);
            match self.fetch_facts(&again).await? {
                Some(more) => faults.merge(more),
                None => return Ok(None),
            }
        }
        Ok(Some(faults))
    }

    async fn fetch_facts(&mut self, copies: &[AppendedCopy]) -> Result<Option<FoundFaults>> {
        let mut faults = FoundFaults::default();
        let by_uid: HashMap<DestinationUid, &AppendedCopy> =
            copies.iter().map(|copy| (copy.destination_uid, copy)).collect();
        let uids: UidSet<DestinationUid> = by_uid.keys().copied().collect();
        for set in command_sets(&self.pair.destination, &uids) {
            let Some(shown) = ShownCopies::fetch(&mut self.pair.destination, &set, SHOWN_ITEMS).await? else {
                return Ok(None);
            };
            for uid in UidSet::<DestinationUid>::parse(&set).unwrap_or_default().iter() {
                let Some(copy) = by_uid.get(&uid) else { continue };
                let Some(shown) = shown.get(uid) else {
                    faults.missing.push(**copy);
                    continue;
                };
                let mut found = find_faults(copy, &self.flags, shown);
                found.size &= self.sizes != SizeMeaning::Nothing && !self.compared.contains(copy.source_uid);
                faults.add(**copy, &found);
            }
        }
        Ok(Some(faults))
    }

    /// Selects the folder again: what this session did not show, it may show then.
    async fn reopen(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.first_view) {
            return Ok(());
        }
        let (selected, _) = open_destination(self.shared, self.job, &mut self.pair.destination, None).await?;
        if selected.uid_validity == self.selected.uid_validity {
            return Ok(());
        }
        Err(replaced_error(&self.pair.destination))
    }

    /// Finds out by the bytes of a few copies what it means that sizes differ.
    async fn judge_sizes(&mut self, faults: &mut FoundFaults) -> Result<()> {
        if faults.sizes.is_empty() {
            return Ok(());
        }
        faults.sizes.sort_by_key(|copy| copy.bytes);
        let (unusual, usual): (Vec<_>, Vec<_>) = faults.sizes.iter().partition(|copy| copy.is_unusual);
        let chosen = unusual.into_iter().take(COMPARED_BODIES).chain(usual.into_iter().take(COMPARED_BODIES));
        let pairs: Vec<_> = chosen.map(uids).collect();
        let equal = are_bytes_equal(self.pair, self.scan, &pairs).await?;
        let (same, changed) = (equal.values().any(|same| *same), equal.values().any(|same| !*same));
        self.sizes = match (same, changed) {
            (true, false) => SizeMeaning::Nothing,
            (true, true) => SizeMeaning::Unclear,
            (false, _) => SizeMeaning::Bytes,
        };
        if self.sizes == SizeMeaning::Nothing {
            faults.sizes.clear();
        }
        Ok(())
    }

    /// Of copies with another size, those with other bytes, as far as that can be told.
    async fn find_changed(&mut self, mut copies: Vec<AppendedCopy>) -> Result<Vec<AppendedCopy>> {
        if self.sizes == SizeMeaning::Unclear {
            let pairs: Vec<_> = copies.iter().map(uids).collect();
            let equal = are_bytes_equal(self.pair, self.scan, &pairs).await?;
            copies.retain(|copy| equal.get(&copy.source_uid) != Some(&true));
        }
        Ok(copies)
    }

    /// Sets flags that APPEND lost, and tells of those that are lost all the same.
    async fn repair_flags(&mut self, lost: UidsByFlag<DestinationUid>) -> Result<()> {
        if lost.is_empty() {
            return Ok(());
        }
        let refused = set_lost_flags(&mut self.pair.destination, &lost).await?;
        let all = lost.values().fold(UidSet::default(), |all, uids| all.union(uids));
        let mut left: UidsByFlag<DestinationUid> = UidsByFlag::new();
        for set in command_sets(&self.pair.destination, &all) {
            let asked = UidSet::<DestinationUid>::parse(&set).unwrap_or_default();
            let shown = ShownCopies::fetch(&mut self.pair.destination, &set, "UID FLAGS").await?.unwrap_or_default();
            for (text, uids) in &lost {
                let Some(sent) = self.flags.iter().find(|sent| sent.text == *text) else { continue };
                let is_kept = |uid: DestinationUid| {
                    let flags = shown.get(uid).and_then(|shown| shown.flags.as_ref());
                    flags.is_some_and(|flags| has_flag(flags, &sent.flag))
                };
                for uid in uids.intersection(&asked).iter().filter(|uid| !is_kept(*uid)) {
                    left.entry(text.clone()).or_default().insert(uid);
                }
            }
        }
        let lost_for_good = left.values().fold(UidSet::default(), |all, uids| all.union(uids));
        self.report.flags_updated += all.difference(&lost_for_good).len();
        self.report_flags(&left, &refused);
        Ok(())
    }

    fn report_flags(&mut self, lost: &UidsByFlag<DestinationUid>, refused: &BTreeMap<String, String>) {
        let mut by_copy: BTreeMap<DestinationUid, Vec<&str>> = BTreeMap::new();
        for (flag, uids) in lost {
            uids.iter().for_each(|uid| by_copy.entry(uid).or_default().push(flag));
        }
        for (copy, flags) in by_copy {
            let Some(source) = self.sources.get(&copy).copied() else { continue };
            let why = flags.iter().find_map(|flag| refused.get(*flag)).map(|why| format!(": {why}"));
            let what = format!("the destination does not keep {}{}", flags.join(" "), why.unwrap_or_default());
            self.report.add_difference(source, "flags", what);
        }
    }
}

fn uids(copy: &AppendedCopy) -> (SourceUid, DestinationUid) {
    (copy.source_uid, copy.destination_uid)
}

fn has_flag(shown: &[Flag], flag: &Flag) -> bool {
    shown.iter().any(|other| match (flag, other) {
        (Flag::Keyword(a), Flag::Keyword(b)) => a.eq_ignore_ascii_case(b),
        _ => flag == other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(uid: u32) -> AppendedCopy {
        AppendedCopy {
            source_uid: SourceUid(uid),
            destination_uid: DestinationUid(uid + 1000),
            bytes: 500,
            weakened: false,
            is_unusual: false,
            epoch: 1_600_000_000,
        }
    }

    fn sent(flag: &str, uids: &str) -> SentFlag {
        SentFlag { text: flag.to_owned(), flag: Flag::parse(flag.as_bytes()), uids: UidSet::parse(uids).unwrap() }
    }

    fn shown(flags: &[&str]) -> ShownCopy {
        let flags = flags.iter().map(|flag| Flag::parse(flag.as_bytes())).collect();
        ShownCopy { flags: Some(flags), epoch: Some(1_600_000_000), size: Some(500) }
    }

    #[test]
    fn flags_more_than_were_sent_and_another_case_are_no_difference() {
        let sent = [sent("\\Seen", "1:2"), sent("$Work", "1")];
        let faults = |flags: &[&str]| find_faults(&copy(1), &sent, &shown(flags));
        assert_eq!(faults(&["\\Seen", "$WORK", "\\Recent", "\\Flagged"]), CopyFaults::default());
        assert_eq!(faults(&["\\Recent"]).lost_flags, ["\\Seen", "$Work"]);
        assert!(find_faults(&copy(3), &sent, &shown(&[])).lost_flags.is_empty());
        let weakened = AppendedCopy { weakened: true, ..copy(1) };
        assert!(find_faults(&weakened, &sent, &shown(&[])).lost_flags.is_empty(), "its flags followed alone");
    }

    #[test]
    fn what_is_not_told_or_was_not_sent_is_no_difference() {
        assert_eq!(find_faults(&copy(1), &[sent("\\Seen", "1")], &ShownCopy::default()), CopyFaults::default());
        let other = ShownCopy { epoch: Some(1), size: Some(9_000_000_000), ..shown(&[]) };
        let both = CopyFaults { date: true, size: true, ..CopyFaults::default() };
        assert_eq!(find_faults(&copy(1), &[], &other), both);
        let unknown = AppendedCopy { epoch: AppendedCopy::NO_DATE, bytes: u32::MAX, ..copy(1) };
        assert_eq!(find_faults(&unknown, &[], &other), CopyFaults::default());
    }

    #[test]
    fn flags_of_what_may_be_another_message_are_left_as_they_are() {
        let mut found = FoundFaults::default();
        let lost_flags = vec!["\\Seen"];
        found.add(copy(1), &CopyFaults { lost_flags: lost_flags.clone(), date: true, size: true });
        found.add(copy(2), &CopyFaults { lost_flags, date: true, size: false });
        assert_eq!(found.untouched_flags["\\Seen"].to_string(), "1001");
        assert_eq!(found.lost_flags["\\Seen"].to_string(), "1002");
    }

    #[test]
    fn the_sample_holds_some_copies_with_each_flag() {
        let copies: Vec<AppendedCopy> = (1..=1000).map(copy).collect();
        let sent = [sent("\\Seen", "1:150"), sent("\\Flagged", "500:600"), sent("$Work", "999")];
        let sample = choose_sample(&copies, &sent);
        assert_eq!(sample.len(), 104);
        assert!([1, 100, 500, 502, 999].iter().all(|uid| sample.contains(&DestinationUid(uid + 1000))));
        assert_eq!(choose_sample(&copies[..100], &sent).len(), 100);
        let unusual = AppendedCopy { is_unusual: true, ..copies[700] };
        let copies = [&copies[..700], &[unusual], &copies[701..]].concat();
        assert!(choose_sample(&copies, &[]).contains(&unusual.destination_uid));
    }
}
