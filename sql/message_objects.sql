-- A message as clients receive it, whoever reads it. Bits of messages.parts say that there is something to look
-- up in other tables; a plain message costs nothing for that, not even the preparation of the look-ups, since
-- they are in a function. The messages of a person who has erased them are deleted before their rows are emptied:
-- who these people are, of all workspaces, is looked up once in a query.
create or replace view message_objects as
select m.chat_id, m.id, m.sender_id,
       case when blanked.is_blanked then '' else m.content end as content,
       m.created_at, m.idempotency_key, m.seq, m.kind, m.edited_at,
       case when blanked.is_blanked and m.deleted_at is null
            then (
                select b.blanked_at
                from blanked_people as b
                where b.workspace_id = m.workspace_id and b.user_id = m.sender_id)
            else m.deleted_at
       end as deleted_at,
       m.reply_to_id,
       case when m.parts <> 0
            then find_message_parts(
                m.chat_id, m.id, m.seq, m.parts, m.deleted_at is not null or blanked.is_blanked)
       end as parts,
       m.system,
       m.parts & 8 <> 0 and m.deleted_at is null and not blanked.is_blanked as has_files
from messages as m
cross join lateral (
    select m.kind = 'user' and m.sender_id = any (array(select user_id from blanked_people)) as is_blanked
) as blanked;
