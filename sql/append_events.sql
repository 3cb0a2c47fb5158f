-- The way into the log, besides that of send_message. The caller holds the locks of all the workspaces it
-- names. Positions that the caller has worked out under them are checked: a mistake in that must never
-- become a gap; and so is that an event names what its effect is about. Without positions, as write_batch
-- calls it, the events get the next ones in their order. An item without a kind is passed over: whoever has
-- worked out which of many items make events hands over all of them, and filters nothing.
create or replace function append_events(
    workspaces bigint[], positions bigint[], stamp integer,
    kinds text[], effects text[], people bigint[], sessions text[],
    chats bigint[], users bigint[], messages bigint[], payloads json[]
) returns void language plpgsql as $$
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'the log is written in read committed only';
    end if;
    if positions is not null and exists (
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
           or (
                -- With a limit: a look-up for each, however the planner feels about all of them at once.
                select true from workspace_logs as l where l.workspace_id = new.workspace_id limit 1
              ) is null
    ) then
        raise exception 'positions do not continue the log';
    end if;
    if positions is not null and exists (
        select 1
        from unnest(kinds, effects, people, sessions, chats, users, messages, payloads)
            as new (kind, effect, person_id, session_ids, chat_id, user_id, message_id, payload)
        where kind is not null
          and not coalesce(
              case when message_id is not null then chat_id is not null
                   else payload is not null or person_id is not null
              end
              and case effect
                  when 'none' then true
                  when 'joins' then chat_id is not null
                  when 'leaves' then chat_id is not null and user_id is not null
                  when 'closes_chat' then chat_id is not null
                  when 'suspends' then person_id is not null
                  when 'removes_person' then person_id is not null
                  when 'changes_person' then person_id is not null
                  when 'blanks_messages' then person_id is not null
                  when 'ends_sessions' then session_ids is not null
                  when 'changes_message' then message_id is not null
                  when 'removes_message' then message_id is not null
                  -- A newer version's.
                  else effect is not null
              end, false)
    ) then
        raise exception 'an event does not name what its effect is about';
    end if;
    insert into events (workspace_id, position, stamp, kind, effect, person_id, session_ids,
                        chat_id, user_id, message_id, payload)
    select new.workspace_id,
           -- A log's newest position is looked up for the first of its events alone.
           coalesce(new.position, new.place + max(case when new.place = 1 then coalesce((
               select max(old.position) from events as old where old.workspace_id = new.workspace_id
           ), 0) end) over (partition by new.workspace_id)),
           append_events.stamp, new.kind, new.effect, new.person_id,
           new.session_ids::uuid[], new.chat_id, new.user_id, new.message_id, new.payload
    from (
        select *, row_number() over (partition by workspace_id order by item) as place
        from unnest(workspaces, positions, kinds, effects, people, sessions, chats, users, messages, payloads)
            with ordinality
            as new (workspace_id, position, kind, effect, person_id, session_ids, chat_id, user_id,
                    message_id, payload, item)
        where kind is not null
    ) as new;
end;
$$;
