//! Which copies may be deleted because their source message is gone, and when that is not to be believed.

use super::{checkpoint::FolderState, uid::SourceUid};
use crate::imap::UidSet;

/// Up to this many vanished messages are plausible in a folder of any size.
const ALWAYS_PLAUSIBLE: u64 = 20;

/// Beyond that, up to this share of the copied messages.
const PLAUSIBLE_PERCENT: u64 = 30;

/// What the source said about a folder in one session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SourceSnapshot<'a> {
    /// UIDVALIDITY.
    pub uid_validity: u32,
    /// UIDNEXT, where it was given.
    pub uid_next: Option<u32>,
    /// EXISTS after the search.
    pub messages: u32,
    /// Messages that it counts and lists nowhere.
    pub unlisted: u64,
    /// What it lists.
    pub all: &'a UidSet<SourceUid>,
}

/// Copied messages whose source is gone, in source UIDs. All of them are to leave the map once `delete` is done, or they
/// would count as vanished in each later sync.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct VanishedCopies {
    /// Appended by us, copy known: the copy is to be deleted.
    pub delete: UidSet<SourceUid>,
    /// Adopted, or copy unknown: the copy stays.
    pub keep: UidSet<SourceUid>,
}

/// Which copies to delete.
///
/// # Errors
/// The doubt, for the report, when the answers contradict each other or too much vanished at once: then nothing may be
/// deleted.
pub(crate) fn decide_deletions(state: &FolderState, now: &SourceSnapshot) -> Result<VanishedCopies, String> {
    // Where copies up to a mark are is not known.
    let copied = state.followed_uids();
    let vanished = copied.difference(now.all);
    if vanished.is_empty() {
        return Ok(VanishedCopies::default());
    }
    let nothing = |why: String| Err(format!("{why}; nothing was deleted"));
    if now.uid_validity != state.source_uid_validity {
        return nothing("the source's UIDVALIDITY changed".to_owned());
    }
    if now.unlisted > 0 {
        return nothing(format!("{} of the source's {} messages are listed nowhere", now.unlisted, now.messages));
    }
    if now.all.len() != u64::from(now.messages) {
        let found = now.all.len();
        return nothing(format!("the source has {} messages, but its search found {found}", now.messages));
    }
    let highest = copied.union(now.all).last();
    if let Some((next, highest)) = now.uid_next.zip(highest).filter(|(next, highest)| *next <= highest.0) {
        return nothing(format!("the source's UIDNEXT is {next}, but it had a message with UID {highest}"));
    }
    let all_copied = state.copied_count();
    if now.all.is_empty() && all_copied > ALWAYS_PLAUSIBLE {
        return nothing(format!("the source folder is empty, but {all_copied} messages were copied from it"));
    }
    let plausible = ALWAYS_PLAUSIBLE.max(copied.len() * PLAUSIBLE_PERCENT / 100);
    if vanished.len() > plausible {
        return nothing(format!(
            "{} of {} copied messages vanished from the source at once, more than is plausible ({plausible})",
            vanished.len(),
            copied.len()
        ));
    }
    let delete = vanished.intersection(&state.map.deletable());
    Ok(VanishedCopies { keep: vanished.difference(&delete), delete })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sync::{
        uid::DestinationUid,
        uid_map::{CopyOrigin, UidRun},
    };

    fn state(length: u32) -> FolderState {
        let mut state = FolderState { source_uid_validity: 7, ..FolderState::default() };
        state.map.push_runs([run(1, 101, length, CopyOrigin::Appended)]);
        state
    }

    fn run(source: u32, destination: u32, length: u32, origin: CopyOrigin) -> UidRun {
        UidRun { source: SourceUid(source), destination: Some(DestinationUid(destination)), length, origin }
    }

    fn now(all: &UidSet<SourceUid>) -> SourceSnapshot<'_> {
        SourceSnapshot {
            uid_validity: 7,
            uid_next: None,
            messages: u32::try_from(all.len()).unwrap(),
            unlisted: 0,
            all,
        }
    }

    fn uids(low: u32, high: u32) -> UidSet<SourceUid> {
        UidSet::from_ranges([(SourceUid(low), SourceUid(high))])
    }

    #[test]
    fn only_known_copies_that_we_appended_are_deleted() {
        let mut state = state(10);
        state.map.push_runs([run(11, 201, 1, CopyOrigin::Adopted)]);
        state.map.push(SourceUid(12), None, CopyOrigin::Appended);
        state.map.push_runs([run(13, 202, 1, CopyOrigin::Appended)]);
        let vanished = decide_deletions(&state, &now(&uids(3, 10))).unwrap();
        assert_eq!(vanished.delete.to_string(), "1:2,13");
        assert_eq!(vanished.keep.to_string(), "11:12");
    }

    #[test]
    fn skipped_and_uncopied_messages_are_never_candidates() {
        assert_eq!(decide_deletions(&state(10), &now(&uids(1, 50))), Ok(VanishedCopies::default()));
    }

    #[test]
    fn an_implausible_share_is_a_doubt() {
        assert_eq!(decide_deletions(&state(1000), &now(&uids(301, 1000))).unwrap().delete, uids(1, 300));
        let doubt = decide_deletions(&state(1000), &now(&uids(302, 1000))).unwrap_err();
        assert!(doubt.contains("301 of 1000") && doubt.contains("nothing was deleted"), "{doubt}");
        assert_eq!(decide_deletions(&state(30), &now(&uids(21, 30))).unwrap().delete, uids(1, 20));
        decide_deletions(&state(30), &now(&uids(22, 30))).unwrap_err();
    }

    #[test]
    fn an_empty_source_is_a_doubt_unless_the_folder_was_small() {
        assert_eq!(decide_deletions(&state(20), &now(&UidSet::new())).unwrap().delete, uids(1, 20));
        assert!(decide_deletions(&state(21), &now(&UidSet::new())).unwrap_err().contains("empty"));
    }

    #[test]
    fn contradictions_are_doubts() {
        let all = uids(2, 10);
        let fine = now(&all);
        assert!(decide_deletions(&state(10), &fine).is_ok());
        for broken in [
            SourceSnapshot { uid_validity: 8, ..fine },
            SourceSnapshot { messages: 10, ..fine },
            SourceSnapshot { unlisted: 1, ..fine },
            SourceSnapshot { uid_next: Some(10), ..fine },
        ] {
            decide_deletions(&state(10), &broken).unwrap_err();
        }
        assert!(decide_deletions(&state(10), &SourceSnapshot { uid_next: Some(11), ..fine }).is_ok());
    }

    proptest! {
        #[test]
        fn what_the_source_still_has_is_never_deleted(
            length in 1..200_u32, gone in proptest::collection::btree_set(1..220_u32, 0..60), adopted in 0..20_u32,
        ) {
            let mut state = state(length);
            state.map.push_runs([run(length + 1, 1, adopted, CopyOrigin::Adopted)]);
            let all = uids(1, 220).difference(&gone.iter().copied().map(SourceUid).collect());
            if let Ok(vanished) = decide_deletions(&state, &now(&all)) {
                prop_assert!(vanished.delete.intersection(&all).is_empty());
                prop_assert!(vanished.delete.iter().all(|uid| uid.0 <= length));
                prop_assert_eq!(vanished.delete.union(&vanished.keep), state.map.copied().difference(&all));
            }
        }
    }
}
