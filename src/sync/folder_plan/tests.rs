use std::collections::{BTreeMap, BTreeSet, HashSet};

use proptest::prelude::*;
use unicode_normalization::UnicodeNormalization;

use super::*;
use crate::{
    imap::ServerKind,
    sync::{
        folder_name::{FolderInfo, NameLimits, SideFolders, is_inbox},
        spec::{FolderMappingRules, FolderPattern, FolderRename},
    },
};

/// Folders of one side: raw names, attributes behind a bar (`Sent|\Sent`), a `+` at the end for subscribed.
fn side(prefix: &str, delimiter: &str, names: &[&str]) -> SideFolders {
    let delimiter = delimiter.bytes().next();
    let folders = names
        .iter()
        .map(|name| {
            let (raw, attributes) = name.split_once('|').unwrap_or((name, ""));
            let (attributes, subscribed) =
                attributes.strip_suffix('+').map_or((attributes, false), |rest| (rest, true));
            let attributes: Vec<String> = attributes.split_whitespace().map(str::to_owned).collect();
            FolderInfo {
                raw: raw.as_bytes().to_vec(),
                delimiter,
                selectable: !attributes.iter().any(|a| a == "\\Noselect" || a == "\\NonExistent"),
                special_use: SpecialUse::of(&attributes),
                attributes,
                subscribed,
                messages: None,
            }
        })
        .collect();
    SideFolders { delimiter, prefix: prefix.as_bytes().to_vec(), other_prefixes: Vec::new(), folders }
}

fn generic(destination: &SideFolders) -> NameLimits {
    NameLimits::for_server(ServerKind::Generic, destination.delimiter)
}

fn plan_with(
    source: &SideFolders,
    destination: &SideFolders,
    rules: &FolderMappingRules,
    frozen: &BTreeMap<Vec<u8>, Vec<u8>>,
    limits: &NameLimits,
) -> FolderPlan {
    let refused = &RefusedPaths::default();
    let source_kind = ServerKind::Generic;
    let has_labels = source.folders.iter().any(|folder| folder.raw.starts_with(b"[Gmail]"));
    plan_folders(&FolderPlanInput { source, source_kind, has_labels, destination, rules, frozen, limits, refused })
}

fn planned(source: &SideFolders, destination: &SideFolders, rules: &FolderMappingRules) -> FolderPlan {
    plan_with(source, destination, rules, &BTreeMap::new(), &generic(destination))
}

/// `source -> destination` by raw names, in the order of the plan.
fn arrows(plan: &FolderPlan) -> Vec<String> {
    let text = |raw: &[u8]| String::from_utf8_lossy(raw).into_owned();
    plan.folders.iter().map(|f| format!("{} -> {}", text(&f.source_raw), text(&f.destination_raw))).collect()
}

fn left_out(plan: &FolderPlan) -> Vec<&str> {
    plan.left_out.iter().map(|left| left.folder.as_str()).collect()
}

fn note(plan: &FolderPlan, folder: &str, part: &str) -> bool {
    plan.notes.iter().any(|(of, what)| of == folder && what.contains(part))
}

#[test]
fn prefixes_and_delimiters_of_both_sides_are_translated() {
    let courier = side("INBOX.", ".", &["INBOX", "INBOX.Sent", "INBOX.Work.A", "INBOX.INBOX.x", "INBOX.Work"]);
    let dovecot = side("", "/", &["INBOX"]);
    let there = planned(&courier, &dovecot, &FolderMappingRules::default());
    assert_eq!(
        arrows(&there),
        [
            "INBOX -> INBOX",
            "INBOX.INBOX.x -> INBOX/x",
            "INBOX.Sent -> Sent",
            "INBOX.Work -> Work",
            "INBOX.Work.A -> Work/A"
        ]
    );
    assert!(there.notes.is_empty(), "{:?}", there.notes);
    let creates: Vec<_> = there.folders.iter().map(|folder| folder.create).collect();
    assert_eq!(creates, [false, true, true, true, true]);
    let source = side("", "/", &["Inbox", "INBOX/x", "Sent"]);
    let back = planned(&source, &side("INBOX.", ".", &["INBOX"]), &FolderMappingRules::default());
    assert_eq!(arrows(&back), ["Inbox -> INBOX", "INBOX/x -> INBOX.INBOX.x", "Sent -> INBOX.Sent"]);
}

