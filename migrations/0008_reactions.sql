create table message_reactions (
    -- Drawn under the log's lock: the order in which they were added.
    id bigint generated always as identity,
    workspace_id bigint not null,
    chat_id bigint not null,
    message_id bigint not null,
    -- One emoji of Unicode's list (RGI), fully qualified.
    emoji text collate "C" not null check (char_length(emoji) between 1 and 16),
    user_id bigint not null,
    created_at timestamptz not null,
    primary key (chat_id, message_id, emoji, user_id),
    foreign key (chat_id, message_id) references messages (chat_id, id) on delete cascade,
    foreign key (workspace_id, chat_id) references chats (workspace_id, id),
    foreign key (workspace_id, user_id) references workspace_members (workspace_id, user_id)
);

-- The list of a message's reactions, in the order in which they were added.
create index message_reactions_in_order on message_reactions (chat_id, message_id, id);
