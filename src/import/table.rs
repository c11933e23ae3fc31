//! A table as a whole: how its fields are delimited, where its header is, which rows it has.

use clap::ValueEnum;

use super::{
    columns::{self, ColumnSetting, KnownSides, TableColumns},
    delimiter_check::{self, FieldCountCheck, TableShape},
    findings::TableFindings,
    rows::{self, TableRow},
    side_settings::{ServerLocation, SideSettings},
    user_names,
};
use crate::{
    api::csv::records::{CsvDialect, CsvFault, CsvReader, CsvRecord},
    terminal_text::format_count,
};

/// Which kind of list it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum TableFormat {
    /// A table with a header, fields with a delimiter in them in double quotes (RFC 4180).
    #[default]
    Csv,
    /// imapsync's: `host1;user1;password1;host2;user2;password2`, without header and quoting; behind these only options
    /// (`--...`), which are not used. Lines that start with # are comments.
    Imapsync,
    /// A script with an imapsync command for each mailbox, whose options are taken over. Nothing of it is run: variables,
    /// loops and other programs are refused.
    ImapsyncScript,
}

/// How to read a table.
#[derive(Debug, Clone, Default)]
pub struct TableOptions {
    /// Which kind of list.
    pub format: TableFormat,
    /// Between two fields; found out where it is not given.
    pub delimiter: Option<u8>,
    /// The first line is data already.
    pub no_header: bool,
    /// What columns hold, as the command line says.
    pub column_settings: Vec<ColumnSetting>,
}

/// A table to fill in, with comments: what `mailferry import --template` prints.
pub(crate) const TEMPLATE: &str = include_str!("template.csv");

/// What was read.
#[derive(Debug, Default)]
pub struct ImportTable {
    /// Where everything stands.
    pub columns: TableColumns,
    /// Rows with something in them.
    pub count: usize,
    /// Those that can be used, with the places of source and destination.
    pub rows: Vec<(TableRow, [ServerLocation; 2])>,
    /// What is wrong, and what may be.
    pub findings: TableFindings,
}

const IMAPSYNC_COLUMNS: [&str; delimiter_check::IMAPSYNC_FIELDS] = [
    "source_host=1",
    "source_username=2",
    "source_password=3",
    "destination_host=4",
    "destination_username=5",
    "destination_password=6",
];

