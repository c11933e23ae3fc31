//! Which folders the source has, and what leaves one out.

use std::collections::BTreeSet;

use crate::imap::ServerKind;
use crate::sync::{
    folder_name::{FolderInfo, FolderName, SideFolders},
    no_mail_folders::no_mail_names,
    spec::{FolderMappingRules, FolderPattern},
    special_use::SpecialUse,
};

/// A source folder.
#[derive(Debug, Clone)]
pub(super) struct PlanEntry<'a> {
    pub info: &'a FolderInfo,
    pub name: FolderName,
    /// The name as rules and people see it.
    pub text: String,
    /// What is wrong with the name, if it is such that no folder can have it.
    pub fault: Option<String>,
    pub aim: FolderTarget,
    /// Only what no other folder shows is taken from it.
    pub only_archived: bool,
    pub notes: Vec<String>,
}

/// What leaves a folder out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeftOutCause {
    /// A rule that the user wrote.
    Rule,
    /// A name that no folder can have.
    Fault,
    /// It is not this mailbox's.
    Foreign,
    /// It shows messages of other folders.
    View,
    /// What it holds is no mail.
    NoMail,
}

/// What decides where a folder goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FolderTarget {
    /// An earlier sync.
    Frozen(Vec<u8>),
    /// A rename rule: the new name.
    Renamed(String),
    /// Its use: the destination's folder for it.
    Special(Vec<String>),
    /// Its own name, below where its parent went.
    Own,
}

/// The source's folders by name, each once.
pub(super) fn listed_entries(source: &SideFolders) -> Vec<PlanEntry<'_>> {
    let mut entries: Vec<PlanEntry> = source
        .folders
        .iter()
        .map(|info| {
            let fault = info.name_fault();
            let name = if fault.is_some() { info.short_name() } else { source.parse_name(&info.raw, info.delimiter) };
            PlanEntry {
                info,
                text: name.text(),
                name,
                fault,
                aim: FolderTarget::Own,
                only_archived: false,
                notes: Vec::new(),
            }
        })
        .collect();
    // INBOX comes first: the priority of its name is not a matter of the alphabet.
    entries.sort_by(|a, b| {
        let key = |entry: &PlanEntry| (!entry.name.is_inbox, entry.name.levels.clone(), entry.info.raw.clone());
        let facts = |entry: &PlanEntry| (!entry.info.selectable, !entry.info.subscribed, entry.info.attributes.clone());
        key(a).cmp(&key(b)).then_with(|| facts(a).cmp(&facts(b)))
    });
    entries.dedup_by(|a, b| a.info.raw == b.info.raw || (a.name.is_inbox && b.name.is_inbox));
    entries
}

