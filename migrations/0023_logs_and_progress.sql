-- What a worker reports of a job that it runs: its log, and how far it is.
--
-- Progress stands in the row of the job, which no index sees. So the update of a report is HOT if the page has room. No other
-- statement reads or writes more because of it.

-- noetl.log_job keeps the first and the last part of a log. `first_byte` counts what is missing too. So the gap between two
-- rows says how much that is.
create table if not exists noetl.log (
  execution_id bigint not null,
  node_id text not null,
  attempt int not null,
  ordinal int not null check (ordinal > 0),
  step text not null,
  level text not null check (level in ('debug', 'info', 'warning', 'error')),
  created_at timestamptz not null default clock_timestamp(),
  first_byte bigint not null check (first_byte >= 0),
  message text not null,
  primary key (execution_id, node_id, attempt, ordinal)
) partition by range (execution_id);

comment on table noetl.log is
  'What each attempt of a job printed or logged, without the secrets of its worker. At most 64 KiB an attempt: its first and its last part.';
comment on column noetl.log.execution_id is 'The execution.';
comment on column noetl.log.node_id is 'The visit or the item.';
comment on column noetl.log.attempt is 'The attempt: `attempts` of the job''s lease.';
comment on column noetl.log.ordinal is 'Its place in the log of the attempt, from 1.';
comment on column noetl.log.step is 'The step.';
comment on column noetl.log.level is 'debug, info, warning, error. What a step prints is info, on stdout and on stderr.';
comment on column noetl.log.created_at is 'When the database got it. The reference worker sends twice a second.';
comment on column noetl.log.first_byte is
  'How many bytes the attempt had printed before. A gap after the end of the row before is missing.';
comment on column noetl.log.message is
  'The text as it was printed, with its ends of lines. The end may be in the next row.';

create or replace function noetl.log_job(
  queue_id bigint,
  worker_id text,
  attempt int,
  level text,
  message text,
  first_byte bigint default null
) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  half constant int := noetl.limit_of('log_bytes') / 2;
  most_rows constant int := noetl.limit_of('log_rows') / 2;
  slack constant int := 8; -- an eighth of each bound: rows are deleted together, not with each message
  word text := lower($4);
  job record;
  last record;
  begins bigint;
  ends bigint;
  newest int;
begin
  if word not in ('debug', 'info', 'warning', 'error') or word is null or $5 is null or $6 < 0 then
    raise exception using errcode = 'NB400',
      message = format('log_job of job %s: level %s must be debug, info, warning or error, first_byte %s 0 or more or null, and the message a text',
        $1, coalesce(quote_literal(left($4, 80)), 'null'), coalesce($6::text, 'null'));
  end if;
  select q.execution_id, q.node_id, q.node_name
  into job
  from noetl.queue q
  where q.queue_id = $1 and q.worker_id = $2 and q.attempts = $3 and q.status is not distinct from 'leased';
  if not found then
    return noetl.is_elsewhere($1);
  end if;
  -- The threads of a worker may log at once.
  perform pg_advisory_xact_lock(hashtext('noetl.log_lock'), hashint8($1));
  select l.ordinal, l.first_byte + octet_length(l.message) as ends, l.created_at
  into last
  from noetl.log l
  where l.execution_id = job.execution_id and l.node_id = job.node_id and l.attempt = $3
  order by l.ordinal desc
  limit 1;
  if $6 < last.ends then
    return true; -- the worker repeats it, because it lost the first answer
  end if;
  if $6 is null and right($5, 1) <> chr(10) then
    message := message || chr(10); -- a message of its own, not a part of a stream
  end if;
  begins := coalesce($6, last.ends, 0);
  ends := begins + octet_length(message);
  insert into noetl.log (execution_id, node_id, attempt, ordinal, step, level, created_at, first_byte, message)
  select job.execution_id, job.node_id, $3, coalesce(last.ordinal, 0) + row_number() over (order by p.first_byte),
    job.node_name, word, greatest(clock_timestamp(), last.created_at), p.first_byte, p.part
  from noetl.log_parts(message, begins, 2 * half) p
  where ends <= 2 * half
    or p.first_byte + octet_length(p.part) <= half
    or p.first_byte >= ends - half;
  get diagnostics newest = row_count;
  newest := newest + coalesce(last.ordinal, 0);
  if ends > 2 * half and (ends - 1) * slack / half <> (coalesce(last.ends, 0) - 1) * slack / half
    or newest > 2 * most_rows and (newest - 1) * slack / most_rows <> (coalesce(last.ordinal, 0) - 1) * slack / most_rows
  then
    delete from noetl.log l
    where l.execution_id = job.execution_id and l.node_id = job.node_id and l.attempt = $3
      and (
        ends > 2 * half and l.first_byte + octet_length(l.message) > half and l.first_byte < ends - half + half / slack
        or l.ordinal > most_rows and l.ordinal <= newest - most_rows + most_rows / slack
      );
  end if;
  return true;
end
$$;

comment on function noetl.log_job(bigint, text, int, text, text, bigint) is
  'Adds to the log of a leased job. Levels: debug, info, warning, error. Returns false when the lease is not yours. `first_byte`, for parts of a stream: its place in it; a repeated part is added once.';

-- A message in parts of 4,000 characters, each with its place. A small row is deleted alone. So long messages are
-- divided. If a message is longer than the whole log may be, its middle is left out at once.
create or replace function noetl.log_parts(message text, begins bigint, most int)
returns table (first_byte bigint, part text)
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select (s.begins + sum(octet_length(p.part)) over (partition by s.begins order by p.n) - octet_length(p.part))::bigint,
    p.part
  from (
    select $2 as begins, $1 as message
    where octet_length($1) <= $3
    union all
    select $2, left($1, $3 / 2)
    where octet_length($1) > $3
    union all
    select $2 + octet_length($1) - octet_length(right($1, $3 / 2)), right($1, $3 / 2)
    where octet_length($1) > $3
  ) s
  cross join lateral (
    select n, substr(s.message, n * 4000 + 1, 4000) as part
    from generate_series(0, (length(s.message) - 1) / 4000) n
  ) p
$$;

-- Whether a value is a whole number from 0 to 10^15.
create or replace function noetl.is_count(value jsonb) returns boolean
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when jsonb_typeof($1) = 'number' then $1::numeric between 0 and 1000000000000000 and $1::numeric = trunc($1::numeric)
    else false
  end
$$;

-- What is wrong with a report; null: nothing.
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
  return found or noetl.is_elsewhere($1);
end
$$;

comment on function noetl.report_progress(bigint, text, int, jsonb) is
  'Keeps how far a leased job is: done, failed and total, and failed ones by type in errors. Returns false when the lease is not yours, or nobody wants the result: stop.';

revoke all on function
  noetl.log_job(bigint, text, int, text, text, bigint), noetl.log_parts(text, bigint, int), noetl.is_count(jsonb),
  noetl.progress_fault(jsonb), noetl.report_progress(bigint, text, int, jsonb)
  from public;
