-- Takes an attempt that has succeeded out of the counts: people who sign in behind one office address are
-- no guessers. Forgets the wrong passwords before it.
create or replace function uncount_sign_in(own text[], guesses text, overall text[]) returns void
language plpgsql as $$
begin
    perform uncount_attempts(own);
    delete from signin_failures where email_key = guesses;
    perform uncount_attempts(overall);
end;
$$;