impl PlanEntry<'_> {
    /// True for the view of all messages of an account of labels, from which what was archived is taken.
    pub(super) fn is_archive(&self, traits: &SourceTraits, rules: &FolderMappingRules) -> bool {
        let is_view_of_all = self.info.special_use == Some(SpecialUse::All) && self.info.selectable;
        traits.has_labels && !rules.everything && is_view_of_all && !self.name.is_inbox && !self.name.is_foreign
    }

    /// What leaves this folder out, if anything does.
    pub(super) fn left_out_by(
        &self,
        rules: &FolderMappingRules,
        traits: &SourceTraits,
    ) -> Option<(LeftOutCause, String)> {
        use LeftOutCause::{Fault, Foreign, NoMail, Rule, View};
        if let Some(fault) = &self.fault {
            return Some((Fault, fault.clone()));
        }
        // What the user leaves out is not Mailferry's doing, whatever the folder is.
        let excluded = || rules.exclude.iter().find(|pattern| pattern.matches(&self.text));
        if self.info.selectable
            && let Some(pattern) = excluded()
        {
            return Some((Rule, format!("it is excluded by `{}`", pattern.text())));
        }
        if !rules.everything && self.name.is_foreign {
            return Some((Foreign, "it is in another user's or a shared namespace".to_owned()));
        }
        if !self.info.selectable {
            return None;
        }
        let view = self.info.special_use.filter(|special| special.is_view() && !self.name.is_inbox);
        if let Some(special) = view.filter(|_| !rules.everything && !self.is_archive(traits, rules)) {
            let attribute = special.attribute();
            let reason = if special == SpecialUse::All {
                format!("it is a view of all messages ({attribute}); those that are in no other folder are only here")
            } else {
                format!("it is a view of messages in other folders ({attribute})")
            };
            return Some((View, reason));
        }
        let is_included = rules.include.is_empty() || rules.include.iter().any(|pattern| pattern.matches(&self.text));
        if !is_included {
            return Some((Rule, "no include pattern matches it".to_owned()));
        }
        let top = self.name.levels.first().filter(|_| !self.name.is_inbox && !self.name.is_foreign);
        let holds_none = top.is_some_and(|top| traits.no_mail.contains(&top.to_lowercase()));
        let holds_chats = traits.has_labels && self.is_chats();
        let is_named = || rules.include.iter().any(|pattern| pattern.names(&self.text));
        ((holds_none || holds_chats) && !rules.everything && !is_named()).then(|| {
            let what = if holds_chats { "chats" } else { "calendar entries, contacts, a journal, notes or tasks" };
            let reason = format!("it holds {what}, and no mail; name it in folders.include to copy it all the same");
            (NoMail, reason)
        })
    }
}

impl PlanEntry<'_> {
    /// True for the folder in which Gmail shows chats. It announces no use, so the name decides, below Gmail's own folder.
    fn is_chats(&self) -> bool {
        const CHATS: [&str; 12] = [
            "chats",
            "chat",
            "bate-papos",
            "czaty",
            "chattar",
            "chatter",
            "sohbetler",
            "чаты",
            "чати",
            "チャット",
            "聊天",
            "채팅",
        ];
        match self.name.levels.as_slice() {
            [top, name] if self.info.special_use.is_none() => {
                ["[Gmail]", "[Google Mail]"].contains(&top.as_str()) && CHATS.contains(&name.to_lowercase().as_str())
            }
            _ => false,
        }
    }
}

/// What is known of the source that its folders do not say themselves.
#[derive(Debug, Default)]
pub(super) struct SourceTraits {
    /// Folders at the top that hold no mail, in lower case.
    pub no_mail: BTreeSet<String>,
    /// It shows one message in several folders.
    pub has_labels: bool,
}

impl SourceTraits {
    pub(super) fn new(listed: &[PlanEntry<'_>], kind: ServerKind, has_labels: bool) -> Self {
        let mut traits = Self { no_mail: BTreeSet::new(), has_labels };
        if kind == ServerKind::Exchange {
            let top = listed.iter().filter(|entry| entry.info.selectable && !entry.name.is_foreign);
            traits.no_mail = no_mail_names(top.filter_map(|entry| match entry.name.levels.as_slice() {
                [only] => Some(only.as_str()),
                _ => None,
            }));
        }
        traits
    }
}

/// Rules that are for no folder of the source: they may be misspelled.
pub(super) fn idle_rules(listed: &[PlanEntry<'_>], rules: &FolderMappingRules) -> Vec<String> {
    let patterns = |field: &'static str, patterns: &[FolderPattern]| -> Vec<(&'static str, String)> {
        let idle = patterns.iter().filter(|pattern| !listed.iter().any(|entry| pattern.matches(&entry.text)));
        idle.map(|pattern| (field, pattern.text())).collect()
    };
    let renames = rules.rename.iter().filter(|rule| !listed.iter().any(|entry| rule.apply(&entry.text).is_some()));
    patterns("include", &rules.include)
        .into_iter()
        .chain(patterns("exclude", &rules.exclude))
        .chain(renames.map(|rule| ("rename", rule.text.clone())))
        .map(|(field, text)| format!("folders.{field}: `{text}` matches no folder of the source"))
        .collect()
}
