//! One IMAP connection: TLS, authentication, names, pipelined commands. Knows nothing of mailboxes in pairs.

pub mod address;
pub mod capability;
pub mod certificate;
pub mod classify;
pub mod connect;
pub mod date;
pub mod endpoint;
pub mod flag;
pub mod folders;
mod lease;
pub mod mutf7;
pub mod parse;
pub mod permit;
pub mod probe;
pub mod quote;
pub mod response;
pub mod select;
pub mod session;
mod tls;
mod transport;
pub mod uid_set;
mod wire;

pub use address::AddressPolicy;
pub use connect::connect;
pub use endpoint::{Credential, Endpoint, Login, Master, Quirks, Timeouts, Tls, TlsMode};
pub use session::{Event, Session, Tag};
pub use uid_set::UidSet;
pub use wire::STREAM_ABOVE;
