-- name: lock_catalog
-- Until the end of the transaction, so that two registrations of one path get different versions.
select pg_advisory_xact_lock(hashtext('noetl.lock'), 3);

-- name: latest_version
select c.catalog_id, c.version, c.content
from noetl.catalog c
where c.path = $1::text
order by c.version desc
limit 1;

-- name: add_version
insert into noetl.catalog (path, version, kind, name, content, payload, bucket, registered_by)
values ($1::text, $2::int, $3::text, $4::text, $5::text, $6::text::jsonb, $7::text, noetl.caller_name($8::text))
returning catalog_id;

-- name: add_block
-- A block of the version $5. It has the text of its playbook, so that errors name the lines of the file, and its home.
insert into noetl.catalog (path, version, kind, name, content, payload, block_of, bucket, registered_by)
select $1::text, $2::int, $3::text, $4::text, c.content, $6::text::jsonb, c.catalog_id, c.bucket, c.registered_by
from noetl.catalog c
where c.catalog_id = $5::bigint;

-- name: is_bucket
-- Whether this schema is a bucket of an installation; any login may ask.
select to_regclass('noetl.signal_copy') is not null;

-- name: may_resume
select has_function_privilege('noetl.resume_path(text)', 'execute');

-- name: latest_homes
-- The metadata.bucket of the latest version of each of these paths.
select distinct on (c.path) c.path, c.version, c.bucket
from noetl.catalog c
where c.path = any ($1::text[])
order by c.path, c.version desc;

-- name: homes_of
-- The metadata.bucket of each of these versions (null: the latest) that is registered.
select k.path, k.version, c.bucket
from unnest($1::text[], $2::int[]) k (path, version)
cross join lateral (
  select l.bucket
  from noetl.catalog l
  where l.path = k.path and (k.version is null or l.version = k.version)
  order by l.version desc
  limit 1
) c;

-- name: write_homes
-- In the schema of an installation: the homes of playbooks; null: it has none any more.
with homes as (
  select h.path, h.bucket
  from unnest($1::text[], $2::text[]) h (path, bucket)
), gone as (
  delete from noetl.home o
  using homes h
  where o.path = h.path and h.bucket is null
)
insert into noetl.home as o (path, bucket)
select h.path, h.bucket
from homes h
where h.bucket is not null
on conflict (path) do update
set bucket = excluded.bucket
where o.bucket <> excluded.bucket;

-- name: list_paths
select c.path, max(c.version) as version
from noetl.catalog c
where c.block_of is null
group by c.path
order by c.path;

-- name: list_versions
select c.path, array_agg(c.version order by c.version) as versions
from noetl.catalog c
where c.block_of is null
group by c.path
order by c.path;

-- name: latest_versions
select c.path, max(c.version) as version
from noetl.catalog c
where c.path = any ($1::text[])
group by c.path;

-- name: find_content
select c.catalog_id, c.version
from noetl.catalog c
where c.path = $1::text and c.content = $2::text
order by c.version desc
limit 1;

-- name: list_step_types
select t.name, t.added_at, t.added_by
from noetl.step_type t
order by t.name;

-- name: find_version
select c.catalog_id, c.path, c.version, c.content
from noetl.catalog c
where c.path = $1::text
  and ($2::int is null or c.version = $2)
order by c.version desc
limit 1;
