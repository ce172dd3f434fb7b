-- name: lock_catalog
-- Until the end of the transaction: two registers of one path must not both read the same latest version.
select pg_advisory_xact_lock(1852794228, 3);

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

-- name: list_paths
select c.path, max(c.version) as version
from noetl.catalog c
group by c.path
order by c.path;

-- name: find_content
select c.catalog_id, c.version
from noetl.catalog c
where c.path = $1::text and c.content = $2::text
order by c.version desc
limit 1;

-- name: find_version
select c.catalog_id, c.path, c.version, c.content
from noetl.catalog c
where c.path = $1::text
  and ($2::int is null or c.version = $2)
order by c.version desc
limit 1;
