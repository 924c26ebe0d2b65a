"""Topics of prompts: which subject a benchmark's category belongs to, and a softmax regression that tells it."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from capability_encoder.features import softmax
from capability_encoder.training.data import FloatArray, IntArray, TextArray

#: Subjects of MMLU under the fourteen of MMLU-Pro; a category that stands nowhere here is a topic of its own.
SUBJECTS = {
    "math": "abstract_algebra college_mathematics elementary_mathematics high_school_mathematics"
    " high_school_statistics",
    "physics": "astronomy college_physics conceptual_physics high_school_physics",
    "chemistry": "college_chemistry high_school_chemistry",
    "biology": "college_biology high_school_biology",
    "computer science": "college_computer_science computer_security high_school_computer_science machine_learning",
    "economics": "econometrics high_school_macroeconomics high_school_microeconomics",
    "engineering": "electrical_engineering",
    "health": "anatomy clinical_knowledge college_medicine human_aging medical_genetics nutrition"
    " professional_medicine virology",
    "history": "high_school_european_history high_school_us_history high_school_world_history prehistory",
    "law": "international_law jurisprudence professional_law",
    "philosophy": "formal_logic logical_fallacies moral_disputes moral_scenarios world_religions",
    "psychology": "high_school_psychology human_sexuality professional_psychology",
    "business": "business_ethics management marketing",
    "other": "global_facts miscellaneous professional_accounting public_relations security_studies sociology"
    " high_school_geography high_school_government_and_politics us_foreign_policy",
}
_TOPIC_OF = {subject: topic for topic, subjects in SUBJECTS.items() for subject in subjects.split()}
FEWEST_PROMPTS = 60
_PENALTY = 0.3
_STEPS = 50


def topic_numbers(categories: TextArray) -> IntArray:
    """Topic of each prompt, counted from 0; -1 where too few prompts share it, unless all are of one kind."""
    topics = np.array([_TOPIC_OF.get(str(name), str(name)) for name in categories])
    names, counts = np.unique(topics, return_counts=True)
    large = [str(name) for name, count in zip(names, counts, strict=True) if count >= FEWEST_PROMPTS]
    place = {name: number for number, name in enumerate(large or [str(names[counts.argmax()])])}
    return np.array([place.get(str(topic), -1) for topic in topics], dtype=np.int64)


def fit_topics(features: FloatArray, topics: IntArray, count: int) -> tuple[FloatArray, FloatArray]:
    """Softmax regression by L-BFGS: weights `[P, C]` and bias `[C]`; rows of topic -1 are left out."""
    rows = np.flatnonzero(topics >= 0)
    known, wanted = features[rows], np.eye(count, dtype=np.float32)[topics[rows]]
    width = features.shape[1]

    def loss(flat: FloatArray) -> tuple[float, FloatArray]:
        weights = flat.reshape(width + 1, count).astype(np.float32)
        chances = softmax(known @ weights[:-1] + weights[-1])
        missed = -np.log(np.maximum((chances * wanted).sum(axis=1), 1e-12)).sum(dtype=np.float64)
        size = 0.5 * _PENALTY * float((weights[:-1].astype(np.float64) ** 2).sum())
        gap = chances - wanted
        gradient = np.vstack([known.T @ gap + _PENALTY * weights[:-1], gap.sum(axis=0)]) / len(rows)
        return (float(missed) + size) / len(rows), gradient.ravel().astype(np.float64)

    start = np.zeros((width + 1) * count)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS, "maxcor": 8})
    weights = np.asarray(found.x, dtype=np.float32).reshape(width + 1, count)
    return weights[:-1], weights[-1]
