//! YAML in and out: the only place that knows the library behind it.

mod field_places;

use std::{fmt, ops::Range};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Number, Value};

pub(crate) use self::field_places::join;
pub use self::field_places::{FieldPlace, FieldPlaces};
use crate::error::{Error, Result};

/// One document of a stream.
#[derive(Clone, PartialEq)]
pub struct YamlDocument {
    /// Where it stands in the stream, from 1; empty documents count.
    pub number: usize,
    /// Its first line in the stream, from 1.
    pub line: usize,
    /// What it says. May hold secrets.
    pub value: Value,
    /// Which bytes of the stream it is.
    bytes: Range<usize>,
}

impl YamlDocument {
    /// Where its fields stand in the stream that it was read from.
    #[must_use]
    pub fn field_places(&self, stream: &str) -> FieldPlaces {
        FieldPlaces::new(stream.get(self.bytes.clone()).unwrap_or_default(), self.line)
    }
}

impl fmt::Debug for YamlDocument {
    /// Without the value: manifests hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("number", &self.number).field("line", &self.line).finish_non_exhaustive()
    }
}

/// Reads a stream of documents; `name` (a file's name) is used in errors. Documents without content are left out.
/// Merge keys (`<<`) are applied. A key that is there twice, or is no text, is an error.
pub fn read_stream(name: &str, text: &str) -> Result<Vec<YamlDocument>> {
    let mut documents = Vec::new();
    for (index, (line, bytes)) in split(text).into_iter().enumerate() {
        let (number, part) = (index + 1, &text[bytes.clone()]);
        let at = |error: &dyn fmt::Display| {
            Error::configuration(format!("{name}, line {line} (document {number}): {error}"))
        };
        let mut value: serde_yaml::Value = serde_yaml::from_str(part).map_err(|error| {
            let text = error.to_string();
            match error.location() {
                Some(location) => {
                    let what = text.split(" at line ").next().unwrap_or(&text);
                    let (line, column) = (line + location.line() - 1, location.column());
                    Error::configuration(format!("{name}, line {line}, column {column}: {what}"))
                        .advice("Correct the YAML; text with special characters goes into quotes")
                }
                None => at(&text),
            }
        })?;
        value.apply_merge().map_err(|error| at(&error))?;
        if !value.is_null() {
            let value = to_json(value).map_err(|error| at(&error))?;
            documents.push(YamlDocument { number, line, value, bytes });
        }
    }
    Ok(documents)
}

/// Reads one value of a known type; `name` is used in errors.
pub fn read<T: DeserializeOwned>(name: &str, text: &str) -> Result<T> {
    serde_yaml::from_str(text).map_err(|error| Error::configuration(format!("{name}: {error}")))
}

/// Writes a value as one document.
pub(crate) fn write<T: Serialize>(value: &T) -> Result<String> {
    // By way of JSON, so that the order of keys in maps is always the same.
    let value = serde_json::to_value(value).map_err(|e| Error::internal(format!("a value can't be shown: {e}")))?;
    serde_yaml::to_string(&value).map_err(|e| Error::internal(format!("a value can't be shown as YAML: {e}")))
}

/// Cuts a stream at its `---` and behind its `...` lines: each part's bytes with the number of its first line. At the start of a
/// line these marks mean nothing else, not even in quoted or block text.
fn split(text: &str) -> Vec<(usize, Range<usize>)> {
    let is = |line: &str, mark: &str| {
        line.strip_prefix(mark).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
    };
    let mut parts = Vec::new();
    let (mut start, mut first, mut at) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let end = at + line.len();
        if is(line, "---") || is(line, "...") {
            if !text[start..at].trim().is_empty() {
                parts.push((first, start..at));
            }
            (start, first) = if is(line, "...") { (end, index + 2) } else { (at, index + 1) };
        }
        at = end;
    }
    parts.push((first, start..text.len()));
    parts
}

fn to_json(value: serde_yaml::Value) -> Result<Value, String> {
    Ok(match value {
        serde_yaml::Value::Null => Value::Null,
        serde_yaml::Value::Bool(bool) => Value::Bool(bool),
        serde_yaml::Value::Number(number) => Value::Number(to_number(&number)?),
        serde_yaml::Value::String(text) => Value::String(text),
        serde_yaml::Value::Sequence(items) => Value::Array(items.into_iter().map(to_json).collect::<Result<_, _>>()?),
        serde_yaml::Value::Mapping(entries) => {
            let mut object = Map::new();
            for (key, value) in entries {
                let serde_yaml::Value::String(key) = key else {
                    return Err("a key is no text: write it in quotes".to_owned());
                };
                object.insert(key, to_json(value)?);
            }
            Value::Object(object)
        }
        serde_yaml::Value::Tagged(tagged) => {
            return Err(format!("the tag {} has no meaning here: remove it", tagged.tag));
        }
    })
}

fn to_number(number: &serde_yaml::Number) -> Result<Number, String> {
    let whole = number.as_i64().map(Number::from).or_else(|| number.as_u64().map(Number::from));
    whole.or_else(|| Number::from_f64(number.as_f64()?)).ok_or_else(|| "a number is not finite".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_keep_their_number_and_line() {
        let stream = "# comment\na: 1\n---\n---\n# nothing here\n---\nb: |\n  text\n  --- no mark\n...\n--- \nc: x\n";
        let found: Vec<_> = read_stream("f", stream).unwrap().into_iter().map(|d| (d.line, d.value.clone())).collect();
        assert_eq!(found, [(1, json!({"a": 1})), (6, json!({"b": "text\n--- no mark\n"})), (11, json!({"c": "x"}))]);
    }

    #[test]
    fn an_error_names_the_line_of_the_stream() {
        let error = read_stream("m.yaml", "a: 1\n---\nb:\n  - x\n c: [\n").unwrap_err().to_string();
        assert!(error.contains("m.yaml, line 5") || error.contains("m.yaml, line 6"), "{error}");
    }

    #[test]
    fn a_key_that_is_there_twice_is_an_error_without_its_value() {
        let error = read_stream("m.yaml", "a: 1\npassword: hush\npassword: quiet\n").unwrap_err().to_string();
        assert!(error.contains("duplicate"), "{error}");
        assert!(!error.contains("hush") && !error.contains("quiet"), "{error}");
    }

    #[test]
    fn merge_keys_and_anchors_work_as_in_kubectl() {
        let documents = read_stream("f", "base: &b {x: 1}\nmore: {<<: *b, y: 2}\n").unwrap();
        assert_eq!(documents[0].value["more"], json!({"x": 1, "y": 2}));
    }

    #[test]
    fn keys_that_are_no_text_and_tags_are_refused() {
        assert!(read_stream("f", "1: x\n").unwrap_err().to_string().contains("in quotes"));
        assert!(read_stream("f", "a: !secret x\n").unwrap_err().to_string().contains("!secret"));
    }

    #[test]
    fn text_is_kept_byte_by_byte() {
        let documents = read_stream("f", "a: 'p\"a\\s s€'\nb: \"tab\\tend\"\n").unwrap();
        assert_eq!(documents[0].value, json!({"a": "p\"a\\s s€", "b": "tab\tend"}));
    }

    #[test]
    fn debug_output_of_a_document_shows_no_value() {
        let documents = read_stream("f", "password: hush\n").unwrap();
        assert!(!format!("{documents:?}").contains("hush"));
    }
}
