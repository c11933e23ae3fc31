//! docs/fields.md: every field of the resources, from the CustomResourceDefinitions.

use std::fmt::Write as _;

use mailferry::api::crd;
use serde_json::{Map, Value};

const INTRODUCTION: &str = "\
<!-- Written by `make docs` from the CustomResourceDefinitions; do not edit. -->
# Fields

Every field of the three resources of API group `mailferry.io`, version `v1alpha1`.
[examples/migration.yaml](../examples/migration.yaml) shows those of a MailMigration at work, [concepts.md](concepts.md) says what
they are for. `kubectl explain mailmigration.spec` tells the same on a cluster.

| type | written as |
| --- | --- |
| duration | days, hours, minutes, seconds or milliseconds, in whole numbers, days first: `7d`, `6h`, `1d12h`, `90s`, `500ms`; on the command line too |
| size | bytes, with a unit of Ki, Mi, Gi, Ti, k, M, G or T: `25Mi`, `500k` |
| time | `2026-03-01T22:00:00Z` (RFC 3339) |
| quantity | as in a pod's resources: `50m`, `64Mi` |

**required** stands where a field has to be written wherever the object that it is in is written. An unknown field is
refused by `mailferry check` and `mailferry run`, and by `kubectl apply` unless `--validate` is off.
";

/// The page.
pub fn page() -> String {
    let mut page = Page { text: INTRODUCTION.to_owned(), told: Vec::new() };
    for crd in crd::all() {
        let crd = serde_json::to_value(crd).unwrap();
        page.kind(&crd["spec"]);
    }
    page.text
}

struct Page {
    text: String,
    /// Objects that have a table already: what they are, and where.
    told: Vec<(Value, String)>,
}

impl Page {
    fn kind(&mut self, crd: &Value) {
        let (kind, names) = (crd.pointer("/names/kind").unwrap().as_str().unwrap(), &crd["names"]);
        let schema = crd.pointer("/versions/0/schema/openAPIV3Schema").unwrap();
        let _ = write!(
            self.text,
            "\n## {kind}\n\n{} For kubectl: `{}`, `{}`.\n",
            line(&schema["description"]),
            names["plural"].as_str().unwrap(),
            names["shortNames"][0].as_str().unwrap(),
        );
        for rule in rules(schema) {
            let _ = write!(self.text, "\nRule: {rule}.\n");
        }
        for part in ["spec", "status"] {
            self.object(kind, part, &schema["properties"][part]);
        }
    }

    /// A table of an object's fields, then those of the objects in it.
    fn object(&mut self, kind: &str, path: &str, schema: &Value) {
        let title = format!("{kind} {path}");
        self.told.push((bare(schema), title.clone()));
        let _ = write!(self.text, "\n### {title}\n\n");
        for rule in rules(schema) {
            let _ = writeln!(self.text, "- Rule: {rule}.");
        }
        if !rules(schema).is_empty() {
            self.text.push('\n');
        }
        self.text.push_str("| field | type | default | meaning |\n| --- | --- | --- | --- |\n");
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let mut inner: Vec<(String, &Value)> = Vec::new();
        for (name, field) in schema["properties"].as_object().unwrap() {
            let (type_, object) = of_type(field);
            let mut type_ = type_;
            if let Some((object, suffix)) = object {
                let path = format!("{path}.{name}{suffix}");
                if let Some((_, there)) = self.told.iter().find(|(told, _)| *told == bare(object)) {
                    let _ = write!(type_, ", see [{there}](#{})", anchor(there));
                } else if !inner.iter().any(|(_, other)| bare(other) == bare(object)) {
                    let _ = write!(type_, ", see [below](#{})", anchor(&format!("{kind} {path}")));
                    inner.push((path, object));
                } else {
                    let (first, _) = inner.iter().find(|(_, other)| bare(other) == bare(object)).unwrap();
                    let _ = write!(type_, ", see [below](#{})", anchor(&format!("{kind} {first}")));
                }
            }
            let default = match field.get("default") {
                _ if required.contains(&Value::from(name.as_str())) => "**required**".to_owned(),
                None => String::new(),
                Some(default) if *default == Value::Object(Map::new()) => "`{}`".to_owned(),
                Some(Value::Object(_)) => "its fields'".to_owned(),
                Some(Value::String(text)) => format!("`{text}`"),
                Some(default) => format!("`{default}`"),
            };
            let mut meaning = line(&field["description"]);
            for note in bounds(field).into_iter().chain(rules(field).into_iter().filter(|_| object.is_none())) {
                let _ = write!(meaning, " *{}.*", note.trim_end_matches('.'));
            }
            let _ = writeln!(self.text, "| `{name}` | {type_} | {default} | {} |", cell(&meaning));
        }
        for (path, object) in inner {
            // Between two of them another may have been told.
            if !self.told.iter().any(|(told, _)| *told == bare(object)) {
                self.object(kind, &path, object);
            }
        }
    }
}

