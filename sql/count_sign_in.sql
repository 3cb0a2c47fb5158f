-- Counts an attempt to sign in, and finds the account. What refuses first is counted alone: an attempt
-- that its own address may not make any more is no guess at the account, and one that the delay of the
-- account refuses does not count overall. `wait` is for how many seconds that goes on; null is not refused.
-- Locks buckets in this order, as uncount_sign_in does.
create or replace function count_sign_in(
    own text[],
    own_allowed integer[],
    guesses text,
    free_failures integer,
    overall text[],
    overall_allowed integer[],
    account text,
    out wait float8,
    out user_id bigint,
    out password_hash text
)
language plpgsql as $$
begin
    wait := count_attempts(own, own_allowed);
    if wait is null then
        wait := count_failure(guesses, free_failures);
    end if;
    if wait is null then
        wait := count_attempts(overall, overall_allowed);
    end if;
    if wait is null then
        select u.id, u.password_hash into user_id, password_hash
        from users as u
        where u.email_key = account;
    end if;
end;
$$;
