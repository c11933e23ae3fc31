//! Checks a manifest against its schema where no API server does: unknown fields (with the field that was meant),
//! missing ones, types, ranges, patterns. Problems never show values of wrong types: they may be secrets.

use jiff::Timestamp;
use regex::Regex;
use serde_json::{Map, Value};

use super::{
    common::USERNAME_PATTERN,
    scalar::{DURATION_PATTERN, SIZE_PATTERN},
    settings::DELETION_TOKEN_PATTERN,
    validate::ManifestProblem,
};
use crate::yaml::join;

/// Removes nulls from objects, as the API server does: a field that is null was not written.
pub(crate) fn prune_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(prune_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(prune_nulls),
        _ => {}
    }
}

/// What is wrong with `value` by this (structural, OpenAPI v3) schema.
#[must_use]
pub fn schema_problems(schema: &Value, value: &Value) -> Vec<ManifestProblem> {
    let mut found = Vec::new();
    check_value("", schema, value, &mut found);
    found
}

/// The candidate that was probably meant, if any is close.
#[must_use]
pub(crate) fn nearest_candidate<'a>(wrong: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    candidates
        .map(|candidate| {
            let lower = candidate.to_lowercase();
            let prefix = lower.starts_with(&wrong) || wrong.starts_with(&lower);
            let close = strsim::jaro_winkler(&wrong, &lower) + if prefix { 0.1 } else { 0.0 };
            (candidate, strsim::damerau_levenshtein(&wrong, &lower), close)
        })
        .filter(|(candidate, edits, close)| *edits <= 1 + candidate.len() / 5 || *close > 0.87)
        .max_by(|a, b| a.2.total_cmp(&b.2))
        .map(|(candidate, ..)| candidate)
}

fn check_value(path: &str, schema: &Value, value: &Value, found: &mut Vec<ManifestProblem>) {
    if schema["x-kubernetes-int-or-string"] == true {
        if !(value.is_i64() || value.is_string()) {
            found.push(problem(path, format!("must be a number or text, not {}", value_kind(value))));
        }
        return;
    }
    match (schema["type"].as_str(), value) {
        (Some("object"), Value::Object(object)) => check_object(path, schema, object, found),
        (Some("array"), Value::Array(items)) => check_array(path, schema, items, found),
        (Some("string"), Value::String(text)) => check_text(path, schema, text, found),
        (Some("integer"), Value::Number(number)) if number.is_i64() || number.is_u64() => {
            check_number(path, schema, number.as_f64().unwrap_or(f64::MAX), found);
        }
        (Some("number"), Value::Number(number)) => {
            check_number(path, schema, number.as_f64().unwrap_or(f64::MAX), found);
        }
        (Some("boolean"), Value::Bool(_)) | (None, _) => {}
        (Some(expected), _) => found.push(problem(path, wrong_type(expected, value))),
    }
}

fn check_object(path: &str, schema: &Value, object: &Map<String, Value>, found: &mut Vec<ManifestProblem>) {
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(name) {
            found.push(ManifestProblem { presence: true, ..problem(&join(path, name), "is missing".to_owned()) });
        }
    }
    if let Some(most) = schema["maxProperties"].as_u64().filter(|most| object.len() as u64 > *most) {
        found.push(problem(path, format!("has {} entries, more than {most}", object.len())));
    }
    let properties = schema["properties"].as_object();
    let values = &schema["additionalProperties"];
    let open = schema["x-kubernetes-preserve-unknown-fields"] == true || (properties.is_none() && values.is_null());
    for (name, value) in object {
        let path = join(path, name);
        if schema["propertyNames"].is_object() {
            check_text(&path, &schema["propertyNames"], name, found);
        }
        if let Some(schema) = properties.and_then(|properties| properties.get(name)) {
            check_value(&path, schema, value, found);
        } else if values.is_object() {
            check_value(&path, values, value, found);
        } else if !open {
            let known = || properties.into_iter().flat_map(Map::keys).map(String::as_str);
            let hint = match nearest_candidate(name, known()) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!("known here: {}", known().collect::<Vec<_>>().join(", ")),
            };
            found.push(ManifestProblem { presence: true, ..problem(&path, format!("unknown field; {hint}")) });
        }
    }
}

