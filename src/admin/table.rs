//! [`Table`]: aligned columns for people, written in chunks. A chunk's columns are as wide as its widest cell and never
//! narrower than those before, so a million rows stream and still line up. Knows nothing of what is in the cells.

use std::io::{self, Write};

/// How a cell or line is coloured on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    /// As wished.
    Good,
    /// On its way.
    Waiting,
    /// Not as wished.
    Bad,
    /// Headings.
    Heading,
}

impl Paint {
    const fn start(self) -> &'static str {
        match self {
            Self::Good => "\x1b[32m",
            Self::Waiting => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Heading => "\x1b[1m",
        }
    }
}

/// Where output goes, and whether it is coloured.
#[derive(Debug)]
pub(super) struct Screen<W> {
    pub(super) out: W,
    pub(super) colour: bool,
}

impl<W: Write> Screen<W> {
    /// Writes a text in a colour.
    pub(super) fn paint(&mut self, paint: Option<Paint>, text: &str) -> io::Result<()> {
        match paint {
            Some(paint) if self.colour => {
                write!(self.out, "{}{text}\x1b[0m", paint.start())
            }
            _ => self.out.write_all(text.as_bytes()),
        }
    }
}

/// On which side of a column its cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// A column's heading and side.
pub(super) type Column = (&'static str, Align);

/// A cell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Cell {
    text: String,
    paint: Option<Paint>,
}

impl Cell {
    pub(super) fn painted(text: impl Into<String>, paint: Option<Paint>) -> Self {
        Self {
            text: text.into(),
            paint,
        }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(value: T) -> Self {
        Self::painted(value.to_string(), None)
    }
}

/// A line of a table; cells that are missing at its end are empty.
pub(super) type Row = Vec<Cell>;

/// A table that is being written.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    widths: Vec<usize>,
    started: bool,
}

impl Table {
    pub(super) fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        let columns: Vec<Column> = columns.into_iter().collect();
        Self {
            widths: columns.iter().map(|(title, _)| title.len()).collect(),
            columns,
            started: false,
        }
    }

    /// Whether anything was written.
    pub(super) fn is_empty(&self) -> bool {
        !self.started
    }

    /// Writes rows, before the first the headings.
    pub(super) fn write<W: Write>(
        &mut self,
        screen: &mut Screen<W>,
        rows: &[Row],
    ) -> io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        if !self.started {
            self.started = true;
            let heading = |(title, _): &Column| Cell::painted(*title, Some(Paint::Heading));
            let headings: Row = self.columns.iter().map(heading).collect();
            self.line(screen, &headings)?;
        }
        rows.iter().try_for_each(|row| self.line(screen, row))
    }

    fn line<W: Write>(&self, screen: &mut Screen<W>, row: &[Cell]) -> io::Result<()> {
        let used = row.iter().rposition(|cell| !cell.text.is_empty());
        let used = used.map_or(0, |last| last + 1);
        let columns = self.columns.iter().zip(&self.widths);
        for (n, (cell, ((_, align), width))) in row.iter().zip(columns).take(used).enumerate() {
            let room = width.saturating_sub(cell.width());
            let (before, after) = match align {
                Align::Left if n + 1 == used => (0, 0),
                Align::Left => (0, room),
                Align::Right => (room, 0),
            };
            let gap = if n == 0 { 0 } else { 2 };
            write!(screen.out, "{:1$}", "", gap + before)?;
            screen.paint(cell.paint, &cell.text)?;
            write!(screen.out, "{:after$}", "")?;
        }
        screen.out.write_all(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_never_shrink() {
        let mut table = Table::new([
            ("A", Align::Left),
            ("COUNT", Align::Right),
            ("B", Align::Left),
        ]);
        let mut screen = Screen {
            out: Vec::new(),
            colour: false,
        };
        assert!(table.is_empty());
        let rows = [
            vec!["long name".into(), 1.into(), "x".into()],
            vec!["é".into(), 20.into()],
        ];
        table.write(&mut screen, &rows).unwrap();
        table
            .write(&mut screen, &[vec!["s".into(), 3.into(), "y".into()]])
            .unwrap();
        let text = String::from_utf8(screen.out).unwrap();
        assert_eq!(
            text,
            "A          COUNT  B\n\
             long name      1  x\n\
             é             20\n\
             s              3  y\n"
        );
    }

    #[test]
    fn colour_does_not_disturb_the_columns() {
        let mut table = Table::new([("A", Align::Left), ("B", Align::Left)]);
        let mut screen = Screen {
            out: Vec::new(),
            colour: true,
        };
        let row = vec![Cell::painted("ok", Some(Paint::Good)), "x".into()];
        table.write(&mut screen, &[row]).unwrap();
        let text = String::from_utf8(screen.out).unwrap();
        assert!(text.ends_with("\x1b[32mok\x1b[0m  x\n"), "{text:?}");
    }
}
