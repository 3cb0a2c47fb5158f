create table messages (
    id bigint generated always as identity,
    workspace_id bigint not null,
    chat_id bigint not null,
    -- 1, 2, 3, … in the chat, without gaps; taken under the log's lock, as the id is, so that both
    -- run in the same order.
    seq bigint not null check (seq > 0),
    sender_id bigint not null,
    kind text not null default 'user' check (kind in ('user', 'system')),
    content text not null check (char_length(content) <= 10000),
    -- A retry carries the same key; the digest of the request tells a retry from another message.
    idempotency_key uuid not null,
    digest bytea not null,
    created_at timestamptz not null default clock_timestamp(),
    edited_at timestamptz,
    deleted_at timestamptz,
    primary key (chat_id, id),
    constraint messages_seq_key unique (chat_id, seq),
    constraint messages_idempotency_key unique (chat_id, sender_id, idempotency_key),
    foreign key (workspace_id, chat_id) references chats (workspace_id, id),
    foreign key (workspace_id, sender_id) references workspace_members (workspace_id, user_id)
);

-- The log as its readers need it: every event with the message it names, as that is now, and
-- with the people whose membership of the chat it began.
create view log_entries as
select
    e.workspace_id, e.position, e.stamp, e.kind, e.chat_id, e.user_id, e.message_id, e.payload,
    case when e.kind = 'NewChat' then array(
        select c.user_id from chat_members as c
        where c.chat_id = e.chat_id and c.joined_position = e.position
    ) end as joined,
    m.seq, m.sender_id, m.kind as message_kind, m.content, m.idempotency_key,
    m.created_at, m.edited_at, m.deleted_at
from events as e
left join messages as m on m.chat_id = e.chat_id and m.id = e.message_id;
