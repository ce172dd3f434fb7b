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
insert into noetl.catalog (path, version, kind, name, content, payload)
values ($1::text, $2::int, $3::text, $4::text, $5::text, $6::text::jsonb)
returning catalog_id;

-- name: add_block
-- A block of the version $5. It has the text of its playbook, so that errors name the lines of the file.
insert into noetl.catalog (path, version, kind, name, content, payload, block_of)
select $1::text, $2::int, $3::text, $4::text, c.content, $6::text::jsonb, c.catalog_id
from noetl.catalog c
where c.catalog_id = $5::bigint;

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
