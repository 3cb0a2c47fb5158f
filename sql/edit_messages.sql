-- The part of write_batch that edits. Each message is looked up in the order of ids: see write_batch.
create or replace function edit_messages(
    kinds text[], outcomes text[], chats bigint[], messages bigint[], contents text[],
    edited_at timestamptz,
    inout events text[], inout effects text[]
) language plpgsql as $$
begin
    for item in 1 .. cardinality(kinds) loop
        continue when kinds[item] <> 'edit' or outcomes[item] <> 'written';
        update messages as m
        set content = contents[item], edited_at = edit_messages.edited_at
        where m.chat_id = chats[item]
          and m.id between edit_messages.messages[item] and edit_messages.messages[item];
        events[item] := 'MessageUpdated';
        effects[item] := 'changes_message';
    end loop;
end;
$$;
