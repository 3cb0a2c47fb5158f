-- A person as clients receive them: account and membership together, also of those who have left.
create or replace view user_objects as
select u.id, m.fullname, u.email, m.status, u.created_at, m.workspace_id, m.role, m.title,
       null::text as avatar_url
from workspace_members as m
join users as u on u.id = m.user_id;
