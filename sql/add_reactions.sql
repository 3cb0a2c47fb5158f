-- The part of write_batch that adds reactions. A message takes at most 20 kinds of them, those before in
-- the batch included; once it has them, only those may be added. numbers has how many people have added
-- the emoji since.
create or replace function add_reactions(
    kinds text[], workspaces bigint[], people bigint[], chats bigint[], messages bigint[],
    emojis text[], added_at timestamptz,
    inout outcomes text[], out numbers bigint[], inout events text[], inout payloads json[]
) language plpgsql as $$
declare
    reacted record;
begin
    select array_agg(counted.outcome), array_agg(counted.number),
           array_agg(case when counted.outcome = 'written' and counted.is_reaction
                          then 'ReactionAdded' else counted.event end),
           array_agg(case when counted.outcome = 'written' and counted.is_reaction then (
               select row_to_json(reaction)
               from (
                   select 'ReactionAdded' as event, counted.chat_id, counted.message_id,
                          counted.user_id, counted.emoji, counted.number as count
               ) as reaction
           ) else counted.payload end)
    into outcomes, numbers, events, payloads
    from (
        select i.*,
               case when i.is_reaction then (
                   select count(*) from message_reactions as r
                   where r.chat_id = i.chat_id and r.message_id = i.message_id and r.emoji = i.emoji
               ) + count(*) filter (where i.outcome = 'written') over (
                   partition by i.chat_id, i.message_id, i.emoji, i.is_reaction order by i.item)
               end as number
        from (
            select i.item, i.is_reaction, i.chat_id, i.message_id, i.user_id, i.emoji, i.event, i.payload,
                   case when i.outcome <> 'written' or not i.is_reaction then i.outcome
                        when i.is_there then 'unchanged'
                        when i.is_known then 'written'
                        -- The new kinds of a message take the places that are left in their order.
                        when i.kinds_before + dense_rank() over (
                                 partition by i.chat_id, i.message_id, i.is_reaction, i.is_known,
                                              i.outcome
                                 order by i.first_item) > 20
                            then 'too_many_reactions'
                        else 'written'
                   end as outcome
            from (
                select i.*, own.is_there is true as is_there, known.is_there is true as is_known,
                       min(i.item) over (
                           partition by i.chat_id, i.message_id, i.emoji, i.is_reaction, i.outcome
                       ) as first_item,
                       case when i.is_reaction and known.is_there is not true then (
                           -- From one emoji to the next, past all the people who have added it.
                           with recursive kind (emoji) as (
                               select min(r.emoji)
                               from message_reactions as r
                               where r.chat_id = i.chat_id and r.message_id = i.message_id
                               union all
                               select (
                                   select min(r.emoji)
                                   from message_reactions as r
                                   where r.chat_id = i.chat_id
                                     and r.message_id = i.message_id
                                     and r.emoji > kind.emoji
                               )
                               from kind
                               where kind.emoji is not null
                           )
                           select count(emoji) from kind
                       ) end as kinds_before
                from (
                    select *, kind = 'add_reaction' as is_reaction
                    from unnest(kinds, outcomes, chats, messages, people, emojis, events, payloads)
                        with ordinality
                        as i (kind, outcome, chat_id, message_id, user_id, emoji, event, payload, item)
                ) as i
                left join lateral (
                    select true as is_there
                    from message_reactions as r
                    where i.is_reaction and r.chat_id = i.chat_id and r.message_id = i.message_id
                      and r.emoji = i.emoji
                      and r.user_id = i.user_id
                    limit 1
                ) as own on true
                left join lateral (
                    select true as is_there
                    from message_reactions as r
                    where i.is_reaction and r.chat_id = i.chat_id and r.message_id = i.message_id
                      and r.emoji = i.emoji
                    limit 1
                ) as known on true
            ) as i
        ) as i
        order by i.item
    ) as counted;

    insert into message_reactions (workspace_id, chat_id, message_id, emoji, user_id, created_at)
    select new.workspace_id, new.chat_id, new.message_id, new.emoji, new.user_id, added_at
    from unnest(events, workspaces, chats, messages, emojis, people) with ordinality
        as new (event, workspace_id, chat_id, message_id, emoji, user_id, item)
    where new.event = 'ReactionAdded'
    order by new.item;
    for reacted in
        select distinct new.chat_id, new.message_id
        from unnest(events, chats, messages) as new (event, chat_id, message_id)
        where new.event = 'ReactionAdded'
    loop
        -- Its first reaction; in the order of ids, as elsewhere.
        update messages as m
        set parts = m.parts | 1
        where m.chat_id = reacted.chat_id
          and m.id between reacted.message_id and reacted.message_id
          and m.parts & 1 = 0;
    end loop;
end;
$$;
