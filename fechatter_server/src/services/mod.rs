//! Services that the models need besides PostgreSQL.

pub(crate) mod batch_writer;
pub(crate) mod blanking;
pub(crate) mod bytes_in_flight;
pub(crate) mod chat_lists;
pub(crate) mod chat_removal;
pub(crate) mod device_token;
pub(crate) mod expiry;
pub(crate) mod file_store;
pub(crate) mod file_sweep;
pub(crate) mod limits;
pub(crate) mod media;
pub(crate) mod media_token;
pub(crate) mod message_reader;
pub(crate) mod offboarding;
pub(crate) mod password;
pub(crate) mod purge;
pub(crate) mod read_mark_writer;
pub(crate) mod refresh_token;
pub(crate) mod retention;
pub(crate) mod typing;
pub(crate) mod workspace_removal;
