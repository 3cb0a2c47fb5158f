-- The row that every writer of a workspace's log locks before anything else.
create table workspace_logs (
    workspace_id bigint primary key references workspaces
);

-- The log: position 1, 2, 3, … of each workspace, contiguous, in commit order.
create table events (
    workspace_id bigint not null references workspace_logs,
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

-- The only way into the log. The caller holds the locks of all the workspaces it names and
-- has worked out the positions under them; a mistake in that must never become a gap.
create function append_events(
    workspaces bigint[], positions bigint[], stamp integer, kinds text[],
    chats bigint[], users bigint[], messages bigint[], payloads json[]
) returns void language plpgsql as $$
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'the log is written in read committed only';
    end if;
    if exists (
        select 1
        from (
            select workspace_id, min(position) as first, max(position) - min(position) + 1 as span, count(*) as events
            from unnest(workspaces, positions) as new (workspace_id, position)
            group by workspace_id
        ) as new
        where span <> events
           or first <> 1 + coalesce((
                select max(old.position) from events as old where old.workspace_id = new.workspace_id
              ), 0)
    ) then
        raise exception 'positions do not continue the log';
    end if;
    insert into events (workspace_id, position, stamp, kind, chat_id, user_id, message_id, payload)
    select new.workspace_id, new.position, append_events.stamp, new.kind,
           new.chat_id, new.user_id, new.message_id, new.payload
    from unnest(workspaces, positions, kinds, chats, users, messages, payloads)
        as new (workspace_id, position, kind, chat_id, user_id, message_id, payload);
end;
$$;
