-- The one rule of which events were for whom, by their membership at each event's position; without a
-- reader, all of them. Whoever reads for somebody reads through this. It leaves out the messages that
-- events are about: to count events, or to ask whether there are any, takes a quarter of the time without.
create or replace function events_for(workspace bigint, first bigint, last bigint, reader bigint)
returns setof events language sql stable as $$
    select e.*
    from events as e
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
