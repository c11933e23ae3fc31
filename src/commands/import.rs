//! `mailferry import`: lists of mailboxes, as hosting companies have them, into manifests and Secrets.

use std::{
    fmt::Write as _,
    fs,
    io::{self, IsTerminal as _, Read as _, Write as _},
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::Map;
use zeroize::Zeroizing;

use super::shared_args::master_mode;
use crate::{
    api::{MasterMode, MasterUser, SecretKeyRef, TlsMode},
    error::{Error, Result, Side},
    import::{
        apply,
        columns::ColumnSetting,
        encoding::{self, TableEncoding},
        files, imapsync_script, names,
        objects::ImportMetadata,
        plan::{self, ImportPlan, ImportSettings, ObjectLimits},
        side_settings::{ServerChoice, SideSettings, split_port},
        table::{self, ImportTable, TableFormat, TableOptions},
    },
    terminal_text::{format_count, printable, shell_word},
};

/// Turn a list of mailboxes (CSV) into a MailMigration and Secrets: files, or applied to a cluster.
///
/// The first line names the columns, in your own words: `email`, `Old Password`, `user1`, `Mot de passe`,
/// `destination_password`. A column that does not say whose it is holds for both sides. Comma, semicolon and tab are told
/// apart, and so are the encodings that spreadsheets write. `--template` prints a table to fill in.
///
/// Every row is checked before anything is written; what is wrong is said with its line. No password is ever shown.
///
/// Exits with 0, with 2 when the table or the command line is wrong, else with the code of the class of what the cluster
/// said (see `mailferry --help`).
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// The table; `-` reads stdin.
    #[arg(value_name = "FILE", required_unless_present = "template", default_value = "-", hide_default_value = true)]
    pub table: PathBuf,

    /// Print a table to fill in, with comments, and do nothing else.
    #[arg(long, exclusive = true, help_heading = "What to do")]
    pub template: bool,

    /// What the migration is called, and what the names of Secrets start with: lower-case letters, digits and -
    /// [default: the file's name].
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// The namespace of everything that is made [default: none in files; with --apply that of the kubeconfig].
    #[arg(long, short, value_name = "NAME", value_parser = namespace)]
    pub namespace: Option<String>,

    /// What a column holds, by its heading or its number: `--columns source_username=Login,source_password=3`. It wins over
    /// the headings; `name=` leaves a column out. Known: name, and host, port, username, domain, password and token, each also
    /// with `source_` or `destination_` before it.
    #[arg(long, value_name = "MEANING=COLUMN", value_delimiter = ',', help_heading = "The table")]
    pub columns: Vec<ColumnSetting>,

    /// The first line is data already: say by --columns what is where.
    #[arg(long, help_heading = "The table")]
    pub no_header: bool,

    /// Between two fields: a character, or `tab` [default: whichever of ; , and tab it is].
    #[arg(long, value_name = "CHAR", value_parser = delimiter, help_heading = "The table")]
    pub delimiter: Option<u8>,

    /// How bytes stand for characters.
    #[arg(
        long,
        value_enum,
        value_name = "NAME",
        default_value_t,
        hide_possible_values = false,
        help_heading = "The table"
    )]
    pub encoding: TableEncoding,

    /// Which kind of list it is.
    #[arg(long, value_enum, value_name = "KIND", default_value_t, help_heading = "The table")]
    pub format: TableFormat,

    #[command(flatten)]
    pub source: SourceArgs,

    #[command(flatten)]
    pub destination: DestinationArgs,

    /// So many mailboxes at the same time [default: the API's, 10].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000),
        help_heading = "The migration")]
    pub parallelism: Option<u16>,

    /// Make the migration suspended: nothing starts until `spec.suspend` is false.
    #[arg(long, help_heading = "The migration")]
    pub suspend: bool,

    /// Write the mailboxes into ConfigMaps (CSV), which a repository of manifests may hold as they are: for tables without
    /// passwords, whose mailboxes administrators log in for.
    #[arg(long, help_heading = "The migration")]
    pub config_map: bool,

    /// Where files go [default: ./NAME]. `migration.yaml` may be read by everybody; `secrets.yaml` only by you.
    #[arg(long, short, value_name = "DIR", help_heading = "What to do")]
    pub output: Option<PathBuf>,

    /// Replace files that hold something else.
    #[arg(long, help_heading = "What to do")]
    pub force: bool,

    /// Only check the table, and say what would be made.
    #[arg(long, conflicts_with_all = ["apply", "output"], help_heading = "What to do")]
    pub check: bool,

    /// Apply to the cluster that kubectl would use (server-side, as field manager mailferry-import) instead of writing
    /// files; with --output do both.
    #[arg(long, help_heading = "What to do")]
    pub apply: bool,

    /// With --apply: have the API server check everything and keep nothing.
    #[arg(long, requires = "apply", help_heading = "What to do")]
    pub dry_run: bool,

    /// With --apply: take over fields that somebody else wrote.
    #[arg(long, requires = "apply", help_heading = "What to do")]
    pub force_conflicts: bool,

    /// With --apply: this context of the kubeconfig.
    #[arg(long, value_name = "NAME", requires = "apply", help_heading = "What to do")]
    pub context: Option<String>,
}

