-- What a person has chosen for a chat of theirs. It stays if they leave the chat and come back.
create table chat_preferences (
    workspace_id bigint not null,
    user_id bigint not null,
    chat_id bigint not null,
    notify_level text not null default 'all' check (notify_level in ('all', 'mentions', 'nothing')),
    muted_until timestamptz,
    pinned_at timestamptz,
    primary key (workspace_id, user_id, chat_id),
    foreign key (workspace_id, chat_id) references chats (workspace_id, id),
    foreign key (workspace_id, user_id) references workspace_members (workspace_id, user_id)
);

-- What a person's clients have stored for them: an object of their own.
create table user_preferences (
    workspace_id bigint not null,
    user_id bigint not null,
    preferences jsonb not null,
    primary key (workspace_id, user_id),
    foreign key (workspace_id, user_id) references workspace_members (workspace_id, user_id)
);