#[test]
fn a_prefixed_folder_named_like_inbox_is_not_inbox() {
    let source = side("INBOX.", ".", &["INBOX", "INBOX.inbox"]);
    let there = planned(&source, &side("", "/", &["INBOX"]), &FolderMappingRules::default());
    assert_eq!(arrows(&there), ["INBOX -> INBOX", "INBOX.inbox -> inbox (2)"]);
    assert!(note(&there, "inbox", "inbox (2)"));
}

#[test]
fn the_other_sides_delimiter_and_other_characters_are_replaced_and_noted() {
    let source = side("", "/", &["v1.2", "v1_2", "100%", "a&AAk-b"]);
    let there = planned(&source, &side("", ".", &[]), &FolderMappingRules::default());
    assert_eq!(arrows(&there), ["100% -> 100_", "a&AAk-b -> a_b", "v1_2 -> v1_2", "v1.2 -> v1_2 (2)"]);
    for changed in ["100%", "a\tb", "v1.2"] {
        assert!(note(&there, changed, "can't take all characters"));
    }
    assert!(!there.notes.iter().any(|(folder, _)| folder == "v1_2"), "the exact owner keeps its name");
}

#[test]
fn a_flat_destination_joins_levels() {
    let source = side("", "/", &["a", "a/b", "a_b"]);
    let there = planned(&source, &side("", "", &[]), &FolderMappingRules::default());
    assert_eq!(arrows(&there), ["a -> a", "a_b -> a_b", "a/b -> a_b (2)"]);
}

#[test]
fn a_destination_folder_that_takes_no_children_gets_neighbours() {
    let source = side("", "/", &["INBOX", "INBOX/x"]);
    let there = planned(&source, &side("", "/", &["INBOX|\\Noinferiors"]), &FolderMappingRules::default());
    assert_eq!(arrows(&there), ["INBOX -> INBOX", "INBOX/x -> INBOX_x"]);
}

#[test]
fn odd_names_are_kept_readable_and_apart() {
    let source = side("", "/", &["a & b", "a &- b", "foo", "foo/", "x//y"]);
    let there = planned(&source, &side("", "/", &[]), &FolderMappingRules::default());
    assert_eq!(
        arrows(&there),
        ["a & b -> a &- b", "a &- b -> a &- b (2)", "foo -> foo", "foo/ -> foo (2)", "x//y -> x/y"]
    );
    assert!(note(&there, "a & b", "modified UTF-7"));
    assert!(note(&there, "x/y", "empty levels"));
}

#[test]
fn names_that_are_too_long_are_shortened_and_stay_apart() {
    let long = ["b".repeat(300), format!("{}c", "b".repeat(299)), format!("{}/deep", "b".repeat(300))];
    let source = side("", "/", &long.each_ref().map(String::as_str));
    let there = planned(&source, &side("INBOX.", ".", &[]), &FolderMappingRules::default());
    let names: HashSet<_> = there.folders.iter().map(|folder| folder.destination_raw.clone()).collect();
    assert_eq!(names.len(), 3);
    assert!(names.iter().all(|name| name.len() <= 255));
    assert!(note(&there, &long[0], "too long"));
    assert!(note(&there, &long[2], "moves up"));
}

#[test]
fn announced_uses_meet_whatever_they_are_called() {
    let source =
        side("", "/", &["Sent Items|\\Sent", "Sent Items/2020", "Deleted|\\Trash", "Junk|\\Junk", "Old|\\Archive"]);
    let destination = side("INBOX.", ".", &["INBOX.Sent|\\Sent", "INBOX.Trash|\\Trash", "INBOX.Junk|\\Junk"]);
    let there = planned(&source, &destination, &FolderMappingRules::default());
    assert_eq!(
        arrows(&there),
        [
            "Junk -> INBOX.Junk",
            "Old -> INBOX.Old",
            "Sent Items -> INBOX.Sent",
            "Sent Items/2020 -> INBOX.Sent.2020",
            "Deleted -> INBOX.Trash"
        ]
    );
    let kept = FolderMappingRules { ignore_special_use: true, ..FolderMappingRules::default() };
    assert!(arrows(&planned(&source, &destination, &kept)).contains(&"Sent Items -> INBOX.Sent Items".to_owned()));
}

#[test]
fn a_special_folder_does_not_push_out_the_owner_of_the_name() {
    let source = side("", "/", &["Sent", "Sent Items|\\Sent"]);
    let there = planned(&source, &side("", "/", &["Sent|\\Sent"]), &FolderMappingRules::default());
    assert_eq!(arrows(&there), ["Sent -> Sent", "Sent Items -> Sent Items"]);
    assert!(note(&there, "Sent Items", "keeps its name"));
}

