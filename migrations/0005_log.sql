-- The row that every writer of a workspace's log locks before anything else.
create table workspace_logs (
    workspace_id bigint primary key references workspaces
);

-- The log: position 1, 2, 3, … of each workspace, contiguous, in commit order.
create table events (
    -- append_events asks whether its log is there, once for each log and not for each event.
    workspace_id bigint not null,
    position bigint not null check (position > 0),
    -- Random, one per commit: tells a log from another one that was restored or promoted.
    stamp integer not null,
    kind text not null,
    -- The audience: the chat's members at this position, and this person; neither: everyone.
    chat_id bigint,
    user_id bigint,
    -- Events about a message name it; what clients receive is the message as it is when read.
    message_id bigint,
    -- What clients receive, in the order of its keys (hence not jsonb); null for messages.
    payload json,
    created_at timestamptz not null default clock_timestamp(),
    primary key (workspace_id, position),
    check ((message_id is null) <> (payload is null)),
    check (message_id is null or chat_id is not null)
);
