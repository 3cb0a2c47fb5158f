//! Faults on purpose: real processes are killed, frozen and cut off while people talk, and afterwards everything that
//! anybody saw is held against the database.
//!
//! In reading order: [`history`] is what people did and heard, [`checker`] finds what is wrong with it, [`load`] are those
//! who send, [`flood`] those who send too much, [`uploads`] those who upload files, and [`audience`] those who listen,
//! [`stage`] brings them together on a cluster, [`disk`] is a disk that can be full, [`faults`] has a file for each family of faults, [`sabotage`] shows that broken builds are caught, [`delays`]
//! and [`report`] say what came of it.

pub mod audience;
pub mod checker;
pub mod delays;
pub mod disk;
pub mod faults;
pub mod flood;
pub mod history;
pub mod load;
pub mod report;
pub mod sabotage;
pub mod stage;
pub mod uploads;