/// A field's type, and the object in it that has fields of its own.
fn of_type(schema: &Value) -> (String, Option<(&Value, &'static str)>) {
    let has_fields = |schema: &Value| schema["properties"].is_object();
    match schema["type"].as_str() {
        _ if schema["x-kubernetes-int-or-string"] == true => ("quantity".to_owned(), None),
        Some("string") => {
            let pattern = schema["pattern"].as_str().unwrap_or_default();
            let type_ = if let Some(values) = schema["enum"].as_array() {
                let values: Vec<_> = values.iter().map(|value| format!("`{}`", value.as_str().unwrap())).collect();
                values.join(", ")
            } else if schema["format"] == "date-time" {
                "time".to_owned()
            } else if pattern.contains("h|ms|m|s") {
                "duration".to_owned()
            } else if pattern.contains("Ki|Mi") {
                "size".to_owned()
            } else {
                "string".to_owned()
            };
            (type_, None)
        }
        Some("array") => {
            let items = &schema["items"];
            if items.pointer("/properties/lastTransitionTime").is_some() {
                return ("list of [conditions](concepts.md#conditions)".to_owned(), None);
            }
            (
                format!("list of {}", plural(&of_type(items).0)),
                Some((items, "[]")).filter(|(items, _)| has_fields(items)),
            )
        }
        Some("object") if has_fields(schema) => ("object".to_owned(), Some((schema, ""))),
        Some("object") => match schema.get("additionalProperties") {
            Some(values) => (format!("map of {}", plural(&of_type(values).0)), None),
            None => ("object".to_owned(), None),
        },
        other => (other.unwrap_or("any").to_owned(), None),
    }
}

fn plural(type_: &str) -> String {
    match type_ {
        "quantity" => "quantities".to_owned(),
        type_ if type_.starts_with('`') => type_.to_owned(),
        type_ => format!("{type_}s"),
    }
}

/// What values are taken, in words.
fn bounds(schema: &Value) -> Vec<String> {
    let mut notes = Vec::new();
    let number = |field: &str| schema[field].as_f64().map(|number| format!("{number}"));
    match (number("minimum"), number("maximum")) {
        (Some(least), Some(most)) => notes.push(format!("{least} to {most}")),
        (Some(least), None) => notes.push(format!("at least {least}")),
        (None, Some(most)) => notes.push(format!("at most {most}")),
        (None, None) => {}
    }
    let (type_, _) = of_type(schema);
    if type_ == "string" {
        match (number("minLength"), number("maxLength")) {
            (Some(least), Some(most)) => notes.push(format!("{least} to {most} characters")),
            (None, Some(most)) => notes.push(format!("at most {most} characters")),
            _ => {}
        }
        if let Some(pattern) = schema["pattern"].as_str() {
            notes.push(format!("matches `{pattern}`"));
        }
    }
    if let Some(most) = number("maxItems") {
        notes.push(format!("at most {most}"));
    }
    if let Some(most) = number("maxProperties") {
        notes.push(format!("at most {most}"));
    }
    if let Some(keys) = schema["x-kubernetes-list-map-keys"].as_array().filter(|_| !type_.contains("conditions")) {
        let keys: Vec<_> = keys.iter().map(|key| format!("`{}`", key.as_str().unwrap())).collect();
        notes.push(format!("unique by {}", keys.join(" and ")));
    }
    if let Value::Object(_) = schema["items"]
        && !of_type(&schema["items"]).0.contains("object")
    {
        notes.extend(bounds(&schema["items"]).into_iter().map(|note| format!("each {note}")));
    }
    notes
}

/// What an object's rules say to whoever breaks them.
fn rules(schema: &Value) -> Vec<String> {
    let rules = schema["x-kubernetes-validations"].as_array();
    rules.into_iter().flatten().map(|rule| line(&rule["message"])).collect()
}

/// An object without what differs between its uses.
fn bare(schema: &Value) -> Value {
    let mut bare = schema.clone();
    if let Some(object) = bare.as_object_mut() {
        object.remove("description");
        object.remove("default");
    }
    bare
}

fn line(text: &Value) -> String {
    text.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// As GitHub makes it of a heading.
pub fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
    kept.replace(' ', "-")
}
