-- The servers that can work with this schema, besides those that know its newest migration.
create table schema_state (
    is_only boolean primary key default true check (is_only),
    -- A server whose own newest migration is older than this one cannot work with the schema. A
    -- migration that takes away what older servers need raises it.
    serves_from bigint not null,
    -- The version of the functions in sql/ as they were last applied, and their SHA-256.
    code_version bigint not null default 0,
    code_digest bytea
);
insert into schema_state (serves_from) values (1);
