//! The table that the bench prints: what was measured, beside what, the ratio of both, the goal and whether it is met.

use std::fmt;

#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

pub struct Row {
    pub part: char,
    pub what: String,
    pub measured: String,
    /// What it is held against, measured in the same run or written in the goal.
    pub against: String,
    pub ratio: Option<f64>,
    pub goal: Option<Goal>,
}

pub struct Goal {
    pub text: String,
    pub met: bool,
}

impl Goal {
    pub fn new(text: impl Into<String>, met: bool) -> Option<Self> {
        Some(Self { text: text.into(), met })
    }
}

impl Table {
    pub fn add(&mut self, row: Row) {
        // Also at once: a long run that breaks off has said what it found.
        println!("{}", line(&cells(&row), &[0; 7]));
        self.rows.push(row);
    }

    pub fn all_met(&self) -> bool {
        self.rows.iter().all(|row| row.goal.as_ref().is_none_or(|goal| goal.met))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["", "figure", "measured", "against", "ratio", "goal", ""].map(str::to_owned);
        let rows: Vec<_> = std::iter::once(head).chain(self.rows.iter().map(cells)).collect();
        let widths: [usize; 7] =
            std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().expect("the head is a row"));
        for (index, row) in rows.iter().enumerate() {
            writeln!(f, "{}", line(row, &widths).trim_end())?;
            if index == 0 {
                writeln!(f, "{}", "-".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1)))?;
            }
        }
        Ok(())
    }
}

fn cells(row: &Row) -> [String; 7] {
    let verdict = row.goal.as_ref().map_or("", |goal| if goal.met { "met" } else { "MISSED" });
    [
        row.part.to_string(),
        row.what.clone(),
        row.measured.clone(),
        row.against.clone(),
        row.ratio.map_or(String::new(), |ratio| format!("{ratio:.2}")),
        row.goal.as_ref().map_or(String::new(), |goal| goal.text.clone()),
        verdict.to_owned(),
    ]
}

fn line(cells: &[String; 7], widths: &[usize; 7]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, &width)| format!("{cell:<width$}"));
    padded.collect::<Vec<_>>().join("  ")
}

/// `12,345`.
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Microseconds as milliseconds.
pub fn milliseconds(microseconds: u64) -> String {
    format!("{:.2} ms", microseconds as f64 / 1_000.0)
}