fn check_array(path: &str, schema: &Value, items: &[Value], found: &mut Vec<ManifestProblem>) {
    let count = items.len() as u64;
    if let Some(most) = schema["maxItems"].as_u64().filter(|most| count > *most) {
        found.push(problem(path, format!("has {count} entries, more than {most}")));
    }
    if let Some(least) = schema["minItems"].as_u64().filter(|least| count < *least) {
        found.push(problem(path, format!("has {count} entries, fewer than {least}")));
    }
    for (index, item) in items.iter().enumerate() {
        check_value(&format!("{path}[{index}]"), &schema["items"], item, found);
    }
    let identity: fn(&Value, &Value) -> Vec<Value> = match schema["x-kubernetes-list-type"].as_str() {
        Some("map") => |item, keys| {
            keys.as_array().into_iter().flatten().filter_map(Value::as_str).map(|key| item[key].clone()).collect()
        },
        Some("set") => |item, _| vec![item.clone()],
        _ => return,
    };
    let mut seen = std::collections::HashMap::new();
    for (index, item) in items.iter().enumerate() {
        let identity = identity(item, &schema["x-kubernetes-list-map-keys"]);
        if let Some(first) = seen.insert(identity.clone(), index) {
            let shown: Vec<_> = identity.iter().filter_map(Value::as_str).collect();
            let what = format!("`{}` is there already as {path}[{first}]: each may be there once", shown.join(" "));
            found.push(problem(&format!("{path}[{index}]"), what));
        }
    }
}

fn check_text(path: &str, schema: &Value, text: &str, found: &mut Vec<ManifestProblem>) {
    let length = text.chars().count() as u64;
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.iter().any(|value| value == text)
    {
        let names: Vec<_> = allowed.iter().filter_map(Value::as_str).collect();
        let meant = nearest_candidate(text, names.iter().copied());
        let hint = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
        found.push(problem(path, format!("{} is not one of {}{hint}", quote_short(text), names.join(", "))));
    }
    if schema["minLength"].as_u64().is_some_and(|least| length < least) {
        found.push(problem(path, "is empty".to_owned()));
    } else if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
        found.push(problem(path, format!("has {length} characters, more than {most}")));
    } else if schema["format"] == "date-time" && text.parse::<Timestamp>().is_err() {
        found.push(problem(path, format!("{} is no time: write it as 2026-03-01T22:00:00Z", quote_short(text))));
    } else if let Some(pattern) = schema["pattern"].as_str()
        && !Regex::new(pattern).is_ok_and(|regex| regex.is_match(text))
    {
        found.push(problem(path, pattern_advice(pattern, text)));
    }
}

fn check_number(path: &str, schema: &Value, number: f64, found: &mut Vec<ManifestProblem>) {
    let (least, most) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
    if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
        let range = match (least, most) {
            (Some(least), Some(most)) => format!("from {least} to {most}"),
            (Some(least), None) => format!("at least {least}"),
            (_, most) => format!("at most {}", most.unwrap_or_default()),
        };
        found.push(problem(path, format!("must be {range}, not {number}")));
    }
}

/// What to write where a pattern does not match: people read no regular expressions. What stands in place of a Secret's
/// name or key is not shown: it may be the secret itself.
fn pattern_advice(pattern: &str, text: &str) -> String {
    let text = quote_short(text);
    match pattern {
        DURATION_PATTERN => format!("{text} is no duration: write it as 7d, 6h, 1h30m, 90s or 500ms"),
        SIZE_PATTERN => format!("{text} is no size: write it as 25Mi, 64Ki or a number of bytes in quotes"),
        USERNAME_PATTERN => format!("{text} holds a control character (a tab, a line break), which no login can carry"),
        DELETION_TOKEN_PATTERN => format!("{text} is no token: it has 16 digits and letters from a to f"),
        p if p.starts_with("^[a-z0-9]") => {
            "must be an object's name: lower-case letters, digits, - and . only, a letter or digit first and last"
                .to_owned()
        }
        p if p.starts_with("^[-._a-zA-Z0-9]") => {
            "must be a key of a Secret: letters, digits, -, _ and . only".to_owned()
        }
        p => format!("{text} does not match {p}"),
    }
}

fn wrong_type(expected: &str, value: &Value) -> String {
    let expected = match expected {
        "object" => "a set of fields",
        "array" => "a list (lines that start with -)",
        "string" => "text (numbers, yes and no as text go into quotes)",
        "integer" => "a whole number",
        "boolean" => "true or false",
        other => other,
    };
    format!("must be {expected}, not {}", value_kind(value))
}

fn value_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a set of fields",
    }
}

/// Short texts as they are, long ones cut.
fn quote_short(text: &str) -> String {
    let short: String = text.chars().filter(|c| !c.is_control()).take(60).collect();
    if short.len() == text.len() { format!("`{short}`") } else { format!("`{short}...`") }
}

