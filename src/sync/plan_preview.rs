//! Two accounts side by side, for commands that only look: what kind of server each is, and where its folders go.

use std::collections::BTreeMap;

use super::{
    archived_mail::LABELS,
    folder_name::{NameLimits, SideFolders},
    folder_plan::{FolderPlan, FolderPlanInput, RefusedPaths, plan_folders},
    prepare::side_folders,
    spec::SyncSpec,
};
use crate::imap::{ServerKind, Session, account_listing::AccountListing};

/// One account, as it was found.
#[derive(Debug, Clone)]
pub struct ListedAccount {
    /// Its folders.
    pub survey: AccountListing,
    /// What kind of server it is.
    pub kind: ServerKind,
    /// It shows one message in several folders, by labels (Gmail).
    pub has_labels: bool,
}

impl ListedAccount {
    /// Describes the account behind `session`, of which `survey` was made.
    #[must_use]
    pub(crate) fn new(session: &Session, survey: AccountListing) -> Self {
        let has_labels = session.capabilities().has(LABELS);
        Self { survey, kind: session.server_kind(), has_labels }
    }
}

/// An account's folders, as a plan needs them.
#[must_use]
pub(crate) fn listed_folders(survey: &AccountListing) -> SideFolders {
    side_folders(survey)
}

/// Where the folders of a mailbox go: what a sync would decide, or did decide, with these listings. `frozen` is a
/// checkpoint's mapping (raw source name to raw destination name); it may be empty.
#[must_use]
pub(crate) fn preview_plan(
    spec: &SyncSpec,
    source: &ListedAccount,
    destination: &ListedAccount,
    frozen: &BTreeMap<Vec<u8>, Vec<u8>>,
) -> FolderPlan {
    let (from, to) = (side_folders(&source.survey), side_folders(&destination.survey));
    let limits = NameLimits::for_server(destination.kind, to.delimiter);
    let none = RefusedPaths::default();
    let input = FolderPlanInput {
        source: &from,
        source_kind: source.kind,
        has_labels: source.has_labels,
        destination: &to,
        rules: &spec.folders,
        frozen,
        limits: &limits,
        refused: &none,
    };
    let plan = plan_folders(&input);
    // Where a server refuses a name, a sync takes one that every server takes. Without its checkpoint that is only seen
    // by the folder that is there.
    let found = plan.folders.iter().filter(|folder| !folder.create);
    let found = found.map(|folder| (folder.source_raw.clone(), folder.destination_raw.clone()));
    let settled: BTreeMap<_, _> = found.chain(frozen.clone()).collect();
    let strict = plan_folders(&FolderPlanInput { frozen: &settled, limits: &NameLimits::strict(), ..input });
    let missing = |plan: &FolderPlan| plan.folders.iter().filter(|folder| folder.create).count();
    if missing(&strict) < missing(&plan) { strict } else { plan }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        imap::{account_listing::ListedFolder, response::ListItem},
        sync::testing::spec,
    };

    fn survey(names: &[&str]) -> AccountListing {
        let folder = |name: &&str| ListedFolder {
            item: ListItem { attributes: vec![], delimiter: Some(b'/'), name: Bytes::copy_from_slice(name.as_bytes()) },
            subscribed: false,
            status: None,
        };
        AccountListing {
            folders: names.iter().map(folder).collect(),
            delimiter: Some(b'/'),
            ..AccountListing::default()
        }
    }

    fn planned(destination: &[&str], frozen: &BTreeMap<Vec<u8>, Vec<u8>>) -> (String, bool) {
        let account =
            |names: &[&str]| ListedAccount { survey: survey(names), kind: ServerKind::Generic, has_labels: false };
        let (here, there) = (account(&["INBOX", "what;ever"]), account(destination));
        let plan = preview_plan(&spec("m"), &here, &there, frozen);
        let folder = plan.folders.iter().find(|f| f.source_raw == b"what;ever").unwrap();
        (String::from_utf8(folder.destination_raw.clone()).unwrap(), folder.create)
    }

    #[test]
    fn a_folder_is_found_under_the_name_that_a_sync_gave_it_after_a_refusal() {
        let fresh = BTreeMap::new();
        assert_eq!(planned(&["INBOX", "what;ever"], &fresh), ("what;ever".into(), false));
        let (strict, create) = planned(&["INBOX", "what_ever"], &fresh);
        assert!(!create && strict == "what_ever", "{strict}");
        assert_eq!(planned(&["INBOX"], &fresh), ("what;ever".into(), true));
    }

    #[test]
    fn what_a_checkpoint_says_wins() {
        let frozen = BTreeMap::from([(b"what;ever".to_vec(), b"Elsewhere".to_vec())]);
        assert_eq!(planned(&["INBOX", "what;ever", "Elsewhere"], &frozen), ("Elsewhere".into(), false));
        assert_eq!(planned(&["INBOX", "what;ever"], &frozen), ("Elsewhere".into(), true));
    }
}
