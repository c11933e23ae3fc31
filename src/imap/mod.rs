//! One IMAP connection: TLS, authentication, names, pipelined commands. Knows nothing of mailboxes in pairs.

pub mod account_listing;
pub mod address;
mod bearer;
pub(crate) mod capability;
pub(crate) mod certificate;
pub(crate) mod connect;
pub mod date;
mod dial;
pub mod endpoint;
pub(crate) mod flag;
mod hidden_secrets;
mod login_stream;
pub(crate) mod mutf7;
pub mod pace;
pub mod parse;
pub mod permit;
pub(crate) mod probe;
pub mod provider;
pub(crate) mod quote;
pub(crate) mod refusal;
pub mod response;
pub mod select;
mod server_kind;
pub mod session;
mod tls;
pub mod token_source;
mod transport;
pub mod uid_set;
mod wire;

pub use address::AddressPolicy;
pub(crate) use connect::connect;
pub use endpoint::{
    AccountLogin, ConnectionSecurity, ConnectionTimeouts, Endpoint, LoginCredential, MasterLogin, OpenedMark,
    TlsOptions,
};
pub use server_kind::ServerKind;
pub(crate) use session::{Session, SessionEvent, Tag};
pub use token_source::{LoginToken, SharedTokenSource, TokenSource};
pub use uid_set::{Uid, UidSet};
pub(crate) use wire::STREAM_ABOVE;
