"""Documents with their findings: below each document a line `=> line:column severity code path: message (hint)`.

Lines and columns count from the first line of the document in the table.
"""

# ruff: noqa: E501 - lines of findings

from __future__ import annotations

from collections.abc import Iterator
from textwrap import dedent
from typing import NamedTuple

FOUND = "=> "


class Case(NamedTuple):
    """A document, or the keys of a step, and its findings."""

    text: str
    findings: list[str]


def cases(table: str) -> Iterator[Case]:
    """Return the documents of a table: each ends where its findings end, or, without a finding, with its line."""
    lines: list[str] = []
    findings: list[str] = []
    for line in [*dedent(table).strip("\n").splitlines(), ""]:
        if line.startswith(FOUND):
            findings.append(line.removeprefix(FOUND))
            continue
        if lines and (findings or not line):
            yield Case("\n".join(lines) + "\n", findings)
            lines, findings = [], []
        lines.append(line)


# By what they say: each a whole document.
DOCUMENTS: dict[str, str] = {
    "all missing keys are reported at once: each has its own error": """
        name: x
        => 1:1 error missing-key : the playbook has no `apiVersion` (write apiVersion: noetl.io/v1)
        => 1:1 error missing-key : the playbook has no `kind` (write kind: Playbook)
        => 1:1 error missing-key : the playbook has no `workflow` (write workflow: [{step: start, next: …}])
    """,
    "wrong api version kind and name are refused: the error has the expected value": """
        apiVersion: noetl/v1
        kind: Workflow
        metadata: {name: 3}
        workflow: [{step: start}]
        => 1:13 error wrong-value apiVersion: `apiVersion` is noetl/v1, not noetl.io/v1 (write apiVersion: noetl.io/v1)
        => 2:7 error wrong-value kind: `kind` is Workflow, not Playbook (write kind: Playbook)
        => 3:18 error wrong-type metadata.name: `name` is a number (write name: a name)
    """,
    "a playbook of another language has one finding: its keys are not read": """
        apiVersion: noetl.io/v2
        kind: Playbook
        metadata: {name: x, hooks: []}
        keychain: []
        workflow:
          - step: start
            tool: {kind: python, args: {}, code: x}
            next: {spec: {mode: exclusive}, arcs: [{step: end, set: {a: 1}}]}
        => 1:13 error wrong-value apiVersion: the language noetl.io/v2 is not read, only noetl.io/v1 (rewrite the playbook as noetl.io/v1: its keys are others)
    """,
    "a playbook without a name and path is refused: either gives the other": """
        apiVersion: noetl.io/v1
        kind: Playbook
        workflow: [{step: start}]
        => 1:1 error missing-key metadata: the playbook has neither `metadata.name` nor `metadata.path` (write metadata: {name: …, path: folder/name})
    """,
    "metadata has bounds and known keys: limits are numbers in range; a misspelt key is refused": """
        apiVersion: noetl.io/v1
        kind: Playbook
        metadata: {name: x, max_visit: 3, max_visits: 0, deadline: soon, priority: 1.5}
        workflow: [{step: start}]
        => 3:21 error unknown-key metadata.max_visit: unknown key `max_visit` in `metadata` (did you mean `max_visits`?)
        => 3:47 error bad-value metadata.max_visits: `max_visits` is 0, not an integer from 1 to 2147483647 (write an integer from 1 to 2147483647)
        => 3:60 error bad-value metadata.deadline: `deadline` is 'soon', not a duration from 0.001 to 31536000 seconds (write a number of seconds, 90s, 15m, 2h30m, 3d, 2w or P3DT12H)
        => 3:76 error bad-value metadata.priority: `priority` is 1.5, not an integer from -32768 to 32767 (write an integer from -32768 to 32767)
    """,
    "parts of a wrong type are refused: the error has the expected type": """
        apiVersion: noetl.io/v1
        kind: Playbook
        name: x
        metadata: []
        workload: 3
        workbook: {}
        workflow: [{step: start}]
        => 4:11 error wrong-type metadata: `metadata` is a list, not a mapping (write a mapping)
        => 5:11 error wrong-type workload: `workload` is a number, not a mapping (write a mapping)
        => 6:11 error wrong-type workbook: `workbook` is a mapping, not a list (write a list)
    """,
    "a document that is not a mapping is refused: A list is no playbook": """
        - a
        => 1:1 error wrong-type : the document is a list (a playbook is a mapping of keys)
    """,
    "a document that is not YAML has one finding: with its place": """
        a: [1
        b: 2
        => 2:2 error not-yaml a[1]: not YAML: did not find expected ',' or ']' while parsing a flow sequence (look at this line and the one above it)
    """,
    "a file has one document: it is one playbook": """
        a: 1
        ---
        b: 2
        => 2:1 error several-documents : the file holds more than one document (one file holds one playbook)
    """,
    "the mark of a block is refused in a path: it would name a step": """
        apiVersion: noetl.io/v1
        kind: Playbook
        metadata: {path: a#b}
        workflow: [{step: start}]
        => 3:18 error bad-path metadata.path: the path a#b has a #, which is the mark of a block (use letters, digits, / and _)
    """,
    "a schedule has a name and moments: it has neither": """
        apiVersion: noetl.io/v1
        kind: Playbook
        metadata: {path: p, schedule: {}}
        workflow: [{step: start}]
        => 3:31 error bad-schedule metadata.schedule: `schedule` has no `name` (write name: nightly)
        => 3:31 error bad-schedule metadata.schedule: a schedule has neither `cron` nor `every` (write one of them: cron: "0 2 * * *", or every: 15m)
    """,
    "a key without a template is a warning: the limit counts all executions": """
        apiVersion: noetl.io/v1
        kind: Playbook
        metadata: {path: p, concurrency: {key: all}}
        workflow: [{step: start}]
        => 3:40 warning constant-key metadata.concurrency.key: `key` is 'all' for all executions, so the limit counts them all (leave it out, or write a template, such as {{ workload.customer }})
    """,
}

