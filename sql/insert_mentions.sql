-- Stores the mentions of messages: those of the named people who are members of the chat, and everybody, for
-- null. Only of the items whose event is the given one.
create or replace function insert_mentions(
    events text[], wanted text, chats bigint[], seqs bigint[], senders bigint[],
    mention_items integer[], mentioned bigint[]
) returns void language sql as $$
    insert into message_mentions (chat_id, seq, user_id, sender_id)
    select chats[m.item], seqs[m.item], m.user_id, senders[m.item]
    from unnest(mention_items, mentioned) as m (item, user_id)
    where events[m.item] = wanted
      and (m.user_id is null or (
          -- The newest period: only the primary key is in that order.
          select c.left_position is null
          from chat_members as c
          where c.chat_id = chats[m.item] and c.user_id = m.user_id
          order by c.joined_position desc
          limit 1
      ))
$$;
