"""The arithmetic that the static methods share: pure functions on tensors, inputs never changed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

# 128 Ki float32 values are 512 KiB: the running sum stays in the second-level cache of common processors.
CHUNK = 1 << 17
_FINGERPRINT_SAMPLES = 1024


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 stays; everything shorter is computed in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def weighted_sum(tensors: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
    """Sum of coefficient times tensor, accumulated in float32 and returned in the dtype of the first tensor.

    A coefficient of exactly 0 leaves its tensor out, so a single coefficient of 1 returns that tensor bit by bit.
    """
    first = tensors[0]
    kept = [
        (tensor.reshape(-1), float(coefficient))
        for tensor, coefficient in zip(tensors, coefficients, strict=True)
        if coefficient != 0
    ]
    if not kept:
        return torch.zeros_like(first)
    result = torch.empty(first.numel(), dtype=first.dtype, device=first.device)
    work = working_dtype(first.dtype)
    chunk = CHUNK if first.device.type == "cpu" else max(1, first.numel())
    for start in range(0, first.numel(), chunk):
        part = slice(start, start + chunk)
        total = kept[0][0][part].to(work) * kept[0][1]
        for tensor, coefficient in kept[1:]:
            total.add_(tensor[part], alpha=coefficient)
        result[part] = total
    return result.reshape(first.shape)


def task_vector(base: Tensor, expert: Tensor) -> Tensor:
    """The expert minus the base, in float32 (float64 for float64)."""
    work = working_dtype(base.dtype)
    return expert.to(work) - base.to(work)


def change_in_chunks(base: Tensor, experts: Sequence[Tensor], change: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """The base plus what `change` makes of the task vectors, a piece at a time so that all stays in the cache.

    Args:
        change: gets task vectors `(models, values)` and where in the flattened tensor they stand; gives `(values,)`.
    """
    work = working_dtype(base.dtype)
    flat, others = base.reshape(-1), [expert.reshape(-1) for expert in experts]
    result = torch.empty_like(flat)
    chunk = max(1 << 12, CHUNK // len(experts)) if base.device.type == "cpu" else max(1, flat.numel())
    for start in range(0, flat.numel(), chunk):
        part = slice(start, min(start + chunk, flat.numel()))
        origin = flat[part].to(work)
        deltas = torch.stack([other[part].to(work) - origin for other in others])
        result[part] = origin + change(deltas, part)
    return result.reshape(base.shape)


def magnitude_threshold(parts: Callable[[], Iterable[Tensor]], keep: int) -> float:
    """The `keep`-th largest magnitude among all values of all parts, exactly, with memory for one part only.

    Positive float32 numbers sort like their bits, so two passes of counting (upper, then lower 16 bits) find the
    value. 0 where there are fewer values than `keep`; infinity where `keep` is 0.

    Args:
        parts: called twice; gives the tensors anew each time.
    """
    if keep <= 0:
        return float("inf")
    upper = torch.zeros(1 << 16, dtype=torch.int64)
    for part in parts():
        upper += torch.bincount((_magnitude_bits(part) >> 16), minlength=1 << 16).cpu()
    bucket, above = _bucket_from_top(upper, keep)
    if bucket is None:
        return 0.0
    lower = torch.zeros(1 << 16, dtype=torch.int64)
    for part in parts():
        bits = _magnitude_bits(part)
        lower += torch.bincount(bits[(bits >> 16) == bucket] & 0xFFFF, minlength=1 << 16).cpu()
    low, _ = _bucket_from_top(lower, keep - above)
    assert low is not None
    return float(torch.tensor((bucket << 16) | low, dtype=torch.int32).view(torch.float32))


def _magnitude_bits(part: Tensor) -> Tensor:
    return part.reshape(-1).to(torch.float32).abs().view(torch.int32)


def _bucket_from_top(counts: Tensor, keep: int) -> tuple[int | None, int]:
    """The bucket that holds the `keep`-th value counted from the top, and how many values lie above that bucket."""
    from_top = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(from_top, keep))
    if place >= len(from_top):
        return None, 0
    return len(from_top) - 1 - place, int(from_top[place - 1]) if place else 0


def kept_count(density: float, total: int) -> int:
    """How many of `total` values stay at a density: rounded down, but at least one where the density is positive."""
    return 0 if density <= 0 or total == 0 else min(total, max(1, int(density * total)))


def trim(delta: Tensor, threshold: float) -> Tensor:
    """Values of at least this magnitude, zero elsewhere; all values tied at the threshold stay."""
    return torch.where(delta.abs() >= threshold, delta, torch.zeros((), dtype=delta.dtype, device=delta.device))


def density_threshold(delta: Tensor, density: float) -> float:
    """The magnitude from which values of one tensor survive a trim to `density`.

    Ref: TIES-Merging, arXiv:2306.01708, step 1 "trim"; per tensor as mergekit does, the paper trims per model.
    """
    return 0.0 if density >= 1 else magnitude_threshold(lambda: [delta], kept_count(density, delta.numel()))


def elect_sign(deltas: Tensor, *, when_zero: float = 1.0) -> Tensor:
    """Sign that carries the larger total magnitude, per parameter.

    Args:
        deltas: weighted task vectors `(models, *shape)`.
        when_zero: the sign where the deltas cancel exactly: 1 as in mergekit, else the majority of the model.
    Returns:
        `(*shape)` with values in {-1, 1}.
    Ref: TIES-Merging, arXiv:2306.01708, step 2 "elect".
    """
    total = deltas.sum(dim=0)
    positive = total >= 0 if when_zero >= 0 else total > 0
    return positive.to(deltas.dtype) * 2 - 1


def disjoint_merge(deltas: Tensor, weights: Tensor, signs: Tensor, *, mean: bool) -> Tensor:
    """Sum, or mean by weight, over the models whose weighted delta has the elected sign.

    Args:
        deltas: weighted task vectors `(models, *shape)`.
        weights: `(models,)`.
        signs: `(*shape)` in {-1, 1}.
    Ref: TIES-Merging, arXiv:2306.01708, step 3 "disjoint merge".
    """
    agrees = deltas.sign() == signs
    total = torch.where(agrees, deltas, 0).sum(dim=0)
    if not mean:
        return total
    share = (weights.reshape(-1, *[1] * (deltas.dim() - 1)) * agrees).sum(dim=0)
    return total / torch.where(share == 0, 1, share)


def keep_at_random(count: int, density: float, generator: torch.Generator) -> Tensor:
    """`count` truth values, each true with probability `density`; drawn on the CPU, so that devices agree."""
    return torch.rand(count, generator=generator, dtype=torch.float32) < density


def norm_ratio(kept: Tensor, original: Tensor) -> float:
    """What scales `kept` back to the L1 norm of `original` (mergekit's `rescale`); 1 where either norm is zero."""
    before, after = float(original.abs().sum()), float(kept.abs().sum())
    return 1.0 if before < 1e-7 or after < 1e-7 else before / after


def generators(name: str, tensors: Sequence[Tensor], seed: int) -> list[torch.Generator]:
    """One random generator per tensor, from seed, tensor name and content: the order of the models does not matter.

    Equal tensors get different generators, numbered.
    """
    seen: Counter[bytes] = Counter()
    made = []
    for tensor in tensors:
        mark = _fingerprint(tensor)
        text = f"{seed}\0{name}\0{seen[mark]}\0".encode() + mark
        seen[mark] += 1
        made.append(torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1))
    return made


