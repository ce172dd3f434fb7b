-- Throttles of jobs: how many jobs of a name and a key run at a time, and how many begin in a time.
--
-- A job with a throttle is held (`held_for` limit) until there is a slot for it. Only the jobs that have a slot are ready,
-- so any worker may lease any ready job. There are no counters: under the lock of the name and the key, the rows are
-- counted. Whoever frees a slot gives it to the next job in the same transaction. Nobody waits for the lock. A transaction
-- that does not get it leaves a request; a broker works on that after both commits.

create table if not exists noetl.limit (
  name text primary key,
  concurrency int check (concurrency >= 1),
  rate float8 check (rate > 0),
  burst int check (burst >= 1),
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  changed_by text,
  check (num_nonnulls(concurrency, rate) > 0),
  check (burst is null or rate is not null)
);

comment on table noetl.limit is 'Throttles of jobs, by the name in the throttle of steps. The row rules, not the playbook.';
comment on column noetl.limit.name is 'The name.';
comment on column noetl.limit.concurrency is 'How many jobs of one key may be leased at a time; null: any number.';
comment on column noetl.limit.rate is 'How many jobs of one key may begin in a second; null: any number.';
comment on column noetl.limit.burst is 'How many may begin at once after a pause; null: what 100 ms allow, at least 1.';
comment on column noetl.limit.created_at is 'When it was made.';
comment on column noetl.limit.updated_at is 'When its numbers were last changed.';
comment on column noetl.limit.changed_by is 'Who changed them last: login:NAME or token:NAME. Null: a playbook declared it.';

-- The bucket of a key with a rate. A key without a row has a full bucket.
create table if not exists noetl.throttle_bucket (
  name text not null,
  key text not null,
  full_at timestamptz not null,
  primary key (name, key)
);

comment on table noetl.throttle_bucket is 'When the bucket of a key of a throttle with a rate is full again.';
comment on column noetl.throttle_bucket.name is 'The throttle.';
comment on column noetl.throttle_bucket.key is 'The key.';
comment on column noetl.throttle_bucket.full_at is 'When `burst` jobs may begin at once again.';

create sequence if not exists noetl.release_request_seq;

create table if not exists noetl.release_request (
  request_id bigint primary key default noetl.next_number('noetl.release_request_seq'),
  name text not null,
  key text,
  due_at timestamptz not null default clock_timestamp(),
  begun_at timestamptz
);
create index if not exists release_request_key on noetl.release_request (name, key);
create index if not exists release_request_due on noetl.release_request (due_at);

comment on table noetl.release_request is 'Keys of throttles whose held jobs a broker still has to release: slots may be free.';
comment on column noetl.release_request.request_id is 'The order in which they were written.';
comment on column noetl.release_request.name is 'The throttle.';
comment on column noetl.release_request.key is 'The key; null: all keys that have jobs.';
comment on column noetl.release_request.due_at is 'When it is due: a job that is retried asks for a slot at its moment.';
comment on column noetl.release_request.begun_at is 'A job began then, and its bucket does not count it yet; null: none.';

-- How many jobs of a key may begin at once.
create or replace function noetl.burst_of(lim noetl.limit) returns int
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(lim.burst, greatest(1, floor(lim.rate * 0.1))::int)
$$;

create or replace function noetl.put_throttle(
  name text, concurrency int default null, rate float8 default null, burst int default null, by text default null
) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  is_new boolean;
begin
  if coalesce($1, '') = '' or length($1) > noetl.limit_of('name_chars') then
    raise exception using errcode = 'NB400', message = format('a throttle needs a name of 1 to %s characters; it is %s',
      noetl.limit_of('name_chars'), coalesce(quote_literal(left($1, 40)), 'null'));
  end if;
  if num_nonnulls($2, $3) = 0 then
    raise exception using errcode = 'NB400', message = format('throttle %s has neither a concurrency nor a rate', $1),
      hint = 'give one of them, or both; noetl.delete_throttle removes a throttle';
  end if;
  if $2 < 1 or $3 <= 0 or $3 > noetl.limit_of('rate') or $4 < 1 or ($4 is not null and $3 is null) then
    raise exception using errcode = 'NB400',
      message = format('throttle %s: concurrency %s, rate %s, burst %s', $1,
        coalesce($2::text, 'null'), coalesce($3::text, 'null'), coalesce($4::text, 'null')),
      hint = format('concurrency and burst are 1 or more, the rate is above 0 and at most %s a second, and a burst needs a rate',
        noetl.limit_of('rate'));
  end if;
  insert into noetl.limit as l (name, concurrency, rate, burst, changed_by)
  values ($1, $2, $3, $4, noetl.caller_name($5))
  on conflict (name) do update
  set concurrency = excluded.concurrency, rate = excluded.rate, burst = excluded.burst, updated_at = clock_timestamp(),
      changed_by = excluded.changed_by
  returning l.xmax = 0 into is_new;
  perform noetl.request_release($1, null, null);
  return is_new;
end
$$;

comment on function noetl.put_throttle(text, int, float8, int, text) is
  'Sets how many jobs of a key run at a time, and how many begin in a second. Returns whether the throttle is new.';

create or replace function noetl.delete_throttle(name text) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  delete from noetl.limit l
  where l.name = $1;
  if found then
    perform noetl.request_release($1, null, null);
  end if;
  return found;
end
$$;

comment on function noetl.delete_throttle(text) is
  'Removes a throttle: its held jobs run. The next job with a throttle of this name makes it anew. False: there is none.';

-- The throttle of a job that waits for a slot or for its moment: its numbers, and how many jobs have a slot. Also the executions
-- of some that are leased, and how many wait before this one, up to 1,000. No row for a job that waits for neither.
create or replace function noetl.throttle_wait(job noetl.queue)
returns table (concurrency int, rate float8, leased int, ready int, before int, holders bigint[])
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select l.concurrency, l.rate, p.leased, p.ready, (
    select count(*)::int
    from (
      select
      from noetl.queue q
      where q.limit_name = job.limit_name and q.limit_key = job.limit_key
        and q.status = 'held' and q.held_for = array['limit']
        and (-q.priority, q.available_at, q.queue_id) < (-job.priority, job.available_at, job.queue_id)
      limit 1000
    ) b
  ), array(
    select q.execution_id
    from noetl.queue q
    where q.limit_name = job.limit_name and q.limit_key = job.limit_key and q.status = 'leased'
    order by q.first_leased_at, q.queue_id
    limit 3
  )
  from noetl.limit l
  cross join lateral (
    select (count(*) filter (where q.status = 'leased'))::int as leased,
      (count(*) filter (where q.status <> 'leased'))::int as ready
    from noetl.queue q
    where q.limit_name = job.limit_name and q.limit_key = job.limit_key and q.status in ('queued', 'retry', 'leased')
  ) p
  where l.name = job.limit_name and (
    job.status = 'held' and 'limit' = any(job.held_for) or job.status in ('queued', 'retry') and job.available_at > now()
  )
$$;

revoke all on function
  noetl.burst_of(noetl.limit), noetl.put_throttle(text, int, float8, int, text), noetl.delete_throttle(text),
  noetl.throttle_wait(noetl.queue)
  from public;
