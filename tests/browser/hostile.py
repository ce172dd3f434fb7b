"""An installation in which each name and value of others is hostile."""

from __future__ import annotations

import json

from tests.browser.site import Site
from tests.stories import document

# If a page forgot to escape one of these somewhere, it would have an element or an attribute of this name.
ELEMENT = "x-evil"
# Names of steps have no `:` and no control characters.
NAME = f"</text></svg></script><{ELEMENT}>\"' {ELEMENT}='1' \"><{ELEMENT}> &lt;"
TEXT = f"{NAME} javascript:alert(1) <img src=//elsewhere.example/x onerror=alert(1)> \u202e\u200b\x1b[2J\r\n<!-- ]]>"
INVISIBLE = "\u202e\u200b\x1b"  # never on a page as they are
PATH = f"hostile/{NAME}\u202e"

_QUOTED = json.dumps(TEXT)
_STEP = json.dumps(NAME)
_CONDITION = json.dumps(f"{{{{ workload.text == '<{ELEMENT}>' }}}}")
WAITS = f"""
workload: {{text: plain, {json.dumps(TEXT)}: 1}}
workload_schema: {{type: object, properties: {{text: {{type: string, title: {_QUOTED}, description: {_QUOTED}}}}}}}
workflow:
  - {{step: start, desc: {_QUOTED}, next: {_STEP}}}
  - step: {_STEP}
    type: python
    desc: {_QUOTED}
    args: {{text: "{{{{ workload.text }}}}"}}
    code: |
      def main(text):
          print(text)
          return {{text: text}}
    next: [ask, hold, mail, {{when: {_CONDITION}, step: never}}]
  - step: ask
    type: approval
    title: "{{{{ workload.text }}}}"
    details: {{{json.dumps(NAME)}: "{{{{ workload.text }}}}"}}
    form: {{discount: {{type: number, title: {_QUOTED}, default: 0}}}}
    approvers: [{_QUOTED}]
    next: end
  - {{step: hold, type: wait, signal: {_STEP}, key: "{{{{ workload.text }}}}", next: end}}
  - step: mail
    type: of_no_worker
    throttle: {{name: {_STEP}, key: "{{{{ workload.text }}}}", concurrency: 9}}
    next: end
  - {{step: never, next: end}}
  - step: end
"""
FAILS = f"""
workload: {{text: plain}}
workflow:
  - {{step: start, next: {_STEP}}}
  - step: {_STEP}
    type: python
    args: {{text: "{{{{ workload.text }}}}"}}
    code: |
      def main(text):
          print(text)
          raise ValueError(text)
    next: end
  - step: end
"""


UNDONE = f"""
workload: {{text: plain}}
workflow:
  - {{step: start, next: {_STEP}}}
  - step: {_STEP}
    type: python
    args: {{text: "{{{{ workload.text }}}}"}}
    code: "def main(text): return text"
    compensate: {{type: python, args: {{text: "{{{{ result }}}}"}}, code: "def main(text): raise ValueError(text)"}}
    next: fails
  - {{step: fails, type: python, code: "def main(): raise ValueError('no')", next: end}}
  - step: end
"""

ITEMS = """
workload: {text: plain}
workflow:
  - {step: start, next: each}
  - step: each
    type: iterator
    distribute: true
    collection: ["{{ workload.text }}", fine]
    element: text
    on_error: continue
    task:
      type: python
      args: {text: "{{ text }}"}
      code: |
        def main(text):
            if text != "fine":
                raise ValueError(text)
    next: end
  - step: end
"""


def prepare(site: Site) -> list[str]:
    """Run executions with hostile texts wherever others can put one; give the addresses of what came of it."""
    site.register(PATH, WAITS)
    site.register(PATH, WAITS.replace("never", "nowhere"), version=2)
    site.register(f"{PATH}/fails", FAILS)
    [waiting] = site.start(PATH, {"text": TEXT, NAME: TEXT, "long": TEXT * 100})
    [failed] = site.run(f"{PATH}/fails", {"text": TEXT})
    site.register(f"{PATH}/items", ITEMS)
    [items] = site.run(f"{PATH}/items", {"text": TEXT})
    site.register(f"{PATH}/undone", UNDONE)
    undoing_body = UNDONE.replace("compensate: {type: python", "compensate: {type: of_no_worker")
    one_each = 'concurrency: {key: "{{ workload.text }}", limit: 1}'
    site.put(f"{PATH}/undoing", document(undoing_body, path=json.dumps(f"{PATH}/undoing"), metadata=one_each))
    site.rows("select noetl.put_throttle(%s, 5, null, null)", NAME)
    [undone] = site.run(f"{PATH}/undone", {"text": TEXT})
    undoing, queued = site.start(f"{PATH}/undoing", {"text": TEXT}, count=2)
    site.until_status(undoing, "COMPENSATING")
    site.until_status(queued, "QUEUED")
    site.until_step(waiting, "ask", "RUNNING")
    site.rows("select noetl.send_signal(%s, %s, to_jsonb(%s::text))", TEXT, TEXT, TEXT)
    site.rows("select noetl.lease_jobs(%s, 1, 3600, '{of_no_worker}')", TEXT)
    site.rows(
        "select noetl.put_schedule(%s, %s, cron => '0 2 * * *', payload => jsonb_build_object('text', %s::text))",
        *(NAME, PATH, TEXT),
    )
    site.rows("select noetl.pause_path(%s, %s)", PATH, TEXT)
    site.rows(
        "insert into noetl.dead_letter (execution_id, event_id, reason) select execution_id, event_id, %s"
        " from noetl.event where execution_id = %s limit 1",
        *(TEXT, failed),
    )
    return [f"/executions/{one}" for one in (waiting, failed, items, undone, undoing, queued)]
