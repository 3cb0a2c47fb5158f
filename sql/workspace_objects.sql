-- A workspace as clients receive it.
create or replace view workspace_objects as
select id, name, owner_id, created_at, join_policy
from workspaces;
