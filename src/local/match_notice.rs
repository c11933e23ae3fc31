//! Says of a mailbox without a checkpoint what will be copied into folders that hold mail, before it is: its user may have
//! deleted or moved some of that, and only a checkpoint would know.

use std::path::Path;

use futures::{FutureExt as _, future::BoxFuture};
use tokio::sync::{mpsc, oneshot};

use crate::sync::{SyncWatcher, matched_folders::MatchSummary};

/// What is to be told of a mailbox that runs.
#[derive(Debug)]
pub(crate) struct MatchNotice {
    /// The mailbox's name in the migration.
    pub mailbox: String,
    /// For people, without the mailbox.
    pub text: String,
    /// The numbers.
    pub summary: MatchSummary,
    /// Nothing is sent before this is dropped or used.
    pub told: oneshot::Sender<()>,
}

/// Brings a notice from a mailbox's task to the run.
#[derive(Debug)]
pub(super) struct NoticeSender {
    pub mailbox: String,
    /// What is to be said of the checkpoint.
    pub checkpoint: String,
    pub to: mpsc::UnboundedSender<MatchNotice>,
}

impl SyncWatcher for NoticeSender {
    fn tell_matched(&self, summary: MatchSummary) -> BoxFuture<'_, ()> {
        let text = format!(
            "{}; {}. Stop now (Ctrl-C) if it was synced before and its checkpoint is elsewhere (--state)",
            self.checkpoint,
            summary.text()
        );
        let (told, waiting) = oneshot::channel();
        let notice = MatchNotice { mailbox: self.mailbox.clone(), text, summary, told };
        async move {
            // A run that is over tells nobody any more.
            if self.to.send(notice).is_ok() {
                drop(waiting.await);
            }
        }
        .boxed()
    }
}

/// What is said of a checkpoint that was there, or not.
pub(super) fn checkpoint_text(file: &Path, is_there: bool) -> String {
    let file = file.display();
    if is_there {
        format!("the checkpoint {file} does not count for all folders")
    } else {
        format!("no checkpoint {file}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sync_goes_on_once_a_person_was_told_what_it_will_copy() {
        let (to, mut notices) = mpsc::unbounded_channel();
        let sender = NoticeSender {
            mailbox: "alice".into(),
            checkpoint: checkpoint_text(Path::new("/s/a.checkpoint"), false),
            to,
        };
        let summary = MatchSummary { messages: 1250, found: 1204, found_elsewhere: 3, to_copy: 46, to_flag: 0 };
        let mut telling = sender.tell_matched(summary);
        assert!((&mut telling).now_or_never().is_none());
        let notice = notices.recv().await.unwrap();
        assert_eq!(
            notice.text,
            "no checkpoint /s/a.checkpoint; 1204 of 1250 messages were found at the destination; 46 are to be copied into \
             folders that hold mail: what a user deleted or moved there comes back. Stop now (Ctrl-C) if it was synced \
             before and its checkpoint is elsewhere (--state)"
        );
        assert!((&mut telling).now_or_never().is_none());
        notice.told.send(()).unwrap();
        telling.await;
        drop(notices);
        sender.tell_matched(summary).await;
    }
}
