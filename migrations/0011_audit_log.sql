-- The changes that owners, admins and the operator have made. Without references, so that it outlasts its objects.
create table audit_log (
    id bigint generated always as identity primary key,
    workspace_id bigint not null,
    at timestamptz not null default clock_timestamp(),
    -- Null for the operator, whom the details name.
    actor_id bigint,
    action text not null,
    target_type text,
    target_id bigint,
    details jsonb not null,
    check ((target_type is null) = (target_id is null)),
    check ((actor_id is null) = (details ? 'operator'))
);

create index audit_log_of_workspace on audit_log (workspace_id, id);
create index audit_log_of_actor on audit_log (workspace_id, actor_id, id);
