//! Whatever the bound: what a reduced folder says was copied was copied, and what it does not say can be found.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::sync::{
    checkpoint::{
        QuiescentStatus,
        high_water_mark::{HighWaterMark, MapCoverage},
    },
    folder_listing::FolderListing,
    set_aside::{SetAsideGroup, SetAsideReason},
    spec::MessageFilter,
    uid::{DestinationUid, SourceUid},
    uid_map::{CopyOrigin, UidRun},
};

fn uids(text: &str) -> UidSet<SourceUid> {
    UidSet::parse(text).unwrap()
}

fn rules() -> MessageFilter {
    MessageFilter { max_size: Some(1000), ..MessageFilter::default() }
}

/// What became of one source UID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// There never was such a message.
    Missing,
    Appended,
    Adopted,
    /// Appended; the destination did not tell its UID.
    Unplaced,
    /// Copied, and gone from the source since.
    Gone,
    SetAside,
    /// By a rule on its size.
    LeftOut,
    /// Not copied yet.
    Waiting,
}

use Fate::{Adopted, Appended, Gone, LeftOut, Missing, SetAside, Unplaced, Waiting};

/// A folder in the middle of a run: the fates of its UIDs from 1 on, in which order they were copied, where the tail begins.
#[derive(Debug, Clone)]
struct Model {
    fates: Vec<Fate>,
    tail_from: u32,
    in_doubt: bool,
}

impl Model {
    fn uids(&self, which: impl Fn(Fate) -> bool) -> UidSet<SourceUid> {
        (1..).zip(&self.fates).filter(|(_, fate)| which(**fate)).map(|(uid, _)| SourceUid(uid)).collect()
    }

    fn copied(&self) -> UidSet<SourceUid> {
        self.uids(|fate| matches!(fate, Appended | Adopted | Unplaced | Gone))
    }

    fn held(&self) -> UidSet<SourceUid> {
        self.uids(|fate| !matches!(fate, Missing | Gone))
    }

    /// Writes what is not in `state` yet, as a run would that opened the folder before it copied anything new.
    fn apply(&self, state: &mut FolderState) {
        let next = state.map.destination_uids().last().map_or(1, |last| last.0 + 1);
        let listed = FolderListing { uids: self.held(), unlisted: 0 };
        state.record_listing(&listed, self.uids(|fate| fate == LeftOut), &rules());
        let before = state.copied_uids();
        for (uid, to) in self.copied().difference(&before).iter().zip(next..) {
            let fate = self.fates[uid.0 as usize - 1];
            let origin = if fate == Adopted { CopyOrigin::Adopted } else { CopyOrigin::Appended };
            state.map.push(uid, (fate != Unplaced).then_some(DestinationUid(to)), origin);
            if uid.0 % 3 == 0 {
                state.flags.entry("\\Seen".to_owned()).or_default().insert(uid);
            }
        }
        let reason = SetAsideReason::Refused;
        state.set_aside.remove(&self.copied());
        state.set_aside.retain_uids(&self.held());
        state.set_aside.add_group(SetAsideGroup::new(reason, self.uids(|fate| fate == SetAside)));
        state.tail_from = self.tail_from;
        state.append_in_doubt = self.in_doubt;
    }

    /// The folder as a whole.
    fn state(&self) -> FolderState {
        let mut state = FolderState { source_uid_validity: 1, destination_uid_validity: 2, ..FolderState::default() };
        self.apply(&mut state);
        state
    }
}

fn one(state: FolderState) -> Checkpoint {
    Checkpoint { folders: BTreeMap::from([(b"INBOX".to_vec(), state)]), ..Checkpoint::default() }
}

/// The folder as it is read again, where it is kept.
fn within(state: &FolderState, most: usize) -> Option<FolderState> {
    let encoded = one(state.clone()).encode_within(most).unwrap();
    Checkpoint::decode(&encoded).unwrap().folders.remove(b"INBOX".as_slice())
}

/// The folder as a whole, and with a mark, each as it is read again.
fn with_mark(state: &FolderState) -> FolderState {
    let mut reduced = state.clone();
    reduced.reduce();
    let read = Checkpoint::decode(&one(reduced).encode().unwrap()).unwrap();
    read.folders.into_values().next().unwrap()
}

