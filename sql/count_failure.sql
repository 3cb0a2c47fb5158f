-- Counts a wrong password before the password is looked at, so that guesses made at the same time count
-- too. Returns for how many seconds the delay of earlier ones still runs, else null: no delay for the
-- free failures, then 1, 2, 4 … 60 s. An hour without a failure forgets them. Nobody waits for the disk on
-- account of this.
create or replace function count_failure(guesses text, free_failures integer) returns float8
language plpgsql as $$
declare
    wait float8;
begin
    perform set_config('synchronous_commit', 'off', true);
    insert into signin_failures as old (email_key, failures, last_failed_at)
    values (guesses, 1, clock_timestamp())
    on conflict (email_key) do update set
        failures = case when old.last_failed_at > clock_timestamp() - interval '1 hour'
            then old.failures + 1 else 1 end,
        last_failed_at = clock_timestamp()
    where old.failures < free_failures
       or old.last_failed_at + least(60, power(2, least(old.failures - free_failures, 6)))
            * interval '1 second' <= clock_timestamp();
    if found then
        return null;
    end if;
    select extract(epoch from last_failed_at
            + least(60, power(2, least(failures - free_failures, 6))) * interval '1 second'
            - clock_timestamp())
    into wait
    from signin_failures
    where email_key = guesses;
    return coalesce(wait, 1);
end;
$$;
