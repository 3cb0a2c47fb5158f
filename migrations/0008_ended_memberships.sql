-- The memberships that ended lately: whoever was away may still be told of what came before.
create index chat_members_ended on chat_members (workspace_id, left_position)
    where left_position is not null;