/// Checks what is kept of a folder that was `whole`.
fn check(model: &Model, whole: &FolderState, kept: &FolderState) -> Result<(), TestCaseError> {
    if kept.is_known_by_samples() {
        return Ok(());
    }
    let (held, copied, taken) = (model.held(), whole.copied_uids(), kept.copied_uids());
    let left_out = model.uids(|fate| fate == LeftOut);
    let allowed = if kept.unlisted_left_out() > 0 { copied.union(&left_out) } else { copied.clone() };
    prop_assert!(taken.intersection(&held).difference(&allowed).is_empty(), "{kept:?} takes too much as copied");
    prop_assert!(taken.intersection(&model.uids(|f| matches!(f, SetAside | Waiting))).is_empty());
    prop_assert_eq!(&kept.set_aside, &whole.set_aside);
    // What is copied, and does not count so, lies in the tail: there it is looked for.
    let (before, after) = (whole.map.index(), kept.map.index());
    for uid in copied.intersection(&held).difference(&taken).iter() {
        prop_assert!(kept.append_in_doubt, "{uid} would be copied again");
        let place = before.get(uid).map(|(place, _)| place);
        prop_assert!(place.is_some_and(|place| place.is_none_or(|to| to.0 >= kept.tail_from)), "{uid}: {place:?}");
    }
    // The tail holds no copy of a message that counts as copied, but for those in the map.
    for uid in whole.map.copied().intersection(&taken).intersection(&held).iter() {
        let place = before.get(uid).and_then(|(place, _)| place);
        if place.is_some_and(|to| to.0 >= kept.tail_from) {
            prop_assert!(after.get(uid).is_some(), "the copy of {uid} could be taken for that of another");
        }
    }
    for uid in kept.map.copied().iter() {
        prop_assert_eq!(after.get(uid), before.get(uid));
    }
    // What is followed has the flags that it had.
    for uid in kept.followed_uids().iter() {
        let has = |state: &FolderState| state.flags.get("\\Seen").is_some_and(|set| set.contains(uid));
        prop_assert_eq!(has(kept), has(whole));
    }
    prop_assert!(kept.followed_uids().difference(&whole.followed_uids()).is_empty());
    let up_to = UidSet::from_ranges([(SourceUid(1), kept.mark_uid())]);
    let below = taken.intersection(&held).intersection(&up_to).len() - kept.unlisted_left_out();
    prop_assert_eq!(kept.copied_count(), below + kept.followed_uids().len());
    prop_assert!(kept.adopted_count() <= whole.adopted_count());
    Ok(())
}

fn models() -> impl Strategy<Value = Model> {
    let fate = prop_oneof![
        3 => Just(Missing), 8 => Just(Appended), 1 => Just(Adopted), 1 => Just(Unplaced), 1 => Just(Gone),
        1 => Just(SetAside), 1 => Just(LeftOut), 1 => Just(Waiting),
    ];
    (proptest::collection::vec(fate, 1..150), 1..150_u32, any::<bool>())
        .prop_map(|(fates, tail_from, in_doubt)| Model { fates, tail_from, in_doubt })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_counts_as_copied_that_was_not_and_nothing_that_was_is_copied_again(
        model in models(), most in 60..250_usize,
    ) {
        let whole = model.state();
        prop_assert_eq!(&whole.copied_uids(), &model.copied());
        if let Some(kept) = within(&whole, most) {
            check(&model, &whole, &kept)?;
        }
        check(&model, &whole, &with_mark(&whole))?;
    }

    #[test]
    fn a_reduced_folder_that_is_synced_again_can_be_reduced_again(
        (model, more) in (models(), models()), gone in 1..40_usize, most in 60..250_usize,
    ) {
        let first = with_mark(&model.state());
        // Later some messages are gone, others that waited are copied, and new ones came.
        let later = |(at, fate): (usize, &Fate)| match fate {
            Appended if at % gone == 3 => Gone,
            Waiting | SetAside if at % 2 == 0 => Appended,
            fate => *fate,
        };
        let mut model = Model { in_doubt: more.in_doubt, ..model };
        model.fates = model.fates.iter().enumerate().map(later).chain(more.fates.clone()).collect();
        let mut again = first.clone();
        let next = again.map.destination_uids().last().map_or(1, |last| last.0 + 1);
        model.tail_from = next.max(model.tail_from);
        model.apply(&mut again);
        if !first.is_known_by_samples() {
            let held = model.held();
            prop_assert_eq!(again.copied_uids().intersection(&held), model.copied().intersection(&held));
            if let Some(kept) = within(&again, most) {
                check(&model, &again, &kept)?;
            }
            let second = with_mark(&again);
            check(&model, &again, &second)?;
            prop_assert!(second.mark_uid() >= first.mark_uid());
        }
    }
}

