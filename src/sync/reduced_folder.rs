//! A folder of which the checkpoint knows only a part, since the whole had no room in a status: whether its high-water mark
//! is believed, and what its user is told.

use super::{
    checkpoint::{
        FolderState,
        high_water_mark::{HighWaterMark, MarkDoubt},
    },
    report::FolderReport,
    spec::MessageFilter,
    uid::SourceUid,
};
use crate::imap::UidSet;

/// What to do for a user who needs more than a reduced folder gives.
const WAY_OUT: &str = "`mailferry run` keeps whole checkpoints on disk";

/// What is told of a folder of which only samples are kept.
pub(crate) fn note_unknown_copies(report: &mut FolderReport) {
    report.notes.push(format!(
        "what was copied before is no longer known, since that is too large for a status: the folder is compared with the \
         destination as if nothing had been copied, so what was removed or marked there may come back; {WAY_OUT}"
    ));
}

/// Holds the mark of `state` against what the source lists now. Where it can't be believed any more it is dropped, and its
/// UID returned: up to there, messages are looked for in the whole destination folder. Tells what that means in `report`,
/// which is given once a run.
pub(crate) fn check_mark(
    state: &mut FolderState,
    held: &UidSet<SourceUid>,
    rules: &MessageFilter,
    report: Option<&mut FolderReport>,
) -> SourceUid {
    let doubt = state.doubt_mark(held, rules);
    if let Some((report, mark)) = report.zip(state.mark()) {
        let note = doubt.map_or_else(|| mark_note(mark), |doubt| doubt_note(mark, doubt));
        report.notes.push(note);
    }
    if doubt.is_none() {
        return SourceUid(0);
    }
    let uid = state.mark_uid();
    state.drop_mark();
    uid
}

fn mark_note(mark: &HighWaterMark) -> String {
    format!(
        "which copies belong to the messages up to UID {} is no longer known, since that is too large for a status: none of \
         them is copied again, but flags that change and messages that are deleted at the source are no longer followed \
         for them; {WAY_OUT}",
        mark.uid
    )
}

fn doubt_note(mark: &HighWaterMark, doubt: MarkDoubt) -> String {
    let HighWaterMark { uid, listed, .. } = mark;
    let why = match doubt {
        MarkDoubt::MoreListed => {
            format!("the source lists more messages up to UID {uid} than the {listed} that it did")
        }
        MarkDoubt::OtherRules => {
            format!(
                "the message rules changed, and which messages up to UID {uid} they left out is too large for a status"
            )
        }
    };
    format!(
        "{why}: these messages are compared with the destination, so what was removed there may come back; {WAY_OUT}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::checkpoint::high_water_mark::{LeftOutByRules, MapCoverage};

    fn uids(text: &str) -> UidSet<SourceUid> {
        UidSet::parse(text).unwrap()
    }

    fn state(left_out: Option<LeftOutByRules>) -> FolderState {
        let mark = HighWaterMark { uid: SourceUid(9), listed: 5, adopted: 0, exceptions: uids("4"), left_out };
        FolderState { coverage: MapCoverage::AboveMark(mark), ..FolderState::default() }
    }

    fn check(state: &mut FolderState, held: &str, rules: &MessageFilter) -> (u32, Vec<String>) {
        let mut report = FolderReport::default();
        let uid = check_mark(state, &uids(held), rules, Some(&mut report));
        (uid.0, report.notes)
    }

    #[test]
    fn a_mark_counts_as_long_as_no_more_is_listed_up_to_it() {
        let rules = MessageFilter::default();
        for held in ["1:5", "2,4,9:20", "30"] {
            let mut state = state(None);
            let (uid, notes) = check(&mut state, held, &rules);
            assert_eq!((uid, notes.len(), state.mark_uid()), (0, 1, SourceUid(9)), "{held}");
            assert!(notes[0].contains("up to UID 9") && notes[0].contains("mailferry run"), "{notes:?}");
        }
        let mut state = state(None);
        let (uid, notes) = check(&mut state, "1:6", &rules);
        assert_eq!((uid, state.mark()), (9, None));
        assert!(notes.len() == 1 && notes[0].contains("more messages up to UID 9 than the 5"), "{notes:?}");
        assert!(state.copied_uids().is_empty() && state.unlisted > 0, "what is not in the map is looked for");
    }

    #[test]
    fn other_rules_count_only_where_what_they_left_out_is_not_listed() {
        let rules = MessageFilter { max_size: Some(100), ..MessageFilter::default() };
        let looser = MessageFilter { max_size: Some(101), ..MessageFilter::default() };
        let hidden = || Some(LeftOutByRules { rules: rules.clone(), messages: 1 });
        assert_eq!(check(&mut state(hidden()), "1:5", &rules).0, 0);
        assert_eq!(check(&mut state(None), "1:5", &looser).0, 0);
        let (uid, notes) = check(&mut state(hidden()), "1:5", &looser);
        assert_eq!(uid, 9);
        assert!(notes.len() == 1 && notes[0].contains("the message rules changed"), "{notes:?}");
    }

    #[test]
    fn nothing_is_told_twice_in_a_run() {
        let mut state = state(None);
        assert_eq!(check_mark(&mut state, &uids("1:6"), &MessageFilter::default(), None), SourceUid(9));
    }
}
