//! The records of a CSV (RFC 4180), read and written byte by byte: fields are passwords, and may be no text at all.

use zeroize::Zeroizing;

/// How fields stand in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CsvDialect {
    /// Between two fields.
    pub delimiter: u8,
    /// Fields may stand in double quotes; otherwise a quote is a character like any other.
    pub quotes: bool,
}

impl Default for CsvDialect {
    /// That of RFC 4180.
    fn default() -> Self {
        Self { delimiter: b',', quotes: true }
    }
}

/// One record, with the number of its first line.
#[derive(Debug)]
pub(crate) struct CsvRecord {
    /// Where it starts, from 1.
    pub line: usize,
    /// Its fields, without quotes around them.
    pub fields: Vec<Zeroizing<Vec<u8>>>,
}

impl CsvRecord {
    /// True where nothing stands: an empty line, or delimiters only.
    #[must_use]
    pub(crate) fn is_blank(&self) -> bool {
        self.fields.iter().all(|field| field.is_empty())
    }
}

/// Why a record can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CsvFault {
    /// A quoted field has no end. Where the next record would start is not known: nothing follows.
    OpenQuote,
    /// A quoted field ends, and neither a delimiter nor the line's end follows. The next record starts on the next line.
    BehindQuote,
}

impl CsvFault {
    /// The same for people.
    #[must_use]
    pub(crate) const fn message(self) -> &'static str {
        match self {
            Self::OpenQuote => "a quote is not closed",
            Self::BehindQuote => "text behind a closing quote",
        }
    }
}

/// Reads records, and goes on behind one that can't be read.
#[derive(Debug, Clone)]
pub(crate) struct CsvReader<'a> {
    rest: &'a [u8],
    line: usize,
    dialect: CsvDialect,
}

impl<'a> CsvReader<'a> {
    /// The records of `bytes`, whose first line has this number.
    #[must_use]
    pub(crate) const fn new(bytes: &'a [u8], line: usize, dialect: CsvDialect) -> Self {
        Self { rest: bytes, line, dialect }
    }

    /// One field, and whether the record ends behind it.
    fn next_field(&mut self) -> Result<(Zeroizing<Vec<u8>>, bool), CsvFault> {
        let delimiter = self.dialect.delimiter;
        let field = match self.rest.strip_prefix(b"\"") {
            Some(rest) if self.dialect.quotes => {
                self.rest = rest;
                self.quoted_field()?
            }
            _ => {
                let end = memchr::memchr2(delimiter, b'\n', self.rest).unwrap_or(self.rest.len());
                let (field, rest) = self.rest.split_at(end);
                self.rest = rest;
                let ends_line = rest.first() != Some(&delimiter);
                let field = if ends_line { field.strip_suffix(b"\r").unwrap_or(field) } else { field };
                Zeroizing::new(field.to_vec())
            }
        };
        for (end, last) in [(&[delimiter][..], false), (b"\r\n", true), (b"\n", true)] {
            if let Some(rest) = self.rest.strip_prefix(end) {
                self.rest = rest;
                self.line += usize::from(last);
                return Ok((field, last));
            }
        }
        if matches!(self.rest, b"" | b"\r") {
            self.rest = &[];
            return Ok((field, true));
        }
        Err(CsvFault::BehindQuote)
    }

    fn quoted_field(&mut self) -> Result<Zeroizing<Vec<u8>>, CsvFault> {
        let mut field = Zeroizing::new(Vec::new());
        loop {
            let end = memchr::memchr(b'"', self.rest).ok_or(CsvFault::OpenQuote)?;
            let (part, rest) = self.rest.split_at(end);
            self.line += memchr::memchr_iter(b'\n', part).count();
            field.extend_from_slice(part);
            self.rest = &rest[1..];
            match self.rest.strip_prefix(b"\"") {
                Some(rest) => {
                    field.push(b'"');
                    self.rest = rest;
                }
                None => return Ok(field),
            }
        }
    }

    fn skip_faulty(&mut self, fault: CsvFault) {
        self.rest = match (fault, memchr::memchr(b'\n', self.rest)) {
            (CsvFault::BehindQuote, Some(end)) => &self.rest[end + 1..],
            _ => &[],
        };
        self.line += 1;
    }
}

impl Iterator for CsvReader<'_> {
    type Item = Result<CsvRecord, (usize, CsvFault)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let line = self.line;
        let mut fields = Vec::new();
        loop {
            match self.next_field() {
                Ok((field, last)) => {
                    fields.push(field);
                    if last {
                        return Some(Ok(CsvRecord { line, fields }));
                    }
                }
                Err(fault) => {
                    self.skip_faulty(fault);
                    return Some(Err((line, fault)));
                }
            }
        }
    }
}

/// Adds one record in the dialect of RFC 4180, such that [`CsvReader`] gives the same fields back.
pub(crate) fn write_record<'a>(to: &mut Zeroizing<Vec<u8>>, fields: impl Iterator<Item = &'a [u8]>) {
    for (index, field) in fields.enumerate() {
        if index > 0 {
            to.push(b',');
        }
        if field.iter().any(|b| matches!(b, b',' | b'"' | b'\r' | b'\n')) {
            to.push(b'"');
            for byte in field {
                to.push(*byte);
                if *byte == b'"' {
                    to.push(b'"');
                }
            }
            to.push(b'"');
        } else {
            to.extend_from_slice(field);
        }
    }
    to.push(b'\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type FieldValues = Vec<Vec<u8>>;

    fn read(text: &[u8], dialect: CsvDialect) -> Vec<Result<FieldValues, (usize, CsvFault)>> {
        let fields = |record: CsvRecord| record.fields.iter().map(|field| field.to_vec()).collect();
        CsvReader::new(text, 1, dialect).map(|record| record.map(fields)).collect()
    }

    #[test]
    fn what_stands_behind_a_wrong_record_is_read() {
        let found = read(b"a,\"b\"c\nd,e\n\"f\n", CsvDialect::default());
        let rest = vec![b"d".to_vec(), b"e".to_vec()];
        assert_eq!(found, [Err((1, CsvFault::BehindQuote)), Ok(rest), Err((3, CsvFault::OpenQuote))]);
    }

    #[test]
    fn without_quoting_a_quote_is_a_character() {
        let found = read(b"a;\"b\n", CsvDialect { delimiter: b';', quotes: false });
        assert_eq!(found, [Ok(vec![b"a".to_vec(), b"\"b".to_vec()])]);
    }

    #[test]
    fn lines_are_counted_through_quoted_line_breaks() {
        let lines: Vec<usize> =
            CsvReader::new(b"a\n\"b\nc\"\nd\n", 5, CsvDialect::default()).map(|record| record.unwrap().line).collect();
        assert_eq!(lines, [5, 6, 8]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(records in prop::collection::vec(prop::collection::vec(any::<Vec<u8>>(), 2..5), 1..5)) {
            let mut text = Zeroizing::new(Vec::new());
            for record in &records {
                write_record(&mut text, record.iter().map(Vec::as_slice));
            }
            let found: Vec<_> = read(&text, CsvDialect::default()).into_iter().map(Result::unwrap).collect();
            prop_assert_eq!(found, records);
        }
    }
}