fn problem(path: &str, message: String) -> ManifestProblem {
    ManifestProblem::new(path, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::{MailMigration, crd};

    fn found(value: &Value) -> Vec<String> {
        let schema = crd::schema::<MailMigration>().unwrap();
        schema_problems(&schema, value).into_iter().map(|p| format!("{}: {}", p.path, p.message)).collect()
    }

    fn migration() -> Value {
        json!({
            "apiVersion": "mailferry.io/v1alpha1", "kind": "MailMigration", "metadata": {"name": "m"},
            "spec": {
                "source": {"serverRef": {"name": "old"}},
                "destination": {"server": {"host": "new.example"}},
                "mailboxes": [{"name": "a", "source": {"passwordSecretRef": {"name": "s", "key": "a"}}}],
            },
        })
    }

    #[test]
    fn a_right_manifest_has_no_problem() {
        assert_eq!(found(&migration()), [] as [&str; 0]);
    }

    #[test]
    fn an_unknown_field_is_named_with_the_one_that_was_meant() {
        for (pointer, wrong, message) in [
            ("/spec", "paralellism", "spec.paralellism: unknown field; did you mean parallelism?"),
            ("/spec/source", "severRef", "spec.source.severRef: unknown field; did you mean serverRef?"),
            (
                "/spec/mailboxes/0/source",
                "user",
                "spec.mailboxes[0].source.user: unknown field; did you mean username?",
            ),
            ("/spec/mailboxes/0/source", "passwordsecretref", "did you mean passwordSecretRef?"),
            ("/spec/destination/server", "hots", "did you mean host?"),
            ("/spec/destination/server", "zzz", "known here: compress, host, limits, port, provider, quirks, tls"),
            ("", "specs", "specs: unknown field; did you mean spec?"),
        ] {
            let mut value = migration();
            value.pointer_mut(pointer).unwrap()[wrong] = json!("hush");
            let found = found(&value);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(message), "{found:?}");
            assert!(!found[0].contains("hush"), "{found:?}");
        }
    }

    #[test]
    fn wrong_types_ranges_and_words_are_said_plainly() {
        for (pointer, name, value, message) in [
            ("/spec", "parallelism", json!("10"), "spec.parallelism: must be a whole number, not text"),
            ("/spec", "parallelism", json!(0), "spec.parallelism: must be from 1 to 10000, not 0"),
            ("/spec", "deadline", json!("6 hours"), "spec.deadline: `6 hours` is no duration: write it as 7d, 6h"),
            ("/spec", "deadline", json!(6), "spec.deadline: must be text"),
            ("/spec", "flags", json!("Never"), "`Never` is not one of SourceWins, Ignore"),
            ("/spec", "flags", json!("ignored"), "is not one of SourceWins, Ignore; did you mean Ignore?"),
            ("/spec", "deletions", json!("mirorr"), "is not one of Keep, Mirror; did you mean Mirror?"),
            ("/spec", "confirmDeletions", json!(["0123"]), "spec.confirmDeletions[0]: `0123` is no token"),
            ("/spec", "startAt", json!("tomorrow"), "is no time: write it as 2026-03-01T22:00:00Z"),
            ("/spec", "suspend", json!("yes"), "spec.suspend: must be true or false, not text"),
            ("/spec", "messages", json!({"maxSize": "25MB"}), "spec.messages.maxSize: `25MB` is no size"),
            (
                "/spec",
                "source",
                json!({"serverRef": {"name": "Old"}}),
                "spec.source.serverRef.name: must be an object's name",
            ),
            ("/spec/mailboxes/0/source", "username", json!("a\tb"), "holds a control character"),
            ("/spec", "mailboxes", json!({"name": "a"}), "must be a list"),
            ("/spec/destination/server", "port", json!(70_000), "must be from 1 to 65535"),
        ] {
            let mut object = migration();
            object.pointer_mut(pointer).unwrap()[name] = value;
            let found = found(&object).join("\n");
            assert!(found.contains(message), "{found}");
        }
    }

    #[test]
    fn two_mailboxes_of_one_name_are_refused() {
        let mut value = migration();
        let first = value["spec"]["mailboxes"][0].clone();
        value["spec"]["mailboxes"].as_array_mut().unwrap().push(first);
        assert_eq!(
            found(&value),
            ["spec.mailboxes[1]: `a` is there already as spec.mailboxes[0]: each may be there once"]
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut value = migration();
        value["spec"].as_object_mut().unwrap().remove("destination");
        assert_eq!(found(&value), ["spec.destination: is missing"]);
    }

    #[test]
    fn a_null_is_as_good_as_nothing() {
        let mut value = migration();
        value["spec"]["source"]["server"] = Value::Null;
        value["spec"]["folders"] = Value::Null;
        prune_nulls(&mut value);
        assert_eq!(value, migration());
    }
}
