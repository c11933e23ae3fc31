//! What is known of mail providers, and of server products, beyond what they say: who may log in and how, and how much they
//! give a day. Plain data; the host's name chooses, or how the server introduces itself, unless the user says.

use super::server_kind::ServerKind;

/// What is known of one provider or product.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Provider {
    /// For people.
    pub name: &'static str,
    /// What the engine does differently for it.
    pub kind: ServerKind,
    /// Host names in lower case; one that begins with a dot stands for all names that end so.
    hosts: &'static [&'static str],
    /// Lower-case text in its greeting, or in its answer to ID.
    introductions: &'static [&'static str],
    /// The most connections that one account may have, where that is documented.
    pub connections: Option<usize>,
    /// What one account may move in a day, where that is documented.
    pub daily: Option<DailyAllowance>,
    /// What to do when it refuses a password: a sentence without its dot.
    login: &'static str,
    /// The provider's own page about it.
    page: Option<&'static str>,
    /// Hosts that show less than another host of the same provider: which, instead of which, and why.
    lesser_hosts: &'static [LesserHost],
}

/// What an account may move by IMAP in a day, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DailyAllowance {
    /// From the server.
    pub read: u64,
    /// To the server.
    pub written: u64,
}

/// A host that is not the best one to read from.
#[derive(Debug, PartialEq, Eq)]
struct LesserHost {
    host: &'static str,
    better: &'static str,
    why: &'static str,
}

/// Whom a server belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProviderChoice {
    /// To whom its host name or its introduction says.
    #[default]
    FoundOut,
    /// To nobody of whom anything is known.
    Unknown,
    /// To this one.
    Named(ProviderName),
}

/// A provider, or a product, of which something is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderName {
    /// AOL Mail.
    Aol,
    /// HCL (once IBM, Lotus) Domino.
    Domino,
    /// Fastmail.
    Fastmail,
    /// Gmail and Google Workspace.
    Gmail,
    /// GMX.
    Gmx,
    /// hMailServer.
    HMailServer,
    /// Apple iCloud Mail.
    ICloud,
    /// Kerio Connect.
    Kerio,
    /// Exchange Online (Microsoft 365) and Outlook.com.
    Microsoft,
    /// NetEase: 163.com, 126.com, yeah.net.
    NetEase,
    /// WEB.DE.
    WebDe,
    /// Yahoo Mail.
    Yahoo,
    /// Zimbra.
    Zimbra,
    /// Zoho Mail.
    Zoho,
}

const MB: u64 = 1_000_000;

