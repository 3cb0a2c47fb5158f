-- Moves read marks: forward to a seq or to the chat's end, but never backwards, or back to before a message
-- (unread_from, its id), so that it and all later ones are unread. No two items may be about the same person
-- and chat. It takes no lock of a log: marks are no events.
--
-- Outcomes: found, session_ended, workspace_suspended, suspended, not_found. version is that of a mark that has changed. With each
-- mark come the counts after it, up to cap.
-- Each look-up has its limit 1 for the reason that write_batch gives.
create or replace function move_read_marks(
    workspaces bigint[], people bigint[], sessions uuid[], chats bigint[], uptos bigint[],
    unread_from bigint[], cap bigint
) returns table (outcome text, version bigint, seq bigint, unread bigint, mentions bigint)
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_memoize = off
as $$
declare
    -- The workspaces that are not active.
    closed bigint[] := array(
        select l.workspace_id from workspace_logs as l
        where l.workspace_id = any(workspaces) and l.status <> 'Active');
begin
    return query
    with checked as materialized (
        select i.*,
               case when session.lives is not true or person.status is null or person.status = 'Left'
                        then 'session_ended'
                    when i.workspace_id = any(closed) then 'workspace_suspended'
                    when person.status = 'Suspended' then 'suspended'
                    when chat.is_there is not true
                         or membership.is_open is not true
                         or (i.from_id is not null and target.seq is null)
                        then 'not_found'
                    else 'found'
               end as outcome,
               coalesce(newest.seq, 0) as newest, coalesce(newest.person_seq, 0) as newest_of_person,
               coalesce(mark.seq, 0) as mark, coalesce(mark.set_at_seq, 0) as set_at, target.seq as target
        from unnest(workspaces, people, sessions, chats, uptos, unread_from) with ordinality
            as i (workspace_id, user_id, session_id, chat_id, upto, from_id, item)
        left join lateral (
            select s.user_id = i.user_id
                   and s.revoked_at is null
                   and s.expires_at > clock_timestamp() as lives
            from sessions as s
            where s.id = i.session_id
            limit 1
        ) as session on true
        left join lateral (
            select w.status
            from workspace_members as w
            where w.workspace_id = i.workspace_id and w.user_id = i.user_id
            limit 1
        ) as person on true
        left join lateral (
            select c.workspace_id = i.workspace_id and c.deleted_at is null as is_there
            from chats as c
            where c.id = i.chat_id
            limit 1
        ) as chat on true
        left join lateral (
            select m.left_position is null as is_open
            from chat_members as m
            where m.chat_id = i.chat_id and m.user_id = i.user_id
            order by m.joined_position desc
            limit 1
        ) as membership on true
        left join lateral (
            select m.seq, coalesce(m.person_seq, m.seq) as person_seq
            from messages as m
            where m.chat_id = i.chat_id
            order by m.seq desc
            limit 1
        ) as newest on true
        left join lateral (
            select r.seq, r.set_at_seq
            from read_marks as r
            where r.workspace_id = i.workspace_id and r.user_id = i.user_id and r.chat_id = i.chat_id
            limit 1
        ) as mark on true
        left join lateral (
            select m.seq
            from messages as m
            where m.chat_id = i.chat_id and m.id between i.from_id and i.from_id
            order by m.id
            limit 1
        ) as target on true
    ),
    wanted as materialized (
        select c.*, moved.seq as moved_to,
               c.outcome = 'found'
               and case when c.from_id is null then moved.seq > old.seq
                        else (c.mark, c.set_at) <> (moved.seq, c.newest)
                   end as is_moved
        from checked as c
        left join lateral read_state(
            c.chat_id, c.user_id, c.mark, c.set_at, c.newest, 0
        ) as old on c.outcome = 'found'
        cross join lateral (
            select case when c.from_id is null then least(c.upto, c.newest) else c.target - 1 end as seq
        ) as moved
    ),
    written as (
        insert into read_marks as mark (workspace_id, user_id, chat_id, seq, set_at_seq, version)
        -- The first version tells the two kinds apart below.
        select w.workspace_id, w.user_id, w.chat_id, w.moved_to, w.newest,
               case when w.from_id is null then 1 else 2 end
        from wanted as w
        where w.is_moved
        -- Everybody locks rows in this order.
        order by w.workspace_id, w.user_id, w.chat_id
        on conflict (workspace_id, user_id, chat_id) do update
        set seq = case when excluded.version = 1 then greatest(excluded.seq, mark.seq) else excluded.seq end,
            set_at_seq = greatest(excluded.set_at_seq, mark.set_at_seq),
            version = mark.version + 1,
            changed_at = clock_timestamp()
        returning mark.user_id, mark.chat_id, mark.version
    )
    select w.outcome, n.version, state.seq, state.unread, state.mentions
    from wanted as w
    left join written as n on n.user_id = w.user_id and n.chat_id = w.chat_id
    left join lateral read_state(
        w.chat_id, w.user_id,
        case when w.is_moved then w.moved_to else w.mark end,
        case when w.is_moved then w.newest else w.set_at end,
        w.newest_of_person, cap
    ) as state on w.outcome = 'found'
    order by w.item;
end;
$$;
