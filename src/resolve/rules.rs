//! The rules for folders and messages, as the engine has them.

use jiff::Timestamp;
use regex::Regex;

use crate::{
    api,
    error::{Error, Result},
    imap::UidSet,
    sync::{
        set_aside::SetAsideReason,
        spec::{AcceptedLosses, AcceptedMessages, FolderMappingRules, FolderPattern, FolderRename, MessageFilter},
        uid::SourceUid,
    },
};

/// The rules for folders, with their patterns compiled.
///
/// # Errors
/// Configuration when a pattern is wrong, or a new name asks for a group that the pattern lacks.
pub(super) fn folder_rules(rules: &api::FolderRules) -> Result<FolderMappingRules> {
    let patterns = |list: &[String]| list.iter().map(|text| FolderPattern::parse(text)).collect::<Result<Vec<_>>>();
    Ok(FolderMappingRules {
        include: patterns(&rules.include)?,
        exclude: patterns(&rules.exclude)?,
        rename: rules.rename.iter().map(rename).collect::<Result<_>>()?,
        into: rules.into.clone(),
        ignore_special_use: rules.special_use == api::SpecialUsePolicy::Ignore,
        everything: rules.namespaces == api::Namespaces::All,
        ignore_subscriptions: rules.subscriptions == api::Subscriptions::Ignore,
    })
}

/// A rename: a plain name takes what is below it along.
pub(super) fn rename(rename: &api::Rename) -> Result<FolderRename> {
    let api::Rename { from, to } = rename;
    if from.starts_with('/') {
        let rule = FolderRename::parse(from, to)?;
        check_groups(&rule.from, to)?;
        return Ok(rule);
    }
    let to = to.replace('$', "$$");
    let rule = if from.eq_ignore_ascii_case("INBOX") {
        FolderRename::parse("INBOX", &to)?
    } else {
        FolderRename::parse(&format!("{}(/.*)?", regex::escape(from)), &format!("{to}${{1}}"))?
    };
    Ok(FolderRename { text: from.clone(), ..rule })
}

/// `$2` where there is only one group would silently become nothing.
fn check_groups(from: &Regex, to: &str) -> Result<()> {
    static GROUP: std::sync::LazyLock<Option<Regex>> =
        std::sync::LazyLock::new(|| Regex::new(r"\$\$|\$\{([^}]*)\}|\$([0-9A-Za-z_]+)").ok());
    let Some(group) = GROUP.as_ref() else { return Ok(()) };
    for found in group.captures_iter(to) {
        let Some(name) = found.get(1).or_else(|| found.get(2)) else { continue };
        let known = match name.as_str().parse::<usize>() {
            Ok(number) => number < from.captures_len(),
            Err(_) => from.capture_names().flatten().any(|known| known == name.as_str()),
        };
        if !known {
            let what = format!("folders.rename to `{to}`: there is no group {}", name.as_str());
            return Err(
                Error::configuration(what).advice("Write ${1} where a letter or digit follows, $$ for a dollar sign")
            );
        }
    }
    Ok(())
}

/// The rules for messages, with ages counted from `now`. INTERNALDATE has whole seconds, so bounds between two seconds
/// count as the later one.
pub(super) fn message_rules(rules: &api::MessageRules, now: Timestamp) -> MessageFilter {
    let up = |time: Timestamp| time.as_second() + i64::from(time.subsec_nanosecond() > 0);
    let ago = |days: i32| now.as_second() - i64::from(days) * 86_400;
    let since = rules.since.as_ref().map(|time| up(time.0));
    let before = rules.before.as_ref().map(|time| up(time.0));
    MessageFilter {
        since: since.into_iter().chain(rules.max_age_days.map(ago)).max(),
        before: before.into_iter().chain(rules.min_age_days.map(ago)).min(),
        max_size: rules.max_size.map(api::Size::bytes),
        min_size: rules.min_size.map(api::Size::bytes),
        skip_deleted: rules.skip_deleted,
    }
}

/// The messages that may be missing at the destination.
///
/// # Errors
/// Configuration when an entry names no UIDVALIDITY with UIDs.
pub(super) fn accepted_losses(entries: &[api::AcceptNotCopied]) -> Result<AcceptedLosses> {
    let mut accepted = AcceptedLosses::default();
    for entry in entries {
        accepted.reasons.extend(entry.reason.map(|reason| match reason {
            api::NotCopiedReason::TooLarge => SetAsideReason::TooLarge,
            api::NotCopiedReason::Refused => SetAsideReason::Refused,
            api::NotCopiedReason::Unreadable => SetAsideReason::Unreadable,
            api::NotCopiedReason::Empty => SetAsideReason::Empty,
            api::NotCopiedReason::Unlisted => SetAsideReason::Unlisted,
        }));
        for text in &entry.messages {
            let Some((uid_validity, uids)) = validity_and_uids(text) else {
                let what = format!("messages.acceptNotCopied: `{text}` is no UIDVALIDITY with UIDs");
                return Err(Error::configuration(what).advice(
                    "Write them as a report names them, such as 1500000000:7,9:12: numbers of at most 32 bits",
                ));
            };
            accepted.messages.push(AcceptedMessages {
                folder: entry.folder.clone().unwrap_or_default(),
                uid_validity,
                uids,
            });
        }
    }
    Ok(accepted)
}

fn validity_and_uids(text: &str) -> Option<(u32, UidSet<SourceUid>)> {
    let (validity, uids) = text.split_once(':')?;
    Some((validity.parse().ok()?, UidSet::parse(uids)?))
}