/// Reads a table without a byte order mark. `sides` are source and destination, as far as the command line knows them.
#[must_use]
pub fn read(text: &[u8], options: &TableOptions, sides: [&SideSettings; 2]) -> ImportTable {
    let mut table = ImportTable::default();
    let imapsync = options.format == TableFormat::Imapsync;
    let has_header = !options.no_header && !imapsync;
    let (text, line, marked) = excel_mark(text);
    let (text, line) = if has_header { without_comments(text, line) } else { (text, line) };
    let delimiter = match options.delimiter.or(marked) {
        Some(delimiter) => delimiter,
        None if imapsync => b';',
        None => match delimiter(text, has_header) {
            Ok(delimiter) => delimiter,
            Err(what) => {
                table.findings.problem_of_all(what);
                return table;
            }
        },
    };
    let dialect = CsvDialect { delimiter, quotes: !imapsync };
    let skipped = |record: &CsvRecord| {
        record.is_blank() || (imapsync && record.fields.first().is_some_and(|field| field.starts_with(b"#")))
    };
    let mut records =
        CsvReader::new(text, line, dialect).filter(|record| !record.as_ref().is_ok_and(skipped)).peekable();
    let Some(first) = records.peek() else {
        table.findings.problem_of_all("there is nothing in it");
        return table;
    };
    let width = first.as_ref().map_or(0, |record| record.fields.len());
    let headings: Option<Vec<String>> = first
        .as_ref()
        .ok()
        .filter(|_| has_header)
        .map(|record| record.fields.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect());
    if has_header && let Some(Err((line, fault))) = records.next_if(|_| true) {
        table.findings.problem(line, fault.message());
        return table;
    }
    let given = KnownSides { source: sides[0].given(), destination: sides[1].given() };
    let settings = column_settings(options);
    let width = if imapsync { width.max(IMAPSYNC_COLUMNS.len()) } else { width };
    let no_users = user_names::switch_columns(CsvReader::new(text, line, dialect).flatten(), has_header);
    table.columns = columns::find(headings.as_deref(), (width, &no_users), &settings, given, &mut table.findings);
    if table.findings.problems.is_empty() {
        columns::check_complete(&table.columns, given, &mut table.findings);
    }
    if !table.findings.problems.is_empty() {
        return table;
    }
    let mut lines = FieldCountCheck::new(match headings {
        _ if imapsync => TableShape::Imapsync,
        Some(_) => TableShape::Header(width),
        None => TableShape::FirstLine(width),
    });
    let guessed = !imapsync && options.delimiter.or(marked).is_none();
    let mut rows = Vec::new();
    let mut imapsync_options = 0_u64;
    for record in records {
        table.count += 1;
        let record = match record {
            Ok(record) => record,
            Err((line, fault)) => {
                let rest = if fault == CsvFault::OpenQuote { "; what follows was not read" } else { "" };
                table.findings.problem(line, format!("{}{rest}", fault.message()));
                continue;
            }
        };
        if let Some(what) = lines.check_record(&record) {
            table.findings.problem(record.line, what);
            continue;
        }
        if imapsync {
            imapsync_options += u64::from(
                record.fields.iter().skip(IMAPSYNC_COLUMNS.len()).any(|field| !field.trim_ascii().is_empty()),
            );
        }
        let row = rows::read(&record, &table.columns, sides, &mut table.findings);
        if let Some(row) = row.as_ref().filter(|_| guessed) {
            delimiter_check::check_undivided(row, &table.columns, !has_header, &mut table.findings);
        }
        rows.extend(row);
    }
    user_names::check_domains(&rows, &table.columns, &mut table.findings);
    delimiter_check::check_shifted(&rows, &mut table.findings);
    delimiter_check::check_swapped(&rows, &table.columns, &options.column_settings, &mut table.findings);
    if imapsync_options > 0 {
        table.findings.warning_of_all(format!(
            "there is more behind the sixth field (options for imapsync) on {}: it is not used",
            format_count(imapsync_options, "line")
        ));
    }
    if table.count == 0 {
        table.findings.problem_of_all("there are no rows");
    }
    table.rows = rows::check_duplicates(rows, sides, &mut table.findings);
    table
}

/// The settings of columns: those of the command line, and those that the format implies beside them.
fn column_settings(options: &TableOptions) -> Vec<ColumnSetting> {
    let mut settings = options.column_settings.clone();
    if options.format == TableFormat::Imapsync {
        let fixed = IMAPSYNC_COLUMNS.iter().filter_map(|column| column.parse().ok());
        settings.extend(fixed.filter(|column: &ColumnSetting| {
            !options.column_settings.iter().any(|setting| setting.meaning == column.meaning)
        }));
    }
    settings
}

/// A first line `sep=;`, which Excel writes and reads, in quotes or without: what follows it, the number of that line, and the
/// delimiter.
fn excel_mark(text: &[u8]) -> (&[u8], usize, Option<u8>) {
    let end = memchr::memchr(b'\n', text).unwrap_or(text.len());
    let line = text[..end].strip_suffix(b"\r").unwrap_or(&text[..end]);
    let line = line.strip_prefix(b"\"").and_then(|line| line.strip_suffix(b"\"")).unwrap_or(line);
    match line {
        [b's' | b'S', b'e' | b'E', b'p' | b'P', b'=', delimiter, rest @ ..]
            if rest.iter().all(|byte| matches!(byte, b' ' | b';' | b',')) =>
        {
            (text.get(end + 1..).unwrap_or_default(), 2, Some(*delimiter))
        }
        _ => (text, 1, None),
    }
}

