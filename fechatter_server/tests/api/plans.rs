//! The plans of the servers' own statements where there is much of everything.

use std::path::Path;

use fechatter_core::log::PLAN_ONCE;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Row};

use crate::harness::TestApp;

/// Half of the messages are in chat 1; the rest is spread over 999 others of ten people each. All are
/// in the log, and everybody has read them.
const MUCH_OF_EVERYTHING: [&str; 17] = [
    // Keys and triggers are for the server's own writes.
    "set session_replication_role = replica",
    "insert into users (email, email_key, password_hash)
     select n || '@acme.test', n || '@acme.test', '-' from generate_series(1, 10000) as n",
    "insert into workspaces (name, name_unique, name_skeleton, owner_id, join_policy)
     values ('Acme', 'acme', 'acme', 1, 'open')",
    "insert into workspace_members (workspace_id, user_id, fullname, role)
     select 1, n, 'Person ' || n, 'member' from generate_series(1, 10000) as n",
    "insert into member_words (workspace_id, word, user_id)
     select 1, word, n
     from generate_series(1, 10000) as n,
          unnest(array['person', 'x' || n % 1000, n || '@acme.test']) as word",
    "insert into sessions (id, user_id, workspace_id, expires_at)
     select lpad(to_hex(n), 32, '0')::uuid, 1 + n % 500, 1, now() + interval '1 day'
     from generate_series(1, 20000) as n",
    "insert into workspace_logs select n from generate_series(1, 10000) as n",
    "insert into chats
         (workspace_id, chat_type, name, name_key, name_unique, name_skeleton, owner_id, creator_id,
          member_count)
     select 1, 'PrivateChannel', n, n, n, n, 1, 1, 10 from generate_series(1, 1000) as n",
    "insert into chat_members (workspace_id, chat_id, user_id, joined_position)
     select 1, chat, 1 + (chat * 37 + n * 53) % 499 + case when n = 0 then 0 else 1 end, chat
     from generate_series(1, 1000) as chat, generate_series(0, 9) as n
     on conflict do nothing",
    "insert into read_marks (workspace_id, user_id, chat_id, seq, set_at_seq)
     select 1, user_id, chat_id, 1000000, 1000000 from chat_members",
    "insert into messages
         (workspace_id, chat_id, seq, sender_id, content, idempotency_key, digest)
     select 1,
            case when n <= 100000 then 1 else 2 + (n - 100001) % 999 end,
            case when n <= 100000 then n else 1 + (n - 100001) / 999 end,
            1 + n % 500, 'Hello', lpad(to_hex(n), 32, '0')::uuid, '\\x00'
     from generate_series(1, 200000) as n",
    "insert into events (workspace_id, position, stamp, kind, effect, chat_id, message_id)
     select 1, row_number() over (order by id), 1, 'NewMessage', 'none', chat_id, id
     from messages",
    "update messages set parts = 1 where chat_id = 1 and id % 10 = 0",
    "insert into message_reactions (workspace_id, chat_id, message_id, emoji, user_id, created_at)
     select 1, chat_id, id, chr(128512 + n % 10), 1 + n, now()
     from messages, generate_series(1, 20) as n
     where chat_id = 1 and id % 10 = 0",
    "update messages set parts = parts | 6 where chat_id = 1 and id % 10 = 1",
    "insert into message_replies (chat_id, message_id, seq, created_at)
     select chat_id, id, seq + n, now() from messages, generate_series(1, 5) as n
     where chat_id = 1 and id % 10 = 1",
    "insert into message_mentions (chat_id, seq, user_id, sender_id)
     select chat_id, seq, nullif(n, 0), sender_id from messages, generate_series(0, 5) as n
     where chat_id = 1 and id % 10 = 1",
];

/// What grows with use. A few pages of anything else are soon read.
const GROWING: [&str; 10] = [
    "chat_members",
    "events",
    "member_words",
    "message_mentions",
    "message_reactions",
    "message_replies",
    "messages",
    "read_marks",
    "sessions",
    "users",
];