#[test]
fn well_known_names_count_where_a_side_announces_nothing() {
    let silent = side("", "/", &["Gesendet", "Papierkorb", "Spam"]);
    let destination = side("", "/", &["Sent|\\Sent", "Trash|\\Trash", "Junk|\\Junk", "Spam"]);
    let there = planned(&silent, &destination, &FolderMappingRules::default());
    assert_eq!(arrows(&there), ["Gesendet -> Sent", "Spam -> Spam", "Papierkorb -> Trash"]);
    // Two guesses are one too many, and none is made for Trash.
    let both_silent = planned(&silent, &side("", "/", &["Sent"]), &FolderMappingRules::default());
    assert_eq!(arrows(&both_silent), ["Gesendet -> Gesendet", "Papierkorb -> Papierkorb", "Spam -> Spam"]);
    let announced = side("", "/", &["Gesendet|\\Sent", "Papierkorb|\\Trash"]);
    let to_silent = planned(&announced, &side("", "/", &["Sent", "Trash"]), &FolderMappingRules::default());
    assert_eq!(arrows(&to_silent), ["Papierkorb -> Papierkorb", "Gesendet -> Sent"]);
}

#[test]
fn views_and_other_peoples_mail_are_left_out_unless_asked_for() {
    let mut source =
        side("INBOX.", ".", &["INBOX", "INBOX.All|\\All", "INBOX.Star|\\Flagged", "user.bob", "user|\\Noselect"]);
    source.other_prefixes = vec![b"user.".to_vec()];
    let destination = side("", "/", &[]);
    let there = planned(&source, &destination, &FolderMappingRules::default());
    assert_eq!(arrows(&there), ["INBOX -> INBOX"]);
    assert_eq!(left_out(&there), ["All", "Star", "user", "user/bob"]);
    assert!(there.left_out[0].reason.contains("only here"));
    let foreign: Vec<_> = there.left_out.iter().filter(|left| left.foreign).map(|left| left.folder.as_str()).collect();
    assert_eq!(foreign, ["user", "user/bob"], "their messages are not this mailbox's");
    let everything =
        planned(&source, &destination, &FolderMappingRules { everything: true, ..FolderMappingRules::default() });
    assert_eq!(left_out(&everything), [""; 0]);
    assert!(arrows(&everything).contains(&"user.bob -> user/bob".to_owned()));
}

#[test]
fn what_exchange_holds_beside_mail_is_left_out_unless_it_is_named() {
    let names = ["INBOX", "Calendar", "Calendar/Birthdays", "Contacts", "Notes", "Tasks", "Work/Notes"];
    let (source, destination) = (side("", "/", &names), side("", "/", &["INBOX"]));
    let (frozen, limits, refused) = (BTreeMap::new(), generic(&destination), RefusedPaths::default());
    let left = |include: &[&str], source_kind| {
        let include = include.iter().map(|pattern| FolderPattern::parse(pattern).unwrap()).collect();
        let rules = &FolderMappingRules { include, ..FolderMappingRules::default() };
        let (source, destination) = (&source, &destination);
        let (frozen, limits, refused) = (&frozen, &limits, &refused);
        let has_labels = false;
        plan_folders(&FolderPlanInput { source, source_kind, has_labels, destination, rules, frozen, limits, refused })
    };
    let exchange = left(&[], ServerKind::Exchange);
    assert_eq!(left_out(&exchange), ["Calendar", "Calendar/Birthdays", "Contacts", "Notes", "Tasks"]);
    assert!(exchange.left_out.iter().all(|left| left.no_mail && !left.by_rule && !left.is_view));
    assert!(arrows(&exchange).contains(&"Work/Notes -> Work/Notes".to_owned()));
    let asked_for = left(&["**", "{Notes,Calendar/**}"], ServerKind::Exchange);
    assert_eq!(left_out(&asked_for), ["Calendar", "Contacts", "Tasks"]);
    assert_eq!(left_out(&left(&[], ServerKind::Generic)), [""; 0], "other servers say nothing by such names");
}

