-- Counts an attempt in one bucket after the other (a client's address, its site, all), as long as it
-- is within what each allows in a minute: an attempt that its own address may not make any more is
-- nobody else's. Returns how many seconds the first bucket that is full stays so. Nobody waits for
-- the disk on account of this.
create or replace function count_attempts(buckets text[], allowed integer[]) returns float8
language plpgsql as $$
declare
    counted attempt_windows;
begin
    perform set_config('synchronous_commit', 'off', true);
    for i in 1 .. cardinality(buckets) loop
        insert into attempt_windows as old (bucket, attempts, started_at)
        values (buckets[i], 1, clock_timestamp())
        on conflict (bucket) do update set
            attempts = case when old.started_at > excluded.started_at - interval '1 minute'
                then old.attempts + 1 else 1 end,
            started_at = case when old.started_at > excluded.started_at - interval '1 minute'
                then old.started_at else excluded.started_at end
        returning * into counted;
        if counted.attempts > allowed[i] then
            return extract(epoch from counted.started_at + interval '1 minute' - clock_timestamp());
        end if;
    end loop;
    return null;
end;
$$;
