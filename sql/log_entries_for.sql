-- The same events as they are sent: with the messages and the people as they are now, but for those of deleted chats,
-- and with the people whose membership of the chat an event began. A message is looked up
-- in the order of ids, which within one chat only the primary key has: see write_batch.
create or replace function log_entries_for(workspace bigint, first bigint, last bigint, reader bigint)
returns table (
    workspace_id bigint, "position" bigint, stamp integer, kind text, effect text, person_id bigint,
    session_ids uuid[], chat_id bigint, user_id bigint, message_id bigint, payload json, joined bigint[],
    message message_objects, parent json, person user_objects
) language sql stable as $$
    select
        e.workspace_id, e.position, e.stamp, e.kind, e.effect, e.person_id, e.session_ids,
        e.chat_id, e.user_id, e.message_id, e.payload,
        case
            when e.effect <> 'joins' then null
            when e.user_id is not null then array[e.user_id]
            else array(
                select c.user_id from chat_members as c
                where c.chat_id = e.chat_id and c.joined_position = e.position)
        end,
        o.message,
        case when (o.message).reply_to_id is not null
                  and (e.payload is null or e.effect = 'removes_message')
             then reply_parent(e.chat_id, (o.message).reply_to_id) end,
        case when e.person_id is not null and e.payload is null
             then find_person(e.workspace_id, e.person_id) end
    from events_for(workspace, first, last, reader) as e
    left join lateral (
        select m as message
        from message_objects as m
        where m.chat_id = e.chat_id
          and m.id between e.message_id and e.message_id
        order by m.id
        limit 1
    ) as o on (
        -- As a scalar: an anti-join would make PostgreSQL sort the one message that there is.
        select c.deleted_at is null
        from chats as c
        where c.id = e.chat_id
        limit 1
    )
$$;
