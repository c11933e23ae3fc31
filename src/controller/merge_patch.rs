//! What changed between two versions of a status, as a merge patch (RFC 7396): what is left out stays as it is.

use serde::Serialize;
use serde_json::{Map, Value};

/// The merge patch that turns `old` into `new`; none when they are equal.
///
/// # Errors
/// When one of them can't be written as JSON.
pub(crate) fn diff<T: Serialize>(old: &T, new: &T) -> Result<Option<Value>, serde_json::Error> {
    let (old, new) = (serde_json::to_value(old)?, serde_json::to_value(new)?);
    Ok((old != new).then(|| diff_values(&old, new)))
}

fn diff_values(old: &Value, new: Value) -> Value {
    match (old, new) {
        (Value::Object(old), Value::Object(mut new)) => {
            let mut patch = Map::new();
            for (key, old) in old {
                match new.remove(key) {
                    None => drop(patch.insert(key.clone(), Value::Null)),
                    Some(new) if *old != new => drop(patch.insert(key.clone(), diff_values(old, new))),
                    Some(_) => {}
                }
            }
            patch.extend(new);
            Value::Object(patch)
        }
        (_, new) => new,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn apply(target: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else { return *target = patch.clone() };
        if !target.is_object() {
            *target = json!({});
        }
        let Some(target) = target.as_object_mut() else { return };
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                apply(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<bool>().prop_map(Value::from), (0..3_i64).prop_map(Value::from)];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::btree_map("[a-c]", inner.clone(), 0..3).prop_map(|map| json!(map)),
                prop::collection::vec(inner, 0..3).prop_map(Value::from),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_patch_turns_the_old_into_the_new(old in tree(), new in tree()) {
            let (old, new) = (json!({"x": old}), json!({"x": new}));
            let mut patched = old.clone();
            if let Some(patch) = diff(&old, &new).unwrap() {
                apply(&mut patched, &patch);
            }
            prop_assert_eq!(patched, new);
        }
    }

    #[test]
    fn what_is_equal_needs_no_patch_and_what_is_gone_becomes_null() {
        assert_eq!(diff(&json!({"a": 1}), &json!({"a": 1})).unwrap(), None);
        let patch = diff(&json!({"a": 1, "b": {"c": 1, "d": 2}}), &json!({"b": {"c": 1}})).unwrap();
        assert_eq!(patch, Some(json!({"a": null, "b": {"d": null}})));
    }
}