/// Numbers that no compression finds a rule in.
fn irregular(number: usize) -> usize {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40
}

/// UIDs from 1 to `length` without some 15 % that lie irregularly, copied but for those in `fates`.
fn folder(length: usize, fates: &[(usize, Fate)]) -> Model {
    let is_missing = |uid: usize| irregular(uid) % 100 < 15;
    let mut all: Vec<Fate> = (1..=length).map(|uid| if is_missing(uid) { Missing } else { Appended }).collect();
    for (uid, fate) in fates {
        all[uid - 1] = *fate;
    }
    Model { fates: all, tail_from: u32::try_from(length).unwrap() + 1, in_doubt: false }
}

#[test]
fn up_to_the_mark_the_exceptions_are_listed_and_the_rest_counts_as_copied() {
    let model = folder(
        100,
        &[(3, SetAside), (10, LeftOut), (20, Waiting), (30, Adopted), (40, Gone), (99, Waiting), (100, Appended)],
    );
    let kept = with_mark(&model.state());
    let mark = kept.mark().unwrap();
    let held = model.held().len();
    assert_eq!((mark.uid, mark.listed, mark.adopted), (SourceUid(100), held, 1));
    assert_eq!(mark.exceptions, uids("3,10,20,99"));
    assert_eq!((kept.copied_count(), kept.adopted_count()), (held - 4, 1));
    assert_eq!(kept.finished_uids().intersection(&uids("1:200")), uids("1:9,11:19,21:98,100"));
    assert!(kept.map.len() <= 8 && kept.followed_uids().is_empty(), "{:?}", kept.map);
}

#[test]
fn a_message_above_the_last_copy_is_above_the_mark() {
    let kept = with_mark(&folder(100, &[(98, Appended), (99, Waiting), (100, Waiting)]).state());
    let mark = kept.mark().unwrap();
    assert_eq!((mark.uid.0, mark.exceptions.is_empty()), (98, true));
}

#[test]
fn entries_of_the_tail_and_copies_without_a_uid_stay() {
    let model = Model { tail_from: 50, in_doubt: true, ..folder(100, &[(5, Unplaced), (6, Unplaced)]) };
    let whole = model.state();
    let kept = with_mark(&whole);
    assert_eq!(kept.map.unknown_uids(), uids("5:6"));
    let tail = |state: &FolderState| state.map.destination_uids().iter().filter(|uid| uid.0 >= 50).count();
    assert!(tail(&kept) > 10 && tail(&kept) == tail(&whole));
    assert_eq!((kept.tail_from, kept.append_in_doubt), (50, true));
}

#[test]
fn a_folder_that_this_run_did_not_open_is_reduced_only_where_nothing_was_left_to_do() {
    let model = folder(100, &[(3, SetAside)]);
    let mut whole = FolderState { listing: None, ..model.state() };
    let mut reduced = whole.clone();
    reduced.reduce();
    assert_eq!(reduced, whole, "nobody knows what the source held");
    let messages = u32::try_from(model.held().len()).unwrap();
    whole.settled = Some(QuiescentStatus { uid_next: 105, messages, highest_modseq: None });
    let kept = with_mark(&whole);
    let mark = kept.mark().unwrap();
    assert_eq!((mark.uid.0, mark.listed, mark.exceptions.clone()), (104, messages.into(), uids("3")));
    assert_eq!(kept.copied_count(), u64::from(messages) - 1);
}

#[test]
fn a_listing_that_leaves_messages_out_moves_no_mark() {
    let model = folder(100, &[]);
    let mut state = with_mark(&model.state());
    let before = state.mark().cloned();
    let listed = FolderListing { uids: uids("1:3,200:210"), unlisted: 80 };
    state.record_listing(&listed, UidSet::default(), &rules());
    state.map.push(SourceUid(200), Some(DestinationUid(300)), CopyOrigin::Appended);
    let kept = with_mark(&state);
    assert_eq!(kept.mark().cloned(), before);
    assert!(kept.map.copied().contains(SourceUid(200)));
}

