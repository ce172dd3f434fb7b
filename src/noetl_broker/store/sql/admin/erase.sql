-- name: erased_at
select x.erased_at
from noetl.execution x
where x.execution_id = $1::bigint;

-- name: count_erased
-- The executions of a filter whose values were erased.
select count(*)
from noetl.execution x
left join noetl.execution_state s on s.execution_id = x.execution_id
where x.erased_at is not null
  and {part.chosen}
  and {part.changed_since};

-- name: list_erased
-- Which of these executions were erased.
select x.execution_id, x.erased_at is not null as erased
from noetl.execution x
where x.execution_id = any($1::bigint[]);
