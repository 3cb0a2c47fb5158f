-- send_message and write_batch are the only ways in: they check under the log's lock that the chat and the
-- sender are the workspace's, and number and name the kinds of messages themselves. Foreign keys and more
-- constraints would say the same at a third of the cost of a lone message.
create table messages (
    id bigint generated always as identity,
    workspace_id bigint not null,
    chat_id bigint not null,
    -- 1, 2, 3, … in the chat, without gaps; taken under the log's lock, as the id is, so that both
    -- run in the same order.
    seq bigint not null,
    sender_id bigint not null,
    -- user or system.
    kind text not null default 'user',
    content text not null check (char_length(content) <= 10000),
    -- A bit for each kind of rows that there may be about the message: 1 message_reactions, 2
    -- message_replies, 4 message_mentions, 8 message_files. Bits are set, and never cleared.
    parts smallint not null default 0,
    -- The message of the same chat that this one answers.
    reply_to_id bigint,
    -- The content of a system message, as clients receive it, and the seq of the newest message of a person
    -- before it.
    system json,
    person_seq bigint,
    -- A retry carries the same key; the digest of the request tells a retry from another message.
    idempotency_key uuid not null,
    digest bytea not null,
    created_at timestamptz not null default clock_timestamp(),
    edited_at timestamptz,
    deleted_at timestamptz,
    primary key (chat_id, id),
    constraint messages_seq_key unique (chat_id, seq),
    constraint messages_idempotency_key unique (chat_id, sender_id, idempotency_key)
);

-- The reactions, replies and mentions of a message, from their own tables.
create type message_parts as (
    reactions json,
    reply_count bigint,
    last_reply_at timestamptz,
    -- The people whom it mentions; null is everybody.
    mentions bigint[],
    files json
);

-- Whoever speaks has read what was said before. Their own last message is looked up for that, not
-- noted in their membership at each send: while a backup holds its snapshot, no old version of a row
-- that is updated again and again can be removed, and each look at it gets slower.
-- Indexed by the sender's negative, so that it can never be taken for the index of idempotency keys:
-- to a planner that has not seen the table yet, both look as good for a key.
create index messages_own on messages (chat_id, (-sender_id), seq);

-- The replies to a message, apart from the messages themselves: an index of these for replies alone would
-- cost every other message.
create table message_replies (
    chat_id bigint not null,
    -- The message that is answered.
    message_id bigint not null,
    -- The reply.
    seq bigint not null,
    created_at timestamptz not null,
    is_deleted boolean not null default false,
    primary key (chat_id, message_id, seq)
);

-- The people whom messages mention, as members of the chat at the time of writing.
create table message_mentions (
    chat_id bigint not null,
    seq bigint not null,
    -- Null: everybody.
    user_id bigint,
    -- The author of the message, to whom it does not count.
    sender_id bigint not null,
    constraint message_mentions_key unique nulls not distinct (chat_id, user_id, seq)
);

-- The mentions of a message.
create index message_mentions_of_message on message_mentions (chat_id, seq);

-- The people whose messages are deleted at once, although their rows are emptied later, in batches. Empty but for
-- the time of these batches.
create table blanked_people (
    workspace_id bigint not null,
    user_id bigint not null,
    blanked_at timestamptz not null,
    primary key (workspace_id, user_id),
    foreign key (workspace_id, user_id) references workspace_members (workspace_id, user_id)
);
