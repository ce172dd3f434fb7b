-- name: decide_approval
select noetl.decide_approval($1, $2, $3, $4, $5::text::jsonb, $6::text, $7::text);

-- name: list_approvals
select a.execution_id, a.node_id, a.step, a.path, a.title, a.details, a.form, a.fields, a.approvers, a.since, a.times_out_at
from noetl.pending_approvals a
where ($1::text is null or a.path like $1)
  and ($2::text is null or $2 = any(a.approvers))
  and ($3::bigint is null or a.execution_id = $3)
  and ($4::text is null or a.step = $4)
order by a.since, a.node_id
limit $5;

-- name: decision_of
select noetl.decision_of($1, $2, $3)::text;
