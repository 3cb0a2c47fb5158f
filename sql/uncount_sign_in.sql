-- Takes an attempt that has succeeded out of the counts: people who sign in behind one office address are
-- no guessers. Forgets the wrong passwords before it.
create or replace function uncount_sign_in(own text[], guesses text, overall text[]) returns void
language plpgsql as $$
begin
    perform set_config('synchronous_commit', 'off', true);
    for i in 1 .. cardinality(own) loop
        update attempt_windows
        set attempts = attempts - 1
        where bucket = own[i]
          and attempts > 0;
    end loop;
    delete from signin_failures where email_key = guesses;
    for i in 1 .. cardinality(overall) loop
        update attempt_windows
        set attempts = attempts - 1
        where bucket = overall[i]
          and attempts > 0;
    end loop;
end;
$$;
