create table workspaces (
    id bigint generated always as identity primary key,
    name text not null check (char_length(name) between 1 and 32),
    -- The name without look-alikes, white space and compatibility forms: by the small letters of
    -- characters, and by the characters as they are written. Made by the server, as all keys are.
    name_unique text collate "C" not null constraint workspaces_name_unique unique,
    name_skeleton text collate "C" not null constraint workspaces_name_skeleton unique,
    owner_id bigint not null references users,
    join_policy text not null check (join_policy in ('invite', 'open')),
    created_at timestamptz not null default clock_timestamp()
);

create table workspace_members (
    workspace_id bigint not null references workspaces,
    user_id bigint not null references users,
    fullname text not null check (char_length(fullname) between 1 and 50),
    title text check (char_length(title) between 1 and 100),
    -- Changes with the picture in avatars; null without one.
    avatar_version text,
    role text not null check (role in ('owner', 'admin', 'member')),
    status text not null default 'Active' check (status in ('Active', 'Suspended', 'Left')),
    joined_at timestamptz not null default clock_timestamp(),
    -- When the person last signed in to this workspace or switched to it.
    last_used_at timestamptz not null default clock_timestamp(),
    -- A person who leaves, or is removed, keeps their row: what they wrote stays, with their name.
    left_at timestamptz,
    primary key (workspace_id, user_id),
    constraint workspace_members_left check ((status = 'Left') = (left_at is not null))
);

-- The pictures of people, without metadata.
create table avatars (
    workspace_id bigint not null,
    user_id bigint not null,
    mime text not null,
    image bytea not null check (octet_length(image) <= 1048576),
    primary key (workspace_id, user_id),
    foreign key (workspace_id, user_id) references workspace_members (workspace_id, user_id)
);

-- The words of people's names, and their addresses, by whose beginnings they are found. Made by the server,
-- without accents and in lower case.
create table member_words (
    workspace_id bigint not null,
    word text collate "C" not null,
    user_id bigint not null,
    primary key (workspace_id, word, user_id),
    foreign key (workspace_id, user_id) references workspace_members (workspace_id, user_id)
);

-- The words of a person.
create index member_words_of_person on member_words (workspace_id, user_id, word);

-- For counting the people of a workspace.
create index workspace_members_present on workspace_members (workspace_id) where left_at is null;

-- The workspaces of an account.
create index workspace_members_user_id on workspace_members (user_id);

-- The last offboarding of each person who has left a workspace. They lose access at once; their memberships
-- of chats end afterwards, in batches, and until then they cannot come back.
create table offboardings (
    workspace_id bigint not null,
    user_id bigint not null,
    -- The person who removed them, or they themselves.
    actor_id bigint not null,
    reason text not null check (reason in ('left', 'removed')),
    -- The memberships of chats up to this id have ended, so that no batch walks over them again: a backup's
    -- snapshot keeps their index entries alive.
    ended_upto bigint not null default 0,
    -- The next batch begins no sooner, whichever server makes it.
    next_batch_at timestamptz not null default clock_timestamp(),
    -- The position of the last event of the offboarding; null until then.
    ended_position bigint check (ended_position > 0),
    primary key (workspace_id, user_id),
    foreign key (workspace_id, user_id) references workspace_members (workspace_id, user_id),
    foreign key (workspace_id, actor_id) references workspace_members (workspace_id, user_id)
);

create index offboardings_unfinished on offboardings (workspace_id, user_id) where ended_position is null;

create table invites (
    id bigint generated always as identity primary key,
    workspace_id bigint not null references workspaces,
    -- SHA-256 of the code: the code itself is shown once and never stored.
    code_digest bytea not null constraint invites_code_digest_key unique,
    email text,
    email_key text,
    role text not null check (role in ('owner', 'admin', 'member')),
    chat_ids bigint[] not null,
    max_uses integer not null check (max_uses between 1 and 10000),
    uses integer not null default 0 check (uses between 0 and max_uses),
    expires_at timestamptz not null,
    created_by bigint not null,
    created_at timestamptz not null default clock_timestamp(),
    foreign key (workspace_id, created_by) references workspace_members (workspace_id, user_id)
);

create index invites_workspace_id on invites (workspace_id, id);
-- For counting a person's invites before they create another.
create index invites_of_creator on invites (workspace_id, created_by, expires_at);

-- The code of the link with which the operator lets somebody create the first workspace: at most one.
create table setup_codes (
    is_only boolean primary key default true check (is_only),
    code_digest bytea not null,
    expires_at timestamptz not null
);
