//! Columns of text, aligned for a terminal.

use std::io::{self, Write};

/// Rows of cells under headings. The first column is aligned to the left, as are columns of words; the others, of
/// numbers, to the right.
#[derive(Debug, Default)]
pub(crate) struct TextGrid {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
    words: Vec<usize>,
}

impl TextGrid {
    pub(crate) fn new(headings: impl IntoIterator<Item = impl Into<String>>) -> TextGrid {
        TextGrid { headings: headings.into_iter().map(Into::into).collect(), ..TextGrid::default() }
    }

    /// Aligns these columns, counted from 0, to the left.
    pub(crate) fn words(mut self, columns: &[usize]) -> TextGrid {
        self.words.extend_from_slice(columns);
        self
    }

    /// Adds a row, which has a cell for each heading.
    pub(crate) fn push(&mut self, row: Vec<String>) {
        debug_assert_eq!(row.len(), self.headings.len(), "a row has a cell for each heading");
        self.rows.push(row);
    }

    /// Removes the columns, but the first, that have no cell with text.
    pub(crate) fn drop_empty_columns(&mut self) {
        for column in (1..self.headings.len()).rev() {
            if self.rows.iter().all(|row| row[column].is_empty()) {
                self.headings.remove(column);
                for row in &mut self.rows {
                    row.remove(column);
                }
            }
        }
    }

    /// Writes all rows, two spaces between the columns.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let widths: Vec<usize> = (0..self.headings.len()).map(|column| self.width(column)).collect();
        for row in std::iter::once(&self.headings).chain(&self.rows) {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if column == 0 {
                    line.push_str(&format!("{cell:<width$}"));
                } else if self.words.contains(&column) {
                    line.push_str(&format!("  {cell:<width$}"));
                } else {
                    line.push_str(&format!("  {cell:>width$}"));
                }
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| &row[column]).chain([&self.headings[column]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_ones_left_out() {
        let mut grid = TextGrid::new(["name", "µs", "none"]);
        grid.push(vec!["a".to_owned(), "1,000".to_owned(), String::new()]);
        grid.push(vec!["éé".to_owned(), "2".to_owned(), String::new()]);
        grid.drop_empty_columns();
        let mut text = Vec::new();
        grid.write(&mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "name     µs\na     1,000\néé        2\n");
    }
}
