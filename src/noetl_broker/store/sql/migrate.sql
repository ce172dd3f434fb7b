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

-- name: missing_rights
-- What the daemon's role may not do and must.
select w.right_name || ' on ' || w.relation as missing
from (
  values
    ('insert', 'noetl.event'), ('insert', 'noetl.queue'), ('update', 'noetl.queue'), ('insert', 'noetl.execution'),
    ('update', 'noetl.execution'), ('insert', 'noetl.execution_state'), ('update', 'noetl.execution_state'),
    ('insert', 'noetl.turn'), ('insert', 'noetl.workload'), ('insert', 'noetl.workflow'), ('update', 'noetl.workflow'),
    ('insert', 'noetl.transition'), ('insert', 'noetl.workbook'), ('insert', 'noetl.iteration'),
    ('update', 'noetl.iteration'), ('insert', 'noetl.inbox'), ('update', 'noetl.inbox'), ('delete', 'noetl.inbox'),
    ('insert', 'noetl.dead_letter'), ('update', 'noetl.dead_letter'), ('select', 'noetl.catalog')
) w (right_name, relation)
where not has_table_privilege(w.relation, w.right_name)
union all
select 'execute on ' || f.signature
from (
  values ('noetl.take_mail(int, boolean, bigint)'), ('noetl.reap(int, int)'), ('noetl.next_id()')
) f (signature)
where not has_function_privilege(f.signature, 'execute');

-- name: list_migrations
select version, name, checksum
from noetl.schema_version
order by version;

-- name: record_migration
insert into noetl.schema_version (version, name, checksum)
values ($1::int, $2::text, $3::text);
