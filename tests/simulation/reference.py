"""A naive interpreter of plans, written from the specification alone: the whole graph looked at again at each step.

It shares no line with the core and knows nothing of it. It is told what happened in one execution, one event at a time,
and says what must come of each. Where the specification leaves an order open, it is that of the events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tests.simulation.expressions import MISSING, Outcome, Unfit, is_true
from tests.simulation.gathering import merged, reach, ready
from tests.simulation.plans import Inputs, Iterate, Plan, Retry, Step
from tests.simulation.tokens import Arc, Happened, Items, Said, Token, arcs_of

ENVELOPE = {"id", "status", "data", "error", "meta", "duration"}
MOST_STARTED = 100  # items that one turn starts
NO_ERROR: Mapping[str, Any] = {}


class _Over(Exception):
    """The execution ended in the middle of a turn."""


class Reference:
    """One execution of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.steps = {step.name: step for step in plan.steps}
        self.max_visits = plan.max_visits
        self.deadline = plan.deadline
        self.workload: dict[str, Any] = plan.workload
        self.arcs = [*arcs_of(plan)]
        self.running: list[Token] = []
        self.waiting: list[Token] = []
        self.travelling: list[Token] = []
        self.visits: Counter[str] = Counter()
        self.outcomes: dict[str, dict[int, Outcome]] = {}
        self.branch_ends: dict[str, None] = {}
        self.end: Token | None = None
        self.status = "NEW"
        self.result: Any = None
        self.error = NO_ERROR  # of the action that failed it; nothing where a template did
        self.said: list[Said] = []

    # What happens.

    def take(self, happened: Happened) -> list[Said]:
        """Return what comes of an event; nothing, if it changes nothing."""
        self.said = []
        try:
            self._react(happened)
        except _Over:
            self.running, self.waiting, self.travelling = [], [], []
        for token in self.waiting:
            token.passed = frozenset()
        return self.said

    def _react(self, happened: Happened) -> None:
        if happened.kind == "start" and self.status == "NEW":
            self._start(happened.value)
        if happened.kind == "start" or self.status != "RUNNING":
            return
        if happened.kind == "cancel":
            self._finish("CANCELLED")
        if happened.kind == "deadline" and self.deadline is not None:
            self._finish("FAILED")
        for token in self.running:
            if token.node == happened.node:
                self._react_in(token, happened)
                self._settle()
                return

    def _react_in(self, token: Token, happened: Happened) -> None:
        """Something happened in a visit that is open."""
        if token.items is not None and happened.kind != "failed":
            self._react_of_items(token, token.items, happened)
        elif self._is_old(token, happened):
            return
        elif happened.kind == "completed":
            iterates = self.steps[token.step].iterate is not None
            self._leave(token, _outcome(happened.value)._replace(failed=() if iterates else None))
        elif happened.kind == "failed":
            self._failed_attempt(token, happened)
        elif happened.kind == "due" and token.is_due and happened.lease in {None, token.failures + 1}:
            token.is_due = False
            self._say("child", token.node, (None, self.steps[token.step].path, token.inputs))

    def _start(self, payload: Mapping[str, Any]) -> None:
        self.status = "RUNNING"
        self.workload = _laid_over(self.workload, payload)
        self._enter("start", [Token(step="start")])
        self._settle()

    def _is_old(self, token: Token, happened: Happened) -> bool:
        """Tell whether it speaks of an attempt that has been counted, or of a lease that somebody else has now.

        An answer of a child that was given up counts no more, however it ended; a result of an action always counts.
        """
        failed = happened.kind == "failed"
        lease = happened.leases if failed and happened.lease is None else happened.lease or 0
        if failed and not happened.through_job and happened.leases and lease != happened.leases:
            return True
        return (failed or self.steps[token.step].kind == "playbook") and 0 < lease <= token.failed_lease

    def _failed_attempt(self, token: Token, happened: Happened) -> None:
        step = self.steps[token.step]
        token.failures += 1
        lease = happened.leases if happened.lease is None else happened.lease
        token.failed_lease = max(token.failed_lease, token.failures if step.kind == "playbook" else lease)
        if (
            step.retry
            and token.items is None
            and happened.may_retry
            and self._tries_again(step.retry, token, happened.value)
        ):
            token.is_due = step.kind == "playbook"
            delay = step.retry.initial_delay * step.retry.backoff_multiplier ** (token.failures - 1)
            self._say("action_retry", token.node, float(min(delay, step.retry.max_delay)))
            return
        self._failed(token, happened.value)

    def _tries_again(self, retry: Retry, token: Token, error: Any) -> bool:
        if token.failures >= retry.max_attempts:
            return False
        words = {
            **token.inputs,
            "error": error.get("message"),
            "error_type": error.get("type") or "",
            "status_code": error.get("status_code", 0),
            "result": None,
            "attempt": token.failures,
        }
        scope = lambda name: words.get(name, MISSING)  # noqa: E731
        try:
            if retry.stop_when is not None and is_true(retry.stop_when.evaluate(scope)):
                return False
            return retry.retry_when is None or is_true(retry.retry_when.evaluate(scope))
        except Unfit:
            return False

    def _failed(self, token: Token, error: Any) -> None:
        """A step failed for good."""
        if self.steps[token.step].on_error == "continue":
            failed = None if token.items is None else token.items.failed_in_order
            self._leave(token, Outcome(None, "FAILED", error, failed), failed=True)
        else:
            self._fail_for_good(token, error)

    def _fail_for_good(self, token: Token, error: Any) -> None:
        """Fail a step, whatever its `on_error` says."""
        failed = None if token.items is None else token.items.failed_in_order
        self.outcomes.setdefault(token.step, {})[token.visit] = Outcome(None, "FAILED", error, failed)
        self._fail_token(token, error)

    def _fail_token(self, token: Token, error: Mapping[str, Any] = NO_ERROR) -> None:
        """Fail a step where a token is, and with it the execution; of a spent one it is recorded, and fails nothing."""
        if not self._is_lost(token):
            self._fail(token.node, error)
        self._say("step_failed", token.node)
        self.running = [other for other in self.running if other is not token]

    def _is_lost(self, token: Token) -> bool:
        """Tell whether a token has lost a race that it could still come to."""
        return bool(token.spent & reach(self.arcs, Token(step=token.step)))

    def _fail(self, node: str, error: Mapping[str, Any] = NO_ERROR) -> None:
        """Fail a step, and with it the execution."""
        self.error = error
        self._say("step_failed", node)
        self._finish("FAILED")

    def _finish(self, status: str) -> None:
        self.status = status
        words = {"COMPLETED": "execution_complete", "FAILED": "execution_failed", "CANCELLED": "execution_cancelled"}
        self._say(words[status], "", self.result)
        raise _Over

    def _say(self, what: str, node: str = "", detail: Any = None) -> None:
        self.said.append(Said(what, node, detail))

    # Leaving a step.

    def _leave(self, token: Token, outcome: Outcome, *, failed: bool = False) -> None:
        """A visit with an outcome ends: its transitions fire."""
        self.running.remove(token)
        self.outcomes.setdefault(token.step, {})[token.visit] = outcome
        token.result = outcome.data
        # Whoever has lost a race that it could still come to counts no more.
        token.origins = frozenset() if self._is_lost(token) else frozenset([token.step])
        if token.step == "end":
            self.end = token
        self._follow(token, failed=failed)

    def _follow(self, token: Token, *, failed: bool = False) -> None:
        """Decide on the transitions of a token that leaves its step, and send tokens along them."""
        step = self.steps[token.step]
        try:
            leaving = self._fired(step, token)
        except Unfit:
            self._fail_token(token)
            return
        if token.step != "start" or step.kind != "router":
            self._say("step_failed" if failed else "step_completed", token.node)
        if not leaving:
            self._end_branch(token)
        for arc, given in leaving:
            self.travelling.append(
                Token(
                    step=arc.target,
                    arc=arc.number,
                    given=given,
                    result=token.result,
                    origins=token.origins,
                    spent=token.spent,
                    passed=token.passed if step.kind == "router" else frozenset(),
                )
            )

    def _end_branch(self, token: Token) -> None:
        self.branch_ends |= dict.fromkeys(sorted(token.origins))

    def _fired(self, step: Step, token: Token) -> list[tuple[Arc, dict[str, Any]]]:
        arcs = [arc for arc in self.arcs if arc.source == step.name]
        scope = self._scope(token)
        fired: list[Arc] = []
        fallbacks: list[Arc] = []
        matched = conditional = False
        for entry in step.entries:
            then, otherwise = arcs[: len(entry.then)], arcs[len(entry.then) :][: len(entry.otherwise)]
            arcs = arcs[len(entry.then) + len(entry.otherwise) :]
            if entry.when is not None:
                conditional = True
                if matched and step.exclusive:
                    continue
                holds = is_true(entry.when.evaluate(scope))
                matched = matched or holds
                fired += then if holds else otherwise
            elif entry.is_only_else or conditional:
                fallbacks += otherwise if entry.is_only_else else then
            else:
                fired += then
        fired += [] if matched else fallbacks
        return [(arc, _rendered(arc.inputs, scope)) for arc in sorted(fired)]

    # Names.

    def _scope(self, token: Token, more: Mapping[str, Any] | None = None) -> Any:
        words = {"workload": self.workload, "result": token.result, "args": token.inputs, **(more or {})}
        own = self.outcomes.get(token.step, {}).get(token.visit)

        def look(name: str) -> Any:
            if name in token.inputs:
                return token.inputs[name]
            if own is not None and name == token.step:
                return own
            if name in self.outcomes:
                return self._latest(name)
            return words[name] if name in words else self.workload.get(name, MISSING)

        return look

    def _about(self, token: Token, item: Any) -> Any:
        """Return the names of what asks about an item: it hides an input of its name, and a step hides it."""
        look = self._scope(token)
        return lambda name: item if name == "item" and name not in self.outcomes else look(name)

    def data_of(self, name: str) -> Any:
        """Return the data of a step; null where it never ran."""
        return self._latest(name).data if name in self.outcomes else None

    def _latest(self, name: str) -> Outcome:
        return self.outcomes[name][max(self.outcomes[name])]

    # Arriving at a step.

    def _settle(self) -> None:
        """Let everything move that can: first all that is under way, then one waiting join, and again."""
        while True:
            while self.travelling:
                self._arrive(self.travelling.pop(0))
            name = self._next_join()
            if name is None:
                break
            gathered = [token for token in self.waiting if token.step == name]
            self.waiting = [token for token in self.waiting if token.step != name]
            self._enter(name, gathered)
        if not self.running:
            self._complete()

    def _arrive(self, token: Token) -> None:
        kind = self._join_of(token.step)
        if kind in {"all", "last"}:
            self.waiting.append(token)
        elif kind != "any":
            self._enter(token.step, [token])
        elif token.step not in token.spent:
            self._spend_others(token.step)
            self._enter(token.step, [token])

    def _spend_others(self, join: str) -> None:
        """Spend all other tokens that can still reach a join: those that wait as the one that they will be."""
        for other in self.running:
            if join in reach(self.arcs, other):
                other.spent |= {join}
        for name in self.steps:
            gathered = [token for token in self.waiting if token.step == name]
            if gathered and join in reach(self.arcs, merged(gathered)):
                for other in gathered:
                    other.spent |= {join}
                    other.origins = frozenset()
        for other in self.travelling:
            # One that is spent for the step that it is under way to ends there.
            if other.step not in other.spent and join in {other.step} | reach(self.arcs, other):
                other.spent |= {join}
                other.origins = frozenset()

    def _join_of(self, name: str) -> str | None:
        """Say how a step gathers: all, any, each, `last` (when nothing else lives) or not at all."""
        step = self.steps[name]
        if step.join:
            return step.join
        if name == "end":
            return "last"
        return "all" if sum(arc.target == name for arc in self.arcs) > 1 else None

    def _enter(self, name: str, tokens: list[Token]) -> None:
        """Begin a visit of what arrived."""
        step = self.steps[name]
        token = merged(tokens)
        self.visits[name] += 1
        token.visit = self.visits[name]
        token.node = name if token.visit == 1 else f"{name}#{token.visit}"
        if self.visits.total() > self.max_visits:
            self._fail(token.node)
        if step.kind != "router" or name not in {"start", "end"}:
            self._say("step_started", token.node)
        if name in token.passed:
            self._fail_token(token)
            return
        try:
            token.inputs = {**token.given, **_rendered(step.inputs, self._scope(token), without=token.given)}
            self._begin(step, token)
        except Unfit:
            self._fail_token(token)

    def _begin(self, step: Step, token: Token) -> None:
        if step.kind == "router" and step.name == "end":
            self.end = token
            self._end_branch(token)
            return
        if step.kind == "router":
            token.passed |= {step.name}
            self._follow(token)
            return
        if step.iterate:
            values = self._values(step.iterate, token)
            token.items = None if step.iterate.by_worker else Items(iterate=step.iterate, values=values)
        self.running.append(token)
        if token.items is not None:
            self._say("iterator_started", token.node, len(token.items.values))
            self._start_items(token, token.items)
        elif step.kind == "playbook":
            self._say("child", token.node, (None, step.path, token.inputs))
        else:
            self._say("job", token.node, token.inputs)

    def _next_join(self) -> str | None:
        """Return the waiting join that runs next; `end` when nothing else lives."""
        names = [name for name in self.steps if any(token.step == name for token in self.waiting)]
        joins = [name for name in names if self._join_of(name) == "all"]
        if joins or self.running:
            return ready(self.arcs, joins, self.waiting, self.running)
        return names[0] if names else None

    # Iterators.

    def _values(self, iterate: Iterate, token: Token) -> list[Any]:
        collection = iterate.collection.evaluate(self._scope(token))
        if isinstance(collection, Mapping):
            keys = sorted(collection, key=lambda key: (len(key), key))  # as Postgres keeps them, who was told of them
            collection = [{"key": key, "value": collection[key]} for key in keys]
        if not isinstance(collection, list):
            raise Unfit(f"{collection!r} is no collection")
        if iterate.where is not None:
            condition = iterate.where
            collection = [item for item in collection if is_true(condition.evaluate(self._about(token, item)))]
        if iterate.order_by is not None:
            order_by = iterate.order_by
            collection = sorted(collection, key=lambda item: order_by.evaluate(self._about(token, item)))
        collection = collection if iterate.limit is None else collection[: iterate.limit]
        size = iterate.chunk
        return collection if size is None else [collection[at : at + size] for at in range(0, len(collection), size)]

    def _start_items(self, token: Token, items: Items) -> None:
        """Start items as long as there are some and they may run."""
        width = items.iterate.concurrency or 1
        started = 0
        while items.next < len(items.values) and len(items.open) < width:
            if started == MOST_STARTED:
                self._say("post", token.node, "iteration_due")
                break
            started += 1
            own = _rendered(items.iterate.inputs, self._scope(token, {"item": items.values[items.next]}))
            inputs = {**token.inputs, **own}
            items.open.add(items.next)
            self._say("iteration_started", token.node, items.next)
            self._say("child" if items.iterate.path else "job", token.node, (items.next, items.iterate.path, inputs))
            items.next += 1
        if not items.open and len(items.results) == len(items.values):
            self._say("post", token.node, "iterator_completed")

    def _react_of_items(self, token: Token, items: Items, happened: Happened) -> None:
        place = happened.place
        if happened.kind == "gathered" and len(items.results) == len(items.values):
            results = [items.results[at] for at in range(len(items.values))]
            self._leave(token, Outcome(results, failed=items.failed_in_order))
        elif happened.kind == "more":
            self._start_items(token, items)
        if place is None or place not in items.open:
            return
        items.open.remove(place)
        if happened.kind == "item_failed":
            self._say("iteration_failed", token.node, place)
            items.failed.add(place)
            if self.steps[token.step].on_error == "fail":
                self._failed(token, happened.value)
                return
            if len(items.failed) == len(items.values):
                self._fail_for_good(token, happened.value)
                return
            items.results[place] = None
        else:
            self._say("iteration_completed", token.node, place)
            items.results[place] = _outcome(happened.value).data
        self._start_items(token, items)

    # The end.

    def _complete(self) -> None:
        """Nothing moves any more: find the result."""
        end = self.steps.get("end")
        if self.end is not None and end is not None:
            try:
                if end.result is not None:
                    self.result = self._end_result(end, self.end)
                    self._finish("COMPLETED")
            except Unfit:
                self._fail_end(end, self.end)
            if end.kind != "router":
                self.result = self._latest("end").data
                self._finish("COMPLETED")
        ends = {name: self._latest(name).data for name in self.branch_ends}
        self.result = None if not ends else next(iter(ends.values())) if len(ends) == 1 else ends
        self._finish("COMPLETED")

    def _fail_end(self, end: Step, token: Token) -> None:
        """Fail `end` for its result; a visit ends once, so what it said of its action in this turn is taken back."""
        done = Said("step_completed", token.node)
        if end.kind == "router":
            self._say("step_failed", token.node)
        elif done in self.said:
            self.said[self.said.index(done)] = Said("step_failed", token.node)
        self._finish("FAILED")

    def _end_result(self, end: Step, token: Token) -> Any:
        scope = self._scope(token)
        result: Any = end.result
        return _rendered(result, scope) if type(result) is tuple else result.evaluate(scope)


def _outcome(result: Any) -> Outcome:
    """Unwrap a result once, if it is an envelope."""
    if isinstance(result, Mapping) and "data" in result and result.keys() <= ENVELOPE:
        return Outcome(result["data"], result.get("status") or "COMPLETED", result.get("error"))
    return Outcome(result)


def _rendered(inputs: Inputs, scope: Any, *, without: Iterable[str] = ()) -> dict[str, Any]:
    return {name: value.evaluate(scope) for name, value in inputs if name not in without}


def _laid_over(below: Any, above: Any) -> Any:
    """Merge two values: mappings key by key, anything else is replaced."""
    if isinstance(below, Mapping) and isinstance(above, Mapping):
        return {**below, **{key: _laid_over(below.get(key), value) for key, value in above.items()}}
    return above
