-- The part of write_batch that sends. Ids and seqs are drawn in the order of the items, under the lock:
-- both run alike. mention_items has an item for each person whom it mentions, in mentioned; null is
-- everybody; so has file_items for each file. What it returns are the arrays that it was given, with those of its own items filled in.
create or replace function insert_messages(
    kinds text[], outcomes text[], workspaces bigint[], senders bigint[], chats bigint[],
    replies_to bigint[], contents text[], keys uuid[], digests bytea[],
    mention_items integer[], mentioned bigint[], file_items integer[], files jsonb[], sent_at timestamptz,
    inout message_ids bigint[], inout numbers bigint[], inout events text[]
) language plpgsql as $$
declare
    answered record;
begin
    select array_agg(numbered.id), array_agg(numbered.number), array_agg(numbered.event)
    into message_ids, numbers, events
    from (
        select case when i.is_new then nextval('messages_id_seq') else i.message_id end as id,
               -- A chat's newest seq is looked up for the first of its messages alone.
               case when i.is_new then i.place + max(case when i.place = 1 then coalesce((
                        select max(m.seq) from messages as m where m.chat_id = i.chat_id
                    ), 0) end) over (partition by i.chat_id, i.is_new)
                    else i.number
               end as number,
               case when i.is_new then 'NewMessage' else i.event end as event
        from (
            select *, row_number() over (partition by chat_id, is_new order by item) as place
            from (
                select *, kind = 'send' and outcome = 'written' as is_new
                from unnest(kinds, outcomes, chats, message_ids, numbers, events) with ordinality
                    as i (kind, outcome, chat_id, message_id, number, event, item)
            ) as i
        ) as i
        order by i.item
    ) as numbered;

    insert into messages
        (id, workspace_id, chat_id, seq, sender_id, kind, content, parts, reply_to_id, idempotency_key, digest,
         created_at)
    overriding system value
    select new.id, new.workspace_id, new.chat_id, new.seq, new.sender_id, 'user', new.content,
           case when new.item = any(mention_items) then 4 else 0 end
               | case when new.item = any(file_items) then 8 else 0 end,
           new.reply_to_id, new.key, new.digest, sent_at
    from unnest(message_ids, workspaces, chats, numbers, senders, contents, replies_to, keys, digests, events)
        with ordinality
        as new (id, workspace_id, chat_id, seq, sender_id, content, reply_to_id, key, digest, event, item)
    where new.event = 'NewMessage';
    -- A batch without replies spares itself the rest.
    if cardinality(array_remove(replies_to, null)) > 0 then
        for answered in
            with added as (
                insert into message_replies (chat_id, message_id, seq, created_at)
                select new.chat_id, new.reply_to_id, new.seq, sent_at
                from unnest(events, chats, replies_to, numbers) as new (event, chat_id, reply_to_id, seq)
                where new.event = 'NewMessage' and new.reply_to_id is not null
                returning chat_id, message_id
            )
            select distinct chat_id, message_id from added
        loop
            -- Its first reply; in the order of ids, as elsewhere.
            update messages as m
            set parts = m.parts | 2
            where m.chat_id = answered.chat_id
              and m.id between answered.message_id and answered.message_id
              and m.parts & 2 = 0;
        end loop;
    end if;
    if cardinality(file_items) > 0 then
        insert into message_files (chat_id, seq, place, workspace_id, hash, name, extension, alt)
        select chats[f.item], numbers[f.item], row_number() over (partition by f.item order by f.number),
               workspaces[f.item], decode(f.file ->> 'hash', 'hex'), f.file ->> 'name', f.file ->> 'extension',
               f.file ->> 'alt'
        from unnest(file_items, files) with ordinality as f (item, file, number)
        where events[f.item] = 'NewMessage';
    end if;
    if cardinality(mention_items) > 0 then
        perform insert_mentions(events, 'NewMessage', chats, numbers, senders, mention_items, mentioned);
    end if;
end;
$$;
