-- Notes that an account uses a workspace now: `only_one` if it is given, else `preferred`, else the one that
-- it used last, and never one in which it is not active, or which is suspended. Returns which, or null.
create or replace function use_workspace(account bigint, only_one bigint, preferred bigint) returns bigint
language plpgsql as $$
declare
    used bigint;
begin
    update workspace_members as m
    set last_used_at = clock_timestamp()
    where m.user_id = account
      and m.status = 'Active'
      and m.workspace_id = coalesce(only_one, (
          select other.workspace_id
          from workspace_members as other
          join workspace_logs as log on log.workspace_id = other.workspace_id and log.status = 'Active'
          where other.user_id = account and other.status = 'Active'
          order by other.workspace_id = preferred desc nulls last, other.last_used_at desc
          limit 1
      ))
      and exists (
          select 1 from workspace_logs as log where log.workspace_id = m.workspace_id and log.status = 'Active'
      )
    returning m.workspace_id into used;
    return used;
end;
$$;
