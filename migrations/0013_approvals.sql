-- Approvals: what waits for a person, the decision, and the check of a filled form.
--
-- The functions that check values are twins of playbook/value_schema.py. Schemas are checked at registration and when an
-- approval begins, so these functions know only the keywords of that module. A test compares both over random schemas.

-- A value as a message shows it.
create or replace function noetl.shown_value(value jsonb) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case jsonb_typeof($1)
    when 'string' then '''' || left($1 #>> '{}', 60) || case when length($1 #>> '{}') > 60 then '''…' else '''' end
    when 'object' then 'a mapping of ' || (select count(*) from jsonb_object_keys($1))
    when 'array' then 'a list of ' || jsonb_array_length($1)
    when 'number' then case when length($1::text) > 72 then 'a number of many digits' else $1::text end
    else $1::text
  end
$$;

-- The path of a part: `items[0].price`.
create or replace function noetl.part_path(path text, key text) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when $2 !~ '^[a-zA-Z0-9_-]+$' then format('%s[''%s'']', $1, $2)
    when $1 = '' then $2
    else $1 || '.' || $2
  end
$$;

create or replace function noetl.part_path(path text, index bigint) returns text
language sql immutable parallel safe
as $$ select format('%s[%s]', $1, $2) $$;

-- A fault as text: its path, cut where it is long, and what is wrong there.
create or replace function noetl.fault_at(path text, message text) returns text
language sql immutable parallel safe
as $$ select left($1, 200) || case when length($1) > 200 then '…: ' else ': ' end || $2 $$;

-- Whether a value has one of these types of JSON Schema.
create or replace function noetl.has_json_type(value jsonb, types jsonb) returns boolean
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when jsonb_typeof($1) = 'number' then $2 @> '"number"' or ($2 @> '"integer"' and trunc(($1)::numeric) = ($1)::numeric)
    else $2 @> to_jsonb(jsonb_typeof($1))
  end
$$;

-- Faults of a count: of characters, items or keys. `word` ends the keywords: minLength, maxItems.
create or replace function noetl.faults_of_count(schema jsonb, path text, word text, what text, count int) returns text[]
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select array_remove(array[
    case when $5 < ($1 -> ('min' || $3))::numeric
      then noetl.fault_at($2, format('has %s %s, the least is %s', $5, $4, trunc(($1 -> ('min' || $3))::numeric))) end,
    case when $5 > ($1 -> ('max' || $3))::numeric
      then noetl.fault_at($2, format('has %s %s, the most is %s', $5, $4, trunc(($1 -> ('max' || $3))::numeric))) end
  ], null)
$$;

-- How a number breaks a schema.
create or replace function noetl.faults_of_number(schema jsonb, path text, value numeric) returns text[]
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select array(
    select noetl.fault_at($2, format('is %s, %s %s', noetl.shown_value(to_jsonb($3)), r.words, noetl.shown_value($1 -> r.keyword)))
    from (values
      (1, 'minimum', $3 < ($1 -> 'minimum')::numeric, 'the least is'),
      (2, 'maximum', $3 > ($1 -> 'maximum')::numeric, 'the most is'),
      (3, 'exclusiveMinimum', $3 <= ($1 -> 'exclusiveMinimum')::numeric, 'it must be more than'),
      (4, 'exclusiveMaximum', $3 >= ($1 -> 'exclusiveMaximum')::numeric, 'it must be less than'),
      (5, 'multipleOf', $3 % ($1 -> 'multipleOf')::numeric <> 0, 'it must be a multiple of')
    ) r (ordinal, keyword, is_broken, words)
    where r.is_broken
    order by r.ordinal
  )
$$;

-- Faults against `type`, `const` and `enum`.
create or replace function noetl.faults_of_equality(schema jsonb, path text, value jsonb) returns text[]
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select array_remove(array[
    case when $1 ? 'type' and not noetl.has_json_type($3, case jsonb_typeof($1 -> 'type')
        when 'array' then $1 -> 'type' else jsonb_build_array($1 -> 'type') end)
      then noetl.fault_at($2, format('is %s, it must be %s', noetl.shown_value($3), case jsonb_typeof($1 -> 'type')
        when 'array' then (
          select string_agg(t.name, ' or ' order by t.ordinal)
          from jsonb_array_elements_text($1 -> 'type') with ordinality t (name, ordinal)
        ) else $1 ->> 'type' end)) end,
    case when $1 ? 'const' and $1 -> 'const' <> $3
      then noetl.fault_at($2, format('is %s, it must be %s', noetl.shown_value($3), noetl.shown_value($1 -> 'const'))) end,
    case when $1 ? 'enum' and not exists (select from jsonb_array_elements($1 -> 'enum') e (value) where e.value = $3)
      then noetl.fault_at($2, format('is %s, it must be one of %s%s', noetl.shown_value($3), (
        select string_agg(noetl.shown_value(e.value), ', ' order by e.ordinal)
        from jsonb_array_elements($1 -> 'enum') with ordinality e (value, ordinal)
        where e.ordinal <= 10
      ), case when jsonb_array_length($1 -> 'enum') > 10 then ', …' end)) end
  ], null)
$$;

-- Faults of a value, those of its parts after its own. `steps` are left; below 0 the check was too long, and the faults
-- say nothing. More than 20 faults are not looked for.
create or replace function noetl.check_value(
  schema jsonb, path text, value jsonb, inout steps int, out faults text[]
)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  inner_faults text[];
begin
  faults := '{}';
  if jsonb_typeof($1) = 'boolean' then
    steps := steps - 1;
    if $1 = 'false' then
      faults := array[noetl.fault_at($2, 'is not allowed')];
    end if;
    return;
  end if;
  steps := steps - 1 - (select count(*) from jsonb_object_keys($1)) - coalesce(jsonb_array_length($1 -> 'enum'), 0);
  if steps < 0 then
    return;
  end if;
  faults := noetl.faults_of_equality($1, $2, $3);
  case jsonb_typeof($3)
    when 'number' then
      faults := faults || noetl.faults_of_number($1, $2, ($3)::numeric);
    when 'string' then
      faults := faults || noetl.faults_of_count($1, $2, 'Length', 'characters', length($3 #>> '{}'));
    when 'array' then
      select c.steps, c.faults into steps, inner_faults from noetl.check_list($1, $2, $3, steps) c;
      faults := faults || inner_faults;
    when 'object' then
      select c.steps, c.faults into steps, inner_faults from noetl.check_mapping($1, $2, $3, steps) c;
      faults := faults || inner_faults;
    else
      null;
  end case;
  if $1 ?| array['allOf', 'anyOf', 'oneOf', 'not'] then
    select c.steps, c.faults into steps, inner_faults from noetl.check_alternatives($1, $2, $3, steps) c;
    faults := faults || inner_faults;
  end if;
end
$$;

-- A list, for check_value.
create or replace function noetl.check_list(schema jsonb, path text, value jsonb, inout steps int, out faults text[])
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  part record;
  prefix int := coalesce(jsonb_array_length($1 -> 'prefixItems'), 0);
  inner_faults text[];
begin
  faults := noetl.faults_of_count($1, $2, 'Items', 'items', jsonb_array_length($3));
  if $1 -> 'uniqueItems' = 'true' then
    faults := faults || array(
      select noetl.fault_at(noetl.part_path($2, d.ordinal - 1),
        format('is the same as item %s, each may be there once', d.first - 1))
      from (
        select i.ordinal, min(i.ordinal) over (partition by i.value) as first
        from jsonb_array_elements($3) with ordinality i (value, ordinal)
      ) d
      where d.ordinal > d.first
      order by d.ordinal
      limit 1
    );
  end if;
  for part in
    select i.value, i.ordinal - 1 as index, case when i.ordinal <= prefix then $1 -> 'prefixItems' -> (i.ordinal - 1)::int else $1 -> 'items' end as schema
    from jsonb_array_elements($3) with ordinality i (value, ordinal)
    where i.ordinal <= prefix or $1 -> 'items' is distinct from 'true'
    order by i.ordinal
  loop
    exit when part.schema is null or steps < 0 or cardinality(faults) > 20;
    select c.steps, c.faults into steps, inner_faults
    from noetl.check_value(part.schema, noetl.part_path($2, part.index), part.value, steps) c;
    faults := faults || inner_faults;
  end loop;
end
$$;

-- A mapping, for check_value.
create or replace function noetl.check_mapping(schema jsonb, path text, value jsonb, inout steps int, out faults text[])
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  part record;
  others jsonb := coalesce($1 -> 'additionalProperties', 'true');
  known jsonb := coalesce($1 -> 'properties', '{}');
  inner_faults text[];
begin
  steps := steps - coalesce(jsonb_array_length($1 -> 'required'), 0);
  faults := noetl.faults_of_count($1, $2, 'Properties', 'keys', (select count(*)::int from jsonb_object_keys($3)))
    || array(
      select noetl.fault_at(noetl.part_path($2, m.name), 'is missing')
      from (
        select r.name, min(r.ordinal) as ordinal
        from jsonb_array_elements_text($1 -> 'required') with ordinality r (name, ordinal)
        where not $3 ? r.name
        group by r.name
      ) m
      order by m.ordinal
    );
  for part in
    select e.key, e.value, coalesce(known -> e.key, others) as schema
    from jsonb_each($3) e
    where known ? e.key or others <> 'true'
  loop
    exit when steps < 0 or cardinality(faults) > 20;
    select c.steps, c.faults into steps, inner_faults
    from noetl.check_value(part.schema, noetl.part_path($2, part.key), part.value, steps) c;
    faults := faults || inner_faults;
  end loop;
end
$$;

-- `allOf`, `anyOf`, `oneOf` and `not`, for check_value.
create or replace function noetl.check_alternatives(
  schema jsonb, path text, value jsonb, inout steps int, out faults text[]
)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  part record;
  fitting jsonb := '{"anyOf": 0, "oneOf": 0, "not": 0}';
  inner_faults text[];
begin
  faults := '{}';
  for part in
    select w.word, s.schema
    from unnest(array['allOf', 'anyOf', 'oneOf', 'not']) with ordinality w (word, ordinal)
    cross join lateral jsonb_array_elements(
      case w.word when 'not' then jsonb_build_array($1 -> w.word) else $1 -> w.word end
    ) with ordinality s (schema, ordinal)
    where $1 ? w.word
    order by w.ordinal, s.ordinal
  loop
    exit when steps < 0 or cardinality(faults) > 20;
    select c.steps, c.faults into steps, inner_faults from noetl.check_value(part.schema, $2, $3, steps) c;
    if part.word = 'allOf' then
      faults := faults || inner_faults;
    elsif cardinality(inner_faults) = 0 then
      fitting := jsonb_set(fitting, array[part.word], to_jsonb((fitting -> part.word)::int + 1));
    end if;
  end loop;
  faults := faults || array_remove(array[
    case when $1 ? 'anyOf' and fitting -> 'anyOf' = '0' then noetl.fault_at($2, format('is %s, it fits none of the %s schemas of `anyOf`',
      noetl.shown_value($3), jsonb_array_length($1 -> 'anyOf'))) end,
    case when $1 ? 'oneOf' and fitting -> 'oneOf' <> '1' then noetl.fault_at($2,
      format('is %s, it fits %s of the %s schemas of `oneOf`, it must fit one',
        noetl.shown_value($3), coalesce(nullif(fitting ->> 'oneOf', '0'), 'none'), jsonb_array_length($1 -> 'oneOf'))) end,
    case when $1 ? 'not' and fitting -> 'not' = '1'
      then noetl.fault_at($2, format('is %s, it fits the schema under `not`', noetl.shown_value($3))) end
  ], null);
end
$$;

-- How a value breaks a JSON Schema: at most 20 faults, each with its path.
create or replace function noetl.faults_of_value(schema jsonb, value jsonb, most_steps int default 20000) returns text[]
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  checked record;
begin
  select c.steps, c.faults into checked from noetl.check_value($1, '', $2, $3) c;
  if checked.steps < 0 then
    return array[noetl.fault_at('',
      format('cannot be checked in %s steps: make the schema simpler, or the value smaller', $3))];
  end if;
  if cardinality(checked.faults) > 20 then
    return checked.faults[:20] || noetl.fault_at('', 'has more faults than the 20 that are listed');
  end if;
  return checked.faults;
end
$$;

-- The JSON Schema of a filled form. `required: true` of a field counts for an approval alone.
create or replace function noetl.schema_of_form(form jsonb, approved boolean) returns jsonb
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'type', 'object',
    'properties', '{"comment": {"type": ["string", "null"]}}' || coalesce(jsonb_object_agg(f.name, case jsonb_typeof(f.schema -> 'required')
      when 'boolean' then f.schema - 'required' else f.schema end), '{}'),
    'required', coalesce(jsonb_agg(f.name) filter (where $2 and f.schema -> 'required' = 'true'), '[]'),
    'additionalProperties', false
  )
  from jsonb_each($1) f (name, schema)
$$;

-- The filled form with all fields: those that were left out have their default, or null.
create or replace function noetl.complete_form(form jsonb, filled jsonb) returns jsonb
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select '{"comment": null}' || coalesce(jsonb_object_agg(f.name, coalesce(f.schema -> 'default', 'null')), '{}') || $2
  from jsonb_each($1) f (name, schema)
$$;

-- The checks of decide_approval that need no table.
create or replace function noetl.check_decision(approved boolean, decided_by text, form jsonb) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if $1 is null then
    raise exception using errcode = 'NB400', message = 'decide_approval needs true or false for `approved`, not null',
      hint = 'select noetl.decide_approval(execution_id, node_id, true) from noetl.pending_approvals';
  end if;
  if length($2) > noetl.limit_of('node_chars') then
    raise exception using errcode = 'NB400',
      message = format('decided_by has %s characters; the limit is %s', length($2), noetl.limit_of('node_chars')),
      hint = 'pass a name or an address';
  end if;
  if jsonb_typeof(coalesce($3, '{}')) <> 'object' then
    raise exception using errcode = 'NB400',
      message = format('the form is a JSON %s; it must be an object', jsonb_typeof($3)),
      hint = 'name the fields: {"comment": "fine"}';
  end if;
  if octet_length($3::text) > noetl.limit_of('form_bytes') then
    raise exception using errcode = 'NB400',
      message = format('the form takes %s bytes; the limit is %s', octet_length($3::text), noetl.limit_of('form_bytes')),
      hint = 'store large data elsewhere and pass its address';
  end if;
  if $3 @? '$.**{100}' then
    raise exception using errcode = 'NB400', message = 'the form nests deeper than 100 levels',
      hint = 'pass deep data as text';
  end if;
end
$$;

-- Whether `approvers` of an approval names the caller. Empty: whoever may decide. `by`: a login, or whom the console names. Of
-- these, `role` is the role, if the session's login may act for others (see `caller_name`). Any other login has the roles that it
-- is a member of, and the owner of the schema has each.
create or replace function noetl.is_approver(approvers text[], by text default null, role text default null) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select $1 = '{}' or noetl.caller_name($2) = any($1) or case
    when $2 is null or not has_function_privilege(session_user, 'noetl.pause_path(text, text, text)', 'execute') then
      pg_has_role(session_user, (select n.nspowner from pg_namespace n where n.nspname = 'noetl'), 'member')
      or exists (
        select
        from unnest($1) a (name)
        join pg_roles r on r.rolname in (a.name, 'noetl_' || a.name)
        where pg_has_role(session_user, r.oid, 'member')
      )
    else coalesce($3 = any($1), false)
  end
$$;

-- Who may call it: the roles of deploy/roles.sql; and of these, the approvers that the playbook names.
create or replace function noetl.decide_approval(
  execution_id bigint,
  node_id text,
  approved boolean,
  decided_by text default null,
  form jsonb default null,
  by text default null,
  role text default null
) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  waiting record;
  approvers text[];
  faults text[];
begin
  perform noetl.check_decision($3, $4, $5);
  -- The row is locked first, in a statement of its own: the next ones see what another decision or a turn wrote.
  perform from noetl.wait w where w.execution_id = $1 and w.node_id = $2 and w.kind = 'approval' for update;
  select w.step, w.status, w.details into waiting
  from noetl.wait w
  where w.execution_id = $1 and w.node_id = $2 and w.kind = 'approval';
  if not found then
    perform noetl.is_elsewhere($1);
    raise exception using errcode = 'NB404',
      message = format('execution %s has no approval %s', $1, left($2, 200)),
      hint = 'noetl-broker approvals lists what waits for a decision';
  end if;
  approvers := array(select jsonb_array_elements_text(waiting.details -> 'approvers'));
  if not noetl.is_approver(approvers, $6, $7) then
    raise exception using errcode = 'NB403',
      message = format('%s may not decide %s: its approvers are %s', noetl.caller_name($6), $2, array_to_string(approvers, ', ')),
      hint = 'one of them decides; `approvers` of the step names them';
  end if;
  if waiting.status <> 'open' then
    return false;
  end if;
  faults := noetl.faults_of_value(noetl.schema_of_form(waiting.details -> 'form', $3), coalesce($5, '{}'));
  if faults <> '{}' then
    raise exception using errcode = 'NB400',
      message = format('the form of %s does not fit: %s', $2, array_to_string(faults, '; ')),
      hint = 'noetl-broker approvals --json shows the fields of the form, as does noetl.pending_approvals';
  end if;
  -- Whoever deletes the timer is first: this decision, or the broker that fires it.
  if waiting.details ? 'times_out_at' then
    delete from noetl.timer t
    where t.execution_id = $1 and t.node_id = $2 and t.purpose = 'timeout';
    if not found then
      return false;
    end if;
  end if;
  update noetl.wait w
  set status = 'signalled'
  where w.execution_id = $1 and w.node_id = $2;
  perform set_config('noetl.writer', '', true);
  insert into noetl.event (execution_id, event_type, node_id, node_name, node_type, status, context)
  values (
    $1, 'approval_decided', $2, waiting.step, 'approval', 'RUNNING',
    jsonb_strip_nulls(jsonb_build_object('decided_by', $4)) || jsonb_build_object(
      'approved', $3, 'by', noetl.caller_name($6),
      'at', to_char(clock_timestamp(), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
      'form', noetl.complete_form(waiting.details -> 'form', coalesce($5, '{}'))
    )
  );
  return true;
end
$$;

comment on function noetl.decide_approval(bigint, text, boolean, text, jsonb, text, text) is
  'Approves or rejects what waits for a person. Returns false when it was decided or timed out before. `decided_by`: a name beside that of the login. A form that breaks its schema is NB400.';

create or replace function noetl.decision_of(execution_id bigint, step text, visit int default null) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return jsonb_build_object(
    'is_execution', exists (select from noetl.execution x where x.execution_id = $1),
    'is_step', exists (select from noetl.workflow s where s.execution_id = $1 and s.step_name = $2),
    'approvers', (
      select w.details -> 'approvers'
      from noetl.wait w
      where w.execution_id = $1 and w.step = $2 and w.kind = 'approval' and w.status = 'open'
        and ($3 is null or w.node_id = noetl.node_id($1, $2, $3))
      limit 1
    ),
    'decision', (
      select noetl.as_json(e.context) - 'form'
      from noetl.event e
      where e.execution_id = $1
        and e.event_type = 'approval_decided'
        and e.node_name = $2
        and ($3 is null or e.node_id = noetl.node_id($1, $2, $3))
      order by e.event_id desc
      limit 1
    )
  );
end
$$;

comment on function noetl.decision_of(bigint, text, int) is
  'Whether the execution and the step exist; the last decision of the step or of its visit; the approvers, if it waits.';

-- A timer that fired and whose turn is not taken yet is gone from its table.
create or replace view noetl.pending_approvals as
select w.execution_id, w.node_id, w.step, x.path, w.details ->> 'title' as title,
  nullif(w.details -> 'details', 'null') as details, w.details -> 'form' as form, a.approvers,
  w.began_at as since, t.due_at as times_out_at,
  array(select jsonb_array_elements_text(w.details -> 'fields')) as fields
from noetl.wait w
join noetl.execution x on x.execution_id = w.execution_id
left join noetl.timer t on t.execution_id = w.execution_id and t.node_id = w.node_id and t.purpose = 'timeout'
cross join lateral (select array(select jsonb_array_elements_text(w.details -> 'approvers')) as approvers) a
where w.kind = 'approval' and w.status = 'open' and (t.due_at is not null or not w.details ? 'times_out_at')
  -- an approver sees what it may decide, others who read the table see all
  and (has_table_privilege('noetl.wait'::regclass, 'select') or noetl.is_approver(a.approvers));

comment on view noetl.pending_approvals is
  'What waits for a person: decide with noetl.decide_approval. `fields` has the names of a form with several, in their order. '
  '`times_out_at` is null where it waits without end. A login with noetl_approver alone sees what it may decide.';

revoke all on function
  noetl.shown_value(jsonb), noetl.part_path(text, text), noetl.part_path(text, bigint), noetl.fault_at(text, text),
  noetl.has_json_type(jsonb, jsonb), noetl.faults_of_count(jsonb, text, text, text, int),
  noetl.faults_of_number(jsonb, text, numeric), noetl.faults_of_equality(jsonb, text, jsonb),
  noetl.check_value(jsonb, text, jsonb, int), noetl.check_list(jsonb, text, jsonb, int),
  noetl.check_mapping(jsonb, text, jsonb, int), noetl.check_alternatives(jsonb, text, jsonb, int),
  noetl.faults_of_value(jsonb, jsonb, int), noetl.schema_of_form(jsonb, boolean), noetl.complete_form(jsonb, jsonb),
  noetl.check_decision(boolean, text, jsonb), noetl.is_approver(text[], text, text), noetl.decide_approval(bigint, text, boolean, text, jsonb, text, text),
  noetl.decision_of(bigint, text, int)
  from public;
