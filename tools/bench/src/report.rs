//! What was measured, as a table or as JSON.

use std::{borrow::Borrow, time::Duration};

use serde_json::{Value, json};

use crate::{
    figure::{Figure, as_f64},
    timed::Timed,
};

const TITLES: [&str; 9] =
    ["scenario", "name", "median", "spread", "unit", "limit", "ratio", "target", "met"];

/// What a figure is to be; a row may have several.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    Least(f64),
    Most(f64),
    LeastOfLimit(f64),
    MostOfLimit(f64),
}

/// The targets of a scenario, by the names of its rows.
pub(crate) type Targets = &'static [(&'static str, Target)];

/// All rows so far.
#[derive(Debug)]
pub(crate) struct Report {
    /// Else targets are left out: nothing can be said of a debug build.
    judges: bool,
    rows: Vec<Row>,
    conditions: Vec<String>,
}

/// One figure.
#[derive(Debug)]
pub(crate) struct Row {
    scenario: &'static str,
    name: String,
    figure: Figure,
    unit: &'static str,
    limit: Option<f64>,
    targets: Vec<Target>,
}

/// Adds rows of one scenario.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    report: &'a mut Report,
    scenario: &'static str,
    targets: Targets,
}

impl Report {
    pub(crate) fn new(judges: bool) -> Self {
        Self { judges, rows: Vec::new(), conditions: Vec::new() }
    }

    /// For what was measured under these conditions.
    pub(crate) fn under(
        &mut self,
        scenario: &'static str,
        targets: Targets,
        conditions: &str,
    ) -> Section<'_> {
        self.conditions.push(format!("{scenario}: {conditions}."));
        Section { report: self, scenario, targets }
    }

    /// The conditions, and one line a row, in columns.
    pub(crate) fn table(&self) -> String {
        let mut lines = vec![TITLES.map(ToOwned::to_owned)];
        lines.extend(self.rows.iter().map(Row::cells));
        let widths: [usize; TITLES.len()] = std::array::from_fn(|column| {
            lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or_default()
        });
        let line = |cells: &[String; TITLES.len()]| {
            let padded = cells.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
                // Numbers end at the same place, words begin there.
                if matches!(column, 2 | 3 | 5 | 6) {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:width$}")
                }
            });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let table = lines.iter().map(line).collect::<Vec<_>>().join("\n");
        format!("{}\n\n{table}", self.conditions.join("\n"))
    }

    /// An array of objects, null where there is nothing to say.
    pub(crate) fn json(&self) -> String {
        format!("{:#}", Value::Array(self.rows.iter().map(Row::json).collect()))
    }
}

impl Section<'_> {
    /// One figure, with the targets of this name.
    pub(crate) fn add(
        &mut self,
        name: impl Into<String>,
        figure: impl Into<Figure>,
        unit: &'static str,
    ) -> &mut Row {
        let name = name.into();
        let targets = self.targets.iter().filter(|(of, _)| self.report.judges && *of == name);
        let targets = targets.map(|(_, target)| *target).collect();
        let (scenario, figure, limit) = (self.scenario, figure.into(), None);
        let rows = &mut self.report.rows;
        let last = rows.len();
        rows.push(Row { scenario, name, figure, unit, limit, targets });
        &mut rows[last]
    }

    pub(crate) fn milliseconds(&mut self, name: impl Into<String>, value: Duration) -> &mut Row {
        self.add(name, milliseconds(value), "ms")
    }

    /// Median, 99th percentile and longest of something, over all repetitions.
    pub(crate) fn quantiles<T: Borrow<Timed>>(&mut self, name: &str, repetitions: &[T]) {
        type Of = fn(&Timed) -> Duration;
        for (which, of) in [("p50", Timed::p50 as Of), ("p99", Timed::p99), ("max", Timed::max)] {
            let figure = Figure::over(repetitions, |timed| milliseconds(of(timed.borrow())));
            self.add(format!("{name}_{which}"), figure, "ms");
        }
    }

    pub(crate) fn count(&mut self, name: &str, count: usize, unit: &'static str) {
        self.add(name, as_f64(count), unit);
    }
}

impl Row {
    /// What the figure is to be held against, measured in the same minute.
    pub(crate) fn against(&mut self, limit: impl Into<Figure>) {
        self.limit = Some(limit.into().median);
    }

