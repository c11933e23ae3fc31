//! Looks at one account: logs in, lists, asks for the quota. Changes nothing.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    imap::{
        Endpoint, Session,
        account_listing::{ListedFolder, list_account},
        capability::Capabilities,
        connect,
        response::{QuotaResource, StatusCondition, UntaggedResponse},
        select::queue_examine,
        session::{ByteCounter, ConnectionFacts},
    },
    sync::plan_preview::ListedAccount,
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
}

/// Connects, logs in and looks.
///
/// # Errors
/// When that fails, by its class.
pub(crate) async fn inspect_account(endpoint: &Endpoint) -> Result<InspectedAccount> {
    let endpoint = Arc::new(endpoint.clone());
    let mut session = connect(&endpoint, &ByteCounter::default()).await?;
    let mut survey = list_account(&mut session, true).await?;
    let quota = quota(&mut session).await?;
    let messages = |folder: &ListedFolder| folder.status.as_ref().and_then(|status| status.messages).unwrap_or(0);
    let all: u64 = survey.folders.iter().map(|folder| u64::from(messages(folder))).sum();
    if all <= FEW_MESSAGES {
        for folder in &mut survey.folders {
            let name = folder.item.name.clone();
            if let Some(status) = &mut folder.status
                && status.size.is_none()
            {
                status.size = if status.messages == Some(0) { Some(0) } else { size(&mut session, &name).await? };
            }
        }
    }
    let looked = InspectedAccount {
        facts: session.facts.clone(),
        capabilities: session.capabilities().clone(),
        account: ListedAccount::new(&session, survey),
        endpoint,
        quota,
    };
    session.logout().await;
    Ok(looked)
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
    let tags = [queue_examine(session, raw), session.send_command("UID FETCH 1:* (UID RFC822.SIZE)")];
    let mut sum = 0_u64;
    let lines = session
        .wait_all(&tags, |data| {
            if let UntaggedResponse::Fetch(fetch) = data {
                sum = sum.saturating_add(fetch.size.unwrap_or(0));
            }
        })
        .await?;
    if lines.len() < tags.len() {
        return Err(session.with_endpoint(Error::protocol("a command ended without a status")));
    }
    Ok(lines.iter().all(|line| line.status == StatusCondition::Ok).then_some(sum))
}
