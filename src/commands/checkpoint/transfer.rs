//! Checkpoints from a cluster into a file, and back.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use clap::Args;
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};

use super::archive::{ArchivedCheckpoint, CheckpointArchive, ImportVerdict};
use crate::{
    api::MailboxSync,
    commands::import::namespace,
    error::{Error, ErrorClass, Result},
    import::apply::cluster,
    kubectl::requests::refused,
    local::state_folder::write_atomically,
    terminal_text::{format_count, printable},
};

/// Objects asked for at once: each may have a checkpoint of 256 KiB.
const PAGE: u32 = 20;
/// So often an object is judged again that was written meanwhile: the operator does.
const MAX_CONFLICTS: usize = 5;

/// Write the checkpoints of a namespace's MailboxSyncs, or of one migration's, into a file.
///
/// The file holds names, hosts, hashes of accounts, and checkpoints: folders' names and what was copied, no mail and no
/// passwords. It needs the verb list on mailboxsyncs.
#[derive(Debug, Clone, Args)]
pub struct CheckpointExportArgs {
    /// The file, which is replaced if it is there; `-` writes to stdout.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// The namespace [default: the kubeconfig's].
    #[arg(long, short, value_name = "NAME", value_parser = namespace)]
    pub namespace: Option<String>,

    /// Only the mailboxes of this MailMigration.
    #[arg(long, value_name = "NAME")]
    pub migration: Option<String>,

    /// The context of the kubeconfig [default: its current one].
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// Put exported checkpoints into MailboxSyncs that have none and have made no attempt.
///
/// Apply the migrations first, with `spec.suspend: true`, so that there are MailboxSyncs; resume them afterwards. A checkpoint
/// comes only to the accounts that it is of. It counts as in doubt: what was copied counts as found at the destination, and
/// `deletions: Mirror` never touches it. The first attempt waits for `offlineGrace` and 90 seconds.
///
/// It needs the verb get on mailboxsyncs and patch on mailboxsyncs/status. Exits with 2 when a checkpoint was refused; the
/// others are imported all the same, and it can be run again.
#[derive(Debug, Clone, Args)]
pub struct CheckpointImportArgs {
    /// What `mailferry checkpoint export` wrote.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// The namespace [default: the one that the checkpoints are from].
    #[arg(long, short, value_name = "NAME", value_parser = namespace)]
    pub namespace: Option<String>,

    /// Only the mailboxes of this MailMigration.
    #[arg(long, value_name = "NAME")]
    pub migration: Option<String>,

    /// The context of the kubeconfig [default: its current one].
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,

    /// Say what would be imported, and import nothing.
    #[arg(long)]
    pub dry_run: bool,
}

impl CheckpointExportArgs {
    /// Writes the file; gives the exit code.
    ///
    /// # Errors
    /// When the API server or the file can't be reached.
    pub async fn run(&self) -> Result<u8> {
        let (client, default) = cluster(self.context.as_deref()).await?;
        let namespace = self.namespace.clone().unwrap_or(default);
        let archive = export_checkpoints(&client, namespace, self.migration.as_deref()).await?;
        let text = archive.write()?;
        if self.file.as_os_str() == "-" {
            // A reader that has gone away is no failure.
            drop(io::stdout().write_all(text.as_bytes()));
            return Ok(0);
        }
        write_atomically(&self.file, text.as_bytes())
            .map_err(|e| Error::configuration(format!("cannot write {}: {e}", self.file.display())))?;
        let count = format_count(archive.checkpoints.len() as u64, "checkpoint");
        drop(writeln!(io::stdout(), "{count} written to {}", self.file.display()));
        Ok(0)
    }
}

impl CheckpointImportArgs {
    /// Imports, and says what was not; gives the exit code.
    ///
    /// # Errors
    /// When the API server or the file can't be read.
    pub async fn run(&self) -> Result<u8> {
        let text = fs::read_to_string(&self.file)
            .map_err(|e| Error::configuration(format!("cannot read {}: {e}", self.file.display())))?;
        let mut archive = CheckpointArchive::read(&text)?;
        archive.checkpoints.retain(|one| self.migration.as_ref().is_none_or(|only| *only == one.migration));
        let (client, _) = cluster(self.context.as_deref()).await?;
        let namespace = self.namespace.as_ref().unwrap_or(&archive.namespace);
        let verdicts = import_checkpoints(&client, namespace, &archive, self.dry_run).await?;
        let (text, refused) = told(&archive, &verdicts, self.dry_run);
        drop(io::stdout().write_all(printable(&text).as_bytes()));
        Ok(if refused { ErrorClass::Configuration.exit_code() } else { 0 })
    }
}

/// What people are told of an import, and whether anything was refused.
fn told(archive: &CheckpointArchive, verdicts: &[ImportVerdict], dry_run: bool) -> (String, bool) {
    let (mut text, mut counts) = (String::new(), [0_u64; 3]);
    for (one, verdict) in archive.checkpoints.iter().zip(verdicts) {
        match verdict {
            ImportVerdict::Imported => counts[0] += 1,
            ImportVerdict::ThereAlready => counts[1] += 1,
            ImportVerdict::Refused(refusal) => {
                counts[2] += 1;
                let ArchivedCheckpoint { migration, mailbox, .. } = one;
                let _ = writeln!(text, "refused  {migration}, {mailbox} ({}): {}", one.sync_name(), refusal.text());
            }
        }
    }
    let [imported, already, refused] = counts;
    let would = if dry_run { "would be imported" } else { "imported" };
    let count = format_count(imported, "checkpoint");
    let _ = writeln!(text, "{count} {would}, {already} there already, {refused} refused");
    (text, refused > 0)
}

/// The checkpoints of a namespace's MailboxSyncs, or of one migration's.
///
/// # Errors
/// When the API server refuses, or can't be reached.
pub async fn export_checkpoints(
    client: &Client,
    namespace: String,
    migration: Option<&str>,
) -> Result<CheckpointArchive> {
    let api: Api<MailboxSync> = Api::namespaced(client.clone(), &namespace);
    let mut checkpoints = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = api.list(&page).await.map_err(|error| refused("list MailboxSyncs", &error))?;
        let wanted = list.items.into_iter().filter(|sync| migration.is_none_or(|only| sync.spec.migration == only));
        checkpoints.extend(wanted.filter_map(ArchivedCheckpoint::from_sync));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(CheckpointArchive::new(namespace, checkpoints)),
        }
    }
}

