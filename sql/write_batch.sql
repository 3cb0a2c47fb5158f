-- Carries out many small commands of many people in one transaction, each with its own outcome. The
-- commands are in parallel arrays, kind by kind in the order of the calls below; no two of them may be
-- about the same thing (the same idempotency key; the same message, emoji and person).
--
-- The logs are locked first, in a statement of its own, so that everything after it sees what was
-- committed before. Unless it is told to be patient, it leaves out the logs that others hold at the
-- moment: their commands come back as 'locked', and nothing has been done about them.
--
-- Kinds: edit, delete, add_reaction, remove_reaction, send, set_chat_preferences and set_preferences, which
-- has no chat. A command without a session is the server's own:
-- its actor is in the workspace, or was, and need not be a member of the chat.
--
-- The target of a change is the message that it changes, that of a send is the message that it answers.
-- mention_items names a text's item for each person whom it mentions, in mentioned; null is everybody.
-- file_items names a message's item for each of its files, in files; missing_items those whose files are not
-- all the sender's to send.
--
-- Outcomes: written, locked, session_ended, workspace_suspended, suspended, not_found, archived; of edits and deletes also
-- forbidden and unchanged; of sends also replayed (message_ids has the message of the earlier time),
-- mismatch (the key was used for something else), reply_not_found and file_not_found; of reactions also unchanged and
-- too_many_reactions; of preferences also unchanged and too_large.
-- numbers has a new message's seq, or how many people have added a reaction since.
--
-- Few statements, because each has a fixed cost. Parallel arrays go from one to the next, because joining
-- them would cost a large batch the square of its size. Each look-up
-- has its limit 1, which keeps the planner from making a join of it: plans are made once, perhaps when
-- the tables were empty and everything seemed cheap, and must still be good when they are not. For the
-- same reason a key is looked up in the order of keys, and a message in the order of ids, which their
-- index alone has: any index of the chat's messages would look as good, and lead through all of them.
create or replace function write_batch(
    kinds text[], workspaces bigint[], actors bigint[], sessions uuid[], chats bigint[],
    targets bigint[], texts text[], keys uuid[], digests bytea[],
    mention_items integer[], mentioned bigint[], file_items integer[], files jsonb[], missing_items integer[],
    stamp integer, patient boolean,
    out outcomes text[], out message_ids bigint[], out numbers bigint[], out written_at timestamptz
) language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_memoize = off
as $$
declare
    held bigint[];
    -- Those of them that are not active.
    closed bigint[];
    nothing text[] := array_fill(null::text, array[cardinality(kinds)]);
    events text[] := nothing;
    effects text[] := array_fill('none'::text, array[cardinality(kinds)]);
    payloads json[] := nothing::json[];
    -- The person to whom alone an event is addressed.
    recipients bigint[];
    has_preferences boolean := kinds && array['set_chat_preferences', 'set_preferences'];
