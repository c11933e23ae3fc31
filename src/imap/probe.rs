//! A look at a server from outside: connects, protects the connection, asks for capabilities, and leaves. Nobody logs in.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt as _;
use tokio::time::timeout;

use super::{
    capability::Capabilities,
    connect::open_client,
    endpoint::Endpoint,
    refusal::{CommandKind, QuotaMeaning, refusal_class_on},
    session::{ByteCounter, ConnectionFacts},
};
use crate::error::{Error, Result};

/// How long a server may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// What a server shows to anyone.
#[derive(Debug, Clone)]
pub(crate) struct ServerProbe {
    /// The connection.
    pub facts: ConnectionFacts,
    /// What is offered before login.
    pub capabilities: Capabilities,
}

/// Looks at a server. The endpoint's login is not used.
///
/// # Errors
/// As [`super::connect()`] has them before the login. None holds what the server said: whoever names a host must not be
/// shown what answers there.
pub(crate) async fn probe_server(endpoint: &Endpoint) -> Result<ServerProbe> {
    let mut facts = ConnectionFacts::default();
    // A panic in async-imap's parser ends this connection only.
    let looked = match AssertUnwindSafe(Box::pin(read_capabilities(endpoint, &mut facts))).catch_unwind().await {
        Ok(looked) => looked,
        Err(_) => Err(Error::protocol("the server's answer could not be read")),
    };
    match looked {
        Ok(capabilities) => Ok(ServerProbe { facts, capabilities }),
        Err(error) => Err(match &facts.goodbye {
            Some(line) => Error::new(
                refusal_class_on(QuotaMeaning::on(endpoint.side, endpoint.quirks), line, CommandKind::Other),
                "the server hung up instead of greeting",
            )
            .advice("Ask whoever runs it; it may refuse this address, or have too many connections already"),
            None => error,
        }),
    }
}

async fn read_capabilities(endpoint: &Endpoint, facts: &mut ConnectionFacts) -> Result<Capabilities> {
    let (mut client, capabilities) = open_client(endpoint, &ByteCounter::default(), facts).await?;
    // That it says goodbye is not needed, only decent.
    drop(timeout(GOODBYE, client.run_command_and_check_ok("LOGOUT", None)).await);
    Ok(capabilities)
}
