-- What an operator calls to start an execution from the results of another one: fork and retry.

-- Copies results of `source_id` into its fork, as step_result events dated after `begun`, and names them in noetl.workflow.
-- Each of `results` is {step, visit, status, name, set}: its name in the state (a turn, or -event), or a given value.
-- Returns the list with the new events.
create or replace function noetl.copy_results(
  source_id bigint, fork_id bigint, start_id bigint, catalog_id bigint, begun timestamptz, results jsonb
) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  copied_results jsonb;
begin
  with named as materialized (
    select r.ordinal, r.result, r.result ->> 'step' as step, (r.result ->> 'visit')::int as visit,
      r.result ->> 'status' as status, r.result ? 'set' as is_set, noetl.next_id() as event_id, coalesce(
        case when (r.result ->> 'name')::bigint < 0 then -(r.result ->> 'name')::bigint end,
        (
          select coalesce(t.result_event_id, t.event_id)
          from noetl.turn t
          where t.execution_id = $1 and t.turn = (r.result ->> 'name')::bigint
        ),
        case when not r.result ? 'name' then (
          -- the broker ended the visit in the turn of its beginning
          select min(e.event_id)
          from noetl.event e
          where e.execution_id = $1 and e.event_type in ('step_completed', 'step_failed')
            and e.node_id = noetl.node_id($1, r.result ->> 'step', (r.result ->> 'visit')::int)
        ) end
      ) as source_id
    from jsonb_array_elements($6) with ordinality r (result, ordinal)
  ), copied as (
    insert into noetl.event (
      execution_id, event_id, catalog_id, parent_event_id, created_at, event_type, node_id, node_name, node_type,
      status, result, error, context, meta
    )
    select $2, n.event_id, $4, $3, $5 + n.ordinal * interval '1 microsecond', 'step_result',
      noetl.node_id($2, n.step, n.visit), n.step, e.node_type, n.status,
      case when n.is_set then n.result -> 'set'
        -- a step whose template failed after its action completed has data, too
        when n.status = 'COMPLETED' or e.event_type in ('step_failed', 'step_result') then noetl.as_json(e.result) end,
      case when n.status <> 'COMPLETED' then coalesce(noetl.as_json(e.error), '{"message": "the action failed"}') end,
      f.context,
      jsonb_strip_nulls(jsonb_build_object(
        'taken_from', case when not n.is_set then jsonb_build_object('execution_id', $1, 'event_id', n.source_id) end,
        'set', case when n.is_set then true end
      ))
    from named n
    left join noetl.event e on e.execution_id = $1 and e.event_id = n.source_id and not n.is_set
    -- the failed items of an iterator, in the form of the statement load_failed: a fork has no rows of items
    left join lateral (
      select coalesce(
        (
          select jsonb_build_object('failed', coalesce(
            jsonb_agg(jsonb_build_object('index', i.index, 'error', i.error) order by i.index)
              filter (where i.status = 'FAILED'),
            '[]'
          ))
          from noetl.iteration i
          where i.execution_id = $1 and i.node_id = e.node_id
          having count(*) > 0
        ),
        case when e.event_type = 'step_result' and noetl.as_json(e.context) ? 'failed'
          then jsonb_build_object('failed', noetl.as_json(e.context) -> 'failed') end
      ) as context
    ) f on true
    returning 1
  ), steps as (
    -- the first turn reads here which event has the result of a step
    insert into noetl.workflow (execution_id, step_id, step_name, result_visit, result_event_id)
    select distinct on (n.step) $2, n.step, n.step, n.visit, n.event_id
    from named n
    order by n.step, n.visit desc
    returning 1
  )
  select coalesce(jsonb_agg(n.result - 'set' || jsonb_build_object('event_id', n.event_id) order by n.ordinal), '[]')
  into copied_results
  from named n;
  return copied_results;
end
$$;