#[test]
fn what_was_archived_on_gmail_goes_to_the_archive_and_nothing_else_of_its_views_does() {
    let gmail = |more: &[&str]| {
        let own = ["INBOX", "[Gmail]|\\Noselect", "[Gmail]/Alle Nachrichten|\\All", "[Gmail]/Gesendet|\\Sent"];
        let views = ["[Gmail]/Markiert|\\Flagged", "[Gmail]/Wichtig|\\Important", "[Gmail]/Chats"];
        side("", "/", &[&own[..], &views, more].concat())
    };
    let rules = FolderMappingRules::default();
    let plan = planned(&gmail(&[]), &side("", "/", &["INBOX", "Sent|\\Sent"]), &rules);
    assert_eq!(arrows(&plan), ["INBOX -> INBOX", "[Gmail]/Alle Nachrichten -> Archive", "[Gmail]/Gesendet -> Sent"]);
    let archive = &plan.folders[1];
    assert!(archive.only_archived && archive.create && archive.special_use == Some(SpecialUse::Archive));
    assert!(plan.folders.iter().all(|folder| folder.only_archived == (folder.destination_name == "Archive")));
    assert_eq!(left_out(&plan), ["[Gmail]", "[Gmail]/Chats", "[Gmail]/Markiert", "[Gmail]/Wichtig"]);

    let goes_to = |source: &SideFolders, destination: &SideFolders, rules: &FolderMappingRules| {
        let plan = planned(source, destination, rules);
        let archive = plan.folders.into_iter().find(|folder| folder.only_archived);
        archive.map(|folder| folder.destination_name)
    };
    let announced = side("INBOX.", ".", &["INBOX", "INBOX.Archiv|\\Archive"]);
    assert_eq!(goes_to(&gmail(&[]), &announced, &rules).as_deref(), Some("Archiv"));
    let empty = side("", "/", &["INBOX"]);
    assert_eq!(
        goes_to(&gmail(&["Archive"]), &empty, &rules).as_deref(),
        Some("Archive (Gmail)"),
        "a label has that name"
    );
    let into = FolderMappingRules { into: Some("Old".into()), ..FolderMappingRules::default() };
    assert_eq!(goes_to(&gmail(&[]), &empty, &into).as_deref(), Some("Old/Archive"));
    let exclude = vec![FolderPattern::parse("[[]Gmail]/Alle*").unwrap()];
    let excluded = FolderMappingRules { exclude, ..FolderMappingRules::default() };
    assert_eq!(goes_to(&gmail(&[]), &empty, &excluded), None);
    let renamed = FolderRename::parse(r"\[Gmail\]/Alle.*", "Kept").unwrap();
    let renamed = FolderMappingRules { rename: vec![renamed], ..FolderMappingRules::default() };
    assert_eq!(goes_to(&gmail(&[]), &empty, &renamed).as_deref(), Some("Kept"));
    let everything = FolderMappingRules { everything: true, ..FolderMappingRules::default() };
    assert_eq!(goes_to(&gmail(&[]), &empty, &everything), None, "all of it was asked for");
}

#[test]
fn nothing_is_put_into_the_destinations_other_namespaces() {
    let mut destination = side("", "/", &["INBOX"]);
    destination.other_prefixes = vec![b"shared/".to_vec(), b"~".to_vec()];
    let source = side("", "/", &["shared", "shared/x", "~bob", "sharedness"]);
    let there = planned(&source, &destination, &FolderMappingRules::default());
    assert_eq!(
        arrows(&there),
        ["shared -> _shared", "shared/x -> _shared/x", "~bob -> _~bob", "sharedness -> sharedness"]
    );
    assert!(note(&there, "shared", "another namespace"));
}

#[test]
fn rules_include_exclude_rename_and_move() {
    let source = side("", ".", &["INBOX", "Lists.a", "Lists.b", "Old.x", "Tmp"]);
    let pattern = |text: &str| FolderPattern::parse(text).unwrap();
    let rules = FolderMappingRules {
        include: vec![pattern("inbox"), pattern("Lists/*"), pattern("Old/**")],
        exclude: vec![pattern("/.*\\/b/")],
        rename: vec![FolderRename::parse("Old/(.*)", "Archive/$1").unwrap()],
        into: Some("From old".to_owned()),
        ..FolderMappingRules::default()
    };
    let there = planned(&source, &side("", "/", &["INBOX"]), &rules);
    assert_eq!(
        arrows(&there),
        ["Old.x -> From old/Archive/x", "INBOX -> From old/INBOX", "Lists.a -> From old/Lists/a"]
    );
    assert_eq!(left_out(&there), ["Lists/b", "Tmp"]);
    assert!(there.left_out[0].reason.contains("`/.*\\/b/`"));
}

