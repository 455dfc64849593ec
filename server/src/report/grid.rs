//! Columns of text that stand right-aligned under their titles. Pure.

/// Between two columns.
const GAP: &str = "  ";

/// The rows of a table, the titles first, each with a cell for each column.
#[derive(Debug, Default)]
pub(super) struct Grid {
    rows: Vec<Vec<String>>,
}

impl Grid {
    /// A table with these titles and no rows yet.
    pub(super) fn new(titles: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { rows: vec![titles.into_iter().map(Into::into).collect()] }
    }

    /// One row more.
    pub(super) fn push(&mut self, row: impl IntoIterator<Item = String>) {
        self.rows.push(row.into_iter().collect());
    }

    /// The lines, all of one length of at most `width`: columns that do not fit are left out from the right.
    pub(super) fn lines(&self, width: usize) -> Vec<String> {
        let widths = self.widths(width);
        let line = |row: &Vec<String>| {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:>width$}")).collect();
            cells.join(GAP)
        };
        self.rows.iter().map(line).collect()
    }

    /// The widths of the columns that fit into `width`.
    fn widths(&self, width: usize) -> Vec<usize> {
        let columns = self.rows.first().map_or(0, Vec::len);
        let widest = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
        };
        let mut left = width.saturating_add(GAP.len());
        (0..columns)
            .map(|column| widest(column).unwrap_or(0))
            .take_while(|cell| left.checked_sub(cell + GAP.len()).map(|rest| left = rest).is_some())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let mut grid = Grid::new(["core", "in"]);
        grid.push(["0".to_owned(), "12345".to_owned()]);
        grid
    }

    #[test]
    fn cells_stand_under_their_titles() {
        assert_eq!(grid().lines(usize::MAX), ["core     in", "   0  12345"]);
    }

    #[test]
    fn a_column_that_does_not_fit_is_left_out_whole() {
        assert_eq!(grid().lines(11).len(), 2);
        assert_eq!(grid().lines(11)[0].len(), 11);
        assert_eq!(grid().lines(10), ["core", "   0"]);
        assert_eq!(grid().lines(3), ["", ""]);
    }
}
