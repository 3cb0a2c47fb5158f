-- A message as clients receive it, whoever reads it. Bits of messages.parts say that there is something to look
-- up in other tables; a plain message costs nothing for that, not even the preparation of the look-ups, since
-- they are in a function. The messages of a person who has erased them are deleted before their rows are emptied.
create or replace view message_objects as
select m.chat_id, m.id, m.sender_id,
       case when blanked.blanked_at is null then m.content else '' end as content,
       m.created_at, m.idempotency_key, m.seq, m.kind, m.edited_at,
       coalesce(m.deleted_at, blanked.blanked_at) as deleted_at,
       m.reply_to_id,
       case when m.parts <> 0
            then find_message_parts(
                m.chat_id, m.id, m.seq, m.parts,
                m.deleted_at is not null or blanked.blanked_at is not null)
       end as parts,
       m.system
from messages as m
left join blanked_people as blanked
    on blanked.workspace_id = m.workspace_id and blanked.user_id = m.sender_id and m.kind = 'user';
