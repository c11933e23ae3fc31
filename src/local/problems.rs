//! What says the same of many mailboxes, said once: errors by server, remarks by their words. Pure.

use std::{cmp::Reverse, collections::HashSet, fmt::Write as _};

use crate::error::{Error, ErrorClass, Side};

/// Texts that differ in no more words than this say the same: a user's name, a number, what a server calls this session.
const MAX_VARYING: usize = 2;

/// So many mailboxes or folders are named; the others are counted.
const NAMED: usize = 3;

/// What stands for a word that is another one for each mailbox.
const VARYING: &str = "…";

/// Texts of the same words, but for a few.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wording(Vec<Word>);

/// A word and the mark behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    /// None: it varies.
    stem: Option<String>,
    mark: String,
}

impl Word {
    fn new(word: &str) -> Self {
        let stem = word.trim_end_matches([':', ',', ';', '.']);
        let mark = word.strip_prefix(stem).unwrap_or_default();
        Self { stem: Some(stem.to_owned()), mark: mark.to_owned() }
    }

    /// Leaves open what is another in `other`.
    fn open(&mut self, other: &Self) {
        if self.stem != other.stem {
            self.stem = None;
        }
        if self.mark != other.mark {
            self.mark.clear();
        }
    }
}

impl Wording {
    fn new(text: &str) -> Self {
        Self(text.split(' ').map(Word::new).collect())
    }

    /// Takes `text` in, where it says the same.
    fn admit(&mut self, text: &str) -> bool {
        let other = Self::new(text);
        let varying = self.0.iter().zip(&other.0).filter(|(known, word)| known != word).count();
        if other.0.len() != self.0.len() || varying > MAX_VARYING.min(self.0.len() / 3) {
            return false;
        }
        self.0.iter_mut().zip(&other.0).for_each(|(known, word)| known.open(word));
        true
    }

    fn text(&self) -> String {
        let word = |word: &Word| format!("{}{}", word.stem.as_deref().unwrap_or(VARYING), word.mark);
        self.0.iter().map(word).collect::<Vec<_>>().join(" ")
    }
}

/// Names in the order in which they came, each once.
#[derive(Debug, Clone, Default)]
struct Names {
    first: Vec<String>,
    all: HashSet<String>,
}

impl Names {
    fn add(&mut self, name: &str) {
        if self.all.insert(name.to_owned()) && self.first.len() < NAMED {
            self.first.push(name.to_owned());
        }
    }

    fn len(&self) -> usize {
        self.all.len()
    }

    /// `alice, bob, carol and 4 more`.
    fn text(&self) -> String {
        let named = self.first.join(", ");
        match self.len() - self.first.len() {
            0 => named,
            more => format!("{named} and {more} more"),
        }
    }
}

/// One thing that is wrong, wherever it is.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    class: ErrorClass,
    side: Option<Side>,
    host: Option<String>,
    what: Wording,
    advice: Option<Wording>,
    mailboxes: Names,
    folders: Names,
}

/// The distinct problems of a run, in the order in which they came up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    /// Adds an error of a mailbox; gives true when nothing like it was there before.
    pub(crate) fn add(&mut self, mailbox: &str, error: &Error) -> bool {
        let known = self.0.iter_mut().find_map(|problem| problem.admit(error).then_some(problem));
        if let Some(problem) = known {
            problem.name(mailbox, error);
            return false;
        }
        let mut problem = Problem::new(error);
        problem.name(mailbox, error);
        self.0.push(problem);
        true
    }

    /// Their number.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// One line for each, by server, those of most mailboxes first. `of` is how many mailboxes there are: where there is one,
    /// it is not named.
    pub(crate) fn lines(&self, of: usize) -> Vec<String> {
        let mut problems: Vec<&Problem> = self.0.iter().collect();
        problems.sort_by_key(|problem| (problem.side, problem.host.clone(), Reverse(problem.mailboxes.len())));
        problems.iter().map(|problem| problem.line(of)).collect()
    }
}

impl Problem {
    fn new(error: &Error) -> Self {
        Self {
            class: error.class,
            side: error.side,
            host: error.host.clone(),
            what: Wording::new(&error.what),
            advice: error.advice.as_deref().map(Wording::new),
            mailboxes: Names::default(),
            folders: Names::default(),
        }
    }

    /// Takes `error` in, where it is the same problem.
    fn admit(&mut self, error: &Error) -> bool {
        let same = (self.class, self.side, &self.host) == (error.class, error.side, &error.host);
        if !same || !self.what.admit(&error.what) {
            return false;
        }
        // Advice that depends on the mailbox more than that is none for all of them.
        let advised = |wording: &mut Wording| error.advice.as_deref().is_some_and(|advice| wording.admit(advice));
        self.advice = self.advice.take().and_then(|mut wording| advised(&mut wording).then_some(wording));
        true
    }

    fn name(&mut self, mailbox: &str, error: &Error) {
        self.mailboxes.add(mailbox);
        if let Some(folder) = &error.folder {
            self.folders.add(folder);
        }
    }

    fn line(&self, of: usize) -> String {
        let error = Error {
            side: self.side,
            host: self.host.clone(),
            advice: self.advice.as_ref().map(Wording::text),
            folder: (self.folders.len() > 0).then(|| self.folders.text()),
            ..Error::new(self.class, self.what.text())
        };
        format!("{error}{}", whose(&self.mailboxes, of))
    }
}