-- Copies the items of iterators that a fork repeats (of the tokens `kept`, those with `items`): the results of completed ones
-- as step_result events dated after `begun`; the others are to be run again.
create or replace function noetl.copy_items(
  source_id bigint, fork_id bigint, start_id bigint, catalog_id bigint, begun timestamptz, kept jsonb
) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  with visits as materialized (
    select k.arrival ->> 'step' as step, (k.arrival ->> 'repeats')::int as visit
    from jsonb_array_elements($6) k (arrival)
    where k.arrival ? 'items'
  ), taken as materialized (
    select v.step, v.visit, i.index, i.item, i.result_event_id, noetl.next_id() as event_id,
      row_number() over (order by v.step, v.visit, i.index) as number
    from visits v
    join noetl.iteration i on i.execution_id = $1 and i.node_id = noetl.node_id($1, v.step, v.visit)
    where i.status = 'COMPLETED'
  ), results as (
    insert into noetl.event (
      execution_id, event_id, catalog_id, parent_event_id, created_at, event_type, node_id, node_name, node_type,
      status, result, meta
    )
    select $2, t.event_id, $4, $3, $5 + t.number * interval '1 microsecond', 'step_result',
      noetl.item_node_id(noetl.node_id($2, t.step, t.visit), t.index), format('%s[%s]', t.step, t.index), e.node_type,
      'COMPLETED', noetl.as_json(e.result), jsonb_build_object(
        'taken_from', jsonb_build_object('execution_id', $1, 'event_id', t.result_event_id), 'index', t.index
      )
    from taken t
    left join noetl.event e on e.execution_id = $1 and e.event_id = t.result_event_id
  )
  insert into noetl.iteration (execution_id, node_id, index, item, status, result_event_id)
  select $2, noetl.node_id($2, v.step, v.visit), i.index, i.item,
    case when t.event_id is null then 'WAITING' else 'COMPLETED' end, t.event_id
  from visits v
  join noetl.iteration i on i.execution_id = $1 and i.node_id = noetl.node_id($1, v.step, v.visit)
  left join taken t on t.step = v.step and t.visit = v.visit and t.index = i.index
$$;

