"""The table of transitions is the oracle of all engines. These are its own rules."""

from __future__ import annotations

from hasten.jobs._states import FINISHED, INITIAL, READY, TRANSITIONS, State


class TestNames:
    def test_are_bullmqs(self) -> None:
        """Other languages use these names in getters and events."""
        assert [str(state) for state in State] == [
            "waiting", "prioritized", "delayed", "waiting-children", "active", "completed",
            "failed",
        ]  # fmt: skip


class TestTransitions:
    def test_every_state_has_its_row(self) -> None:
        """The table is read without a default."""
        assert set(TRANSITIONS) == set(State)

    def test_no_state_leads_to_itself(self) -> None:
        assert not [state for state, targets in TRANSITIONS.items() if state in targets]

    def test_every_state_is_reached_from_an_initial_one(self) -> None:
        """Otherwise the state would be unused."""
        reached = set(INITIAL)
        for _ in State:
            reached |= {target for state in reached for target in TRANSITIONS[state]}
        assert reached == set(State)

    def test_a_finished_state_is_reached_from_everywhere(self) -> None:
        """Every job can finish."""
        done = set(FINISHED)
        for _ in State:
            done |= {state for state, targets in TRANSITIONS.items() if targets & done}
        assert done == set(State)

    def test_only_ready_jobs_become_active(self) -> None:
        """A delayed job becomes ready first, which decides its order."""
        assert {s for s, targets in TRANSITIONS.items() if State.ACTIVE in targets} == READY

    def test_only_active_jobs_complete(self) -> None:
        """Completed means that a handler has returned."""
        sources = {s for s, targets in TRANSITIONS.items() if State.COMPLETED in targets}
        assert sources == {State.ACTIVE}

    def test_whatever_has_not_finished_can_fail(self) -> None:
        """Jobs can be cancelled in every state."""
        sources = {s for s, targets in TRANSITIONS.items() if State.FAILED in targets}
        assert sources == set(State) - FINISHED

    def test_finished_jobs_only_become_ready(self) -> None:
        """They run again only if they are retried."""
        after = READY | {State.WAITING_CHILDREN}  # it may have children
        assert all(TRANSITIONS[state] == after for state in FINISHED)


class TestGroups:
    def test_do_not_overlap(self) -> None:
        assert not READY & FINISHED
        assert not INITIAL & FINISHED

    def test_a_job_is_never_born_active(self) -> None:
        """Active jobs have a lease, which only a claim assigns."""
        assert INITIAL == set(State) - FINISHED - {State.ACTIVE}
