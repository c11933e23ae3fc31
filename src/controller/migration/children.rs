//! Makes, changes and removes a migration's MailboxSyncs, some at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Error, ResourceExt as _,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
};

use super::{
    csv,
    expand::{Expansion, Wanted},
};
use crate::{
    api::{MailMigration, MailboxSync},
    controller::{context::Context, mailbox::reconcile::Failure, merge, objects::SYNC_FINALIZER, pod, reference},
};

/// So many objects are written before the migration is looked at again: it may have been suspended.
const BATCH: usize = 500;
/// So many at a time.
const AT_ONCE: usize = 16;

/// What is to be done with one MailboxSync.
enum Step<'a> {
    Make(&'a str, &'a Wanted),
    Change(&'a Arc<MailboxSync>, &'a Wanted),
    Remove(&'a Arc<MailboxSync>),
}

/// What was done.
pub struct Progress {
    /// Left to do, with what has to wait.
    pub left: usize,
    /// Made just now: the watch does not show them yet.
    pub made: BTreeSet<String>,
}

/// Brings the MailboxSyncs closer to what they shall be. `made` were made before and are not seen yet.
///
/// # Errors
/// When the API server does not take something.
pub async fn bring(
    context: &Context,
    migration: &MailMigration,
    expansion: &Expansion,
    existing: &BTreeMap<String, Arc<MailboxSync>>,
    removed: &BTreeSet<String>,
    made: &BTreeSet<String>,
) -> Result<Progress, Failure> {
    let uid = migration.uid().unwrap_or_default();
    let mut steps = Vec::new();
    for (name, wanted) in &expansion.wanted {
        match existing.get(name) {
            None if made.contains(name) => {}
            None => steps.push(Step::Make(name, wanted)),
            // Of a migration of the same name before: it goes by itself.
            Some(sync) if !reference::is_owned(&**sync, &uid) || sync.metadata.deletion_timestamp.is_some() => {
                steps.push(Step::Make(name, wanted));
            }
            Some(sync) if sync.spec != wanted.spec => steps.push(Step::Change(sync, wanted)),
            Some(_) => {}
        }
    }
    let gone = existing
        .values()
        .filter(|sync| removed.contains(&sync.name_any()) && sync.metadata.deletion_timestamp.is_none());
    steps.extend(gone.map(Step::Remove));
    // What runs comes first: it may have to stop.
    steps.sort_by_key(|step| match step {
        Step::Change(sync, _) | Step::Remove(sync)
            if sync.status.as_ref().is_some_and(|status| status.slots.is_some()) =>
        {
            0
        }
        _ => 1,
    });
    let left = steps.len().saturating_sub(BATCH);
    let runs: Vec<_> = steps.into_iter().take(BATCH).map(|step| run(context, migration, step)).collect();
    let results: Vec<Option<String>> = stream::iter(runs).buffer_unordered(AT_ONCE).try_collect().await?;
    let waits = results.iter().filter(|result| result.as_deref() == Some("")).count();
    let made = results.into_iter().flatten().filter(|name| !name.is_empty()).collect();
    Ok(Progress { left: left + waits, made })
}

/// Does one step: gives the name of what was made, or an empty one for what has to wait.
async fn run(context: &Context, migration: &MailMigration, step: Step<'_>) -> Result<Option<String>, Failure> {
    let namespace = migration.namespace().unwrap_or_default();
    let api: Api<MailboxSync> = Api::namespaced(context.client.clone(), &namespace);
    match step {
        Step::Make(name, wanted) => {
            if let Some(secret) = &wanted.secret {
                csv::split(context, migration, secret).await?;
            }
            let mut sync = MailboxSync::new(name, wanted.spec.clone());
            sync.metadata = ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace),
                finalizers: Some(vec![SYNC_FINALIZER.to_owned()]),
                owner_references: Some(vec![reference::owner(migration)]),
                ..ObjectMeta::default()
            };
            match api.create(&PostParams::default(), &sync).await {
                Ok(_) => Ok(Some(name.to_owned())),
                // There, or still there from before: the watch will tell.
                Err(Error::Api(answer)) if answer.code == 409 => Ok(Some(String::new())),
                Err(error) => Err(error.into()),
            }
        }
        Step::Change(sync, wanted) => {
            if let Some(secret) = &wanted.secret {
                csv::split(context, migration, secret).await?;
            }
            let Some(patch) = merge::patch(&sync.spec, &wanted.spec)? else { return Ok(None) };
            let body = serde_json::json!({"metadata": {"uid": sync.uid()}, "spec": patch});
            api.patch(&sync.name_any(), &PatchParams::default(), &Patch::Merge(body)).await?;
            drop_old_secrets(context, sync, wanted).await?;
            Ok(None)
        }
        Step::Remove(sync) => {
            let preconditions = Some(Preconditions { uid: sync.uid(), resource_version: None });
            let params = DeleteParams { preconditions, ..DeleteParams::default() };
            match api.delete(&sync.name_any(), &params).await {
                Ok(_) => Ok(None),
                Err(Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(None),
                Err(error) => Err(error.into()),
            }
        }
    }
}

/// Removes the Secret that a mailbox had before. A pod that runs may still read it: then it stays until the migration
/// goes, which owns it.
async fn drop_old_secrets(context: &Context, sync: &MailboxSync, wanted: &Wanted) -> Result<(), Failure> {
    if sync.status.as_ref().is_some_and(|status| status.slots.is_some()) {
        return Ok(());
    }
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &sync.namespace().unwrap_or_default());
    let kept = pod::secrets(&wanted.spec);
    let ours = format!("{}-", sync.name_any());
    for name in pod::secrets(&sync.spec).into_keys().filter(|name| name.starts_with(&ours) && !kept.contains_key(name))
    {
        match api.delete(&name, &DeleteParams::default()).await {
            Err(Error::Api(answer)) if answer.code == 404 => {}
            answer => drop(answer?),
        }
    }
    Ok(())
}
