-- What workers announce: their step types, and themselves. And which jobs no worker serves.
--
-- Registration alone reads noetl.step_type. A running broker takes every type that it does not run itself for an action.

create table if not exists noetl.step_type (
  name text primary key,
  added_at timestamptz not null default clock_timestamp(),
  added_by text not null
);

comment on table noetl.step_type is
  'Step types of people''s own workers. Registration accepts them beside the built-in ones.';
comment on column noetl.step_type.name is 'What `type` of a step says.';
comment on column noetl.step_type.added_at is 'When it was announced first.';
comment on column noetl.step_type.added_by is 'Who announced it: login:NAME or token:NAME.';

-- Types that no worker gets jobs of.
create or replace function noetl.is_own_type(name text) returns boolean
language sql immutable parallel safe
as $$
  select $1 = any(array[
    'start', 'end', 'route', 'router', 'noop', 'workbook', 'playbook', 'iterator', 'wait', 'approval', 'signal', 'fail'
  ])
$$;

create or replace function noetl.announce_step_types(names text[], by text default null) returns int
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  refused text;
  added int;
begin
  select string_agg(quote_literal(left(n, 80)), ', ')
  into refused
  from unnest($1) n
  where noetl.is_own_type(n);
  if refused is not null then
    raise exception using errcode = 'NB400',
      message = format('the broker runs steps of type %s itself', refused),
      hint = 'give the type of your worker another name';
  end if;
  select string_agg(coalesce(quote_literal(left(n, 80)), 'null'), ', ')
  into refused
  from unnest($1) n
  where n !~ '^[A-Za-z_][A-Za-z0-9_.-]{0,62}$' or n is null;
  if refused is not null then
    raise exception using errcode = 'NB400',
      message = format('%s is no name of a step type', refused),
      hint = 'write a letter or _, then letters, digits, _, . and -; 63 characters at most';
  end if;
  insert into noetl.step_type (name, added_by)
  select distinct n, noetl.caller_name($2)
  from unnest($1) n
  on conflict (name) do nothing;
  get diagnostics added = row_count;
  return added;
end
$$;

comment on function noetl.announce_step_types(text[], text) is
  'Adds step types of a worker, for registration. Returns how many are new. The names of the broker''s own types are refused.';

create or replace function noetl.remove_step_types(names text[]) returns int
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  removed int;
begin
  delete from noetl.step_type t
  where t.name = any($1);
  get diagnostics removed = row_count;
  return removed;
end
$$;

comment on function noetl.remove_step_types(text[]) is
  'Removes step types, so that registration refuses them. Returns how many there were. Registered playbooks still run.';

-- The list of workers. It is unlogged: after a crash of the server, each worker is in it again within 15 seconds.
create unlogged table if not exists noetl.worker (
  worker_id text primary key,
  host text,
  version text,
  pools text[] not null,
  types text[],
  slots int not null,
  leased int not null,
  since timestamptz not null,
  seen timestamptz not null
);

comment on table noetl.worker is 'Workers that run, as they announced themselves. One is gone a minute after its last word.';
comment on column noetl.worker.worker_id is 'The name under which it leases jobs.';
comment on column noetl.worker.host is 'The machine that it runs on.';
comment on column noetl.worker.version is 'The version of its program.';
comment on column noetl.worker.pools is 'The pools whose jobs it leases.';
comment on column noetl.worker.types is 'The types of jobs that it leases; null: all.';
comment on column noetl.worker.slots is 'How many jobs it runs at a time.';
comment on column noetl.worker.leased is 'How many jobs it had when it was seen.';
comment on column noetl.worker.since is 'When it announced itself first.';
comment on column noetl.worker.seen is 'When it announced itself last.';

