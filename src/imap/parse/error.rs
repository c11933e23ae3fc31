//! What is wrong with a response that can't be understood.

use crate::error::Error;

/// A response that can't be understood; after it nothing else on the connection can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server's response can't be read: {what}, at byte {at}")]
pub struct ParseError {
    /// What is wrong, in a clause; never bytes of the server.
    pub what: &'static str,
    /// Where, in bytes from the start of the response.
    pub at: usize,
}

impl From<ParseError> for Error {
    fn from(error: ParseError) -> Self {
        Self::protocol(error.to_string())
    }
}
