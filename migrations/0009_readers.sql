-- What a person was to receive of a log, by their membership at each event's position; without a
-- reader, everything. Whoever reads for somebody reads through this: there is no second rule.
create function log_entries_for(workspace bigint, first bigint, last bigint, reader bigint)
returns setof log_entries language sql stable as $$
    select e.*
    from log_entries as e
    where e.workspace_id = workspace
      and e.position between first and last
      and (reader is null
           or (e.chat_id is null and e.user_id is null)
           or e.user_id = reader
           or exists (
               select 1 from chat_members as m
               where m.chat_id = e.chat_id
                 and m.user_id = reader
                 and m.joined_position <= e.position
                 and (m.left_position is null or m.left_position >= e.position)))
$$;
