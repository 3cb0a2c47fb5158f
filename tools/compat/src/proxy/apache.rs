//! A private Apache.

use std::fmt::Write;

use anyhow::Result;

use super::{Instance, Place};
use crate::page::substitute;

/// Debian enables the first ones by itself, and those that the page names by `a2enmod`.
const MODULES: [&str; 9] = [
    "mpm_event",
    "authz_core",
    "socache_shmcb",
    "reqtimeout",
    "headers",
    "http2",
    "proxy",
    "proxy_http",
    "ssl",
];

pub(super) fn instance(place: &Place, printed: &str) -> Result<Instance> {
    let folder = place.folder.display();
    let mut changes = place.changes();
    changes.extend(place.certificate_changes());
    changes.extend([
        ("<VirtualHost *:443>", format!("<VirtualHost {}>", place.address)),
        ("/var/log/apache2", folder.to_string()),
    ]);
    let host = substitute(printed, &changes)?;
    let mut configuration = String::new();
    for module in MODULES {
        let file = format!("/usr/lib/apache2/modules/mod_{module}.so");
        writeln!(configuration, "LoadModule {module}_module {file}")?;
    }
    write!(
        configuration,
        "ServerName localhost
ServerRoot {folder}
DefaultRuntimeDir {folder}
PidFile {folder}/pid
ErrorLog {folder}/error.log
User www-data
Group www-data
Listen {}
{host}",
        place.address
    )?;
    let arguments = ["-DFOREGROUND", "-f", &place.file("configuration")];
    Ok(Instance { configuration, arguments: arguments.map(ToOwned::to_owned).to_vec() })
}
