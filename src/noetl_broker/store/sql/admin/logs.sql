-- name: list_log
-- Rows of the log of an execution by time: of the step $2, and of the nodes $3 or of those that begin with $4 (null: all). They
-- come after the row of the key $5 to $8 (null: from the first one), and after the ordinals $10 to $12 of some attempts. The
-- times of an attempt do not fall, so the rows of each come in their order.
{part.log}
left join unnest($10::text[], $11::int[], $12::int[]) k (node_id, attempt, ordinal)
  on k.node_id = l.node_id and k.attempt = l.attempt
where l.execution_id = $1::bigint
  and ($2::text is null or l.step = $2)
  and ($3::text[] is null or l.node_id = any($3) or l.node_id ^@ $4::text)
  and ($5::timestamptz is null or (l.created_at, l.node_id, l.attempt, l.ordinal) > ($5, $6::text, $7::int, $8::int))
  and l.ordinal > coalesce(k.ordinal, 0)
order by l.created_at, l.node_id, l.attempt, l.ordinal
limit $9::int;

-- name: list_newest_log
-- The last rows of the same log, the latest first.
{part.log}
where l.execution_id = $1::bigint
  and ($2::text is null or l.step = $2)
  and ($3::text[] is null or l.node_id = any($3) or l.node_id ^@ $4::text)
order by l.created_at desc, l.node_id desc, l.attempt desc, l.ordinal desc
limit $5::int;
