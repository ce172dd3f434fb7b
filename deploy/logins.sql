-- Logins in the roles of `noetl-broker migrate --roles`. Run it with psql as the owner. The passwords come from the variables
-- BROKER_PASSWORD, WORKER_PASSWORD, CONSOLE_PASSWORD and OPERATOR_PASSWORD; without one of the last two, its login is not made.
-- Run it again to change them.
\set ON_ERROR_STOP on
\getenv broker_password BROKER_PASSWORD
\getenv worker_password WORKER_PASSWORD
\getenv console_password CONSOLE_PASSWORD
\getenv operator_password OPERATOR_PASSWORD

select format('create role %I login in role %I', l.name, l.member_of)
from (
  values ('broker_1', 'noetl_broker'), ('worker_1', 'noetl_worker')
) l (name, member_of)
where to_regrole(l.name) is null
\gexec

alter role broker_1 password :'broker_password';
alter role worker_1 password :'worker_password';

-- The console acts as an operator. A login of its own tells in the events what came over it (`session_user`).
\if :{?console_password}
  select 'create role console_1 login in role noetl_operator'
  where to_regrole('console_1') is null
  \gexec
  alter role console_1 password :'console_password';
\endif

\if :{?operator_password}
  select 'create role operator_1 login in role noetl_operator'
  where to_regrole('operator_1') is null
  \gexec
  alter role operator_1 password :'operator_password';
\endif
