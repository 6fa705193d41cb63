"""Spans of OpenTelemetry around adding jobs and around their runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.context import Context as TraceContext
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from hasten.errors import StoreUnavailable
from hasten.jobs import Context, Queue, RetryAfter, Worker
from hasten.jobs import _tracing as tracing
from hasten.jobs._options import Options, decode_options, encode_options
from hasten.jobs._spans import Propagation
from hasten.jobs._trace_context import MAX_CONTEXT, add_context, read_context, split_context
from hasten.testing import ManualClock
from tests.jobs import observed_tasks
from tests.jobs.eventually import until
from tests.jobs.spans import Spans, provider, recorded_spans


@pytest.fixture
def spans() -> Iterator[Spans]:
    tracing.make_spans.cache_clear()  # logged errors are not logged again for a minute
    with recorded_spans() as spans:
        yield spans


def trace_of(span: ReadableSpan) -> int:
    found = span.get_span_context()
    assert found is not None
    return found.trace_id


def id_of(span: ReadableSpan) -> int:
    found = span.get_span_context()
    assert found is not None
    return found.span_id


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def linked(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def run_all(queue: Queue, spans: Spans, runs: int) -> list[ReadableSpan]:
    """Run the jobs of a queue, and return the spans of so many runs."""
    async with Worker(queue):
        await until(lambda: len(spans.named("process mail")) >= runs)
    return spans.named("process mail")


class TestSpans:
    async def test_the_first_run_is_a_child_of_the_call(self, queue: Queue, spans: Spans) -> None:
        @queue.task
        async def send(to: str) -> int:
            return trace.get_current_span().get_span_context().span_id

        with trace.get_tracer("app").start_as_current_span("request") as request:
            job = await send.enqueue("ada")
        (run,) = await run_all(queue, spans, 1)
        (call,) = spans.named("send mail")
        assert parent_of(call) == request.get_span_context().span_id
        assert (parent_of(run), trace_of(run)) == (id_of(call), trace_of(call))
        assert (call.kind, run.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
        assert await job.result() == id_of(run)  # the handler's own spans are children of the run
        assert facts(call) == {
            "messaging.system": "hasten",
            "messaging.destination.name": "mail",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.message.id": job.id,
            "hasten.task": "send",
        }
        worker = facts(run).pop("hasten.worker")
        assert facts(run) == {
            "messaging.system": "hasten",
            "messaging.destination.name": "mail",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.message.id": job.id,
            "hasten.task": "send",
            "hasten.attempt": 1,
            "hasten.worker": worker,
        }

    async def test_a_retry_is_linked(self, queue: Queue, spans: Spans) -> None:
        @queue.task(attempts=2)
        async def send() -> None:
            raise LookupError("boom")

        await send.enqueue()
        first, second = await run_all(queue, spans, 2)
        (call,) = spans.named("send mail")
        assert (parent_of(first), linked(first)) == (id_of(call), [])
        assert (parent_of(second), linked(second)) == (None, [id_of(call)])
        assert trace_of(second) != trace_of(call)
        assert facts(second)["hasten.attempt"] == 2
        assert [facts(run)["hasten.outcome"] for run in (first, second)] == ["retry", "failed"]

    async def test_a_failed_run_has_its_error(self, queue: Queue, spans: Spans) -> None:
        @queue.task
        def send() -> None:
            raise LookupError("boom")

        await send.enqueue()
        (run,) = await run_all(queue, spans, 1)
        assert run.status.status_code is StatusCode.ERROR
        assert run.status.description == "LookupError: boom"
        assert facts(run)["error.type"] == "LookupError"
        (event,) = run.events
        attributes = dict(event.attributes or {})
        assert "LookupError: boom" in str(attributes.pop("exception.stacktrace"))
        assert attributes == {"exception.type": "LookupError", "exception.message": "boom"}

    async def test_a_delayed_job_is_linked(
        self, queue: Queue, spans: Spans, clock: ManualClock
    ) -> None:
        @queue.task
        async def send() -> None: ...

        await send.using(delay=60).enqueue()
        clock.advance(60)
        (run,) = await run_all(queue, spans, 1)
        assert (parent_of(run), linked(run)) == (None, [id_of(spans.named("send mail")[0])])

    @pytest.mark.parametrize("way", ["enqueue_many", "add_many"])
    async def test_jobs_of_a_bulk_are_linked_to_its_one_span(
        self, queue: Queue, spans: Spans, way: str
    ) -> None:
        @queue.task
        async def send(number: int) -> None: ...

        if way == "enqueue_many":
            await send.enqueue_many(map(send.args, range(5)))
        else:
            await queue.add_many([("send", {"number": number}) for number in range(5)])
        runs = await run_all(queue, spans, 5)
        (call,) = spans.named("send mail")
        assert facts(call)["messaging.batch.message_count"] == 5
        assert {parent_of(run) for run in runs} == {None}
        assert [linked(run) for run in runs] == [[id_of(call)]] * 5
        assert len({trace_of(run) for run in runs}) == 5

    async def test_the_worker_s_own_trace_is_not_the_parent(
        self, queue: Queue, elsewhere: Queue, spans: Spans, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        @queue.task
        async def send() -> None: ...

        with monkeypatch.context() as patch:
            patch.setattr(tracing, "make_spans", lambda: None)
            await elsewhere.add("send")
        with trace.get_tracer("app").start_as_current_span("lifespan"):
            (run,) = await run_all(queue, spans, 1)
        assert (parent_of(run), linked(run)) == (None, [])

    async def test_baggage_is_carried(self, queue: Queue, spans: Spans) -> None:
        @queue.task
        async def send() -> object:
            return baggage.get_baggage("tenant")

        token = context.attach(baggage.set_baggage("tenant", "ada"))
        one, (other,) = await send.enqueue(), await send.enqueue_many([send.args()])
        context.detach(token)
        await run_all(queue, spans, 2)
        assert [await one.result(), await other.result()] == ["ada", "ada"]

    @pytest.mark.parametrize(
        ("raised", "outcome"), [(RetryAfter(60), "postponed"), (None, "released")]
    )
    async def test_a_run_that_does_not_count_is_no_error(
        self, queue: Queue, spans: Spans, raised: Exception | None, outcome: str
    ) -> None:
        started = asyncio.Event()

        @queue.task
        async def send() -> None:
            started.set()
            if raised is not None:
                raise raised
            await asyncio.Event().wait()

        await send.enqueue()
        async with Worker(queue, grace=0):
            await started.wait()
        (run,) = spans.named("process mail")
        assert run.status.status_code is StatusCode.UNSET
        assert facts(run)["hasten.outcome"] == outcome

    async def test_a_failed_call_has_its_error(
        self, queue: Queue, spans: Spans, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail(*_: object, **__: object) -> Any:
            raise StoreUnavailable("store", "it is down")

        monkeypatch.setattr(type(queue.engine), "add", fail)
        with pytest.raises(StoreUnavailable):
            await queue.add("send")
        with pytest.raises(StoreUnavailable):
            await queue.add_many([("send", None)])
        for call in spans.named("send mail"):
            assert call.status.status_code is StatusCode.ERROR
            assert facts(call)["error.type"] == "StoreUnavailable"

    async def test_the_handler_of_a_process_continues_the_trace(self, spans: Spans) -> None:
        async with observed_tasks.queue as queue, Worker(queue, handler_processes=1):
            job = await observed_tasks.traced.enqueue()
            seen = await job.result(timeout=60)
            await until(lambda: spans.named("process observed"))
        (run,) = spans.named("process observed")
        assert seen == [f"{trace_of(run):032x}", f"{id_of(run):016x}"]


class TestPropagation:
    """Contexts are stored and read as OpenTelemetry's propagators do it."""

    @given(st.integers(0, 2**128 - 1), st.integers(0, 2**64 - 1), st.integers(0, 255))
    def test_a_trace_parent_is_written_as_by_the_propagator(
        self, trace_id: int, span_id: int, flags: int
    ) -> None:
        sent = SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(flags))
        carrier: dict[str, str] = {}
        propagate.inject(carrier, trace.set_span_in_context(NonRecordingSpan(sent), TraceContext()))
        opts = Propagation().add_to_options('{"attempts":1}', NonRecordingSpan(sent))
        assert json.loads(json.loads(opts).get("tm", "{}")) == carrier
        assert split_context(opts)[0] == '{"attempts":1}'

    @given(
        st.one_of(
            st.from_regex(r"0[01]-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True),
            st.sampled_from([f"00-{'0' * 32}-{'1' * 16}-01", f"00-{'1' * 32}-{'0' * 16}-01"]),
            st.text(),
        ),
        st.booleans(),
        st.sampled_from([{}, {"tracestate": "a=b"}, {"baggage": "tenant=ada"}, {"x": "y"}]),
    )
    def test_a_context_is_read_as_by_the_propagator(
        self, parent: str, spaced: bool, more: dict[str, str]
    ) -> None:
        carrier = {"traceparent": parent, **more}
        text = json.dumps(carrier, separators=None if spaced else (",", ":"))
        opts = add_context('{"attempts":1}', text)
        found, is_bulk = Propagation().from_options(opts)
        assert not is_bulk
        expected = propagate.extract(carrier, TraceContext())
        assert dict(baggage.get_all(found)) == dict(baggage.get_all(expected))
        ours = trace.get_current_span(found).get_span_context()
        theirs = trace.get_current_span(expected).get_span_context()
        assert (ours, ours.is_remote) == (theirs, theirs.is_remote)
        assert ours.trace_state == theirs.trace_state

    def test_the_context_is_ignored_if_its_program_asks_for_it(self) -> None:
        """BullMQ's option omitContext."""
        opts = add_context('{"omc":true}', f'{{"traceparent":"00-{"1" * 32}-{"1" * 16}-01"}}')
        assert Propagation().from_options(opts) == (TraceContext(), False)

    async def test_a_trace_state_is_carried(self, queue: Queue, spans: Spans) -> None:
        @queue.task
        async def send() -> str:
            return trace.get_current_span().get_span_context().trace_state.to_header()

        state = TraceState([("vendor", "7")])
        remote = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1), trace_state=state)
        token = context.attach(trace.set_span_in_context(NonRecordingSpan(remote)))
        job = await send.enqueue()
        context.detach(token)
        await run_all(queue, spans, 1)
        assert await job.result() == "vendor=7"

    async def test_propagators_of_the_application_are_used(
        self, queue: Queue, spans: Spans
    ) -> None:
        class OwnHeader(TraceContextTextMapPropagator):
            """Trace Context in a header of another name."""

            def inject(self, carrier: Any, *args: Any, **options: Any) -> None:
                carried: dict[str, str] = {}
                super().inject(carried, *args, **options)
                carrier["X-PARENT"] = carried["traceparent"]

            def extract(self, carrier: Any, *args: Any, **options: Any) -> Any:
                return super().extract({"traceparent": carrier["X-PARENT"]}, *args, **options)

        @queue.task
        async def send() -> None: ...

        default = propagate.get_global_textmap()
        propagate.set_global_textmap(CompositePropagator([OwnHeader()]))
        try:
            job = await send.enqueue()
            (run,) = await run_all(queue, spans, 1)
        finally:
            propagate.set_global_textmap(default)
        (call,) = spans.named("send mail")
        assert list(json.loads(json.loads(job.record.opts)["tm"])) == ["X-PARENT"]
        assert parent_of(run) == id_of(call)


