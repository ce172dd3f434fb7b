-- name: lock_migrations
-- In the two-int key space: execution ids own the other one.
select pg_advisory_lock(1852794228, 2);

-- name: create_schema_version
create schema if not exists noetl;
create table if not exists noetl.schema_version (
  version int primary key,
  name text not null,
  checksum text not null,
  applied_at timestamptz not null default clock_timestamp()
);

-- name: has_schema_version
select to_regclass('noetl.schema_version') is not null;

-- name: is_superuser
select rolsuper
from pg_roles
where rolname = current_user;

-- name: list_migrations
select version, name, checksum
from noetl.schema_version
order by version;

-- name: record_migration
insert into noetl.schema_version (version, name, checksum)
values ($1::int, $2::text, $3::text);