#[test]
fn what_rules_left_out_is_known_by_the_rules_alone_where_there_is_no_room_for_it() {
    let model = folder(
        4000,
        &(1..4000).filter(|uid| irregular(uid * 3).is_multiple_of(3)).map(|uid| (uid, LeftOut)).collect::<Vec<_>>(),
    );
    let whole = model.state();
    let left_out = model.uids(|fate| fate == LeftOut);
    let marked = one(with_mark(&whole)).encode().unwrap().len();
    let listed = within(&whole, marked + 20).unwrap();
    assert_eq!(listed.mark().unwrap().exceptions, left_out);
    let kept = within(&whole, marked - 20).unwrap();
    let mark = kept.mark().unwrap();
    let known = mark.left_out.clone().unwrap();
    assert_eq!((known.messages, known.rules, mark.exceptions.is_empty()), (left_out.len(), rules(), true));
    assert_eq!(kept.copied_count(), whole.copied_count());
    let looser = MessageFilter { max_size: Some(2000), ..MessageFilter::default() };
    assert!(kept.doubt_mark(&model.held(), &rules()).is_none() && kept.doubt_mark(&model.held(), &looser).is_some());
}

#[test]
fn what_is_in_doubt_and_has_no_room_is_looked_for_as_if_it_had_not_been_saved_yet() {
    let model = Model { tail_from: 1, in_doubt: true, ..folder(4000, &[(1000, Waiting)]) };
    let whole = model.state();
    let marked = one(with_mark(&whole)).encode().unwrap().len();
    let kept = within(&whole, marked / 2).unwrap();
    assert!(!kept.is_known_by_samples() && kept.append_in_doubt && kept.tail_from == 1);
    assert!(kept.copied_uids().len() <= 8, "{:?}", kept.copied_uids());
    check(&model, &whole, &kept).unwrap();
}

#[test]
fn the_folders_with_the_fewest_messages_are_dropped_first_and_counted() {
    let mut checkpoint = Checkpoint { fingerprint: "9f".repeat(32), ..Checkpoint::default() };
    for n in 0..600_u64 {
        let name = format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into_bytes();
        let messages = u32::try_from(n).unwrap();
        let mut state = FolderState::default();
        let (source, destination) = (SourceUid(1), Some(DestinationUid(1)));
        state.map.push_runs([UidRun { source, destination, length: messages, origin: CopyOrigin::Appended }]);
        let settled = QuiescentStatus { uid_next: messages + 1, messages, highest_modseq: None };
        checkpoint.folders.insert(name, FolderState { settled: Some(settled), ..state });
    }
    let most = checkpoint.encode().unwrap().len() / 2;
    let read = Checkpoint::decode(&checkpoint.encode_within(most).unwrap()).unwrap();
    assert!(read.folders.len() > 100, "{} are left", read.folders.len());
    // The one without a message is no loss.
    assert_eq!(read.folders.len() as u64 + read.dropped_folders + 1, 600);
    let count = |name: &Vec<u8>| checkpoint.folders[name].settled.unwrap().messages;
    let dropped = checkpoint.folders.keys().filter(|name| !read.folders.contains_key(*name)).map(count).max();
    assert!(dropped < read.folders.keys().map(count).min());
}

#[test]
fn a_large_folder_without_a_mark_is_known_by_samples() {
    let model = Model { in_doubt: true, ..folder(4000, &[]) };
    let whole = FolderState { listing: None, ..model.state() };
    let most = one(whole.clone()).encode().unwrap().len() / 2;
    let kept = within(&whole, most).unwrap();
    assert!(kept.is_known_by_samples() && kept.copied_uids().len() <= 8);
}

#[test]
fn a_mark_of_zero_says_nothing_of_any_message() {
    let mark =
        HighWaterMark { uid: SourceUid(0), listed: 0, adopted: 0, exceptions: UidSet::default(), left_out: None };
    let state = FolderState { coverage: MapCoverage::AboveMark(mark), ..FolderState::default() };
    let read = Checkpoint::decode(&one(state.clone()).encode().unwrap()).unwrap();
    assert_eq!(read.folders[b"INBOX".as_slice()], state);
    assert!(state.copied_uids().is_empty() && state.doubt_mark(&uids("1:9"), &rules()).is_none());
}
