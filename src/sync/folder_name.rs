//! Folder names between two servers: levels, what the destination can take, and when two names are one.

use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

use super::special_use::SpecialUse;
use crate::imap::{ServerKind, mutf7, response::ListItem};

/// No folder has a longer raw name, bytes: twice the longest path of file systems, since modified UTF-7 takes more.
pub(super) const MAX_RAW_NAME: usize = 8 << 10;
/// ... nor more levels.
const MAX_LEVELS: usize = 128;
/// Of a name that is too long, people are shown so many characters.
const SHOWN_CHARACTERS: usize = 60;

/// One side's folders, as listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SideFolders {
    /// The personal namespace's hierarchy delimiter; none for a server without hierarchy.
    pub delimiter: Option<u8>,
    /// The personal namespace's raw prefix, with its delimiter (`INBOX.`); mostly empty.
    pub prefix: Vec<u8>,
    /// Raw prefixes of other users' and shared namespaces.
    pub other_prefixes: Vec<Vec<u8>>,
    /// All folders, in any order.
    pub folders: Vec<FolderInfo>,
}

/// One folder, as listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FolderInfo {
    /// The raw name.
    pub raw: Vec<u8>,
    /// As sent (`\HasChildren`).
    pub attributes: Vec<String>,
    /// The hierarchy delimiter of this name.
    pub delimiter: Option<u8>,
    /// It exists and can hold messages: neither `\Noselect` nor `\NonExistent`.
    pub selectable: bool,
    /// The announced special use.
    pub special_use: Option<SpecialUse>,
    /// It is subscribed.
    pub subscribed: bool,
    /// Messages in it, where the server tells.
    pub messages: Option<u32>,
}

impl FolderInfo {
    /// What LIST and STATUS say.
    #[must_use]
    pub(crate) fn listed(item: &ListItem, subscribed: bool, messages: Option<u32>) -> Self {
        Self {
            raw: item.name.to_vec(),
            attributes: item.attributes.clone(),
            delimiter: item.delimiter,
            selectable: !item.has("\\Noselect") && !item.has("\\NonExistent"),
            special_use: SpecialUse::of(&item.attributes),
            subscribed,
            messages,
        }
    }

    /// What is wrong with a name that no folder can have, for people; such a folder is not synced.
    pub(super) fn name_fault(&self) -> Option<String> {
        let length = self.raw.len();
        if length > MAX_RAW_NAME {
            return Some(format!("its name has {length} bytes, and none has more than {MAX_RAW_NAME}"));
        }
        let levels = self.raw.iter().filter(|byte| Some(**byte) == self.delimiter).count() + 1;
        (levels > MAX_LEVELS).then(|| format!("its name has {levels} levels, and none has more than {MAX_LEVELS}"))
    }

    /// The beginning of a name that no folder can have, for people.
    pub(super) fn short_name(&self) -> FolderName {
        let levels = vec![beginning(&self.raw)];
        FolderName { levels, is_inbox: false, is_foreign: false, anomalies: Vec::new() }
    }

    /// True when no folder can be made below it.
    pub(super) fn is_childless(&self) -> bool {
        self.attributes.iter().any(|attribute| attribute.eq_ignore_ascii_case("\\Noinferiors"))
    }
}

/// A raw name, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FolderName {
    /// Decoded levels without the personal prefix; `["INBOX"]` for INBOX, `["INBOX", ..]` for what is below it.
    pub levels: Vec<String>,
    /// It is INBOX itself.
    pub is_inbox: bool,
    /// It is in another user's or a shared namespace; its levels begin with that namespace's prefix.
    pub is_foreign: bool,
    /// What is strange about it, for people.
    pub anomalies: Vec<&'static str>,
}

impl FolderName {
    /// The name for people and rules: `/` between levels.
    pub(crate) fn text(&self) -> String {
        self.levels.join("/")
    }
}

fn beginning(raw: &[u8]) -> String {
    let start = raw.get(..4 * SHOWN_CHARACTERS).unwrap_or(raw);
    let shown: String = mutf7::decode_lossy(start).chars().take(SHOWN_CHARACTERS).collect();
    format!("{shown}...")
}

/// A raw name for people, with the server's delimiters; of one that is too long for a folder the beginning.
#[must_use]
pub(super) fn shown_name(raw: &[u8]) -> String {
    if raw.len() > MAX_RAW_NAME { beginning(raw) } else { mutf7::decode_lossy(raw) }
}

pub(super) fn is_inbox(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"INBOX")
}

