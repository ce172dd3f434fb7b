"""Every metric of the broker, one declaration each.

To add a metric, declare it here and count it where it happens: `metrics.add(BATCHES)`. If the database knows it, add a
column to `observe` (store/sql/daemon/metrics.sql) and to `OBSERVED` (database.py). Export, sums over processes and the
check of its labels follow. `docs/reference/observability.md` lists the metrics in this order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

PREFIX: Final = "noetl_broker_"

Kind = Literal["counter", "gauge", "histogram"]
Source = Literal["service", "database", "process"]
Labels = tuple[str, ...]

# Upper bounds of histograms in seconds; a last bucket counts what is larger.
WAIT_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
BATCH_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

PATH_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0)

STATUSES: Final = ("COMPLETED", "FAILED", "CANCELLED")
REAPED_KINDS: Final = ("requeued", "lost", "timed_out", "pulled_back")
SCHEDULE_OUTCOMES: Final = ("started", "existing", "skipped", "failed", "pulled_back")
SIGNAL_OUTCOMES: Final = ("started", "existing", "unfit", "hops")
LIMITS: Final = frozenset({
    "max_visits", "max_open_jobs", "max_nesting", "max_turns", "max_fan_out", "max_result_bytes", "max_gathered_bytes",
    "max_payload_bytes", "max_payload_keys", "max_path_chars",
})  # fmt: skip


class Metric(NamedTuple):
    """The declaration of one metric; `name` is without the prefix.

    `source` is who sets it: a service, a query of the database, or the process. `zeros` are values of its only label,
    exported as 0 before the first count. So alerts see the first count as a rise.
    """

    kind: Kind
    name: str
    help: str
    labels: Labels = ()
    source: Source = "service"
    buckets: tuple[float, ...] = ()
    zeros: Iterable[str] = ()

    @property
    def all_labels(self) -> Labels:
        """The exported labels: a metric of a database begins with that label."""
        return self.labels if self.source == "process" else ("database", *self.labels)


def _counter(name: str, text: str, *labels: str, source: Source = "service", zeros: Iterable[str] = ()) -> Metric:
    return Metric("counter", name, text, labels, source, zeros=zeros)


def _gauge(name: str, text: str, *labels: str, source: Source = "database") -> Metric:
    return Metric("gauge", name, text, labels, source)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return Metric("histogram", name, text, labels, buckets=buckets)


# fmt: off
# Asked from the database at each scrape; every broker of a database gives the same answer.
DATABASE_UP = _gauge("database_up", "1 if the database answered; 0 if not, then its other metrics are missing")
OLDEST_UNREAD = _gauge("oldest_unread_seconds", "Age of the oldest undecided event; 0 if there is none")
UNREAD_MAIL = _gauge("unread_mail", "Events that no broker has decided, counted up to 100,000")
DEAD_LETTERS = _gauge("dead_letters", "Dead letters that wait for a person, counted up to 100,000")
EXECUTIONS_RUNNING = _gauge("executions_running", "Executions that have not ended, counted up to 100,000")
EXECUTIONS_PAUSED = _gauge("executions_paused", "Paused executions, counted up to 100,000")
EXECUTIONS_QUEUED = _gauge("executions_queued", "Executions that wait to be admitted, counted up to 100,000")
UNDO_LEFT = _gauge("undo_left_executions", "Ended executions that left something undone, of the first 100,000 rows")
JOBS = _gauge("jobs", "Jobs, counted up to 100,000 for each status: waiting, delayed, leased, throttled", "status")
OLDEST_WAITING_JOB = _gauge("oldest_waiting_job_seconds", "How long the oldest due job has waited for a worker")
JOBS_UNSERVED = _gauge("jobs_unserved", "Jobs that no worker serves, for a minute, counted up to 10,000 a pool")
LEASES_OVERDUE = _gauge("leases_overdue", "Expired leases that no reaper has ended yet")
STALE_ANSWERS = _counter("stale_answers_total", "Refused answers of workers that had lost their lease",
                         source="database")
NOTIFY_QUEUE_USAGE = _gauge("notify_queue_usage", "How full the server's notification queue is, from 0 to 1")
# Set by a verification.
BROKEN_INVARIANTS = _gauge("broken_invariants", "Violations found by the last verification, by invariant", "invariant")
VERIFIED_EXECUTIONS = _gauge("verified_executions", "Executions whose history the last verification looked at")
VERIFY_SECONDS = _gauge("verify_seconds", "How long the last verification took")
LAST_VERIFY = _gauge("last_verify_timestamp_seconds", "When the last complete verification ended, in Unix time")
VERIFY_FAILURES = _counter("verify_failures_total", "Verifications that failed", source="database")
# Counted by the services of a process.
TURNS = _counter("turns_total", "Turns committed, by type of the event and outcome", "event", "outcome")
BATCHES = _counter("batches_total", "Transactions of turns committed")
DRAINS = _counter("drains_total", "How often a process woke and looked for mail")
MAIL_WAIT = _histogram("mail_wait_seconds", "From the time of an event until a broker claimed it", WAIT_BUCKETS)
CLAIM_TIME = _histogram("claim_seconds", "Time to claim the mail of one batch", BATCH_BUCKETS)
EVALUATION_TIME = _histogram("evaluation_seconds", "Processor time to decide one batch", BATCH_BUCKETS)
TRANSACTION_TIME = _histogram("transaction_seconds", "From the claim of one batch to its commit", BATCH_BUCKETS)
LOCK_MISSES = _counter("lock_misses_total", "Mail that was claimed while another broker held its execution")
FAULTS = _counter("faults_total", "Faults after which the broker tried again, by SQLSTATE", "sqlstate")
SET_ASIDE = _counter("set_aside_total", "Events that this broker moved to the dead letters")
SWEPT_MAIL = _counter("swept_mail_total", "Mail found by polling, without a notification")
EXECUTIONS_ENDED = _counter("executions_ended_total", "Executions that ended, by status", "status", zeros=STATUSES)
PATH_STARTS = _counter("path_starts_total", "Executions that began, by playbook; only those of `metrics_paths`", "path")
PATH_ENDS = _counter("path_ends_total", "Executions that ended, by playbook and status; only those of `metrics_paths`",
                     "path", "status")
PATH_TIME = _histogram("path_seconds", "From the start of an execution to its end, by playbook of `metrics_paths`",
                       PATH_BUCKETS, "path")
LIMITS_HIT = _counter("limits_hit_total", "Executions that a limit ended, by the limit", "limit", zeros=LIMITS)
CLOCK_STEPS = _counter("clock_step_seconds_total", "Seconds by which the server's clock stepped back")
REAPED = _counter("reaped_total", "What the reaper did, such as ending leases and timeouts", "what",
                  zeros=REAPED_KINDS)
SCHEDULE_MOMENTS = _counter("schedule_moments_total", "Moments of schedules, by what became of them", "outcome",
                            zeros=SCHEDULE_OUTCOMES)
SCHEDULE_LATENESS = _histogram("schedule_lateness_seconds", "From the due time of a moment to its start", WAIT_BUCKETS)
TIMERS_FIRED = _counter("timers_fired_total", "Timers that became events at their moment")
TIMER_LATENESS = _histogram("timer_lateness_seconds", "How late a transaction fired its oldest timer", WAIT_BUCKETS)
JOBS_RELEASED = _counter("throttled_jobs_released_total", "Held jobs that brokers released, by why", "why",
                        zeros=("request", "sweep"))
SIGNALS_DELIVERED = _counter("signals_delivered_total", "Signals delivered to waits")
SIGNAL_COPY_WAIT = _histogram("signal_copy_seconds", "How old the oldest signal was when a transaction wrote copies",
                              WAIT_BUCKETS)
SIGNAL_STARTS = _counter("signal_starts_total", "Signals for playbooks that they may start, by what became of them",
                         "outcome", zeros=SIGNAL_OUTCOMES)
UNDO_FAILURES = _counter("undo_failures_total", "Undos that failed for good")
LATE = _counter("late_total", "Executions and visits that were reported late", "of", zeros=("execution", "step"))
SIGNAL_ERRORS = _counter("signal_errors_total", "Conditions on signals that failed, so that the signal did not fit")
SIGNALS_SWEPT = _counter("signals_swept_total", "Signals deleted because nobody can take them any more")
SWEPT_MATCH_REQUESTS = _counter("swept_match_requests_total", "Signals found by polling, without a notification")
SWEPT_SLOTS = _counter("swept_slots_total", "Executions that got their slot only from the reaper")
LISTENER_CONNECTED = _gauge("listener_connected", "Processes whose listener is connected", source="service")
LISTENER_RECONNECTS = _counter("listener_reconnects_total", "Reconnects of the listener")
LISTENER_DEAF = _counter("listener_deaf_total", "Probes that the listener did not receive")
SPANS = _counter("spans_total", "Spans handed to the exporter; 0 if traces are off")
SPANS_DROPPED = _counter("spans_dropped_total", "Spans dropped because too many waited")
# Of the process.
PROCESSES = _gauge("processes", "Processes that take turns", source="process")
PROCESS_RESTARTS = _counter("process_restarts_total", "Processes that died and were restarted", source="process")
CPU_TIME = _counter("cpu_seconds_total", "Processor time of the processes", source="process")
MEMORY = _gauge("memory_bytes", "Resident memory of the processes, if the system reports it", source="process")
INFO = _gauge("info", "Always 1; says the version", "version", source="process")
# fmt: on

METRICS: Final = tuple(each for each in [*globals().values()] if isinstance(each, Metric))
BY_NAME: Final = {metric.name: metric for metric in METRICS}
