-- The part of write_batch that sends. Ids and seqs are drawn in the order of the items, under the lock:
-- both run alike. What it returns are the arrays that it was given, with those of its own items filled in.
create or replace function insert_messages(
    kinds text[], outcomes text[], workspaces bigint[], senders bigint[], chats bigint[],
    replies_to bigint[], contents text[], keys uuid[], digests bytea[], sent_at timestamptz,
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
                select *, kind in ('send', 'send_system') and outcome = 'written' as is_new
                from unnest(kinds, outcomes, chats, message_ids, numbers, events) with ordinality
                    as i (kind, outcome, chat_id, message_id, number, event, item)
            ) as i
        ) as i
        order by i.item
    ) as numbered;

    insert into messages
        (id, workspace_id, chat_id, seq, sender_id, kind, content, reply_to_id, idempotency_key, digest,
         created_at)
    overriding system value
    select new.id, new.workspace_id, new.chat_id, new.seq, new.sender_id,
           case when new.kind = 'send_system' then 'system' else 'user' end,
           new.content, new.reply_to_id, new.key, new.digest, sent_at
    from unnest(message_ids, workspaces, chats, numbers, senders, kinds, contents, replies_to, keys, digests,
                events)
        as new (id, workspace_id, chat_id, seq, sender_id, kind, content, reply_to_id, key, digest, event)
    where new.event = 'NewMessage';
    for answered in
        select distinct new.chat_id, new.reply_to_id
        from unnest(events, chats, replies_to) as new (event, chat_id, reply_to_id)
        where new.event = 'NewMessage' and new.reply_to_id is not null
    loop
        -- Its first reply; in the order of ids, as elsewhere.
        update messages as m
        set parts = m.parts | 2
        where m.chat_id = answered.chat_id
          and m.id between answered.reply_to_id and answered.reply_to_id
          and m.parts & 2 = 0;
    end loop;
end;
$$;
