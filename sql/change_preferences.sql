-- The part of write_batch that changes preferences: those of a person for a chat, and those that their
-- clients have stored, of which there may be 8 KiB. Values that are absent stay. The events are for the
-- person alone.
create or replace function change_preferences(
    kinds text[], workspaces bigint[], people bigint[], chats bigint[], texts text[],
    changed_at timestamptz,
    inout outcomes text[], inout events text[], inout payloads json[]
) language plpgsql as $$
declare
    given jsonb;
    kept record;
    chosen record;
    merged jsonb;
begin
    for item in 1 .. cardinality(kinds) loop
        continue when kinds[item] not in ('set_chat_preferences', 'set_preferences')
                      or outcomes[item] <> 'written';
        given := texts[item]::jsonb;
        if kinds[item] = 'set_chat_preferences' then
            select coalesce(p.notify_level, 'all') as notify_level, p.muted_until, p.pinned_at
            into kept
            from (select) as always
            left join chat_preferences as p
                on p.workspace_id = workspaces[item] and p.user_id = people[item] and p.chat_id = chats[item];
            select coalesce(given->>'notify_level', kept.notify_level) as notify_level,
                   case when given ? 'muted_until' then (given->>'muted_until')::timestamptz
                        else kept.muted_until end as muted_until,
                   case (given->>'pinned')::boolean
                       when true then coalesce(kept.pinned_at, changed_at)
                       when false then null
                       else kept.pinned_at
                   end as pinned_at
            into chosen;
            if chosen is not distinct from kept then
                outcomes[item] := 'unchanged';
                continue;
            end if;
            insert into chat_preferences (workspace_id, user_id, chat_id, notify_level, muted_until, pinned_at)
            values (workspaces[item], people[item], chats[item], chosen.notify_level, chosen.muted_until,
                    chosen.pinned_at)
            on conflict (workspace_id, user_id, chat_id) do update
            set notify_level = excluded.notify_level,
                muted_until = excluded.muted_until,
                pinned_at = excluded.pinned_at;
            events[item] := 'ChatPreferencesUpdated';
            payloads[item] := (
                select row_to_json(told)
                from (
                    select 'ChatPreferencesUpdated' as event, chats[item] as chat_id, chosen.notify_level,
                           to_char(chosen.muted_until at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
                               as muted_until,
                           to_char(chosen.pinned_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
                               as pinned_at
                ) as told);
        else
            select coalesce(max(p.preferences::text)::jsonb, '{}') as preferences into kept
            from user_preferences as p
            where p.workspace_id = workspaces[item] and p.user_id = people[item];
            merged := (kept.preferences || given)
                - array(select value.key from jsonb_each(given) as value where value.value = 'null');
            if octet_length(merged::text) > 8192 then
                outcomes[item] := 'too_large';
            elsif merged = kept.preferences then
                outcomes[item] := 'unchanged';
            else
                insert into user_preferences (workspace_id, user_id, preferences)
                values (workspaces[item], people[item], merged)
                on conflict (workspace_id, user_id) do update set preferences = excluded.preferences;
                events[item] := 'PreferencesUpdated';
                payloads[item] := (
                    select row_to_json(told)
                    from (select 'PreferencesUpdated' as event, merged as preferences) as told);
            end if;
        end if;
    end loop;
end;
$$;