/// A statement that is run for each request, each stream or each message.
struct Hot {
    name: &'static str,
    /// Words that no other statement has.
    part: &'static str,
    values: &'static str,
    /// The most pages that it may touch, however much there is.
    pages: i64,
}

/// Person 38 is in chat 1 and nineteen others; the log's head is at 200000.
const HOT: [Hot; 15] = [
    Hot {
        name: "whether a session lives",
        part: "select m.role, m.status, l.status",
        values: "'00000000-0000-0000-0000-000000000025', 38, 1",
        pages: 12,
    },
    Hot {
        name: "a membership",
        part: "select c.chat_type, c.owner_id, m.role, c.archived_at",
        values: "1, 1, 38",
        pages: 12,
    },
    Hot {
        name: "the list of chats",
        part: "c.created_at, newest.seq as",
        values: "1, 38, null, null, 101",
        pages: 400,
    },
    Hot {
        name: "whether a kept list is right",
        part: "as \"unchanged!\"",
        values: "1, 38, 199940, 1, 60",
        pages: 300,
    },
    Hot {
        name: "how far a chat goes",
        part: "as \"head!\", case when",
        values: "1, 50000",
        pages: 16,
    },
    Hot {
        name: "a page of history",
        part: "from message_objects as m where chat_id = $1 and seq between",
        values: "1, 50000, 50099",
        // Ten of the messages have twenty reactions, five replies and six mentions each.
        pages: 700,
    },
    Hot {
        name: "people found by two words",
        part: "select distinct first.user_id",
        values: "1, 'x77', 'x77~', array['pers'], array['pers~']",
        pages: 600,
    },
    Hot {
        name: "members whom a search has found",
        part: "person as \"person?: User\"",
        values: "1, 0, 0, 51, array[38, 39, 40], true",
        pages: 100,
    },
    Hot {
        name: "what a person has not read, for streams",
        part: "select created_at - $4 * interval",
        values: "1, 38, 199000, 30, 101",
        pages: 400,
    },
    Hot {
        name: "a log's head, for syncs",
        part: "select position as \"position: Position\", stamp as",
        values: "1",
        pages: 8,
    },
    Hot {
        name: "new events, for the tail",
        part: "from log_entries_for(range.workspace_id",
        values: "array[1], array[199901], array[200000], null, 1000",
        pages: 1500,
    },
    Hot {
        name: "missed events, for one person",
        part: "from log_entries_for(range.workspace_id",
        values: "array[1], array[199901], array[200000], 38, 1000",
        pages: 800,
    },
    Hot {
        name: "how much somebody has missed",
        part: "as \"count!\" from ( select 1 from events_for",
        values: "1, 199001, 200000, 38, 5001",
        pages: 5000,
    },
    Hot {
        name: "where a stream begins",
        part: "as \"signed_in!\"",
        values: "'00000000-0000-0000-0000-000000000025', 38, 1, 199000",
        pages: 28,
    },
    Hot {
        name: "whether a log was pruned meanwhile",
        part: "as \"later: Stamp\"",
        values: "1, 199000, 200000",
        pages: 16,
    },
];

#[tokio::test]
async fn the_most_frequent_statements_touch_few_pages_in_a_large_database() {
    let recorded = recorded();
    let app = TestApp::start().await;
    let mut db = filled(&app.db).await;

    for (number, hot) in HOT.iter().enumerate() {
        prepare(&mut db, number, &hot.text(&recorded)).await;
        // Planned for these values, and then, as servers soon do, for all values.
        for mode in ["force_custom_plan", "force_generic_plan"] {
            let plan = hot.run(&mut db, number, mode).await;
            let touched = touched(&plan);
            assert!(touched <= hot.pages, "{}: {touched} pages: {plan:#}", hot.name);
            let whole = read_whole(&plan);
            assert!(whole.iter().all(|table| !GROWING.contains(table)), "{}: {plan:#}", hot.name);
        }
    }
}