#[test]
fn rules_that_are_for_no_folder_are_warned_of_by_the_words_in_which_they_were_written() {
    let source = side("", "/", &["INBOX", "Sent", "[Gmail]/All Mail|\\All"]);
    let pattern = |text: &str| FolderPattern::parse(text).unwrap();
    let rename = |from: &str| FolderRename::parse(from, "x").unwrap();
    let rules = FolderMappingRules {
        include: vec![pattern("inbox"), pattern("Sent"), pattern("Sent Items")],
        exclude: vec![pattern("/Spam|Junk/"), pattern("*/All Mail")],
        rename: vec![rename("Sent"), rename("/Old (.*)/")],
        ..FolderMappingRules::default()
    };
    let warnings = planned(&source, &side("", "/", &[]), &rules).warnings;
    let nowhere = |rule: &str| format!("folders.{rule} matches no folder of the source");
    assert_eq!(
        warnings,
        [nowhere("include: `Sent Items`"), nowhere("exclude: `/Spam|Junk/`"), nowhere("rename: `/Old (.*)/`")]
    );
}

#[test]
fn a_source_of_which_nothing_is_left_is_warned_of() {
    let nothing =
        FolderMappingRules { exclude: vec![FolderPattern::parse("**").unwrap()], ..FolderMappingRules::default() };
    let (source, there) = (side("", "/", &["INBOX", "Sent"]), side("", "/", &[]));
    assert_eq!(
        planned(&source, &there, &nothing).warnings,
        ["every folder of the source is left out, so nothing is copied"]
    );
    assert!(planned(&source, &there, &FolderMappingRules::default()).warnings.is_empty());
    assert!(
        planned(&there, &there, &FolderMappingRules::default()).warnings.is_empty(),
        "there is nothing to leave out"
    );
}

#[test]
fn a_rename_loses_against_the_owner_of_the_name_and_wins_over_special_use() {
    let rename = |from: &str, to: &str| FolderRename::parse(from, to).unwrap();
    let rules = FolderMappingRules {
        rename: vec![rename("A", "B"), rename("Gone", "INBOX"), rename("Sent", "Out"), rename("E", "/")],
        ..FolderMappingRules::default()
    };
    let source = side("", "/", &["INBOX", "A", "A/x", "B", "E", "Gone", "Sent|\\Sent"]);
    let there = planned(&source, &side("", "/", &["Sent Items|\\Sent"]), &rules);
    assert_eq!(
        arrows(&there),
        ["INBOX -> INBOX", "A/x -> A/x", "B -> B", "A -> B (2)", "E -> E", "Gone -> INBOX (2)", "Sent -> Out"]
    );
    assert!(note(&there, "E", "empty name"));
}

#[test]
fn containers_are_there_for_their_children_only() {
    let source = side("", "/", &["P|\\Noselect", "P/x", "Empty|\\Noselect", "Ghost|\\NonExistent+"]);
    let there = planned(&source, &side("", "/", &[]), &FolderMappingRules::default());
    assert_eq!(arrows(&there), ["P -> P", "P/x -> P/x"]);
    assert!(there.folders[0].is_container && !there.folders[0].create && there.folders[1].create);
    assert_eq!(left_out(&there), ["Empty", "Ghost"]);
    assert!(there.left_out.iter().all(|left| left.messages == Some(0)), "it is known that they hold none");
}

#[test]
fn a_folder_that_exists_but_holds_no_messages_is_to_be_created() {
    let there = planned(&side("", "/", &["P"]), &side("", "/", &["P|\\Noselect"]), &FolderMappingRules::default());
    assert!(there.folders[0].create && !there.folders[0].is_container);
}

#[test]
fn subscriptions_are_added_where_they_are_missing() {
    let source = side("", "/", &["a|+", "b|+", "c"]);
    let destination = side("", "/", &["a|+"]);
    let subscribe =
        |rules| planned(&source, &destination, &rules).folders.iter().map(|f| f.subscribe).collect::<Vec<_>>();
    assert_eq!(subscribe(FolderMappingRules::default()), [false, true, false]);
    assert_eq!(
        subscribe(FolderMappingRules { ignore_subscriptions: true, ..FolderMappingRules::default() }),
        [false; 3]
    );
}

