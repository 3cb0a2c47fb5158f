-- The row that every writer of a workspace's log locks before anything else.
create table workspace_logs (
    workspace_id bigint primary key references workspaces
);

-- The log: position 1, 2, 3, … of each workspace, contiguous, in commit order.
create table events (
    -- append_events and send_message are the only ways in. They check that the log exists, that the positions
    -- continue it, and that an event names what its effect is about. Constraints would say the same,
    -- but PostgreSQL parses each of them anew in every statement that inserts.
    workspace_id bigint not null,
    position bigint not null,
    -- Random, one per commit: tells a log from another one that was restored or promoted.
    stamp integer not null,
    -- A label for clients: nothing is decided by it.
    kind text not null,
    -- What the event does, for all who read the log: see fechatter_core/src/event/effect.rs. Without a
    -- default, so that a writer who does not know of it fails.
    effect text not null,
    -- The person, and the sessions, that the effect is about.
    person_id bigint,
    session_ids uuid[],
    -- The audience: the chat's members at this position, and this person; neither: everyone.
    chat_id bigint,
    user_id bigint,
    -- Events about a message name it; what clients receive is the message as it is when read.
    message_id bigint,
    -- What clients receive, in the order of its keys (hence not jsonb); null for messages.
    payload json,
    created_at timestamptz not null default clock_timestamp(),
    primary key (workspace_id, position)
);
