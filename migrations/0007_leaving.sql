-- Who leaves a workspace, or is removed, keeps their row: what they wrote stays, with their name.
-- They may do no more than somebody suspended, so that every check of the status holds for them
-- too, also in servers that know nothing of left_at yet.
alter table workspace_members
    add column left_at timestamptz,
    add constraint workspace_members_left_may_nothing check (left_at is null or status = 'Suspended');

-- The two people of a Single stay in it as long as it exists and both are in the workspace.
create or replace function check_single_members() returns trigger language plpgsql as $$
begin
    if exists (
        select 1 from chats
        where id = new.chat_id
          and chat_type = 'Single'
          and (new.user_id not in (single_low, single_high)
               or (new.left_position is not null
                   and deleted_at is null
                   and not exists (
                       select 1 from workspace_members as m
                       where m.workspace_id = new.workspace_id
                         and m.user_id = new.user_id
                         and m.left_at is not null)))
    ) then
        raise exception 'the members of a Single are fixed'
            using errcode = 'check_violation', constraint = 'chat_members_single_is_fixed';
    end if;
    return new;
end;
$$;
