-- Looks up the reactions, replies, mentions and files of a message. bits are those of messages.parts.
create or replace function find_message_parts(
    chat bigint, message bigint, message_seq bigint, bits smallint, is_deleted boolean
) returns message_parts language plpgsql stable as $$
declare
    found message_parts;
begin
    found.reply_count := 0;
    if bits & 1 <> 0 and not is_deleted then
        found.reactions := (
            select json_agg(
                json_build_object('emoji', r.emoji, 'count', r.count, 'user_ids', r.user_ids)
                order by r.first)
            from (
                select emoji, count(*), min(r.id) as first,
                       -- Of those who have added it, the first twenty.
                       (array_agg(r.user_id order by r.id))[:20] as user_ids
                from message_reactions as r
                where r.chat_id = chat and r.message_id = message
                group by r.emoji
            ) as r);
    end if;
    if bits & 2 <> 0 then
        select count(*), max(r.created_at)
        into found.reply_count, found.last_reply_at
        from message_replies as r
        where r.chat_id = chat and r.message_id = message and not r.is_deleted;
    end if;
    if bits & 4 <> 0 and not is_deleted then
        found.mentions := array(
            select p.user_id
            from message_mentions as p
            where p.chat_id = chat and p.seq = message_seq
            order by p.user_id);
    end if;
    if bits & 8 <> 0 and not is_deleted then
        found.files := (
            select json_agg(
                json_build_object(
                    'id', f.id, 'url', file_url(a.workspace_id, a.hash, a.extension), 'name', a.name,
                    'mime', f.mime, 'size', f.size, 'created_at', f.created_at, 'width', f.width,
                    'height', f.height, 'alt', a.alt)
                order by a.place)
            from message_files as a
            join files as f on f.workspace_id = a.workspace_id and f.hash = a.hash
            where a.chat_id = chat and a.seq = message_seq);
    end if;
    return found;
end;
$$;
