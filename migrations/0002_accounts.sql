-- An account is an e-mail address and a password. Everything a workspace shows of a person
-- (name, title, role, status) belongs to the membership, in workspace_members.
create table users (
    id bigint generated always as identity primary key,
    email text not null check (char_length(email) between 3 and 254),
    -- The address in NFC and lower case, made by the server so that no database locale decides. Unique
    -- text is compared byte by byte everywhere: what a collation counts as equal, and its order, change
    -- with the operating system.
    email_key text collate "C" not null constraint users_email_key unique,
    password_hash text not null,
    created_at timestamptz not null default clock_timestamp()
);

-- Failed sign-ins per address, known or not, so that throttling tells nothing about accounts.
create table signin_failures (
    email_key text collate "C" primary key,
    failures integer not null check (failures > 0),
    last_failed_at timestamptz not null
);

-- Attempts in the current minute, counted by client address and overall, shared by all servers.
create table attempt_windows (
    bucket text collate "C" primary key,
    attempts integer not null,
    started_at timestamptz not null
);

-- Links that set a new password once: at most one an account. Only the token's digest is stored.
create table password_resets (
    user_id bigint primary key references users,
    token_digest bytea not null unique,
    expires_at timestamptz not null
);
