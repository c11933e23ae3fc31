//! What was read from the CSVs of a migration, as its status and its condition Accepted tell it. Pure.

use crate::{
    api::{MailMigrationSpec, mail_migration::CsvStatus},
    error::Error,
};

/// What was read from the CSVs of a migration, in the order of its spec.
#[derive(Debug, Default)]
pub(crate) struct CsvStatuses {
    /// Of mailboxSecrets.
    pub secrets: Vec<CsvStatus>,
    /// Of mailboxConfigMaps.
    pub config_maps: Vec<CsvStatus>,
}

impl CsvStatuses {
    /// Of all CSVs that a migration names ([`MailMigrationSpec::csvs`]).
    #[must_use]
    pub(crate) fn new(spec: &MailMigrationSpec, mut all: Vec<CsvStatus>) -> Self {
        let config_maps = all.split_off(all.len().min(spec.mailbox_secrets.len()));
        Self { secrets: all, config_maps }
    }

    /// The first that can't be used: a condition's reason, and why.
    #[must_use]
    pub(crate) fn problem(&self) -> Option<(&'static str, Error)> {
        let reasons = [
            (&self.secrets, ["MailboxSecretNotFound", "MailboxSecretInvalid"]),
            (&self.config_maps, ["MailboxConfigMapNotFound", "MailboxConfigMapInvalid"]),
        ];
        reasons.into_iter().find_map(|(csvs, [not_found, invalid])| {
            let csv = csvs.iter().find(|csv| csv.problem.is_some())?;
            let reason = if csv.resource_version.is_some() { invalid } else { not_found };
            Some((reason, Error::configuration(csv.problem.as_ref()?)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{SecretKeyRef, csv_ref::ConfigMapKeyRef},
        controller::testing,
    };

    fn csv(version: Option<&str>, problem: Option<&str>) -> CsvStatus {
        let (name, key, mailboxes) = ("n".to_owned(), "k".to_owned(), 1);
        let (resource_version, problem) = (version.map(str::to_owned), problem.map(str::to_owned));
        CsvStatus { name, key, resource_version, mailboxes, problem }
    }

    #[test]
    fn what_is_wrong_is_told_by_the_kind_of_object_and_whether_it_is_there() {
        let mut spec = testing::migration("m").spec;
        spec.mailbox_secrets = vec![SecretKeyRef { name: "n".to_owned(), key: "k".to_owned() }];
        spec.mailbox_config_maps = vec![ConfigMapKeyRef { name: "n".to_owned(), key: "k".to_owned() }];
        let (right, wrong, missing) = (csv(Some("7"), None), csv(Some("7"), Some("line 2")), csv(None, Some("none")));
        for (secret, map, reason) in [
            (&right, &right, None),
            (&right, &wrong, Some("MailboxConfigMapInvalid")),
            (&right, &missing, Some("MailboxConfigMapNotFound")),
            (&wrong, &wrong, Some("MailboxSecretInvalid")),
            (&missing, &wrong, Some("MailboxSecretNotFound")),
        ] {
            let statuses = CsvStatuses::new(&spec, vec![secret.clone(), map.clone()]);
            assert_eq!((&statuses.secrets, &statuses.config_maps), (&vec![secret.clone()], &vec![map.clone()]));
            assert_eq!(statuses.problem().map(|(reason, _)| reason), reason);
        }
    }
}
