//! What folders are for: RFC 6154 attributes, and names that say it in many languages.

/// A special use (RFC 6154, RFC 8457).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum SpecialUse {
    /// A view of all messages.
    All,
    /// Kept mail.
    Archive,
    /// Messages being written.
    Drafts,
    /// A view of messages with \Flagged.
    Flagged,
    /// A view of messages that the server finds important.
    Important,
    /// Spam.
    Junk,
    /// Sent mail.
    Sent,
    /// Deleted mail.
    Trash,
}

impl SpecialUse {
    /// The use that LIST attributes announce, if any.
    #[must_use]
    pub(crate) fn of<S: AsRef<str>>(attributes: &[S]) -> Option<Self> {
        let all = [
            Self::All,
            Self::Archive,
            Self::Drafts,
            Self::Flagged,
            Self::Important,
            Self::Junk,
            Self::Sent,
            Self::Trash,
        ];
        all.into_iter().find(|special| attributes.iter().any(|a| a.as_ref().eq_ignore_ascii_case(special.attribute())))
    }

    /// The LIST attribute.
    #[must_use]
    pub(crate) const fn attribute(self) -> &'static str {
        match self {
            Self::All => "\\All",
            Self::Archive => "\\Archive",
            Self::Drafts => "\\Drafts",
            Self::Flagged => "\\Flagged",
            Self::Important => "\\Important",
            Self::Junk => "\\Junk",
            Self::Sent => "\\Sent",
            Self::Trash => "\\Trash",
        }
    }

    /// True for folders that show messages of other folders.
    #[must_use]
    pub(crate) const fn is_view(self) -> bool {
        matches!(self, Self::All | Self::Flagged | Self::Important)
    }

    /// The use that a decoded top-level name stands for, as mail programs and webmails name their folders.
    #[must_use]
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        NAMES.iter().find(|(_, names)| names.contains(&name.as_str())).map(|(special, _)| *special)
    }
}

/// In lower case.
const NAMES: [(SpecialUse, &[&str]); 5] = [
    (
        SpecialUse::Archive,
        &["archive", "archives", "archiv", "archivo", "archivio", "archief", "arquivo", "arkiv", "archiwum", "архив"],
    ),
    (
        SpecialUse::Drafts,
        &[
            "drafts",
            "draft",
            "entwürfe",
            "entwurf",
            "brouillons",
            "borradores",
            "bozze",
            "concepten",
            "rascunhos",
            "kladder",
            "utkast",
            "luonnokset",
            "koncepty",
            "szkice",
            "kopie robocze",
            "piszkozatok",
            "ciorne",
            "taslaklar",
            "черновики",
            "чернетки",
            "下書き",
            "草稿",
            "草稿箱",
        ],
    ),
    (
        SpecialUse::Junk,
        &[
            "junk",
            "spam",
            "junk e-mail",
            "junk email",
            "junk mail",
            "bulk mail",
            "junk-e-mail",
            "werbung",
            "courrier indésirable",
            "indésirables",
            "pourriel",
            "correo no deseado",
            "posta indesiderata",
            "ongewenste e-mail",
            "ongewenst",
            "lixo eletrônico",
            "uønsket e-post",
            "skräppost",
            "roskaposti",
            "nevyžádaná pošta",
            "wiadomości-śmieci",
            "спам",
            "迷惑メール",
            "垃圾邮件",
        ],
    ),
    (
        SpecialUse::Sent,
        &[
            "sent",
            "sent items",
            "sent messages",
            "sent mail",
            "sent-mail",
            "gesendet",
            "gesendete elemente",
            "gesendete objekte",
            "gesendete nachrichten",
            "postausgang",
            "envoyés",
            "éléments envoyés",
            "messages envoyés",
            "enviados",
            "elementos enviados",
            "mensajes enviados",
            "posta inviata",
            "inviati",
            "inviata",
            "verzonden",
            "verzonden items",
            "verzonden berichten",
            "itens enviados",
            "sendt",
            "sendte elementer",
            "skickat",
            "skickade objekt",
            "lähetetyt",
            "odeslané",
            "odeslaná pošta",
            "wysłane",
            "elementy wysłane",
            "elküldött",
            "trimise",
            "gönderilmiş öğeler",
            "отправленные",
            "надіслані",
            "送信済み",
            "送信済みアイテム",
            "已发送",
            "已发送邮件",
        ],
    ),
    (
        SpecialUse::Trash,
        &[
            "trash",
            "deleted items",
            "deleted messages",
            "deleted",
            "papierkorb",
            "gelöscht",
            "gelöschte elemente",
            "gelöschte objekte",
            "corbeille",
            "éléments supprimés",
            "papelera",
            "elementos eliminados",
            "cestino",
            "posta eliminata",
            "prullenbak",
            "verwijderde items",
            "lixeira",
            "itens excluídos",
            "papirkurv",
            "slettede elementer",
            "papperskorgen",
            "borttagna objekt",
            "roskakori",
            "poistetut",
            "koš",
            "odstraněná pošta",
            "kosz",
            "elementy usunięte",
            "törölt elemek",
            "coș de gunoi",
            "silinmiş öğeler",
            "удаленные",
            "удалённые",
            "корзина",
            "кошик",
            "ごみ箱",
            "削除済みアイテム",
            "已删除",
            "已删除邮件",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_known_in_any_case() {
        assert_eq!(SpecialUse::of(&["\\HasNoChildren", "\\sent"]), Some(SpecialUse::Sent));
        assert_eq!(SpecialUse::of(&["\\HasNoChildren"]), None);
        assert!(SpecialUse::of(&["\\All"]).is_some_and(SpecialUse::is_view));
    }

    #[test]
    fn names_are_known_in_any_case_and_each_for_one_use() {
        assert_eq!(SpecialUse::by_name("Sent Items"), Some(SpecialUse::Sent));
        assert_eq!(SpecialUse::by_name("GELÖSCHTE OBJEKTE"), Some(SpecialUse::Trash));
        assert_eq!(SpecialUse::by_name("Sent to Bob"), None);
        let mut seen = std::collections::HashSet::new();
        for name in NAMES.iter().flat_map(|(_, names)| *names) {
            assert!(seen.insert(name), "{name} stands for two uses");
            assert_eq!(*name, name.to_lowercase());
        }
    }
}
