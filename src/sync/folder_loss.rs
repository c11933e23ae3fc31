//! What comes after a connection was lost while a folder was worked on: a server that dies on one thing is there for all
//! others, one that is away is waited for. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// A folder is given up after so many connections that ended while it was opened or listed.
const MAX_OPENING_LOSSES: u32 = 4;
/// So long one run narrows down what ends the connections in one folder, or waits for APPENDs that are never answered; what
/// is left then is not tried.
const MAX_NARROWING: Duration = Duration::from_hours(1);

/// So many losses in a row may narrow something down without one message that moves: a hundred bad ones side by side were
/// seen in real mailboxes. A server that fails on more fails on everything.
const MAX_FRUITLESS: u32 = 400;

/// A connection that was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FolderLoss {
    /// Messages were copied or found since the connection was made.
    pub moved: bool,
    /// It is known better now what the servers fail on.
    pub narrowed: bool,
    /// The folder had been opened and listed on both sides.
    pub opened: bool,
    /// How long the destination was waited for in vain while it took messages of the folder, over all connections.
    pub waited: Duration,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterLoss {
    /// Connect anew, without a back-off.
    Reconnect,
    /// Wait as long as the back-off says.
    BackOff,
    /// Leave the rest of the folder's messages for the next run.
    LeaveRest,
    /// Leave the folder: it cannot be opened.
    LeaveFolder,
}

/// The losses of one folder in one run.
#[derive(Debug, Default)]
pub(crate) struct LossHistory {
    while_opening: u32,
    narrowing_since: Option<Instant>,
    /// Losses in a row without a message that moved.
    fruitless: u32,
}

impl LossHistory {
    /// Takes note of a loss and decides.
    pub(crate) fn record(&mut self, loss: FolderLoss, now: Instant) -> AfterLoss {
        if loss.moved || loss.opened {
            self.while_opening = 0;
        } else {
            self.while_opening += 1;
        }
        self.fruitless = if loss.moved { 0 } else { self.fruitless + 1 };
        if loss.moved && loss.waited > MAX_NARROWING {
            // It stores what it never answers: each message would take as long.
            return AfterLoss::LeaveRest;
        }
        if loss.narrowed && self.fruitless <= MAX_FRUITLESS {
            let since = *self.narrowing_since.get_or_insert(now);
            return if now.duration_since(since) > MAX_NARROWING { AfterLoss::LeaveRest } else { AfterLoss::Reconnect };
        }
        match self.while_opening {
            0 => AfterLoss::BackOff,
            // Perhaps it was not the folder.
            1 => AfterLoss::Reconnect,
            MAX_OPENING_LOSSES.. => AfterLoss::LeaveFolder,
            _ => AfterLoss::BackOff,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENING: FolderLoss = FolderLoss { moved: false, narrowed: false, opened: false, waited: Duration::ZERO };

    #[test]
    fn a_folder_that_ends_each_connection_when_it_is_opened_is_left() {
        let (mut losses, now) = (LossHistory::default(), Instant::now());
        let decided: Vec<_> = (0..4).map(|_| losses.record(OPENING, now)).collect();
        let wait = AfterLoss::BackOff;
        assert_eq!(decided, [AfterLoss::Reconnect, wait, wait, AfterLoss::LeaveFolder]);
    }

    #[test]
    fn a_folder_that_could_be_opened_is_not_left() {
        let (mut losses, now) = (LossHistory::default(), Instant::now());
        for _ in 0..50 {
            let opened = losses.record(FolderLoss { opened: true, ..OPENING }, now);
            assert_eq!(opened, AfterLoss::BackOff);
            assert_eq!(losses.record(OPENING, now), AfterLoss::Reconnect);
        }
    }

    #[test]
    fn a_server_that_fails_on_everything_is_not_asked_for_each_thing() {
        let (mut losses, now) = (LossHistory::default(), Instant::now());
        let found = FolderLoss { narrowed: true, opened: true, ..OPENING };
        for _ in 0..MAX_FRUITLESS {
            assert_eq!(losses.record(found, now), AfterLoss::Reconnect);
        }
        assert_eq!(losses.record(found, now), AfterLoss::BackOff);
    }

    #[test]
    fn what_narrows_down_takes_no_back_off_for_an_hour() {
        let (mut losses, now) = (LossHistory::default(), Instant::now());
        let found = FolderLoss { narrowed: true, opened: true, ..OPENING };
        assert_eq!(losses.record(found, now), AfterLoss::Reconnect);
        assert_eq!(losses.record(found, now + MAX_NARROWING), AfterLoss::Reconnect);
        assert_eq!(losses.record(found, now + MAX_NARROWING + Duration::from_secs(1)), AfterLoss::LeaveRest);
    }

    #[test]
    fn a_destination_that_stores_and_never_answers_is_not_waited_for_with_each_message() {
        let (mut losses, now) = (LossHistory::default(), Instant::now());
        let found = |waited| FolderLoss { moved: true, opened: true, waited, ..OPENING };
        assert_eq!(losses.record(found(MAX_NARROWING), now), AfterLoss::BackOff);
        assert_eq!(losses.record(found(MAX_NARROWING * 2), now), AfterLoss::LeaveRest);
    }
}
