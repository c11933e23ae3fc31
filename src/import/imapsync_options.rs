//! imapsync's options: which of them a MailMigration can say, which change nothing in the result, and which have no
//! counterpart. The names and which have a value are those that imapsync 2.229 reads.

/// What an option of imapsync is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OptionMeaning {
    /// Said of one side, counted from 0, with a value.
    Side(SideOption, usize),
    /// A side is connected to so, without a value.
    Security(SecurityOption, usize),
    /// A rule with a value.
    Rule(RuleOption),
    /// A rule without a value.
    Flag(FlagOption),
    /// Nothing in the result depends on it. True: it has a value.
    Ignored(bool),
    /// It is left out, and that is told: the result may be another. True: it has a value.
    LeftOut(bool, &'static str),
    /// There is nothing like it, and what it asks for would be missed. True: it has a value.
    Refused(bool, &'static str),
}

/// What is said of one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SideOption {
    Host,
    Port,
    User,
    Password,
    PasswordFile,
    Administrator,
    Mechanism,
}

/// How a side is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecurityOption {
    Implicit,
    StartTls,
    NotImplicit,
    NotStartTls,
}

/// A rule with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RuleOption {
    Folder,
    FolderWithBelow,
    Include,
    Exclude,
    Rename,
    Into,
    MaxAge,
    MinAge,
    MaxSize,
    MinSize,
}

/// A rule without a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlagOption {
    MapSpecialUse,
    MirrorDeletions,
    IgnoreFlags,
    IgnoreSubscriptions,
}

const RUN_DRY: &str = "say mailferry run --dry-run, or mailferry check";
const LIMITS: &str = "how much a server is burdened with is server.limits and connections of the migration";
const CERTIFICATES: &str = "certificates are checked; --source-ca-file and --destination-ca-file name authorities";
const UNCHANGED: &str = "messages and flags are copied as they are";
const BY_DATE: &str = "messages are chosen by age and size only";
const NOT_SOURCE: &str = "nothing is ever deleted at the source";
const OWN_COPIES: &str = "nothing is deleted at the destination but copies that Mailferry made (--delete2)";

/// Options on which nothing in the result depends, without a value.
const IGNORED: [&str; 54] = [
    "subscribe",
    "resyncflags",
    "syncinternaldates",
    "nofoldersizes",
    "nofoldersizesatend",
    "foldersizes",
    "usecache",
    "nousecache",
    "useuid",
    "addheader",
    "nolog",
    "log",
    "debug",
    "debugimap",
    "debugimap1",
    "debugimap2",
    "pidfilelocking",
    "releasecheck",
    "noreleasecheck",
    "allowsizemismatch",
    "fastio1",
    "fastio2",
    "keepalive1",
    "keepalive2",
    "expunge1",
    "expunge2",
    "noexpunge1",
    "noexpunge2",
    "uidexpunge2",
    "filterflags",
    "nofilterflags",
    "filterbuggyflags",
    "expunge",
    "compress1",
    "compress2",
    "nocompress1",
    "nocompress2",
    "inet4",
    "ipv4",
    "inet6",
    "ipv6",
    "sslcheck",
    "foldersizesatend",
    "exitonload",
    "skipsize",
    "noskipsize",
    "syncduplicates",
    "messageidnodomain",
    "wholeheaderifneeded",
    "debugcontent",
    "debugfolders",
    "debugflags",
    "debugmemory",
    "noexclude",
];
/// The same with a value.
const IGNORED_WITH_VALUE: [&str; 23] = [
    "useheader",
    "skipheader",
    "timeout",
    "timeout1",
    "timeout2",
    "reconnectretry1",
    "reconnectretry2",
    "buffersize",
    "split1",
    "split2",
    "errorsmax",
    "logfile",
    "logdir",
    "pidfile",
    "tmpdir",
    "folderfirst",
    "folderlast",
    "appendlimit",
    "debugssl",
    "prefix1",
    "prefix2",
    "sep1",
    "sep2",
];