impl Hot {
    /// As the servers prepare it.
    fn text(&self, recorded: &[Value]) -> String {
        let mut texts = recorded.iter().map(|query| query["query"].as_str().unwrap());
        let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = texts.find(|text| one_line(text).contains(self.part));
        text.unwrap_or_else(|| panic!("no statement of the servers is {}", self.name)).to_owned()
    }

    /// Runs it, and tells its plan with what it touched.
    async fn run(&self, db: &mut PgConnection, number: usize, mode: &str) -> Value {
        let explain = format!(
            "set plan_cache_mode = {mode};
             explain (analyze, buffers, format json) execute query_{number}({})",
            self.values
        );
        let row = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_one(db).await.unwrap();
        row.get::<Value, _>(0)[0]["Plan"].clone()
    }
}

/// As when statistics were last made before there were other chats: a chat's first few messages look as
/// if they were soon found by reading all messages.
#[tokio::test]
async fn unread_messages_are_counted_by_index_if_one_chat_has_nearly_all_messages() {
    let list = HOT.iter().find(|hot| hot.name == "the list of chats").unwrap();
    let app = TestApp::start().await;
    let mut db = filled(&app.db).await;
    let uneven = [
        "delete from messages where chat_id > 1",
        "delete from read_marks",
        "vacuum full analyze messages",
        "insert into messages
             (workspace_id, chat_id, seq, sender_id, content, idempotency_key, digest)
         select 1, chat_id, 1, 1, 'Hello', gen_random_uuid(), ''
         from chat_members
         where user_id = 38 and chat_id > 1",
    ];
    for statement in uneven {
        sqlx::query(statement).execute(&mut db).await.unwrap();
    }

    prepare(&mut db, 0, &list.text(&recorded())).await;
    for mode in ["force_custom_plan", "force_generic_plan"] {
        let plan = list.run(&mut db, 0, mode).await;
        assert!(read_whole(&plan).iter().all(|table| *table != "messages"), "{plan:#}");
    }
}

/// The connections of `notify_server` keep the plans that they make first.
#[tokio::test]
async fn statements_of_streams_touch_few_pages_with_plans_for_empty_tables() {
    const STATEMENTS: [&str; 5] = [
        "new events, for the tail",
        "missed events, for one person",
        "how much somebody has missed",
        "where a stream begins",
        "whether a log was pruned meanwhile",
    ];
    let statements = || HOT.iter().filter(|hot| STATEMENTS.contains(&hot.name)).enumerate();
    let recorded = recorded();
    let app = TestApp::start().await;
    let mut db = app.db.acquire().await.unwrap();
    sqlx::raw_sql("analyze").execute(&mut *db).await.unwrap();
    for (name, value) in PLAN_ONCE {
        sqlx::raw_sql(AssertSqlSafe(format!("set {name} = {value}")))
            .execute(&mut *db)
            .await
            .unwrap();
    }
    for (number, hot) in statements() {
        prepare(&mut db, number, &hot.text(&recorded)).await;
        hot.run(&mut db, number, PLAN_ONCE[0].1).await;
    }
    fill(&mut app.db.acquire().await.unwrap()).await;

    for (number, hot) in statements() {
        let plan = hot.run(&mut db, number, PLAN_ONCE[0].1).await;
        let touched = touched(&plan);
        assert!(touched <= hot.pages, "{}: {touched} pages: {plan:#}", hot.name);
    }
    assert_eq!(statements().count(), STATEMENTS.len(), "some statements are not known");
}

