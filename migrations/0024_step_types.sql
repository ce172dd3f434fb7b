-- Step types: which ones the broker runs itself, and which ones people's own workers announce.
--
-- Registration alone reads noetl.step_type. A running broker takes every type that it does not run itself for an action.

create table if not exists noetl.step_type (
  name text primary key,
  added_at timestamptz not null default clock_timestamp(),
  added_by text not null default session_user
);

comment on table noetl.step_type is
  'Step types of people''s own workers. Registration accepts them beside the built-in ones.';
comment on column noetl.step_type.name is 'What `type` of a step says.';
comment on column noetl.step_type.added_at is 'When it was announced first.';
comment on column noetl.step_type.added_by is 'The login that announced it.';

-- Types that no worker gets jobs of.
create or replace function noetl.is_own_type(name text) returns boolean
language sql immutable parallel safe
as $$
  select $1 = any(array[
    'start', 'end', 'route', 'router', 'noop', 'workbook', 'playbook', 'iterator', 'wait', 'approval', 'signal', 'fail'
  ])
$$;

create or replace function noetl.announce_step_types(names text[]) returns int
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
  insert into noetl.step_type (name)
  select distinct n
  from unnest($1) n
  on conflict (name) do nothing;
  get diagnostics added = row_count;
  return added;
end
$$;

comment on function noetl.announce_step_types(text[]) is
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

revoke all on function
  noetl.is_own_type(text), noetl.announce_step_types(text[]), noetl.remove_step_types(text[])
  from public;
