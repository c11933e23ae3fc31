//! Looks at what the destination made of the folders that it was asked for: it may say OK and make a folder of another
//! name, or none, or forget a subscription. What is listed counts.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{
    folder_creation::{CreatedFolders, ListedNames, list_names},
    folder_name::SideFolders,
    folder_plan::{FolderPlan, PlannedFolder},
};
use crate::{
    error::{Error, ErrorClass, Result},
    imap::{
        Session,
        account_listing::{AccountListing, is_same_folder_name},
        mutf7,
        response::{StatusCondition, UntaggedResponse},
    },
};

/// One look at what was made.
pub(crate) struct CreationCheck<'a> {
    /// How the destination's names are understood.
    pub side: &'a SideFolders,
    /// The destination as it was listed before.
    pub before: &'a AccountListing,
    /// It can be asked for subscriptions.
    pub lists_subscriptions: bool,
}

impl CreationCheck<'_> {
    /// Takes the name that is listed for a folder that was made, where there is one that the server may have made of the
    /// name that was asked for; else the folder counts as refused. Subscriptions that are not listed are told.
    ///
    /// # Errors
    /// When the connection ends or the server refuses to list.
    pub(crate) async fn run(
        &self,
        plan: &mut FolderPlan,
        made: &mut CreatedFolders,
        destination: &mut Session,
    ) -> Result<()> {
        if !made.created.is_empty() || !made.said_to_exist.is_empty() {
            self.check_names(plan, made, destination).await?;
        }
        if self.lists_subscriptions && !made.said_to_be_subscribed.is_empty() {
            let subscribed = list_subscriptions(destination).await?;
            if let Some(subscribed) = subscribed {
                note_lost_subscriptions(plan, made, &subscribed);
            }
        }
        Ok(())
    }

    async fn check_names(
        &self,
        plan: &mut FolderPlan,
        made: &mut CreatedFolders,
        destination: &mut Session,
    ) -> Result<()> {
        let listed = list_names(destination).await?;
        let is_listed = |raw: &[u8]| listed.iter().any(|name| is_same_folder_name(name, raw));
        let mut taken: BTreeSet<Vec<u8>> = plan.folders.iter().map(|folder| folder.destination_raw.clone()).collect();
        for folder in &mut plan.folders {
            let asked = folder.destination_raw.clone();
            let is_made = made.created.contains(&asked);
            if (!is_made && !made.said_to_exist.contains(&asked)) || is_listed(&asked) {
                continue;
            }
            // What was there before is not what was made.
            let may_be_it = |name: &&Bytes| !is_made || self.before.folder(name).is_none();
            let free = listed.iter().filter(may_be_it).filter(|name| !taken.contains(name.as_ref()));
            let alike: Vec<&Bytes> = free.filter(|name| is_rewritten_name(&asked, name)).collect();
            if let [name] = alike.as_slice() {
                taken.insert(name.to_vec());
                self.take_listed_name(folder, name);
                if made.created.remove(&asked) {
                    made.created.insert(name.to_vec());
                }
                if made.said_to_be_subscribed.remove(&asked) {
                    subscribe_again(folder, made, destination).await?;
                }
                let note = format!("the destination made it as \"{}\"", mutf7::decode_lossy(name));
                plan.notes.push((folder.source_name.clone(), note));
            } else if is_made {
                let what = "the server said that it made the folder, and does not list it";
                let error = destination.with_endpoint(Error::new(ErrorClass::Authorization, what));
                let error =
                    error.advice("Give the folder another name by a rename rule").in_folder(&folder.destination_name);
                made.created.remove(&asked);
                made.refused.insert(asked, error);
            }
        }
        Ok(())
    }

    /// The folder is the one that is listed under this name.
    fn take_listed_name(&self, folder: &mut PlannedFolder, raw: &[u8]) {
        folder.destination_raw = raw.to_vec();
        folder.destination_levels = self.side.parse_name(raw, self.side.delimiter).levels;
        folder.destination_name = folder.destination_levels.join("/");
    }
}

/// Subscribes to the name under which the folder is listed.
async fn subscribe_again(folder: &PlannedFolder, made: &mut CreatedFolders, destination: &mut Session) -> Result<()> {
    let tag = destination.send_folder_command("SUBSCRIBE", &folder.destination_raw, "");
    let line = destination.wait(tag, |_| {}).await?;
    if line.status == StatusCondition::Ok {
        made.said_to_be_subscribed.insert(folder.destination_raw.clone());
    } else {
        made.subscribed = made.subscribed.saturating_sub(1);
        made.notes.push(format!("{}: the destination did not subscribe to it: {}", folder.destination_name, line.text));
    }
    Ok(())
}

/// The raw names of all folders that are subscribed; none where the server refuses to list them.
async fn list_subscriptions(session: &mut Session) -> Result<Option<Vec<Bytes>>> {
    let extended = session.capabilities().has("LIST-EXTENDED");
    let tag = session.send_command(if extended { "LIST (SUBSCRIBED) \"\" \"*\"" } else { "LSUB \"\" \"*\"" });
    let mut listed = ListedNames::default();
    let line = session
        .wait(tag, |data| {
            if let UntaggedResponse::List(item) | UntaggedResponse::Lsub(item) = data {
                listed.add(item);
            }
        })
        .await?;
    Ok((line.status == StatusCondition::Ok).then_some(listed.names))
}

/// Tells of subscriptions that the server said it made and does not list.
fn note_lost_subscriptions(plan: &FolderPlan, made: &mut CreatedFolders, subscribed: &[Bytes]) {
    let said = std::mem::take(&mut made.said_to_be_subscribed);
    let is_lost = |raw: &[u8]| said.contains(raw) && !subscribed.iter().any(|name| is_same_folder_name(name, raw));
    for folder in &plan.folders {
        if is_lost(&folder.destination_raw) && !made.refused.contains_key(&folder.destination_raw) {
            let what = "the destination said that it subscribed to it, and does not list it so";
            made.notes.push(format!("{}: {what}", folder.destination_name));
            made.subscribed = made.subscribed.saturating_sub(1);
        }
    }
}

/// True when a server may have made of `asked` the folder `listed`: in another case, without empty levels or spaces, with
/// levels at other characters, or encoded in another way.
fn is_rewritten_name(asked: &[u8], listed: &[u8]) -> bool {
    let key = |raw: &[u8]| {
        let name = mutf7::decode_lossy(raw).to_lowercase();
        name.chars().filter(|c| !c.is_whitespace() && !matches!(c, '.' | '/' | '_')).collect::<String>()
    };
    key(asked) == key(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_known_again_under_the_name_that_the_server_made_of_it() {
        for (asked, listed) in [
            ("Sent", "SENT"),
            ("a..b", "a.b"),
            (" Reports ", "Reports"),
            ("a&-b", "a&-b"),
            ("INBOX.x.", "INBOX.x"),
            ("dot.ted", "dot/ted"),
        ] {
            assert!(is_rewritten_name(asked.as_bytes(), listed.as_bytes()), "{asked} {listed}");
        }
        assert!(!is_rewritten_name(b"Sent", b"Sent2"));
    }
}
