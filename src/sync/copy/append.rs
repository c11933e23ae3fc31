//! The writing half of a pass: messages in UID order into MULTIAPPENDs, and what the destination says of them.

use std::{fmt::Write, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::{
    anomaly::{self, has_odd_date},
    memory::{AppendedCopy, PendingKeywords, ReadBack},
    pass::{CopyPass, LiteralStream, MessageState, PendingAppend, SendMode, SentMessage},
};
use crate::{
    error::{Error, ErrorClass, ErrorRemedy, Result, Side},
    imap::{
        ServerKind, SessionEvent, Tag, UidSet,
        refusal::{CommandKind, is_about_line_ends},
        response::{Flag, ResponseCode, StatusCondition, StatusLine, UntaggedResponse},
        select::replaced_error,
    },
    sync::{
        circuit_breaker::{RefusalConsequence, RefusalWeight, is_transient},
        limits::{BATCH_BYTES, BATCH_MESSAGES, BATCHES_IN_FLIGHT, LARGE_WITHOUT_LIMIT, SINGLES_IN_FLIGHT, SLOW_COMMIT},
        message_limit::max_messages,
        progress::SyncProgress,
        scan::ScannedMessage,
        suspects::without_timing,
        uid::DestinationUid,
        uid_map::CopyOrigin,
    },
};

/// What a refusal says, for people and to tell reasons apart.
fn reason_text(line: &StatusLine) -> String {
    let text = without_timing(&line.text);
    match &line.code {
        Some(ResponseCode::Other(code)) => format!("[{code}] {text}"),
        _ => text.to_owned(),
    }
}

/// A commit that took at least this long is remembered: looks at what is in doubt are further apart then.
const NOTEWORTHY_COMMIT: Duration = Duration::from_secs(1);

impl SentMessage {
    fn new(at: usize, bytes: u64, anomaly: anomaly::MessageAnomaly, head: AppendOptions) -> Self {
        let AppendOptions { left_flags, keywords, left_date, .. } = head;
        Self { at, bytes, anomaly, left_flags, keywords, left_date, has_other_line_ends: false }
    }

    /// The copy of `message` that this became.
    fn as_copy(&self, message: &ScannedMessage, destination_uid: Option<DestinationUid>) -> AppendedCopy {
        let date = message.date().filter(|_| self.left_date.is_none() && !self.anomaly.date);
        AppendedCopy {
            source_uid: message.uid,
            destination_uid: destination_uid.unwrap_or(DestinationUid(0)),
            bytes: u32::try_from(self.bytes).unwrap_or(u32::MAX),
            weakened: !self.keywords.is_empty(),
            is_unusual: self.anomaly.in_bytes() || self.anomaly.bare_line_end,
            epoch: date.map_or(AppendedCopy::NO_DATE, |date| date.epoch),
        }
    }
}

/// The message with CRLF for each LF that has no CR before it.
fn with_crlf(body: &Bytes) -> Bytes {
    let is_bare = |at: usize| at.checked_sub(1).and_then(|before| body.get(before)) != Some(&b'\r');
    let bare: Vec<usize> = memchr::memchr_iter(b'\n', body).filter(|at| is_bare(*at)).collect();
    let mut repaired = BytesMut::with_capacity(body.len() + bare.len());
    let mut from = 0;
    for at in bare {
        repaired.extend_from_slice(body.get(from..at).unwrap_or_default());
        repaired.extend_from_slice(b"\r");
        from = at;
    }
    repaired.extend_from_slice(body.get(from..).unwrap_or_default());
    repaired.freeze()
}

/// What stands before a message's literal.
struct AppendOptions {
    text: String,
    left_flags: Vec<String>,
    keywords: Vec<String>,
    left_date: Option<&'static str>,
}

impl CopyPass<'_, '_> {
    /// Moves what has arrived, in UID order, into batches, and sends those that are full or that nothing will join soon.
    pub(super) fn fill_batches(&mut self) {
        if self.stopping || self.stream.as_ref().is_some_and(|s| s.tag.is_some()) {
            return; // nothing more is sent, or an APPEND is open
        }
        if self.pausing {
            self.batch.clear();
            self.drop_bodies();
            self.discarding |= self.stream_next.take().is_some();
            return;
        }
        let multi = self.may_batch();
        while self.may_send(multi) {
            match self.state(self.next) {
                MessageState::Pending => break,
                MessageState::Settled if self.next >= self.work.len() => break,
                MessageState::Settled => self.next += 1,
                MessageState::Arrived => {
                    let length = self.arrived.get(&self.next).map_or(0, bytes::Bytes::len) as u64;
                    // A literal of no bytes would end a MULTIAPPEND (RFC 3502).
                    if !multi || length == 0 {
                        self.send_batch();
                        self.send_single(self.next);
                    } else {
                        if self.batch_bytes + length > BATCH_BYTES || self.batch.len() >= self.batch_limit {
                            self.send_batch();
                            if !self.may_send(multi) {
                                return;
                            }
                        }
                        self.batch_since.get_or_insert_with(Instant::now);
                        self.batch.push(self.next);
                        self.batch_bytes += length;
                        self.mark_settled(self.next);
                    }
                    self.next += 1;
                }
            }
        }
        // Nothing will join soon: the work is over, or the next message is still to be fetched alone.
        let streams = self.stream_next.filter(|(at, _)| *at == self.next);
        let last = self.next >= self.work.len() || self.requested.is_empty() || streams.is_some();
        if !self.batch.is_empty() && (last || self.batch_is_old()) && self.may_send(multi) {
            self.send_batch();
        }
        if let Some((at, length)) = streams.filter(|_| self.batch.is_empty() && self.may_send(multi)) {
            self.open_stream(at, length);
        }
    }

    fn may_batch(&self) -> bool {
        self.how.mode == SendMode::Usual && self.destination.capabilities().has("MULTIAPPEND")
    }

    fn may_send(&self, multi: bool) -> bool {
        let limit = match self.how.mode {
            mode if mode.is_careful() => 1,
            _ if multi => BATCHES_IN_FLIGHT,
            _ => SINGLES_IN_FLIGHT,
        };
        self.in_flight.len() < limit
    }

    /// Sends the batch as one APPEND.
    pub(super) fn send_batch(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        self.batch_since = None;
        if batch.is_empty() {
            return;
        }
        let tag = self.begin_append();
        let mut sent = Vec::with_capacity(batch.len());
        for at in batch {
            sent.extend(self.queue_message(tag, at, false));
        }
        self.end_append(tag, sent);
    }

    /// Sends one message as an APPEND of its own.
    fn send_single(&mut self, at: usize) {
        let tag = self.begin_append();
        let sent: Vec<SentMessage> = self.queue_message(tag, at, self.how.mode.is_careful()).into_iter().collect();
        self.end_append(tag, sent);
        self.mark_settled(at);
    }

    fn end_append(&mut self, tag: Tag, messages: Vec<SentMessage>) {
        self.destination.send(tag, "\r\n");
        let (uid_next, sent_at) = (self.uid_next, Instant::now());
        self.in_flight.push_back(PendingAppend { tag, messages, uid_next, sent_at });
    }

    fn begin_append(&mut self) -> Tag {
        let tag = self.destination.begin_command();
        self.destination.send(tag, "APPEND ");
        self.destination.send_string(tag, self.context.destination_raw);
        tag
    }

    /// Queues one message that has arrived: its flags, its date and its literal, as long as what was received.
    fn queue_message(&mut self, tag: Tag, at: usize, careful: bool) -> Option<SentMessage> {
        let body = self.arrived.remove(&at)?;
        self.held = self.held.saturating_sub(body.len() as u64);
        let head = self.append_options(at);
        let mut watch = anomaly::AnomalyScanner::default();
        watch.scan(&body);
        let anomaly = anomaly::MessageAnomaly { date: self.date_is_odd(at), ..watch.finish(self.context.adds_newline) };
        let repaired = (self.memory.sends_crlf && anomaly.bare_line_end).then(|| with_crlf(&body));
        let repaired = repaired.filter(|repaired| *repaired != body);
        let has_other_line_ends = repaired.is_some();
        let body = repaired.unwrap_or(body);
        let bytes = body.len() as u64;
        self.destination.send(tag, head.text.clone());
        self.destination.send_literal_header(tag, bytes, careful);
        self.destination.send(tag, body);
        Some(SentMessage { has_other_line_ends, ..SentMessage::new(at, bytes, anomaly, head) })
    }

    /// Begins the APPEND of a message whose bytes will stream. Returns its tag, and whether it waits for the `+`.
    pub(super) fn begin_single(&mut self, at: usize, length: u64) -> (Tag, bool) {
        let tag = self.begin_append();
        let head = self.append_options(at);
        let careful =
            self.how.mode.is_careful() || (self.context.append_limit.is_none() && length > LARGE_WITHOUT_LIMIT);
        let waits = careful || !self.destination.capabilities().literal_support().allows_unsynchronized(length);
        self.destination.send(tag, head.text.clone());
        self.destination.send_literal_header(tag, length, careful);
        let anomaly = anomaly::MessageAnomaly { date: self.date_is_odd(at), ..Default::default() };
        let sent = SentMessage::new(at, length, anomaly, head);
        self.in_flight.push_back(PendingAppend {
            tag,
            messages: vec![sent],
            uid_next: self.uid_next,
            sent_at: Instant::now(),
        });
        (tag, waits)
    }

    /// The stream is complete: what was seen of it goes to its APPEND, or to the answer that was there before.
    pub(super) fn report_stream(&mut self, stream: &LiteralStream) {
        let found = stream.watch.finish(self.context.adds_newline);
        let sent = self.in_flight.iter_mut().flat_map(|f| &mut f.messages).find(|s| s.at == stream.at);
        if let Some(sent) = sent {
            sent.anomaly = anomaly::MessageAnomaly { date: sent.anomaly.date, ..found };
        }
    }

    fn date_is_odd(&self, at: usize) -> bool {
        self.work.get(at).is_some_and(has_odd_date)
    }

    /// Flags and date of a message as they may be sent. Nothing is echoed from the source: system flags, keywords that are
    /// 7-bit atoms, and a date rendered from its value; the rest is left out and told.
    fn append_options(&self, at: usize) -> AppendOptions {
        let mut head =
            AppendOptions { text: " (".to_owned(), left_flags: Vec::new(), keywords: Vec::new(), left_date: None };
        let Some(message) = self.work.get(at) else { return head };
        let weakened = self.how.is_weakened();
        // An ordinary date can't be repaired later: it is always sent.
        let no_date = weakened && self.date_is_odd(at);
        for flag in self.context.scan.flags(message) {
            let text = flag.sendable().filter(|_| self.may_send_flag(flag));
            // What the server does not say that it keeps may be why it refused the message.
            let waits = weakened && (matches!(flag, Flag::Keyword(_)) || !self.context.selected.keeps_flag(flag));
            match (flag, text) {
                (Flag::Recent, _) => {}
                (_, Some(text)) if waits => head.keywords.push(text.to_owned()),
                (_, Some(text)) => {
                    if !head.text.ends_with('(') {
                        head.text.push(' ');
                    }
                    head.text.push_str(text);
                }
                (_, None) => head.left_flags.push(flag.as_imap().into_owned()),
            }
        }
        head.text.push(')');
        match message.date() {
            Some(date) if !no_date && !anomaly::is_unsendable_date(date.epoch) => {
                // Writing to a String cannot fail.
                let _ = write!(head.text, " \"{}\"", date.in_sendable_zone());
            }
            Some(_) => head.left_date = Some("the date cannot be sent"),
            None => head.left_date = Some("the source gives no date that there is"),
        }
        head.text.push(' ');
        head
    }

    /// Gmail expunges what is marked as deleted, by default at once.
    fn may_send_flag(&self, flag: &Flag) -> bool {
        let is_purged = *flag == Flag::Deleted && self.destination.server_kind() == ServerKind::Gmail;
        !is_purged && self.context.selected.may_keep_flag(flag)
    }

    pub(super) fn on_destination(&mut self, event: SessionEvent) -> Result<()> {
        let (tag, line) = match event {
            SessionEvent::Done(tag, line) => (tag, line),
            SessionEvent::Untagged(UntaggedResponse::Status(line)) if line.status == StatusCondition::Bad => {
                // Which command it means is not said (RFC 9051, section 7.1.3): whatever is answered next may be another's.
                return Err(self.destination.with_endpoint(Error::protocol(format!(
                    "the server did not understand a command: {}",
                    line.text
                ))));
            }
            SessionEvent::Untagged(data) => {
                self.on_shown(data);
                return Ok(());
            }
            _ => return Ok(()),
        };
        self.on_look_ended(tag, &line)?;
        let Some(position) = self.in_flight.iter().position(|f| f.tag == tag) else { return Ok(()) };
        let Some(answered) = self.in_flight.remove(position) else { return Ok(()) };
        match line.status {
            StatusCondition::Ok => self.on_confirmed(answered, &line),
            StatusCondition::No => self.on_refused(&answered, &line),
            StatusCondition::Bad | StatusCondition::Bye | StatusCondition::PreAuth => {
                // The server may read what was meant as a message as commands: nothing may follow.
                let error = self.destination.refusal_error(&line, CommandKind::Append, "APPEND");
                self.blamed = true;
                self.record_suspects(&answered, &reason_text(&line), &error)?;
                // Whatever its class, the connection is what ends now; the breaker knows the rest.
                Err(Error { class: ErrorClass::Protocol, ..error })
            }
        }
    }

    /// The messages of a refused APPEND come under suspicion; they are not sent again in this pass, and only after a look:
    /// some servers refuse what they have stored.
    fn record_suspects(&mut self, answered: &PendingAppend, why: &str, error: &Error) -> Result<()> {
        let alone = answered.messages.len() == 1;
        let line_ends = self.is_for_line_ends(answered, why);
        self.memory.refused_batches += u32::from(!alone && !line_ends && !is_transient(error));
        for sent in &answered.messages {
            let message = *self.message(sent.at)?;
            self.memory.suspects.record_refusal(&message, alone, error, why, answered.uid_next);
            match self.how.mode {
                SendMode::Trial => self.memory.suspects.record_round_refusal(message.uid),
                SendMode::Weakened => self.memory.suspects.refused_weakened(message.uid),
                SendMode::Usual | SendMode::Single | SendMode::Control => {}
            }
        }
        let of_messages =
            error.class.remedy() != ErrorRemedy::WaitForPerson && self.memory.suspects.is_of_messages(why);
        // They are sent otherwise before anything else is.
        self.pausing |= line_ends;
        let weight = match self.how.mode.weight() {
            _ if line_ends => RefusalWeight::Suspect,
            RefusalWeight::Usual if self.memory.suspects.uncontrolled => RefusalWeight::Uncontrolled,
            RefusalWeight::Usual | RefusalWeight::Control if of_messages => RefusalWeight::Uncontrolled,
            RefusalWeight::Usual => RefusalWeight::Among(self.memory.suspects.unlikely_in_a_row()),
            // Where many are refused for their own sake, so may be some that were kept back.
            RefusalWeight::Control if !self.memory.suspects.control_refused() => RefusalWeight::Uncontrolled,
            weight => weight,
        };
        match self.context.breakers.destination.record_refusal(error, weight) {
            RefusalConsequence::GoOn => {
                self.pausing |= !self.how.mode.is_careful() && self.memory.suspects.wants_controls();
                Ok(())
            }
            RefusalConsequence::Open => {
                // What finds out whether the server is well is tried to its end.
                self.pausing |= !self.how.probe;
                Ok(())
            }
            RefusalConsequence::End => Err(error.clone()),
        }
    }

    /// True when messages are refused for line ends that can still be sent otherwise.
    fn is_for_line_ends(&self, answered: &PendingAppend, why: &str) -> bool {
        !self.memory.sends_crlf
            && is_about_line_ends(why)
            && answered.messages.iter().any(|sent| sent.anomaly.bare_line_end)
    }

    fn on_refused(&mut self, answered: &PendingAppend, line: &StatusLine) -> Result<()> {
        if let Some(stream) = &mut self.stream
            && stream.tag == Some(answered.tag)
            && stream.waits_for_continue
        {
            // Nothing of it was sent: the rest is read and dropped. What was announced as coming at once must still come.
            stream.tag = None;
        }
        if line.code == Some(ResponseCode::TryCreate) {
            self.memory.folder_gone = true;
            let gone = Error::new(ErrorClass::Network, "the destination folder is gone");
            return Err(self.destination.with_endpoint(gone).advice("Somebody removed it during the sync"));
        }
        let error = self.destination.refusal_error(line, CommandKind::Append, "APPEND");
        self.record_suspects(answered, &reason_text(line), &error)
    }

    /// A connection ended: what the destination was taking then comes under suspicion when it ends the next one too, as if it
    /// had been refused. The first time it may have been chance, and nothing goes out of order for it.
    pub(super) fn note_append_loss<T>(&mut self, error: Error) -> Result<T> {
        // Whichever side ended it: what the destination had not committed for so long, it may commit as late once more.
        let silent = self.in_flight.front().map_or(Duration::ZERO, |first| first.sent_at.elapsed());
        self.memory.silence = self.memory.silence.max(silent);
        let is_loss = error.side == Some(Side::Destination)
            && matches!(error.class, ErrorClass::Network | ErrorClass::Protocol)
            && error.stated_wait.is_none();
        if !is_loss || self.blamed {
            return Err(error);
        }
        let Some(first) = self.in_flight.pop_front() else { return Err(error) };
        self.memory.waited += silent;
        // Who waits so long for one message does not need to see it twice.
        let paced = self.destination.paced_at().map(|paced| paced.elapsed());
        let mut is_suspect = paced.map_or(silent, |paced| paced.min(silent)) >= self.context.patience;
        for sent in &first.messages {
            let uid = self.message(sent.at)?.uid;
            let losses = self.memory.append_losses.entry(uid).or_default();
            is_suspect |= *losses > 0 || self.memory.suspects.contains(uid);
            *losses += 1;
        }
        if !is_suspect {
            return Err(error);
        }
        let why = format!("the connection ended while it was taken: {}", error.what);
        let refusal = Error { class: ErrorClass::Protocol, ..error };
        self.record_suspects(&first, &why, &refusal)?;
        Err(refusal)
    }

    /// The destination said OK: only now are these messages copied.
    fn on_confirmed(&mut self, answered: PendingAppend, line: &StatusLine) -> Result<()> {
        let uids = match self.assigned_uids(&answered, line) {
            Ok(uids) => uids,
            Err(error) => {
                // They may be in the folder that is open, in another, or nowhere: that is looked for before they are
                // sent again. No message is to blame.
                self.in_flight.push_front(answered);
                self.blamed = true;
                return Err(error);
            }
        };
        if let Some(last) = uids.as_ref().and_then(|u| u.last()) {
            self.uid_next = self.uid_next.max(last.0.saturating_add(1));
        }
        self.adapt(&answered);
        self.context.breakers.destination.record_acceptance();
        self.memory.failures.record_success(answered.messages.len());
        let in_flight = self.in_flight.iter().map(|f| f.uid_next).min();
        // What was refused may have been stored: its place stays in the tail until that was looked at.
        let in_doubt = self.memory.suspects.doubt_from;
        let tail_from = in_flight.into_iter().chain(in_doubt).min().unwrap_or(self.uid_next);
        let work = self.work;
        let scan = self.context.scan;
        let untold = std::mem::take(&mut self.report.untold);
        let newest = self.context.live_checkpoint.update_folder(self.context.source_raw, |state| {
            let newest = state.map.copied().last();
            let mut copied = UidSet::default();
            for (n, sent) in answered.messages.iter().enumerate() {
                let Some(message) = work.get(sent.at) else { continue };
                let destination_uid = uids.as_ref().and_then(|u| u.get(n)).copied();
                state.map.push(message.uid, destination_uid, CopyOrigin::Appended);
                copied.insert(message.uid);
                state.unseen.insert(message.uid);
                for flag in scan.flags(message).iter().filter_map(Flag::sendable) {
                    if let Some(set) = state.flags.get_mut(flag) {
                        set.insert(message.uid);
                    } else {
                        state.flags.entry(flag.to_owned()).or_default().insert(message.uid);
                    }
                }
            }
            if !state.set_aside.is_empty() {
                state.set_aside.remove(&copied);
            }
            if uids.is_some() && state.doubted.is_empty() {
                state.tail_from = tail_from;
            }
            state.unwell_runs = 0;
            state.differences.merge(untold);
            newest
        })?;
        let PendingAppend { messages, uid_next: first_uid, .. } = answered;
        for (n, sent) in messages.into_iter().enumerate() {
            let message = *self.message(sent.at)?;
            let uid = message.uid;
            self.memory.suspects.record_acceptance(&message);
            self.report_differences(&message, &sent);
            if newest.is_some_and(|newest| uid < newest) {
                let what = "it comes after newer messages: it could be copied only after them";
                self.report.add_difference(uid, "order", what);
            }
            SyncProgress::add(&self.context.progress.messages_done, 1);
            SyncProgress::add(&self.context.progress.bytes_done, sent.bytes);
            self.report.copied_now += 1;
            self.report.bytes_now += sent.bytes;
            let destination_uid = uids.as_ref().and_then(|u| u.get(n)).copied();
            // What was sent with other line ends is told as changed already.
            let in_bytes = sent.anomaly.in_bytes() && !sent.has_other_line_ends;
            if let Some(destination_uid) = destination_uid.filter(|_| in_bytes || sent.anomaly.date) {
                let anomaly = if in_bytes { sent.anomaly } else { sent.anomaly.date_only() };
                self.memory.read_back.push(ReadBack { source_uid: uid, destination_uid, anomaly });
            }
            // A UID below what was there before is that of a message that is not ours: Gmail keeps equal ones once.
            if destination_uid.is_none_or(|uid| uid.0 >= first_uid) {
                self.memory.appended.push(sent.as_copy(&message, destination_uid));
            }
            if !sent.keywords.is_empty() {
                let keywords = sent.keywords;
                self.memory.keywords_due.push(PendingKeywords { source_uid: uid, destination_uid, keywords });
            }
        }
        Ok(())
    }

    /// A server that commits slowly gets smaller batches, so that what a dead client left behind shows up in steps that
    /// are much shorter than the time between two looks.
    fn adapt(&mut self, answered: &PendingAppend) {
        let since = self.answered_at.map_or(answered.sent_at, |before| before.max(answered.sent_at));
        let took = since.elapsed();
        if took >= NOTEWORTHY_COMMIT {
            let took = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
            self.context
                .live_checkpoint
                .update(|checkpoint| checkpoint.slowest_commit = checkpoint.slowest_commit.max(took));
        }
        self.answered_at = Some(Instant::now());
        // Bytes that we hold back ourselves say nothing of how fast the server commits.
        let took = self.destination.paced_at().map_or(since, |paced| paced.max(since)).elapsed();
        if took > SLOW_COMMIT {
            self.batch_limit = (answered.messages.len() / 2).max(1);
        } else if took < SLOW_COMMIT / 4 {
            self.batch_limit = (self.batch_limit * 2).min(max_messages(self.destination, BATCH_MESSAGES));
        }
    }

    fn report_differences(&mut self, message: &ScannedMessage, sent: &SentMessage) {
        let uid = message.uid;
        if !sent.left_flags.is_empty() {
            let what = format!("the destination does not take {}", sent.left_flags.join(" "));
            self.report.add_difference(uid, "flags", what);
        }
        if let Some(why) = sent.left_date {
            let what = format!("{why}; the destination uses the time of arrival");
            self.report.add_difference(uid, "internalDate", what);
        }
        if sent.has_other_line_ends {
            let what = "the destination refuses LF without CR, so its lines were sent with CRLF";
            self.report.add_difference(uid, "content", what);
        }
        if !sent.has_other_line_ends && self.memory.is_size_doubtful(message, sent.bytes) {
            let what = format!("the source lists it with {} bytes and sent {}", message.size, sent.bytes);
            self.report.add_difference(uid, "size", what);
        }
    }

    /// The UIDs that the destination gave, in the order of the messages; none where it does not tell (no UIDPLUS).
    fn assigned_uids(&mut self, answered: &PendingAppend, line: &StatusLine) -> Result<Option<Vec<DestinationUid>>> {
        let Some(ResponseCode::AppendUid { uid_validity, uids }) = &line.code else { return Ok(None) };
        let open = self.context.selected.uid_validity;
        if *uid_validity != open {
            // Where the folder was opened again and is the same, the server's APPENDUID is what is wrong.
            if self.memory.other_validity.replace((open, *uid_validity)) == Some((open, *uid_validity)) {
                return Ok(None);
            }
            return Err(replaced_error(self.destination));
        }
        let count = answered.messages.len();
        let told: u64 = uids.iter().map(|(lo, hi)| u64::from(hi.abs_diff(*lo)) + 1).sum();
        if told != count as u64 {
            return Ok(None);
        }
        let numbers = uids.iter().flat_map(|(lo, hi)| (*lo).min(*hi)..=(*lo).max(*hi));
        Ok(Some(numbers.map(DestinationUid).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bare_line_feeds_get_a_carriage_return() {
        let repaired = |body: &'static str| with_crlf(&Bytes::from_static(body.as_bytes()));
        assert_eq!(repaired("\nA: b\n\none\r\ntwo\rthree\n"), "\r\nA: b\r\n\r\none\r\ntwo\rthree\r\n");
        assert_eq!(repaired("a\r\r\nb"), "a\r\r\nb");
        assert_eq!(repaired(""), "");
    }
}
