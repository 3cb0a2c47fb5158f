//! The one table.

use std::fmt::Write;

use crate::{checker::Verdict, delays::Delays, sabotage::Broken};

/// What came of a fault.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Row {
    pub times: usize,
    pub verdict: Verdict,
    pub delays: Delays,
}

/// What came of each fault: a row, why it was not run, or why it could not be played to its end.
#[derive(Debug)]
pub enum Played {
    /// It was played.
    Row(Box<Row>),
    /// It cannot be played here.
    NotRun(String),
    /// Something else went wrong.
    Broken(anyhow::Error),
}

/// All of them, in order, and the builds that were to be caught.
#[derive(Debug, Default)]
pub struct Report {
    faults: Vec<([&'static str; 2], Played)>,
    broken: Vec<Broken>,
}

const HEAD: [&str; 10] = [
    "fault",
    "times",
    "acknowledged",
    "lost",
    "doubled",
    "missed",
    "repeated",
    "leaked",
    "slowed",
    "slowest recovery",
];

impl Report {
    /// Adds a fault.
    pub fn add(&mut self, names: [&'static str; 2], played: Played) {
        self.faults.push((names, played));
    }

    /// Adds a broken build.
    pub fn add_broken(&mut self, broken: Broken) {
        self.broken.push(broken);
    }

    /// Whether everything that was played went well, and every broken build was caught.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let went_well = self.faults.iter().all(|(_, played)| match played {
            Played::Row(row) => row.verdict.is_good(),
            Played::NotRun(_) => true,
            Played::Broken(_) => false,
        });
        went_well && self.broken.iter().all(|broken| broken.caught.is_some())
    }

    /// The table, and below it what there is to say.
    #[must_use]
    pub fn text(&self) -> String {
        let mut cells = vec![HEAD.map(ToOwned::to_owned).to_vec()];
        let mut remarks = String::new();
        for ([id, name], played) in &self.faults {
            let mut line = vec![format!("{id} {name}")];
            let mut remark = |text: &str| _ = writeln!(remarks, "{id}: {text}");
            match played {
                Played::Row(row) => {
                    line.push(row.times.to_string());
                    line.push(row.verdict.acknowledged.to_string());
                    line.extend(row.verdict.counts().map(|count| count.to_string()));
                    line.push(row.delays.slowest());
                    row.verdict.examples().for_each(|example| remark(&example));
                    row.delays.remarks().for_each(|text| remark(&text));
                }
                Played::NotRun(why) => line.push(format!("not run: {why}")),
                Played::Broken(error) => {
                    line.push("BROKEN".to_owned());
                    remark(&format!("{error:#}"));
                }
            }
            cells.push(line);
        }
        for broken in &self.broken {
            let _ = writeln!(remarks, "{}", broken.text());
        }
        format!("{}\n{remarks}", align(&cells))
    }
}

fn align(cells: &[Vec<String>]) -> String {
    // A line with a single remark instead of figures is as wide as it likes.
    let whole = cells.iter().filter(|line| line.len() == HEAD.len());
    let mut widths = [0; HEAD.len()];
    for line in whole {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    widths[0] = cells.iter().map(|line| line[0].chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for line in cells {
        let padded: Vec<_> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", padded.join("  ").trim_end());
    }
    text
}
