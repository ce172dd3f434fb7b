-- Logs: what an attempt of a job prints or logs, kept with the attempt. noetl.log has the rows.

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
    return false;
  end if;
  -- The threads of a worker may log at once.
  perform pg_advisory_xact_lock(1852794229, hashint8($1));
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

-- A small row is deleted alone. So long messages are divided. If a message is longer than the whole log may be, its middle
-- is left out at once.
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

comment on function noetl.log_parts(text, bigint, int) is
  'For log_job: a message in parts of 4,000 characters, each with its place. Of one of more bytes than `most`, the two ends.';

revoke all on function
  noetl.log_job(bigint, text, int, text, text, bigint), noetl.log_parts(text, bigint, int)
  from public;
