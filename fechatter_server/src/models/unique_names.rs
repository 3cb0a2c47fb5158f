//! Keys of names and addresses that were given before the keys were made as they are now.

use fechatter_core::{ChatId, UserId, WorkspaceId};
use sqlx::PgConnection;
use sqlx::postgres::PgQueryResult;

use crate::error::Result;
use crate::utils::key::{key, unique_key};

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

async fn fill_workspaces(db: &mut PgConnection) -> Result<()> {
    let mut after = WorkspaceId(0);
    loop {
        let rows = sqlx::query!(
            "select id, name, name_key
             from workspaces
             where name_unique_of is distinct from name_key
               and id > $1
             order by id
             limit $2",
            after as _,
            BATCH
        )
        .fetch_all(&mut *db)
        .await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.id;
        for row in rows {
            sqlx::query!(
                "update workspaces
                 set name_key = $3,
                     name_unique = $4,
                     name_unique_of = $3
                 where id = $1
                   and name_key = $2",
                row.id as _,
                row.name_key,
                key(&row.name),
                unique_key(&row.name)
            )
            .execute(&mut *db)
            .await
            .or_else(pass_over_taken)?;
        }
    }
}

async fn fill_chats(db: &mut PgConnection) -> Result<()> {
    let mut after = ChatId(0);
    loop {
        let rows = sqlx::query!(
            "select id, name, name_key
             from chats
             where name_unique_of is distinct from name_key
               and deleted_at is null
               and id > $1
             order by id
             limit $2",
            after as _,
            BATCH
        )
        .fetch_all(&mut *db)
        .await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.id;
        for row in rows {
            sqlx::query!(
                "update chats
                 set name_key = $3,
                     name_unique = $4,
                     name_unique_of = $3
                 where id = $1
                   and name_key = $2",
                row.id as _,
                row.name_key,
                key(&row.name),
                unique_key(&row.name)
            )
            .execute(&mut *db)
            .await
            .or_else(pass_over_taken)?;
        }
    }
}

/// Only addresses outside ASCII can have a key of another form.
async fn fill_addresses(db: &mut PgConnection) -> Result<()> {
    let mut after = UserId(0);
    loop {
        let rows = sqlx::query!(
            "select id, email, email_key
             from users
             where octet_length(email_key) <> char_length(email_key)
               and id > $1
             order by id
             limit $2",
            after as _,
            BATCH
        )
        .fetch_all(&mut *db)
        .await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.id;
        for row in rows.into_iter().filter(|row| key(&row.email) != row.email_key) {
            sqlx::query!(
                "update users set email_key = $2 where id = $1",
                row.id as _,
                key(&row.email)
            )
            .execute(&mut *db)
            .await
            .or_else(pass_over_taken)?;
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
