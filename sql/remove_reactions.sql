-- The part of write_batch that takes reactions back, after those of the batch were added. numbers has how
-- many people still have the emoji.
create or replace function remove_reactions(
    kinds text[], people bigint[], chats bigint[], messages bigint[], emojis text[],
    inout outcomes text[], inout numbers bigint[], inout events text[], inout payloads json[]
) language plpgsql as $$
begin
    for item in 1 .. cardinality(kinds) loop
        continue when kinds[item] <> 'remove_reaction' or outcomes[item] <> 'written';
        delete from message_reactions as r
        where r.chat_id = chats[item]
          and r.message_id = messages[item]
          and r.emoji = emojis[item]
          and r.user_id = people[item];
        if not found then
            outcomes[item] := 'unchanged';
        end if;
        numbers[item] := (
            select count(*)
            from message_reactions as r
            where r.chat_id = chats[item] and r.message_id = messages[item] and r.emoji = emojis[item]);
        if outcomes[item] = 'written' then
            events[item] := 'ReactionRemoved';
            payloads[item] := (
                select row_to_json(reaction)
                from (
                    select 'ReactionRemoved' as event, chats[item] as chat_id,
                           messages[item] as message_id, people[item] as user_id,
                           emojis[item] as emoji, numbers[item] as count
                ) as reaction);
        end if;
    end loop;
end;
$$;