# Documents without their head.
WORKFLOWS: dict[str, str] = {
    "workflow and steps together are refused: they are aliases": """
        steps: [{step: start}]
        workflow: [{step: start}]
        => 1:1 error duplicate-key steps: `steps` repeats `workflow` (keep one)
    """,
    "a workflow that is not a list is refused: A mapping is no workflow": """
        workflow: {step: start}
        => 1:11 error wrong-type workflow: `workflow` is a mapping, not a list (write a list)
    """,
    "an empty workflow key is refused: A key without a value is no workflow": """
        workflow:
        => 1:10 error wrong-type workflow: `workflow` is null (write a list of steps)
    """,
    "duplicate step names are refused: the error of the second step has the place of the first": """
        workflow:
          - {step: start, next: a}
          - {step: a, next: end}
          - {step: a}
          - {step: end}
        => 4:12 error duplicate-step workflow[2].step: there are two steps `a`, the first on line 6 (rename one of them)
    """,
    "duplicate action names are refused: in the workbook": """
        workbook:
          - {name: fetch, type: http, url: x}
          - {name: fetch, type: http, url: y}
        workflow:
          - {step: start}
        => 3:5 error duplicate-action workbook[1]: the workbook has two actions `fetch` (rename one)
    """,
    "a workflow without a start is refused: no step can run": """
        workflow:
          - {step: a, next: end}
          - {step: end}
        => 1:1 error no-start workflow: the workflow has no step `start` (add {step: start, next: …})
    """,
    "step names with characters of node ids are refused: `#`, `:` and control characters would break node ids": """
        workflow:
          - {step: start, next: "a#b"}
          - {step: "a#b", next: "c:d"}
          - {step: "c:d", next: "e\tf"}
          - {step: "e\tf"}
        => 3:12 error bad-name workflow[1].step: the step name 'a#b' has the character '#' (use letters, digits and _)
        => 4:12 error bad-name workflow[2].step: the step name 'c:d' has the character ':' (use letters, digits and _)
        => 5:12 error bad-name workflow[3].step: the step name 'e\\tf' has the character '\\t' (use letters, digits and _)
    """,
    "a step without a name is refused: A step that is not a mapping is too, each with its reason": """
        workflow:
          - {step: start}
          - a
          - {desc: nameless}
          - {step: 3}
          - {step: ""}
        => 3:5 error wrong-type workflow[1]: a step is a string, not a mapping (write step: name)
        => 4:5 error missing-key workflow[2]: a step has no `step` (write step: name)
        => 5:12 error wrong-type workflow[3].step: the name of a step is a number (write step: name)
        => 6:12 error wrong-type workflow[4].step: the name of a step is empty (write step: name)
    """,
    "all errors are reported at once: in document order": """
        workflow:
          - {step: start, next: [x, y]}
          - {step: a, type: nope, next: {when: "", step: end}}
          - {step: end, next: a}
        => 2:26 error unknown-step workflow[0].next[0]: there is no step `x` (known are: start, a, end)
        => 2:29 error unknown-step workflow[0].next[1]: there is no step `y` (known are: start, a, end)
        => 3:21 error unknown-type workflow[1].type: the type `nope` is not known (did you mean `noop`? add a type of your own workers: noetl-broker step-type add, and give --dsn; or name it in the setting extra_step_types)
        => 3:40 error bad-when workflow[1].next.when: bad `when`: a condition is empty: write an expression (write when: "{{ expression }}")
        => 4:23 error end-with-next workflow[2].next: `end` has a `next` (remove it, or rename the step)
    """,
    "unknown keys are refused: at the top, in `next` and on a step, with the nearest word or a remedy": """
        workflows: 1
        workflow:
          - {step: start, next: [{step: a, whne: 1}, {step: a, if: 1}]}
          - {step: a, type: http, url: x, metod: GET, pass: "{{ x }}", vars: {y: 1}}
        => 1:1 error unknown-key workflows: unknown key `workflows` in a playbook (did you mean `workflow`?)
        => 3:36 error unknown-key workflow[0].next[0].whne: unknown key `whne` in `next` (did you mean `when`?)
        => 3:56 error unknown-key workflow[0].next[1].if: unknown key `if` in `next` (did you mean `when`?)
        => 4:35 error unknown-key workflow[1].metod: unknown key `metod` on the http step `a` (did you mean `method`?)
        => 4:47 error unknown-key workflow[1].pass: unknown key `pass` on the http step `a` (the step always runs: put the condition into the `next` of the step before it)
        => 4:64 error unknown-key workflow[1].vars: unknown key `vars` on the http step `a` (remove it: it belongs to another dialect)
    """,
    "a name that is no identifier is warned of: templates read such a step through `results` only": """
        workflow:
          - {step: start, next: "a b"}
          - {step: "a b"}
        => 3:12 warning bad-name workflow[1].step: the step name `a b` is not an identifier, so templates read it only as results['a b'] (use letters, digits and _)
    """,
    "a schema of the workload is checked at registration: each fault has its line": """
        workload_schema:
          properties:
            n: {type: int}
            m: {pattern: x}
        workflow:
        - {step: start, next: end}
        - {step: end}
        => 3:15 error bad-schema workload_schema.properties.n.type: `int` is no type of JSON (write integer)
        => 4:9 error bad-schema workload_schema.properties.m.pattern: the keyword `pattern` is not supported (list the values under `enum`, or bound the text by `minLength` and `maxLength`)
    """,
    "the keys of a workload schema are known to templates: defaults, listed and required keys": """
        workload_schema: {properties: {m: {}}, required: [n]}
        workflow:
        - {step: start, next: end}
        - {step: end, result: "{{ m }}{{ n }}"}
    """,
    "an unknown step type is refused: the hint has the nearest type": """
        workflow:
          - {step: start, next: a}
          - {step: a, type: pithon, code: "x"}
        => 3:21 error unknown-type workflow[1].type: the type `pithon` is not known (did you mean `python`? add a type of your own workers: noetl-broker step-type add, and give --dsn; or name it in the setting extra_step_types)
    """,
    "an own step type has to be added: the hint names the command and the setting": """
        workflow:
          - {step: start, next: a}
          - {step: a, tool: dbt}
        => 3:21 error unknown-type workflow[1].tool: the type `dbt` is not known (add a type of your own workers: noetl-broker step-type add, and give --dsn; or name it in the setting extra_step_types)
    """,
    "a step type that is not a name is refused: newer dialects have a mapping there": """
        workflow:
          - {step: start, next: a}
          - {step: a, tool: {kind: python}}
        => 3:21 error bad-type workflow[1].tool: `tool` is a mapping (write the name of a type)
    """,
    "different values of type and tool are refused: they are aliases": """
        workflow:
          - {step: start, next: a}
          - {step: a, type: http, tool: python, url: x}
        => 3:33 error bad-type workflow[1].tool: `tool` says 'python' and `type` says 'http' (keep one)
    """,
    "an unknown workbook action is refused: the hint has the nearest action": """
        workbook:
          - {name: fetch, type: http, url: x}
        workflow:
          - {step: start, next: a}
          - {step: a, type: workbook, name: fetsh}
        => 5:37 error unknown-action workflow[1].name: the workbook has no action `fetsh` (did you mean `fetch`?)
    """,
    "a workbook step needs a workbook: the document has none": """
        workflow:
          - {step: start, next: a}
          - {step: a, type: workbook, task: fetch}
        => 3:37 error unknown-action workflow[1].task: the workbook has no action `fetch` (the playbook has no workbook)
    """,
    "a workbook step without an action is refused: it has neither `task` nor `name`": """
        workflow:
          - {step: start, next: a}
          - {step: a, type: workbook}
        => 3:5 error unknown-action workflow[1].name: the workbook step `a` names no action (write task: name-of-the-action)
    """,
    "a workbook action without a type is refused: no worker can run it": """
        workbook:
          - {name: fetch, url: x}
        workflow:
          - {step: start, next: a}
          - {step: a, type: workbook, task: fetch}
        => 2:5 error bad-type workbook[0]: the workbook action `fetch` has no type (write type: python, http, …)
    """,
    "templates that do not compile are refused: each has its own error": """
        workload: {x: 1}
        workflow:
          - {step: start, next: a}
          - {step: a, type: http, url: "{{ x", headers: {a: "{{ x | nope }}"}}
        => 4:32 error bad-template workflow[1].url: the template `{{ x` does not compile: unexpected end of template, expected 'end of print statement' (write text with {{ expression }} in it)
        => 4:53 error bad-template workflow[1].headers.a: the template `{{ x | nope }}` does not compile: there is no filter `nope` (write text with {{ expression }} in it)
    """,
    "bad keys of a retry are refused: each of every retry is reported": """
        workflow:
          - {step: start, next: a}
          - {step: a, type: http, url: x, retry: many, next: b}
          - {step: b, type: http, url: x, retry: 0, next: c}
          - step: c
            type: http
            url: x
            retry: {max_attempts: "3", initial_delay: -1, jitter: 1, retry_wen: x, retry_when: "a b", on_success: {}}
        => 3:42 error bad-retry workflow[1].retry: `retry` is a string (write true, false, a number of attempts, or {max_attempts: 3, …})
        => 4:42 error bad-retry workflow[2].retry: `retry` is 0, not an integer from 1 to 1000 (write an integer from 1 to 1000)
        => 8:27 error bad-retry workflow[3].retry.max_attempts: `max_attempts` is '3', not an integer from 1 to 1000 (write it without quotes or template)
        => 8:47 error bad-retry workflow[3].retry.initial_delay: `initial_delay` is -1, not a duration from 0 to 31536000 seconds (write a number of seconds, 90s, 15m, 2h30m, 3d, 2w or P3DT12H)
        => 8:59 error bad-retry workflow[3].retry.jitter: `jitter` is 1, not true or false (write true or false)
        => 8:62 error bad-retry workflow[3].retry.retry_wen: unknown key `retry_wen` in `retry` (did you mean `retry_when`?)
        => 8:88 error bad-retry workflow[3].retry.retry_when: bad `retry_when`: expected token 'end of print statement', got 'b' (write retry_when: "{{ expression }}")
        => 8:95 error bad-retry workflow[3].retry.on_success: unknown key `on_success` in `retry` (the broker does not repeat a step that succeeded: make a loop of steps with a condition)
    """,
    "values out of their bounds are refused: join, mode, reaction, time limit and priority": """
        workflow:
          - {step: start, next: a, join: some}
          - {step: a, type: http, url: x, next_mode: first, on_error: stop, timeout: 0, priority: high, join: 3}
        => 2:34 error bad-value workflow[0].join: `join` is 'some', not one of all, any, each (the default is all; for a number of arrivals write {need: 2})
        => 3:46 error bad-value workflow[1].next_mode: `next_mode` is 'first', not one of inclusive, exclusive (the default is inclusive)
        => 3:63 error bad-value workflow[1].on_error: `on_error` is 'stop', not one of fail, continue (the default is fail)
        => 3:78 error bad-value workflow[1].timeout: `timeout` is 0, not a number of seconds, 90s, 15m, 2h30m, 3d, 2w or P3DT12H, from 0.001 s to 365 days (write timeout: 90s, or a template that gives a duration)
        => 3:91 error bad-value workflow[1].priority: `priority` is 'high', not an integer from -32768 to 32767 (write it without quotes or template)
        => 3:103 error bad-value workflow[1].join: `join` is 3, not one of all, any, each (the default is all; for a number of arrivals write {need: 2})
    """,
    "a playbook step needs a path: without one there is no child": """
        workflow:
          - {step: start, next: a}
          - {step: a, type: playbook}
        => 3:5 error missing-key workflow[1].path: the playbook step `a` has no `path` (write path: folder/of/the/playbook)
    """,
    "an unknown target is refused: the hint has the nearest step": """
        workflow:
          - {step: start, next: fetsh}
          - {step: fetch, next: end}
          - {step: end}
        => 2:25 error unknown-step workflow[0].next: there is no step `fetsh` (did you mean `fetch`?)
    """,
    "a transition to start is refused: A loop goes back to the step after `start`": """
        workflow:
          - {step: start, next: a}
          - {step: a, next: start}
        => 3:21 error next-to-start workflow[1].next: `next` of step `a` leads back to `start` (lead to the step after `start`)
    """,
    "a next of end is refused: no step follows `end`": """
        workflow:
          - {step: start, next: end}
          - {step: end, next: other}
          - {step: other}
        => 3:23 error end-with-next workflow[1].next: `end` has a `next` (remove it, or rename the step)
    """,
    "an else without a condition is refused: it could never fire": """
        workflow:
          - step: start
            next:
              - else: [a]
          - {step: a}
        => 4:9 error only-else workflow[0].next[0].else: `next` of step `start` has an `else` but no condition (add an entry with a condition: {when: "{{ … }}", step: …})
    """,
    "an else beside an unconditional target is refused: the target always fires": """
        workflow:
          - step: start
            next: {step: a, else: [b]}
          - {step: a}
          - {step: b}
        => 3:27 error bad-next workflow[0].next.else: `else` has no condition beside it (add `when`, or make it its own entry)
    """,
    "entries and targets of a wrong shape are refused: each has its reason": """
        workflow:
          - step: start
            next:
              - 3
              - {}
              - {step: a, then: [a]}
              - {then: []}
              - {step: 3}
              - {then: [{step: a, when: "{{ 1 }}"}]}
              - ""
          - {step: a}
        => 4:9 error bad-next workflow[0].next[0]: an entry of `next` is a number (write {step: name})
        => 5:9 error bad-next workflow[0].next[1]: an entry of `next` has no target (add step: name)
        => 6:25 error bad-next workflow[0].next[2].then: an entry has both a target and `then` (put all targets under `then`)
        => 7:9 error bad-next workflow[0].next[3]: an entry of `next` has no target (add step: name)
        => 8:16 error bad-next workflow[0].next[4].step: a target of `next` is a number (write a step's name, or {step: name})
        => 9:33 error bad-next workflow[0].next[5].then[0].when: a target has no `when` of its own (make it an entry of `next`)
        => 10:9 error bad-next workflow[0].next[6]: a target of `next` is empty (write a step's name, or {step: name})
    """,
    "a condition with text outside its braces is refused: it would be a text that is always true": """
        workflow:
          - step: start
            next: {when: "{{ x }} and", step: a}
          - {step: a}
        => 3:18 error bad-when workflow[0].next.when: bad `when`: a condition is one expression: text outside the braces is not allowed (write when: "{{ expression }}")
    """,
    "a null condition is refused: null is usually a mistake": """
        workflow:
          - step: start
            next: {when: null, step: a}
          - {step: a}
        => 3:18 error bad-when workflow[0].next.when: bad `when`: a condition is one expression, not null (write when: "{{ expression }}")
    """,
    "an empty condition is refused: it is no expression": """
        workflow:
          - step: start
            next: {when: "", step: a}
          - {step: a}
        => 3:18 error bad-when workflow[0].next.when: bad `when`: a condition is empty: write an expression (write when: "{{ expression }}")
    """,
    "a transition that reads a word of the worker is refused: the broker evaluates conditions": """
        workflow:
          - step: start
            next: {when: "{{ env.HOME == 'x' }}", step: a}
          - {step: a}
        => 3:18 error bad-when workflow[0].next.when: bad `when`: `env` is known to workers only, and the broker decides conditions (write when: "{{ expression }}")
    """,
    "two aliases of when are refused: an entry has one condition": """
        workload: {x: 1}
        workflow:
          - step: start
            next: {when: "{{ x }}", condition: "{{ x }}", step: a}
          - {step: a}
        => 4:40 error bad-when workflow[0].next.condition: `condition` repeats `when` (keep one)
    """,
    "inputs that are no mapping are refused: A list or a text cannot be merged. One template is allowed": """
        workflow:
          - {step: start, next: a}
          - {step: a, type: python, code: x, args: [1], next: {step: b, data: text}}
          - {step: b}
        => 3:44 error bad-inputs workflow[1].args: `args` is a list, not a mapping or one template that gives one (write args: {name: value} or args: "{{ step }}")
        => 3:71 error bad-inputs workflow[1].next.data: `data` is a string, not a mapping or one template that gives one (write data: {name: value} or data: "{{ step }}")
    """,
    "an iterator without collection element or task is refused: each missing key is reported": """
        workflow:
          - {step: start, next: a}
          - {step: a, type: iterator}
        => 3:5 error bad-iterator workflow[1]: the iterator `a` has no `collection` (write collection: "{{ workload.items }}")
        => 3:5 error bad-iterator workflow[1]: the iterator `a` has no `element` (write element: item)
        => 3:5 error bad-iterator workflow[1].task: the iterator `a` has no `task` (write task: {type: playbook, path: …} or another type)
    """,
    "a loop without a collection is refused: it has no items": """
        workflow:
          - {step: start, next: a}
          - {step: a, type: http, url: x, loop: {element: city}}
        => 3:41 error bad-iterator workflow[1].loop: the iterator `a` has no `collection` (write collection: "{{ workload.items }}")
    """,
    "a loop that is not a mapping is refused: A number is no loop": """
        workflow:
          - {step: start, next: a}
          - {step: a, type: http, url: x, loop: 3}
        => 3:41 error bad-iterator workflow[1].loop: the iterator `a` has a `loop` that is a number (write loop: {collection: …, element: …})
    """,
    "a loop on a router is refused: it has no task": """
        workflow:
          - {step: start, next: a}
          - {step: a, loop: {collection: [1], element: n}}
        => 3:21 error bad-iterator workflow[1].loop: the iterator `a` has no `task` (give the step a type)
    """,
    "the task of an iterator is an action or a playbook: A task without a type is refused": """
        workflow:
          - {step: start, next: a}
          - {step: a, type: iterator, collection: [1], element: n, task: {desc: nothing}}
        => 3:66 error bad-iterator workflow[1].task: the iterator `a` has a task that is neither an action nor a playbook (write task: {type: …})
    """,
    "bad values of an iterator are refused: each is reported": """
        workflow:
          - {step: start, next: a}
          - step: a
            type: iterator
            collection: 5
            element: "1x"
            mode: fast
            concurrency: 0
            on_error: stop
            where: "{{ a }} b"
            enumerate: 1
            task: {type: playbook, path: p}
        => 5:17 error bad-iterator workflow[1].collection: the iterator `a` has a `collection` that is a number (write a list or "{{ expression }}")
        => 6:14 error bad-iterator workflow[1].element: the iterator `a` has the `element` '1x', which is not a name (write element: item)
        => 7:11 error bad-iterator workflow[1].mode: `mode` is 'fast', not one of sequential, async, parallel (the default is sequential)
        => 8:18 error bad-iterator workflow[1].concurrency: `concurrency` is 0, not an integer from 1 to 1000000 (write an integer from 1 to 1000000)
        => 9:15 error bad-iterator workflow[1].on_error: `on_error` is 'stop', not one of fail, continue (the default is fail)
        => 10:12 error bad-iterator workflow[1].where: bad `where`: a condition is one expression: text outside the braces is not allowed (write where: "{{ expression }}")
        => 11:16 error bad-iterator workflow[1].enumerate: `enumerate` is 1, not true or false (write true or false)
    """,
    "the fields of the task of a worker may read its inputs: inputs of its workbook action too, without a warning": """
        workbook: [{name: w, type: http, url: "{{ base }}/{{ id }}", args: {base: x}}]
        workflow:
          - {step: start, next: a}
          - {step: a, type: iterator, collection: [1], element: n, task: {type: workbook, task: w, args: {id: "{{ n }}"}}}
    """,
    "the element and loop are known names: they have no warning": """
        workflow:
          - step: start
            type: iterator
            collection: [1]
            element: n
            where: n > 0 and _loop.index < 5
            task: {type: http, url: "{{ n }}/{{ _loop.count }}"}
    """,
    "an overridden input is not warned of: it is never rendered, so it cannot fail": """
        workbook: [{name: w, type: http, url: x, with: {city: "{{ city }}"}}]
        workflow:
          - {step: start, next: [{step: a}, {step: b, args: {town: 1}}]}
          - {step: a, type: workbook, task: w, args: {city: 1}}
          - {step: b, type: http, url: "{{ town }}", args: {town: "{{ town }}"}}
    """,
    "an input or a workload key called like a word of the worker is data: the broker may read it": """
        workload: {env: {K: 1}}
        workflow:
          - {step: start, next: {step: end, args: {job: 5}}}
          - {step: end, result: "{{ env.K + job }}"}
    """,
    "an unreachable step is warned of: it would never run": """
        workflow:
          - {step: start, next: end}
          - {step: a, next: end}
          - {step: end}
        => 3:12 warning unreachable workflow[1].step: no path from `start` leads to the step `a` (add it to a `next`, or remove it)
    """,
    "two conditions that can both be true are warned of: both would fire": """
        workload: {x: 1}
        workflow:
          - step: start
            next:
              - {when: "{{ x > 1 }}", step: a}
              - {when: "{{ x > 5 }}", step: b}
          - {step: a}
          - {step: b}
        => 6:9 warning overlapping-when workflow[0].next[1]: this condition and the one on line 8 can both be true, and then both fire (write next_mode: exclusive on the step, or let one exclude the other)
    """,
    "unknown names are warned of: with the nearest name, or a remedy": """
        workload: {city: Paris}
        workflow:
          - {step: start, next: a}
          - {step: a, type: http, url: "{{ citi }}", headers: {k: "{{ zzz }}", s: "{{ spec.x }}{{ now }}"}}
        => 4:32 warning unknown-name workflow[1].url: the template names `citi`, which is neither a step, a workload key nor a scope word (did you mean `city`?)
        => 4:59 warning unknown-name workflow[1].headers.k: the template names `zzz`, which is neither a step, a workload key nor a scope word (give it a default under `workload` if the payload brings it)
        => 4:75 warning unknown-name workflow[1].headers.s: the template names `now`, which is neither a step, a workload key nor a scope word (write `now()`)
    """,
    "a step that hides a word is warned of: A word of the scope, a workload key, a word of the worker": """
        workload: {city: Paris}
        workflow:
          - {step: start, next: result}
          - {step: result, next: city}
          - {step: city, next: env}
          - {step: env}
        => 4:12 warning shadowed-name workflow[1].step: templates find the result of the step `result` under its name, and no longer the result of the step just completed (rename the step)
        => 5:12 warning shadowed-name workflow[2].step: templates find the result of the step `city` under its name, and no longer the workload key (rename the step, or write workload.city)
        => 6:12 warning shadowed-name workflow[3].step: templates find the result of the step `env` under its name, and no longer the word of the worker (rename the step)
    """,
    "a step that hides a word of a retry is warned of: only if a condition of the retry reads the word": """
        workflow:
          - {step: start, next: error}
          - {step: error, type: http, url: u, next: a}
          - {step: a, type: http, url: u, retry: {stop_when: attempt > 2, retry_when: "'busy' in error"}}
        => 4:79 warning shadowed-name workflow[2].retry.retry_when: the step `error` hides the word of that name in `retry_when` (rename the step)
    """,
    "a loop without a conditional way out is warned of: it would run to the visit limit": """
        workflow:
          - {step: start, next: a}
          - {step: a, type: http, url: x, next: b}
          - {step: b, type: http, url: x, next: a}
        => 3:12 warning endless-loop workflow[1].step: the loop a → b → a has no conditional way out (give one of its steps a `when`, such as {when: "{{ … }}", step: …})
    """,
    "a loop of routers is warned of: one token would enter a router twice in a turn": """
        workload: {x: 1}
        workflow:
          - {step: start, next: a}
          - {step: a, next: {when: "{{ x }}", step: b}}
          - {step: b, next: a}
        => 4:12 warning router-cycle workflow[1].step: the loop a → b → a has only routers (add a step with an action to it)
    """,
    "two arcs that give a join one input are warned of: one of the two values would be lost": """
        workflow:
          - {step: start, next: [a, b]}
          - {step: a, type: http, url: x, next: {step: c, args: {k: 1}}}
          - {step: b, type: http, url: x, next: {step: c, args: {k: 2}}}
          - {step: c, type: http, url: x}
        => 5:12 warning join-input workflow[3].step: the join `c` gets the input `k` from `a` and `b`: the later arc wins (give the two different names)
    """,
    "names that a stronger level gives are known: an input of a step reads inputs of transitions, a task reads inputs of its step": """
        workflow:
          - {step: start, next: [{step: a, args: {city: Oslo, deep: {n: 1}}}]}
          - {step: a, type: http, url: "{{ own }}", with: {own: "{{ city }}", n: ["{{ args.deep.n + deep.n }}"]}, next: b}
          - step: b
            type: iterator
            collection: [1]
            element: n
            distribute: true
            args: {rows: 1}
            task: {type: http, url: "{{ rows }}", args: {x: "{{ rows + n }}", y: "{{ city }}"}}
        => 10:74 warning unknown-name workflow[2].task.args.y: the template names `city`, which is neither a step, a workload key nor a scope word (give it a default under `workload` if the payload brings it)
    """,
    "a template that mixes visits of an each join is warned of: it reads the latest of all visits": """
        workflow:
          - {step: start, next: [a, b]}
          - {step: a, type: http, url: x, next: c}
          - {step: b, type: http, url: x, next: c}
          - {step: c, type: http, url: x, join: each, next: d}
          - {step: d, type: http, url: "{{ c.url }}"}
        => 6:32 warning mixed-visits workflow[4].url: `c` is visited once per arrival, and this template reads the latest of all visits (read `result`, or hand the value on as an input)
    """,
    "a python step without code is a router with a warning: it has no action": """
        workflow:
          - {step: start, next: a}
          - {step: a, type: python}
        => 3:5 warning no-code workflow[1]: the python step `a` has no code, so it runs nothing (give it `code`, or remove its type)
    """,
    "unused keys are warned of: `result` on another step than `end`, or `save` without a worker. Each is reported once": """
        workflow:
          - {step: start, next: a, sink: {data: 1}}
          - {step: a, type: playbook, path: p, save: {storage: event}, result: 1}
        => 2:28 warning unused-key workflow[0].sink: `sink` of step `start` has no effect, because no worker runs the step (add a step that saves)
        => 3:40 warning unused-key workflow[1].save: `save` of step `a` has no effect, because no worker runs the step (add a step that saves)
        => 3:64 warning unused-key workflow[1].result: `result` of step `a` is not read (only `end` has one)
    """,
    "keys of steps on a workbook action are warned of: keys such as `next`, reported once for any number of steps": """
        workbook:
          - {name: w, type: http, url: x, next: b, join: any, retry: 2}
        workflow:
          - {step: start, next: a}
          - {step: a, type: workbook, task: w, next: b}
          - {step: b, type: workbook, task: w}
        => 2:35 warning unused-key workbook[0].next: `next` of the workbook action `w` is not read (write it on the step that calls it)
        => 2:44 warning unused-key workbook[0].join: `join` of the workbook action `w` is not read (write it on the step that calls it)
    """,
    "an element that hides a word is warned of: A key without effect in `loop` is too": """
        workflow:
          - {step: start, next: a}
          - {step: a, type: http, url: x, loop: {collection: [1], element: result, colour: 1}}
        => 3:68 warning shadowed-name workflow[1].loop.element: the element `result` of the iterator `a` hides the scope word of that name (choose another name)
        => 3:76 error unknown-key workflow[1].loop.colour: unknown key `colour` in `loop` (known are: chunk, collection, concurrency, distribute, element, enumerate, limit, mode, on_error, order_by, task, tolerate, where)
    """,
    "a loop back to a join gives no input twice: one token of `start` and `w` passes the join and comes back": """
        workflow:
          - {step: start, next: [w, j]}
          - {step: w, type: http, url: u, next: [{step: j, args: {k: 1}}]}
          - {step: j, type: http, url: u, next: r}
          - {step: r, type: http, url: u, next: [{when: "r.again", step: j, args: {k: 2}}]}
    """,
    "an end with a next has no warning of a loop: it has an error": """
        workload: {x: 1}
        workflow:
          - {step: start, next: a}
          - {step: a, type: http, url: x, next: [{when: "{{ x }}", step: b}, {else: [end]}]}
          - {step: b, type: http, url: x, next: a}
          - {step: end, next: a}
        => 6:23 error end-with-next workflow[3].next: `end` has a `next` (remove it, or rename the step)
    """,
    "a loop that only a failure takes needs no condition: the step is repeated while it fails, and otherwise goes on": """
        workflow:
          - {step: start, next: c}
          - {step: c, type: http, url: x, next: a, catch: {when: "error.type == 'busy'", step: c}}
          - {step: a, type: http, url: x}
    """,
    "an alias inside its own value is refused: it would never end": """
        workload: {a: &a [*a]}
        workflow: [{step: start}]
        => 1:19 error alias-bomb workload.a[0]: the alias *a is inside its own value (write the value out)
    """,
    "a step that fails is not tried again: it has an error": """
        workflow:
          - {step: start, next: a}
          - {step: a, type: fail, retry: 3}
        => 3:34 error bad-fail workflow[1].retry: `retry` of the fail step `a` has no meaning (remove it)
    """,
    "a join needs a number of arrivals that can come: two transitions lead to it": """
        workflow:
          - {step: start, next: [a, b]}
          - {step: a, type: http, url: u, next: j}
          - {step: b, type: http, url: u, next: j}
          - {step: j, join: {need: 3}}
        => 5:28 error bad-join workflow[3].join.need: the join `j` needs 3 arrivals, and only 2 transitions lead to it (write a `need` of at most 2)
    """,
    "a key is a text: not a number": """
        workload: {1: x}
        workflow: [{step: start}]
        => 1:12 error bad-key workload.1: the key 1 is a number (keys are strings: write "1":)
    """,
    "an iterator has no output: its items have": """
        workflow:
          - {step: start, next: a}
          - {step: a, type: iterator, collection: [1], element: n, task: {type: http, url: u}, output: 1}
        => 3:96 error bad-output workflow[1].output: `output` of the iterator `a` has no meaning: its result is the list of its items (choose in a later step, or in a block: task: {workflow: …})
    """,
    "a template in SQL code is warned of: `code` is never rendered": """
        workload: {x: 1}
        workflow:
          - {step: start, next: a}
          - {step: a, type: postgres, code: "select {{ x }}"}
        => 4:37 warning code-template workflow[1].code: the templates in `code` of the postgres step `a` are not rendered (write the statement under `command`)
    """,
    "a condition reads no deferred input: only the worker renders it": """
        workflow:
          - {step: start, next: a}
          - {step: a, type: http, url: u, args: {t: "{{ env.T }}"}, next: [{when: t == 1, step: end}]}
          - {step: end}
        => 3:75 error deferred-read workflow[1].next[0].when: `t == 1` reads the input `t` of the step `a`, which only a worker can render (write it in a field or an input of the step whose worker needs it; or let an action return the value)
    """,
    "a program text under two words is refused: a job has one": """
        workflow:
          - {step: start, next: a}
          - {step: a, type: postgres, command: select 1, sql: select 2}
        => 3:50 error doubled-text workflow[1].sql: `sql` repeats `command` (keep `command`, or keep `sql`)
    """,
    "end has no catch: nothing could follow it": """
        workflow:
          - {step: start, next: end}
          - {step: end, type: http, url: x, catch: {step: a}}
          - {step: a, type: http, url: x}
        => 3:44 error end-with-catch workflow[1].catch: `end` has a `catch` (put it on the steps before, or put what fails into a step of its own)
        => 4:12 warning unreachable workflow[2].step: no path from `start` leads to the step `a` (add it to a `next`, or remove it)
    """,
    "merge keys are refused: write the keys out": """
        workload: {<<: {f: 1}}
        workflow: [{step: start}]
        => 1:12 error merge-key workload['<<']: merge keys (`<<`) are not supported (write the keys out)
    """,
    "a template that reads the result of its own step is warned of: the step has not ended": """
        workflow:
          - {step: start, next: a}
          - {step: a, type: http, url: "{{ a.x }}"}
        => 3:32 warning no-result workflow[1].url: the template reads the result of the step `a`, which has no result before it ends (in a `save` write `result`; elsewhere read a step that has run before, or write | default(…))
    """,
    "a key that is only like a known one is refused, too: the hint has that one": """
        workflowses: 1
        workflow: [{step: start}]
        => 1:1 error unknown-key workflowses: unknown key `workflowses` in a playbook (did you mean `workflow`?)
    """,
}

