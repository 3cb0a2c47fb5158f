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

create or replace trigger chat_members_check_single
    before insert or update of left_position on chat_members
    for each row execute function check_single_members();
