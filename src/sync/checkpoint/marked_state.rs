//! A folder's state as a whole or above a mark: what counts as copied, how a mark is set, and what stays then.

use super::{
    FolderState,
    high_water_mark::{HighWaterMark, LeftOutByRules, MapCoverage, MarkDoubt, SourceListing, up_to},
};
use crate::{
    imap::UidSet,
    sync::{
        filter::leave_out_as_much,
        folder_listing::FolderListing,
        spec::MessageFilter,
        uid::{DestinationUid, SourceUid},
    },
};

/// So many messages are kept in the map of a reduced folder from each of its ends: enough to know it again after a rename.
const SAMPLES: usize = 3;

impl FolderState {
    /// The mark, where the folder has one.
    #[must_use]
    pub(crate) fn mark(&self) -> Option<&HighWaterMark> {
        match &self.coverage {
            MapCoverage::AboveMark(mark) => Some(mark),
            MapCoverage::Whole | MapCoverage::SamplesOnly => None,
        }
    }

    /// The mark's UID; 0 where there is none.
    #[must_use]
    pub(crate) fn mark_uid(&self) -> SourceUid {
        self.mark().map_or(SourceUid(0), |mark| mark.uid)
    }

    /// True when what is known of the folder is too little to go on from.
    #[must_use]
    pub(crate) fn is_known_by_samples(&self) -> bool {
        self.coverage == MapCoverage::SamplesOnly
    }

    /// Source UIDs that need no copy any more: those in the map, those that were found in other folders, and all up to the
    /// mark that are no exceptions.
    #[must_use]
    pub(crate) fn copied_uids(&self) -> UidSet<SourceUid> {
        let known = self.map.copied().union(&self.moved_uids());
        self.mark().map_or_else(|| known.clone(), |mark| known.union(&mark.copied()))
    }

    /// Source UIDs that were dealt with: copied or set aside.
    #[must_use]
    pub(crate) fn finished_uids(&self) -> UidSet<SourceUid> {
        self.copied_uids().union(&self.set_aside.uids())
    }

    /// Copied messages whose flags and deletions the destination follows. Up to the mark nobody knows what the flags were,
    /// and where the copies are.
    #[must_use]
    pub(crate) fn followed_uids(&self) -> UidSet<SourceUid> {
        let mut followed = self.map.copied().clone();
        followed.remove_range(SourceUid(1), self.mark_uid());
        followed
    }

    /// Source UIDs whose copies are somewhere at the destination: those with unknown UIDs, and those up to the mark that are
    /// not in the map, as far as the source holds them.
    #[must_use]
    pub(crate) fn unplaced_uids(&self) -> UidSet<SourceUid> {
        self.map.unknown_uids().union(&self.unmapped_uids())
    }

    /// Source UIDs up to the mark that are copied and not in the map, as far as the source holds them.
    #[must_use]
    pub(crate) fn unmapped_uids(&self) -> UidSet<SourceUid> {
        let Some(mark) = self.mark() else { return UidSet::default() };
        let unmapped = mark.copied().difference(self.map.copied());
        match &self.listing {
            Some(listing) => unmapped.intersection(&listing.held),
            None => unmapped,
        }
    }

    /// How many messages were copied or adopted.
    #[must_use]
    pub fn copied_count(&self) -> u64 {
        let Some(mark) = self.mark() else { return self.map.len() + self.moved_uids().len() };
        let known = self.map.copied().union(&self.moved_uids());
        let not_copied = mark.exceptions.difference(&known).len() + mark.unlisted_left_out();
        let mut above = known;
        above.remove_range(SourceUid(1), mark.uid);
        mark.listed.saturating_sub(not_copied) + above.len()
    }

    /// How many of them were adopted.
    #[must_use]
    pub fn adopted_count(&self) -> u64 {
        self.adopted_up_to(SourceUid(u32::MAX))
    }

    fn adopted_up_to(&self, uid: SourceUid) -> u64 {
        let adopted = self.map.adopted().union(&self.moved_uids());
        let Some(mark) = self.mark() else { return up_to(&adopted, uid).len() };
        // Of those up to the mark that are in the map, it counts what is no exception.
        let mut later = up_to(&adopted, uid);
        later.remove_range(SourceUid(1), mark.uid);
        mark.adopted + adopted.intersection(&mark.exceptions).len() + later.len()
    }

    /// How many messages the source had at least when it was looked at last: those that were dealt with.
    #[must_use]
    pub(crate) fn finished_count(&self) -> u64 {
        let Some(mark) = self.mark() else { return self.finished_uids().len() };
        let mut above = self.map.copied().union(&self.moved_uids()).union(&self.set_aside.uids());
        above.remove_range(SourceUid(1), mark.uid);
        mark.listed + above.len()
    }

