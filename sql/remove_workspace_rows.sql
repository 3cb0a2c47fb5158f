-- Removes some rows of a deleted workspace, whose chats and files are gone already, and returns their number: of
-- the first table that has any, because each table comes before those to which it refers. The log goes last,
-- when readers have been told of the end.
create or replace function remove_workspace_rows(workspace bigint, batch bigint, with_log boolean) returns bigint
language plpgsql as $$
declare
    tables text[] := array[
        'offboardings', 'blanked_people', 'avatars', 'member_words', 'user_preferences', 'invites'];
    name text;
    removed bigint;
    people bigint[];
begin
    foreach name in array tables loop
        execute format(
            'delete from %I where ctid = any(array(select ctid from %I where workspace_id = $1 limit $2))',
            name, name)
        using workspace, batch;
        get diagnostics removed = row_count;
        if removed > 0 then
            return removed;
        end if;
    end loop;

    people := array(
        select m.user_id from workspace_members as m where m.workspace_id = workspace order by m.user_id limit batch);
    if people <> '{}' then
        -- A session outlasts the workspace for which it spoke last, if its account is in another one.
        update sessions as s
        set workspace_id = other.workspace_id
        from unnest(people) as person (id)
        cross join lateral (
            select o.workspace_id
            from workspace_members as o
            where o.user_id = person.id and o.workspace_id <> workspace
            order by o.left_at is null desc, o.last_used_at desc
            limit 1
        ) as other
        where s.workspace_id = workspace and s.user_id = person.id;
        delete from sessions as s where s.workspace_id = workspace and s.user_id = any(people);
        delete from workspace_members as m where m.workspace_id = workspace and m.user_id = any(people);
        return cardinality(people);
    end if;

    if with_log then
        delete from events as e
        where e.workspace_id = workspace
          and e.position in (
              select o.position from events as o where o.workspace_id = workspace order by o.position limit batch);
        get diagnostics removed = row_count;
        if removed = 0 then
            delete from workspace_logs as l where l.workspace_id = workspace;
            delete from workspaces as w where w.id = workspace;
        end if;
        return removed;
    end if;
    return 0;
end;
$$;
