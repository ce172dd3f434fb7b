-- name: list_api_tokens
select t.name, t.role, t.created_at, t.created_by, t.expires_at, t.revoked_at,
  case
    when t.revoked_at is not null then 'revoked'
    when t.expires_at <= clock_timestamp() then 'expired'
    else 'valid'
  end as status
from noetl.api_token t
order by t.created_at, t.name;

-- name: check_api_token
select c.name, c.role, c.any_token, c.valid_token
from noetl.check_api_token($1::bytea) c;
