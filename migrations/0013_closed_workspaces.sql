-- The operator can suspend a workspace, or delete it: then its rows are removed in batches. In this table,
-- because every writer of a log locks its row first, and so reads the status without another look-up.
alter table workspace_logs
    add column status text not null default 'Active' check (status in ('Active', 'Suspended', 'Deleted')),
    -- When the status changed last.
    add column changed_at timestamptz;

-- The deleted chats whose rows are still to be removed.
create index chats_purged on chats (deleted_at) where purged_at is not null;

-- For removing people, because PostgreSQL looks for rows that refer to them. The memberships of chats are
-- removed before; an index by person would look to a planner without statistics as good as that by chat.
create index sessions_of_member on sessions (workspace_id, user_id);
create index chat_members_of_workspace on chat_members (workspace_id);

-- write_batch checks both under the log's lock, as it does for messages.
alter table message_reactions
    drop constraint message_reactions_workspace_id_chat_id_fkey,
    drop constraint message_reactions_workspace_id_user_id_fkey;