-- Gives a fork the signals that its source kept (of the turns `kept`), as events. Also those that were sent to the source
-- and did not arrive until turn `last_turn`. Signals that arrived until then do not come to the fork again.
create or replace function noetl.copy_signals(source_id bigint, fork_id bigint, last_turn int, kept jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  with copied as materialized (
    select t.turn, noetl.next_id() as event_id, t.event_id as source_event_id
    from noetl.turn t
    where t.execution_id = source_id and t.turn in (select k.turn::int from jsonb_array_elements_text(kept) k (turn))
  ), taken as (
    insert into noetl.signal_taken (execution_id, signal_id, event_id)
    select fork_id, k.signal_id, coalesce(c.event_id, k.event_id)
    from noetl.signal_taken k
    join noetl.turn t on t.execution_id = k.execution_id and t.event_id = k.event_id and t.turn <= last_turn
    left join copied c on c.turn = t.turn
    where k.execution_id = source_id
    returning signal_id
  ), sent as (
    insert into noetl.signal (name, key, payload, sent_at, expires_at, idempotency_key, execution_id, hops, sent_by)
    select s.name, fork_id::text, s.payload, s.sent_at, 'infinity', s.idempotency_key, fork_id, s.hops, s.sent_by
    from noetl.signal s
    where s.execution_id = source_id and s.signal_id not in (select n.signal_id from taken n)
    order by s.signal_id
    returning signal_id
  )
  insert into noetl.event (
    execution_id, event_id, catalog_id, event_type, node_id, node_name, node_type, status, context
  )
  select fork_id, c.event_id, x.catalog_id, 'execution_signal', fork_id::text, e.node_name, 'wait', 'RUNNING',
    case when noetl.as_json(e.context) ->> 'key' = source_id::text
      then noetl.as_json(e.context) || jsonb_build_object('key', fork_id::text) else noetl.as_json(e.context) end
  from copied c
  join noetl.event e on e.execution_id = source_id and e.event_id = c.source_event_id
  join noetl.execution x on x.execution_id = fork_id
  order by c.turn;
end
$$;

-- `plan` is made by the commands fork and retry, which re-run the history: {execution_id, turn, visits, state, results, …}.
create or replace function noetl.fork_execution(
  execution_id bigint,
  plan jsonb,
  catalog_id bigint default null,
  idempotency_key text default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  source record;
  playbook record;
  earlier record;
  digest bytea;
  id bigint;
  start_id bigint := noetl.next_id();
  begun timestamptz := clock_timestamp();
  results jsonb;
begin
  if $2 is null or jsonb_typeof($2) <> 'object' or jsonb_typeof($2 -> 'results') is distinct from 'array' then
    raise exception using errcode = 'NB400', message = format('the plan of a fork of %s must be an object with a list of results', $1),
      hint = 'noetl-broker fork and noetl-broker retry make one';
  end if;
  perform noetl.check_key($4);
  perform pg_advisory_xact_lock($1); -- none begins beside an undo or an erasure
  select x.catalog_id, x.path, x.version, x.workload, x.tags, f.payload, f.overlap
  into source
  from noetl.execution x
  left join lateral (
    select noetl.as_json(e.context) -> 'workload' as payload, noetl.as_json(e.meta) -> 'overlap' as overlap
    from noetl.turn t
    join noetl.event e on e.execution_id = t.execution_id and e.event_id = t.event_id
    where t.execution_id = $1 and noetl.kind_of(e.event_type) = 'execution_start'
    order by t.turn
    limit 1
  ) f on true
  where x.execution_id = $1;
  if not found then
    perform noetl.refuse_unknown($1);
  end if;
  if noetl.is_archived($1) then
    raise exception using errcode = 'NB404', message = format('execution %s is archived', $1),
      hint = 'its history is in the schema noetl_archive';
  end if;
  perform noetl.hold_period($1);
  perform noetl.refuse_erased($1);
  perform noetl.refuse_undone_results($1, $2 -> 'results');
  select c.catalog_id, c.path, c.version, coalesce(c.name, noetl.name_of_path(c.path)) as name, c.bucket
  into playbook
  from noetl.catalog c
  where c.catalog_id = coalesce($3, source.catalog_id)
    or (coalesce($3, source.catalog_id) is null and c.path = source.path
      and (source.version is null or c.version = source.version))
  order by c.version desc
  limit 1;
  if not found then
    raise exception using errcode = 'NB404',
      message = format('the catalog has no playbook for a fork of %s (%s)', $1, coalesce(source.path, 'without a path')),
      hint = 'noetl-broker register FILE adds a playbook to the catalog';
  end if;

  if noetl.bucket_number() is not null then -- it lives where its source is
    perform noetl.check_home(playbook.bucket, null, playbook.path, null);
  end if;
  id := noetl.next_id();
  if $4 is not null then
    digest := sha256(convert_to('fork of ' || $1, 'UTF8'));
    earlier := noetl.take_key(playbook.path, $4, digest, id);
    if earlier.execution_id <> id and earlier.digest is distinct from digest then
      raise exception using errcode = 'NB409',
        message = format('the idempotency key %s of %s is used: execution %s was %s with it',
          left($4, 100), playbook.path, earlier.execution_id, coalesce('forked from ' || (
            select x.forked_from from noetl.execution x where x.execution_id = earlier.execution_id
          ), 'started')),
        hint = 'choose another key';
    elsif earlier.execution_id <> id then
      return earlier.execution_id;
    end if;
  end if;
  insert into noetl.execution (execution_id, catalog_id, path, version, idempotency_key, forked_from, tags, started_by)
  values (id, playbook.catalog_id, playbook.path, playbook.version, $4, $1, source.tags, noetl.caller_name($2 ->> 'by'));

  perform set_config('noetl.writer', '', true);
  results := noetl.copy_results($1, id, start_id, playbook.catalog_id, begun, $2 -> 'results');

  insert into noetl.event (
    execution_id, event_id, catalog_id, created_at, event_type, node_id, node_name, node_type, status, context, meta
  ) values (
    id, start_id, playbook.catalog_id, begun, 'execution_start', id::text, playbook.name, 'playbook', 'STARTED',
    jsonb_build_object(
      'path', playbook.path, 'version', playbook.version,
      -- a fork that begins anew gets the payload: the defaults of its version are evaluated again
      'workload', case when ($2 -> 'anew') = 'true'
        then coalesce(source.payload, source.workload, '{}') else coalesce(source.workload, source.payload, '{}') end
    ),
    jsonb_build_object('forked_from', $1, 'fork', $2 - 'by' || jsonb_build_object('execution_id', $1, 'results', results))
      || coalesce((
        select jsonb_strip_nulls(jsonb_build_object('hops', s.tokens -> 'hops', 'on_failure', s.tokens -> 'on_failure',
          'priority', s.tokens -> 'priority'))
        from noetl.execution_state s
        where s.execution_id = $1
      ), '{}')
      || case when source.overlap is not null then jsonb_build_object('overlap', source.overlap) else '{}' end
      || case when source.tags is not null then jsonb_build_object('tags', source.tags) else '{}' end
  );
  perform noetl.copy_items($1, id, start_id, playbook.catalog_id, begun, coalesce($2 #> '{state,hold,kept}', '[]'));
  perform noetl.copy_signals($1, id, ($2 ->> 'turn')::int, coalesce($2 -> 'signals', '[]'));
  return id;
end
$$;

comment on function noetl.fork_execution(bigint, jsonb, bigint, text) is
  'Starts an execution from results of another one. The same idempotency key: the same id.';

revoke all on function
  noetl.copy_results(bigint, bigint, bigint, bigint, timestamptz, jsonb),
  noetl.copy_items(bigint, bigint, bigint, bigint, timestamptz, jsonb), noetl.copy_signals(bigint, bigint, int, jsonb),
  noetl.fork_execution(bigint, jsonb, bigint, text)
  from public;
