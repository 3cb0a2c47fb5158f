-- Sends one message: the short way of write_batch, for which most batches of an ordinary day are one
-- message. The same checks in the same order, with the same outcomes, without arrays; a test sends the
-- same histories both ways. It also returns the event's position, and the stamp of the event before it, so
-- that readers who have that one can be told the message and need not read the log.
create or replace function send_message(
    workspace bigint, sender bigint, session uuid, chat bigint,
    content text, key uuid, digest bytea, stamp integer, patient boolean,
    out outcome text, out message_id bigint, out seq bigint, out sent_at timestamptz,
    out log_position bigint, out stamp_before integer
) language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    workspace_status text;
    lives boolean;
    status text;
    chat_state text;
    is_member boolean;
    earlier_digest bytea;
    -- The log's newest event: its position and its stamp.
    newest bigint[];
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'the log is written in read committed only';
    end if;
    if patient then
        select l.status into workspace_status
        from workspace_logs as l where l.workspace_id = workspace for no key update;
    else
        select l.status into workspace_status
        from workspace_logs as l where l.workspace_id = workspace for no key update skip locked;
    end if;
    if not found then
        outcome := 'locked';
        return;
    end if;
    sent_at := clock_timestamp();

    select
        (
            select s.user_id = sender and s.revoked_at is null and s.expires_at > sent_at
            from sessions as s
            where s.id = session
        ),
        (
            select w.status
            from workspace_members as w
            where w.workspace_id = workspace and w.user_id = sender
        ),
        (
            select case
                when c.workspace_id <> workspace or c.deleted_at is not null then 'gone'
                when c.archived_at is not null then 'archived'
                else 'open'
            end
            from chats as c
            where c.id = chat
        ),
        (
            -- The newest period: only the primary key is in that order.
            select m.left_position is null
            from chat_members as m
            where m.chat_id = chat and m.user_id = sender
            order by m.joined_position desc
            limit 1
        ),
        (
            -- In the order of keys, which only their index has.
            select e.id
            from messages as e
            where e.chat_id = chat and e.sender_id = sender and e.idempotency_key between key and key
            order by e.idempotency_key
            limit 1
        ),
        (
            select array[e.position, e.stamp]
            from events as e
            where e.workspace_id = workspace
            order by e.position desc
            limit 1
        )
    into lives, status, chat_state, is_member, message_id, newest;

    if session is not null and (lives is not true or status is null or status = 'Left') then
        outcome := 'session_ended';
    elsif session is not null and workspace_status <> 'Active' then
        outcome := 'workspace_suspended';
    elsif session is not null and status = 'Suspended' then
        outcome := 'suspended';
    elsif chat_state is null or chat_state = 'gone' or status is null
          or (session is not null and is_member is not true) then
        outcome := 'not_found';
    elsif message_id is not null then
        select e.digest into earlier_digest from messages as e where e.chat_id = chat and e.id = message_id;
        outcome := case when earlier_digest = send_message.digest then 'replayed' else 'mismatch' end;
    elsif chat_state = 'archived' then
        outcome := 'archived';
    else
        outcome := 'written';
        log_position := coalesce(newest[1], 0) + 1;
        stamp_before := newest[2];
        insert into messages
            (workspace_id, chat_id, seq, sender_id, content, idempotency_key, digest, created_at)
        values (
            workspace, chat,
            coalesce((select max(m.seq) from messages as m where m.chat_id = chat), 0) + 1,
            sender, send_message.content, key, send_message.digest, sent_at)
        returning messages.id, messages.seq into message_id, send_message.seq;
        insert into events (workspace_id, position, stamp, kind, effect, chat_id, message_id)
        values (workspace, log_position, send_message.stamp, 'NewMessage', 'none', chat, message_id);
    end if;
end;
$$;
