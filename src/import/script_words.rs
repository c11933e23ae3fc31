//! The commands of a shell script, as words, without running anything. Only what means the same in every shell, whatever its
//! variables and files are: quotes, comments and lines that go on. All else is refused by its line, and never shown.

use std::{iter::Peekable, str::Chars};

use zeroize::Zeroizing;

use super::findings::TableFindings;

/// A word; it may be a password.
pub(crate) type ScriptWord = Zeroizing<String>;

/// One command.
pub(crate) struct ScriptCommand {
    /// The line that it starts on, from 1.
    pub line: usize,
    /// Its name and what follows.
    pub words: Vec<ScriptWord>,
}

/// Longer than most words, so that none is left behind in a smaller buffer.
const WORD_CAPACITY: usize = 256;

const VARIABLE: &str =
    "a variable or a command substitution ($, `): write the value itself, in single quotes where a $ is part of it";
const OPERATOR: &str = "an operator of the shell (; & | < > and parentheses): write one command on each line, and put into quotes what belongs to a value";
const EXPANSION: &str = "a character that the shell would expand (* ? [ { ~): put the value into quotes";
const OPEN_QUOTE: &str = "a quote that is opened and not closed";

/// Reads the commands of a script; what is wrong goes into `findings`.
#[must_use]
pub(crate) fn read_commands(text: &str, findings: &mut TableFindings) -> Vec<ScriptCommand> {
    let mut reader = WordReader { rest: text.chars().peekable(), line: 1, word: None };
    let mut commands = Vec::new();
    while reader.rest.peek().is_some() {
        match reader.command() {
            Ok(command) => commands.extend(command),
            Err((line, what)) => {
                findings.problem(line, format!("{what}. Nothing is run here, so it can't be known what it stands for"));
                reader.skip_line();
            }
        }
    }
    commands
}

/// Where and why a script can't be read.
type WordFault = (usize, &'static str);

struct WordReader<'a> {
    rest: Peekable<Chars<'a>>,
    /// Of the next character.
    line: usize,
    /// The word that has begun.
    word: Option<ScriptWord>,
}

