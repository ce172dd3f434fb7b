"""Reads `retry`: true, false, a number of attempts, or a mapping."""

from __future__ import annotations

from typing import Any

from noetl_broker.playbook.diagnostics import Location, json_type_name
from noetl_broker.playbook.keys import BOOLEAN, CONDITION, Key, Keys, integer, number, seconds
from noetl_broker.playbook.keywords import PLAIN_RETRY_WORDS, RETRY_WORDS
from noetl_broker.playbook.model import Retry
from noetl_broker.playbook.reader import NO_NAMES, Reading, TemplateSite
from noetl_broker.playbook.template_reads import reads_of

CODE = "bad-retry"
DELAY = seconds(0, 31_536_000)
ATTEMPTS = Key("max_attempts", integer(1, 1_000), "Attempts in all.")
KEYS = Keys(
    model="RetryModel",
    about="When a failed action is tried again.",
    word="retry",
    code=CODE,
    compiled=Retry,
    keys=(
        ATTEMPTS,
        Key("initial_delay", DELAY, "Before the second attempt: seconds, 90s, 15m."),
        Key("backoff_multiplier", number(0, 1_000), "Each delay is the delay before it, times this."),
        Key("max_delay", DELAY, "The longest delay: seconds, 90s, 15m."),
        Key("jitter", BOOLEAN, "Vary each delay by half of it, up or down."),
        Key(
            "retry_when",
            CONDITION,
            "Try again only if true.",
            null=False,
        ),
        Key("stop_when", CONDITION, "Do not try again if true; read before retry_when.", null=False),
    ),
)

# Keys of a newer dialect, with hints.
NEWER_KEYS = {
    "on_error": "write max_attempts, initial_delay and retry_when directly under `retry`",
    "on_success": "the broker does not repeat a step that succeeded: make a loop of steps with a condition",
}
# `error` is a text. For some keys that authors expect in it, there is another word.
IN_PLACE_OF_KEYS = {
    **dict.fromkeys(("type", "kind"), "error_type"),
    **dict.fromkeys(("status_code", "status", "code"), "status_code"),
}


def read_retry(
    reading: Reading, step: str, raw: Any, location: Location, *, names: frozenset[str] = NO_NAMES
) -> Retry | None:
    """Read a `retry`; None if it is null, or wrong (then an error is reported).

    `names` are the names of an item, which its conditions find, too.
    """
    if raw is None:
        return None
    site = TemplateSite(step=step, role="retry", names=RETRY_WORDS | names)
    if isinstance(raw, bool):
        return Retry() if raw else Retry(max_attempts=1)
    if isinstance(raw, int):
        attempts = ATTEMPTS.form.read(reading, raw, location, site, CODE)
        return None if attempts is None else Retry(max_attempts=attempts)
    if isinstance(raw, dict):
        found = KEYS.read_mapping(reading, raw, location, site, NEWER_KEYS) or {}
        for key in ("retry_when", "stop_when"):
            template = found.get(key)
            for name in sorted(RETRY_WORDS & reading.steps.keys() & template.names) if template is not None else ():
                message = f"the step `{name}` hides the word of that name in `{key}`"
                reading.report.warning("shadowed-name", (*location, key), message, "rename the step")
        return Retry(**found)
    reading.report.error(
        CODE,
        location,
        f"`retry` is {json_type_name(raw)}",
        "write true, false, a number of attempts, or {max_attempts: 3, …}",
    )
    return None


def refuse_keys_of_retry_words(reading: Reading) -> None:
    """Report retry conditions that read a key of a text or a number, which has none.

    Registration refuses them. Compiling does not: playbooks that are registered already keep running.
    """
    for use in reading.uses:
        if use.part.role != "retry" or not isinstance(use.value, str):
            continue
        for word, key in sorted({(path[0], path[1]) for path in reads_of(use.value) if len(path) > 1}, key=str):
            what = PLAIN_RETRY_WORDS.get(str(word))
            is_character = isinstance(key, int) and what is not None and what.startswith("a text")
            if what is None or word in reading.steps or is_character:
                continue
            instead = IN_PLACE_OF_KEYS.get(str(key), word) if word == "error" else word
            found = f"a condition of a retry can read {', '.join(PLAIN_RETRY_WORDS)} and result"
            message = f"`{use.location[-1]}` reads `{word}.{key}`, and `{word}` is {what}"
            reading.report.error(CODE, use.location, message, f"write `{instead}`; {found}")
