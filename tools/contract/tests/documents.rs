//! The lists of calls and events in `docs/` are those of the OpenAPI document.

use std::collections::BTreeSet;

const CALLS: &str = include_str!("../../../docs/API.md");
const EVENTS: &str = include_str!("../../../docs/events.md");
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

#[test]
fn the_calls_of_the_documents_are_those_that_exist() {
    let described: BTreeSet<_> = CALLS.lines().flat_map(calls).collect();
    let exist = contract::operations(contract::document())
        .map(|(path, method, _)| format!("{} {path}", method.to_uppercase()));
    assert_eq!(described, exist.collect());
}

#[test]
fn the_events_of_the_documents_are_those_that_streams_send() {
    let table = EVENTS.split_once("| event | to |").unwrap().1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let described: BTreeSet<_> =
        rows.map(|row| row.split('`').nth(1).unwrap().to_owned()).collect();
    assert_eq!(described, contract::event_names().into_iter().collect());
}

/// The calls that a row of a table, or a heading, begins with: "GET `/a`, `/b`".
fn calls(line: &str) -> Vec<String> {
    let subject = line.strip_prefix("| ").or_else(|| line.strip_prefix("### "));
    let subject = subject.and_then(|subject| subject.split('|').next()).unwrap_or_default();
    let Some((method, paths)) = subject.split_once(' ') else { return Vec::new() };
    if !METHODS.contains(&method) {
        return Vec::new();
    }
    let paths = paths.split('`').filter(|part| part.starts_with('/'));
    paths.map(|path| format!("{method} {path}")).collect()
}
