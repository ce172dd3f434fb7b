-- Progress: how far a leased job is, as its worker reports it. It stands in the row of the job, which no index sees. So the
-- update of a report is HOT if the page has room. No other statement reads or writes more because of it.

create or replace function noetl.is_count(value jsonb) returns boolean
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when jsonb_typeof($1) = 'number' then $1::numeric between 0 and 1000000000000000 and $1::numeric = trunc($1::numeric)
    else false
  end
$$;

comment on function noetl.is_count(jsonb) is 'For progress_fault: whether a value is a whole number from 0 to 10^15.';

create or replace function noetl.progress_fault(progress jsonb) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  most constant int := noetl.limit_of('progress_bytes');
  field record;
  counted numeric := 0;
begin
  if coalesce(jsonb_typeof(progress), 'null') <> 'object' then
    return format('progress must be an object such as {"done": 3, "failed": 1, "total": 10}, it is %s',
      case when progress is null then 'null' else jsonb_typeof(progress) end);
  elsif pg_column_size(progress) > most or octet_length(progress::text) > most then
    return format('progress must have at most %s bytes, it has %s', most,
      greatest(pg_column_size(progress), octet_length(progress::text)));
  elsif not progress ?& array['done', 'total'] then
    return 'progress needs done and total';
  end if;
  for field in select f.key, f.value from jsonb_each(progress) f loop
    if field.key not in ('done', 'failed', 'total', 'errors', 'other_types') then
      return format('progress has done, failed, total, errors and other_types, not %s', quote_literal(left(field.key, 80)));
    elsif field.key <> 'errors' and not noetl.is_count(field.value) then
      return format('%s must be a whole number from 0 to 10^15, it is %s', field.key, left(field.value::text, 80));
    elsif field.key = 'errors' and jsonb_typeof(field.value) <> 'object' then
      return format('errors must be an object of counts by type of error, it is %s', jsonb_typeof(field.value));
    end if;
  end loop;
  for field in select f.key, f.value, row_number() over () as number from jsonb_each(progress -> 'errors') f loop
    if field.number > 5 then
      return 'errors must have at most five types; count the others in failed and other_types';
    elsif length(field.key) > noetl.limit_of('type_chars') then
      return format('a type of errors has more than %s characters: %s…', noetl.limit_of('type_chars'), left(field.key, 80));
    elsif not noetl.is_count(field.value) then
      return format('errors of type %s must be a whole number from 0 to 10^15, it is %s',
        quote_literal(field.key), left(field.value::text, 80));
    end if;
    counted := counted + field.value::numeric;
  end loop;
  if (progress -> 'total')::numeric < 1
    or (progress -> 'done')::numeric + coalesce((progress -> 'failed')::numeric, 0) > (progress -> 'total')::numeric
  then
    return format('total must be 1 or more, and done and failed together at most total; they are %s, %s and %s',
      progress -> 'total', progress -> 'done', coalesce(progress -> 'failed', '0'));
  elsif counted > coalesce((progress -> 'failed')::numeric, 0) then
    return format('the errors count %s failed items, failed is %s', counted, coalesce(progress -> 'failed', '0'));
  end if;
  return null;
end
$$;

comment on function noetl.progress_fault(jsonb) is 'For report_progress: what is wrong with a report; null: nothing.';

-- The pace is a moving mean: what happened half a minute ago has a third of the weight.
create or replace function noetl.report_progress(
  queue_id bigint,
  worker_id text,
  attempt int,
  progress jsonb
) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  now_at timestamptz := clock_timestamp();
  fault text := noetl.progress_fault($4);
  now_ended float8;
begin
  if fault is not null then
    raise exception using errcode = 'NB400', message = format('report_progress of job %s: %s', $1, fault);
  end if;
  now_ended := ($4 -> 'done')::float8 + coalesce(($4 -> 'failed')::float8, 0);
  update noetl.queue q
  set progress = $4 || (
    select jsonb_build_object('attempt', $3, 'at', now_at, 'ended', now_ended,
      'pace', coalesce(b.pace + (p.pace - b.pace) * (1 - exp(-least(p.seconds / 30, 50))), p.pace))
    from (
      select case when (q.progress ->> 'attempt')::int = $3 then q.progress end as before
    ) o
    cross join lateral (
      select coalesce((o.before ->> 'at')::timestamptz, q.updated_at::timestamptz) as at,
        coalesce((o.before ->> 'ended')::float8, 0) as ended, (o.before ->> 'pace')::float8 as pace
    ) b
    cross join lateral (
      select t.seconds, greatest(now_ended - b.ended, 0) / t.seconds as pace
      from (select greatest(extract(epoch from now_at - b.at), 0.001)::float8 as seconds) t
    ) p
  )
  where q.queue_id = $1 and q.worker_id = $2 and q.attempts = $3 and q.status is not distinct from 'leased'
    and not q.stop;
  return found;
end
$$;

comment on function noetl.report_progress(bigint, text, int, jsonb) is
  'Keeps how far a leased job is: done, failed and total, and failed ones by type in errors. Returns false when the lease is not yours, or nobody wants the result: stop.';

revoke all on function
  noetl.is_count(jsonb), noetl.progress_fault(jsonb), noetl.report_progress(bigint, text, int, jsonb)
  from public;
