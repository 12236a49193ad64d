//! Columns for people, with as much room as their widest cell needs.

use super::human::Tone;

/// Rows under a heading.
pub(super) struct Table {
    rows: Vec<Vec<Cell>>,
}

/// One cell and how it is meant.
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(super) fn new(text: &str, tone: Tone) -> Self {
        Self { text: text.to_owned(), tone }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, tone: Tone::Plain }
    }
}

impl Table {
    pub(super) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|&cell| Cell::new(cell, Tone::Faint)).collect()] }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.line(cells.into_iter().map(Cell::from).collect());
    }

    pub(super) fn line(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The table, or `empty` when it has no row but its heading.
    pub(super) fn to_text_or(&self, empty: &str) -> String {
        match self.to_text(false) {
            text if text.is_empty() => empty.to_owned(),
            text => text,
        }
    }

    /// The table, or nothing when it has no row but its heading.
    pub(super) fn to_text(&self, colours: bool) -> String {
        if self.rows.len() == 1 {
            return String::new();
        }
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|row| row[column].text.chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                // Colours take no room: what fills the column stands behind them.
                let filling = width - cell.text.chars().count();
                line += &if colours { cell.tone.paint(&cell.text) } else { cell.text.clone() };
                if row[index + 1..].iter().any(|cell| !cell.text.is_empty()) {
                    line += &" ".repeat(filling + 2);
                }
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["NAME", "N"]);
        assert_eq!(table.to_text_or("none\n"), "none\n");
        table.row(vec!["a-long-name".into(), "1".into()]);
        assert_eq!(table.to_text_or(""), "NAME         N\na-long-name  1\n");
    }

    #[test]
    fn colours_take_no_room() {
        let mut table = Table::new(&["A", "B"]);
        table.line(vec![Cell::new("x", Tone::Good), Cell::new("y", Tone::Plain)]);
        assert_eq!(table.to_text(true), "\x1b[2mA\x1b[0m  \x1b[2mB\x1b[0m\n\x1b[32mx\x1b[0m  y\n");
        assert_eq!(table.to_text(false), "A  B\nx  y\n");
    }

    #[test]
    fn an_empty_cell_at_the_end_leaves_nothing() {
        let mut table = Table::new(&["A", ""]);
        table.row(vec!["x".into(), String::new()]);
        assert_eq!(table.to_text(false), "A\nx\n");
    }
}
