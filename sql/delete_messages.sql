-- The part of write_batch that deletes messages. Their text is gone at once. Their reactions stay behind,
-- unseen, because a message may have very many: they go with the chat.
create or replace function delete_messages(
    kinds text[], outcomes text[], actors bigint[], chats bigint[], messages bigint[],
    deleted_at timestamptz,
    inout events text[], inout effects text[], inout payloads json[]
) language plpgsql as $$
declare
    deleted record;
begin
    for item in 1 .. cardinality(kinds) loop
        continue when kinds[item] <> 'delete' or outcomes[item] <> 'written';
        update messages as m
        set content = '', deleted_at = delete_messages.deleted_at
        where m.chat_id = chats[item]
          and m.id between delete_messages.messages[item] and delete_messages.messages[item]
        returning m.seq, m.sender_id, m.reply_to_id, m.parts into deleted;
        if deleted.parts & 8 <> 0 then
            delete from message_files as f where f.chat_id = chats[item] and f.seq = deleted.seq;
        end if;
        if deleted.parts & 4 <> 0 then
            delete from message_mentions as p where p.chat_id = chats[item] and p.seq = deleted.seq;
        end if;
        events[item] := 'MessageDeleted';
        effects[item] := 'removes_message';
        if deleted.reply_to_id is null then
            payloads[item] := (
                select row_to_json(tombstone)
                from (
                    select 'MessageDeleted' as event, chats[item] as chat_id,
                           delete_messages.messages[item] as id, deleted.seq, deleted.sender_id,
                           actors[item] as actor_id
                ) as tombstone);
        else
            update message_replies as r
            set is_deleted = true
            where r.chat_id = chats[item] and r.message_id = deleted.reply_to_id and r.seq = deleted.seq;
            payloads[item] := (
                select row_to_json(tombstone)
                from (
                    select 'MessageDeleted' as event, chats[item] as chat_id,
                           delete_messages.messages[item] as id, deleted.seq, deleted.sender_id,
                           actors[item] as actor_id,
                           reply_parent(chats[item], deleted.reply_to_id) as parent
                ) as tombstone);
        end if;
    end loop;
end;
$$;