/// True when `raw` begins with a namespace's prefix; `INBOX` at its start counts in any case.
fn is_below(raw: &[u8], prefix: &[u8]) -> bool {
    let Some(start) = raw.get(..prefix.len()) else { return false };
    let inbox = prefix.len().min(5);
    let (start, rest) = start.split_at(inbox);
    let (prefix_start, prefix_rest) = prefix.split_at(inbox);
    (start == prefix_start || (is_inbox(start) && is_inbox(prefix_start))) && rest == prefix_rest
}

impl SideFolders {
    /// Understands a raw name of this side.
    pub(super) fn parse_name(&self, raw: &[u8], delimiter: Option<u8>) -> FolderName {
        if is_inbox(raw) {
            let levels = vec!["INBOX".to_owned()];
            return FolderName { levels, is_inbox: true, is_foreign: false, anomalies: Vec::new() };
        }
        let own = is_below(raw, &self.prefix).then_some(self.prefix.len());
        let other = self.other_prefixes.iter().filter(|prefix| self.is_in(raw, prefix)).map(Vec::len).max();
        let is_foreign = other > own;
        let rest = if is_foreign { raw } else { raw.get(own.unwrap_or(0)..).unwrap_or(raw) };
        let parts: Vec<&[u8]> = match delimiter {
            Some(delimiter) => rest.split(|byte| *byte == delimiter).collect(),
            None => vec![rest],
        };
        let mut levels: Vec<String> =
            parts.iter().filter(|part| !part.is_empty()).map(|part| mutf7::decode_lossy(part)).collect();
        let mut anomalies = Vec::new();
        if levels.len() < parts.len() {
            anomalies.push("its name has empty levels, which are left out");
        }
        if parts.iter().any(|part| mutf7::decode(part).is_none()) {
            anomalies.push("its name is not modified UTF-7 and is taken as it stands");
        }
        if levels.is_empty() {
            levels.push(mutf7::decode_lossy(raw));
        }
        let below = levels.len() > 1 && !is_foreign;
        if let Some(first) = levels.first_mut().filter(|first| below && is_inbox(first.as_bytes())) {
            first.make_ascii_uppercase();
        }
        FolderName { levels, is_inbox: false, is_foreign, anomalies }
    }

    /// True when `raw` is in the other namespace of that prefix, or is its root.
    pub(super) fn is_in(&self, raw: &[u8], prefix: &[u8]) -> bool {
        let root = self.delimiter.and_then(|delimiter| prefix.strip_suffix(&[delimiter]));
        is_below(raw, prefix) || root.is_some_and(|root| !root.is_empty() && root.eq_ignore_ascii_case(raw))
    }

    /// The raw name of levels on this side.
    pub(super) fn raw_name(&self, levels: &[String]) -> Vec<u8> {
        if let [only] = levels
            && is_inbox(only.as_bytes())
        {
            return b"INBOX".to_vec();
        }
        let mut raw = self.prefix.clone();
        for (i, level) in levels.iter().enumerate() {
            if i > 0 {
                raw.extend(self.delimiter);
            }
            raw.extend_from_slice(mutf7::encode(level).as_bytes());
        }
        raw
    }
}

/// What names a destination can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NameLimits {
    /// Characters that become `_`, besides control characters and the delimiter.
    pub forbidden: &'static str,
    /// Characters that become `_` at the start of a level.
    pub forbidden_first: &'static str,
    /// Names that no level may have.
    pub reserved: &'static [&'static str],
    /// Only characters of the basic multilingual plane.
    pub basic_plane: bool,
    /// Spaces around a level get lost.
    pub trims: bool,
    /// Names that differ only in case or in Unicode composition may be one folder.
    pub folds: bool,
    /// The longest raw name, bytes.
    pub max_path: usize,
    /// The folder from which the server itself removes old mail.
    pub purges: Option<&'static str>,
}

impl NameLimits {
    /// What is known of a kind of server that uses this delimiter.
    #[must_use]
    pub(crate) fn for_server(quirks: ServerKind, delimiter: Option<u8>) -> Self {
        // Servers with `.` between levels keep them in one directory name, where `/` can't be.
        let dotted = delimiter == Some(b'.');
        let generic = Self {
            forbidden: if dotted { "%*/" } else { "%*" },
            forbidden_first: "",
            reserved: &[".", ".."],
            basic_plane: false,
            trims: false,
            folds: true,
            max_path: 255,
            purges: None,
        };
        match quirks {
            ServerKind::Generic => generic,
            ServerKind::Gmail => Self { trims: true, max_path: 225, ..generic },
            ServerKind::Exchange => Self { trims: true, ..generic },
            ServerKind::Cyrus => {
                Self { forbidden: if dotted { "%*\"\\!`;|<{/" } else { "%*\"\\!`;|<{^" }, folds: false, ..generic }
            }
            ServerKind::Courier => Self {
                forbidden: "/",
                basic_plane: true,
                folds: false,
                max_path: 210,
                purges: Some("Trash"),
                ..generic
            },
            ServerKind::Dovecot => {
                Self { forbidden: if dotted { "/" } else { "" }, forbidden_first: "~", folds: false, ..generic }
            }
        }
    }

