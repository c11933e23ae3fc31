//! Fields that have another name by now. They go on working for one minor version, and whoever writes them is told. Pure.

use super::{mail_migration::MailMigrationSpec, validate::ManifestProblem};

/// What is said of `ttl`. The admission policy `mailferry-deprecated-fields` says the same.
const FORMER_TTL: &str =
    "ttl is deprecated and goes away with the next minor version: write finishedPodsTTL, which does the same, instead";

/// The deprecated fields of a MailMigration in a cluster, and what to write instead.
#[must_use]
pub(crate) fn in_cluster(spec: &MailMigrationSpec) -> Vec<ManifestProblem> {
    if spec.has_former_ttl() { in_manifest(spec) } else { Vec::new() }
}

/// The same of a manifest, where each field was written by a person.
#[must_use]
pub(crate) fn in_manifest(spec: &MailMigrationSpec) -> Vec<ManifestProblem> {
    let former = spec.ttl.map(|_| ManifestProblem::new("spec.ttl", FORMER_TTL));
    former.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Duration;

    fn spec(ttl: Option<&str>, finished_pods_ttl: Option<&str>) -> MailMigrationSpec {
        let spec = serde_json::json!({
            "source": {}, "destination": {}, "ttl": ttl, "finishedPodsTTL": finished_pods_ttl,
        });
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn the_former_name_goes_on_working_and_the_new_one_wins() {
        let hours = |spec: MailMigrationSpec| spec.settings().finished_pods_ttl;
        assert_eq!(hours(spec(None, None)), Duration::from_secs(24 * 3600));
        assert_eq!(hours(spec(Some("3h"), None)), Duration::from_secs(3 * 3600));
        assert_eq!(hours(spec(Some("24h"), Some("3h"))), Duration::from_secs(3 * 3600));
    }

    #[test]
    fn who_writes_the_former_name_is_told_and_a_default_of_before_is_nobodys_writing() {
        let told = |ttl| [in_manifest(&spec(ttl, None)).len(), in_cluster(&spec(ttl, None)).len()];
        assert_eq!([told(None), told(Some("3h")), told(Some("24h"))], [[0, 0], [1, 1], [1, 0]]);
    }

    #[test]
    fn the_admission_policy_says_the_same() {
        let folded = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(folded(include_str!("../../deploy/deprecated-fields.yaml")).contains(FORMER_TTL));
    }
}