begin
    if patient then
        select array_agg(l.workspace_id), array_agg(l.workspace_id) filter (where l.status <> 'Active')
        into held, closed
        from (
            select l.workspace_id, l.status from workspace_logs as l
            where l.workspace_id = any(workspaces)
            order by l.workspace_id
            for no key update
        ) as l;
    else
        select array_agg(l.workspace_id), array_agg(l.workspace_id) filter (where l.status <> 'Active')
        into held, closed
        from (
            select l.workspace_id, l.status from workspace_logs as l
            where l.workspace_id = any(workspaces)
            order by l.workspace_id
            for no key update skip locked
        ) as l;
    end if;
    held := coalesce(held, '{}');
    written_at := clock_timestamp();

    select array_agg(checked.outcome), array_agg(coalesce(checked.earlier, checked.target))
    into outcomes, message_ids
    from (
        select earlier.id as earlier, i.target,
               case when i.workspace_id <> all(held) then 'locked'
                    when i.session_id is not null
                         and (session.lives is not true or person.status is null or person.status = 'Left')
                        then 'session_ended'
                    when i.session_id is not null and i.workspace_id = any(closed) then 'workspace_suspended'
                    when i.session_id is not null and person.status = 'Suspended' then 'suspended'
                    when person.status is null
                         or (i.kind <> 'set_preferences'
                             and (chat.is_there is not true
                                  or (i.session_id is not null and membership.is_open is not true)))
                         or (i.is_change and message.sender_id is null)
                         or (i.is_change and i.kind <> 'delete' and message.is_deleted)
                        then 'not_found'
                    when i.kind in ('edit', 'delete')
                         and (message.is_system
                              or (message.sender_id <> i.actor_id
                                  and (i.kind = 'edit' or chat.is_single
                                       or (chat.owner_id <> i.actor_id
                                           and membership.role is distinct from 'admin'))))
                        then 'forbidden'
                    when (i.kind = 'delete' and message.is_deleted)
                         or (i.kind = 'edit' and message.content = i.content)
                        then 'unchanged'
                    when earlier.digest = i.digest then 'replayed'
                    when earlier.digest is not null then 'mismatch'
                    when chat.archived_at is not null and not i.is_preference then 'archived'
                    when not i.is_change and i.target is not null and message.is_deleted is not false
                        then 'reply_not_found'
                    when i.item = any(missing_items) then 'file_not_found'
                    else 'written'
               end as outcome
        from (
            select *, kind not in ('send', 'set_chat_preferences', 'set_preferences') as is_change,
                   kind in ('set_chat_preferences', 'set_preferences') as is_preference
            from unnest(kinds, workspaces, actors, sessions, chats, targets, texts, keys, digests)
                with ordinality
                as i (kind, workspace_id, actor_id, session_id, chat_id, target, content, key, digest, item)
        ) as i
        left join lateral (
            select s.user_id = i.actor_id
                   and s.revoked_at is null
                   and s.expires_at > written_at as lives
            from sessions as s
            where s.id = i.session_id
            limit 1
        ) as session on true
        left join lateral (
            select w.status
            from workspace_members as w
            where w.workspace_id = i.workspace_id
              and w.user_id = i.actor_id
            limit 1
        ) as person on true
        left join lateral (
            select c.archived_at, c.owner_id, c.chat_type = 'Single' as is_single,
                   c.workspace_id = i.workspace_id and c.deleted_at is null as is_there
            from chats as c
            where c.id = i.chat_id
            limit 1
        ) as chat on true
        left join lateral (
            -- The newest period: only the primary key is in that order.
            select m.left_position is null as is_open, m.role
            from chat_members as m
            where m.chat_id = i.chat_id and m.user_id = i.actor_id
            order by m.joined_position desc
            limit 1
        ) as membership on true
        left join lateral (
            select m.sender_id, m.content, m.kind = 'system' as is_system,
                   m.deleted_at is not null as is_deleted
            from messages as m
            where m.chat_id = i.chat_id and m.id between i.target and i.target
            order by m.id
            limit 1
        ) as message on true
        left join lateral (
            select e.id, e.digest
            from messages as e
            where e.chat_id = i.chat_id
              and e.sender_id = i.actor_id
              and e.idempotency_key between i.key and i.key
            order by e.idempotency_key
            limit 1
        ) as earlier on true
        order by i.item
    ) as checked;

    if 'edit' = any(kinds) then
        select edited.events, edited.effects into events, effects
        from edit_messages(
            kinds, outcomes, actors, chats, targets, texts, mention_items, mentioned, written_at, events,
            effects) as edited;
    end if;
    if 'delete' = any(kinds) then
        select deleted.events, deleted.effects, deleted.payloads into events, effects, payloads
        from delete_messages(
            kinds, outcomes, actors, chats, targets, written_at, events, effects, payloads) as deleted;
    end if;
    if 'add_reaction' = any(kinds) then
        select added.outcomes, added.numbers, added.events, added.payloads
        into outcomes, numbers, events, payloads
        from add_reactions(
            kinds, workspaces, actors, chats, targets, texts, written_at, outcomes, events, payloads)
            as added;
    end if;
    if 'remove_reaction' = any(kinds) then
        select removed.outcomes, removed.numbers, removed.events, removed.payloads
        into outcomes, numbers, events, payloads
        from remove_reactions(
            kinds, actors, chats, targets, texts, outcomes, coalesce(numbers, nothing::bigint[]), events,
            payloads) as removed;
    end if;
    if 'send' = any(kinds) then
        select sent.message_ids, sent.numbers, sent.events
        into message_ids, numbers, events
        from insert_messages(
            kinds, outcomes, workspaces, actors, chats, targets, texts, keys, digests,
            mention_items, mentioned, file_items, files, written_at, message_ids, numbers,
                events) as sent;
    end if;
    if has_preferences then
        select changed.outcomes, changed.events, changed.payloads
        into outcomes, events, payloads
        from change_preferences(
            kinds, workspaces, actors, chats, texts, written_at, outcomes, events, payloads) as changed;
        recipients := array(
            select case when kind in ('set_chat_preferences', 'set_preferences') then actor end
            from unnest(kinds, actors) with ordinality as i (kind, actor, item)
            order by item);
        chats := array(
            select case when kind not in ('set_chat_preferences', 'set_preferences') then chat end
            from unnest(kinds, chats) with ordinality as i (kind, chat, item)
            order by item);
    end if;
    perform append_events(
        workspaces, null, stamp, events, effects, null, null, chats, recipients, message_ids, payloads);
end;
$$;
