-- Text that is unique is compared byte by byte: what a database's collation counts as equal changes
-- with the operating system, and its order with it. Names are also unique by how they look as written.
--
-- Behind a backup this gives up, and does not stand in everybody else's way.
set local lock_timeout = '2s';

alter table users alter column email_key type text collate "C";
alter table signin_failures alter column email_key type text collate "C";
alter table attempt_windows alter column bucket type text collate "C";

alter table workspaces
    alter column name_key type text collate "C",
    alter column name_unique type text collate "C",
    alter column name_unique_of type text collate "C",
    -- Made and kept as name_unique is, of the capitals as they look.
    add column name_skeleton text collate "C",
    add column name_skeleton_of text collate "C";

alter table chats
    alter column name_key type text collate "C",
    alter column name_unique type text collate "C",
    alter column name_unique_of type text collate "C",
    add column name_skeleton text collate "C",
    add column name_skeleton_of text collate "C";

create unique index workspaces_name_skeleton on workspaces (name_skeleton)
    where name_skeleton_of = name_key;
create unique index chats_public_name_skeleton on chats (workspace_id, name_skeleton)
    where name_skeleton_of = name_key and chat_type = 'PublicChannel' and deleted_at is null;

drop index workspaces_unkeyed;
drop index chats_unkeyed;
-- What still lacks a key: see the server's models/unique_names.rs.
create index workspaces_unkeyed on workspaces (id)
    where name_unique_of is distinct from name_key or name_skeleton_of is distinct from name_key;
create index chats_unkeyed on chats (id)
    where (name_unique_of is distinct from name_key or name_skeleton_of is distinct from name_key)
      and deleted_at is null;
