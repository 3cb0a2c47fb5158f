//! Request parsing that every handler shares.

pub(crate) mod file_url;
pub(crate) mod json;
pub(crate) mod key;
pub(crate) mod page;
pub(crate) mod path;
pub(crate) mod query;
pub(crate) mod text;
