-- What only a database with Citus understands, but for `has_citus` and `citus_version`.

-- name: has_citus
select to_regclass('pg_catalog.pg_dist_placement') is not null;

-- name: find_node
-- The node that the bucket is on, and the shards of its tables; with a group ($1) that node. No row: it is not distributed.
select n.nodename as host, n.nodeport as port, n.groupid = (select g.groupid from pg_dist_local_group g) as is_here,
  t.tables, t.shards
from (
  select min(p.groupid) as groupid, array_agg(c.relname::text order by c.relname) as tables,
    array_agg(c.relname || '_' || s.shardid order by c.relname) as shards
  from pg_dist_shard s
  join pg_class c on c.oid = s.logicalrelid
  join pg_dist_placement p on p.shardid = s.shardid
  where c.relnamespace = to_regnamespace('noetl') and not c.relispartition
) t
join pg_dist_node n on n.groupid = coalesce($1::int, t.groupid) and n.noderole = 'primary';

-- name: citus_version
select e.extversion
from pg_extension e
where e.extname = 'citus';

-- name: is_shared
-- Whether each node has the tables of the installation.
select exists (select from pg_dist_partition p where p.logicalrelid = to_regclass('noetl.bucket'));

-- name: share_installation
select create_reference_table(t.name)
from unnest(array['noetl.bucket', 'noetl.home']::regclass[]) t (name)
where not exists (select from pg_dist_partition p where p.logicalrelid = t.name);

-- name: distribute_schemas
-- The schema that is made next becomes a distributed one.
set citus.enable_schema_based_sharding to on;

-- name: change_shards_in_turn
-- Citus refuses to do so at once where a transaction changes several tables. Nodes without a shard cannot check its functions.
set local citus.multi_shard_modify_mode to 'sequential';
set local check_function_bodies to off;

-- name: distribute_functions
do $$
declare
  one regprocedure;
begin
  for one in
    select p.oid
    from pg_proc p
    join pg_language l on l.oid = p.prolang and l.lanname = 'plpgsql'
    where p.pronamespace = 'noetl'::regnamespace and obj_description(p.oid) is not null
  loop
    perform create_distributed_function(one, colocate_with => 'noetl.execution');
  end loop;
end
$$;

-- name: count_orphaned_shards
select count(*)
from pg_dist_cleanup;

-- name: node_clock
select extract(epoch from clock_timestamp())::float8;
