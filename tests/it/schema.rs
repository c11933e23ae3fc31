//! Holds a value against a JSON Schema (draft 2020-12), as far as ours use it: a keyword that is not known here fails.

use serde_json::Value;

/// What of `value` the schema does not allow; `root` is the whole schema.
pub fn violations(root: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(root, schema, value, "", &mut found);
    found
}

fn check(root: &Value, schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let Value::Object(keywords) = schema else {
        assert!(schema.is_boolean(), "{schema} is no schema");
        if schema == &Value::Bool(false) {
            found.push(format!("{path} must not be there"));
        }
        return;
    };
    let fits = |schema: &Value| violations(root, schema, value).is_empty();
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type"),
    };
    let list = |value: &Value| value.as_array().unwrap().clone();
    for (keyword, said) in keywords {
        let right = match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "format" | "default" => true,
            "$ref" => fits(root.pointer(said.as_str().unwrap().strip_prefix('#').unwrap()).unwrap()),
            "type" if said.is_array() => list(said).iter().any(|name| is(name.as_str().unwrap())),
            "type" => is(said.as_str().unwrap()),
            "const" => value == said,
            "enum" => list(said).contains(value),
            "oneOf" => list(said).iter().filter(|schema| fits(schema)).count() == 1,
            "anyOf" => list(said).iter().any(fits),
            "allOf" => list(said).iter().all(fits),
            "minimum" => value.as_f64().is_none_or(|number| number >= said.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= said.as_f64().unwrap()),
            "required" => list(said).iter().all(|name| value.get(name.as_str().unwrap()).is_some()),
            "properties" => {
                for (name, schema) in said.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        check(root, schema, value, &format!("{path}.{name}"), found);
                    }
                }
                true
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, said, item, &format!("{path}[{n}]"), found);
                }
                true
            }
            "additionalProperties" => {
                let known = |name: &String| schema["properties"].get(name).is_some();
                for (name, value) in value.as_object().into_iter().flatten().filter(|(name, _)| !known(name)) {
                    check(root, said, value, &format!("{path}.{name}"), found);
                }
                true
            }
            other => panic!("the schema uses {other}, which this test does not know"),
        };
        if !right {
            found.push(format!("{path}: {keyword} does not hold: {said}"));
        }
    }
}

#[test]
fn what_does_not_fit_a_schema_is_found() {
    let schema = serde_json::json!({
        "type": "object",
        "required": ["n"],
        "properties": {"n": {"type": "integer", "minimum": 0}, "m": {"additionalProperties": {"$ref": "#/$defs/word"}}},
        "$defs": {"word": {"enum": ["a", "b"]}},
        "oneOf": [{"required": ["x"]}, {"required": ["y"]}],
    });
    let of = |value: Value| violations(&schema, &schema, &value).len();
    assert_eq!(of(serde_json::json!({"n": 1, "x": 1, "m": {"k": "a"}})), 0);
    assert_eq!(of(serde_json::json!({"n": -1, "x": 1})), 1);
    assert_eq!(of(serde_json::json!({"n": "1", "x": 1, "y": 1, "m": {"k": "c"}})), 3);
    assert_eq!(of(serde_json::json!({"x": 1})), 1);
}