/// ` (2 mailboxes: alice, bob)`; nothing where there is only one at all.
fn whose(mailboxes: &Names, of: usize) -> String {
    match (mailboxes.len(), of) {
        (_, 0 | 1) => String::new(),
        (1, _) => format!(" ({})", mailboxes.text()),
        (number, _) => format!(" ({number} mailboxes: {})", mailboxes.text()),
    }
}

/// One line for each of these remarks, whatever mailboxes it is of. `of` is how many mailboxes there are.
pub(crate) fn grouped_remarks<'r>(remarks: impl IntoIterator<Item = (&'r str, String)>, of: usize) -> Vec<String> {
    let mut groups: Vec<(Wording, Names)> = Vec::new();
    for (mailbox, text) in remarks {
        let known = groups.iter().position(|(wording, _)| wording.clone().admit(&text)).unwrap_or(groups.len());
        if known == groups.len() {
            groups.push((Wording::new(&text), Names::default()));
        }
        if let Some((wording, names)) = groups.get_mut(known) {
            wording.admit(&text);
            names.add(mailbox);
        }
    }
    let line = |(wording, names): &(Wording, Names)| {
        let mut line = wording.text();
        let _ = write!(line, "{}", whose(names, of)); // a String takes every write
        line
    };
    groups.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_host(host: &str) -> Error {
        Error::network(format!("there is no host {host}")).advice("Check the spelling").on(Side::Source, host)
    }

    fn refused(user: &str) -> Error {
        Error::new(ErrorClass::Authentication, format!("the server refused the login of {user}: wrong password"))
            .advice(format!("Mailferry creates no accounts: make sure that {user} exists there"))
            .on(Side::Destination, "new.example:993")
    }

    fn lines(errors: &[(&str, Error)], of: usize) -> Vec<String> {
        let mut problems = Problems::default();
        for (mailbox, error) in errors {
            problems.add(mailbox, error);
        }
        problems.lines(of)
    }

    #[test]
    fn a_misspelt_host_is_one_problem_whatever_the_number_of_mailboxes() {
        let names: Vec<String> = (0..300).map(|n| format!("m{n}")).collect();
        let error = no_host("old.exmaple:993");
        let mut problems = Problems::default();
        for name in &names {
            problems.add(name, &error);
        }
        assert_eq!(
            problems.lines(300),
            [
                "source old.exmaple:993: Network: there is no host old.exmaple:993. Check the spelling (300 mailboxes: m0, m1, m2 and 297 more)"
            ]
        );
    }

    #[test]
    fn what_differs_from_mailbox_to_mailbox_is_left_open() {
        let errors = [("alice", refused("alice")), ("bob", refused("bob")), ("carol", no_host("old.example:993"))];
        assert_eq!(
            lines(&errors, 3),
            [
                "source old.example:993: Network: there is no host old.example:993. Check the spelling (carol)",
                "destination new.example:993: Authentication: the server refused the login of …: wrong password. Mailferry \
                 creates no accounts: make sure that … exists there (2 mailboxes: alice, bob)",
            ]
        );
    }

    #[test]
    fn one_mailbox_alone_is_not_named_and_its_folders_are() {
        let full = Error::new(ErrorClass::Quota, "the mailbox is full").on(Side::Destination, "new.example:993");
        let errors = ["INBOX", "Sent", "Work", "Lists"].map(|folder| ("alice", full.clone().in_folder(folder)));
        assert_eq!(
            lines(&errors, 1),
            ["destination new.example:993: folder INBOX, Sent, Work and 1 more: Quota: the mailbox is full"]
        );
    }

    #[test]
    fn errors_of_other_servers_classes_or_words_are_problems_of_their_own() {
        let of = |class, host: &str, what: &str| Error::new(class, what).on(Side::Source, host);
        let errors = [
            ("a", of(ErrorClass::Network, "old:993", "the connection was lost")),
            ("b", of(ErrorClass::Network, "new:993", "the connection was lost")),
            ("c", of(ErrorClass::Protocol, "old:993", "the connection was lost")),
            ("d", of(ErrorClass::Network, "old:993", "no answer came today")),
            ("e", of(ErrorClass::Network, "old:993", "it fell silent")),
        ];
        assert_eq!(lines(&errors, 5).len(), 5, "{:#?}", lines(&errors, 5));
    }

    #[test]
    fn only_the_first_of_a_kind_is_new() {
        let mut problems = Problems::default();
        assert!(problems.add("alice", &refused("alice")));
        assert!(!problems.add("bob", &refused("bob")));
        assert!(problems.add("carol", &no_host("x:1")));
        assert_eq!(problems.len(), 2);
    }

    #[test]
    fn remarks_are_grouped_by_their_words() {
        let remarks = [
            ("alice", "folders.exclude: `Wrok` matches no folder".to_owned()),
            ("bob", "folders.exclude: `Wrok` matches no folder".to_owned()),
            ("bob", "3 of 14 copies were gone, so nothing was deleted".to_owned()),
            ("carol", "5 of 19 copies were gone, so nothing was deleted".to_owned()),
        ];
        assert_eq!(
            grouped_remarks(remarks, 3),
            [
                "folders.exclude: `Wrok` matches no folder (2 mailboxes: alice, bob)",
                "… of … copies were gone, so nothing was deleted (2 mailboxes: bob, carol)",
            ]
        );
    }
}
