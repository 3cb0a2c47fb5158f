-- The address of a file, without `/api` before it.
create or replace function file_url(workspace bigint, hash bytea, extension text)
returns text language sql immutable as $$
    select '/files/' || workspace || '/' || substr(encode(hash, 'hex'), 1, 3) || '/'
           || substr(encode(hash, 'hex'), 4, 3) || '/' || substr(encode(hash, 'hex'), 7) || '.' || extension
$$;