/// Each provider by its name.
static PROVIDERS: [(ProviderName, Provider); 14] = [
    (
        ProviderName::Aol,
        Provider {
            hosts: &["imap.aol.com", "export.imap.aol.com"],
            login: "AOL takes no account passwords by IMAP: create an app password",
            page: Some("https://help.aol.com/articles/Create-and-manage-app-password"),
            lesser_hosts: &[LesserHost {
                host: "imap.aol.com",
                better: "export.imap.aol.com",
                why: "shows at most 10,000 messages of a folder",
            }],
            ..UNKNOWN.named("AOL")
        },
    ),
    (
        ProviderName::Domino,
        Provider {
            introductions: &["domino imap4"],
            login: "On Domino each mail file must be made ready for IMAP (`load convert -e mail\\user.nsf`), and the user needs \
                    an internet password",
            ..UNKNOWN.named("Domino")
        },
    ),
    (
        ProviderName::Fastmail,
        Provider {
            hosts: &["imap.fastmail.com", ".messagingengine.com"],
            login: "Fastmail takes no account passwords by IMAP: create an app password with access to IMAP",
            page: Some("https://www.fastmail.help/hc/en-us/articles/360058752854"),
            ..UNKNOWN.named("Fastmail")
        },
    ),
    (
        ProviderName::Gmail,
        Provider {
            kind: ServerKind::Gmail,
            hosts: &["imap.gmail.com", "imap.googlemail.com"],
            introductions: &["gimap"],
            connections: Some(15),
            daily: Some(DailyAllowance { read: 2500 * MB, written: 500 * MB }),
            login: "Google takes no account passwords by IMAP: use a token, or an app password, which needs 2-Step \
                    Verification",
            page: Some("https://support.google.com/mail/answer/185833"),
            ..UNKNOWN.named("Gmail")
        },
    ),
    (
        ProviderName::Gmx,
        Provider {
            hosts: &["imap.gmx.net", "imap.gmx.com", "imap.gmx.de", "imap.gmx.at", "imap.gmx.ch"],
            login: "GMX refuses IMAP until the account's owner switches it on, in the settings under POP3 & IMAP; with \
                    two-factor authentication it takes an application password only",
            page: Some("https://hilfe.gmx.net/pop-imap/einschalten.html"),
            ..UNKNOWN.named("GMX")
        },
    ),
    (
        ProviderName::HMailServer,
        Provider {
            introductions: &["imaprev1", "hmailserver"],
            login: "hMailServer takes the whole address as user name, and bans the client's address after a few refused \
                    logins (Auto-ban): look there, too",
            ..UNKNOWN.named("hMailServer")
        },
    ),
    (
        ProviderName::ICloud,
        Provider {
            hosts: &["imap.mail.me.com", ".mail.me.com", "imap.mail.icloud.com"],
            login: "iCloud takes no account passwords by IMAP: create an app-specific password; the user name is what \
                    stands before @icloud.com, or the whole address",
            page: Some("https://support.apple.com/en-us/102654"),
            ..UNKNOWN.named("iCloud")
        },
    ),
    (
        ProviderName::Kerio,
        Provider {
            introductions: &["kerio"],
            login: "On Kerio Connect the user's access policy must allow IMAP, and the domain may have to be part of the \
                    user name",
            ..UNKNOWN.named("Kerio Connect")
        },
    ),
    (
        ProviderName::Microsoft,
        Provider {
            kind: ServerKind::Exchange,
            hosts: &[
                "outlook.office365.com",
                "outlook.office.com",
                "outlook.office365.us",
                "partner.outlook.cn",
                ".outlook.com",
            ],
            login: "Microsoft takes no passwords by IMAP, app passwords neither: use a token (tokenSecretRef)",
            page: Some(
                "https://learn.microsoft.com/exchange/clients-and-mobile-in-exchange-online/deprecation-of-basic-authentication-exchange-online",
            ),
            ..UNKNOWN.named("Microsoft 365 or Outlook.com")
        },
    ),
    (
        ProviderName::NetEase,
        Provider {
            hosts: &["imap.163.com", "imap.126.com", "imap.yeah.net", ".qiye.163.com"],
            login: "NetEase refuses IMAP until the account's owner switches it on in the webmail's settings, and takes the \
                    authorization code that it shows then, not the account's password",
            page: Some("https://help.mail.163.com"),
            ..UNKNOWN.named("NetEase")
        },
    ),
    (
        ProviderName::WebDe,
        Provider {
            hosts: &["imap.web.de"],
            login: "WEB.DE refuses IMAP until the account's owner switches it on, in the settings under POP3/IMAP; with \
                    two-factor authentication it takes an application password only",
            page: Some("https://hilfe.web.de/pop-imap/einschalten.html"),
            ..UNKNOWN.named("WEB.DE")
        },
    ),
    (
        ProviderName::Yahoo,
        Provider {
            hosts: &["imap.mail.yahoo.com", "export.imap.mail.yahoo.com", ".mail.yahoo.com"],
            login: "Yahoo takes no account passwords by IMAP: create an app password",
            page: Some("https://help.yahoo.com/kb/generate-manage-rd-party-passwords-sln15241.html"),
            lesser_hosts: &[LesserHost {
                host: "imap.mail.yahoo.com",
                better: "export.imap.mail.yahoo.com",
                why: "shows at most 10,000 messages of a folder",
            }],
            ..UNKNOWN.named("Yahoo")
        },
    ),
    (
        ProviderName::Zimbra,
        Provider {
            introductions: &["zimbra"],
            login: "With two-factor authentication Zimbra takes an application passcode only; an administrator can log in \
                    for all users (masterUser, mode AuthorizationIdentity)",
            ..UNKNOWN.named("Zimbra")
        },
    ),
    (
        ProviderName::Zoho,
        Provider {
            hosts: &[".zoho.com", ".zoho.eu", ".zoho.in", ".zoho.com.au", ".zoho.com.cn", ".zoho.jp"],
            login: "Zoho refuses IMAP until it is switched on for the account (Settings, Mail Accounts), and with two-factor \
                    authentication takes an application-specific password only",
            page: Some("https://www.zoho.com/mail/help/imap-access.html"),
            ..UNKNOWN.named("Zoho")
        },
    ),
];

/// Nothing is known.
const UNKNOWN: Provider = Provider {
    name: "",
    kind: ServerKind::Generic,
    hosts: &[],
    introductions: &[],
    connections: None,
    daily: None,
    login: "",
    page: None,
    lesser_hosts: &[],
};

