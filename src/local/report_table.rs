//! Tables of counts: columns with nothing but zeros are left out, and the others explained.

/// A column of numbers in a table: its head, what that means, whether it stands there with nothing but zeros, the numbers.
pub(crate) struct Column {
    head: &'static str,
    legend: &'static str,
    always: bool,
    cells: Vec<String>,
}

impl Column {
    /// A column that stands there where a count is not 0.
    pub(crate) fn of_counts(head: &'static str, legend: &'static str, counts: impl IntoIterator<Item = u64>) -> Self {
        Self { head, legend, always: false, cells: counts.into_iter().map(|count| count.to_string()).collect() }
    }

    /// A column of other texts.
    pub(crate) const fn of_texts(head: &'static str, cells: Vec<String>) -> Self {
        Self { head, legend: "", always: true, cells }
    }

    /// The same column, even where it has nothing but zeros.
    pub(crate) fn always(self) -> Self {
        Self { always: true, ..self }
    }

    fn is_shown(&self) -> bool {
        self.always || self.cells.iter().any(|cell| cell != "0")
    }
}

/// Rows of names, the columns that say something, and states; and what the columns are.
pub(crate) fn table(
    name: &str,
    names: Vec<String>,
    columns: Vec<Column>,
    states: Vec<String>,
) -> (Vec<Vec<String>>, Vec<String>) {
    let columns: Vec<Column> = columns.into_iter().filter(Column::is_shown).collect();
    let heads = columns.iter().map(|column| column.head.to_owned());
    let mut rows = vec![std::iter::once(name.to_owned()).chain(heads).chain(["state".to_owned()]).collect()];
    rows.extend(names.into_iter().zip(states).enumerate().map(|(n, (name, state))| {
        let cells = columns.iter().filter_map(|column| column.cells.get(n).cloned());
        std::iter::once(name).chain(cells).chain([state]).collect::<Vec<String>>()
    }));
    let legend = columns
        .iter()
        .filter(|column| !column.legend.is_empty())
        .map(|column| format!("{}: {}", column.head, column.legend))
        .collect();
    (rows, legend)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_of_zeros_is_left_out_and_the_others_are_explained() {
        let columns = vec![
            Column::of_counts("source", "messages there", [0, 0]).always(),
            Column::of_counts("flags", "changed", [0, 0]),
            Column::of_counts("now", "copied by this run", [7, 0]),
        ];
        let texts = |texts: [&str; 2]| texts.map(str::to_owned).to_vec();
        let (rows, legend) = table("folder", texts(["INBOX", "Sent"]), columns, texts(["done", "failed"]));
        assert_eq!(rows[0], ["folder", "source", "now", "state"]);
        assert_eq!(rows[2], ["Sent", "0", "0", "failed"]);
        assert_eq!(legend, ["source: messages there", "now: copied by this run"]);
    }
}
