//! Keys of names and addresses that were given before the keys were made as they are now.

use sqlx::PgConnection;
use sqlx::postgres::PgQueryResult;

use crate::error::Result;
use crate::utils::key::{key, skeleton_key, unique_key};

/// Rows that are read at a time.
const BATCH: i64 = 500;

/// Makes the keys that are missing or out of date. Each row is a transaction of its own, so that
/// no lock is held while waiting for another one, and none waits for the disk: what a crash loses is
/// made at the next start.
///
/// A row stays as it is where an older one has the key already: it is found by its plain key.
pub(crate) async fn fill(db: &mut PgConnection) -> Result<()> {
    sqlx::query!("set synchronous_commit = off").execute(&mut *db).await?;
    fill_workspaces(db).await?;
    fill_chats(db).await?;
    fill_addresses(db).await
}

/// A name or an address, and its key.
struct Row {
    id: i64,
    text: String,
    key: String,
}

async fn fill_workspaces(db: &mut PgConnection) -> Result<()> {
    let read = async |db: &mut PgConnection, after: i64| {
        sqlx::query_as!(
            Row,
            r#"select id as "id: i64", name as text, name_key as key
               from workspaces
               where (name_unique_of is distinct from name_key
                      or name_skeleton_of is distinct from name_key)
                 and id > $1
               order by id
               limit $2"#,
            after,
            BATCH
        )
        .fetch_all(db)
        .await
    };
    let write = async |db: &mut PgConnection, row: Row| {
        sqlx::query!(
            "update workspaces
             set name_key = $3,
                 name_unique = $4,
                 name_unique_of = $3,
                 name_skeleton = $5,
                 name_skeleton_of = $3
             where id = $1
               and name_key = $2",
            row.id,
            row.key,
            key(&row.text),
            unique_key(&row.text),
            skeleton_key(&row.text)
        )
        .execute(db)
        .await
    };
    fill_table(db, read, write).await
}

async fn fill_chats(db: &mut PgConnection) -> Result<()> {
    let read = async |db: &mut PgConnection, after: i64| {
        sqlx::query_as!(
            Row,
            r#"select id as "id: i64", name as "text!", name_key as "key!"
               from chats
               where (name_unique_of is distinct from name_key
                      or name_skeleton_of is distinct from name_key)
                 and deleted_at is null
                 and id > $1
               order by id
               limit $2"#,
            after,
            BATCH
        )
        .fetch_all(db)
        .await
    };
    let write = async |db: &mut PgConnection, row: Row| {
        sqlx::query!(
            "update chats
             set name_key = $3,
                 name_unique = $4,
                 name_unique_of = $3,
                 name_skeleton = $5,
                 name_skeleton_of = $3
             where id = $1
               and name_key = $2",
            row.id,
            row.key,
            key(&row.text),
            unique_key(&row.text),
            skeleton_key(&row.text)
        )
        .execute(db)
        .await
    };
    fill_table(db, read, write).await
}

/// Only addresses outside ASCII can have a key of another form.
async fn fill_addresses(db: &mut PgConnection) -> Result<()> {
    let read = async |db: &mut PgConnection, after: i64| {
        sqlx::query_as!(
            Row,
            r#"select id as "id: i64", email as text, email_key as key
               from users
               where octet_length(email_key) <> char_length(email_key)
                 and id > $1
               order by id
               limit $2"#,
            after,
            BATCH
        )
        .fetch_all(db)
        .await
    };
    let write = async |db: &mut PgConnection, row: Row| {
        let email_key = key(&row.text);
        if email_key == row.key {
            return Ok(PgQueryResult::default());
        }
        sqlx::query!("update users set email_key = $2 where id = $1", row.id, email_key)
            .execute(db)
            .await
    };
    fill_table(db, read, write).await
}

/// Reads the rows after an id, batch by batch, and writes each.
async fn fill_table(
    db: &mut PgConnection,
    read: impl AsyncFn(&mut PgConnection, i64) -> sqlx::Result<Vec<Row>>,
    write: impl AsyncFn(&mut PgConnection, Row) -> sqlx::Result<PgQueryResult>,
) -> Result<()> {
    let mut after = 0;
    loop {
        let rows = read(&mut *db, after).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.id;
        for row in rows {
            write(&mut *db, row).await.or_else(pass_over_taken)?;
        }
    }
}

/// A row whose key another one has stays as it is.
fn pass_over_taken(error: sqlx::Error) -> Result<PgQueryResult, sqlx::Error> {
    match &error {
        sqlx::Error::Database(inner) if inner.is_unique_violation() => Ok(PgQueryResult::default()),
        _ => Err(error),
    }
}
