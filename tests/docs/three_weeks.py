"""Three weeks of made executions, for pictures and measurements: a daily rhythm, a burst of failures, a faster version.

SQL writes the rows that a broker and workers would have left. Ids and times fit, events and turns are missing.
"""

from __future__ import annotations

from typing import Any

# The path, starts an hour, the median of seconds, the part that fails.
PLAYBOOKS = """(values ('orders/fulfil', 60, 9.0, 0.012), ('orders/refund', 14, 4.0, 0.03),
  ('mail/digest', 40, 0.8, 0.002), ('billing/invoice', 25, 2.0, 0.006), ('reports/nightly', 0, 900.0, 0.05))"""

CATALOG = """
insert into noetl.catalog (path, version, name, content)
select p.path, v.version, p.path, format($text$apiVersion: noetl.io/v1
kind: Playbook
metadata: {name: %%s, path: %%s}
workflow:
  - {step: start, next: reserve}
  - {step: reserve, type: python, code: 'def main(input_data): return {}', next: pack}
  - {step: pack, type: python, code: 'def main(input_data): return {}', next: notify}
  - {step: notify, type: python, code: 'def main(input_data): return {}', next: end}
  - {step: end}
$text$, replace(p.path, '/', '_'), p.path)
from %(playbooks)s p (path, rate, seconds, failing)
cross join (values (1), (2)) v (version)
where v.version = 1 or p.path = 'orders/fulfil'
"""

EXECUTIONS = """
insert into noetl.execution (execution_id, path, version, status, started_at, ended_at, workload, result, error)
select noetl.first_id_at(m.at) | (row_number() over (order by m.at) & 1048575), m.path, m.version,
  case when m.ended_at > now() then 'RUNNING' when m.error is null then 'COMPLETED' else 'FAILED' end,
  m.at, case when m.ended_at <= now() then m.ended_at end, '{"order": 7}', '{}',
  case when m.ended_at <= now() then m.error end
from (
  select n.path, n.at, v.version,
    n.at + make_interval(secs => n.took * case when v.version = 2 then 0.45 else 1 end) as ended_at,
    case when random() < n.failing then case when n.is_burst or random() < 0.6
      then '{"type": "ConnectionError", "step": "pack", "message": "no route to host"}'::jsonb
      else '{"type": "ValueError", "step": "reserve", "message": "no such item"}'::jsonb end end as error
  from (
    select p.path, h.hour + random() * interval '1 hour' as at,
      p.seconds * exp(0.5 * sqrt(-2 * ln(1 - random())) * cos(6.2831853 * random())) as took,
      case when h.is_burst and p.path like 'orders/%%' then 0.4 else p.failing end as failing, h.is_burst
    from (
      select t.hour,
        t.hour between b.at and b.at + interval '5 hours' as is_burst,
        (1.05 + 0.9 * sin((extract(hour from t.hour) - 8) * 3.14159 / 12))
          * case when extract(isodow from t.hour) > 5 then 0.35 else 1 end as rhythm
      from generate_series(
        date_trunc('hour', now() - interval '21 days'), now() - interval '1 second', interval '1 hour'
      ) t (hour)
      cross join (select date_trunc('day', now() - interval '6 days') + interval '12 hours' as at) b
    ) h
    cross join %(playbooks)s p (path, rate, seconds, failing)
    cross join lateral generate_series(1, (p.rate * %(scale)s * h.rhythm * (0.85 + 0.3 * random()))::int
      + case when p.path = 'reports/nightly' and extract(hour from h.hour) = 2 then 1 else 0 end)
  ) n
  cross join lateral (
    select case
      when n.path = 'orders/fulfil' and n.at > date_trunc('day', now() - interval '8 days') + interval '10 hours'
      then 2 else 1 end as version
  ) v
  where n.at < now()
) m
"""

STEPS = """
insert into noetl.workflow (execution_id, step_id, step_name, step_type, ordinal, status, visits, started_at,
  ended_at)
select x.execution_id, s.step, s.step, 'python', s.ordinal,
  case when x.error ->> 'step' = s.step then 'FAILED'
    when x.ended_at is null and s.ordinal = 3 then 'RUNNING' else 'COMPLETED' end, 1,
  x.started_at + (coalesce(x.ended_at, now()) - x.started_at) * s.since,
  case when x.ended_at is not null or s.ordinal < 3
    then x.started_at + (coalesce(x.ended_at, now()) - x.started_at) * s.until end
from noetl.execution x
cross join (values ('reserve', 1, 0.0, 0.15), ('pack', 2, 0.15, 0.85), ('notify', 3, 0.85, 1.0))
  s (step, ordinal, since, until)
where not (x.error ->> 'step' = 'reserve' and s.ordinal > 1)
    and not (x.error ->> 'step' = 'pack' and s.ordinal > 2)
  or x.error is null
"""

JOBS = """
insert into noetl.queue (queue_id, execution_id, node_id, node_name, node_type, action, status, attempts, max_attempts,
  created_at, available_at, first_leased_at, updated_at)
select w.execution_id + w.ordinal, w.execution_id, w.execution_id || ':' || w.step_name, w.step_name, 'python', '{}',
  case w.status when 'COMPLETED' then 'done' when 'RUNNING' then 'leased' else 'dead' end,
  case when random() < 0.04 then 2 else 1 end, 3, w.started_at, w.started_at,
  w.started_at + coalesce(w.ended_at - w.started_at, interval '1 second') * 0.1 * random(),
  coalesce(w.ended_at, w.started_at)
from noetl.workflow w
"""


async def fill(connection: Any, *, scale: float = 1.0) -> None:
    """Write about 47,000 executions of five playbooks, or `scale` times as many, with three jobs each."""
    for text in (CATALOG, EXECUTIONS, STEPS, JOBS):
        await connection.execute(text % {"playbooks": PLAYBOOKS, "scale": scale}, timeout=1200)
    for table in ("execution", "workflow", "queue"):
        await connection.execute(f"vacuum analyze noetl.{table}", timeout=1200)
