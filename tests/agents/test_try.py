import json
from tests.agents.conftest import *
from tests.brokers import *
from tests.console.conftest import console
from tests.console.test_access import token

async def test_it(database):
    await register(database, "workflow: [{step: start, next: a}, {step: a, type: fail, error: no street}]")
    [one] = await start(database)
    await drain(database)
    async with over_stdio(database, "operator") as agent:
        for name, tool in (await agent.tools()).items():
            print(name, len(tool.model_dump_json(exclude_none=True)), tool.description)
        print(tool.model_dump_json(exclude_none=True))
        for call in [("list_executions", {}), ("show_execution", {"execution_id": str(one)}), ("explain", {"execution_id": str(one)}), ("list_events", {"execution_id": str(one)}),("preview_retry", {"execution_id": str(one)}),("retry_execution", {"execution_id": one}),
           ("nix",{}), ("explain", {"execution_id": "7"}), ("explain", {"execution_id": "x"}), ("act_on_many", {"action":"retry","which":{"status":"FAILED"}}),
           ("list_playbooks", {}), ("show_source", {"path": "story"}), 
           ("simulate", {"content": "apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {path: story}\nworkflow: [{step: start, next: a}, {step: a, type: python, code: 'def main(): return 1', next: end}, {step: end, result: '{{ a }}'}]", "answers": {"a": 5}}),
           ("back_test", {"content": "apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {path: story}\nworkflow: [{step: start, next: b}, {step: b, type: python, code: 'def main(): return 1', next: end}, {step: end, result: '{{ b }}'}]"}),
           ]:
            print(call, (await agent.answer(call[0], **call[1])))
    for mode in ("auto", "legacy"):
        async with console(database) as client, over_http(str(client.base_url).rstrip("/"), mode=mode) as agent:
            print(len(await agent.tools()), await agent.ask("list_executions"), agent.client.protocol_version)
            r = await client.get("/mcp"); print(r.status_code, r.text)
