//! A private Caddy.

use anyhow::{Context, Result};

use super::{Instance, Place};
use crate::{page::substitute, route::HOST_NAME};

pub(super) fn instance(place: &Place, printed: &str) -> Result<Instance> {
    let site = format!("{HOST_NAME}:{} {{\n    bind 127.0.0.1", place.address.port());
    let mut changes = place.changes();
    changes.extend(place.certificate_changes());
    changes
        .extend([("/var/log/caddy", place.folder.display().to_string()), ("chat.example {", site)]);
    let printed = substitute(printed, &changes)?;
    let options = printed.strip_prefix("{\n").context("Caddy's configuration has no options")?;
    let configuration = format!("{{\n    admin off\n    auto_https disable_redirects\n{options}");
    let file = place.file("configuration");
    let arguments = ["run", "--adapter", "caddyfile", "--config", &file];
    Ok(Instance { configuration, arguments: arguments.map(ToOwned::to_owned).to_vec() })
}
