//! Where each field of a document stands, by its path: for errors that name the line to correct.

use std::collections::HashMap;

use granit_parser::{Event, Parser, Span};

/// Where a field's name, or an entry of a list, begins. Both numbers begin at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldPlace {
    /// Line of the stream.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// The places of a document's fields, by paths such as `spec.mailboxes[1].source`.
#[derive(Debug, Clone)]
pub struct FieldPlaces {
    places: HashMap<String, FieldPlace>,
    /// Where the document begins.
    first: FieldPlace,
}

/// A set of fields or a list that is being read.
enum OpenNode {
    Fields { path: String, key: Option<String> },
    List { path: String, next: usize },
}

impl FieldPlaces {
    /// Finds them in the text of one document, which begins at this line of its stream. In a document that can't be read, only
    /// what stands before the fault is found.
    #[must_use]
    pub(crate) fn new(document: &str, first_line: usize) -> Self {
        let first = FieldPlace { line: first_line, column: 1 };
        let mut found = Self { places: HashMap::new(), first };
        let mut open: Vec<OpenNode> = Vec::new();
        for event in Parser::new_from_str(document) {
            let Ok((event, span)) = event else { break };
            match event {
                Event::Scalar(text, ..) => drop(found.enter(&mut open, Some(&text), span)),
                Event::Alias(_) => drop(found.enter(&mut open, None, span)),
                Event::MappingStart(..) => {
                    let path = found.enter(&mut open, None, span);
                    open.push(OpenNode::Fields { path, key: None });
                }
                Event::SequenceStart(..) => {
                    let path = found.enter(&mut open, None, span);
                    open.push(OpenNode::List { path, next: 0 });
                }
                Event::MappingEnd | Event::SequenceEnd => drop(open.pop()),
                Event::DocumentEnd => break,
                _ => {}
            }
        }
        found
    }

    /// The place of the field, or of the nearest one around it that is there: what is missing is looked for there.
    #[must_use]
    pub fn nearest(&self, path: &str) -> FieldPlace {
        let mut path = path;
        loop {
            if let Some(place) = self.places.get(path) {
                return *place;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return self.places.get("").copied().unwrap_or(self.first),
            }
        }
    }

    /// Takes the beginning of a node, of which `text` is there if it is a scalar. Gives its path; that of a field's name is
    /// the field's.
    fn enter(&mut self, open: &mut [OpenNode], text: Option<&str>, span: Span) -> String {
        match open.last_mut() {
            None => self.keep(String::new(), span),
            Some(OpenNode::List { path, next }) => {
                let path = format!("{path}[{next}]");
                *next += 1;
                self.keep(path, span)
            }
            Some(OpenNode::Fields { path, key }) => {
                if let Some(key) = key.take() {
                    return join(path, &key);
                }
                let name = text.unwrap_or_default();
                *key = Some(name.to_owned());
                let path = join(path, name);
                self.keep(path, span)
            }
        }
    }

    fn keep(&mut self, path: String, span: Span) -> String {
        let line = self.first.line + span.start.line().saturating_sub(1);
        // The first of two fields of one name.
        self.places.entry(path.clone()).or_insert(FieldPlace { line, column: span.start.col() + 1 });
        path
    }
}

/// The path of a field in the set of fields at `path`, as errors name it.
#[must_use]
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(text: &str, path: &str) -> (usize, usize) {
        let found = FieldPlaces::new(text, 10).nearest(path);
        (found.line, found.column)
    }

    const TEXT: &str = "---\n# a comment\napiVersion: v1\nspec:\n  \"quoted\": 'x'\n  list:\n    - name: a\n      more: {x: 1, ü: 2, z: 3}\n    - b\n  text: |\n    name: no field\n  last: *no\n";

    #[test]
    fn fields_and_entries_have_their_line_and_column() {
        for (path, line, column) in [
            ("", 12, 1),
            ("apiVersion", 12, 1),
            ("spec", 13, 1),
            ("spec.quoted", 14, 3),
            ("spec.list", 15, 3),
            ("spec.list[0]", 16, 7),
            ("spec.list[0].name", 16, 7),
            ("spec.list[0].more", 17, 7),
            ("spec.list[0].more.z", 17, 26),
            ("spec.list[1]", 18, 7),
            ("spec.text", 19, 3),
        ] {
            assert_eq!(place(TEXT, path), (line, column), "{path}");
        }
    }

    #[test]
    fn what_is_missing_is_looked_for_where_it_belongs() {
        assert_eq!(place(TEXT, "spec.list[0].source.passwordSecretRef"), place(TEXT, "spec.list[0]"));
        assert_eq!(place(TEXT, "spec.list[7]"), place(TEXT, "spec.list"));
        assert_eq!(place(TEXT, "metadata.name"), (12, 1));
        assert_eq!(place("", "a.b"), (10, 1));
    }

    #[test]
    fn what_comes_by_an_anchor_stands_where_it_is_used() {
        let text = "base: &b {x: 1}\nmore: *b\nmerged:\n  <<: *b\n  y: 2\n";
        assert_eq!((place(text, "more.x"), place(text, "base.x")), ((11, 1), (10, 11)));
        assert_eq!((place(text, "merged.x"), place(text, "merged.y")), ((12, 1), (14, 3)));
    }

    #[test]
    fn manifests_in_json_have_places_too() {
        let text = "{\"kind\": \"Secret\",\n \"data\": {\"a.b\": \"x\"},\n \"items\": [1, 2]}";
        assert_eq!((place(text, "data.a.b"), place(text, "items[1]")), ((11, 11), (12, 15)));
    }

    proptest! {
        #[test]
        fn no_text_and_no_path_brings_it_down(text in "[-a-c:?{}\\[\\],&*!|>'\"#% \n\t]{0,60}", path in "[a-c.\\[\\]0-9]{0,12}") {
            let found = FieldPlaces::new(&text, 1).nearest(&path);
            prop_assert!(found.line >= 1 && found.line <= text.lines().count() + 1);
        }
    }
}
