-- Looks up the person that an event shows. In a function, so that the events that show none do not pay for the
-- preparation of the look-up.
create or replace function find_person(workspace bigint, person bigint)
returns user_objects language plpgsql stable as $$
declare
    found user_objects;
begin
    select u.* into found
    from user_objects as u
    where u.workspace_id = workspace and u.id = person;
    return case when found.id is not null then found end;
end;
$$;
