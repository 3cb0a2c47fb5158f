-- Sends many messages of many people in one transaction, each with its own outcome, in the order
-- of the arrays. No key may be twice in one call.
--
-- The logs are locked first, in a statement of its own, so that everything after it sees what was
-- committed before. Unless it is told to be patient, it leaves out the logs that others hold at the
-- moment: their messages come back as 'locked', and nothing has been done about them.
--
-- Outcomes: sent, replayed (message_ids has the message of the earlier time), mismatch (the key was
-- used for something else), session_ended, suspended, not_found, archived, locked.
--
-- Few statements, because each has a fixed cost. Parallel arrays go from one to the next, because joining
-- them would cost a large batch the square of its size. Each look-up
-- has its limit 1, which keeps the planner from making a join of it: plans are made once, perhaps when
-- the tables were empty and everything seemed cheap, and must still be good when they are not. For the
-- same reason a key is looked up in the order of keys, which their index alone has: any index of the
-- chat's messages would look as good, and lead through all of them.
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
        array_fill('none'::text, array[cardinality(chats)]), null, null, chats, null, message_ids, null);
end;
$$;
