//! Mail that a source of labels (Gmail) shows in no folder but its view of all: what was archived. It goes to the archive
//! of the destination, and what other folders hold does not go there once more.

use std::collections::{BTreeMap, HashSet};

use super::{
    folder_listing::{check_count, may_be_listing},
    folder_name::SideFolders,
    message_limit::{ListingCommand, list_each},
    report::LeftOut,
    special_use::SpecialUse,
    uid::SourceUid,
    views::HoldingFolder,
};
use crate::{
    error::{Error, Result},
    imap::{
        Session, UidSet,
        select::{queue_examine, wait_for_selected},
    },
};

/// The capability of a source that shows one message in several folders, and gives each message a number of its own
/// (X-GM-MSGID).
pub(crate) const LABELS: &str = "X-GM-EXT-1";

/// How messages are counted in reports that a view shows and other folders hold.
pub(crate) const IN_OTHER_FOLDERS: &str = "in other folders, too";

/// How many messages, and their bytes as the source says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct MailVolume {
    pub messages: u64,
    pub bytes: u64,
}

impl MailVolume {
    fn add(&mut self, bytes: u64) {
        self.messages += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What an account of labels holds, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ArchivedMail {
    /// The UIDVALIDITY of the view of all.
    pub uid_validity: u32,
    /// The messages of the view of all that are in no other folder.
    pub uids: UidSet<SourceUid>,
    /// What these are.
    pub archived: MailVolume,
    /// What all other folders show, a message as often as it is shown.
    pub shown: MailVolume,
    /// All messages, each once.
    pub once: MailVolume,
    /// By the raw names of other views, the messages that neither the view of all nor a folder shows.
    pub only_in_views: BTreeMap<Vec<u8>, u64>,
}

impl ArchivedMail {
    /// Tells of each view that is left out how many of its messages are nowhere else.
    pub(crate) fn tell_views(&self, left_out: &mut [LeftOut]) {
        for view in left_out.iter_mut().filter(|view| view.is_view) {
            view.not_elsewhere = self.only_in_views.get(&view.raw).copied().or(view.not_elsewhere);
        }
    }
}

/// Finds out which messages of the view `all` are in none of the folders `held`. The view is listed first: what is moved
/// from one folder to another meanwhile may count as archived, and what comes meanwhile does not.
///
/// # Errors
/// When the connection ends or the source refuses; Protocol where a listing is not complete or lacks the numbers.
pub(crate) async fn find_archived_mail(
    session: &mut Session,
    all: HoldingFolder<'_>,
    held: &[HoldingFolder<'_>],
    left_out: &[LeftOut],
) -> Result<ArchivedMail> {
    let mut shown_by_view = Vec::new();
    let uid_validity = list_numbers(session, all, |message| shown_by_view.push(message)).await?;
    let mut census = LabelCensus::default();
    for folder in held {
        list_numbers(session, *folder, |message| census.add_shown(&message)).await?;
    }
    let mut only_in_views = BTreeMap::new();
    let numbers_of_all: HashSet<u64> = shown_by_view.iter().map(|message| message.number).collect();
    for view in left_out.iter().filter(|view| view.is_view && view.messages != Some(0)) {
        let mut only = 0;
        let folder = HoldingFolder { raw: &view.raw, name: &view.folder };
        list_numbers(session, folder, |message| {
            only += u64::from(!numbers_of_all.contains(&message.number) && !census.numbers.contains(&message.number));
        })
        .await?;
        only_in_views.insert(view.raw.clone(), only);
    }
    Ok(ArchivedMail { only_in_views, ..census.finish(uid_validity, &shown_by_view) })
}

/// The folders that may hold what the view of all shows, whether they are synced or not: what the user leaves out is not
/// archived mail. Raw and decoded names.
#[must_use]
pub(crate) fn label_folders(source: &SideFolders) -> Vec<(Vec<u8>, String)> {
    let holders = source.folders.iter().filter(|folder| {
        folder.selectable
            && folder.messages != Some(0)
            && folder.name_fault().is_none()
            && !folder.special_use.is_some_and(SpecialUse::is_view)
    });
    let named = holders.map(|folder| (folder, source.parse_name(&folder.raw, folder.delimiter)));
    named.filter(|(_, name)| !name.is_foreign).map(|(folder, name)| (folder.raw.clone(), name.text())).collect()
}

/// One message in one folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NumberedMessage {
    uid: u32,
    /// X-GM-MSGID: the same in each folder that shows the message.
    number: u64,
    /// RFC822.SIZE, bytes.
    size: u32,
}

/// Counts the messages of all folders but the view.
#[derive(Debug, Default)]
struct LabelCensus {
    numbers: HashSet<u64>,
    shown: MailVolume,
    once: MailVolume,
}

impl LabelCensus {
    fn add_shown(&mut self, message: &NumberedMessage) {
        self.shown.add(message.size.into());
        if self.numbers.insert(message.number) {
            self.once.add(message.size.into());
        }
    }

    /// What of `all` no folder showed.
    fn finish(mut self, uid_validity: u32, all: &[NumberedMessage]) -> ArchivedMail {
        let mut archived = MailVolume::default();
        let mut uids: Vec<SourceUid> = Vec::new();
        for message in all.iter().filter(|message| !self.numbers.contains(&message.number)) {
            archived.add(message.size.into());
            self.once.add(message.size.into());
            uids.push(SourceUid(message.uid));
        }
        ArchivedMail {
            uid_validity,
            uids: uids.into_iter().collect(),
            archived,
            shown: self.shown,
            once: self.once,
            only_in_views: BTreeMap::new(),
        }
    }
}

/// Opens a folder and lists its messages with their numbers; gives its UIDVALIDITY.
async fn list_numbers(
    session: &mut Session,
    folder: HoldingFolder<'_>,
    mut each: impl FnMut(NumberedMessage),
) -> Result<u32> {
    let tag = queue_examine(session, folder.raw);
    let selected = wait_for_selected(session, tag, folder.name).await?;
    if selected.exists == 0 {
        return Ok(selected.uid_validity);
    }
    check_count(selected.exists).map_err(|error| session.with_endpoint(error))?;
    let mut count = 0_u32;
    let mut seen = UidSet::<u32>::new();
    list_each(session, &ListingCommand::fetch(1, None, "(UID RFC822.SIZE X-GM-MSGID)"), |fetch| {
        if let (Some(uid), Some(number)) = (fetch.uid, fetch.gmail_id)
            && may_be_listing(count.into(), selected.exists)
            && !seen.contains(uid)
        {
            count += 1;
            seen.insert(uid);
            let size = u32::try_from(fetch.size.unwrap_or(0)).unwrap_or(u32::MAX);
            each(NumberedMessage { uid, number, size });
        }
    })
    .await?;
    if count < selected.exists {
        let what = format!(
            "{}: which messages are in which folder is told of {count} of {} messages only",
            folder.name, selected.exists
        );
        return Err(session.with_endpoint(Error::protocol(what)));
    }
    Ok(selected.uid_validity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(uid: u32, number: u64) -> NumberedMessage {
        NumberedMessage { uid, number, size: 10 }
    }

    #[test]
    fn archived_is_what_no_folder_shows_and_each_message_counts_once_where_it_is_asked_so() {
        let mut census = LabelCensus::default();
        // Number 1 has two labels, 9 is spam: the view does not show it.
        for shown in [message(1, 1), message(7, 1), message(2, 2), message(3, 9)] {
            census.add_shown(&shown);
        }
        let found = census.finish(5, &[message(1, 1), message(2, 2), message(3, 3), message(4, 4)]);
        assert_eq!(found.uids, [3, 4].map(SourceUid).into_iter().collect());
        let volume = |messages| MailVolume { messages, bytes: messages * 10 };
        assert_eq!((found.archived, found.shown, found.once), (volume(2), volume(4), volume(5)));
        assert_eq!(found.uid_validity, 5);
    }
}
