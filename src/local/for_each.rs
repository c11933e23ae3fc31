//! Runs something read-only for each mailbox: as many at once as the migration and its servers allow, each on its own.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use tokio::{
    task::{Id, JoinSet},
    time::{MissedTickBehavior, interval},
};

use super::{
    mailbox_queue::{MailboxQueue, fit_to_limits},
    run::RunLimits,
};
use crate::{
    error::{Error, Result},
    sync::spec::SyncSpec,
};

/// How often progress is shown, and waiting mailboxes are looked at.
const TICK: Duration = Duration::from_millis(200);

/// What happens on the way.
#[derive(Debug)]
pub(crate) enum TaskEvent<'a, T> {
    /// Time has passed.
    Tick,
    /// A mailbox ended; the error is of one that could not run, or whose task broke off.
    Ended(&'a Result<T>),
}

/// Runs `task` for every mailbox and gives what came of each, in the order of the manifests. `show` learns what happens.
pub(crate) async fn for_each_mailbox<T, F>(
    mailboxes: Vec<Result<SyncSpec>>,
    bounds: &RunLimits,
    task: impl Fn(SyncSpec) -> F,
    mut show: impl FnMut(TaskEvent<'_, T>),
) -> Vec<Result<T>>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut waiting = Vec::new();
    let mut ended: Vec<(usize, Result<T>)> = Vec::new();
    for (number, mailbox) in mailboxes.into_iter().enumerate() {
        let fitted = mailbox.and_then(|mut spec| fit_to_limits(&mut spec, &bounds.hosts).map(|need| (spec, need)));
        match fitted {
            Ok((spec, need)) => waiting.push((number, spec, need)),
            Err(error) => {
                let failed = Err(error);
                show(TaskEvent::Ended(&failed));
                ended.push((number, failed));
            }
        }
    }
    let needs: Vec<_> = waiting.iter().map(|(number, _, need)| (*number, need.clone())).collect();
    let mut schedule = MailboxQueue::new(bounds.parallelism, needs);
    let mut tasks = JoinSet::new();
    let mut running: Vec<(Id, usize, String)> = Vec::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        while let Some(number) = schedule.start_next(Instant::now()) {
            let Some(at) = waiting.iter().position(|(n, ..)| *n == number) else { break };
            let (_, spec, _) = waiting.swap_remove(at);
            let mailbox = spec.mailbox.clone();
            running.push((tasks.spawn(task(spec)).id(), number, mailbox));
        }
        if tasks.is_empty() && schedule.waiting_count() == 0 {
            break;
        }
        tokio::select! {
            Some(outcome) = tasks.join_next_with_id() => {
                let id = outcome.as_ref().map_or_else(tokio::task::JoinError::id, |(id, _)| *id);
                let Some(at) = running.iter().position(|(running, ..)| *running == id) else { continue };
                let (_, number, mailbox) = running.swap_remove(at);
                schedule.release(number);
                // The panic's text may quote mail: it is not shown. Where it happened is in the log.
                let outcome = outcome.map(|(_, value)| value).map_err(|_| {
                    Error::internal("Mailferry failed on this mailbox").in_mailbox(mailbox)
                        .advice("Please report it with the log line that says where")
                });
                show(TaskEvent::Ended(&outcome));
                ended.push((number, outcome));
            }
            _ = ticks.tick() => show(TaskEvent::Tick),
        }
    }
    ended.sort_by_key(|(number, _)| *number);
    ended.into_iter().map(|(_, outcome)| outcome).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;
    use crate::{
        ErrorClass,
        local::mailbox_queue::{ServerLimit, ServerLimits},
        sync::testing::spec,
    };

    #[tokio::test]
    async fn every_mailbox_has_its_outcome_whatever_happens_to_the_others() {
        let mailboxes =
            vec![Ok(spec("alice")), Err(Error::configuration("wrong").in_mailbox("bob")), Ok(spec("carol"))];
        let bounds = RunLimits { parallelism: 2, hosts: ServerLimits::new() };
        let mut shown = 0;
        let outcomes = for_each_mailbox(
            mailboxes,
            &bounds,
            |spec| async move {
                assert!(spec.mailbox != "carol", "a defect");
                spec.mailbox
            },
            |step| shown += usize::from(matches!(step, TaskEvent::Ended(_))),
        )
        .await;
        assert_eq!(outcomes[0].as_ref().unwrap(), "alice");
        assert_eq!(outcomes[1].as_ref().unwrap_err().class, ErrorClass::Configuration);
        let broken = outcomes[2].as_ref().unwrap_err();
        assert_eq!((broken.class, broken.mailbox.as_deref()), (ErrorClass::Internal, Some("carol")));
        assert_eq!(shown, 3);
    }

    #[tokio::test]
    async fn no_server_gets_more_connections_than_it_allows() {
        let mailboxes = (0..6).map(|n| {
            let mut spec = spec(&format!("m{n}"));
            spec.connections = 1;
            Ok(spec)
        });
        let limit = ServerLimit { connections: Some(2), starts_per_minute: None };
        let bounds = RunLimits { parallelism: 10, hosts: ServerLimits::from([("old.example:993".to_owned(), limit)]) };
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let task = |_| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::task::yield_now().await;
                now.fetch_sub(1, SeqCst);
            }
        };
        assert_eq!(for_each_mailbox(mailboxes.collect(), &bounds, task, |_| {}).await.len(), 6);
        assert_eq!(most.load(SeqCst), 2);
    }
}