/// What an option is, by its name without dashes; none where it is not known.
#[must_use]
pub(crate) fn option_meaning(name: &str) -> Option<OptionMeaning> {
    use OptionMeaning::{Flag, Ignored, LeftOut, Refused, Rule};
    Some(match name {
        "folder" => Rule(RuleOption::Folder),
        "folderrec" => Rule(RuleOption::FolderWithBelow),
        "include" => Rule(RuleOption::Include),
        "exclude" => Rule(RuleOption::Exclude),
        "f1f2" => Rule(RuleOption::Rename),
        "subfolder2" => Rule(RuleOption::Into),
        "maxage" => Rule(RuleOption::MaxAge),
        "minage" => Rule(RuleOption::MinAge),
        "maxsize" => Rule(RuleOption::MaxSize),
        "minsize" => Rule(RuleOption::MinSize),
        "automap" => Flag(FlagOption::MapSpecialUse),
        "delete2" => Flag(FlagOption::MirrorDeletions),
        "noresyncflags" => Flag(FlagOption::IgnoreFlags),
        "nosubscribe" => Flag(FlagOption::IgnoreSubscriptions),
        name if IGNORED.contains(&name) => Ignored(false),
        name if IGNORED_WITH_VALUE.contains(&name) => Ignored(true),
        "dry" | "justlogin" | "justconnect" | "justbanner" | "justfoldersizes" | "justfolders" => {
            LeftOut(false, RUN_DRY)
        }
        "maxbytespersecond" | "maxmessagespersecond" | "maxbytesafter" | "maxsleep" | "exitwhenover" => {
            LeftOut(true, LIMITS)
        }
        "sslargs1" | "sslargs2" => LeftOut(true, CERTIFICATES),
        "nosslcheck" => LeftOut(false, CERTIFICATES),
        "skipcrossduplicates" => LeftOut(false, "a message that is in several folders is copied into each"),
        "skipemptyfolders" => LeftOut(false, "empty folders are made, too"),
        "emailreport1" | "emailreport2" => LeftOut(false, "nobody is sent a mail about a run"),
        "gmail1" | "gmail2" | "office1" | "office2" | "exchange1" | "exchange2" | "domino1" | "domino2" => {
            LeftOut(false, "what the server needs is found out; server.quirks of the migration names its make")
        }
        "delete" | "delete1" | "delete1emptyfolders" => Refused(false, NOT_SOURCE),
        "delete2duplicates" | "delete2folders" => Refused(false, OWN_COPIES),
        "delete2foldersonly" | "delete2foldersbutnot" => Refused(true, OWN_COPIES),
        "regextrans2" => Refused(true, "rename folders by --f1f2 here, or by folders.rename in the migration"),
        "subfolder1" => Refused(true, "choose folders by --folderrec here, or by folders.include in the migration"),
        "syncacls" => Refused(false, "access rights of folders (ACLs) are not carried over"),
        "subscribed" | "subscribeall" => {
            Refused(false, "subscriptions are carried over, or left alone (--nosubscribe)")
        }
        "regexmess" | "regexflag" | "pipemess" | "truncmess" | "skipmess" => Refused(true, UNCHANGED),
        "flagscase" | "noflagscase" | "idatefromheader" | "disarmreadreceipts" | "synclabels" => {
            Refused(false, UNCHANGED)
        }
        "search" | "search1" | "search2" => Refused(true, BY_DATE),
        "proxyauth1" | "proxyauth2" => Refused(false, "an administrator logs in by --authuser1"),
        "domain1" | "domain2" | "oauthaccesstoken1" | "oauthaccesstoken2" | "oauthdirect1" | "oauthdirect2" => {
            Refused(true, "a login is by password; a token is tokenSecretRef in the migration")
        }
        _ => return side_option(name),
    })
}

/// An option that ends in the side's number.
fn side_option(name: &str) -> Option<OptionMeaning> {
    let (name, side) = match name.strip_suffix('1') {
        Some(name) => (name, 0),
        None => (name.strip_suffix('2')?, 1),
    };
    let said = |option| Some(OptionMeaning::Side(option, side));
    let security = |option| Some(OptionMeaning::Security(option, side));
    match name {
        "host" => said(SideOption::Host),
        "port" => said(SideOption::Port),
        "user" => said(SideOption::User),
        "password" => said(SideOption::Password),
        "passfile" => said(SideOption::PasswordFile),
        "authuser" => said(SideOption::Administrator),
        "authmech" => said(SideOption::Mechanism),
        "ssl" => security(SecurityOption::Implicit),
        "tls" => security(SecurityOption::StartTls),
        "nossl" => security(SecurityOption::NotImplicit),
        "notls" => security(SecurityOption::NotStartTls),
        _ => None,
    }
}

impl OptionMeaning {
    /// Whether a value belongs to it.
    #[must_use]
    pub(crate) const fn has_value(self) -> bool {
        match self {
            Self::Side(..) | Self::Rule(_) => true,
            Self::Security(..) | Self::Flag(_) => false,
            Self::Ignored(value) | Self::LeftOut(value, _) | Self::Refused(value, _) => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart_by_the_number_at_the_end() {
        assert_eq!(option_meaning("host1"), Some(OptionMeaning::Side(SideOption::Host, 0)));
        assert_eq!(option_meaning("passfile2"), Some(OptionMeaning::Side(SideOption::PasswordFile, 1)));
        assert_eq!(option_meaning("nossl2"), Some(OptionMeaning::Security(SecurityOption::NotImplicit, 1)));
        for unknown in ["host", "host3", "ssl", "hush", ""] {
            assert_eq!(option_meaning(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn what_would_be_missed_is_refused() {
        for name in ["delete1", "delete2duplicates", "regexmess", "search", "regextrans2", "subscribeall"] {
            assert!(matches!(option_meaning(name), Some(OptionMeaning::Refused(..))), "{name}");
        }
    }

    /// docs/from-imapsync.md speaks of each option that has a counterpart.
    #[test]
    fn the_page_for_imapsyncs_users_names_what_is_taken_over() {
        let page = include_str!("../../docs/from-imapsync.md");
        for name in [
            "folder",
            "folderrec",
            "include",
            "exclude",
            "f1f2",
            "subfolder2",
            "maxage",
            "minage",
            "maxsize",
            "minsize",
            "automap",
            "delete2",
            "noresyncflags",
            "nosubscribe",
            "host1",
            "port1",
            "user1",
            "passfile1",
            "ssl1",
            "tls1",
            "authuser1",
        ] {
            assert!(option_meaning(name).is_some() && page.contains(&format!("--{name}")), "{name}");
        }
    }
}
