//! One IMAP connection: TLS, authentication, names, pipelined commands. Knows nothing of mailboxes in pairs.

pub mod date;
pub mod endpoint;
pub mod flag;
pub mod mutf7;
pub mod parse;
pub mod quote;
pub mod response;
pub mod uid_set;

pub use endpoint::{Credential, Endpoint, Login, Master, Quirks, Timeouts, Tls, TlsMode};
