-- Families of executions: which execution is the root, and the trace that all of them share.

-- The topmost execution of a family: it has no parent, or a parent without a row.
create or replace function noetl.root_of(execution_id bigint) returns bigint
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  with recursive above as (
    select x.execution_id, x.parent_execution_id
    from noetl.execution x
    where x.execution_id = $1
    union
    select p.execution_id, p.parent_execution_id
    from above a
    join noetl.execution p on p.execution_id = a.parent_execution_id
  )
  select coalesce(
    (
      select a.execution_id
      from above a
      where not exists (select from above p where p.execution_id = a.parent_execution_id)
      limit 1
    ),
    $1
  )
$$;

-- The root, locked: nobody else can give it a parent, so two executions cannot adopt each other. Each statement of a
-- volatile function sees what was committed until then.
create or replace function noetl.lock_root(execution_id bigint) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  root bigint;
begin
  loop
    root := noetl.root_of($1);
    perform from noetl.execution x where x.execution_id = root for no key update;
    exit when noetl.root_of($1) = root;
  end loop;
  return root;
end
$$;

-- What the start of an execution says if its playbook has another metadata.bucket than the version `caller` that starts it.
-- null: it has none, or the same. Such a start fails, because an execution lives where it is started from.
create or replace function noetl.other_bucket(bucket text, caller bigint) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('other_bucket', jsonb_build_object('bucket', $1, 'caller', c.path, 'caller_bucket', c.bucket))
  from noetl.catalog c
  where c.catalog_id = $2 and $1 is not null and c.bucket is distinct from $1
$$;

-- The trace id is derived from the root execution, the span id from the node; tracing/spans.py derives the same.
create or replace function noetl.traceparent(execution_id bigint, node_id text) returns text
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return format(
    '00-%s-%s-01',
    left(encode(sha256(convert_to('trace:' || noetl.root_of($1), 'UTF8')), 'hex'), 32),
    left(encode(sha256(convert_to('span:' || coalesce($2, $1::text), 'UTF8')), 'hex'), 16)
  );
end
$$;

comment on function noetl.traceparent(bigint, text) is
  'The W3C traceparent of a visit. An execution, its children and the attempts of workers share one trace.';

-- The latest retry or fork of an execution; null: there is none.
create or replace function noetl.recovered_as(execution_id bigint) returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select max(f.execution_id)
  from noetl.execution f
  where f.forked_from = $1
$$;

-- What ends an execution that is in the way: for the hint of an error. An undo ignores a cancel.
create or replace function noetl.how_to_end(execution_id bigint) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when noetl.is_live(x.status) and x.status <> 'COMPENSATING'
      then format('noetl-broker cancel %s ends it, and undoes what it did', $1)
    else format('noetl-broker status %s shows how far it is; noetl-broker abandon %s ends it', $1, $1)
  end
  from noetl.execution x
  where x.execution_id = $1
$$;

revoke all on function
  noetl.recovered_as(bigint), noetl.how_to_end(bigint), noetl.root_of(bigint), noetl.lock_root(bigint), noetl.traceparent(bigint, text),
  noetl.other_bucket(text, bigint)
  from public;
