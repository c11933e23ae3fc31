//! Folders that only show what other folders hold (`\All`, `\Flagged`) are not synced. That each of their messages
//! arrives by another folder is not believed but looked at: what was archived on Gmail is only in such a view.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use super::{
    checkpoint::ViewState,
    folder_listing::{check_count, may_be_listing},
    identity::MessageId,
    live_checkpoint::LiveCheckpoint,
    message_limit::{ListingCommand, list_each},
    progress::SyncProgress,
    report::{LeftOut, MailboxReport},
    spec::SyncSpec,
};
use crate::{
    error::{Error, Result},
    imap::{
        Session, connect,
        response::FetchResponse,
        select::{SelectedFolder, queue_examine, wait_for_selected},
    },
};

/// Counts the messages of views that no synced folder holds, for a run: what is found goes into the checkpoint, and a view
/// that did not change since it was looked at last is not listed again.
///
/// # Errors
/// When the connection ends or the source refuses; then all messages of the views count as not copied.
pub(crate) async fn count_view_messages(
    spec: &SyncSpec,
    live_checkpoint: &LiveCheckpoint,
    progress: &SyncProgress,
    report: &mut MailboxReport,
) -> Result<()> {
    let complete = report.folders.iter().filter(|folder| folder.complete);
    let held: Vec<HoldingFolder<'_>> =
        complete.map(|folder| HoldingFolder { raw: &folder.source_raw, name: &folder.source }).collect();
    if views_with_messages(&mut report.left_out).next().is_none() {
        return Ok(());
    }
    let mut session = connect(&Arc::new(spec.source.clone()), &progress.bytes_moved).await?;
    let known = |raw: &[u8]| live_checkpoint.read(|checkpoint| checkpoint.views.get(raw).copied());
    let found = |raw: &[u8], state| {
        if !spec.dry_run {
            live_checkpoint.update(|checkpoint| checkpoint.views.insert(raw.to_vec(), state));
        }
    };
    count_not_elsewhere(&mut session, &mut report.left_out, &held, known, found).await?;
    session.logout().await;
    if spec.dry_run { Ok(()) } else { live_checkpoint.save().await }
}

/// A folder that is synced, so that messages of views may be in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HoldingFolder<'a> {
    /// The raw name.
    pub raw: &'a [u8],
    /// The decoded name.
    pub name: &'a str,
}

/// The views that hold messages, as far as the source tells, and of which it is not known yet where else these are.
pub(crate) fn views_with_messages(left_out: &mut [LeftOut]) -> impl Iterator<Item = &mut LeftOut> {
    let may_hold = |folder: &&mut LeftOut| folder.messages.is_none_or(|messages| messages > 0);
    left_out.iter_mut().filter(|folder| folder.is_view && folder.not_elsewhere.is_none()).filter(may_hold)
}

/// Sets `not_elsewhere` of each view: how many of its messages are in none of the folders `held`. Messages are told apart
/// by Message-ID, INTERNALDATE and size, which one server tells alike of one message wherever it shows it. What `known`
/// says of a view is taken where the view is as it was then; `found` gets what was found anew.
///
/// # Errors
/// When the connection ends or the source refuses. Views that were counted before that keep their number.
pub(crate) async fn count_not_elsewhere(
    session: &mut Session,
    left_out: &mut [LeftOut],
    held: &[HoldingFolder<'_>],
    known: impl Fn(&[u8]) -> Option<ViewState>,
    mut found: impl FnMut(&[u8], ViewState),
) -> Result<()> {
    let mut listed: Option<MessageCounts> = None;
    for view in views_with_messages(left_out) {
        let tag = queue_examine(session, &view.raw);
        let selected = wait_for_selected(session, tag, &view.folder).await?;
        let state = ViewState::from_selected(&selected);
        if let Some(known) = known(&view.raw).filter(|known| known.is_same(&state)) {
            view.not_elsewhere = Some(known.not_elsewhere);
            continue;
        }
        if listed.is_none() {
            let mut all = MessageCounts::default();
            for folder in held {
                let tag = queue_examine(session, folder.raw);
                let selected = wait_for_selected(session, tag, folder.name).await?;
                list_messages(session, &selected, |key| all.add(key)).await?;
            }
            listed = Some(all);
            let tag = queue_examine(session, &view.raw);
            wait_for_selected(session, tag, &view.folder).await?;
        }
        let Some(all) = &listed else { continue };
        let mut left = all.clone();
        let mut not_elsewhere = 0;
        list_messages(session, &selected, |key| not_elsewhere += u64::from(!left.take_one(key))).await?;
        view.not_elsewhere = Some(not_elsewhere);
        found(&view.raw, ViewState { not_elsewhere, ..state });
    }
    Ok(())
}

/// What tells a message of one server from another.
type ViewMessageKey = (Option<MessageId>, Option<i64>, Option<u64>);

/// The messages of some folders, each by a hash: 16 bytes a message.
#[derive(Debug, Clone, Default)]
struct MessageCounts {
    counts: HashMap<u64, u32>,
    hasher: RandomState,
}

impl MessageCounts {
    fn add(&mut self, key: ViewMessageKey) {
        *self.counts.entry(self.hasher.hash_one(key)).or_default() += 1;
    }

    /// True when one such message was left.
    fn take_one(&mut self, key: ViewMessageKey) -> bool {
        match self.counts.get_mut(&self.hasher.hash_one(key)) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        }
    }
}

/// Lists the selected folder; a listing that is not complete proves nothing.
async fn list_messages(
    session: &mut Session,
    selected: &SelectedFolder,
    mut each: impl FnMut(ViewMessageKey),
) -> Result<()> {
    if selected.exists == 0 {
        return Ok(());
    }
    check_count(selected.exists).map_err(|error| session.with_endpoint(error))?;
    let items = "(UID INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])";
    let mut count = 0_u32;
    list_each(session, &ListingCommand::fetch(1, None, items), |fetch| {
        if fetch.size.is_some() && may_be_listing(count.into(), selected.exists) {
            count += 1;
            each(message_key(&fetch));
        }
    })
    .await?;
    if count < selected.exists {
        return Err(
            session.with_endpoint(Error::protocol(format!("{count} of {} messages were listed", selected.exists)))
        );
    }
    Ok(())
}

fn message_key(fetch: &FetchResponse) -> ViewMessageKey {
    let header = fetch.sections.iter().find(|(name, _)| name.starts_with("HEADER")).and_then(|(_, body)| body.as_ref());
    let id = header.and_then(|header| MessageId::from_header(header));
    (id, fetch.internal_date.flatten().map(|date| date.epoch), fetch.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_counts_as_seen_as_often_as_other_folders_hold_it() {
        let mut listed = MessageCounts::default();
        let one = (Some(MessageId::from_value(b"a")), Some(1), Some(10));
        listed.add(one);
        assert!(listed.take_one(one) && !listed.take_one(one));
        assert!(!listed.take_one((Some(MessageId::from_value(b"a")), Some(2), Some(10))));
    }
}
