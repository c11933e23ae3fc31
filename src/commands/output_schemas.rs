//! What the lines of `--output json` are, by JSON Schema: from the types that write them.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

use super::{check::CheckEvent, export::ExportEvent, verify::VerifyEvent};
use crate::local::view::{JsonEvent, TimedEvent};

/// The schema of one line of each command's output, by the name of its file: `run` is also that of `copy`.
#[must_use]
pub fn output_schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("run", schema::<TimedEvent<JsonEvent<'_>>>("A line of `mailferry run` or `copy` with --output json")),
        ("check", schema::<TimedEvent<CheckEvent<'_>>>("A line of `mailferry check` with --output json")),
        ("verify", schema::<TimedEvent<VerifyEvent<'_>>>("A line of `mailferry verify` with --output json")),
        ("export", schema::<TimedEvent<ExportEvent<'_>>>("A line of `mailferry export` with --output json")),
    ]
}

fn schema<T: JsonSchema>(title: &str) -> Value {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = generator.into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    schema.to_value()
}
