"""`POST /v1/feedback`: how good an answer was, by decision id. It trains the scorer and the calibration metrics."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from gateway.services import Services

router = APIRouter(tags=["feedback"])


class Feedback(BaseModel):
    """How well the model of a decision answered: 1 = right or useful, 0 = wrong or useless."""

    model_config = ConfigDict(extra="forbid")
    decision_id: Annotated[str, Field(min_length=1, max_length=128)]
    score: Annotated[float, Field(ge=0.0, le=1.0)]


class FeedbackTaken(BaseModel):
    """What the feedback was set against. `learned` is false where the prompt is no longer in memory."""

    decision_id: str
    model: str
    predicted: float | None
    score: float
    learned: bool


@router.post("/v1/feedback", response_model=FeedbackTaken)
@router.post("/feedback", response_model=FeedbackTaken, include_in_schema=False)
async def give_feedback(body: Feedback, request: Request) -> FeedbackTaken:
    """Store a score for an answered decision; a second one replaces the first."""
    services: Services = request.app.state.services
    found = await services.ledger.add_feedback(body.decision_id, body.score)
    model, predicted = found["model"], _predicted(found)
    services.metrics.feedback(model, predicted, body.score)
    learned = False
    if services.learner is not None:
        propensity = found["decision"]["propensity"] if model == found["decision"]["model"] else 1.0
        learned = await services.learner.graded(body.decision_id, model, predicted, body.score, propensity)
    return FeedbackTaken(
        decision_id=body.decision_id, model=model, predicted=predicted, score=body.score, learned=learned
    )


def _predicted(found: dict[str, Any]) -> float | None:
    """What was predicted for the model that answered, which after a fallback is not the one chosen first."""
    verdicts = found["decision"]["candidates"]
    return next((verdict["p"] for verdict in verdicts if verdict["model"] == found["model"]), None)
