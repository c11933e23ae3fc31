//! Which objects stand for a table's rows: MailMigrations that list their mailboxes with a Secret for each, or for more
//! than fit, CSVs in Secrets.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretBox};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{
    findings::TableFindings,
    login::{CredentialKind, RowAccount, RowCredential},
    names,
    objects::{ConfigMapObject, ImportMetadata, MigrationManifest, SecretObject},
    rows::TableRow,
    side_settings::{ServerLocation, SideSettings},
};
use crate::{
    api::{MailMigration, crd, csv, csv::records, schema_check, validate},
    error::{Error, Result},
};

/// What is the same for every row.
#[derive(Debug, Clone)]
pub(crate) struct ImportSettings {
    /// Names and namespace.
    pub common: ImportMetadata,
    /// Source and destination.
    pub sides: [SideSettings; 2],
    /// Mailboxes at the same time, where it is given.
    pub parallelism: Option<u16>,
    /// Start nothing until somebody says so.
    pub suspend: bool,
    /// The mailboxes go into CSVs in ConfigMaps: for tables without a credential.
    pub config_maps: bool,
    /// Further fields of the MailMigration's spec.
    pub rules: Map<String, Value>,
}

/// How much goes into one object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ObjectLimits {
    /// Mailboxes that a MailMigration may list.
    pub listed: usize,
    /// Bytes of an object as JSON.
    pub object: usize,
    /// CSVs of one MailMigration.
    pub csvs: usize,
}

impl Default for ObjectLimits {
    /// The API's, and for an object's size that of `kubectl apply`, which keeps the whole object in an annotation: all
    /// annotations together have at most 256 KiB.
    fn default() -> Self {
        Self { listed: 1000, object: 250_000, csvs: 64 }
    }
}

/// Everything that is made.
#[derive(Debug, Default)]
pub(crate) struct ImportPlan {
    /// By name.
    pub migrations: Vec<MigrationManifest>,
    /// By name.
    pub secrets: Vec<SecretObject>,
    /// By name.
    pub config_maps: Vec<ConfigMapObject>,
    /// How many there are in all migrations.
    pub mailboxes: usize,
}

/// The key of a CSV in its Secret.
pub(crate) const CSV_KEY: &str = "mailboxes.csv";
/// What an object has beside its values, at most.
const FRAME: usize = 1000;

/// A row with its mailbox's name.
struct NamedRow<'a> {
    name: String,
    row: &'a TableRow,
}

/// Makes the objects. Problems with names go into `findings`; then the plan is of no use.
///
/// # Errors
/// Configuration when what the command line says can't be in a MailMigration.
pub(crate) fn plan(
    rows: &[(TableRow, [ServerLocation; 2])],
    settings: &ImportSettings,
    limits: ObjectLimits,
    findings: &mut TableFindings,
) -> Result<ImportPlan> {
    let has_credential = |row: &TableRow| row.source.credential.is_some() || row.destination.credential.is_some();
    if settings.config_maps && rows.iter().any(|(row, _)| has_credential(row)) {
        findings.problem_of_all(
            "--config-map: the table has passwords or tokens, and everybody who may read the namespace reads its ConfigMaps: \
             leave these columns out (--columns password=) and let administrators log in, or leave out --config-map",
        );
        return Ok(ImportPlan::default());
    }
    let mut groups: BTreeMap<&[ServerLocation; 2], Vec<&TableRow>> = BTreeMap::new();
    for (row, places) in rows {
        groups.entry(places).or_default().push(row);
    }
    let import = &settings.common.import;
    let single = groups.len() == 1;
    let mut plan = ImportPlan { mailboxes: rows.len(), ..ImportPlan::default() };
    for (places, rows) in groups {
        let name = if single { import.clone() } else { names::migration(import, places) };
        let named = names::mailboxes(&rows, findings);
        let mut mailboxes: Vec<NamedRow<'_>> =
            named.into_iter().zip(rows).map(|(name, row)| NamedRow { name, row }).collect();
        // An export in another order makes the same files.
        mailboxes.sort_by(|a, b| a.name.cmp(&b.name));
        let spec = spec(settings, places);
        let draft = MigrationDraft { settings, limits, name: &name, spec: &spec, mailboxes: &mailboxes };
        if settings.config_maps || !draft.add_listed(&mut plan) {
            draft.add_in_csvs(&mut plan)?;
        }
    }
    plan.migrations.sort_by(|a, b| a.name.cmp(&b.name));
    plan.secrets.sort_by(|a, b| a.name.cmp(&b.name));
    plan.config_maps.sort_by(|a, b| a.name.cmp(&b.name));
    if findings.problems.is_empty() {
        plan.migrations.iter().try_for_each(validate_migration)?;
    }
    Ok(plan)
}

