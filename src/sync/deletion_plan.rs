//! Which copies may be deleted because their source message is gone, when that is not to be believed, and when a person is to
//! confirm it first.

use std::{collections::BTreeSet, fmt};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{checkpoint::FolderState, uid::SourceUid};
use crate::imap::UidSet;

/// So many messages that vanished at once wait for a person, where they are more than [`PLAUSIBLE_PERCENT`] of the folder.
const MANY: u64 = 4;

/// Up to this share of a folder's copied messages may vanish at once without a question.
const PLAUSIBLE_PERCENT: u64 = 30;

/// Bytes of the hash that a token shows, as hexadecimal digits.
const TOKEN_BYTES: usize = 8;

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

/// What a person has confirmed, and for which folder of which accounts a token would stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeletionConfirmation<'a> {
    /// The accounts' [`fingerprint`](super::checkpoint::fingerprint).
    pub accounts: &'a str,
    /// The raw name of the source folder.
    pub folder: &'a [u8],
    /// The tokens that were given.
    pub tokens: &'a BTreeSet<String>,
}

impl DeletionConfirmation<'_> {
    /// The token of exactly these messages: of another folder, or with one message more or less, it is another one. Each
    /// part is hashed with its length, so that no two sets read alike.
    fn token(&self, uid_validity: u32, vanished: &UidSet<SourceUid>) -> String {
        let mut hasher = Sha256::new();
        let (validity, vanished) = (uid_validity.to_string(), vanished.to_string());
        for part in [self.accounts.as_bytes(), self.folder, validity.as_bytes(), vanished.as_bytes()] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        let digits = hasher.finalize();
        let digits = digits.iter().take(TOKEN_BYTES).flat_map(|byte| [byte >> 4, byte & 15]);
        digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
    }
}

/// Deletions that wait until a person confirms them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldDeletions {
    /// Messages that vanished from the source.
    pub messages: u64,
    /// Of so many that were copied.
    pub of: u64,
    /// Their copies that would be deleted: those that Mailferry made.
    pub copies: u64,
    /// What stands for exactly these messages, in `spec.confirmDeletions` or after `--confirm-deletions`.
    pub token: String,
}

impl fmt::Display for HeldDeletions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, of, copies, token } = self;
        write!(
            f,
            "{messages} of {of} copied messages vanished from the source at once, more than {PLAUSIBLE_PERCENT} %; nothing \
             was deleted. "
        )?;
        match copies {
            0 => f.write_str("None of their copies is Mailferry's own, so none would be: to end the question")?,
            1 => f.write_str("To have 1 copy of them deleted")?,
            _ => write!(f, "To have {copies} copies of them deleted")?,
        }
        write!(f, ", confirm the token {token}: --confirm-deletions {token}, or spec.confirmDeletions")
    }
}

/// Why nothing is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WithheldDeletions {
    /// The source's answers contradict each other: no confirmation helps.
    Doubt(String),
    /// So much vanished at once that a person is to confirm it.
    Held(HeldDeletions),
}

/// True when so many messages, of so many that were copied, are not deleted without a confirmation. A folder that was emptied
/// by mistake, or that a server lists in part, looks like that.
const fn needs_confirmation(vanished: u64, copied: u64) -> bool {
    vanished >= MANY && vanished.saturating_mul(100) > copied.saturating_mul(PLAUSIBLE_PERCENT)
}

