-- Names are unique by a key of their own, of look-alikes and white space too; name_key is for
-- searching.
--
-- Behind a backup this gives up, and does not stand in everybody else's way.
set local lock_timeout = '2s';

alter table workspaces
    -- Made by the server; null where the name was given before this column existed, or by a server
    -- of the version before, and where an older workspace has the key already.
    add column name_unique text,
    -- The name_key of the name that name_unique was made of. Another one there means that a server
    -- of the version before has renamed the workspace since: name_unique counts no more.
    add column name_unique_of text;

alter table chats
    add column name_unique text,
    add column name_unique_of text;

-- The indexes of before stay: servers of the version before insert "on conflict (name_key)".
create unique index workspaces_name_unique on workspaces
    ((case when name_unique_of = name_key then name_unique else name_key end));
create unique index chats_public_name_unique on chats
    (workspace_id, (case when name_unique_of = name_key then name_unique else name_key end))
    where chat_type = 'PublicChannel' and deleted_at is null;

-- What still has no key of its own: see the server's models/unique_names.rs.
create index workspaces_unkeyed on workspaces (id)
    where name_unique_of is distinct from name_key;
create index chats_unkeyed on chats (id)
    where name_unique_of is distinct from name_key and deleted_at is null;
