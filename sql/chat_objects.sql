-- A chat as clients receive it, with its five hundred longest-standing members.
create or replace view chat_objects as
select c.id, c.workspace_id, c.name, c.chat_type,
       array(
           select m.user_id
           from chat_members as m
           where m.chat_id = c.id and m.left_position is null
           order by m.joined_position, m.user_id
           limit 500
       ) as chat_members,
       c.description, c.owner_id as created_by, c.created_at, c.updated_at, c.member_count,
       coalesce((select max(seq) from messages where chat_id = c.id), 0) as last_seq,
       c.archived_at
from chats as c
where c.deleted_at is null;
