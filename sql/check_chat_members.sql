-- Checked at commit, when the members are there too: the sizes at creation, and that the owner is a
-- member.
create or replace function check_chat_members() returns trigger language plpgsql as $$
declare
    members bigint;
begin
    select count(*) into members
    from chat_members
    where chat_id = new.id and left_position is null;

    if tg_op = 'INSERT' and not (case new.chat_type
        when 'Single' then members = 2
        when 'Group' then members >= 3
        when 'PublicChannel' then members = 1
        else members >= 1
    end) then
        raise exception 'a % cannot begin with % members', new.chat_type, members
            using errcode = 'check_violation', constraint = 'chats_members_at_creation';
    end if;
    if members <> (select member_count from chats where id = new.id) then
        raise exception 'member_count of chat % is wrong', new.id
            using errcode = 'check_violation', constraint = 'chats_member_count';
    end if;
    if not exists (
        select 1 from chat_members
        where chat_id = new.id and user_id = new.owner_id and left_position is null
    ) then
        raise exception 'the owner of chat % is not in it', new.id
            using errcode = 'check_violation', constraint = 'chats_owner_is_member';
    end if;
    return null;
end;
$$;

-- PostgreSQL replaces no constraint trigger.
do $$
begin
    if not exists (select from pg_trigger where tgrelid = 'chats'::regclass and tgname = 'chats_check_members') then
        create constraint trigger chats_check_members
            after insert or update of owner_id on chats
            deferrable initially deferred
            for each row execute function check_chat_members();
    end if;
end;
$$;