def _fingerprint(tensor: Tensor) -> bytes:
    """Hash of the shape and of at most 1024 values spread over the tensor: enough to tell experts apart."""
    flat = tensor.detach().reshape(-1)
    step = max(1, flat.numel() // _FINGERPRINT_SAMPLES)
    sample = flat[::step][:_FINGERPRINT_SAMPLES].to(dtype=torch.float32, device="cpu").contiguous()
    return hashlib.sha256(repr(tuple(tensor.shape)).encode() + sample.numpy().tobytes()).digest()


def slerp(first: Tensor, second: Tensor, t: float, *, nearly_parallel: float = 0.9995) -> Tensor:
    """Point at `t` on the arc from `first` (t = 0) to `second` (t = 1), each taken as one long vector.

    Where the cosine of the angle is beyond `nearly_parallel` (also near -1), the straight line is taken, as mergekit
    does.
    """
    work = working_dtype(first.dtype)
    a, b = first.to(work), second.to(work)
    norms = float(torch.linalg.vector_norm(a)), float(torch.linalg.vector_norm(b))
    cosine = float((a * b).sum()) / (norms[0] * norms[1]) if min(norms) > 1e-8 else 1.0
    if abs(cosine) > nearly_parallel:
        return weighted_sum([first, second], [1 - t, t])
    angle = torch.arccos(torch.tensor(cosine, dtype=torch.float64))
    shares = [float(torch.sin((1 - t) * angle) / torch.sin(angle)), float(torch.sin(t * angle) / torch.sin(angle))]
    return weighted_sum([first, second], shares)