/// The flags of one side.
macro_rules! side_args {
    ($args:ident, $side:literal, $heading:literal) => {
        #[doc = concat!("The ", $side, ".")]
        #[derive(Debug, Clone, Default, Args)]
        pub struct $args {
            /// See its help.
            #[arg(help = concat!("The ", $side, "'s host: a name or an address, also with its port (HOST:993), unless the table has a column with it"),
                id = concat!($side, "-host"), long = concat!($side, "-host"), value_name = "HOST", help_heading = $heading)]
            pub host: Option<String>,

            /// Its port [default: 993 with TLS Implicit, else 143].
            #[arg(id = concat!($side, "-port"), long = concat!($side, "-port"), value_name = "PORT",
                value_parser = clap::value_parser!(u16).range(1..), help_heading = $heading)]
            pub port: Option<u16>,

            /// How the connection is protected: `Implicit`, `StartTLS` or `None` [default: Implicit].
            #[arg(id = concat!($side, "-tls"), long = concat!($side, "-tls"), value_name = "MODE",
                value_parser = tls_mode, help_heading = $heading)]
            pub tls: Option<TlsMode>,

            /// A file with certificates (PEM) of extra authorities, for servers with a certificate of their own.
            #[arg(id = concat!($side, "-ca-file"), long = concat!($side, "-ca-file"), value_name = "FILE",
                help_heading = $heading)]
            pub ca_file: Option<PathBuf>,

            /// A MailServer of this name, instead of host, port and TLS.
            #[arg(id = concat!($side, "-server"), long = concat!($side, "-server"), value_name = "NAME",
                conflicts_with_all = [concat!($side, "-host"), concat!($side, "-port"), concat!($side, "-tls"),
                    concat!($side, "-ca-file")],
                help_heading = $heading)]
            pub server: Option<String>,

            /// An administrator who logs in for mailboxes without a password of their own.
            #[arg(id = concat!($side, "-master-user"), long = concat!($side, "-master-user"), value_name = "USER",
                requires = concat!($side, "-master-secret"), help_heading = $heading)]
            pub master_user: Option<String>,

            /// Where the administrator's password is: a Secret and its key. It is not made here.
            #[arg(id = concat!($side, "-master-secret"), long = concat!($side, "-master-secret"), value_name = "NAME/KEY",
                value_parser = secret_key, requires = concat!($side, "-master-user"), help_heading = $heading)]
            pub master_secret: Option<SecretKeyRef>,

            /// How the administrator names the mailbox: `AuthorizationIdentity`, or `Suffix` for `user*administrator`
            /// [default: AuthorizationIdentity].
            #[arg(id = concat!($side, "-master-mode"), long = concat!($side, "-master-mode"), value_name = "MODE",
                value_parser = master_mode, requires = concat!($side, "-master-user"), help_heading = $heading)]
            pub master_mode: Option<MasterMode>,
        }

        impl $args {
            fn settings(&self) -> Result<SideSettings> {
                let Self { host, port, tls, ca_file, server, master_user, master_secret, master_mode } = self;
                let (host, own_port) = host.as_deref().map(split_port).unzip();
                let own_port = own_port.flatten();
                if port.zip(own_port).is_some_and(|(port, other)| port != other) {
                    return Err(Error::configuration(concat!("--", $side, "-host has another port than --", $side, "-port"))
                        .advice("Say the port once"));
                }
                let server = match (server, host) {
                    (Some(name), _) => Some(ServerChoice::Reference(name.clone())),
                    (None, host) => host.map(str::to_owned).map(ServerChoice::Host),
                };
                let master = master_user.clone().zip(master_secret.clone()).map(|(username, password_secret_ref)| {
                    MasterUser { username, password_secret_ref, mode: master_mode.unwrap_or_default(), separator: None }
                });
                let ca_bundle = ca_file.as_deref().map(authority).transpose()?;
                let settings = SideSettings { server, port: port.or(own_port), tls: *tls, ca_bundle, master };
                match settings.problem() {
                    Some(what) => Err(Error::configuration(format!(concat!($side, ": {}"), what))),
                    None => Ok(settings),
                }
            }
        }
    };
}