# Keys of a step `a` behind `start`: each line is one step.
STEPS: dict[str, str] = {
    "waits": """
        type: wait
        => 1:36 error bad-wait workflow[1]: the wait step `a` does not say what it waits for (write one of for: 3d, until: a moment, signal: a name)
        type: wait, for: 3d, until: '2026-01-01T00:00:00Z'
        => 1:74 error bad-wait workflow[1].until: the wait step `a` has `for` and `until` (write one of for: 3d, until: a moment, signal: a name)
        type: wait, for: soon
        => 1:63 error bad-value workflow[1].for: `for` is 'soon', not a duration (write a number of seconds, 90s, 15m, 2h30m, 3d, 2w or P3DT12H)
        type: wait, for: -1
        => 1:63 error bad-value workflow[1].for: `for` is -1, not a duration (write a number of seconds, 90s, 15m, 2h30m, 3d, 2w or P3DT12H)
        type: wait, for: true
        => 1:63 error bad-value workflow[1].for: `for` is true, not a duration (write a number of seconds, 90s, 15m, 2h30m, 3d, 2w or P3DT12H)
        type: wait, until: 2026-01-01
        => 1:65 error bad-value workflow[1].until: `until` is '2026-01-01', not a moment (write RFC 3339, such as 2026-03-01T09:00:00Z)
        type: wait, for: 3d, retry: 3
        => 1:74 error bad-wait workflow[1].retry: `retry` of the wait step `a` has no meaning (remove it)
        type: wait, for: 3d, timeout: 3
        => 1:76 error bad-wait workflow[1].timeout: `timeout` of the wait step `a` needs `signal` (remove it, or wait for a signal)
        type: wait, for: 3d, start_timeout: 3
        => 1:82 error bad-value workflow[1].start_timeout: `start_timeout` of the step `a` has no meaning: no worker runs the step (remove it)
        type: python, code: 'def main(): pass', start_timeout: soon
        => 1:101 error bad-value workflow[1].start_timeout: `start_timeout` is 'soon', not a number of seconds, 90s, 15m, 2h30m, 3d, 2w or P3DT12H, from 0.001 s to 365 days (write start_timeout: 90s, or a template that gives a duration)
        type: iterator, collection: [1], element: x, task: {type: wait, for: 3d}
        => 1:97 error bad-iterator workflow[1].task: the iterator `a` repeats a step of type `wait` (put the step into a block: task: {workflow: [{step: start, next: …}, …]})
        type: wait, for: '{{ env.X }}'
        => 1:63 error worker-word workflow[1].for: the broker evaluates this template, and only a worker knows `env` (write it in a field or an input of the step whose worker needs it; or let an action return the value)
        type: wait, until: '{{ env.X }}'
        => 1:65 error worker-word workflow[1].until: the broker evaluates this template, and only a worker knows `env` (write it in a field or an input of the step whose worker needs it; or let an action return the value)
        type: wait, signal: '{{ env.X }}'
        => 1:66 error worker-word workflow[1].signal: the broker evaluates this template, and only a worker knows `env` (write it in a field or an input of the step whose worker needs it; or let an action return the value)
        type: wait, signal: s, key: 'order {{ env.X }}'
        => 1:74 error worker-word workflow[1].key: the broker evaluates this template, and only a worker knows `env` (write it in a field or an input of the step whose worker needs it; or let an action return the value)
        type: wait, signal: s, since: '{{ env.X }}'
        => 1:76 error worker-word workflow[1].since: the broker evaluates this template, and only a worker knows `env` (write it in a field or an input of the step whose worker needs it; or let an action return the value)
        type: wait, signal: s, timeout: '{{ env.X }}'
        => 1:78 error worker-word workflow[1].timeout: the broker evaluates this template, and only a worker knows `env` (write it in a field or an input of the step whose worker needs it; or let an action return the value)
        type: approval, title: '{{ env.X }}'
        => 1:69 error worker-word workflow[1].title: the broker evaluates this template, and only a worker knows `env` (write it in a field or an input of the step whose worker needs it; or let an action return the value)
        type: approval, details: {a: [1, '{{ env.X }}']}
        => 1:79 error worker-word workflow[1].details.a[1]: the broker evaluates this template, and only a worker knows `env` (write it in a field or an input of the step whose worker needs it; or let an action return the value)
        type: approval, timeout: '{{ env.X }}'
        => 1:71 error worker-word workflow[1].timeout: the broker evaluates this template, and only a worker knows `env` (write it in a field or an input of the step whose worker needs it; or let an action return the value)
        type: signal, signal: s, key: '{{ env.X }}'
        => 1:76 error worker-word workflow[1].key: the broker evaluates this template, and only a worker knows `env` (write it in a field or an input of the step whose worker needs it; or let an action return the value)
        type: signal, signal: s, payload: {a: '{{ env.X }}'}
        => 1:84 error worker-word workflow[1].payload.a: the broker evaluates this template, and only a worker knows `env` (write it in a field or an input of the step whose worker needs it; or let an action return the value)
        type: python, code: 'def main(): pass', timeout: '{{ env.X }}'
        => 1:95 error worker-word workflow[1].timeout: the broker evaluates this template, and only a worker knows `env` (write it in a field or an input of the step whose worker needs it; or let an action return the value)
        type: http, url: x, start_timeout: '{{ env.X }}'
        => 1:81 error worker-word workflow[1].start_timeout: the broker evaluates this template, and only a worker knows `env` (write it in a field or an input of the step whose worker needs it; or let an action return the value)
        type: wait, for: 90
        type: wait, for: 2h30m
        type: wait, for: '90'
        type: wait, for: '{{ 1 + 2 }}d'
        type: wait, until: '2026-03-01T09:00:00+01:00'
        type: python, code: 'def main(): pass', start_timeout: 15m
        type: wait, signal: s, when: '{{ signal.payload.job }}', args: {signal: '{{ 1 }}'}
        type: wait, for: 1, auth: bank
        => 1:66 error unknown-key workflow[1].auth: unknown key `auth` on the wait step `a` (remove it, or write it under `args` if it is an input)
        type: approval, title: x, auth: bank
        => 1:72 error unknown-key workflow[1].auth: unknown key `auth` on the approval step `a` (remove it, or write it under `args` if it is an input)
        type: signal, signal: s, key: k, auth: bank
        => 1:79 error unknown-key workflow[1].auth: unknown key `auth` on the signal step `a` (remove it, or write it under `args` if it is an input)
    """,
    "approvals": """
        type: approval, title: x
        type: approval, form: {n: {type: integer, required: true}, comment: {type: string, maxLength: 80}}
        type: approval, form: {n: {maximum: "{{ execution_id }}"}}
        type: approval, form: "{{ execution_id }}"
        type: approval, approvers: finance, timeout: P1D
        type: approval, timeout: "{{ execution_id }}", details: [1, 2], on_error: continue, desc: x
        type: approval, retry: 3
        => 1:69 error bad-approval workflow[1].retry: `retry` of the approval step `a` has no meaning (remove it)
        type: approval, title: [x]
        => 1:69 error bad-value workflow[1].title: `title` is a list, not a text (write a text)
        type: approval, approvers: []
        => 1:73 error bad-value workflow[1].approvers: `approvers` is a list, not login:NAME, token:NAME, a role, or a list of these (write approvers: [login:ann, finance])
        type: approval, assignees: [finance]
        => 1:62 error unknown-key workflow[1].assignees: unknown key `assignees` on the approval step `a` (did you mean `approvers`?)
        type: approval, approvers: [1]
        => 1:73 error bad-value workflow[1].approvers: `approvers` is a list, not login:NAME, token:NAME, a role, or a list of these (write approvers: [login:ann, finance])
        type: approval, form: [n]
        => 1:68 error bad-form workflow[1].form: `form` is a list (write a schema for each field: {discount: {type: number, maximum: 30}})
        type: approval, form: {by: {type: string}}
        => 1:69 error bad-form workflow[1].form.by: `by` is no field of a form: the decision itself has it (choose another name)
        type: approval, form: {n: number}
        => 1:72 error bad-form workflow[1].form.n: `form.n` is a string, not a schema (write a mapping such as {type: string})
        type: approval, form: {n: {typ: number}}
        => 1:73 error bad-form workflow[1].form.n.typ: unknown keyword `typ` in a schema (did you mean `type`?)
        type: approval, form: {n: {pattern: x}}
        => 1:73 error bad-form workflow[1].form.n.pattern: the keyword `pattern` is not supported (list the values under `enum`, or bound the text by `minLength` and `maxLength`)
        type: approval, timeout: soon
        => 1:71 error bad-value workflow[1].timeout: `timeout` is 'soon', not a duration (write a number of seconds, 90s, 15m, 2h30m, 3d, 2w or P3DT12H)
        type: approval, detials: {}
        => 1:62 error unknown-key workflow[1].detials: unknown key `detials` on the approval step `a` (did you mean `details`?)
    """,
    "throttles": """
        type: python, code: 'def main(): pass', throttle: 5
        => 1:96 error bad-throttle workflow[1].throttle: `throttle` is a number, not a mapping (write throttle: {name: stripe, concurrency: 5})
        type: python, code: 'def main(): pass', throttle: {name: api}
        => 1:96 error bad-throttle workflow[1].throttle: `throttle` has neither `concurrency` nor `rate` (write throttle: {name: stripe, concurrency: 5})
        type: python, code: 'def main(): pass', throttle: {concurrency: 2}
        => 1:96 error bad-throttle workflow[1].throttle: `throttle` has no `name` (write name: stripe)
        type: python, code: 'def main(): pass', throttle: {name: '{{ workload.x }}', concurrency: 2}
        => 1:103 error bad-throttle workflow[1].throttle.name: `name` is '{{ workload.x }}', not a text of 1 to 255 characters without a template (write name: stripe; a template belongs into `key`)
        type: python, code: 'def main(): pass', throttle: {name: api, rate: 10/x}
        => 1:114 error bad-throttle workflow[1].throttle.rate: `rate` is '10/x', not 10/s, 100/m, 5000/h or a number a second (write rate: 10/s; at most 1000000/s)
        type: python, code: 'def main(): pass', throttle: {name: api, concurrency: 2, burst: 3}
        => 1:131 error bad-throttle workflow[1].throttle.burst: `burst` needs a `rate` (add rate: 10/s, or remove it)
        type: python, code: 'def main(): pass', throttle: {name: api, rate: 1, key: [1]}
        => 1:122 error bad-throttle workflow[1].throttle.key: `key` is a list, not a text of up to 1024 bytes, a number or a boolean (write a text of up to 1024 bytes, a number or a boolean)
        type: wait, for: 3d, throttle: {name: api, concurrency: 2}
        => 1:67 error bad-throttle workflow[1].throttle: `throttle` of the step `a` has no meaning: no worker runs the step (write it on steps that workers run)
        type: iterator, collection: [1], element: x, distribute: true, throttle: {name: api, concurrency: 2}, task: {type: python, code: 'def main(): pass'}
        => 1:109 error bad-throttle workflow[1].throttle: `throttle` of the step `a` has no meaning: no worker runs the step (write it in the task: each item has a job)
    """,
    "blocks": """
        type: playbook, args: {n: 1}, workflow: [{step: start, next: x}, {step: x, type: http, url: '{{ n }}'}]
        type: playbook, args: '{{ workload }}', workflow: [{step: start, next: x}, {step: x, type: http, url: '{{ n }}'}]
        type: playbook, args: {n: 1}, loop: {collection: [1], element: e}, workflow: [{step: start, next: x}, {step: x, type: http, url: '{{ n }}'}]
        type: playbook, path: p, version: 3, args: {n: 1}, workflow: [{step: start, next: x}, {step: x, type: http, url: '{{ n }}'}]
        => 1:62 error bad-block workflow[1].path: the playbook step `a` has both `workflow` and `path` (keep one of them)
        => 1:71 error bad-block workflow[1].version: the playbook step `a` has both `workflow` and `version` (remove it: a block has the version of its playbook)
        type: playbook, workflow: {step: start}
        => 1:72 error wrong-type workflow[1].workflow: `workflow` of the step `a` is a mapping, not a list of steps (write workflow: [{step: start, next: …}])
        type: playbook, workflow: [{step: x, next: y}]
        => 1:62 error no-start workflow[1].workflow: the workflow has no step `start` (add {step: start, next: …})
        => 1:89 error unknown-step workflow[1].workflow[0].next: there is no step `y` (known are: x)
        type: playbook, workflow: [{step: start, next: x}, {step: x, type: http, url: '{{ n }}'}]
        => 1:124 warning unknown-name workflow[1].workflow[1].url: the template names `n`, which is neither a step, a workload key nor a scope word (a block sees only the inputs of its step: add it to `args`)
        type: playbook, args: {n: 1}, return_step: y, workflow: [{step: start, next: x}, {step: x, type: http, url: '{{ n }}'}]
        => 1:89 error unknown-step workflow[1].return_step: the block has no step `y` (known are: start, x)
        type: playbook, args: {n: 1}, concurrency: {key: '{{ m }}', limit: 0}, workflow: [{step: start, next: x}, {step: x, type: http, url: '{{ n }}'}]
        => 1:95 warning unknown-name workflow[1].concurrency.key: the template names `m`, which is neither a step, a workload key nor a scope word (a block sees only the inputs of its step: add it to `args`)
        => 1:113 error bad-value workflow[1].concurrency.limit: `limit` is 0, not an integer from 1 to 10000 (write an integer from 1 to 10000)
        type: playbook, path: p, concurrency: {limit: 1}
        => 1:71 warning unused-key workflow[1].concurrency: `concurrency` of the step `a` has no effect (write it in the metadata of that playbook)
        workflow: [{step: start, next: x}, {step: x, type: http, url: '{{ n }}'}]
        => 1:46 error bad-type workflow[1].workflow: the step `a` has a `workflow`, and its type is route (write type: playbook)
        type: http, url: x, workflow: [{step: start}]
        => 1:66 error bad-type workflow[1].workflow: the step `a` has a `workflow`, and its type is http (write type: playbook)
    """,
    "signals": """
        type: wait, signal: ''
        => 1:66 error bad-value workflow[1].signal: `signal` is '', not a text of 1 to 255 characters, or a list of up to 20 such texts (write a text of 1 to 255 characters, or a list of up to 20 such texts)
        type: wait, signal: []
        => 1:66 error bad-value workflow[1].signal: `signal` is a list, not a text of 1 to 255 characters, or a list of up to 20 such texts (write a text of 1 to 255 characters, or a list of up to 20 such texts)
        type: wait, signal: 5
        => 1:66 error bad-value workflow[1].signal: `signal` is 5, not a text of 1 to 255 characters, or a list of up to 20 such texts (write a text of 1 to 255 characters, or a list of up to 20 such texts)
        type: wait, signal: x, key: [1]
        => 1:74 error bad-value workflow[1].key: `key` is a list, not a text of up to 1024 bytes, a number or a boolean (write a text of up to 1024 bytes, a number or a boolean)
        type: wait, signal: x, key: null
        => 1:74 error bad-value workflow[1].key: `key` is null, not a text of up to 1024 bytes, a number or a boolean (write a text of up to 1024 bytes, a number or a boolean, or leave it out)
        type: signal, signal: x, key: null
        => 1:76 error bad-value workflow[1].key: `key` is null, not a text of up to 1024 bytes, a number or a boolean (write a text of up to 1024 bytes, a number or a boolean, or leave it out)
        type: wait, signal: x, since: soon
        => 1:76 error bad-value workflow[1].since: `since` is 'soon', not a duration (write a number of seconds, 90s, 15m, 2h30m, 3d, 2w or P3DT12H)
        type: wait, signal: x, when: a b
        => 1:75 error bad-when workflow[1].when: bad `when`: expected token 'end of print statement', got 'b' (write when: "{{ expression }}")
        type: wait, signal: x, retry: 2
        => 1:76 error bad-wait workflow[1].retry: `retry` of the wait step `a` has no meaning (remove it)
        type: wait, signal: x, for: 1d
        => 1:66 error bad-wait workflow[1].signal: the wait step `a` has `for` and `signal` (write one of for: 3d, until: a moment, signal: a name)
        type: wait, for: 1d, key: x
        => 1:72 error bad-wait workflow[1].key: `key` of the wait step `a` needs `signal` (remove it, or wait for a signal)
        type: signal
        => 1:36 error missing-key workflow[1]: the signal step `a` names no signal (write signal: name-of-the-signal)
        type: signal, signal: [x]
        => 1:68 error bad-value workflow[1].signal: `signal` is a list, not a text of 1 to 255 characters (write a text of 1 to 255 characters)
        type: signal, signal: x, retry: 2
        => 1:78 error bad-wait workflow[1].retry: `retry` of the signal step `a` has no meaning (remove it)
    """,
    "iterators": """
        type: iterator, collection: [1], element: n, tolerate: 120%, task: {type: http, url: u}
        => 1:101 error bad-iterator workflow[1].tolerate: `tolerate` is '120%', not a number of items or a percentage (write tolerate: 5 (at most 1,000,000), or tolerate: 20% (at most 100%))
        type: iterator, collection: [1], element: n, tolerate: true, task: {type: http, url: u}
        => 1:101 error bad-iterator workflow[1].tolerate: `tolerate` is true, not a number of items or a percentage (write tolerate: 5 (at most 1,000,000), or tolerate: 20% (at most 100%))
        type: iterator, collection: [1], element: n, tolerate: 5, on_error: continue, task: {type: http, url: u}
        => 1:104 error bad-iterator workflow[1].on_error: the iterator `a` has `on_error` and `tolerate`, and both say what a failed item does (keep one: tolerate: 0 is on_error: fail, tolerate: 100% is on_error: continue)
        type: iterator, collection: [1], element: n, tolerate: 2.5%, task: {type: http, url: u}
        type: iterator, collection: [1], element: n, tolerate: 0, task: {type: http, url: u}
        type: iterator, collection: [1], element: n, task: {type: http, url: u, catch: {when: true}}
        => 1:125 error bad-catch workflow[1].task.catch: an entry of `catch` in the task of the iterator `a` has no `result` (write result: with the value that the item counts as done with; null is one)
        type: iterator, collection: [1], element: n, task: {type: http, url: u, catch: [5]}
        => 1:126 error bad-catch workflow[1].task.catch[0]: an entry of `catch` in the task of the iterator `a` is a number (write {when: …, result: …})
        type: iterator, collection: [1], element: n, task: {type: http, url: u, catch: {step: b, result: 1}}
        => 1:126 error bad-catch workflow[1].task.catch.step: `step` in the `catch` of the task of the iterator `a`: an item goes to no step (write result: with the value of the item, or put catch on the step)
        type: iterator, collection: [1], element: n, task: {type: http, url: u, catch: {result: 1, when: 'a b'}}
        => 1:143 error bad-catch workflow[1].task.catch.when: bad `when`: expected token 'end of print statement', got 'b' (write when: "{{ expression }}")
        type: iterator, collection: [1], element: n, task: {type: http, url: u, catch: {result: 1, wen: x}}
        => 1:137 error unknown-key workflow[1].task.catch.wen: unknown key `wen` in `catch` (did you mean `when`?)
        type: iterator, collection: [1], element: n, task: {type: http, url: u, catch: [{result: 1}, {result: 2}]}
        => 1:139 warning dead-catch workflow[1].task.catch[1]: this catch can never be taken: entry 1 has no `when`, so it is always taken (move the entry without `when` to the end)
    """,
    "playbooks": """
        type: playbook, path: 5
        => 1:68 error bad-value workflow[1].path: `path` is a number, not the path of a playbook (write path: folder/of/the/playbook)
        type: playbook, path: p, version: 0
        => 1:80 error bad-value workflow[1].version: `version` is 0, not a whole number from 1 to 2147483647 (write it without quotes, or a template that gives one)
        type: playbook, path: p, version: 1.5
        => 1:80 error bad-value workflow[1].version: `version` is 1.5, not a whole number from 1 to 2147483647 (write it without quotes, or a template that gives one)
        type: playbook, path: p, version: 2147483648
        => 1:80 error bad-value workflow[1].version: `version` is 2147483648, not a whole number from 1 to 2147483647 (write it without quotes, or a template that gives one)
        type: playbook, path: p, version: '0'
        => 1:80 error bad-value workflow[1].version: `version` is '0', not a whole number from 1 to 2147483647 (write it without quotes, or a template that gives one)
        type: playbook, path: p, version: '2.0'
        => 1:80 error bad-value workflow[1].version: `version` is '2.0', not a whole number from 1 to 2147483647 (write it without quotes, or a template that gives one)
        type: playbook, path: p, version: '2'
        type: playbook, path: p, version: [1]
        => 1:80 error bad-value workflow[1].version: `version` is a list, not a whole number from 1 to 2147483647 (write it without quotes, or a template that gives one)
        type: playbook, path: p, version: '{{ x + }}'
        => 1:80 error bad-template workflow[1].version: the template `{{ x + }}` does not compile: unexpected 'end of print statement' (write text with {{ expression }} in it)
        type: playbook, path: p, return_step: 7
        => 1:84 error bad-value workflow[1].return_step: `return_step` is 7, not the name of a step (write the name of a step of that playbook)
        type: playbook, path: p, return_step: [a]
        => 1:84 error bad-value workflow[1].return_step: `return_step` is a list, not the name of a step (write the name of a step of that playbook)
        type: playbook, path: p, version: 1, return_step: a
        type: playbook, path: p, version: '{{ execution_id }}', return_step: '{{ execution_id }}'
        type: playbook, path: p, version: null, return_step: null
    """,
    "a commit with the result": """
        type: postgres, command: select 1, commit: now
        => 1:89 error bad-value workflow[1].commit: `commit` is 'now', not one of with_result (write one of with_result)
        type: postgres, command: select 1, commit: with_result, auth: warehouse
        => 1:89 error bad-value workflow[1].commit: `commit` of step `a` needs the database of the broker, and `auth` names another one (remove auth, and name the schema with the table; or remove commit)
        type: postgres, command: select 1, commit: with_result, args: {db_host: elsewhere}
        => 1:89 error bad-value workflow[1].commit: `commit` of step `a` needs the database of the broker, and `db_host` names another one (remove db_host, and name the schema with the table; or remove commit)
        type: http, url: u, save: {storage: {type: postgres, host: h}, table: t, data: {a: 1}, commit: with_result}
        => 1:141 error bad-value workflow[1].save.commit: `commit` of step `a` needs the database of the broker, and `host` names another one (remove host, and name the schema with the table; or remove commit)
        type: postgres, command: select 1, commit: with_result, args: {host: '{{ workload.x }}'}, save: {table: t, data: {a: 1}, commit: with_result}
    """,
}