/// A MailMigration's spec without its mailboxes.
fn spec(settings: &ImportSettings, places: &[ServerLocation; 2]) -> Value {
    let mut spec = json!({
        "source": settings.sides[0].endpoint(&places[0]),
        "destination": settings.sides[1].endpoint(&places[1]),
    });
    if let Some(parallelism) = settings.parallelism {
        spec["parallelism"] = json!(parallelism);
    }
    if settings.suspend {
        spec["suspend"] = json!(true);
    }
    for (field, value) in &settings.rules {
        spec[field] = value.clone();
    }
    spec
}

/// A migration before it is known whether one MailMigration can list all its mailboxes.
struct MigrationDraft<'a> {
    settings: &'a ImportSettings,
    limits: ObjectLimits,
    name: &'a str,
    /// The MailMigration's spec without its mailboxes.
    spec: &'a Value,
    /// The mailboxes, in the order of their names.
    mailboxes: &'a [NamedRow<'a>],
}

impl MigrationDraft<'_> {
    /// Lists the mailboxes in the MailMigration, each with a Secret of its own: a node learns the passwords of those that it
    /// syncs, and of no other. False where they are too many.
    fn add_listed(&self, plan: &mut ImportPlan) -> bool {
        let Self { settings, limits, name, spec, mailboxes } = *self;
        if mailboxes.len() > limits.listed {
            return false;
        }
        let mut spec = spec.clone();
        spec["mailboxes"] = mailboxes.iter().map(|mailbox| entry(name, mailbox)).collect();
        let migration = MigrationManifest::new(&settings.common, name, &spec);
        if migration.object.to_string().len() > limits.object {
            return false;
        }
        plan.migrations.push(migration);
        plan.secrets.extend(mailboxes.iter().filter_map(|mailbox| {
            let values: BTreeMap<String, SecretBox<[u8]>> = sides(mailbox.row)
                .into_iter()
                .filter_map(|(side, login)| {
                    let credential = login.credential.as_ref()?;
                    Some((key(side, credential), SecretBox::new(credential.value.expose_secret().into())))
                })
                .collect();
            (!values.is_empty()).then(|| SecretObject { name: names::secret(name, &mailbox.name), values })
        }));
        true
    }

    /// Spreads the mailboxes over CSVs by their names' hashes: a mailbox more or less changes one of them. Twice as many,
    /// where one would be too large, take half of each.
    fn add_in_csvs(&self, plan: &mut ImportPlan) -> Result<()> {
        let Self { settings, limits, name, spec, mailboxes } = *self;
        let used =
            |column: &&str| *column == "name" || mailboxes.iter().any(|mailbox| !field(mailbox, column).is_empty());
        let columns: Vec<&str> = csv::COLUMNS.into_iter().filter(used).collect();
        let mut header = Zeroizing::new(Vec::new());
        records::write_record(&mut header, columns.iter().map(|column| column.as_bytes()));
        let line = |to: &mut Zeroizing<Vec<u8>>, mailbox: &NamedRow<'_>| {
            records::write_record(to, columns.iter().map(|column| field(mailbox, column)));
        };
        let lengths: Vec<usize> = mailboxes
            .iter()
            .map(|mailbox| {
                let mut one = Zeroizing::new(Vec::new());
                line(&mut one, mailbox);
                one.len()
            })
            .collect();
        let most = limits.object.saturating_sub(FRAME) / 4 * 3; // base64
        let fits = |count: usize| {
            let mut sizes = vec![header.len(); count];
            for (mailbox, length) in mailboxes.iter().zip(&lengths) {
                sizes[names::bucket(&mailbox.name, count)] += length;
            }
            sizes.iter().all(|size| *size <= most)
        };
        let count = (0..=16).map(|power| 1 << power).find(|count| fits(*count)).ok_or_else(|| {
            Error::configuration("the table is too large for one import")
                .advice("Divide it, and import each part by a --name of its own")
        })?;
        let mut csvs: Vec<Zeroizing<Vec<u8>>> = (0..count).map(|_| Zeroizing::new(Vec::new())).collect();
        for (mailbox, length) in mailboxes.iter().zip(&lengths) {
            let csv = &mut csvs[names::bucket(&mailbox.name, count)];
            if csv.is_empty() {
                // As long as it gets, so that no part of it is left behind in a smaller buffer.
                csv.reserve_exact(most.max(header.len() + length));
                csv.extend_from_slice(&header);
            }
            line(csv, mailbox);
        }
        let migrations = count.div_ceil(limits.csvs);
        for number in 0..migrations {
            let name_of = |bucket: usize| format!("{name}-csv-{bucket}");
            let own: Vec<usize> =
                (number..count).step_by(migrations).filter(|bucket| !csvs[*bucket].is_empty()).collect();
            if own.is_empty() {
                continue;
            }
            let mut spec = spec.clone();
            spec[if settings.config_maps { "mailboxConfigMaps" } else { "mailboxSecrets" }] =
                own.iter().map(|bucket| json!({"name": name_of(*bucket), "key": CSV_KEY})).collect();
            let name = if migrations == 1 { name.to_owned() } else { format!("{name}-{}", number + 1) };
            plan.migrations.push(MigrationManifest::new(&settings.common, &name, &spec));
            if settings.config_maps {
                plan.config_maps.extend(own.into_iter().map(|bucket| ConfigMapObject {
                    name: name_of(bucket),
                    key: CSV_KEY,
                    csv: String::from_utf8_lossy(&csvs[bucket]).into_owned(),
                }));
                continue;
            }
            plan.secrets.extend(own.into_iter().map(|bucket| SecretObject {
                name: name_of(bucket),
                values: [(CSV_KEY.to_owned(), SecretBox::new(csvs[bucket].as_slice().into()))].into(),
            }));
        }
        Ok(())
    }
}

