"""Events and the user API's answers within one step: enrich, wait, remember (docs/user-state.md)."""

from __future__ import annotations

from collections.abc import Sequence

from transforms.domain.events.dead_letter import RejectedError
from transforms.domain.events.event import Event, parse_event, with_exact_integers
from transforms.domain.events.record import Record
from transforms.domain.shard import facts
from transforms.domain.shard.rule_engine import RuleEngine
from transforms.domain.shard.step_input import Answer
from transforms.domain.shard.step_scope import StepScope
from transforms.domain.users.fetched_user import OVERFLOW, TIMEOUT, FetchedUser, unavailable
from transforms.domain.users.history import Row
from transforms.domain.users.past import past_of
from transforms.domain.users.user import PENDING, UNAVAILABLE, UserState
from transforms.domain.users.visit import PAGE_VIEW, advance_visit


class EventHandler:
    """Handles events: finds or loads their user, runs the rules, adds them to the history."""

    __slots__ = (
        "_engine",
        "_handled",
        "_hits",
        "_now_ms",
        "_record",
        "_result",
        "_scope",
        "_settings",
        "_state",
    )

    def __init__(self, scope: StepScope, engine: RuleEngine) -> None:
        self._scope = scope
        self._state = scope.state
        self._now_ms = scope.now_ms
        self._record = scope.record
        self._settings = scope.settings
        self._result = scope.result
        self._engine = engine
        self._hits = self._handled = 0

    def handle(self, topic: str, record: Record) -> None:
        """Handle an event, or park it until the user API has answered."""
        event = self._parse(topic, record)
        if event is None:
            return
        user_id = event.user_id
        if user_id in self._state.parked:
            self._park(user_id, topic, record)
            return
        user = self.live_user(user_id)
        settings, waits = self._settings, self._scope.filters.waits
        if user is None:
            self._result.counts["state_misses"] += 1
        else:
            self._hits += 1
        if user is None or user.is_due(self._now_ms, settings.profile_max_age_ms, settings.enrichment_retry_ms):
            self.request_fetch(user_id)
        if waits and (user is None or user.enrichment == PENDING):
            self._park(user_id, topic, record)
            return
        if user is None:
            self._record(facts.UserLoaded(user_id, PENDING, b"{}", None, [], event.received_ms))
            user = self._state.users[user_id]
        self._observe(topic, record, event, user)

    def add_counts(self) -> None:
        """Add what was counted for every event; adding one by one to the counters of the result costs more."""
        counts = self._result.counts
        if self._hits:
            counts["state_hits"] += self._hits
        if self._handled:
            counts["events_handled"] += self._handled

    def live_user(self, user_id: str) -> UserState | None:
        """The user; one whose TTL has ended is forgotten first."""
        user = self._state.users.get(user_id)
        if user is None or not self._scope.has_expired(user):
            return user
        self._record(facts.UserForgotten(user_id))
        self._result.counts["users_expired"] += 1
        return None

    def request_fetch(self, user_id: str) -> None:
        """Have the user API asked for a user, unless a fetch is in flight."""
        if user_id not in self._scope.fetch_started_ms:
            self._result.users_to_fetch[user_id] = None

    def _parse(self, topic: str, record: Record) -> Event | None:
        try:
            return parse_event(record, self._now_ms, self._settings)
        except RejectedError as rejection:
            self._result.reject(topic, record, rejection.reason, rejection.detail)
            return None

    def _park(self, user_id: str, topic: str, record: Record) -> None:
        waiting = self._state.parked.get(user_id)
        deadline_ms = self._now_ms + self._settings.enrichment_deadline_ms if waiting is None else waiting.deadline_ms
        self._record(facts.EventParked(user_id, deadline_ms, topic, record))
        if self._state.parked[user_id].nbytes > self._settings.max_waiting_bytes:
            self.handle_answer(Answer(user_id, unavailable(OVERFLOW, "too many events wait for the answer")))

    def _observe(self, topic: str, record: Record, event: Event, user: UserState) -> None:
        row = user.history.find(event.event_id)
        if row is not None and not row.from_api:
            self._result.counts["duplicates"] += 1
            if user.last_seen_ms != self._now_ms:
                self._record(facts.UserSeen(event.user_id))
            return
        if row is not None:
            # The user API was ahead of the stream. The event does not belong to its own past.
            self._record(facts.HistoryRowDropped(event.user_id, event.event_id))
        is_listed = row is not None or event.event_id in user.listed
        visit = advance_visit(user.visit, event, is_listed)
        # An event older than the visit's start belongs to none.
        event_visit = visit if event.timestamp_ms >= visit.start_ms else None
        self._engine.handle_event(topic, record, event, user, event_visit)
        self._handled += 1
        observed = self._row_of(event, event_visit is not None)
        self._record(facts.EventObserved(event.user_id, observed, None if visit == user.visit else visit))
        self._limit_history(event.user_id, user)

    def _row_of(self, event: Event, is_of_visit: bool) -> Row:
        extra = None
        if self._scope.history_fields is not None:
            extra = self._scope.history_fields.of(with_exact_integers(event).fields) or None
        is_page = is_of_visit and event.known.event_type == PAGE_VIEW
        return Row(event.timestamp_ms, event.event_id, event.event_name, extra, False, is_page)

    def _limit_history(self, user_id: str, user: UserState) -> None:
        """Keep a user within ``max_user_bytes``: the oldest history goes."""
        max_bytes = max(0, self._settings.max_user_bytes - len(user.profile_json))
        if user.history.nbytes > max_bytes:
            before = len(user.history)
            self._record(facts.HistoryCut(user_id, max_bytes))
            self._result.counts["history_rows_cut"] += before - len(user.history)

    # Answers of the user API

    def handle_answer(self, answer: Answer) -> None:
        """Fold the user API's answer into the state and handle the events that waited; nothing for a forgotten user."""
        state, user_id, fetched = self._state, answer.user_id, answer.fetched
        waiting, rules_wait = state.parked.get(user_id), user_id in state.rule_states.waiting_for_profile
        user = self.live_user(user_id) if rules_wait else state.users.get(user_id)
        if waiting is None and not rules_wait and (user is None or self._scope.has_expired(user)):
            return
        self._result.counts[f"users_{fetched.enrichment}"] += 1
        if fetched.error_kind is not None:
            self._result.counts[f"enrichment_errors_{fetched.error_kind}"] += 1
        parsed = [(topic, record, self._parse(topic, record)) for topic, record in (waiting.records if waiting else ())]
        events = [(topic, record, event) for topic, record, event in parsed if event is not None]
        if waiting is not None:
            self._record(facts.EventsUnparked(user_id))
        user = self._enrich(user_id, user, fetched, [event for _, _, event in events])
        self._limit_history(user_id, user)
        for topic, record, event in events:
            self._observe(topic, record, event, user)
        if user_id in state.rule_states.waiting_for_profile:
            stream_ms = state.rule_states.of(user_id).profile_wait_ms
            if stream_ms:
                self._record(facts.ProfileWaitSet(user_id, 0))
                self._engine.settle(user_id, stream_ms)
            self._engine.held.release(user_id)

    def _enrich(
        self, user_id: str, user: UserState | None, fetched: FetchedUser, waiting: Sequence[Event]
    ) -> UserState:
        """Load a user, or update one whose events were handled without an answer or with an older one."""
        counts, enrichment, profile_json = self._result.counts, fetched.enrichment, fetched.profile_json
        since_ms = self._stream_since_ms(user_id, user, waiting)
        if user is None:
            counts["users_loaded"] += 1
            past = past_of(fetched, None, waiting, since_ms, self._settings.history_size)
            rows = past.sorted_rows
            packed = None if rows is None else rows.packed
            self._record(
                facts.UserLoaded(
                    user_id, enrichment, profile_json, past.visit, past.rows, since_ms, past.listed, packed
                )
            )
            if rows is not None:
                self._state.users[user_id].history.keep_marks(rows.marks)
        elif enrichment == UNAVAILABLE:
            counts["refreshes_failed"] += 1
            unanswered = UNAVAILABLE if user.enrichment == PENDING else None
            self._record(facts.UserUpdated(user_id, unanswered, b"{}", None, []))
        elif user.has_profile:
            counts["refreshes"] += 1
            self._record(facts.UserUpdated(user_id, enrichment, profile_json, None, []))
        else:
            counts["users_loaded"] += 1
            past = past_of(fetched, user, waiting, since_ms, self._settings.history_size)
            visit = None if past.visit == user.visit else past.visit
            self._record(facts.UserUpdated(user_id, enrichment, profile_json, visit, past.rows, past.listed))
        return self._state.users[user_id]

    def _stream_since_ms(self, user_id: str, user: UserState | None, waiting: Sequence[Event]) -> int:
        """Kafka time of the first event that the shard has of a user; without one, the time up to which all counts."""
        if user is not None and user.stream_since_ms:
            return user.stream_since_ms
        if user is not None and (oldest_ms := user.history.oldest_ms()) is not None:
            return oldest_ms  # an earlier release stored the user
        if waiting:
            return waiting[0].received_ms
        return self._state.rule_states.of(user_id).profile_wait_ms or self._now_ms

    def handle_passed_deadlines(self) -> None:
        """Handle the events of users whose deadline has passed, with an empty profile that is marked unavailable.

        Time without a request does not count: a restore takes longer than the deadline and starts the fetches again.
        """
        started_until_ms = self._now_ms - self._settings.enrichment_deadline_ms
        self._state.put_in_order()
        late = []
        for user_id, waiting in self._state.parked.items():
            if waiting.deadline_ms > self._now_ms:
                break
            if self._scope.fetch_started_ms.get(user_id, started_until_ms) <= started_until_ms:
                late.append(user_id)
        self._result.users_given_up += late
        for user_id in late:
            self.handle_answer(Answer(user_id, unavailable(TIMEOUT, "no answer before the enrichment deadline")))
