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
    -- A bit for each kind of rows that there may be about the message: 1 message_reactions, 2 replies. Bits
    -- are set, and never cleared.
    parts smallint not null default 0,
    -- The message of the same chat that this one answers.
    reply_to_id bigint,
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

-- Whoever speaks has read what was said before. Their own last message is looked up for that, not
-- noted in their membership at each send: while a backup holds its snapshot, no old version of a row
-- that is updated again and again can be removed, and each look at it gets slower.
-- Indexed by the sender's negative, so that it can never be taken for the index of idempotency keys:
-- to a planner that has not seen the table yet, both look as good for a key.
create index messages_own on messages (chat_id, (-sender_id), seq);

-- The replies to a message. Negative for the same reason.
create index messages_replies on messages (chat_id, (-reply_to_id), seq) include (deleted_at)
    where reply_to_id is not null;
