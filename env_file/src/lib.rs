//! Reads `.env` files. Their lines are secrets, so no error shows one.

use std::cell::Cell;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

/// Replaces `$` while `dotenvy` reads a file, so that it substitutes no variables. Unicode reserves
/// this character for internal use.
const DOLLAR: &str = "\u{ffff}";
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Sets the variables of the nearest `.env` in this folder or one above it, except those that are
/// already set in the environment. A missing file is no error.
///
/// # Errors
/// Names the line that is not valid; no variable is set then.
pub fn load_nearest() -> Result<()> {
    nearest()?.map_or(Ok(()), |file| load(&file))
}

/// Returns the names and values of the nearest `.env`, in this folder or one above it.
///
/// # Errors
/// Names the line that is not valid.
pub fn read_nearest() -> Result<Vec<(String, String)>> {
    nearest()?.map_or(Ok(Vec::new()), |file| read(&file))
}

fn nearest() -> Result<Option<PathBuf>> {
    let folder = std::env::current_dir().context("there is no current folder")?;
    let mut files = folder.ancestors().map(|folder| folder.join(".env"));
    Ok(files.find(|file| file.is_file()))
}

/// Sets the variables of this file, like [`load_nearest`]. A missing file is no error.
///
/// # Errors
/// As for [`load_nearest`].
pub fn load(file: &Path) -> Result<()> {
    if !file.exists() {
        return Ok(());
    }
    let lines: String = read(file)?.iter().map(|(name, value)| line(name, value)).collect();
    // Only `dotenvy` may change the environment, because that is unsafe code, which is forbidden
    // here.
    let loaded = dotenvy::from_read(lines.as_bytes());
    loaded.map_err(|_| anyhow!("{} cannot be read", file.display()))
}

/// Formats a variable as a line for `dotenvy`, which substitutes variables at each unescaped `$`.
fn line(name: &str, value: &str) -> String {
    let mut line = format!("{name}=\"");
    for c in value.chars() {
        if matches!(c, '\\' | '"' | '$') {
            line.push('\\');
        }
        line.push(c);
    }
    line + "\"\n"
}

/// Returns the names and values of a file, in its order.
///
/// # Errors
/// Names the line that is not valid.
pub fn read(file: &Path) -> Result<Vec<(String, String)>> {
    parse(&read_bytes(file)?).with_context(|| file.display().to_string())
}

fn read_bytes(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("{} cannot be read", file.display()))
}

/// Parses the names and values of a file's content, in its order. A `$` is an ordinary character,
/// because passwords may contain it and must not be subject to substitution.
///
/// # Errors
/// Names the line that is not valid.
pub fn parse(bytes: &[u8]) -> Result<Vec<(String, String)>> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        let line = bytes[..at].split(|byte| *byte == b'\n').count();
        return Err(anyhow!("line {line} has a NUL"));
    }
    let bytes = replace(bytes, b'$', DOLLAR.as_bytes());
    let read = Cell::new(0);
    let lines = Lines { rest: &bytes, at_start: true, read: &read };
    let entries = dotenvy::from_read_iter(lines).map(|entry| {
        let entry = entry.map(|(name, value)| (name, value.replace(DOLLAR, "$")));
        entry.map_err(|error| match error {
            // The error's own text contains the line. A value with unclosed quotes has several
            // lines.
            dotenvy::Error::LineParse(text, _) => {
                let first = read.get() + 1 - text.lines().count().clamp(1, read.get().max(1));
                anyhow!("line {first} is not NAME=value; a value with spaces or # needs quotes, and $ no \
                         backslash")
            }
            _ => anyhow!("line {} is not text in UTF-8", read.get()),
        })
    });
    entries.collect()
}

fn replace(bytes: &[u8], from: u8, to: &[u8]) -> Vec<u8> {
    bytes.split(|byte| *byte == from).collect::<Vec<_>>().join(to)
}

/// Yields one line at a time, to count the lines that have been read.
struct Lines<'a> {
    rest: &'a [u8],
    at_start: bool,
    read: &'a Cell<usize>,
}

impl Read for Lines<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let line = self.rest.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
        let length = line.len().min(buffer.len());
        let (given, rest) = self.rest.split_at(length);
        buffer[..length].copy_from_slice(given);
        if self.at_start && length > 0 {
            self.read.set(self.read.get() + 1);
        }
        self.at_start = given.ends_with(b"\n");
        self.rest = rest;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_come_in_order() {
        let text = "\u{feff}# keys\nA=1\n\nexport B='two words' # why\nC=\"x\ny\"\nA=3\r\nEMPTY=\n";
        let entries = parse(text.as_bytes()).unwrap();
        let entries: Vec<_> = entries.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(
            entries,
            [("A", "1"), ("B", "two words"), ("C", "x\ny"), ("A", "3"), ("EMPTY", "")]
        );
    }

    #[test]
    fn a_dollar_sign_is_kept_as_written() {
        let text = "HOME=x\nA=p$HOME$$1${HOME}\nB=\"$HOME\"\nC='$HOME\\$'\n";
        let entries = parse(text.as_bytes()).unwrap();
        let values: Vec<_> = entries.iter().map(|(_, value)| &**value).collect();
        assert_eq!(values, ["x", "p$HOME$$1${HOME}", "$HOME", "$HOME\\$"]);
    }

    #[test]
    fn a_line_that_is_made_says_the_same() {
        for value in ["", "p$HOME${A}", "a \"b\" 'c' \\n \\", "x # y", "two\nlines\n", "ünï $"] {
            let text = line("FIRST", value) + &line("SECOND", value);
            let read: Result<Vec<_>, _> = dotenvy::from_read_iter(text.as_bytes()).collect();
            let read = read.unwrap();
            assert_eq!(read, [("FIRST".into(), value.into()), ("SECOND".into(), value.into())]);
        }
    }

    #[test]
    fn a_line_that_makes_no_sense_is_named_by_its_number_alone() {
        let long = format!("A=1\nLONG={}\nB hunter2", "x".repeat(20_000));
        for (text, line) in [
            ("hunter2", 1),
            ("A=1\nhunter2\nB=2\n", 2),
            ("A=1\n\n# no\n  hunter2 x\n", 4),
            ("A=1\r\nSECRET KEY=hunter2\r\n", 2),
            ("A=1\nSECRET=hunter2 x\n", 2),
            ("A=1\nSECRET: hunter2\n", 2),
            ("A=1\nSECRET='hunter2\nB=2\nC=3\n", 2),
            ("A=1\nSECRET=\"hunter2\nB=2\n\n", 2),
            ("A=1\nSECRET=\"hunter2\\q\"\n", 2),
            ("A=\"x\ny\"\nB='x\ny'z'\nC=hunter2\n", 3),
            ("A=1\nB=hunter2\\$\n", 2),
            ("A=1\n1hunter2=x\n", 2),
            ("A=1\nB=2\0hunter2\n", 2),
            (&long, 3),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            for error in [format!("{error:#}"), format!("{error:?}")] {
                assert!(error.contains(&format!("line {line} ")), "{text:?}: {error}");
                assert!(!error.contains("hunter2"), "{error}");
            }
        }
        let error = format!("{:?}", parse(b"A=1\nSECRET=hunter2\xff\n").unwrap_err());
        assert!(error.contains("line 2 ") && !error.contains("hunter2"), "{error}");
    }
}
