-- A message that has replies, as the events of its replies show it: its id, the number of its replies that
-- are not deleted, and the time of the newest of them.
create or replace function reply_parent(chat bigint, parent bigint) returns json language sql stable as $$
    select row_to_json(shown)
    from (
        select parent as id,
               (
                   select count(*)
                   from message_replies as r
                   where r.chat_id = chat and r.message_id = parent and not r.is_deleted
               ) as reply_count,
               (
                   select to_char(r.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
                   from message_replies as r
                   where r.chat_id = chat and r.message_id = parent and not r.is_deleted
                   order by r.seq desc
                   limit 1
               ) as last_reply_at
    ) as shown
$$;