    /// Messages that are known to be left out only by the rules that did so.
    #[must_use]
    pub(crate) fn unlisted_left_out(&self) -> u64 {
        self.mark().map_or(0, HighWaterMark::unlisted_left_out)
    }

    /// Why the mark can't be believed, as the source lists the folder now.
    #[must_use]
    pub(crate) fn doubt_mark(&self, held: &UidSet<SourceUid>, rules: &MessageFilter) -> Option<MarkDoubt> {
        let mark = self.mark()?;
        if up_to(held, mark.uid).len() > mark.listed {
            return Some(MarkDoubt::MoreListed);
        }
        let lets_through = |left_out: &LeftOutByRules| !leave_out_as_much(rules, &left_out.rules);
        mark.left_out.as_ref().filter(|left_out| lets_through(left_out)).map(|_| MarkDoubt::OtherRules)
    }

    /// From here on only what stands in the map counts as copied. The rest is looked for in the whole folder, as what the
    /// source did not list before.
    pub(crate) fn drop_mark(&mut self) {
        self.unlisted = self.unlisted.max(1);
        self.coverage = MapCoverage::Whole;
    }

    /// Remembers what the source listed, where it listed all, and which of it `rules` leave out for good.
    pub(crate) fn record_listing(
        &mut self,
        listed: &FolderListing<SourceUid>,
        left_out: UidSet<SourceUid>,
        rules: &MessageFilter,
    ) {
        let before = self.listing.take();
        if listed.unlisted > 0 {
            return;
        }
        let (copied, held) = (self.copied_uids(), listed.uids.clone());
        let ends = [held.last(), copied.last()];
        // A lost connection makes a run list the folder again.
        let copied_before = before.map_or(copied, |before| before.copied_before.clone());
        let end = ends.into_iter().flatten().max().unwrap_or(SourceUid(0));
        if let MapCoverage::AboveMark(mark) = &mut self.coverage {
            mark.listed = up_to(&held, mark.uid).len();
            mark.exceptions = mark.exceptions.intersection(&held);
            mark.left_out = mark.left_out.take().map(|left_out| LeftOutByRules {
                messages: left_out.messages.min(mark.listed.saturating_sub(mark.exceptions.len())),
                ..left_out
            });
        }
        let rules = rules.clone();
        self.listing = Some(SourceListing { up_to: end, held, copied_before, left_out, rules }.into());
    }

    /// The highest mark that can be set.
    fn next_mark(&self) -> Option<HighWaterMark> {
        let copied = self.copied_uids();
        if let Some(listing) = &self.listing {
            let uid = up_to(&copied, listing.up_to).last()?;
            let held = up_to(&listing.held, uid);
            let (listed, adopted) = (held.len(), self.adopted_up_to(uid));
            let left_out = self.mark().and_then(|mark| mark.left_out.clone());
            return Some(HighWaterMark { uid, listed, adopted, exceptions: held.difference(&copied), left_out });
        }
        match (&self.coverage, self.settled) {
            (MapCoverage::AboveMark(mark), _) => Some(HighWaterMark {
                adopted: self.adopted_up_to(mark.uid),
                exceptions: mark.exceptions.difference(self.map.copied()),
                ..mark.clone()
            }),
            // Nothing was left to do: all that the source listed below UIDNEXT was copied or set aside.
            (MapCoverage::Whole, Some(settled)) => {
                let uid = SourceUid(settled.uid_next.saturating_sub(1));
                let exceptions = up_to(&self.set_aside.uids(), uid).difference(&copied);
                let (listed, adopted) = (settled.messages.into(), self.adopted_up_to(uid));
                Some(HighWaterMark { uid, listed, adopted, exceptions, left_out: None })
            }
            _ => None,
        }
    }

    /// Moves the mark up as far as it goes. Of the map up to there these stay: what lies in the uncertain tail, what has no
    /// known UID, and a few samples. Does nothing where no mark can be set.
    pub(super) fn reduce(&mut self) {
        let Some(mark) = self.next_mark() else { return };
        let kept = self.map.samples(SAMPLES).union(&self.tail_sources()).union(&self.map.unknown_uids());
        self.coverage = MapCoverage::AboveMark(mark);
        self.keep_in_map(&kept);
        // While an APPEND may be in doubt the mark may go down once more.
        if !self.append_in_doubt {
            self.drop_moved_below_mark();
        }
    }

