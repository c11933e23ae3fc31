//! Connects anew with less to ask for, while it becomes clearer what a server fails on.

use std::time::Duration;

use crate::error::Result;

/// This many things may be found out one after the other before lost connections count as the server's own trouble.
const MAX_STEPS: u64 = 40;

/// Connects, and remembers what servers fail on while connections come and go.
pub(crate) trait NarrowedConnect: Send {
    /// What it comes to.
    type Ready: Send;

    /// Grows with each thing that was found out.
    fn steps(&self) -> u64;

    /// Connects, and asks for what is to be known, less what ended earlier connections.
    ///
    /// # Errors
    /// When that fails.
    fn connect(&mut self) -> impl Future<Output = Result<Self::Ready>> + Send;
}

/// Connects; again each time it failed and more is known. That the server is there is known, so this takes no back-off,
/// but logins follow one another no faster than `between_logins`.
///
/// # Errors
/// The error of the last try.
pub(crate) async fn connect_narrowed<T: NarrowedConnect>(
    connect: &mut T,
    between_logins: Duration,
) -> Result<T::Ready> {
    loop {
        let before = connect.steps();
        match connect.connect().await {
            Err(error) if connect.steps() > before && before < MAX_STEPS => {
                tracing::info!(error = %error, "connecting anew, with less to ask");
                tokio::time::sleep(between_logins).await;
            }
            ended => return ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    /// Fails on some things, one after the other.
    struct ScriptedConnect {
        fails_on: u64,
        ends_well: bool,
        found_out: u64,
        connections: u64,
    }

    impl NarrowedConnect for ScriptedConnect {
        type Ready = ();

        fn steps(&self) -> u64 {
            self.found_out
        }

        async fn connect(&mut self) -> Result<()> {
            self.connections += 1;
            if self.found_out == self.fails_on {
                return if self.ends_well { Ok(()) } else { Err(Error::network("connection refused")) };
            }
            self.found_out += 1;
            Err(Error::network("connection lost"))
        }
    }

    async fn connections(fails_on: u64, ends_well: bool) -> (Result<()>, u64) {
        let mut connect = ScriptedConnect { fails_on, ends_well, found_out: 0, connections: 0 };
        (connect_narrowed(&mut connect, Duration::ZERO).await, connect.connections)
    }

    #[tokio::test]
    async fn each_thing_that_is_found_out_is_worth_a_connection_and_nothing_else_is() {
        assert_eq!(connections(0, true).await, (Ok(()), 1));
        assert_eq!(connections(3, true).await, (Ok(()), 4));
        assert_eq!(connections(3, false).await, (Err(Error::network("connection refused")), 4));
    }

    #[tokio::test]
    async fn a_server_that_fails_on_everything_is_not_asked_for_each_thing() {
        assert_eq!(connections(99, true).await, (Err(Error::network("connection lost")), MAX_STEPS + 1));
    }
}
