-- A person as clients receive them: account and membership together, also of those who have left.
create or replace view user_objects as
select u.id, m.fullname, u.email, m.status, u.created_at, m.workspace_id, m.role, m.title,
       case when m.avatar_version is not null
            then '/api/users/' || u.id || '/avatar?workspace_id=' || m.workspace_id || '&v=' || m.avatar_version
       end as avatar_url
from workspace_members as m
join users as u on u.id = m.user_id;