    /// What every known server takes: for a second try after a server refused a name.
    #[must_use]
    pub(crate) const fn strict() -> Self {
        Self {
            forbidden: "%*\"\\!`;|<>{}^./",
            forbidden_first: "~#",
            reserved: &[".", "..", "cur", "new", "tmp"],
            basic_plane: true,
            trims: true,
            folds: true,
            max_path: 200,
            purges: None,
        }
    }

    /// The level as the destination can take it, but for its length.
    pub(super) fn clean_level(&self, level: &str, delimiter: Option<u8>) -> String {
        let is_lost = |c: char| {
            c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{fffd}')
                || delimiter.is_some_and(|delimiter| c == char::from(delimiter))
                || self.forbidden.contains(c)
                || (self.basic_plane && c > '\u{ffff}')
        };
        let mut clean: String = level.chars().map(|c| if is_lost(c) { '_' } else { c }).collect();
        if self.trims {
            clean = clean.trim().to_owned();
        }
        if let Some(rest) = clean.strip_prefix(|c| self.forbidden_first.contains(c)) {
            clean = format!("_{rest}");
        }
        if clean.is_empty() || self.reserved.contains(&clean.as_str()) {
            clean.insert(0, '_');
        }
        clean
    }

    /// Equal for two paths that this destination may take for one folder.
    pub(super) fn collision_key(&self, levels: &[String]) -> String {
        let mut key = String::new();
        for (i, level) in levels.iter().enumerate() {
            if i == 0 && is_inbox(level.as_bytes()) {
                key.push_str(if self.folds { "inbox" } else { "INBOX" });
            } else if self.folds {
                key.push_str(&fold(level));
            } else {
                key.push_str(level);
            }
            key.push('\0');
        }
        key
    }
}

/// The same for names that differ only in case or Unicode composition.
fn fold(text: &str) -> String {
    text.nfc().flat_map(char::to_lowercase).map(|c| if c == 'ς' { 'σ' } else { c }).nfc().collect()
}

/// How many bytes a level takes in a raw name.
pub(super) fn encoded_len(level: &str) -> usize {
    mutf7::encode(level).len()
}

/// Cuts a level so that with `ending` it takes at most `budget` bytes (or is the ending alone).
pub(super) fn cut(level: &str, ending: &str, budget: usize) -> String {
    // No character takes less than a byte: what is beyond the budget need not be looked at.
    let most = level.char_indices().nth(budget).map_or(level.len(), |(at, _)| at);
    let mut cut = level.get(..most).unwrap_or(level);
    loop {
        let name = format!("{}{ending}", cut.trim_end());
        let Some((last, _)) = cut.char_indices().next_back() else { return name };
        if encoded_len(&name) <= budget {
            return name;
        }
        cut = &cut[..last];
    }
}

