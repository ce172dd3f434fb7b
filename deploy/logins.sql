-- Logins for brokers and workers, in the roles that `noetl-broker migrate --roles` has made. For psql, as the owner:
-- the passwords come from the variables BROKER_PASSWORD and WORKER_PASSWORD. It may be run again, with new passwords.
\set ON_ERROR_STOP on
\getenv broker_password BROKER_PASSWORD
\getenv worker_password WORKER_PASSWORD

select format('create role %I login in role %I', l.name, l.member_of)
from (
  values ('broker_1', 'noetl_broker'), ('worker_1', 'noetl_worker')
) l (name, member_of)
where to_regrole(l.name) is null
\gexec

alter role broker_1 password :'broker_password';
alter role worker_1 password :'worker_password';
