//! Reads what there is to know of one account: logs in, lists folders, asks for the quota. Changes nothing.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use crate::{
    error::{Error, ErrorClass, Result, Side},
    imap::{
        Endpoint, Session,
        account_listing::{AccountListing, ListedFolder, ListingMemory, list_account},
        capability::Capabilities,
        connect, mutf7,
        response::{QuotaResource, StatusCondition, UntaggedResponse},
        select::queue_examine,
        session::{ByteCounter, ConnectionFacts},
    },
    sync::{
        archived_mail::{ArchivedMail, LABELS, find_archived_mail, label_folders},
        message_limit::{ListingCommand, list_lower_pages},
        narrowed_connect::{NarrowedConnect, connect_narrowed},
        plan_preview::{ListedAccount, listed_folders},
        spec::WaitSteps,
        special_use::SpecialUse,
        views::HoldingFolder,
    },
};

/// An account of at most this many messages is asked for each one's size, where the server has no shorter way.
const FEW_MESSAGES: u64 = 10_000;

/// What was seen of one account.
#[derive(Debug, Clone)]
pub(crate) struct InspectedAccount {
    /// The account.
    pub endpoint: Arc<Endpoint>,
    /// The connection.
    pub facts: ConnectionFacts,
    /// What the server offers after login.
    pub capabilities: Capabilities,
    /// Folders and kind of server.
    pub account: ListedAccount,
    /// Limits of INBOX's quota roots.
    pub quota: Vec<QuotaResource>,
    /// Of a source of labels (Gmail): what it holds, and what of it only its view of all shows.
    pub archived: Option<ArchivedMail>,
}

/// Connects, logs in, and reads the listing and the quota.
///
/// # Errors
/// When that fails, by its class.
pub(crate) async fn inspect_account(endpoint: &Endpoint) -> Result<InspectedAccount> {
    let endpoint = Arc::new(endpoint.clone());
    let mut inspection =
        AccountInspection { endpoint, listing: ListingMemory::default(), unopened: BTreeSet::new(), unnumbered: false };
    connect_narrowed(&mut inspection, WaitSteps::default().between_logins).await
}

/// One account, and what ended a connection to it, and so is asked for more carefully, or not at all.
#[derive(Debug)]
struct AccountInspection {
    endpoint: Arc<Endpoint>,
    listing: ListingMemory,
    /// Raw names of folders that cannot be opened.
    unopened: BTreeSet<Bytes>,
    /// Which messages are in which folder is not asked any more.
    unnumbered: bool,
}

impl NarrowedConnect for AccountInspection {
    type Ready = InspectedAccount;

    fn steps(&self) -> u64 {
        self.listing.steps() + self.unopened.len() as u64 + u64::from(self.unnumbered)
    }

    async fn connect(&mut self) -> Result<InspectedAccount> {
        let mut session = connect(&self.endpoint, &ByteCounter::default()).await?;
        let mut survey = list_account(&mut session, true, &mut self.listing).await?;
        let quota = quota(&mut session).await?;
        let messages = |folder: &ListedFolder| folder.status.as_ref().and_then(|status| status.messages).unwrap_or(0);
        let all: u64 = survey.folders.iter().map(|folder| u64::from(messages(folder))).sum();
        if all <= FEW_MESSAGES {
            self.ask_sizes(&mut session, &mut survey).await?;
        }
        let archived = self.find_archived(&mut session, &survey).await?;
        let inspected = InspectedAccount {
            archived,
            facts: session.facts.clone(),
            capabilities: session.capabilities().clone(),
            account: ListedAccount::new(&session, survey),
            endpoint: Arc::clone(&self.endpoint),
            quota,
        };
        session.logout().await;
        Ok(inspected)
    }
}

impl AccountInspection {
    /// What a source of labels holds; none for another account, and where it does not tell.
    async fn find_archived(&mut self, session: &mut Session, survey: &AccountListing) -> Result<Option<ArchivedMail>> {
        let side = listed_folders(survey);
        let all = side.folders.iter().find(|folder| folder.special_use == Some(SpecialUse::All) && folder.selectable);
        let is_source = self.endpoint.side == Side::Source && session.capabilities().has(LABELS);
        // Once: where it ended the connection, the next one goes on without it.
        let Some(all) = all.filter(|_| is_source && !std::mem::replace(&mut self.unnumbered, true)) else {
            return Ok(None);
        };
        let name = mutf7::decode_lossy(&all.raw);
        let others = label_folders(&side);
        let held: Vec<HoldingFolder<'_>> = others.iter().map(|(raw, name)| HoldingFolder { raw, name }).collect();
        match find_archived_mail(session, HoldingFolder { raw: &all.raw, name: &name }, &held, &[]).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.class == ErrorClass::Network => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Asks for the sizes of all folders that the listing tells none of.
    async fn ask_sizes(&mut self, session: &mut Session, survey: &mut AccountListing) -> Result<()> {
        for folder in &mut survey.folders {
            let name = folder.item.name.clone();
            if let Some(status) = &mut folder.status
                && status.size.is_none()
            {
                if status.messages == Some(0) {
                    status.size = Some(0);
                } else if self.unopened.insert(name.clone()) {
                    status.size = size(session, &name).await?;
                    self.unopened.remove(&name);
                }
            }
        }
        Ok(())
    }
}

async fn quota(session: &mut Session) -> Result<Vec<QuotaResource>> {
    if !session.capabilities().iter().any(|capability| capability == "QUOTA" || capability.starts_with("QUOTA=")) {
        return Ok(Vec::new());
    }
    // A refusal means that nothing is known, as without the extension.
    let (_, data) = session.run("GETQUOTAROOT INBOX").await?;
    let resources = |data| if let UntaggedResponse::Quota { resources, .. } = data { resources } else { Vec::new() };
    Ok(data.into_iter().flat_map(resources).collect())
}

/// The sum of all messages' sizes; none when the server does not tell it.
async fn size(session: &mut Session, raw: &[u8]) -> Result<Option<u64>> {
    let command = ListingCommand::fetch(1, None, "(UID RFC822.SIZE)");
    let tags = [queue_examine(session, raw), session.send_command(&command.to_string())];
    let mut sum = 0_u64;
    let mut add_size = |data| {
        if let UntaggedResponse::Fetch(fetch) = data {
            // No message has more than 4 GiB, and so the sum over folders stays a number.
            sum = sum.saturating_add(fetch.size.unwrap_or(0).min(u64::from(u32::MAX)));
        }
    };
    let mut lines = session.wait_all(&tags, &mut add_size).await?;
    let (2, Some(listed)) = (lines.len(), lines.pop()) else {
        return Err(session.with_endpoint(Error::protocol("a command ended without a status")));
    };
    lines.push(list_lower_pages(session, &command, listed, &mut add_size).await?);
    Ok(lines.iter().all(|line| line.status == StatusCondition::Ok).then_some(sum))
}
