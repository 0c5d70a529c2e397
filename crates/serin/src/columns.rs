//! Aligned columns, as kubectl prints them.

use std::io::{self, Write};

use crate::console::clean;

/// Space between two columns.
const GAP: usize = 3;

/// Rows of cells under headings.
#[derive(Debug, Default)]
pub struct Columns {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    indent: usize,
}

impl Columns {
    /// Columns with these headings.
    pub fn new<S: Into<String>>(head: impl IntoIterator<Item = S>) -> Columns {
        Columns { head: head.into_iter().map(Into::into).collect(), rows: Vec::new(), indent: 0 }
    }

    /// The same, moved right by some spaces.
    pub fn indented(mut self, indent: usize) -> Columns {
        self.indent = indent;
        self
    }

    /// Adds a row.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(|cell| one_line(&cell.into())).collect());
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Prints headings and rows.
    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut widths = Widths::default();
        self.print_with(out, &mut widths, true)
    }

    /// Prints with at least the given widths, and keeps the widths that were used: a watch prints row after row under one
    /// heading.
    pub fn print_with(&self, out: &mut dyn Write, widths: &mut Widths, with_head: bool) -> io::Result<()> {
        let head = with_head.then_some(&self.head).filter(|head| !head.is_empty());
        for line in head.into_iter().chain(&self.rows) {
            widths.fit(line);
        }
        for line in head.into_iter().chain(&self.rows) {
            let mut text = " ".repeat(self.indent);
            for (index, cell) in line.iter().enumerate() {
                text.push_str(cell);
                if index + 1 < line.len() {
                    let used = cell.chars().count();
                    text.extend(std::iter::repeat_n(' ', widths.0[index].saturating_sub(used) + GAP));
                }
            }
            writeln!(out, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

/// Width of each column in characters.
#[derive(Debug, Default)]
pub struct Widths(Vec<usize>);

impl Widths {
    fn fit(&mut self, line: &[String]) {
        if self.0.len() < line.len() {
            self.0.resize(line.len(), 0);
        }
        for (width, cell) in self.0.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
}

/// A cell is one line; the rest of a longer text is marked as left out.
fn one_line(text: &str) -> String {
    let text = clean(text).replace('\t', " ");
    match text.split_once('\n') {
        Some((first, rest)) if !rest.trim().is_empty() => format!("{first}..."),
        Some((first, _)) => first.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(columns: &Columns) -> String {
        let mut out = Vec::new();
        columns.print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut columns = Columns::new(["NAME", "ÄGE", "X"]);
        columns.row(["a-long-name", "5s", ""]);
        columns.row(["b", "ünf", "z\nmore"]);
        assert_eq!(printed(&columns), "NAME          ÄGE   X\na-long-name   5s\nb             ünf   z...\n");
    }

    #[test]
    fn a_watch_keeps_the_widths_of_its_first_rows() {
        let mut first = Columns::new(["NAME", "X"]);
        first.row(["long-name", "1"]);
        let mut widths = Widths::default();
        let mut out = Vec::new();
        first.print_with(&mut out, &mut widths, true).unwrap();
        let mut next = Columns::new(["NAME", "X"]);
        next.row(["b", "2"]);
        next.print_with(&mut out, &mut widths, false).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "NAME        X\nlong-name   1\nb           2\n");
    }
}
