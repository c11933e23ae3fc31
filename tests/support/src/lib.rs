//! What Mailferry is tested, shown and measured with: real Dovecots and IMAP servers of other makes on loopback, a
//! scripted server for what no real one does, a delaying and cutting proxy, deterministic mailboxes, a small IMAP client
//! of its own, and a real Kubernetes.
//!
//! Nothing here uses Mailferry's code, so that a mistake in the product cannot hide itself in its own tests.
//! Everything panics with a plain message when it cannot do its work: it runs in tests only.

pub mod cluster;
pub mod command;
pub mod corpus;
pub mod dovecot;
pub mod eventually;
pub mod imap_client;
pub mod mutf7;
pub mod pki;
pub mod proxy;
mod reply_parser;
pub mod scripted;
pub mod servers;
pub mod snapshot;

pub use command::CommandOutput;
pub use corpus::{Corpus, CorpusMessage};
pub use dovecot::{Dovecot, DovecotOptions, MailFormat, SharedServer, TestAccount, shared_server};
pub use eventually::{eventually, so};
pub use imap_client::RawImap;
pub use proxy::{ConnectionFault, FaultyProxy};
pub use reply_parser::ReplyValue;
pub use scripted::ScriptedServer;
pub use servers::{RunningServer, ServerAccount, ServerMake};
pub use snapshot::{MailboxSnapshot, differences};
