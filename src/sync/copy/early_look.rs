//! A look at the copies right behind the last APPEND: of a few messages it says what the check of the copies would ask for
//! a round trip later. What it does not show, or shows otherwise than it was sent, is asked for again then.
//!
//! The folder is selected again for it: Dovecot shows what was appended to no command that came before it had told of it.

use super::pass::{CopyPass, EarlyLook, SendMode};
use crate::{
    error::Result,
    imap::{
        Tag, mutf7,
        response::{StatusLine, UntaggedResponse},
        select::{SelectedFolder, finish_selected, queue_select, replaced_error},
    },
    sync::{limits::WHOLE_MESSAGES, message_limit::max_messages, shown_copy::SHOWN_ITEMS},
};

/// Of more copies than these a look at a part is enough, and which part is known only when all are there.
const MOST_COPIES: usize = 100;
/// More may be shown, since others deliver to the folder, too; but not as many as a server likes.
const MOST_SHOWN: usize = 4 * MOST_COPIES;

impl CopyPass<'_, '_> {
    /// Asks for what the destination makes of the folder's copies, as soon as the last of them is sent.
    pub(super) fn look_early(&mut self) {
        let is_sent = self.is_all_queued() && self.stream.is_none() && self.stream_next.is_none();
        if !matches!(self.early_look, EarlyLook::NotYet) || !is_sent || self.stopping || self.pausing {
            return;
        }
        self.early_look = EarlyLook::Over;
        let in_flight: usize = self.in_flight.iter().map(|append| append.messages.len()).sum();
        let copies = self.memory.appended.len() + in_flight;
        let is_possible = self.how.mode == SendMode::Usual
            && in_flight > 0
            && copies <= max_messages(self.destination, MOST_COPIES)
            && self.context.selected.exists <= WHOLE_MESSAGES
            && self.destination.capabilities().has("UIDPLUS")
            && !self.destination.wants_one_by_one();
        if let Some(from) = self.memory.copies_from.filter(|_| is_possible) {
            let opening = queue_select(self.destination, self.context.destination_raw);
            let look = self.destination.send_command(&format!("UID FETCH {from}:* ({SHOWN_ITEMS})"));
            self.early_look = EarlyLook::Opening(opening, look, SelectedFolder::default());
        }
    }

    /// What was asked for comes.
    pub(super) fn on_shown(&mut self, data: UntaggedResponse) {
        match (&mut self.early_look, data) {
            (EarlyLook::Looking(_), UntaggedResponse::Fetch(fetch)) if self.memory.shown.len() < MOST_SHOWN => {
                self.memory.shown.record(fetch);
            }
            (EarlyLook::Opening(_, _, selected), data) => selected.add_response(&data),
            _ => {}
        }
    }

    /// A command ended: it may be one of the look's. A look that is refused showed nothing, and the check asks again.
    ///
    /// # Errors
    /// When the folder can't be opened again, or is another by now: nothing more can be done with it by this connection.
    pub(super) fn on_look_ended(&mut self, tag: Tag, line: &StatusLine) -> Result<()> {
        match std::mem::replace(&mut self.early_look, EarlyLook::Over) {
            EarlyLook::Opening(opening, look, selected) if opening == tag => {
                let name = mutf7::decode_lossy(self.context.destination_raw);
                let opened = finish_selected(self.destination, selected, line, &name)?;
                if opened.uid_validity != self.context.selected.uid_validity {
                    return Err(replaced_error(self.destination));
                }
                self.early_look = EarlyLook::Looking(look);
            }
            EarlyLook::Looking(look) if look == tag => {}
            other => self.early_look = other,
        }
        Ok(())
    }

    /// True while an answer of it is due.
    pub(super) fn is_looking(&self) -> bool {
        matches!(self.early_look, EarlyLook::Opening(..) | EarlyLook::Looking(_))
    }
}
