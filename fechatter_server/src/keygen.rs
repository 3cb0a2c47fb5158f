//! New keys for the configuration.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use fechatter_core::token;
use secrecy::{ExposeSecret, SecretString};

const NAMES: [&str; 3] = [
    "FECHATTER__AUTH__PRIVATE_KEY",
    "FECHATTER__AUTH__PUBLIC_KEYS",
    "FECHATTER__AUTH__REFRESH_KEY",
];

/// Makes new keys, as lines for `.env`.
///
/// # Errors
/// Fails if the system has no randomness.
pub fn keygen() -> anyhow::Result<String> {
    let (private, public) = token::generate_keys()?;
    let refresh: SecretString = BASE64_STANDARD.encode(rand::random::<[u8; 32]>()).into();
    let values = [private.expose_secret(), public.as_str(), refresh.expose_secret()];
    let lines = NAMES.iter().zip(values).map(|(name, value)| format!("{name}={value}\n"));
    Ok(lines.collect())
}

/// Adds new keys to a file of environment variables, and makes the file readable for its owner
/// only.
///
/// # Errors
/// Fails if the file has one of the keys already, has another format, or cannot be written.
pub fn write_keys(path: &Path) -> anyhow::Result<()> {
    let name = || path.display().to_string();
    let mut file = open(path).with_context(name)?;
    // The lock keeps other processes from adding keys between reading and writing.
    file.lock().with_context(name)?;
    let mut content = Vec::new();
    file.read_to_end(&mut content).with_context(name)?;
    let entries = env_file::parse(&content).with_context(name)?;
    if let Some((key, _)) = entries.iter().find(|(key, _)| NAMES.contains(&key.as_str())) {
        bail!("{} already has {key}: remove its keys before you make new ones", path.display());
    }
    let separator = if content.is_empty() || content.ends_with(b"\n") { "" } else { "\n" };
    let added = format!("{separator}{}", keygen()?);
    file.seek(SeekFrom::End(0)).with_context(name)?;
    file.write_all(added.as_bytes()).with_context(name)?;
    file.sync_all().with_context(name)
}

#[cfg(unix)]
fn open(path: &Path) -> std::io::Result<File> {
    use std::fs::Permissions;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

    const OWNER_ONLY: u32 = 0o600;
    let mut options = OpenOptions::new();
    let file = options.read(true).append(true).create(true).mode(OWNER_ONLY).open(path)?;
    file.set_permissions(Permissions::from_mode(OWNER_ONLY))?;
    Ok(file)
}

#[cfg(not(unix))]
fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_readable_for_its_owner_only_and_keys_are_added_once() {
        use std::fs::{self, Permissions};
        use std::os::unix::fs::PermissionsExt;

        let folder = std::env::temp_dir().join(format!("keygen-{}", uuid::Uuid::now_v7()));
        fs::create_dir(&folder).unwrap();
        let [fresh, open] = ["fresh", "open"].map(|name| folder.join(name));
        fs::write(&open, "A=1\n# FECHATTER__AUTH__REFRESH_KEY=later\nB=2").unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o644)).unwrap();

        for (file, others) in [(&fresh, 0), (&open, 2)] {
            write_keys(file).unwrap();
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
            let entries = env_file::read(file).unwrap();
            let names: Vec<_> = entries.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names[others..], NAMES);

            let before = fs::read(file).unwrap();
            let error = format!("{:#}", write_keys(file).unwrap_err());
            assert!(error.contains("already has FECHATTER__AUTH__PRIVATE_KEY"), "{error}");
            assert_eq!(fs::read(file).unwrap(), before);
        }
        fs::write(&fresh, "FECHATTER__AUTH__REFRESH_KEY=x\n").unwrap();
        assert!(write_keys(&fresh).is_err(), "a file with one of the keys is refused");
        fs::write(&fresh, "A=1\nhunter2 x\n").unwrap();
        let error = format!("{:?}", write_keys(&fresh).unwrap_err());
        assert!(error.contains("line 2") && !error.contains("hunter2"), "{error}");
        assert!(write_keys(&folder).is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
