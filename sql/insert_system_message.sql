-- Writes a message of Fechatter itself, about what its actor has done. The caller holds the log's lock, and
-- appends the event.
create or replace function insert_system_message(workspace bigint, chat bigint, actor bigint, told json)
returns bigint language sql as $$
    insert into messages
        (workspace_id, chat_id, seq, sender_id, kind, content, system, person_seq, idempotency_key, digest,
         created_at)
    select workspace, chat, coalesce(newest.seq, 0) + 1, actor, 'system', '', told,
           coalesce(newest.person_seq, 0), gen_random_uuid(), '', clock_timestamp()
    from (select) as always
    left join lateral (
        select m.seq, case when m.kind = 'system' then m.person_seq else m.seq end as person_seq
        from messages as m
        where m.chat_id = chat
        order by m.seq desc
        limit 1
    ) as newest on true
    returning id
$$;
