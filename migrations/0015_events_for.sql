-- The one rule of which events were for whom, without the messages that they are about: to count them,
-- or to ask whether there are any, takes a quarter of the time without.
create function events_for(workspace bigint, first bigint, last bigint, reader bigint)
returns setof events language sql stable as $$
    select e.*
    from events as e
    where e.workspace_id = workspace
      and e.position between first and last
      and (reader is null
           or (e.chat_id is null and e.user_id is null)
           or e.user_id = reader
           or exists (
               select 1 from chat_members as m
               where m.chat_id = e.chat_id
                 and m.user_id = reader
                 and m.joined_position <= e.position
                 and (m.left_position is null or m.left_position >= e.position)))
$$;

-- The same events as they are sent: with the messages as they are now. It takes the place of the view of
-- this name, which nothing else read.
drop function log_entries_for;
drop view log_entries;
create function log_entries_for(workspace bigint, first bigint, last bigint, reader bigint)
returns table (
    workspace_id bigint, "position" bigint, stamp integer, kind text, chat_id bigint, user_id bigint,
    message_id bigint, payload json, joined bigint[],
    seq bigint, sender_id bigint, message_kind text, content text, idempotency_key uuid,
    created_at timestamptz, edited_at timestamptz, deleted_at timestamptz
) language sql stable as $$
    select
        e.workspace_id, e.position, e.stamp, e.kind, e.chat_id, e.user_id, e.message_id, e.payload,
        case when e.kind = 'NewChat' then array(
            select c.user_id from chat_members as c
            where c.chat_id = e.chat_id and c.joined_position = e.position
        ) end,
        m.seq, m.sender_id, m.kind, m.content, m.idempotency_key,
        m.created_at, m.edited_at, m.deleted_at
    from events_for(workspace, first, last, reader) as e
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
    ) as m on true
$$;

-- The chats that somebody was in at the time of some event.
create index chat_members_left on chat_members (workspace_id, user_id, left_position)
    where left_position is not null;
