//! Where an object of a manifest comes from, and what is said of it: with the line and the column of each field.

use std::cell::OnceCell;

use crate::{
    api::validate::ManifestProblem,
    error::Error,
    yaml::{FieldPlace, FieldPlaces, YamlDocument},
};

/// A document of a file, with the places of its fields once somebody asks for one.
pub(super) struct DocumentText<'a> {
    file: &'a str,
    stream: &'a str,
    document: &'a YamlDocument,
    places: OnceCell<FieldPlaces>,
}

impl<'a> DocumentText<'a> {
    /// A document of this stream.
    pub(super) const fn new(file: &'a str, stream: &'a str, document: &'a YamlDocument) -> Self {
        Self { file, stream, document, places: OnceCell::new() }
    }

    fn place(&self, path: &str) -> FieldPlace {
        self.places.get_or_init(|| self.document.field_places(self.stream)).nearest(path)
    }
}

/// Where an object comes from.
#[derive(Clone, Copy)]
pub(super) enum ManifestOrigin<'a> {
    /// It was read from a file: a whole document, or one of the `items` of a List.
    Document { text: &'a DocumentText<'a>, item: Option<usize> },
    /// The command line says it by its flags.
    CommandLine,
}

impl ManifestOrigin<'_> {
    /// What is wrong with the field at `path`; an empty one is the object itself.
    pub(super) fn error(&self, path: &str, what: impl std::fmt::Display) -> Error {
        Error::configuration(format!("{}: {what}", self.at(path)))
    }

    /// `acme.yaml, line 7, column 3`.
    pub(super) fn at(&self, path: &str) -> String {
        match self {
            Self::Document { text, .. } => {
                let FieldPlace { line, column } = self.place(text, path);
                format!("{}, line {line}, column {column}", text.file)
            }
            Self::CommandLine => "the command line".to_owned(),
        }
    }

    /// All that is wrong with an object, in the order in which it stands there.
    pub(super) fn errors(&self, subject: &str, problems: Vec<ManifestProblem>) -> Vec<Error> {
        let mut problems = problems;
        if let Self::Document { text, .. } = self {
            problems.sort_by_key(|problem| self.place(text, &problem.path));
        }
        let error = |ManifestProblem { path, message, .. }: &ManifestProblem| match path.as_str() {
            "" => self.error(path, format!("{subject}: {message}")),
            _ => self.error(path, format!("{subject}: {path}: {message}")),
        };
        problems.iter().map(error).collect()
    }

    fn place(&self, text: &DocumentText<'_>, path: &str) -> FieldPlace {
        match self {
            Self::Document { item: Some(item), .. } if path.is_empty() => text.place(&format!("items[{item}]")),
            Self::Document { item: Some(item), .. } => text.place(&format!("items[{item}].{path}")),
            _ => text.place(path),
        }
    }
}