/// Tells shortened names apart: `-` and 8 hexadecimal digits.
pub(super) fn hash_ending(full: &str) -> String {
    let digest = Sha256::digest(full.as_bytes());
    format!("-{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(prefix: &str, other: &[&str]) -> SideFolders {
        SideFolders {
            delimiter: Some(b'.'),
            prefix: prefix.as_bytes().to_vec(),
            other_prefixes: other.iter().map(|prefix| prefix.as_bytes().to_vec()).collect(),
            folders: Vec::new(),
        }
    }

    fn text(side: &SideFolders, raw: &str) -> String {
        side.parse_name(raw.as_bytes(), Some(b'.')).text()
    }

    #[test]
    fn children_of_a_prefix_are_top_level_folders() {
        let side = side("INBOX.", &[]);
        assert_eq!(text(&side, "inbox"), "INBOX");
        assert_eq!(text(&side, "INBOX.Sent"), "Sent");
        assert_eq!(text(&side, "Inbox.a.b"), "a/b");
        assert_eq!(text(&side, "INBOX.INBOX.x"), "INBOX/x");
        assert_eq!(text(&side, "INBOX.inbox.x"), "INBOX/x");
        assert_eq!(text(&side, "INBOX.inbox"), "inbox");
        assert!(!side.parse_name(b"INBOX.inbox", Some(b'.')).is_inbox);
        assert_eq!(side.raw_name(&["Sent".to_owned()]), b"INBOX.Sent");
        assert_eq!(side.raw_name(&["INBOX".to_owned()]), b"INBOX");
        assert_eq!(side.raw_name(&["INBOX".to_owned(), "x".to_owned()]), b"INBOX.INBOX.x");
    }

    #[test]
    fn other_namespaces_are_known_by_their_prefixes() {
        let cyrus = side("INBOX.", &["user.", ""]);
        assert!(cyrus.parse_name(b"user.bob", Some(b'.')).is_foreign);
        assert!(cyrus.parse_name(b"user", Some(b'.')).is_foreign);
        assert!(cyrus.parse_name(b"company", Some(b'.')).is_foreign);
        assert!(!cyrus.parse_name(b"INBOX.user.x", Some(b'.')).is_foreign);
        let plain = side("", &["shared."]);
        assert!(!plain.parse_name(b"sharedness", Some(b'.')).is_foreign);
        assert!(plain.parse_name(b"shared.a", Some(b'.')).is_foreign);
    }

    #[test]
    fn odd_names_are_kept_as_they_stand() {
        let side = side("", &[]);
        let name = side.parse_name(b"a&b..c.", Some(b'.'));
        assert_eq!(name.levels, ["a&b", "c"]);
        assert_eq!(name.anomalies.len(), 2);
        assert_eq!(side.parse_name(b".", Some(b'.')).levels, ["."]);
        assert_eq!(side.parse_name("Büro".as_bytes(), None).levels, ["Büro"]);
    }

    #[test]
    fn names_are_cleaned_by_what_the_server_is_known_to_refuse() {
        let clean = |quirks, level: &str| NameLimits::for_server(quirks, Some(b'.')).clean_level(level, Some(b'.'));
        assert_eq!(clean(ServerKind::Generic, "a.b/c%d*e\tf"), "a_b_c_d_e_f");
        assert_eq!(clean(ServerKind::Cyrus, "a!b"), "a_b");
        assert_eq!(clean(ServerKind::Courier, "a!b%😀"), "a!b%_");
        assert_eq!(clean(ServerKind::Dovecot, "~a"), "_a");
        assert_eq!(clean(ServerKind::Gmail, " a "), "a");
        assert_eq!(NameLimits::strict().clean_level("cur", None), "_cur");
        assert_eq!(NameLimits::strict().clean_level(" ", None), "_");
    }

    #[test]
    fn a_shortened_name_keeps_within_its_bytes() {
        let long = "ü".repeat(200);
        let short = cut(&long, &hash_ending(&long), 60);
        insta::assert_snapshot!(short, @"üüüüüüüüüüüüüüüüüü-cb26b0de");
        assert!(encoded_len(&short) <= 60 && short.starts_with('ü'));
        assert_ne!(short, cut(&long, &hash_ending("other"), 60));
    }

    #[test]
    fn a_name_that_no_folder_can_have_is_told_by_its_beginning() {
        let info = |raw: Vec<u8>| FolderInfo { raw, delimiter: Some(b'.'), ..FolderInfo::default() };
        assert_eq!(info(vec![b'x'; 8192]).name_fault(), None);
        assert_eq!(info([b"x.".repeat(127), b"x".to_vec()].concat()).name_fault(), None);
        assert!(info(b"x.".repeat(128)).name_fault().unwrap().contains("129 levels"));
        let long = info(vec![b'x'; 1 << 20]);
        assert!(long.name_fault().unwrap().contains("1048576 bytes"));
        assert_eq!(long.short_name().text(), format!("{}...", "x".repeat(60)));
    }

    #[test]
    fn names_that_may_be_one_folder_have_one_key() {
        let generic = NameLimits::for_server(ServerKind::Generic, None);
        let key = |limits: &NameLimits, name: &str| limits.collision_key(&[name.to_owned()]);
        assert_eq!(key(&generic, "B\u{fc}ro"), key(&generic, "bu\u{308}RO"));
        assert_ne!(key(&generic, "a"), key(&generic, "b"));
        let dovecot = NameLimits::for_server(ServerKind::Dovecot, None);
        assert_ne!(key(&dovecot, "a"), key(&dovecot, "A"));
        assert_eq!(key(&dovecot, "inbox"), key(&dovecot, "INBOX"));
    }
}
