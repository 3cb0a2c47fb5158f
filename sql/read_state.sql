-- How far a person has read in a chat, and how many messages and mentions of them are unread, each counted
-- up to cap. The mark is that of read_marks, or zeros; newest is the seq of the chat's newest message of a
-- person: if everything is read, no message is looked at.
create or replace function read_state(
    chat bigint, person bigint, mark bigint, set_at bigint, newest bigint, cap bigint
) returns table (seq bigint, unread bigint, mentions bigint) language sql stable as $$
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
                     and m.sender_id <> all (array(select user_id from blanked_people))
                   -- In the order of seqs: without it, PostgreSQL scans the whole table for the first hundred
                   -- if one chat has most of all messages.
                   order by m.seq
                   limit cap
               ) as counted
           ),
           (
               select count(*)
               from (
                   -- A message that mentions both the person and everybody counts once.
                   select distinct mentioned.seq
                   from (
                       (select p.seq
                        from message_mentions as p
                        where newest > own.seq
                          and p.chat_id = chat
                          and p.user_id = person
                          and p.seq > own.seq
                          and p.sender_id <> person
                          and p.sender_id <> all (array(select user_id from blanked_people))
                        order by p.seq
                        limit cap)
                       union all
                       (select p.seq
                        from message_mentions as p
                        where newest > own.seq
                          and p.chat_id = chat
                          and p.user_id is null
                          and p.seq > own.seq
                          and p.sender_id <> person
                          and p.sender_id <> all (array(select user_id from blanked_people))
                        order by p.seq
                        limit cap)
                   ) as mentioned
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
