-- A session belongs to the account; an access token of it speaks for one workspace.
-- No token is stored: a refresh token is the session's id and generation under a keyed hash.
create table sessions (
    id uuid primary key,
    user_id bigint not null references users,
    -- The workspace that the session last spoke for.
    workspace_id bigint not null,
    generation integer not null default 1 check (generation > 0),
    created_at timestamptz not null default clock_timestamp(),
    rotated_at timestamptz not null default clock_timestamp(),
    -- The absolute end; idle sessions end earlier.
    expires_at timestamptz not null,
    revoked_at timestamptz,
    user_agent text,
    ip text,
    foreign key (workspace_id, user_id) references workspace_members (workspace_id, user_id)
);

create index sessions_user_id on sessions (user_id) where revoked_at is null;
