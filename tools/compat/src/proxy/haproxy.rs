//! A private `HAProxy`.

use anyhow::Result;

use super::{Instance, Place};
use crate::page::substitute;

pub(super) fn instance(place: &Place, printed: &str) -> Result<Instance> {
    let both = place.certificate.both.display().to_string();
    let mut changes = place.changes();
    changes.extend([
        ("/etc/ssl/chat.example.both.pem", both),
        ("bind :443", format!("bind {}", place.address)),
        // Its standard output is a file.
        ("log /dev/log local0", "log stdout format raw local0".to_owned()),
    ]);
    let configuration = format!("global\n    maxconn 4096\n\n{}", substitute(printed, &changes)?);
    let arguments = ["-db".to_owned(), "-f".to_owned(), place.file("configuration")];
    Ok(Instance { configuration, arguments: arguments.to_vec() })
}