/// What follows the lines before the header that start with `# `, and the number of its first line.
fn without_comments(text: &[u8], line: usize) -> (&[u8], usize) {
    let (mut rest, mut number) = (text, line);
    while rest.starts_with(b"# ") || rest.starts_with(b"#\n") || rest.starts_with(b"#\r\n") {
        let Some(end) = memchr::memchr(b'\n', rest) else { break };
        (rest, number) = (&rest[end + 1..], number + 1);
    }
    (rest, number)
}

/// Finds the delimiter: what divides the header most, or without one, what divides all lines alike.
fn delimiter(text: &[u8], has_header: bool) -> Result<u8, &'static str> {
    const SAMPLE: usize = 100;
    let widths = |delimiter: u8| -> Vec<usize> {
        let records = CsvReader::new(text, 1, CsvDialect { delimiter, quotes: true });
        let records = records.take(if has_header { 10 } else { SAMPLE }).flatten().filter(|record| !record.is_blank());
        records.map(|record| record.fields.len()).collect()
    };
    let candidates = [b';', b',', b'\t'].map(|delimiter| (delimiter, widths(delimiter)));
    let first = |widths: &[usize]| widths.first().copied().unwrap_or_default();
    if !has_header {
        let alike: Vec<u8> = candidates
            .iter()
            .filter(|(_, widths)| first(widths) > 1 && widths.iter().all(|width| *width == first(widths)))
            .map(|(delimiter, _)| *delimiter)
            .collect();
        match alike.as_slice() {
            [] => {}
            [one] => return Ok(*one),
            _ => return Err("more than one character could be the delimiter: say which by --delimiter"),
        }
    }
    let best = candidates.iter().rev().max_by_key(|(_, widths)| first(widths)).filter(|(_, widths)| first(widths) > 1);
    Ok(best.map_or(b',', |(delimiter, _)| *delimiter))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_plain(text: &[u8]) -> ImportTable {
        read(text, &TableOptions::default(), [&SideSettings::default(), &SideSettings::default()])
    }

    #[test]
    fn the_template_can_be_read_as_it_is() {
        let table = read_plain(TEMPLATE.as_bytes());
        assert_eq!(table.findings, TableFindings::default());
        assert_eq!((table.count, table.rows.len()), (2, 2));
        let line = TEMPLATE.lines().position(|line| line.starts_with("source_host")).unwrap() + 2;
        assert_eq!(table.rows[0].0.line, line, "lines are counted with the comments");
    }

    #[test]
    fn the_mark_of_excel_is_skipped_however_it_is_written() {
        let rows = "host1;user1;password1;host2;user2;password2\na.example;a@x.example;p;b.example;a@x.example;q\n";
        for mark in ["sep=;\n", "SEP=;\r\n", "\"sep=;\"\r\n", "sep=; \n", "sep=;;;;;;\n"] {
            let table = read_plain(format!("{mark}{rows}").as_bytes());
            assert_eq!((table.rows.len(), table.findings), (1, TableFindings::default()), "{mark:?}");
        }
        assert_eq!(excel_mark(b"sep=;").0, b"");
        assert_eq!(excel_mark(b"separator,user\n").2, None);
    }

    #[test]
    fn a_number_sign_is_a_comment_before_the_header_only() {
        let rows =
            "user,password,host1,host2\n#a@x.example,p,a.example,b.example\n# b@x.example,p,a.example,b.example\n";
        let table = read_plain(format!("# first\n#\n{rows}").as_bytes());
        assert_eq!(table.rows.len(), 2, "{:?}", table.findings);
        assert_eq!(table.rows[0].0.line, 4);
        assert_eq!(read_plain(format!("#,{}", rows.replace('\n', "\n1,")).as_bytes()).columns.unused, [0]);
    }
}
