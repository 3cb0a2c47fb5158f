//! The programs of the system: where they are, which version, and which package brings them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// Where Debian puts servers; not every account has these folders in its `PATH`.
const MORE_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Finds a program, or says how to install it.
pub(crate) fn find(program: &str, package: &str) -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(MORE_FOLDERS.map(PathBuf::from));
    let found = folders.map(|folder| folder.join(program)).find(|file| file.is_file());
    found.ok_or_else(|| format!("{program} is not installed (apt-get install {package})"))
}

/// The first number with a dot that the program prints when it is asked for its version.
pub(crate) fn version(program: &Path, argument: &str) -> String {
    let Ok(output) = Command::new(program).arg(argument).output() else {
        return String::new();
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let is_other = |character: char| !(character.is_ascii_digit() || character == '.');
    let mut numbers = said.split(is_other).map(|number| number.trim_matches('.'));
    numbers.find(|number| number.contains('.')).unwrap_or_default().to_owned()
}
