-- How far a person has read in a chat. Not a part of the log: people read far more often than they write. A
-- person without a row has read nothing but what they wrote.
create table read_marks (
    workspace_id bigint not null,
    user_id bigint not null,
    chat_id bigint not null,
    -- Messages up to here are read. A message of one's own after set_at_seq, the chat's newest seq when this
    -- mark was set, moves the mark to itself without a write.
    seq bigint not null check (seq >= 0),
    set_at_seq bigint not null check (set_at_seq >= seq),
    -- Raised with each change: the sum of a person's versions tells whether any of their marks has changed.
    version bigint not null default 1,
    changed_at timestamptz not null default clock_timestamp(),
    primary key (workspace_id, user_id, chat_id),
    foreign key (workspace_id, chat_id) references chats (workspace_id, id),
    foreign key (workspace_id, user_id) references workspace_members (workspace_id, user_id)
);
