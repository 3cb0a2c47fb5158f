-- Takes an attempt out of these buckets again, in the order in which count_attempts locks them. Nobody
-- waits for the disk on account of this.
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
