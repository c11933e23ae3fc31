//! The CustomResourceDefinitions, as the API server takes them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::{MailMigration, MailServer, MailboxSync};
use crate::{
    error::{Error, Result},
    yaml,
};

/// Every CustomResourceDefinition, in the order in which they are written.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    [MailServer::crd(), MailMigration::crd(), MailboxSync::crd()].into_iter().map(adapt_to_api_server).collect()
}

/// Each CustomResourceDefinition as a file: its name and its YAML. The same input gives the same bytes.
pub fn files() -> Result<Vec<(String, String)>> {
    all()
        .into_iter()
        .map(|crd| {
            let name = format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
            let mut crd = serde_json::to_value(crd)
                .map_err(|error| Error::internal(format!("a resource can't be shown: {error}")))?;
            write_whole_numbers(&mut crd);
            Ok((name, yaml::write(&crd)?))
        })
        .collect()
}

/// Every CustomResourceDefinition as one YAML stream.
pub fn all_yaml() -> Result<String> {
    let documents: Vec<_> = files()?.into_iter().map(|(_, yaml)| yaml).collect();
    Ok(documents.join("---\n"))
}

/// The schema of one kind as JSON, for checking manifests where there is no API server.
pub fn schema<K: CustomResourceExt>() -> Result<Value> {
    let schema = adapt_to_api_server(K::crd())
        .spec
        .versions
        .into_iter()
        .next()
        .and_then(|version| version.schema?.open_api_v3_schema)
        .ok_or_else(|| Error::internal("a resource has no schema"))?;
    let mut schema =
        serde_json::to_value(schema).map_err(|error| Error::internal(format!("a schema can't be shown: {error}")))?;
    // The API server knows these of every object.
    for (name, kind) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
        schema["properties"][name] = json!({ "type": kind });
    }
    Ok(schema)
}

/// Bounds of integers as people write them: 10, not 10.0.
fn write_whole_numbers(value: &mut Value) {
    match value {
        Value::Object(object) => object.values_mut().for_each(write_whole_numbers),
        Value::Array(items) => items.iter_mut().for_each(write_whole_numbers),
        Value::Number(number) => {
            if let Some(whole) = number.to_string().strip_suffix(".0").and_then(|text| text.parse::<i64>().ok()) {
                *value = Value::from(whole);
            }
        }
        _ => {}
    }
}

/// Makes the schema one for an API server. Takes `nullable` out of it: an explicit null is then pruned, as if it had not been written, and `has()` in
/// rules means what it says. Quantities lose their page of Kubernetes' own documentation.
fn adapt_to_api_server(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
    };
    fn clean(schema: &mut JSONSchemaProps) {
        schema.nullable = None;
        if schema.x_kubernetes_int_or_string == Some(true) {
            schema.description = None;
        }
        for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
            clean(property);
        }
        match &mut schema.items {
            Some(JSONSchemaPropsOrArray::Schema(item)) => clean(item),
            Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(clean),
            None => {}
        }
        if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
            clean(values);
        }
    }
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|v| v.open_api_v3_schema.as_mut()) {
            clean(schema);
            // kstatus takes an object without a status for one that is done. As others do, the API server says from the
            // start that no generation was looked at.
            if let Some(status) = schema.properties.as_mut().and_then(|properties| properties.get_mut("status")) {
                status.default = Some(JSON(json!({ "observedGeneration": -1 })));
            }
        }
    }
    crd
}