    /// What was found in other folders counts as copied up to the mark without being listed.
    fn drop_moved_below_mark(&mut self) {
        let Some(mark) = self.mark() else { return };
        let below = mark.copied();
        for moved in &mut self.moved {
            let dropped = moved.map.copied().intersection(&below);
            moved.map.remove_sources(&dropped);
        }
        self.moved.retain(|moved| !moved.map.is_empty());
    }

    /// The same, and makes a folder with a mark as small as it can be. What rules left out is known only by the rules. While an APPEND may
    /// be in doubt, what lies in the tail is taken back: it will be looked for there, as if the checkpoint had been written
    /// earlier. Else the doubts of earlier runs are settled.
    pub(super) fn reduce_further(&mut self) {
        self.reduce();
        let MapCoverage::AboveMark(mut mark) = self.coverage.clone() else { return };
        let samples = self.map.samples(SAMPLES);
        let listing = self.listing.clone();
        let mut kept = samples.clone();
        if self.append_in_doubt {
            let unknown = self.map.unknown_uids();
            let (of_run, earlier) = match &listing {
                Some(listing) => (unknown.difference(&listing.copied_before), UidSet::default()),
                None => (UidSet::default(), unknown),
            };
            kept = kept.union(&earlier);
            let taken_back = self.tail_sources().union(&of_run).difference(&kept);
            mark.adopted -= mark.adopted.min(up_to(&taken_back, mark.uid).intersection(&self.map.adopted()).len());
            self.map.retain_sources(&self.map.copied().difference(&taken_back));
            mark.exceptions = mark.exceptions.union(&up_to(&taken_back, mark.uid));
            if let Some(listing) = &listing {
                // Copies are made in the order of UIDs: below what is taken back there are few exceptions.
                let before = mark.uid;
                let rest = mark.copied().difference(&samples).intersection(&listing.held);
                mark.uid = rest.last().unwrap_or(SourceUid(0));
                let held = up_to(&listing.held, mark.uid);
                mark.listed = held.len();
                mark.exceptions = mark.exceptions.intersection(&held);
                // What is above the mark now counts as an entry of the map.
                let mut above = up_to(&self.map.adopted(), before);
                above.remove_range(SourceUid(1), mark.uid);
                mark.adopted -= mark.adopted.min(above.len());
            }
        } else {
            self.settle_doubted();
            let next = self.map.destination_uids().last().map_or(0, |last| last.0.saturating_add(1));
            self.tail_from = self.tail_from.max(next);
        }
        if let Some(listing) = &listing {
            let hidden = mark.exceptions.intersection(&listing.left_out);
            if !hidden.is_empty() {
                let messages = mark.unlisted_left_out() + hidden.len();
                mark.left_out = Some(LeftOutByRules { rules: listing.rules.clone(), messages });
                mark.exceptions = mark.exceptions.difference(&hidden);
            }
        }
        self.coverage = MapCoverage::AboveMark(mark);
        self.keep_in_map(&kept);
        self.drop_moved_below_mark();
    }

    /// The folder's state is of somebody else's attempts: what is copied counts as found at the destination, and more may
    /// be there.
    pub(super) fn disown(&mut self) {
        self.map.adopt_all();
        if let MapCoverage::AboveMark(mark) = &mut self.coverage {
            mark.adopted = mark.listed.saturating_sub(mark.exceptions.len() + mark.unlisted_left_out());
        }
        self.append_in_doubt = true;
    }

    /// Keeps the last few messages alone.
    pub(super) fn keep_samples(&mut self) {
        let samples = self.map.samples(SAMPLES);
        self.coverage = MapCoverage::SamplesOnly;
        self.map.retain_sources(&samples);
        self.flags.clear();
        self.moved.clear();
        self.settle_doubted();
    }

    /// Of the map up to the mark keeps these, and the flags of what is kept.
    fn keep_in_map(&mut self, kept: &UidSet<SourceUid>) {
        let kept = self.followed_uids().union(&kept.intersection(self.map.copied()));
        // What is in both was copied after all: without its entry it must not look as if it were not.
        self.set_aside.remove(self.map.copied());
        self.map.retain_sources(&kept);
        for set in self.flags.values_mut() {
            *set = set.intersection(&kept);
        }
        self.flags.retain(|_, set| !set.is_empty());
        self.unseen = self.unseen.intersection(&kept);
    }

    /// Source UIDs of copies in the uncertain tail.
    fn tail_sources(&self) -> UidSet<SourceUid> {
        let from = DestinationUid(self.tail_from.max(1));
        self.map.sources_of(&UidSet::from_ranges([(from, DestinationUid(u32::MAX))]))
    }
}
