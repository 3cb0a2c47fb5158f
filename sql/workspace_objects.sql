-- A workspace as clients receive it.
create or replace view workspace_objects as
select w.id, w.name, w.owner_id, w.created_at, w.join_policy,
       (
           select count(*)
           from workspace_members as m
           where m.workspace_id = w.id and m.left_at is null
       ) as member_count,
       l.status
from workspaces as w
join workspace_logs as l on l.workspace_id = w.id;
