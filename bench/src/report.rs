//! What was measured, as a table or as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use crate::timed::Timed;

const TITLES: [&str; 5] = ["scenario", "name", "value", "unit", "conditions"];

/// All rows so far.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Row>);

#[derive(Debug)]
struct Row {
    scenario: &'static str,
    name: String,
    value: f64,
    unit: &'static str,
    conditions: String,
}

/// Adds rows of one scenario, measured under the same conditions.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    report: &'a mut Report,
    scenario: &'static str,
    conditions: String,
}

impl Report {
    pub(crate) fn under(&mut self, scenario: &'static str, conditions: String) -> Section<'_> {
        Section { report: self, scenario, conditions }
    }

    /// One line a row, in columns; conditions are told once.
    pub(crate) fn table(&self) -> String {
        let mut lines = vec![TITLES.map(ToOwned::to_owned)];
        let mut told = "";
        for row in &self.0 {
            let news = if row.conditions == told { "" } else { &row.conditions };
            lines.push(row.cells(news));
            told = &row.conditions;
        }
        let width = |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max();
        let [a, b, c, d] = [0, 1, 2, 3].map(|column| width(column).unwrap_or_default());
        let line = |[scenario, name, value, unit, conditions]: &[String; 5]| {
            let line = format!("{scenario:a$}  {name:b$}  {value:>c$}  {unit:d$}  {conditions}");
            line.trim_end().to_owned()
        };
        lines.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// An array of `{name, value, unit}`.
    pub(crate) fn json(&self) -> String {
        let row = |row: &Row| {
            let name = format!("{}.{}", row.scenario, row.name);
            json!({ "name": name, "value": row.value, "unit": row.unit })
        };
        format!("{:#}", Value::Array(self.0.iter().map(row).collect()))
    }
}

impl Section<'_> {
    /// One figure, of which three decimals are kept.
    pub(crate) fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.report.0.push(Row {
            scenario: self.scenario,
            name: name.into(),
            value: (value * 1000.0).round() / 1000.0,
            unit,
            conditions: self.conditions.clone(),
        });
    }

    pub(crate) fn milliseconds(&mut self, name: impl Into<String>, value: Duration) {
        self.add(name, value.as_secs_f64() * 1000.0, "ms");
    }

    /// Median, 99th percentile and longest of something.
    pub(crate) fn quantiles(&mut self, name: &str, timed: &Timed) {
        self.milliseconds(format!("{name}_p50"), timed.p50());
        self.milliseconds(format!("{name}_p99"), timed.p99());
        self.milliseconds(format!("{name}_max"), timed.max());
    }
}

impl Row {
    fn cells(&self, conditions: &str) -> [String; 5] {
        let value = format!("{:.3}", self.value);
        let value = value.trim_end_matches('0').trim_end_matches('.');
        [self.scenario, &self.name, value, self.unit, conditions].map(ToOwned::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_line_and_an_object() {
        let mut report = Report::default();
        let mut section = report.under("sync", "10 people".into());
        section.milliseconds("p50", Duration::from_micros(12_345));
        section.add("bytes", 100.0, "B");

        assert_eq!(
            report.table(),
            "scenario  name    value  unit  conditions\n\
             sync      p50    12.345  ms    10 people\n\
             sync      bytes     100  B"
        );
        let rows: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(
            rows,
            json!([
                { "name": "sync.p50", "value": 12.345, "unit": "ms" },
                { "name": "sync.bytes", "value": 100.0, "unit": "B" },
            ])
        );
    }
}
