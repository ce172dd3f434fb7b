-- Conditions that several statements share. `{part.chosen}` in a statement stands for the text below its name. Its tables are
-- x, an execution, and s, its state. `{part.not_archived s}` stands for the text with `s` in place of `{id}`.
--
-- chosen: the filters of commands by path, status, error, step, time of the start, and version
-- changed_since: those by the last change, since a moment or for so many seconds
-- not_archived: whether the rows of an execution are in the tables of history

-- name: chosen
($1::text is null or x.path like $1 and ($1 like '%#%' or x.path not like '%#%'))
  and ($2::text is null or x.status = $2)
  and ($3::text is null or nullif(concat_ws(': ', x.error ->> 'type', x.error ->> 'message'), '') ilike $3)
  and ($4::text is null or x.error ->> 'step' = $4)
  and ($7::timestamptz is null or x.started_at <= $7)
  and ($8::float8 is null or x.started_at <= clock_timestamp() - make_interval(secs => $8))
  and ($9::int is null or x.version = $9)

-- name: changed_since
($5::timestamptz is null or greatest(x.started_at, s.last_at) >= $5)
  and ($6::float8 is null or greatest(x.started_at, s.last_at) >= clock_timestamp() - make_interval(secs => $6))

-- name: not_archived
not exists (
    select
    from noetl.period p
    where p.first_id <= {id}.execution_id and {id}.execution_id < p.next_id and p.archived_at is not null
  )
  and not exists (select from noetl.archived a where a.execution_id = {id}.execution_id)