impl WordReader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn add(&mut self, c: char) {
        self.word.get_or_insert_with(|| Zeroizing::new(String::with_capacity(WORD_CAPACITY))).push(c);
    }

    /// A word begins, though it may stay empty: `''`.
    fn begin(&mut self) {
        self.word.get_or_insert_with(|| Zeroizing::new(String::with_capacity(WORD_CAPACITY)));
    }

    fn skip_line(&mut self) {
        self.word = None;
        while self.next().is_some_and(|c| c != '\n') {}
    }

    /// The next command up to the end of its line; none on a line without one.
    fn command(&mut self) -> Result<Option<ScriptCommand>, WordFault> {
        let mut words: Vec<ScriptWord> = Vec::new();
        let mut begins = self.line;
        loop {
            let line = self.line;
            let Some(c) = self.rest.peek().copied() else { break };
            // Left alone, so that who skips the line does not skip the next one.
            if !matches!(c, '\n') {
                self.next();
            }
            match c {
                '\n' => {
                    self.next();
                    break;
                }
                ' ' | '\t' | '\r' => words.extend(self.word.take()),
                '#' if self.word.is_none() => {
                    while self.rest.peek().is_some_and(|c| *c != '\n') {
                        self.next();
                    }
                }
                '\'' => self.single_quoted(line)?,
                '"' => self.double_quoted(line)?,
                '\\' => self.escaped(),
                '$' | '`' => return Err((line, VARIABLE)),
                ';' | '&' | '|' | '<' | '>' | '(' | ')' => return Err((line, OPERATOR)),
                '*' | '?' | '[' | '{' => return Err((line, EXPANSION)),
                '~' if self.word.is_none() => return Err((line, EXPANSION)),
                c => self.add(c),
            }
            if words.is_empty() && self.word.is_none() {
                begins = self.line;
            }
        }
        words.extend(self.word.take());
        Ok((!words.is_empty()).then_some(ScriptCommand { line: begins, words }))
    }

    fn single_quoted(&mut self, line: usize) -> Result<(), WordFault> {
        self.begin();
        loop {
            match self.next().ok_or((line, OPEN_QUOTE))? {
                '\'' => return Ok(()),
                c => self.add(c),
            }
        }
    }

    fn double_quoted(&mut self, line: usize) -> Result<(), WordFault> {
        self.begin();
        loop {
            let at = self.line;
            match self.next().ok_or((line, OPEN_QUOTE))? {
                '"' => return Ok(()),
                '$' | '`' => return Err((at, VARIABLE)),
                '\\' => match self.next().ok_or((line, OPEN_QUOTE))? {
                    '\n' => {}
                    c @ ('$' | '`' | '"' | '\\') => self.add(c),
                    c => {
                        self.add('\\');
                        self.add(c);
                    }
                },
                c => self.add(c),
            }
        }
    }

    /// What follows a backslash without quotes: a line that goes on, or a character as it is.
    fn escaped(&mut self) {
        let mut ahead = self.rest.clone();
        let windows = ahead.next() == Some('\r') && ahead.next() == Some('\n');
        if windows {
            self.next();
        }
        match self.next() {
            Some('\n') | None => {}
            Some(c) => self.add(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> (Vec<(usize, Vec<String>)>, TableFindings) {
        let mut findings = TableFindings::default();
        let commands = read_commands(text, &mut findings);
        let words = |words: Vec<ScriptWord>| words.iter().map(|word| word.as_str().to_owned()).collect();
        (commands.into_iter().map(|command| (command.line, words(command.words))).collect(), findings)
    }

    fn words(text: &str) -> Vec<String> {
        let (commands, findings) = read(text);
        assert_eq!((commands.len(), &findings.problems), (1, &Vec::new()), "{text}");
        commands.into_iter().next().unwrap().1
    }

    #[test]
    fn words_are_those_that_a_shell_sees() {
        for (text, expected) in [
            ("a b\tc  ", &["a", "b", "c"][..]),
            (r#"a 'b $c "d"\' "e \"f\" \$g \h 'i'""#, &["a", r#"b $c "d"\"#, r#"e "f" $g \h 'i'"#]),
            (r"a\ b c\$d \*", &["a b", "c$d", "*"]),
            ("a'b'\"c\" '' # d", &["abc", ""]),
            ("a#b c # d 'e", &["a#b", "c"]),
            ("a \\\n  b \\\r\n c", &["a", "b", "c"]),
            ("a 'b\nc' \"d\\\ne\"", &["a", "b\nc", "de"]),
            ("--p=x~y=z%!", &["--p=x~y=z%!"]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn each_command_has_the_line_that_it_starts_on() {
        let (commands, findings) = read("#!/bin/sh\n\n  a \\\n b\n# c\nd\r\ne");
        let lines: Vec<(usize, &str)> = commands.iter().map(|(line, words)| (*line, words[0].as_str())).collect();
        assert_eq!((lines, findings.problems.len()), (vec![(3, "a"), (6, "d"), (7, "e")], 0));
    }

    #[test]
    fn what_only_a_shell_knows_is_refused_by_its_line_and_the_rest_is_read() {
        for refused in [
            "a $b",
            "a \"$b\"",
            "a `b`",
            "a \"`b`\"",
            "a $(b)",
            "a; b",
            "a && b",
            "a | b",
            "a > b",
            "a < b",
            "(a)",
            "a *.x",
            "a ~/b",
            "a {b,c}",
            "a [b",
            "a ?",
        ] {
            let (commands, findings) = read(&format!("first\n{refused}\nlast"));
            let names: Vec<&str> = commands.iter().map(|(_, words)| words[0].as_str()).collect();
            assert_eq!(names, ["first", "last"], "{refused}");
            assert_eq!(
                findings.problems.iter().map(|problem| problem.line).collect::<Vec<_>>(),
                [Some(2)],
                "{refused}"
            );
        }
        let (_, findings) = read("a\nb 'c\nd");
        assert_eq!(findings.problems[0].line, Some(2));
    }

    proptest! {
        #[test]
        fn whatever_stands_in_single_quotes_is_one_word_as_it_is(word in "[^'\\r]{0,40}") {
            prop_assert_eq!(words(&format!("a '{word}'")), ["a".to_owned(), word]);
        }

        #[test]
        fn any_text_is_read_or_refused_and_no_finding_shows_it(text in "[a-z$`'\"\\\\;|&<>(){}#\\n ]{0,60}") {
            let (_, findings) = read(&text.replace('a', "hush"));
            prop_assert!(!findings.text("f").contains("hush"));
        }
    }
}