create or replace function noetl.announce_worker(
  worker_id text,
  pools text[] default '{default}',
  types text[] default null,
  slots int default 1,
  leased int default 0,
  host text default null,
  version text default null,
  stops boolean default false
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  at timestamptz := clock_timestamp();
begin
  if ($1 <> '' and cardinality($2) > 0 and array_position($2, null) is null and $4 >= 1 and $5 >= 0) is not true
    or greatest(length($1), length($6), length($7)) > noetl.limit_of('node_chars')
    or greatest(length($2::text), length($3::text)) > 10000
  then
    raise exception using errcode = 'NB400',
      message = format('announce_worker of %s: worker_id %s, pools %s, slots %s or leased %s is wrong, or a text is too long',
        left($1, 80), case when $1 <> '' then 'given' else 'missing' end, left($2::text, 80), $4, $5),
      hint = 'for example noetl.announce_worker(''host:process:8f2c41'', pools => ''{gpu}'', slots => 4)';
  end if;
  delete from noetl.worker w
  where w.seen < at - interval '10 minutes' or $8 and w.worker_id = $1;
  if $8 then
    return;
  end if;
  insert into noetl.worker as w (worker_id, host, version, pools, types, slots, leased, since, seen)
  values ($1, $6, $7, $2, $3, $4, $5, at, at)
  on conflict (worker_id) do update
  set host = $6, version = $7, pools = $2, types = $3, slots = $4, leased = $5, seen = at;
end
$$;

comment on function noetl.announce_worker(text, text[], text[], int, int, text, text, boolean) is
  'Puts a worker into the list of workers for a minute: call it every 15 seconds. `stops`: takes it out.';

-- The workers that announced themselves within the last minute. A replica has no unlogged tables.
create or replace function noetl.live_workers() returns setof noetl.worker
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not pg_is_in_recovery() then
    return query
    select w.*
    from noetl.worker w
    where w.seen > clock_timestamp() - interval '1 minute';
  end if;
end
$$;

-- Types and pools of ready jobs that no worker serves. Of each pool, the first `most` ready jobs count. Whoever leased one
-- of the latest 5,000 jobs within five minutes serves its type and pool, too.
create or replace function noetl.unserved_jobs(most int default 10000) returns table (
  type text, pool text, jobs bigint, seconds float8, execution_id bigint, limits text[]
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  at timestamptz := clock_timestamp();
begin
  return query
  with recursive pools as (
    select min(q.pool) as pool
    from noetl.queue q
    where q.status in ('queued', 'retry')
    union all
    select (
      select min(q.pool)
      from noetl.queue q
      where q.status in ('queued', 'retry') and q.pool > p.pool
    )
    from pools p
    where p.pool is not null
  ), waiting as materialized (
    select f.node_type::text as node_type, f.pool, count(*) as jobs, min(f.available_at) as since,
      (array_agg(f.execution_id order by f.available_at))[1] as execution_id,
      array_agg(distinct f.limit_name order by f.limit_name) filter (where f.limit_name is not null) as limits
    from pools p
    cross join lateral (
      select q.node_type, q.pool, q.available_at, q.execution_id, q.limit_name
      from noetl.queue q
      where q.pool = p.pool and q.status in ('queued', 'retry') and q.available_at <= at
      order by q.priority desc, q.available_at, q.queue_id
      limit $1
    ) f
    group by f.node_type, f.pool
    having min(f.available_at) < at - interval '1 minute'
  ), latest as materialized (
    select distinct l.node_type::text as node_type, l.pool
    from (
      select q.node_type, q.pool, coalesce(q.last_heartbeat, q.first_leased_at) as leased_at
      from noetl.queue q
      order by q.queue_id desc
      limit 5000
    ) l
    where l.leased_at > at - interval '5 minutes'
  )
  select w.node_type, w.pool, w.jobs, extract(epoch from at - w.since)::float8, w.execution_id, coalesce(w.limits, '{}')
  from waiting w
  where not exists (
      select
      from noetl.live_workers() v
      where w.pool = any(v.pools) and (v.types is null or w.node_type = any(v.types))
    )
    and not exists (select from noetl.queue l where l.status = 'leased' and l.node_type = w.node_type and l.pool = w.pool)
    and not exists (select from latest l where l.node_type = w.node_type and l.pool = w.pool)
  order by w.since;
end
$$;

revoke all on function
  noetl.is_own_type(text), noetl.announce_step_types(text[], text), noetl.remove_step_types(text[]),
  noetl.announce_worker(text, text[], text[], int, int, text, text, boolean), noetl.live_workers(), noetl.unserved_jobs(int)
  from public;