class TestFaults:
    """Whatever the libraries of the application do, jobs are added and run."""

    class Broken(SpanProcessor):
        def __init__(self, where: str) -> None:
            self.where = where

        def on_start(self, span: Span, parent_context: Any = None) -> None:
            if self.where == "start":
                raise RuntimeError("broken start")

        def on_end(self, span: ReadableSpan) -> None:
            if self.where == "end":
                raise RuntimeError("broken end")

    @pytest.mark.parametrize("where", ["start", "end"])
    async def test_a_broken_processor(
        self, queue: Queue, spans: Spans, where: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        provider.add_span_processor(self.Broken(where))
        processors = provider._active_span_processor
        try:

            @queue.task
            async def send(number: int = 0) -> str:
                return "sent"

            jobs = [await send.enqueue(), *await send.enqueue_many([send.args(1), send.args(2)])]
            async with Worker(queue):
                assert [await job.result(timeout=30) for job in jobs] == ["sent"] * 3
        finally:
            processors._span_processors = processors._span_processors[:1]
        assert f"cannot {where} the span of an added job" in caplog.text
        assert f"cannot {where} the span of a job" in caplog.text

    @pytest.mark.parametrize(
        "tm",
        ["", "{", "[]", '{"traceparent": 1}', '{"traceparent": "nonsense"}', 5, "x" * 10_000],
    )
    async def test_a_malformed_context_of_another_program(
        self, queue: Queue, spans: Spans, tm: object
    ) -> None:
        @queue.task
        async def send() -> str:
            return "sent"

        job = await queue.add("send")
        opts = json.loads(job.record.opts) | {"tm": tm}
        assert read_context(json.dumps(opts)) in (tm or None, None)
        run = (await run_all(queue, spans, 1))[0]
        assert "hasten.outcome" not in facts(run)  # it has completed


class TestSwitch:
    async def test_nothing_is_stored_without_a_provider(self, queue: Queue) -> None:
        job = await queue.add("send")
        assert "tm" not in json.loads(job.record.opts)

    def test_it_can_be_turned_off(self, monkeypatch: pytest.MonkeyPatch, spans: Spans) -> None:
        assert tracing.get_spans_if_tracing() is not None
        tracing.make_spans.cache_clear()
        monkeypatch.setenv("HASTEN_TRACING", "0")
        assert tracing.get_spans_if_tracing() is None
        tracing.make_spans.cache_clear()

    def test_it_is_off_if_the_process_has_not_imported_the_library(
        self, monkeypatch: pytest.MonkeyPatch, spans: Spans
    ) -> None:
        """Then nothing else is done: the import would delay the first job."""
        assert tracing.get_spans_if_tracing() is not None
        monkeypatch.delitem(__import__("sys").modules, "opentelemetry.trace")
        monkeypatch.setattr(tracing, "make_spans", lambda: pytest.fail("imports it"))
        assert tracing.get_spans_if_tracing() is None
        assert tracing.get_or_make_spans() is None

    def test_it_is_off_without_the_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tracing.make_spans.cache_clear()
        monkeypatch.setitem(__import__("sys").modules, "hasten.jobs._spans", None)
        assert tracing.make_spans() is None
        tracing.make_spans.cache_clear()


class TestContext:
    @given(st.text(), st.sampled_from([Options(), Options(priority=3, metadata={"tm": ',"tm":"'})]))
    def test_the_options_are_the_same_with_it(self, added: str, options: Options) -> None:
        opts = encode_options(options)
        try:
            both = add_context(opts, added)
        except UnicodeEncodeError:
            return
        assert json.loads(both) == {**json.loads(opts), "tm": added}
        assert split_context(both)[0] == opts
        assert decode_options(both) == decode_options(opts)
        expected = added if 0 < len(added) <= MAX_CONTEXT else None
        assert read_context(both) == expected

    def test_options_without_it_are_left_alone(self) -> None:
        for opts in ("{}", '{"attempts":1}', '{"a":",\\"tm\\":"}', '{"hasten":{"x":1,"tm":"y"}}'):
            assert split_context(opts) == (opts, None)

    def test_bullmq_s_option_omit_context(self) -> None:
        assert read_context('{"tm":"{}","omc":true}') is None


class TestFlows:
    async def test_all_runs_are_linked_to_the_one_span_that_added_the_flow(
        self, queue: Queue, spans: Spans
    ) -> None:
        """A trace with thousands of spans could not be read."""

        @queue.task
        async def send(number: int = 0) -> None: ...

        job = await send.after(send.many(range(4))).on_ended(send.args(7)).enqueue()
        async with Worker(queue):
            await job.result(timeout=30)
            await until(lambda: len([s for s in spans.named("process mail") if is_send(s)]) == 6)
        (call,) = spans.named("send mail")
        runs = [run for run in spans.named("process mail") if is_send(run)]
        assert {parent_of(run) for run in runs} == {None}
        assert [linked(run) for run in runs] == [[id_of(call)]] * 6

    async def test_children_of_a_run_belong_to_its_span(self, queue: Queue, spans: Spans) -> None:
        @queue.task
        async def send(number: int) -> None: ...

        @queue.task
        async def report(ctx: Context) -> None:
            ctx.children.add(send.many([1, 2]))
            await ctx.children.wait()

        job = await report.enqueue()
        async with Worker(queue):
            await job.result(timeout=30)
            await until(lambda: len(spans.named("process mail")) == 4)
        first, *children, last = spans.named("process mail")
        (_, call) = spans.named("send mail")
        assert (parent_of(call), facts(first)["hasten.outcome"]) == (id_of(first), "parked")
        assert first.status.status_code is StatusCode.UNSET
        assert [linked(run) for run in children] == [[id_of(call)]] * 2
        assert linked(last) == [id_of(spans.named("send mail")[0])]


def is_send(span: ReadableSpan) -> bool:
    return bool(facts(span)["hasten.task"] == "send")
