create table chats (
    id bigint generated always as identity primary key,
    workspace_id bigint not null references workspaces,
    chat_type text not null
        check (chat_type in ('Single', 'Group', 'PrivateChannel', 'PublicChannel')),
    name text not null check (char_length(name) <= 128),
    -- The name in NFC and lower case, for searching.
    name_key text collate "C" not null,
    -- As those of workspaces.
    name_unique text collate "C" not null,
    name_skeleton text collate "C" not null,
    description text check (char_length(description) <= 1000),
    -- The current owner; creation makes it the creator.
    owner_id bigint not null,
    member_count integer not null check (member_count >= 0),
    -- The two people of a Single, the smaller id first: one chat a pair, never oneself.
    single_low bigint,
    single_high bigint,
    -- Who created the chat, under which key and with which request: creating is idempotent.
    creator_id bigint not null,
    creation_key uuid,
    creation_digest bytea,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    archived_at timestamptz,
    -- A deleted chat is gone for everybody at once; its messages are purged afterwards.
    deleted_at timestamptz,
    purged_at timestamptz,
    unique (workspace_id, id),
    foreign key (workspace_id, owner_id) references workspace_members (workspace_id, user_id),
    foreign key (workspace_id, single_low) references workspace_members (workspace_id, user_id),
    foreign key (workspace_id, single_high) references workspace_members (workspace_id, user_id),
    check ((creation_key is null) = (creation_digest is null)),
    constraint chats_named check (chat_type = 'Single' or char_length(name) >= 1),
    constraint chats_single_pair check (
        (chat_type = 'Single') = (single_low is not null)
        and (single_low is null) = (single_high is null)
        and single_low < single_high
    )
);

create unique index chats_single_key on chats (workspace_id, single_low, single_high)
    where deleted_at is null;
create unique index chats_public_name_unique on chats (workspace_id, name_unique)
    where chat_type = 'PublicChannel' and deleted_at is null;
create unique index chats_public_name_skeleton on chats (workspace_id, name_skeleton)
    where chat_type = 'PublicChannel' and deleted_at is null;
create unique index chats_creation_key on chats (workspace_id, creator_id, creation_key)
    where creation_key is not null;
-- The directory, in its order.
create index chats_directory on chats (workspace_id, id)
    where chat_type = 'PublicChannel' and deleted_at is null;
-- What is still to be purged.
create index chats_unpurged on chats (id) where deleted_at is not null and purged_at is null;

-- For counting the chats that a person owns before they create another.
create index chats_owned on chats (workspace_id, owner_id) where deleted_at is null;

-- One row per period of membership, both ends inclusive, as positions in the workspace's log:
-- who was to receive an event is a look-up here, for ever. The owner is chats.owner_id alone.
create table chat_members (
    workspace_id bigint not null,
    chat_id bigint not null,
    user_id bigint not null,
    role text not null default 'member' check (role in ('admin', 'member')),
    joined_position bigint not null check (joined_position > 0),
    left_position bigint check (left_position >= joined_position),
    joined_at timestamptz not null default clock_timestamp(),
    primary key (chat_id, user_id, joined_position),
    foreign key (workspace_id, chat_id) references chats (workspace_id, id),
    foreign key (workspace_id, user_id) references workspace_members (workspace_id, user_id)
);

-- At most one open period; and the members of a chat, oldest first.
create unique index chat_members_current on chat_members (chat_id, user_id)
    where left_position is null;
create index chat_members_by_age on chat_members (chat_id, joined_position, user_id)
    where left_position is null;
-- The chats of a person.
create index chat_members_of_user on chat_members (workspace_id, user_id, chat_id)
    where left_position is null;
-- The memberships that ended lately: whoever was away may still be told of what came before.
create index chat_members_ended on chat_members (workspace_id, left_position)
    where left_position is not null;
-- The chats that somebody was in at the time of some event.
create index chat_members_left on chat_members (workspace_id, user_id, left_position)
    where left_position is not null;
