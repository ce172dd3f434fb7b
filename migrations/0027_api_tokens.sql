-- Tokens of the HTTP API: who may read, and who may act.
--
-- The table has digests, so a reader of the table cannot sign in. A token has 32 random bytes; a plain digest of it is
-- enough. A revoked token stays: once there was a token, the API never again takes requests without one.

create table if not exists noetl.api_token (
  name text primary key check (name ~ '^[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}$'),
  digest bytea not null unique check (length(digest) = 32),
  role text not null check (role in ('viewer', 'producer', 'approver', 'author', 'operator')),
  created_at timestamptz not null default clock_timestamp(),
  created_by text not null,
  expires_at timestamptz,
  revoked_at timestamptz,
  revoked_by text
);

comment on table noetl.api_token is 'Tokens of the HTTP API, as digests. A revoked token stays.';
comment on column noetl.api_token.name is 'Who or what uses it.';
comment on column noetl.api_token.digest is 'SHA-256 of the token.';
comment on column noetl.api_token.role is
  'viewer: reads names, numbers, times, statuses; producer: starts, signals; approver: decides; author: registers; operator: all.';
comment on column noetl.api_token.created_at is 'When it was created.';
comment on column noetl.api_token.created_by is 'Who created it: login:NAME or token:NAME.';
comment on column noetl.api_token.expires_at is 'From when on it is refused; null: never.';
comment on column noetl.api_token.revoked_at is 'When it was revoked; null: it was not.';
comment on column noetl.api_token.revoked_by is 'Who revoked it.';

create or replace function noetl.create_api_token(
  name text, digest bytea, role text, valid interval default null, by text default null
)
returns timestamptz
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  ends timestamptz := clock_timestamp() + $4;
begin
  if $1 is null or $1 !~ '^[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}$' then
    raise exception using errcode = 'NB400',
      message = format('%L is no name of a token', left($1, 80)),
      hint = 'write a letter or digit, then letters, digits, _, ., @ and -; 63 characters at most';
  end if;
  if $3 is null or $3 not in ('viewer', 'producer', 'approver', 'author', 'operator') then
    raise exception using errcode = 'NB400',
      message = format('%L is no role of a token: take viewer, producer, approver, author or operator', $3);
  end if;
  if $4 <= interval '0' then
    raise exception using errcode = 'NB400', message = format('a token that is valid for %s is never valid', $4);
  end if;
  insert into noetl.api_token (name, digest, role, expires_at, created_by)
  values ($1, $2, $3, ends, noetl.caller_name($5));
  return ends;
exception when unique_violation then
  raise exception using errcode = 'NB409', message = format('there is a token %L already', $1),
    hint = 'take another name; a revoked token keeps its name';
end
$$;

comment on function noetl.create_api_token(text, bytea, text, interval, text) is
  'Adds a token of the HTTP API by its digest. Returns when it expires; null: never.';

create or replace function noetl.revoke_api_token(name text, by text default null) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  update noetl.api_token t
  set revoked_at = clock_timestamp(), revoked_by = noetl.caller_name($2)
  where t.name = $1 and t.revoked_at is null;
  if found then
    return true;
  end if;
  if not exists (select from noetl.api_token t where t.name = $1) then
    raise exception using errcode = 'NB404', message = format('there is no token %L', left($1, 80)),
      hint = 'noetl-broker token list lists them';
  end if;
  return false;
end
$$;

comment on function noetl.revoke_api_token(text, text) is
  'Revokes a token of the HTTP API. Returns false if it was revoked before. Raises NB404 if there is none.';

create or replace function noetl.check_api_token(digest bytea, out name text, out role text, out any_token boolean, out valid_token boolean)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  select t.name, t.role, exists (select from noetl.api_token),
    exists (
      select from noetl.api_token v
      where v.revoked_at is null and (v.expires_at is null or v.expires_at > clock_timestamp())
    )
  into name, role, any_token, valid_token
  from (select) one
  left join noetl.api_token t on t.digest = $1
    and t.revoked_at is null
    and (t.expires_at is null or t.expires_at > clock_timestamp());
end
$$;

comment on function noetl.check_api_token(bytea) is
  'The name and role of a valid token, null for any other digest; whether there ever was a token; whether one is valid.';

revoke all on function
  noetl.create_api_token(text, bytea, text, interval, text), noetl.revoke_api_token(text, text), noetl.check_api_token(bytea)
  from public;
