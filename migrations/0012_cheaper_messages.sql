-- In the order of the writers, who would otherwise wait for us while we wait for them. Behind a backup
-- this gives up, and does not stand in everybody else's way.
set local lock_timeout = '2s';
lock table workspace_logs, events in access exclusive mode;

-- Whoever appends to a log holds the lock of its row in workspace_logs: that it is there is asked once
-- for each log of a call, not once more for each event. No log is ever deleted.
alter table events drop constraint events_workspace_id_fkey;

-- As before, with that question.
create or replace function append_events(
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
            where position is not null
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
    insert into events (workspace_id, position, stamp, kind, chat_id, user_id, message_id, payload)
    select new.workspace_id, new.position, append_events.stamp, new.kind,
           new.chat_id, new.user_id, new.message_id, new.payload
    from unnest(workspaces, positions, kinds, chats, users, messages, payloads)
        as new (workspace_id, position, kind, chat_id, user_id, message_id, payload)
    where new.position is not null;
end;
$$;

-- As before, but each event's message is found in the order of ids, for the same reason as the keys
-- below: of one chat, that order is the primary key's alone.
create or replace view log_entries as
select
    e.workspace_id, e.position, e.stamp, e.kind, e.chat_id, e.user_id, e.message_id, e.payload,
    case when e.kind = 'NewChat' then array(
        select c.user_id from chat_members as c
        where c.chat_id = e.chat_id and c.joined_position = e.position
    ) end as joined,
    m.seq, m.sender_id, m.kind as message_kind, m.content, m.idempotency_key,
    m.created_at, m.edited_at, m.deleted_at
from events as e
left join lateral (
    select *
    from messages as m
    where m.chat_id = e.chat_id
      and m.id between e.message_id and e.message_id
      and not exists (
          select 1 from chats as c
          where c.id = m.chat_id and c.deleted_at is not null
      )
    order by m.id
    limit 1
) as m on true;

-- As before, but whether a key was used is asked in the order of keys, which their index alone has:
-- a plan that was made when the table was empty took any index of the chat's messages for as good,
-- and went through all of them for each message.
create or replace function send_messages(
    workspaces bigint[], senders bigint[], sessions uuid[], chats bigint[],
    contents text[], keys uuid[], digests bytea[], stamp integer, patient boolean,
    out outcomes text[], out message_ids bigint[], out seqs bigint[], out sent_at timestamptz
) language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_memoize = off
as $$
declare
    held bigint[];
    positions bigint[];
begin
    if patient then
        held := array(
            select l.workspace_id from workspace_logs as l
            where l.workspace_id = any(workspaces)
            order by l.workspace_id
            for no key update);
    else
        held := array(
            select l.workspace_id from workspace_logs as l
            where l.workspace_id = any(workspaces)
            order by l.workspace_id
            for no key update skip locked);
    end if;
    sent_at := clock_timestamp();

    -- Ids, seqs and positions are drawn in the order of the items, under the lock: all run alike.
    select array_agg(numbered.outcome), array_agg(numbered.id), array_agg(numbered.seq),
           array_agg(numbered.position)
    into outcomes, message_ids, seqs, positions
    from (
        select checked.outcome,
               case when checked.outcome = 'sent' then nextval('messages_id_seq')
                    else checked.earlier
               end as id,
               case when checked.outcome = 'sent' then coalesce((
                        select max(m.seq) from messages as m where m.chat_id = checked.chat_id
                    ), 0) + row_number() over (
                        partition by checked.chat_id, checked.outcome order by checked.item)
               end as seq,
               case when checked.outcome = 'sent' then coalesce((
                        select max(e.position) from events as e
                        where e.workspace_id = checked.workspace_id
                    ), 0) + row_number() over (
                        partition by checked.workspace_id, checked.outcome order by checked.item)
               end as position
        from (
            select i.item, i.workspace_id, i.chat_id, earlier.id as earlier,
                   case when i.workspace_id <> all(held) then 'locked'
                        when session.lives is not true or person.status is null then 'session_ended'
                        when person.status = 'Suspended' then 'suspended'
                        when chat.is_there is not true or membership.is_open is not true
                            then 'not_found'
                        when earlier.digest = i.digest then 'replayed'
                        when earlier.digest is not null then 'mismatch'
                        when chat.archived_at is not null then 'archived'
                        else 'sent'
                   end as outcome
            from unnest(workspaces, senders, sessions, chats, keys, digests) with ordinality
                as i (workspace_id, sender_id, session_id, chat_id, key, digest, item)
            left join lateral (
                select s.user_id = i.sender_id
                       and s.revoked_at is null
                       and s.expires_at > sent_at as lives
                from sessions as s
                where s.id = i.session_id
                limit 1
            ) as session on true
            left join lateral (
                select w.status
                from workspace_members as w
                where w.workspace_id = i.workspace_id
                  and w.user_id = i.sender_id
                  and w.left_at is null
                limit 1
            ) as person on true
            left join lateral (
                select c.archived_at,
                       c.workspace_id = i.workspace_id and c.deleted_at is null as is_there
                from chats as c
                where c.id = i.chat_id
                limit 1
            ) as chat on true
            left join lateral (
                -- The newest period: only the primary key is in that order.
                select m.left_position is null as is_open
                from chat_members as m
                where m.chat_id = i.chat_id and m.user_id = i.sender_id
                order by m.joined_position desc
                limit 1
            ) as membership on true
            left join lateral (
                -- In the order of keys, which only their index has.
                select e.id, e.digest
                from messages as e
                where e.chat_id = i.chat_id
                  and e.sender_id = i.sender_id
                  and e.idempotency_key between i.key and i.key
                order by e.idempotency_key
                limit 1
            ) as earlier on true
        ) as checked
        order by checked.item
    ) as numbered;

    insert into messages
        (id, workspace_id, chat_id, seq, sender_id, content, idempotency_key, digest, created_at)
    overriding system value
    select new.id, new.workspace_id, new.chat_id, new.seq, new.sender_id, new.content, new.key,
           new.digest, sent_at
    from unnest(message_ids, workspaces, chats, seqs, senders, contents, keys, digests)
        as new (id, workspace_id, chat_id, seq, sender_id, content, key, digest)
    where new.seq is not null;

    perform append_events(
        workspaces, positions, stamp, array_fill('NewMessage'::text, array[cardinality(chats)]),
        chats, null, message_ids, null);
end;
$$;