/// A server's first message may well be the first of all; the plans that are made for it then stay.
#[tokio::test]
async fn sending_touches_few_pages_with_plans_for_empty_tables() {
    const SENDS: [&str; 3] = [
        "explain (analyze, buffers, format json)
         select * from write_batch(
             array['send'], array[1::bigint], array[38::bigint],
             array['00000000-0000-0000-0000-000000000025'::uuid], array[1::bigint], array[null::bigint],
             array['Hello'], array[gen_random_uuid()], array['\\x01'::bytea], '{}', '{}', '{}', '{}', '{}', 7, false)",
        "explain (analyze, buffers, format json)
         select * from write_batch(
             array['add_reaction'], array[1::bigint], array[38::bigint],
             array['00000000-0000-0000-0000-000000000025'::uuid], array[1::bigint],
             array[(select max(id) from messages where chat_id = 1)],
             array[chr(128512)],
             array[null::uuid], array[null::bytea], '{}', '{}', '{}', '{}', '{}', 7, false)",
        "explain (analyze, buffers, format json)
         select * from send_message(
             1, 38, '00000000-0000-0000-0000-000000000025', 1, 'Hello', gen_random_uuid(), '\\x01', 7,
             false)",
    ];
    let app = TestApp::start().await;
    let mut planned = app.db.acquire().await.unwrap();
    sqlx::raw_sql("analyze").execute(&mut *planned).await.unwrap();
    for send in SENDS {
        sqlx::query(send).execute(&mut *planned).await.unwrap();
    }
    fill(&mut app.db.acquire().await.unwrap()).await;

    for send in SENDS {
        // A statement that PostgreSQL plans anew, because autovacuum has just analyzed a table, also
        // touches the pages of the catalog.
        let mut least = i64::MAX;
        for _ in 0..ATTEMPTS {
            let row = sqlx::query(send).fetch_one(&mut *planned).await.unwrap();
            least = least.min(touched(&row.get::<Value, _>(0)[0]["Plan"]));
        }
        assert!(least <= PAGES_OF_A_MESSAGE, "{send} touches {least} pages");
    }
    let sent: i64 = sqlx::query_scalar("select count(*) from messages where digest = '\\x01'")
        .fetch_one(&app.db)
        .await
        .unwrap();
    assert_eq!(sent, 2 * ATTEMPTS, "a message that was looked at was not sent");
}

/// The number of executions of each statement, of which the one with the fewest pages counts.
const ATTEMPTS: i64 = 3;

/// With all indexes that it is written to, and all keys that are checked.
const PAGES_OF_A_MESSAGE: i64 = 400;

fn touched(plan: &Value) -> i64 {
    let pages = [&plan["Shared Hit Blocks"], &plan["Shared Read Blocks"]];
    pages.iter().map(|pages| pages.as_i64().unwrap()).sum()
}

/// The tables that are read from the beginning to the end.
fn read_whole(plan: &Value) -> Vec<&str> {
    let inner = plan["Plans"].as_array().into_iter().flatten().flat_map(read_whole);
    let whole = (plan["Node Type"] == "Seq Scan").then(|| plan["Relation Name"].as_str().unwrap());
    inner.chain(whole).collect()
}

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

/// All statements of the servers.
fn recorded() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.sqlx");
    let files = std::fs::read_dir(folder).unwrap();
    let texts = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    texts.map(|text| serde_json::from_str(&text).unwrap()).collect()
}

/// Those that read messages.
fn queries() -> Vec<Query> {
    recorded().iter().filter_map(read_messages).collect()
}

fn read_messages(recorded: &Value) -> Option<Query> {
    let text = recorded["query"].as_str().unwrap();
    let reads = ["from messages", "join messages", "from message_objects", "from log_entries_for"];
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

/// A connection to a database with much of everything.
async fn filled(db: &PgPool) -> PgConnection {
    let mut db = db.acquire().await.unwrap().detach();
    fill(&mut db).await;
    sqlx::raw_sql("analyze").execute(&mut db).await.unwrap();
    db
}

async fn fill(db: &mut PgConnection) {
    for statement in MUCH_OF_EVERYTHING {
        sqlx::query(statement).execute(&mut *db).await.unwrap();
    }
    sqlx::raw_sql("reset session_replication_role").execute(db).await.unwrap();
}

/// The plans of a query: those made for its values, and the one that serves all values once the
/// query has run often enough.
async fn plans(db: &mut PgConnection, number: usize, query: &Query) -> Vec<String> {
    prepare(db, number, &query.text).await;
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

async fn prepare(db: &mut PgConnection, number: usize, text: &str) {
    let prepare = format!("prepare query_{number} as {text}");
    sqlx::raw_sql(AssertSqlSafe(prepare)).execute(db).await.unwrap();
}