side_args!(SourceArgs, "source", "Source");
side_args!(DestinationArgs, "destination", "Destination");

fn authority(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| {
        Error::configuration(format!("{} can't be read: {error}", path.display()))
            .advice("Give a file with certificates as PEM text")
    })
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text {
        "tab" | "\\t" => Ok(b'\t'),
        text => match text.as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n') => Ok(*byte),
            _ => Err("write one character, such as `;`, or `tab`".to_owned()),
        },
    }
}

pub(super) fn namespace(text: &str) -> Result<String, String> {
    let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > 63 || !text.chars().all(name) || text.starts_with('-') || text.ends_with('-') {
        return Err("a namespace has up to 63 lower-case letters, digits and -".to_owned());
    }
    Ok(text.to_owned())
}

fn tls_mode(text: &str) -> Result<TlsMode, String> {
    match text.to_ascii_lowercase().as_str() {
        "implicit" => Ok(TlsMode::Implicit),
        "starttls" => Ok(TlsMode::StartTls),
        "none" => Ok(TlsMode::None),
        _ => Err("write Implicit, StartTLS or None".to_owned()),
    }
}

fn secret_key(text: &str) -> Result<SecretKeyRef, String> {
    match text.split_once('/') {
        Some((name, key)) if !name.is_empty() && !key.is_empty() => {
            Ok(SecretKeyRef { name: name.to_owned(), key: key.to_owned() })
        }
        _ => Err("write NAME/KEY, such as migrator/password".to_owned()),
    }
}

impl ImportArgs {
    /// Imports the table; returns the exit code. What was made is said on stdout, everything else on stderr.
    ///
    /// # Errors
    /// Configuration when the table or the command line is wrong; what the cluster says.
    pub async fn run(self) -> Result<u8> {
        if self.template {
            print(table::TEMPLATE)?;
            return Ok(0);
        }
        let mut settings = ImportSettings {
            common: ImportMetadata { import: self.import_name()?, namespace: self.namespace.clone() },
            sides: [self.source.settings()?, self.destination.settings()?],
            parallelism: self.parallelism,
            suspend: self.suspend,
            config_maps: self.config_map,
            rules: Map::new(),
        };
        let file = self.file();
        let bytes = self.read()?;
        let text = encoding::decode(&file, &bytes, self.encoding)?;
        drop(bytes);
        let mut table = self.read_table(&text.bytes, &mut settings);
        for (side, settings) in [Side::Source, Side::Destination].into_iter().zip(&settings.sides) {
            if let Some(doubt) = settings.port_warning() {
                table.findings.warning_of_all(format!("--{side}-port: {doubt} (--{side}-tls)"));
            }
        }
        let client = match (self.apply, table.findings.problems.is_empty()) {
            (true, true) => {
                let (client, namespace) = apply::cluster(self.context.as_deref()).await?;
                settings.common.namespace.get_or_insert(namespace);
                Some(client)
            }
            _ => None,
        };
        let plan = if table.findings.problems.is_empty() {
            plan::plan(&table.rows, &settings, ObjectLimits::default(), &mut table.findings)?
        } else {
            ImportPlan::default()
        };
        print_message(&table.findings.text(&file));
        if !table.findings.problems.is_empty() {
            print_message(&columns_line(&table));
            let problems = format_count(table.findings.problems.len() as u64, "problem");
            return Err(Error::configuration(format!("{file}: {problems}; nothing was made"))
                .advice("Correct the table, or say by --columns, --delimiter and --encoding how to read it"));
        }
        print_message(&summary(&file, &table, text.read_as, &plan));
        let common = &settings.common;
        let folder = match (&self.output, self.apply || self.check) {
            (Some(folder), _) => Some(folder.clone()),
            (None, true) => None,
            (None, false) => Some(PathBuf::from(&common.import)),
        };
        if let Some(folder) = folder {
            let written = files::write(&folder, &plan, common, self.force)?;
            for files::WrittenFile { path, unchanged } in &written {
                print(&format!("{}{}\n", path.display(), if *unchanged { " (unchanged)" } else { "" }))?;
            }
            if client.is_none() {
                let paths: Vec<&Path> = written.iter().map(|written| written.path.as_path()).collect();
                print_message(&next_with_files(&paths, &plan, &settings));
            }
        }
        if let Some(client) = client {
            let options = apply::ApplyOptions { dry_run: self.dry_run, force_conflicts: self.force_conflicts };
            apply::apply(&client, &plan, common, options, &mut io::stdout()).await?;
            if !self.dry_run {
                let left_over = apply::list_left_over_secrets(&client, &plan, common).await.unwrap_or_default();
                print_message(&next_in_cluster(&plan, common, self.suspend, &left_over));
            }
        }
        Ok(0)
    }

