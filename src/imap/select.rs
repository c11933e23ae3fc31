//! SELECT and EXAMINE, and what they tell.

use super::{
    refusal::CommandKind,
    response::{Flag, ResponseCode, StatusCondition, UntaggedResponse},
    session::{Session, Tag},
};
use crate::error::{Error, Result};

/// What a server says of a folder when it is opened (RFC 9051, section 6.3.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SelectedFolder {
    /// UIDVALIDITY; UIDs mean something only together with it.
    pub uid_validity: u32,
    /// The next UID; Courier does not tell here.
    pub uid_next: Option<u32>,
    /// Number of messages.
    pub exists: u32,
    /// The highest mod-sequence (RFC 7162), where there is one.
    pub highest_modseq: Option<u64>,
    /// Flags that stay; none where the server did not say.
    pub permanent_flags: Option<Vec<Flag>>,
    /// Opened for reading only.
    pub read_only: bool,
}

impl SelectedFolder {
    /// Takes what belongs to the opening of the folder.
    pub(crate) fn add_response(&mut self, data: &UntaggedResponse) {
        match data {
            UntaggedResponse::Exists(count) => self.exists = *count,
            UntaggedResponse::Status(line) => self.take_code(line.code.as_ref()),
            _ => {}
        }
    }

    fn take_code(&mut self, code: Option<&ResponseCode>) {
        match code {
            Some(ResponseCode::UidValidity(value)) => self.uid_validity = *value,
            Some(ResponseCode::UidNext(value)) => self.uid_next = Some(*value),
            Some(ResponseCode::HighestModSeq(value)) => self.highest_modseq = Some(*value),
            Some(ResponseCode::PermanentFlags(flags)) => self.permanent_flags = Some(flags.clone()),
            Some(ResponseCode::ReadOnly) => self.read_only = true,
            Some(ResponseCode::ReadWrite) => self.read_only = false,
            _ => {}
        }
    }

    /// True when a new keyword, or this known one, can be kept.
    #[must_use]
    pub(crate) fn keeps_flag(&self, flag: &Flag) -> bool {
        match &self.permanent_flags {
            None => true,
            Some(flags) => flags.iter().any(|f| {
                f == flag
                    || match (f, flag) {
                        (Flag::MayCreate, Flag::Keyword(_)) => true,
                        (Flag::Keyword(a), Flag::Keyword(b)) => a.eq_ignore_ascii_case(b),
                        _ => false,
                    }
            }),
        }
    }
}

/// Queues EXAMINE: the source is never opened for writing.
pub(crate) fn queue_examine(session: &mut Session, raw: &[u8]) -> Tag {
    queue_open(session, "EXAMINE", raw)
}

/// Queues SELECT.
pub(crate) fn queue_select(session: &mut Session, raw: &[u8]) -> Tag {
    queue_open(session, "SELECT", raw)
}

fn queue_open(session: &mut Session, verb: &str, raw: &[u8]) -> Tag {
    let condstore = if session.capabilities().condstore() { " (CONDSTORE)" } else { "" };
    session.send_folder_command(verb, raw, condstore)
}

/// Waits for a queued SELECT or EXAMINE.
///
/// # Errors
/// The refusal by its class; Protocol when there is no UIDVALIDITY, without which nothing can be resumed.
pub(crate) async fn wait_for_selected(session: &mut Session, tag: Tag, name: &str) -> Result<SelectedFolder> {
    let mut selected = SelectedFolder::default();
    let line = session.wait(tag, |data| selected.add_response(&data)).await?;
    if line.status != StatusCondition::Ok {
        return Err(session.refusal_error(&line, CommandKind::Other, "to open the folder").in_folder(name));
    }
    selected.take_code(line.code.as_ref());
    if selected.uid_validity == 0 {
        return Err(session.with_endpoint(Error::protocol("the server tells no UIDVALIDITY").in_folder(name)));
    }
    Ok(selected)
}