    fn ratio(&self) -> Option<f64> {
        self.limit.map(|limit| self.figure.median / limit)
    }

    fn met(&self) -> Option<bool> {
        let of_limit = self.ratio().unwrap_or(f64::NAN);
        let met = |target: &Target| match *target {
            Target::Least(least) => self.figure.median >= least,
            Target::Most(most) => self.figure.median <= most,
            Target::LeastOfLimit(least) => of_limit >= least,
            Target::MostOfLimit(most) => of_limit <= most,
        };
        (!self.targets.is_empty()).then(|| self.targets.iter().all(met))
    }

    fn target(&self) -> Option<String> {
        let targets: Vec<_> = self.targets.iter().copied().map(Target::text).collect();
        (!targets.is_empty()).then(|| targets.join(", "))
    }

    fn cells(&self) -> [String; TITLES.len()] {
        let Figure { median, least, most } = self.figure;
        let value = if median.is_nan() { "not available".to_owned() } else { short(median) };
        let is_one = least.total_cmp(&most).is_eq();
        let spread =
            if is_one { String::new() } else { format!("{}–{}", short(least), short(most)) };
        let met = self.met().map_or("", |met| if met { "yes" } else { "NO" });
        [
            self.scenario.to_owned(),
            self.name.clone(),
            value,
            spread,
            self.unit.to_owned(),
            self.limit.map(short).unwrap_or_default(),
            self.ratio().map(short).unwrap_or_default(),
            self.target().unwrap_or_default(),
            met.to_owned(),
        ]
    }

    fn json(&self) -> Value {
        let Figure { median, least, most } = self.figure;
        json!({
            "name": format!("{}.{}", self.scenario, self.name),
            "value": rounded(median),
            "spread": [rounded(least), rounded(most)],
            "unit": self.unit,
            "limit": self.limit.map(rounded),
            "ratio": self.ratio().map(rounded),
            "target": self.target(),
            "met": self.met(),
        })
    }
}

impl Target {
    fn text(self) -> String {
        match self {
            Self::Least(least) => format!("≥ {}", short(least)),
            Self::Most(most) => format!("≤ {}", short(most)),
            Self::LeastOfLimit(least) => format!("≥ {} × limit", short(least)),
            Self::MostOfLimit(most) => format!("≤ {} × limit", short(most)),
        }
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Three decimals are kept.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// As many decimals as say something.
fn short(value: f64) -> String {
    let decimals = if value.abs() >= 1000.0 { 0 } else { 3 };
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: Targets = &[
        ("p50", Target::Most(15.0)),
        ("rate", Target::Least(1000.0)),
        ("rate", Target::LeastOfLimit(0.5)),
    ];

    fn report(judges: bool) -> Report {
        let mut report = Report::new(judges);
        let mut section = report.under("sync", TARGETS, "10 people");
        section.milliseconds("p50", Duration::from_micros(12_345));
        section
            .add("rate", Figure { median: 1200.0, least: 900.0, most: 1500.4 }, "/s")
            .against(3000.0);
        section.add("hit", Figure::NONE, "ms");
        report
    }

    #[test]
    fn a_row_is_a_line() {
        assert_eq!(
            report(true).table(),
            "sync: 10 people.\n\
             \n\
             scenario  name         median    spread  unit  limit  ratio  target                 met\n\
             sync      p50          12.345            ms                  ≤ 15                   yes\n\
             sync      rate           1200  900–1500  /s     3000    0.4  ≥ 1000, ≥ 0.5 × limit  NO\n\
             sync      hit   not available            ms"
        );
    }

    #[test]
    fn a_row_is_an_object() {
        let rows: Value = serde_json::from_str(&report(true).json()).unwrap();
        assert_eq!(
            rows[1],
            json!({
                "name": "sync.rate", "value": 1200.0, "spread": [900.0, 1500.4], "unit": "/s",
                "limit": 3000.0, "ratio": 0.4, "target": "≥ 1000, ≥ 0.5 × limit", "met": false,
            })
        );
        assert_eq!((&rows[0]["limit"], &rows[0]["met"]), (&Value::Null, &json!(true)));
        assert_eq!((&rows[2]["value"], &rows[2]["met"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn a_quick_run_judges_nothing() {
        let rows: Value = serde_json::from_str(&report(false).json()).unwrap();
        assert_eq!((&rows[1]["target"], &rows[1]["met"]), (&Value::Null, &Value::Null));
    }
}
