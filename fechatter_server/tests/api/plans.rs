//! The plans of the server's own queries over a million messages.

use std::path::Path;

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Row};

use crate::harness::TestApp;

/// Half of the messages are in chat 1; the rest is spread over 999 others of ten people each.
const A_MILLION_MESSAGES: [&str; 9] = [
    // Keys and triggers are for the server's own writes.
    "set session_replication_role = replica",
    "insert into users (email, email_key, password_hash)
     select n || '@acme.test', n || '@acme.test', '-' from generate_series(1, 500) as n",
    "insert into workspaces (name, name_key, owner_id, join_policy)
     values ('Acme', 'acme', 1, 'open')",
    "insert into workspace_members (workspace_id, user_id, fullname, fullname_key, role)
     select 1, n, 'Person ' || n, 'person ' || n, 'member' from generate_series(1, 500) as n",
    "insert into workspace_logs values (1)",
    "insert into chats
         (workspace_id, chat_type, name, name_key, owner_id, creator_id, member_count)
     select 1, 'PrivateChannel', n, n, 1, 1, 10 from generate_series(1, 1000) as n",
    "insert into chat_members (workspace_id, chat_id, user_id, joined_position)
     select 1, chat, 1 + (chat * 37 + n * 53) % 499 + case when n = 0 then 0 else 1 end, chat
     from generate_series(1, 1000) as chat, generate_series(0, 9) as n
     on conflict do nothing",
    "insert into messages
         (workspace_id, chat_id, seq, sender_id, content, idempotency_key, digest)
     select 1,
            case when n <= 500000 then 1 else 2 + (n - 500001) % 999 end,
            case when n <= 500000 then n else 1 + (n - 500001) / 999 end,
            1 + n % 500, 'Hello', lpad(to_hex(n), 32, '0')::uuid, '\\x00'
     from generate_series(1, 1000000) as n",
    "insert into events (workspace_id, position, stamp, kind, chat_id, message_id)
     select 1, row_number() over (order by id), 1, 'NewMessage', chat_id, id
     from messages
     where chat_id between 2 and 20",
];

#[tokio::test]
async fn no_query_reads_all_messages() {
    let queries = queries();
    assert!(!queries.is_empty(), "no query of the server reads messages: is .sqlx there?");
    let app = TestApp::start().await;
    let mut db = filled(&app.db).await;

    for (number, query) in queries.iter().enumerate() {
        for plan in plans(&mut db, number, query).await {
            assert!(
                !plan.contains("Seq Scan on messages"),
                "all messages are read:\n{plan}\n{}",
                query.text
            );
        }
    }
}

/// A statement that the server prepares, as `sqlx` recorded it.
struct Query {
    text: String,
    /// A value of each parameter.
    values: Vec<&'static str>,
}

/// Those of the workspace's statements that read messages.
fn queries() -> Vec<Query> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.sqlx");
    let files = std::fs::read_dir(folder).unwrap();
    let texts = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    let recorded = texts.map(|text| serde_json::from_str::<Value>(&text).unwrap());
    recorded.filter_map(|query| read_messages(&query)).collect()
}

fn read_messages(recorded: &Value) -> Option<Query> {
    let text = recorded["query"].as_str().unwrap();
    let reads = ["from messages", "join messages", "from log_entries"];
    if !reads.iter().any(|read| text.contains(read)) {
        return None;
    }
    let types = recorded["describe"]["parameters"]["Left"].as_array().unwrap();
    let values = types.iter().map(|kind| match kind.as_str().unwrap_or_default() {
        // Chat 1 is the one where a missing index is felt.
        "Int2" | "Int4" | "Int8" => "1",
        "Int8Array" => "array[1]",
        "Bool" => "true",
        "Text" | "Varchar" => "'x'",
        "Bytea" => "'\\x00'",
        "Uuid" => "'0190c5a4-7e2c-7b6a-9d3a-1f2e3d4c5b6a'",
        "UuidArray" => "array['0190c5a4-7e2c-7b6a-9d3a-1f2e3d4c5b6a']::uuid[]",
        "Timestamptz" => "now()",
        _ => "null",
    });
    Some(Query { text: text.to_owned(), values: values.collect() })
}

/// A connection to a database with a million messages.
async fn filled(db: &PgPool) -> PgConnection {
    let mut db = db.acquire().await.unwrap().detach();
    for statement in A_MILLION_MESSAGES {
        sqlx::query(statement).execute(&mut db).await.unwrap();
    }
    sqlx::raw_sql("reset session_replication_role; analyze").execute(&mut db).await.unwrap();
    db
}

/// The plans of a query: those made for its values, and the one that serves all values once the
/// query has run often enough.
async fn plans(db: &mut PgConnection, number: usize, query: &Query) -> Vec<String> {
    let prepare = format!("prepare query_{number} as {}", query.text);
    sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *db).await.unwrap();
    let values = query.values.join(", ");
    let values = if values.is_empty() { values } else { format!("({values})") };
    let mut plans = Vec::new();
    for _ in 0..7 {
        let explain = format!("explain execute query_{number}{values}");
        let lines = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut *db).await.unwrap();
        let lines: Vec<String> = lines.iter().map(|line| line.get(0)).collect();
        plans.push(lines.join("\n"));
    }
    plans
}
