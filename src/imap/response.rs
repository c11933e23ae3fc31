//! What a server says, parsed. The types; [`super::parse`] makes them from bytes.

use bytes::Bytes;

use super::{date::InternalDate, uid_set::UidSet};

/// One complete server response (RFC 9051, section 7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// `+ ...`: the server waits for more of a command.
    Continue(String),
    /// The end of the command with this tag.
    Tagged { tag: String, line: StatusLine },
    /// Data or an announcement.
    Untagged(UntaggedResponse),
}

/// `OK`, `NO`, `BAD`, `BYE` or `PREAUTH` with its response code and text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusLine {
    /// The condition.
    pub status: StatusCondition,
    /// The bracketed response code, if any.
    pub code: Option<ResponseCode>,
    /// Human-readable text: control characters replaced, at most 500 characters.
    pub text: String,
}

/// The condition of a status response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusCondition {
    Ok,
    No,
    Bad,
    Bye,
    PreAuth,
}

/// Response codes that Mailferry acts on (RFC 9051, section 7.1; RFC 5530; RFC 4315; RFC 7162).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseCode {
    /// UIDs of appended messages, in the order of the APPEND: inclusive ranges as sent.
    AppendUid {
        uid_validity: u32,
        uids: Vec<(u32, u32)>,
    },
    Capability(Vec<String>),
    HighestModSeq(u64),
    /// The folder's identity, which stays when it is renamed (RFC 8474).
    MailboxId(String),
    /// A command touched only the `limit` newest of its messages, down to this UID (RFC 9738).
    MessageLimit {
        limit: u32,
        lowest_uid: Option<u32>,
    },
    NoModSeq,
    /// Permanent flags as sent; `\*` means that new keywords can be made.
    PermanentFlags(Vec<Flag>),
    UidNext(u32),
    UidValidity(u32),
    ReadOnly,
    ReadWrite,
    TryCreate,
    /// Any other code by its upper-cased name: `AUTHENTICATIONFAILED`, `OVERQUOTA`, `LIMIT`, `INUSE`, `UNAVAILABLE`,
    /// `ALREADYEXISTS`, `NONEXISTENT`, `EXPUNGEISSUED`, `TOOBIG`, `MODIFIED`, `ALERT`, ...
    Other(String),
}

impl ResponseCode {
    /// True when this is the parameterless code `name` (upper case).
    #[must_use]
    pub(crate) fn is(&self, name: &str) -> bool {
        matches!(self, Self::Other(code) if code == name)
    }
}

/// Untagged responses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UntaggedResponse {
    /// OK, NO, BAD, BYE, PREAUTH without a tag.
    Status(StatusLine),
    /// Capabilities, upper-cased.
    Capability(Vec<String>),
    /// ENABLED: what was enabled, upper-cased.
    Enabled(Vec<String>),
    /// Flags that are defined in the selected folder.
    Flags(Vec<Flag>),
    List(ListItem),
    Lsub(ListItem),
    FolderStatus(FolderStatus),
    /// UIDs or sequence numbers of SEARCH, and its MODSEQ.
    Search {
        numbers: UidSet,
        modseq: Option<u64>,
    },
    /// RFC 4731.
    Esearch {
        tag: Option<String>,
        uid: bool,
        all: UidSet,
        count: Option<u64>,
        modseq: Option<u64>,
    },
    Exists(u32),
    Recent(u32),
    Expunge(u32),
    /// RFC 7162.
    Vanished {
        earlier: bool,
        uids: UidSet,
    },
    Fetch(FetchResponse),
    Namespace(NamespaceResponse),
    /// RFC 9208: root and its resources.
    Quota {
        root: String,
        resources: Vec<QuotaResource>,
    },
    /// The quota roots of a folder.
    QuotaRoot {
        folder: Bytes,
        roots: Vec<String>,
    },
    /// RFC 2971, key and value pairs.
    Id(Vec<(String, Option<String>)>),
    /// Understood to be a response, but not one that matters here.
    Other(String),
}

/// One line of LIST or LSUB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListItem {
    /// As sent, for example `\HasNoChildren`, `\Sent`.
    pub attributes: Vec<String>,
    /// The hierarchy delimiter; none for a flat name.
    pub delimiter: Option<u8>,
    /// The raw name: the folder's identity on this server.
    pub name: Bytes,
}

impl ListItem {
    /// True when the attribute is there, in any case (`\noselect`).
    #[must_use]
    pub(crate) fn has(&self, attribute: &str) -> bool {
        self.attributes.iter().any(|a| a.eq_ignore_ascii_case(attribute))
    }
}

/// STATUS of one folder; what the server left out is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FolderStatus {
    /// The raw name.
    pub name: Bytes,
    pub messages: Option<u32>,
    pub uid_next: Option<u32>,
    pub uid_validity: Option<u32>,
    pub highest_modseq: Option<u64>,
    /// Bytes in all messages (RFC 8438).
    pub size: Option<u64>,
    /// Bytes allowed in one APPEND (RFC 7889).
    pub append_limit: Option<u64>,
}

/// One FETCH response; what was not sent is `None` or empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FetchResponse {
    /// Message sequence number: never to be mapped by.
    pub seq: u32,
    pub uid: Option<u32>,
    pub flags: Option<Vec<Flag>>,
    /// `Some(None)`: sent, but NIL or not a date.
    pub internal_date: Option<Option<InternalDate>>,
    /// RFC822.SIZE, bytes.
    pub size: Option<u64>,
    pub modseq: Option<u64>,
    /// Sections by their name as sent, upper-cased, without partial (`""` for `BODY[]`,
    /// `HEADER.FIELDS (MESSAGE-ID)`); NIL is `None`.
    pub sections: Vec<(String, Option<Bytes>)>,
    /// RFC 8474.
    pub email_id: Option<String>,
    /// Gmail's number of the message (X-GM-MSGID): the same in all folders.
    pub gmail_id: Option<u64>,
}

/// A flag or keyword as a server sent it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flag {
    Answered,
    Deleted,
    Draft,
    Flagged,
    Recent,
    Seen,
    /// `\*` in PERMANENTFLAGS.
    MayCreate,
    /// A keyword: raw bytes as sent, at most 256; may be anything.
    Keyword(Bytes),
    /// Any other `\Something`, raw, at most 256 bytes.
    Extension(Bytes),
}

/// NAMESPACE (RFC 2342).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceResponse {
    pub personal: Vec<NamespaceDescriptor>,
    pub other_users: Vec<NamespaceDescriptor>,
    pub shared: Vec<NamespaceDescriptor>,
}

/// One namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceDescriptor {
    /// Raw prefix, with its trailing delimiter where it has one.
    pub prefix: Bytes,
    pub delimiter: Option<u8>,
}

/// One resource of a quota root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaResource {
    /// `STORAGE` (in units of 1024 bytes), `MESSAGE`, ...
    pub name: String,
    pub usage: u64,
    pub limit: u64,
}