impl Provider {
    const fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// Whom a server belongs to: as the user says, or by its host name, or by `introduction`, which is what it said in its
    /// greeting and its ID.
    #[must_use]
    pub(crate) fn find(choice: ProviderChoice, host: &str, introduction: &str) -> Option<&'static Self> {
        let all = || PROVIDERS.iter().map(|(_, provider)| provider);
        match choice {
            ProviderChoice::Unknown => None,
            ProviderChoice::Named(name) => {
                PROVIDERS.iter().find(|(other, _)| *other == name).map(|(_, provider)| provider)
            }
            ProviderChoice::FoundOut => {
                let host = host.trim_end_matches('.').to_ascii_lowercase();
                let is_host = |known: &&str| host == **known || (known.starts_with('.') && host.ends_with(*known));
                let said = introduction.to_ascii_lowercase();
                let by_host = all().find(|provider| provider.hosts.iter().any(is_host));
                by_host.or_else(|| all().find(|provider| provider.introductions.iter().any(|text| said.contains(text))))
            }
        }
    }

    /// What to do when the login with a password is refused, with the provider's own page.
    #[must_use]
    pub(crate) fn login_advice(&self) -> String {
        match self.page {
            Some(page) => format!("{}: {page}", self.login),
            None => self.login.to_owned(),
        }
    }

    /// Why another host is the better one to read from, for people; none where this one is fine.
    #[must_use]
    pub(crate) fn better_source(&self, host: &str) -> Option<String> {
        let host = host.trim_end_matches('.');
        let lesser = self.lesser_hosts.iter().find(|lesser| lesser.host.eq_ignore_ascii_case(host))?;
        Some(format!("{} {}: name {} as the source instead, which shows all", lesser.host, lesser.why, lesser.better))
    }

    /// True for a host that only gives mail away.
    #[must_use]
    pub(crate) fn is_read_only(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        self.lesser_hosts.iter().any(|lesser| lesser.better.eq_ignore_ascii_case(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(host: &str, introduction: &str) -> Option<&'static str> {
        Provider::find(ProviderChoice::FoundOut, host, introduction).map(|provider| provider.name)
    }

    #[test]
    fn a_provider_is_known_by_its_host_and_a_product_by_its_introduction() {
        for (host, name) in [
            ("imap.gmail.com", "Gmail"),
            ("IMAP.GMAIL.COM.", "Gmail"),
            ("outlook.office365.com", "Microsoft 365 or Outlook.com"),
            ("imap-mail.outlook.com", "Microsoft 365 or Outlook.com"),
            ("export.imap.mail.yahoo.com", "Yahoo"),
            ("imap.aol.com", "AOL"),
            ("p42-imap.mail.me.com", "iCloud"),
            ("imap.gmx.net", "GMX"),
            ("imap.web.de", "WEB.DE"),
            ("imappro.zoho.eu", "Zoho"),
            ("imap.163.com", "NetEase"),
            ("imap.fastmail.com", "Fastmail"),
        ] {
            assert_eq!(found(host, ""), Some(name), "{host}");
        }
        for (said, name) in [
            ("Domino IMAP4 Server Release 10.0.1FP3 ready", "Domino"),
            ("IMAPrev1", "hMailServer"),
            ("Kerio Connect 9.4.2 IMAP4rev1 server ready", "Kerio Connect"),
            ("mail.example.com Zimbra IMAP4rev1 server ready", "Zimbra"),
            ("Gimap ready for requests from 192.0.2.7", "Gmail"),
        ] {
            assert_eq!(found("mail.example.com", said), Some(name), "{said}");
        }
        for other in ["gmail.com.example.org", "notoutlook.com", "imap.example.com"] {
            assert_eq!(found(other, "Dovecot ready IMAP4rev1"), None, "{other}");
        }
    }

    #[test]
    fn what_the_user_says_counts_whatever_the_host() {
        let find = |choice| Provider::find(choice, "imap.gmail.com", "Gimap").map(|provider| provider.name);
        assert_eq!(find(ProviderChoice::Unknown), None);
        assert_eq!(find(ProviderChoice::Named(ProviderName::Zimbra)), Some("Zimbra"));
    }

    #[test]
    fn each_provider_says_what_to_do_about_a_refused_login() {
        for (name, provider) in &PROVIDERS {
            assert!(!provider.login.is_empty() && !provider.login.ends_with('.'), "{name:?}");
            assert!(provider.hosts.is_empty() == provider.page.is_none(), "{name:?}: a provider has a page");
            assert!(provider.hosts.iter().chain(provider.introductions).all(|text| *text == text.to_lowercase()));
        }
    }

    #[test]
    fn the_host_that_shows_all_is_told_and_takes_no_mail() {
        let yahoo = Provider::find(ProviderChoice::FoundOut, "imap.mail.yahoo.com", "").unwrap();
        assert!(yahoo.better_source("imap.mail.yahoo.com").unwrap().contains("export.imap.mail.yahoo.com"));
        assert_eq!(yahoo.better_source("export.imap.mail.yahoo.com"), None);
        assert!(yahoo.is_read_only("export.imap.mail.yahoo.com") && !yahoo.is_read_only("imap.mail.yahoo.com"));
    }
}
