-- What was said in a deleted chat is not told to anybody any more, also before it is purged.
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
left join messages as m
    on m.chat_id = e.chat_id
    and m.id = e.message_id
    and not exists (
        select 1 from chats as c
        where c.id = m.chat_id and c.deleted_at is not null
    );
