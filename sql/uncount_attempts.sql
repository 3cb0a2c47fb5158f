-- Takes an attempt that was counted in these buckets out again, because it has succeeded: people who
-- sign in behind one office address are no guessers. In the order in which count_attempts locks them.
create or replace function uncount_attempts(buckets text[]) returns void
language plpgsql as $$
begin
    perform set_config('synchronous_commit', 'off', true);
    for i in 1 .. cardinality(buckets) loop
        update attempt_windows
        set attempts = attempts - 1
        where bucket = buckets[i]
          and attempts > 0;
    end loop;
end;
$$;
