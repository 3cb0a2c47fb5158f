-- How far a person has read in a chat, and how many messages are unread, counted up to cap. The mark is that
-- of read_marks, or zeros; newest is the chat's newest seq: if everything is read, no message is looked at.
create or replace function read_state(
    chat bigint, person bigint, mark bigint, set_at bigint, newest bigint, cap bigint
) returns table (seq bigint, unread bigint) language sql stable as $$
    select own.seq,
           (
               select count(*)
               from (
                   select 1
                   from messages as m
                   where newest > own.seq
                     and m.chat_id = chat
                     and m.seq > own.seq
                     and m.sender_id <> person
                     and m.kind <> 'system'
                     and m.deleted_at is null
                   -- In the order of seqs: without it, PostgreSQL scans the whole table for the first hundred
                   -- if one chat has most of all messages.
                   order by m.seq
                   limit cap
               ) as counted
           )
    from (
        -- Whoever writes has read what was written before.
        select case when newest > mark then coalesce((
                   select m.seq
                   from messages as m
                   where m.chat_id = chat
                     and -m.sender_id = -person
                     and m.seq > set_at
                     and m.kind = 'user'
                   order by m.seq desc
                   limit 1
               ), mark) else mark end as seq
        offset 0
    ) as own
$$;
