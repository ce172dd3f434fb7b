"""The service: one module a noun, one function an action. Command line, HTTP API, console and client call it.

How an action is added:

1. Its request and its answer are models in `models/`, with bounds, defaults and descriptions.
2. Its function is `@action(Role.…, Answer)` in the module of its noun. It says when the action can be done.
3. Each face has a row: `console/api/routes.py`, a command in `cli/`, a page or a form in `console/pages/`.
"""
