//! SELECT and EXAMINE, and what they tell.

use super::{
    refusal::CommandKind,
    response::{Flag, ResponseCode, StatusCondition, StatusLine, UntaggedResponse},
    session::{Session, Tag},
};
use crate::error::{Error, ErrorClass, Result};

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
    /// The folder's identity, which stays when it is renamed (RFC 8474); STATUS is not asked for it, since Cyrus 3.6
    /// answers that with garbage.
    pub mailbox_id: Option<String>,
}

impl SelectedFolder {
    /// Takes what belongs to the opening of the folder.
    pub(crate) fn add_response(&mut self, data: &UntaggedResponse) {
        match data {
            UntaggedResponse::Exists(count) => self.exists = *count,
            UntaggedResponse::Expunge(_) => self.exists = self.exists.saturating_sub(1),
            UntaggedResponse::Status(line) => self.take_code(line.code.as_ref()),
            _ => {}
        }
    }

    fn take_code(&mut self, code: Option<&ResponseCode>) {
        match code {
            Some(ResponseCode::UidValidity(value)) => self.uid_validity = *value,
            Some(ResponseCode::UidNext(value)) => self.uid_next = Some(*value),
            Some(ResponseCode::HighestModSeq(value)) => self.highest_modseq = Some(*value).filter(|modseq| *modseq > 0),
            Some(ResponseCode::NoModSeq) => self.highest_modseq = None,
            Some(ResponseCode::PermanentFlags(flags)) => self.permanent_flags = Some(flags.clone()),
            Some(ResponseCode::MailboxId(id)) => self.mailbox_id = Some(id.clone()),
            Some(ResponseCode::ReadOnly) => self.read_only = true,
            Some(ResponseCode::ReadWrite) => self.read_only = false,
            _ => {}
        }
    }

    /// True when the server may keep this flag: system flags are sent whatever PERMANENTFLAGS says, since some servers list
    /// none and keep all; keywords only where it says so.
    #[must_use]
    pub(crate) fn may_keep_flag(&self, flag: &Flag) -> bool {
        !matches!(flag, Flag::Keyword(_)) || self.keeps_flag(flag)
    }

    /// True when PERMANENTFLAGS says that this flag is kept, or that new keywords can be made.
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

/// Opens a folder by `queue` ([`queue_examine`] or [`queue_select`]) and runs `commands` on it, all in one go; the status lines
/// are in this order. Where the server opens the folder and refuses what was sent behind that, it gets that again, one by
/// one.
///
/// # Errors
/// When the connection ends; a NO or BAD is no error here.
pub(crate) async fn open_and_run(
    session: &mut Session,
    queue: fn(&mut Session, &[u8]) -> Tag,
    raw: &[u8],
    commands: &[String],
    mut data: impl FnMut(UntaggedResponse),
) -> Result<Vec<StatusLine>> {
    let opening = queue(session, raw);
    let mut lines = if session.wants_one_by_one() {
        vec![session.wait(opening, &mut data).await?]
    } else {
        let behind = commands.iter().map(|command| session.send_command(command));
        let tags: Vec<Tag> = std::iter::once(opening).chain(behind).collect();
        session.wait_all(&tags, &mut data).await?
    };
    if lines.first().is_none_or(|line| line.status != StatusCondition::Ok) {
        return Ok(lines);
    }
    for (at, command) in commands.iter().enumerate() {
        let line = lines.get(at + 1);
        if line.is_some_and(|line| line.status == StatusCondition::Ok || is_pace_refusal(session, line)) {
            continue;
        }
        let tag = session.send_command(command);
        let answer = session.wait(tag, &mut data).await?;
        if line.is_some() && answer.status == StatusCondition::Ok {
            session.send_one_by_one();
        }
        match lines.get_mut(at + 1) {
            Some(line) => *line = answer,
            None => lines.push(answer),
        }
    }
    Ok(lines)
}

/// True for a refusal that says nothing of the command.
fn is_pace_refusal(session: &Session, line: &StatusLine) -> bool {
    matches!(session.refusal_class(line, CommandKind::Other), ErrorClass::Throttled | ErrorClass::Network)
}

/// Waits for a queued SELECT or EXAMINE.
///
/// # Errors
/// The refusal by its class; Protocol when there is no UIDVALIDITY, without which nothing can be resumed.
pub(crate) async fn wait_for_selected(session: &mut Session, tag: Tag, name: &str) -> Result<SelectedFolder> {
    let mut selected = SelectedFolder::default();
    let line = session.wait(tag, |data| selected.add_response(&data)).await?;
    finish_selected(session, selected, &line, name)
}

/// The error where the destination's folder is another than the one that was opened.
pub(crate) fn replaced_error(destination: &Session) -> Error {
    let what = "the destination folder was replaced during the sync";
    destination.with_endpoint(Error::new(ErrorClass::Network, what))
}

/// What the answer to SELECT or EXAMINE says of the folder, from its untagged responses and how it ended.
///
/// # Errors
/// The refusal by its class; Protocol when there is no UIDVALIDITY, without which nothing can be resumed.
pub(crate) fn finish_selected(
    session: &Session,
    mut selected: SelectedFolder,
    line: &StatusLine,
    name: &str,
) -> Result<SelectedFolder> {
    if line.status != StatusCondition::Ok {
        return Err(session.refusal_error(line, CommandKind::Other, "to open the folder").in_folder(name));
    }
    selected.take_code(line.code.as_ref());
    if selected.uid_validity == 0 {
        return Err(
            session.with_endpoint(Error::protocol("the server does not give the folder's UIDVALIDITY").in_folder(name))
        );
    }
    Ok(selected)
}