    /// Reads the table, or the script, which has settings of its own: the command line wins over these.
    fn read_table(&self, text: &[u8], settings: &mut ImportSettings) -> ImportTable {
        let [source, destination] = &mut settings.sides;
        if self.format != TableFormat::ImapsyncScript {
            let reading = TableOptions {
                format: self.format,
                delimiter: self.delimiter,
                no_header: self.no_header,
                column_settings: self.columns.clone(),
            };
            return table::read(text, &reading, [source, destination]);
        }
        let read_file = |path: &Path| fs::read(path).map(Zeroizing::new);
        let (table, script) = imapsync_script::read(text, [source, destination], &read_file);
        for (side, tls) in [source, destination].into_iter().zip(script.tls) {
            side.tls = side.tls.or(tls);
        }
        settings.rules = script.rules;
        table
    }

    /// The table's name in messages.
    fn file(&self) -> String {
        if self.table == Path::new("-") { "standard input".to_owned() } else { self.table.display().to_string() }
    }

    fn import_name(&self) -> Result<String> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None if self.table == Path::new("-") => {
                return Err(Error::configuration("the migration needs a name").advice("Add --name NAME"));
            }
            None => {
                let stem = self.table.file_stem().unwrap_or_default().to_string_lossy();
                names::slug(&stem, names::MAX_IMPORT)
            }
        };
        if !names::is_import_name(&name) {
            return Err(Error::configuration(format!("`{name}` can't be the migration's name")).advice(format!(
                "Say --name with up to {} lower-case letters, digits and -, such as acme",
                names::MAX_IMPORT
            )));
        }
        Ok(name)
    }

    fn read(&self) -> Result<Zeroizing<Vec<u8>>> {
        let read = if self.table == Path::new("-") {
            if io::stdin().is_terminal() {
                print_message("reading the table from the terminal; end it by Ctrl-D\n");
            }
            let mut bytes = Zeroizing::new(Vec::new());
            io::stdin().read_to_end(&mut bytes).map(|_| bytes)
        } else {
            fs::read(&self.table).map(Zeroizing::new)
        };
        read.map_err(|error| {
            Error::configuration(format!("{} can't be read: {error}", self.file()))
                .advice("Check the path of the table")
        })
    }
}

/// What was read and what it makes.
fn summary(file: &str, table: &ImportTable, read_as: Option<&str>, plan: &ImportPlan) -> String {
    let rows = format_count(table.count as u64, "row");
    let encoding = read_as.map_or_else(String::new, |encoding| format!(" (read as {encoding})"));
    let mailboxes = format_count(plan.mailboxes as u64, "mailbox");
    let migrations = format_count(plan.migrations.len() as u64, "MailMigration");
    let secrets = match plan.config_maps.len() {
        0 => format_count(plan.secrets.len() as u64, "Secret"),
        maps => format_count(maps as u64, "ConfigMap"),
    };
    format!("{file}{encoding}: {rows}, {mailboxes}: {migrations}, {secrets}\n{}", columns_line(table))
}