/// Which copies to delete.
///
/// # Errors
/// When the answers contradict each other, or too much vanished at once and nobody confirmed it: then nothing may be
/// deleted.
pub(crate) fn decide_deletions(
    state: &FolderState,
    now: &SourceSnapshot<'_>,
    confirmation: &DeletionConfirmation<'_>,
) -> Result<VanishedCopies, WithheldDeletions> {
    // Where copies up to a mark are is not known.
    let copied = state.followed_uids();
    let vanished = copied.difference(now.all);
    if vanished.is_empty() {
        return Ok(VanishedCopies::default());
    }
    let nothing = |why: String| Err(WithheldDeletions::Doubt(format!("{why}; nothing was deleted")));
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
    let delete = vanished.intersection(&state.map.deletable());
    if needs_confirmation(vanished.len(), copied.len()) {
        let token = confirmation.token(now.uid_validity, &vanished);
        if !confirmation.tokens.contains(&token) {
            return Err(WithheldDeletions::Held(HeldDeletions {
                messages: vanished.len(),
                of: copied.len(),
                copies: delete.len(),
                token,
            }));
        }
    }
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

    /// Decides for one folder, with these tokens.
    fn decide(
        state: &FolderState,
        now: &SourceSnapshot<'_>,
        tokens: &[&str],
    ) -> Result<VanishedCopies, WithheldDeletions> {
        let tokens = tokens.iter().map(|token| (*token).to_owned()).collect();
        decide_deletions(state, now, &DeletionConfirmation { accounts: "a", folder: b"INBOX", tokens: &tokens })
    }

    fn held(decided: Result<VanishedCopies, WithheldDeletions>) -> HeldDeletions {
        match decided {
            Err(WithheldDeletions::Held(held)) => held,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_known_copies_that_we_appended_are_deleted() {
        let mut state = state(13);
        state.map.push_runs([run(14, 201, 1, CopyOrigin::Adopted)]);
        state.map.push(SourceUid(15), None, CopyOrigin::Appended);
        state.map.push_runs([run(16, 202, 1, CopyOrigin::Appended)]);
        let vanished = decide(&state, &now(&uids(2, 13)), &[]).unwrap();
        assert_eq!(vanished.delete.to_string(), "1,16");
        assert_eq!(vanished.keep.to_string(), "14:15");
    }

    #[test]
    fn skipped_and_uncopied_messages_are_never_candidates() {
        assert_eq!(decide(&state(10), &now(&uids(1, 50)), &[]), Ok(VanishedCopies::default()));
    }

    #[test]
    fn four_messages_or_more_that_are_over_thirty_percent_wait_for_a_person() {
        for (copied, vanished, waits) in [
            (1, 1, false),
            (3, 3, false),
            (4, 3, false),
            (4, 4, true),
            (5, 4, true),
            (10, 3, false),
            (10, 4, true),
            (10, 8, true),
            (13, 4, true),
            (14, 4, false),
            (20, 6, false),
            (20, 7, true),
            (1000, 300, false),
            (1000, 301, true),
            (1000, 1000, true),
        ] {
            let decided = decide(&state(copied), &now(&uids(vanished + 1, copied)), &[]);
            assert_eq!(decided.is_err(), waits, "{vanished} of {copied}");
            if waits {
                let held = held(decided);
                assert_eq!((held.messages, held.of, held.copies), (vanished.into(), copied.into(), vanished.into()));
            } else {
                assert_eq!(decided.unwrap().delete, uids(1, vanished));
            }
        }
    }

    #[test]
    fn what_is_held_is_told_with_the_way_to_let_it_through() {
        let held = held(decide(&state(10), &now(&uids(9, 10)), &[]));
        let token = &held.token;
        assert_eq!(
            held.to_string(),
            format!(
                "8 of 10 copied messages vanished from the source at once, more than 30 %; nothing was deleted. To have 8 \
                 copies of them deleted, confirm the token {token}: --confirm-deletions {token}, or spec.confirmDeletions"
            )
        );
        assert_eq!(decide(&state(10), &now(&uids(9, 10)), &["x", &held.token]).unwrap().delete, uids(1, 8));
    }

    #[test]
    fn a_token_stands_for_these_messages_of_this_folder_of_these_accounts_only() {
        let token = |accounts, folder: &[u8], validity, vanished: &UidSet<SourceUid>| {
            DeletionConfirmation { accounts, folder, tokens: &BTreeSet::new() }.token(validity, vanished)
        };
        let all = [
            token("a", b"INBOX", 7, &uids(1, 8)),
            token("b", b"INBOX", 7, &uids(1, 8)),
            token("a", b"Sent", 7, &uids(1, 8)),
            token("a", b"INBOX", 8, &uids(1, 8)),
            token("a", b"INBOX", 7, &uids(1, 9)),
            token("aI", b"NBOX", 7, &uids(1, 8)),
        ];
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert!(all.iter().all(|token| token.len() == 16 && token.chars().all(|c| c.is_ascii_hexdigit())));
        assert_eq!(all[0], token("a", b"INBOX", 7, &uids(1, 8)), "the same in each run");
    }

    #[test]
    fn contradictions_are_doubts_and_no_token_helps() {
        let all = uids(9, 10);
        let fine = now(&all);
        let token = held(decide(&state(10), &fine, &[])).token;
        assert!(decide(&state(10), &fine, &[&token]).is_ok());
        for broken in [
            SourceSnapshot { uid_validity: 8, ..fine },
            SourceSnapshot { messages: 10, ..fine },
            SourceSnapshot { unlisted: 1, ..fine },
            SourceSnapshot { uid_next: Some(10), ..fine },
        ] {
            let decided = decide(&state(10), &broken, &[&token]);
            assert!(matches!(decided, Err(WithheldDeletions::Doubt(_))), "{decided:?}");
        }
        assert!(decide(&state(10), &SourceSnapshot { uid_next: Some(11), ..fine }, &[&token]).is_ok());
    }

    fn gone_uids(gone: &BTreeSet<u32>) -> UidSet<SourceUid> {
        gone.iter().copied().map(SourceUid).collect()
    }

    proptest! {
        #[test]
        fn what_the_source_still_has_is_never_deleted(
            length in 1..200_u32, gone in proptest::collection::btree_set(1..220_u32, 0..60), adopted in 0..20_u32,
        ) {
            let mut state = state(length);
            state.map.push_runs([run(length + 1, 1, adopted, CopyOrigin::Adopted)]);
            let all = uids(1, 220).difference(&gone_uids(&gone));
            let decided = match decide(&state, &now(&all), &[]) {
                Err(WithheldDeletions::Held(held)) => decide(&state, &now(&all), &[&held.token]),
                decided => decided,
            };
            if let Ok(vanished) = decided {
                prop_assert!(vanished.delete.intersection(&all).is_empty());
                prop_assert!(vanished.delete.iter().all(|uid| uid.0 <= length));
                prop_assert_eq!(vanished.delete.union(&vanished.keep), state.map.copied().difference(&all));
            }
        }

        #[test]
        fn without_a_confirmation_no_folder_loses_more_than_three_copies_and_three_tenths(
            length in 1..200_u32, gone in proptest::collection::btree_set(1..200_u32, 0..200),
        ) {
            let state = state(length);
            let all = uids(1, length).difference(&gone_uids(&gone));
            if let Ok(vanished) = decide(&state, &now(&all), &[]) {
                let deleted = vanished.delete.len();
                prop_assert!(deleted <= 3 || deleted * 10 <= u64::from(length) * 3, "{deleted} of {length}");
            }
        }

        #[test]
        fn the_token_of_one_set_lets_no_other_set_through(
            one in proptest::collection::btree_set(1..=12_u32, 4..=12), other in proptest::collection::btree_set(1..=12_u32, 4..=12),
        ) {
            let state = state(12);
            let of = |gone: &BTreeSet<u32>| uids(1, 12).difference(&gone_uids(gone));
            let token = held(decide(&state, &now(&of(&one)), &[])).token;
            let decided = decide(&state, &now(&of(&other)), &[&token]);
            prop_assert_eq!(decided.is_ok(), one == other);
        }
    }
}
