-- The part of write_batch that edits. Each message is looked up in the order of ids: see write_batch. For
-- mention_items see insert_messages.
create or replace function edit_messages(
    kinds text[], outcomes text[], actors bigint[], chats bigint[], messages bigint[], contents text[],
    mention_items integer[], mentioned bigint[], edited_at timestamptz,
    inout events text[], inout effects text[]
) language plpgsql as $$
declare
    edited record;
    seqs bigint[];
begin
    for item in 1 .. cardinality(kinds) loop
        continue when kinds[item] <> 'edit' or outcomes[item] <> 'written';
        update messages as m
        set content = contents[item], edited_at = edit_messages.edited_at,
            parts = m.parts | case when item = any(mention_items) then 4 else 0 end
        where m.chat_id = chats[item]
          and m.id between edit_messages.messages[item] and edit_messages.messages[item]
        returning m.seq, m.parts into edited;
        if edited.parts & 4 <> 0 then
            delete from message_mentions as p where p.chat_id = chats[item] and p.seq = edited.seq;
        end if;
        seqs[item] := edited.seq;
        events[item] := 'MessageUpdated';
        effects[item] := 'changes_message';
    end loop;
    if cardinality(mention_items) > 0 then
        perform insert_mentions(events, 'MessageUpdated', chats, seqs, actors, mention_items, mentioned);
    end if;
end;
$$;
