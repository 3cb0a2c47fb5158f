-- The one rule of who may see a file: a person has uploaded it, under own, or is now in a chat that holds it, of
-- whose messages the newest gives held. Both are null if the person may not see it.
create or replace function file_names(workspace bigint, file_hash bytea, person bigint)
returns table (own text, held text) language sql stable as $$
    select (
               select u.name
               from uploads as u
               where u.workspace_id = workspace and u.hash = file_hash and u.user_id = person
           ),
           (
               select a.name
               from message_files as a
               join chat_members as m
                   on m.chat_id = a.chat_id and m.user_id = person and m.left_position is null
               join chats as c on c.id = a.chat_id and c.deleted_at is null
               where a.workspace_id = workspace and a.hash = file_hash
               order by a.chat_id desc, a.seq desc
               limit 1
           )
$$;
