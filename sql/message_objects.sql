-- A message as clients receive it, whoever reads it. A bit of messages.parts says that there may be something to
-- look up in another table; a plain message needs none of these look-ups.
create or replace view message_objects as
select m.chat_id, m.id, m.sender_id, m.content, m.created_at, m.idempotency_key, m.seq, m.kind,
       m.edited_at, m.deleted_at,
       case when m.parts & 1 <> 0 and m.deleted_at is null then (
           select json_agg(
               json_build_object('emoji', r.emoji, 'count', r.count, 'user_ids', r.user_ids)
               order by r.first)
           from (
               select emoji, count(*), min(r.id) as first,
                      -- Of those who have added it, the first twenty.
                      (array_agg(r.user_id order by r.id))[:20] as user_ids
               from message_reactions as r
               where r.chat_id = m.chat_id and r.message_id = m.id
               group by r.emoji
           ) as r
       ) end as reactions,
       m.reply_to_id,
       case when m.parts & 2 <> 0 then (
           select count(*)
           from message_replies as r
           where r.chat_id = m.chat_id and r.message_id = m.id and not r.is_deleted
       ) else 0 end as reply_count,
       case when m.parts & 2 <> 0 then (
           select r.created_at
           from message_replies as r
           where r.chat_id = m.chat_id and r.message_id = m.id and not r.is_deleted
           order by r.seq desc
           limit 1
       ) end as last_reply_at,
       case when m.parts & 4 <> 0 then array(
           -- Null, for everybody, comes last.
           select p.user_id
           from message_mentions as p
           where p.chat_id = m.chat_id and p.seq = m.seq
           order by p.user_id
       ) end as mentions,
       m.system
from messages as m;