/// Which columns were found; nothing of a script, which has none, and where not even the first line could be read.
fn columns_line(table: &ImportTable) -> String {
    let columns = table.columns.text();
    if columns.is_empty() {
        return String::new();
    }
    let mut text = format!("columns: {columns}");
    if !table.columns.unused.is_empty() {
        let unused: Vec<String> = table.columns.unused.iter().map(|index| (index + 1).to_string()).collect();
        let _ = write!(text, "; not used: {}", unused.join(", ")); // a String takes every write
    }
    text.push('\n');
    text
}

/// For so many migrations it is written out what to type next.
const NEXT_SHOWN: usize = 10;

/// What to type next.
fn next_with_files(paths: &[&Path], plan: &ImportPlan, settings: &ImportSettings) -> String {
    let files: Vec<String> =
        paths.iter().map(|path| format!(" -f {}", shell_word(&path.display().to_string()))).collect();
    // Secrets first.
    let cluster = files.iter().rev().map(String::as_str).collect::<String>();
    let files = files.concat();
    let mut extra = String::new();
    for side in &settings.sides {
        if let Some(ServerChoice::Reference(name)) = &side.server {
            let _ = writeln!(extra, "  MailServer {name} must be there too (in a file of its own: -f)");
        }
        if let Some(master) = &side.master {
            let SecretKeyRef { name, key } = &master.password_secret_ref;
            let _ = writeln!(
                extra,
                "  Secret {name} with the key {key} must be there too (in a file: --secret {name}/{key}=PATH)"
            );
        }
    }
    let choices: Vec<String> = match plan.migrations.as_slice() {
        [] | [_] => vec![String::new()],
        several => several.iter().map(|migration| format!(" --migration {}", migration.name)).collect(),
    };
    let of_all = |command: &str| -> String {
        let lines = choices.iter().take(NEXT_SHOWN).map(|choice| format!("  mailferry {command}{files}{choice}\n"));
        let more = choices.len().saturating_sub(NEXT_SHOWN);
        let more =
            if more > 0 { format!("  and the same for {more} more, named in the file\n") } else { String::new() };
        lines.collect::<String>() + &more
    };
    let (check, run) = (of_all("check"), of_all("run"));
    format!("next:\n{extra}{check}{run}or in a cluster:\n  kubectl apply --server-side{cluster}\n")
}

fn next_in_cluster(plan: &ImportPlan, common: &ImportMetadata, suspended: bool, left_over: &[String]) -> String {
    let namespace = common.namespace.as_ref().map_or_else(String::new, |name| format!(" -n {name}"));
    let mut text = format!("next:\n  kubectl get mailmigrations,mailboxsyncs{namespace}\n");
    if suspended {
        for migration in &plan.migrations {
            let _ = writeln!(
                text,
                "  kubectl patch mailmigration {}{namespace} --type merge -p '{{\"spec\":{{\"suspend\":false}}}}'",
                migration.name
            );
        }
    }
    if !left_over.is_empty() {
        let secrets = format_count(left_over.len() as u64, "Secret");
        let shown = left_over.iter().take(10).cloned().collect::<Vec<_>>().join(" ");
        let more = if left_over.len() > 10 { " ..." } else { "" };
        let _ = writeln!(
            text,
            "{secrets} of earlier imports of this name belong to no mailbox any more. When their syncs have ended:\n\
             \x20 kubectl delete secret{namespace} {shown}{more}"
        );
    }
    text
}

/// For people. What stands there may hold a file's name: a terminal obeys it.
fn print_message(text: &str) {
    let mut stderr = io::stderr();
    for line in text.lines() {
        let _ = writeln!(stderr, "{}", printable(line)); // nobody to tell
    }
}

/// For programs.
fn print(text: &str) -> Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::internal(format!("cannot write: {error}")))
        }
        _ => Ok(()),
    }
}