#[test]
fn names_that_differ_in_case_only_are_numbered_unless_the_server_is_known_to_tell_them_apart() {
    let source = side("", "/", &["Foo", "foo", "foo/x", "B&APw-ro", "Bu&Awg-ro"]);
    let destination = side("", "/", &["foo", "FAR"]);
    let there = planned(&source, &destination, &FolderMappingRules::default());
    assert_eq!(
        arrows(&there),
        ["Bu&Awg-ro -> Bu&Awg-ro", "B&APw-ro -> B&APw-ro (2)", "Foo -> Foo (2)", "foo -> foo", "foo/x -> foo/x"]
    );
    let dovecot = NameLimits::for_server(ServerKind::Dovecot, destination.delimiter);
    let exact = plan_with(&source, &destination, &FolderMappingRules::default(), &BTreeMap::new(), &dovecot);
    assert!(exact.folders.iter().all(|folder| folder.source_raw == folder.destination_raw));
    let far = planned(&side("", "/", &["Far", "Far/x"]), &destination, &FolderMappingRules::default());
    assert_eq!(arrows(&far), ["Far -> Far (2)", "Far/x -> Far (2)/x"]);
    assert!(note(&far, "Far", "another spelling"));
}

#[test]
fn frozen_names_win_and_new_folders_avoid_them() {
    let frozen: BTreeMap<Vec<u8>, Vec<u8>> =
        [("Sent", "Out"), ("gone", "New"), ("p", "q")].map(|(s, d)| (s.into(), d.into())).into();
    let rules = FolderMappingRules {
        rename: vec![FolderRename::parse("Sent", "Other").unwrap()],
        ..FolderMappingRules::default()
    };
    let source = side("", "/", &["Sent|\\Sent", "New", "Out", "p", "p/child"]);
    let destination = side("", "/", &["Out", "Sent Items|\\Sent"]);
    let there = plan_with(&source, &destination, &rules, &frozen, &generic(&destination));
    assert_eq!(arrows(&there), ["New -> New (2)", "Sent -> Out", "Out -> Out (2)", "p -> q", "p/child -> q/child"]);
}

#[test]
fn the_folder_that_courier_empties_by_itself_is_noted() {
    let destination = side("INBOX.", ".", &["INBOX.Trash"]);
    let courier = NameLimits::for_server(ServerKind::Courier, destination.delimiter);
    let there =
        plan_with(&side("", "/", &["Trash"]), &destination, &FolderMappingRules::default(), &BTreeMap::new(), &courier);
    assert!(note(&there, "Trash", "removes old messages"));
}

const LEVELS: [&str; 20] = [
    "INBOX",
    "inbox",
    "Foo",
    "foo",
    "foo (2)",
    "B&APw-ro",
    "Bu&Awg-ro",
    "a.b",
    "a_b",
    "a%b",
    "a b",
    "Sent",
    "Sent Items",
    "Trash",
    "",
    "&AAk-",
    "a&b",
    "shared",
    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbc",
];

fn some_folders() -> impl Strategy<Value = SideFolders> {
    let shape = prop_oneof![
        Just(("", Some(b'/'))),
        Just(("", Some(b'.'))),
        Just(("INBOX.", Some(b'.'))),
        Just(("INBOX/", Some(b'/'))),
        Just(("", None)),
    ];
    let attributes = proptest::sample::select(&[
        "",
        "",
        "",
        "",
        "\\Noselect",
        "\\Sent",
        "\\Trash",
        "\\All",
        "\\Noinferiors",
        "\\Junk",
    ]);
    let folder = (proptest::collection::vec(proptest::sample::select(&LEVELS), 1..5), attributes, any::<bool>(), 0..8);
    let others = proptest::sample::subsequence(vec![b"shared/".to_vec(), b"user.".to_vec()], 0..=2);
    (shape, proptest::collection::vec(folder, 0..14), others).prop_map(
        |((prefix, delimiter), folders, other_prefixes)| {
            let separator = delimiter.map_or_else(String::new, |byte| char::from(byte).to_string());
            let mut side = SideFolders { delimiter, prefix: prefix.into(), other_prefixes, folders: Vec::new() };
            for (levels, attribute, subscribed, unprefixed) in folders {
                let name = levels.join(&separator);
                let raw = if unprefixed == 0 { name } else { format!("{prefix}{name}") };
                if raw.is_empty() || side.folders.iter().any(|folder| folder.raw == raw.as_bytes()) {
                    continue;
                }
                side.folders.push(FolderInfo {
                    raw: raw.into_bytes(),
                    attributes: vec![attribute.to_owned()],
                    delimiter,
                    selectable: attribute != "\\Noselect",
                    special_use: SpecialUse::of(&[attribute]),
                    subscribed,
                    messages: None,
                });
            }
            side
        },
    )
}

