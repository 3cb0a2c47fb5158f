-- Uploaded files by the SHA-256 of their bytes, once in each workspace. The bytes lie in the file store.
create table files (
    id bigint generated always as identity,
    workspace_id bigint not null references workspaces,
    hash bytea not null check (octet_length(hash) = 32),
    size bigint not null check (size >= 0),
    mime text not null,
    -- In pixels as shown; null unless it is an image.
    width integer check (width > 0),
    height integer check (height > 0),
    created_at timestamptz not null default clock_timestamp(),
    -- When it was last uploaded or sent. A file that no message holds is removed some time after that.
    touched_at timestamptz not null default clock_timestamp(),
    primary key (workspace_id, hash)
);

-- For finding those that may be removed.
create index files_touched_at on files (touched_at);

-- The people who have uploaded a file, each with the name that they gave it last.
create table uploads (
    workspace_id bigint not null,
    hash bytea not null,
    user_id bigint not null,
    name text not null check (char_length(name) between 1 and 255),
    uploaded_at timestamptz not null default clock_timestamp(),
    primary key (workspace_id, hash, user_id),
    foreign key (workspace_id, hash) references files (workspace_id, hash) on delete cascade,
    foreign key (workspace_id, user_id) references workspace_members (workspace_id, user_id)
);

create index uploads_of_person on uploads (workspace_id, user_id);

-- The files of messages. Without a reference to files, whose check would make a whole batch fail.
create table message_files (
    chat_id bigint not null,
    -- The message's.
    seq bigint not null,
    place integer not null check (place between 1 and 20),
    workspace_id bigint not null,
    hash bytea not null,
    name text not null,
    extension text not null,
    alt text check (char_length(alt) <= 500),
    primary key (chat_id, seq, place)
);

create index message_files_of_file on message_files (workspace_id, hash);
