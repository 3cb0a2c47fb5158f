-- A message as clients receive it, whoever reads it. Bits of messages.parts say that there is something to look
-- up in other tables; a plain message costs nothing for that, not even the preparation of the look-ups, since
-- they are in a function.
create or replace view message_objects as
select m.chat_id, m.id, m.sender_id, m.content, m.created_at, m.idempotency_key, m.seq, m.kind,
       m.edited_at, m.deleted_at, m.reply_to_id,
       case when m.parts <> 0
            then find_message_parts(m.chat_id, m.id, m.seq, m.parts, m.deleted_at is not null)
       end as parts,
       m.system
from messages as m;