fn some_rules() -> impl Strategy<Value = FolderMappingRules> {
    let renames = [("Foo", "foo"), ("a(.*)", "Foo/$1"), ("Sent", "inbox/Sent"), (".*/foo", "a_b"), ("INBOX", "Main")];
    let rename = proptest::sample::subsequence(renames.to_vec(), 0..3);
    let into = proptest::option::weighted(0.2, proptest::sample::select(&["Old", "INBOX", "a/b"]));
    (rename, into, any::<bool>(), any::<bool>()).prop_map(|(rename, into, everything, ignore_special_use)| {
        FolderMappingRules {
            rename: rename.iter().map(|(from, to)| FolderRename::parse(from, to).unwrap()).collect(),
            into: into.map(str::to_owned),
            everything,
            ignore_special_use,
            ..FolderMappingRules::default()
        }
    })
}

fn some_quirks() -> impl Strategy<Value = ServerKind> {
    proptest::sample::select(&[
        ServerKind::Generic,
        ServerKind::Gmail,
        ServerKind::Cyrus,
        ServerKind::Courier,
        ServerKind::Dovecot,
    ])
}

fn mapping(plan: &FolderPlan) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let messages = plan.folders.iter().filter(|folder| !folder.is_container);
    messages.map(|folder| (folder.source_raw.clone(), folder.destination_raw.clone())).collect()
}

/// The destination once the plan is carried out.
fn carried_out(destination: &SideFolders, plan: &FolderPlan) -> SideFolders {
    let mut after = destination.clone();
    for folder in plan.folders.iter().filter(|folder| folder.create) {
        after.folders.retain(|existing| existing.raw != folder.destination_raw);
        after.folders.push(FolderInfo {
            raw: folder.destination_raw.clone(),
            delimiter: destination.delimiter,
            selectable: true,
            ..FolderInfo::default()
        });
    }
    after
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_two_folders_share_a_destination(
        source in some_folders(), destination in some_folders(), rules in some_rules(), quirks in some_quirks(),
    ) {
        let limits = NameLimits::for_server(quirks, destination.delimiter);
        let plan = plan_with(&source, &destination, &rules, &BTreeMap::new(), &limits);
        let mut taken = HashSet::new();
        for folder in plan.folders.iter().filter(|folder| !folder.is_container) {
            let raw = folder.destination_raw.clone();
            prop_assert!(taken.insert(raw), "{:?}", plan);
            if limits.folds {
                let folded: String = folder.destination_name.to_lowercase().nfc().collect();
                prop_assert!(taken.insert([b"folded:", folded.as_bytes()].concat()), "{:?}", plan);
            }
        }
        let inboxes = taken.iter().filter(|raw| raw.eq_ignore_ascii_case(b"INBOX"));
        prop_assert!(inboxes.count() <= 1);
    }

    #[test]
    fn every_source_folder_is_planned_or_left_out_and_can_be_created(
        source in some_folders(), destination in some_folders(), rules in some_rules(), quirks in some_quirks(),
    ) {
        let limits = NameLimits::for_server(quirks, destination.delimiter);
        let plan = plan_with(&source, &destination, &rules, &BTreeMap::new(), &limits);
        let inboxes = source.folders.iter().filter(|folder| is_inbox(&folder.raw)).count();
        prop_assert_eq!(plan.folders.len() + plan.left_out.len(), source.folders.len() - inboxes.saturating_sub(1));
        for folder in plan.folders.iter().filter(|folder| folder.create) {
            prop_assert!(folder.destination_raw.iter().all(|byte| (b' '..=b'~').contains(byte)));
            prop_assert!(folder.destination_raw.len() <= limits.max_path + 1, "{:?}", folder);
            let read = destination.parse_name(&folder.destination_raw, destination.delimiter);
            prop_assert!(!read.is_foreign && read.anomalies.is_empty(), "{:?}", folder);
            prop_assert_eq!(read.text(), folder.destination_name.clone());
        }
        let mut seen = BTreeSet::new();
        for folder in &plan.folders {
            let below = format!("{}/", folder.destination_name);
            prop_assert!(!seen.iter().any(|earlier: &String| earlier.starts_with(&below)));
            seen.insert(folder.destination_name.clone());
        }
    }

    #[test]
    fn the_order_of_the_lists_does_not_matter(
        (source, shuffled) in some_folders().prop_flat_map(|side| {
            let shuffled = Just(side.folders.clone()).prop_shuffle();
            (Just(side), shuffled)
        }),
        (destination, shuffled_too) in some_folders().prop_flat_map(|side| {
            let shuffled = Just(side.folders.clone()).prop_shuffle();
            (Just(side), shuffled)
        }),
        rules in some_rules(),
    ) {
        let first = planned(&source, &destination, &rules);
        let other = SideFolders { folders: shuffled, ..source };
        let second = planned(&other, &SideFolders { folders: shuffled_too, ..destination }, &rules);
        prop_assert_eq!(first, second);
    }

    #[test]
    fn a_folder_keeps_its_place_whatever_is_added_later(
        source in some_folders(), more in some_folders(), destination in some_folders(), rules in some_rules(),
        other_rules in some_rules(),
    ) {
        let frozen = mapping(&planned(&source, &destination, &rules));
        let mut later = source.clone();
        let known: HashSet<_> = source.folders.iter().map(|folder| folder.raw.to_ascii_uppercase()).collect();
        later.folders.extend(more.folders.into_iter().filter(|folder| !known.contains(&folder.raw.to_ascii_uppercase())));
        let second = plan_with(&later, &destination, &other_rules, &frozen, &generic(&destination));
        let mut taken = HashSet::new();
        for (from, to) in mapping(&second) {
            prop_assert!(taken.insert(to.clone()));
            match frozen.get(&from) {
                Some(kept) => prop_assert_eq!(kept, &to),
                None => prop_assert!(!frozen.values().any(|kept| *kept == to)),
            }
        }
    }

    #[test]
    fn a_plan_that_was_carried_out_is_made_again_without_its_checkpoint(
        source in some_folders(), destination in some_folders(), rules in some_rules(), quirks in some_quirks(),
    ) {
        let limits = NameLimits::for_server(quirks, destination.delimiter);
        let first = plan_with(&source, &destination, &rules, &BTreeMap::new(), &limits);
        let after = carried_out(&destination, &first);
        let second = plan_with(&source, &after, &rules, &BTreeMap::new(), &limits);
        prop_assert_eq!(mapping(&first), mapping(&second));
        prop_assert!(!second.folders.iter().any(|folder| folder.create));
    }
}

