-- How far a person has read in their chats, with the counts up to cap: in these chats, or in all, and only
-- where the mark has changed since this time, if one is given.
create or replace function read_states(
    workspace bigint, person bigint, chats bigint[], changed_since timestamptz, cap bigint
) returns table (chat_id bigint, seq bigint, unread bigint, mentions bigint, version bigint)
language sql stable as $$
    select c.id, state.seq, state.unread, state.mentions, coalesce(mark.version, 0)
    from chat_members as me
    join chats as c on c.id = me.chat_id
    left join read_marks as mark
        on mark.workspace_id = workspace and mark.user_id = person and mark.chat_id = c.id
    left join lateral (
        select coalesce(m.person_seq, m.seq) as seq
        from messages as m
        where m.chat_id = c.id
        order by m.seq desc
        limit 1
    ) as newest on true
    cross join lateral read_state(
        c.id, person, coalesce(mark.seq, 0), coalesce(mark.set_at_seq, 0), coalesce(newest.seq, 0), cap
    ) as state
    where me.workspace_id = workspace
      and me.user_id = person
      and me.left_position is null
      and c.deleted_at is null
      -- With coalesce, because PostgreSQL expects `chats is null or …` to be rarely true.
      and coalesce(c.id = any(chats), true)
      and (changed_since is null or mark.changed_at >= changed_since)
$$;