/// One mailbox of a list; what the API fills in by itself is left out.
fn entry(migration: &str, mailbox: &NamedRow<'_>) -> Value {
    let mut entry = json!({"name": mailbox.name});
    for (side, login) in sides(mailbox.row) {
        let mut account = json!({});
        if let Some(username) = username(mailbox, side) {
            account["username"] = json!(username);
        }
        if let Some(credential) = &login.credential {
            let reference = json!({"name": names::secret(migration, &mailbox.name), "key": key(side, credential)});
            account[if credential.kind == CredentialKind::Token { "tokenSecretRef" } else { "passwordSecretRef" }] =
                reference;
        }
        if account != json!({}) {
            entry[side] = account;
        }
    }
    entry
}

fn sides(row: &TableRow) -> [(&'static str, &RowAccount); 2] {
    [("source", &row.source), ("destination", &row.destination)]
}

fn key(side: &str, credential: &RowCredential) -> String {
    let kind = match credential.kind {
        CredentialKind::Password => "password",
        CredentialKind::Token => "token",
    };
    format!("{side}-{kind}")
}

/// The user name of one side, where it is not what the API takes by itself.
fn username<'a>(mailbox: &NamedRow<'a>, side: &str) -> Option<&'a str> {
    let TableRow { source, destination, .. } = mailbox.row;
    match side {
        "source" => (source.username != mailbox.name).then_some(source.username.as_str()),
        _ => (destination.username != source.username).then_some(destination.username.as_str()),
    }
}

/// A field of a CSV.
fn field<'a>(mailbox: &'a NamedRow<'_>, column: &str) -> &'a [u8] {
    let Some((side, part)) = column.split_once('_') else { return mailbox.name.as_bytes() };
    let login = if side == "source" { &mailbox.row.source } else { &mailbox.row.destination };
    let kind = match part {
        "username" => return username(mailbox, side).map_or(&[], str::as_bytes),
        "token" => CredentialKind::Token,
        _ => CredentialKind::Password,
    };
    let credential = login.credential.as_ref().filter(|credential| credential.kind == kind);
    credential.map_or(&[], |credential| credential.value.expose_secret())
}

/// What was made is what the API takes.
fn validate_migration(migration: &MigrationManifest) -> Result<()> {
    let mut problems = schema_check::schema_problems(&crd::schema::<MailMigration>()?, &migration.object);
    if problems.is_empty() {
        let typed: MailMigration = serde_json::from_value(migration.object.clone())
            .map_err(|_| Error::internal("the migration that was made can't be read again"))?;
        problems = validate::migration_problems(&typed.spec);
    }
    let Some(problem) = problems.into_iter().next() else { return Ok(()) };
    if problem.path.starts_with("spec.mailbox") {
        // Rows were checked; what the problem says may be a row's text.
        return Err(Error::internal(format!("{} is not what the API takes", problem.path)));
    }
    Err(Error::configuration(format!("{}: {}", problem.path, problem.message)).advice("Correct the command line"))
}

#[cfg(test)]
mod tests;