/// The plan after the destination refused to make these paths.
fn planned_after(refusals: &[&[&str]], source: &SideFolders, destination: &SideFolders) -> FolderPlan {
    let mut refused = RefusedPaths::default();
    let path = |text: &&str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    for round in refusals {
        refused.add(&round.iter().map(path).collect());
    }
    plan_folders(&FolderPlanInput {
        source,
        source_kind: ServerKind::Generic,
        has_labels: false,
        destination,
        rules: &FolderMappingRules::default(),
        frozen: &BTreeMap::new(),
        limits: &generic(destination),
        refused: &refused,
    })
}

#[test]
fn a_name_that_the_destination_refuses_gets_a_number_and_its_children_follow() {
    let source = side("", "/", &["INBOX", "Calendar", "Calendar/2024", "Work"]);
    let plan = planned_after(&[&["Calendar", "Calendar/2024"]], &source, &side("", "/", &["INBOX"]));
    assert_eq!(
        arrows(&plan),
        ["INBOX -> INBOX", "Calendar -> Calendar (2)", "Calendar/2024 -> Calendar (2)/2024", "Work -> Work"]
    );
    assert!(note(&plan, "Calendar", "refused by the destination"));
}

#[test]
fn what_the_destination_refuses_below_a_folder_goes_beside_it() {
    let source = side("", "/", &["INBOX", "INBOX/Projects", "Work/A/B", "Work/A", "Work"]);
    let there = side("", "/", &["INBOX"]);
    let plan = planned_after(&[&["INBOX/Projects", "Work/A", "Work/A/B"]], &source, &there);
    assert_eq!(
        arrows(&plan),
        [
            "INBOX -> INBOX",
            "INBOX/Projects -> INBOX_Projects",
            "Work -> Work",
            "Work/A -> Work_A",
            "Work/A/B -> Work_A/B"
        ]
    );
    // It takes no folder below another at all.
    let plan = planned_after(&[&["Work/A", "Work/A/B"], &["Work_A/B"]], &source, &there);
    assert!(arrows(&plan).contains(&"Work/A/B -> Work_A_B".to_owned()));
    assert!(note(&plan, "Work/A/B", "has no folders below"));
}