/// Imports checkpoints one after the other, those that can be; gives what became of each, in the order of the file.
///
/// # Errors
/// When the API server refuses a request, or can't be reached: what was imported until then stays.
pub async fn import_checkpoints(
    client: &Client,
    namespace: &str,
    archive: &CheckpointArchive,
    dry_run: bool,
) -> Result<Vec<ImportVerdict>> {
    let api: Api<MailboxSync> = Api::namespaced(client.clone(), namespace);
    let mut verdicts = Vec::new();
    for one in &archive.checkpoints {
        verdicts.push(import_checkpoint(&api, one, dry_run).await?);
    }
    Ok(verdicts)
}

async fn import_checkpoint(api: &Api<MailboxSync>, one: &ArchivedCheckpoint, dry_run: bool) -> Result<ImportVerdict> {
    let name = one.sync_name();
    let parameters = PatchParams { dry_run, ..PatchParams::default() };
    let mut conflicts = 0;
    loop {
        let sync = api.get_opt(&name).await.map_err(|error| refused("get MailboxSyncs", &error))?;
        let verdict = one.judge(sync.as_ref());
        let Some(sync) = sync.filter(|_| verdict == ImportVerdict::Imported) else { return Ok(verdict) };
        let patch = Patch::Merge(one.patch(&sync, Timestamp::now()));
        match api.patch_status(&name, &parameters, &patch).await {
            Ok(_) => return Ok(verdict),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) && conflicts < MAX_CONFLICTS => {
                conflicts += 1;
            }
            Err(error) => return Err(refused("patch the status of MailboxSyncs", &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::checkpoint::archive::ImportRefusal;

    #[test]
    fn each_checkpoint_that_was_refused_is_named_with_the_reason() {
        let one = |mailbox: &str| {
            serde_json::from_value(serde_json::json!({
                "migration": "acme", "mailbox": mailbox, "checkpoint": "c",
                "source": {"host": "old.example", "account": "a"}, "destination": {"host": "new.example", "account": "b"},
            }))
            .unwrap()
        };
        let archive = CheckpointArchive::new("ns".to_owned(), vec![one("alice"), one("bob"), one("carol")]);
        let verdicts = [
            ImportVerdict::Imported,
            ImportVerdict::Refused(ImportRefusal::OtherDestination),
            ImportVerdict::ThereAlready,
        ];
        let (text, refused) = told(&archive, &verdicts, false);
        assert!(refused);
        insta::assert_snapshot!(text, @r"
        refused  acme, bob (acme-bob-5b5133d778): the MailboxSync writes to another account: a checkpoint is of no use there
        1 checkpoint imported, 1 there already, 1 refused
        ");
        assert!(!told(&archive, &[ImportVerdict::Imported], true).1);
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("checkpoints.json");
        write_atomically(&file, b"one").unwrap();
        write_atomically(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
