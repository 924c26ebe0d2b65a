"""`Learner`: turns feedback into grades that the encoder learns from, and watches for drift."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.encoder.loaded import grade_file
from gateway.encoder.scorer import EncoderScorer
from gateway.routing.decision import RoutingDecision
from gateway.routing.scoring import ScoreTable

if TYPE_CHECKING:
    from capability_encoder.drift import DriftMonitor, DriftReport

log = logging.getLogger(__name__)
# A vector takes 3.3 KiB in 16-bit floats, so this is some 13 MiB. Feedback that comes later is still kept and set
# against the prediction, but teaches nothing.
MAX_REMEMBERED = 4096


class Learner:
    """Remembers the vectors of recent decisions, in memory alone, and matches feedback to them."""

    def __init__(self, encoder: EncoderScorer, state_dir: Path) -> None:
        self._encoder, self._state_dir = encoder, state_dir
        self._vectors: OrderedDict[str, Any] = OrderedDict()
        self._drift: DriftMonitor | None = None
        self._clusters: dict[str, int] = {}
        self._lock = asyncio.Lock()

    def decided(self, decision: RoutingDecision, table: ScoreTable) -> None:
        """Remember a scored decision. Called on the event loop; a few microseconds."""
        if table.vector is None:
            return
        self._vectors[decision.id] = table.vector.astype("float16")
        while len(self._vectors) > MAX_REMEMBERED:
            self._vectors.popitem(last=False)
        monitor = self._monitor()
        if monitor is not None and table.neighbours:
            monitor.see_prompt(self._clusters.get(table.neighbours[0][1], 0))

    async def graded(self, decision_id: str, model: str, p: float | None, score: float, propensity: float) -> bool:
        """Learn from a score (0..1) of an answer; whether anything could be learned."""
        loaded = self._encoder.loaded
        if p is not None and (monitor := self._monitor()) is not None:
            monitor.see_grade(p, score)
        vector = self._vectors.get(decision_id)
        if loaded is None or vector is None or p is None:
            return False
        from capability_encoder.online import Grade, GradeLog

        grade = Grade(decision_id, model, vector.astype("float32"), score, p, propensity)
        grades = GradeLog(grade_file(self._state_dir), loaded.scorer.embedder.fingerprint)
        async with self._lock:
            try:
                await asyncio.to_thread(grades.append, [grade])
            except OSError as error:
                log.error("The grade of decision %s cannot be kept: %s", decision_id, error)
                return False
            await self._encoder.reload()
        return True

    def drift(self) -> DriftReport | None:
        """What the last prompts and grades say; None until the encoder is loaded."""
        monitor = self._monitor()
        return monitor.report() if monitor is not None else None

    def _monitor(self) -> DriftMonitor | None:
        loaded = self._encoder.loaded
        if self._drift is None and loaded is not None:
            from capability_encoder.drift import DriftMonitor

            counts = Counter(loaded.scorer.state.items.categories)
            self._clusters = {name: number for number, name in enumerate(counts)}
            total = sum(counts.values())
            self._drift = DriftMonitor([count / total for count in counts.values()])
        return self._drift
