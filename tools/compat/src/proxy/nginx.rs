//! A private nginx.

use anyhow::Result;

use super::{Instance, Place};
use crate::page::substitute;

pub(super) fn instance(place: &Place, printed: &str) -> Result<Instance> {
    let folder = place.folder.display();
    let mut changes = place.changes();
    changes.extend(place.certificate_changes());
    changes.extend([
        ("listen 443", format!("listen {}", place.address)),
        ("/var/log/nginx", folder.to_string()),
    ]);
    let http = substitute(printed, &changes)?;
    // As root, nginx would run its workers as another user, who may not write into this folder.
    let configuration = format!(
        "daemon off;
user root;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
client_body_temp_path {folder}/body;
proxy_temp_path {folder}/proxy;
fastcgi_temp_path {folder}/fastcgi;
uwsgi_temp_path {folder}/uwsgi;
scgi_temp_path {folder}/scgi;
{http}}}
"
    );
    let arguments = ["-c", &place.file("configuration"), "-e", &place.file("error.log")];
    Ok(Instance { configuration, arguments: arguments.map(ToOwned::to_owned).to_vec() })
}
