"""`Engine`: takes checked requests on the event loop, has threads compute them, hands pieces back as they come."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from merge_backends.engine.asked import Asked
from merge_backends.engine.causal import CausalModel, check_prompt
from merge_backends.engine.encoders import Encoder
from merge_backends.engine.errors import EngineError, context_exceeded, from_merging, invalid
from merge_backends.engine.lane import Row
from merge_backends.engine.library import Held, Library, as_causal, as_encoder
from merge_backends.engine.sampling import Draw
from merge_backends.engine.settings import EngineSettings
from merge_backends.engine.transcript import Piece, Transcript
from merge_backends.engine.worker import Worker
from merge_backends.errors import MergeError

LOADERS = 2


class Stream:
    """The pieces of one request, in the order they were made. Belongs to the event loop; `close` frees its rows."""

    def __init__(self, model: CausalModel, prompt_tokens: int, answers: int) -> None:
        self.model = model
        self.prompt_tokens = prompt_tokens
        self.answers = answers
        self.rows: list[Row] = []
        self._pieces: deque[Piece | EngineError] = deque()
        self._news = asyncio.Event()

    def put(self, piece: Piece | EngineError) -> None:
        """Called on the event loop."""
        self._pieces.append(piece)
        self._news.set()

    async def batches(self) -> AsyncIterator[list[Piece]]:
        """All pieces there are, whenever there are some; ends after the last answer's end.

        Raises:
            EngineError: an answer cannot be finished.
        """
        open_answers = self.answers
        while open_answers:
            await self._news.wait()
            self._news.clear()
            batch: list[Piece] = []
            failure: EngineError | None = None
            while self._pieces and failure is None:
                piece = self._pieces.popleft()
                if isinstance(piece, EngineError):
                    failure = piece
                else:
                    batch.append(piece)
                    open_answers -= piece.finish is not None
            if batch:
                yield batch
            if failure is not None:
                raise failure

    def close(self) -> None:
        """Nobody waits for the rest; the rows are free at the next step."""
        for row in self.rows:
            row.cancelled = True


class Engine:
    """Models, their workers and the requests under way. Lives on one event loop."""

    def __init__(self, settings: EngineSettings, library: Library) -> None:
        self.settings = settings
        self.library = library
        self._workers: dict[str, Worker] = {}
        self._loaders = ThreadPoolExecutor(LOADERS, thread_name_prefix="engine-load")
        self._encoding = ThreadPoolExecutor(1, thread_name_prefix="engine-encode")
        self._outbox: deque[tuple[Stream, Piece | EngineError]] = deque()
        self._loop = asyncio.get_running_loop()

    @property
    def running(self) -> int:
        """Answers in batches now."""
        return sum(worker.running for worker in self._workers.values())

    @property
    def waiting(self) -> int:
        """Answers that wait for a place."""
        return sum(worker.waiting for worker in self._workers.values())

    async def preload(self) -> None:
        """Load every declared model, one after the other."""
        for name in self.library.names:
            with self.library.hold(name) as held:
                await self._loop.run_in_executor(self._loaders, held.take)

    @contextlib.asynccontextmanager
    async def answer(self, asked: Asked) -> AsyncIterator[Stream]:
        """Begin to answer; leaving the block frees the rows.

        Raises:
            EngineError: unknown model, bad prompt, full queue.
        """
        with self._held(asked.model, asked.preference) as held:
            model = as_causal(asked.model, await self._take(held))
            prompts = self._prompts(asked, model)
            stream = Stream(model, sum(len(each) for each in prompts), len(prompts) * asked.choices)
            stream.rows = [
                self._row(asked, model, stream, prompt, at * asked.choices + choice, choice)
                for at, prompt in enumerate(prompts)
                for choice in range(asked.choices)
            ]
            self._worker(model).submit(model, stream.rows)
            try:
                yield stream
            finally:
                stream.close()

    async def encode(self, name: str, inputs: tuple[str | list[int], ...]) -> tuple[Encoder, list[list[float]], int]:
        """Vectors of the inputs and how many tokens they were."""
        with self._held(name, None) as held:
            encoder = as_encoder(name, await self._take(held))
            tokens = encoder.tokens(inputs)
            vectors = await self._loop.run_in_executor(self._encoding, encoder.encode, tokens)
            return encoder, vectors.tolist(), sum(len(each) for each in tokens)

    def close(self) -> None:
        """Stop the threads; answers under way end with an error."""
        for worker in self._workers.values():
            worker.close()
        self._loaders.shutdown(cancel_futures=True)
        self._encoding.shutdown(cancel_futures=True)

    @contextlib.contextmanager
    def _held(self, name: str, preference: Mapping[str, float] | None) -> Iterator[Held]:
        with contextlib.ExitStack() as stack:
            try:
                held = stack.enter_context(self.library.hold(name, preference))
            except MergeError as error:
                raise from_merging(error) from error
            yield held

    async def _take(self, held: Held) -> CausalModel | Encoder:
        if held.ready is not None:
            return held.ready
        try:
            return await self._loop.run_in_executor(self._loaders, held.take)
        except MergeError as error:
            raise from_merging(error) from error

    def _prompts(self, asked: Asked, model: CausalModel) -> list[list[int]]:
        if asked.is_chat:
            prompts = [model.render(asked.messages)]
        else:
            texts = asked.prompts
            prompts = [model.vocabulary.encode(p, special=True) if isinstance(p, str) else p for p in texts]
            for at, given in enumerate(texts):
                if not isinstance(given, str):
                    check_prompt(model, given, f"prompt[{at}]")
        for at, prompt in enumerate(prompts):
            if not prompt:
                # A model continues something; OpenAI starts an empty prompt at its end-of-text token.
                prompts[at] = [min(model.ends, default=0)]
            if len(prompt) >= model.context:
                raise context_exceeded(len(prompt), model.context)
        if any(not 0 <= token < len(model.vocabulary) for token, _ in asked.sampling.logit_bias):
            raise invalid("logit_bias", f"logit_bias names a token beyond {len(model.vocabulary) - 1}.")
        return prompts

    def _row(self, asked: Asked, model: CausalModel, stream: Stream, prompt: list[int], index: int, choice: int) -> Row:
        limit = model.context - len(prompt)
        limit = limit if asked.limit is None else min(limit, asked.limit)
        transcript = Transcript(
            index,
            model.vocabulary,
            lambda piece: self._outbox.append((stream, piece)),
            ends=model.ends,
            stops=(*asked.stops, *(model.stops if asked.is_chat else ())),
            limit=limit,
        )
        seed = secrets.randbits(63) if asked.seed is None else asked.seed
        rng = random.Random(f"{seed}/{choice}")
        return Row(
            prompt,
            limit,
            Draw(asked.sampling, rng),
            transcript.take,
            fail=lambda error: self._outbox.append((stream, error)),
        )

    def _worker(self, model: CausalModel) -> Worker:
        """The worker of the model's base: models of one shape take turns in one thread."""
        worker = self._workers.get(model.group)
        if worker is None:
            settings = self.settings
            worker = self._workers[model.group] = Worker(
                model.group,
                slots=settings.batch,
                queue=settings.queue,
                queue_s=settings.queue_s,
                answer_s=settings.answer_s,
                kv_bytes=int(settings.kv_gb * 2**30),
                after_step=self._hand_over,
            )
        return worker

    def _hand_over(self) -> None:
        """In a worker's thread: wake the event loop once for all pieces of a step."""
        if self._outbox:
            with contextlib.suppress(RuntimeError):  # the loop has ended; nobody waits any more
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        while self._outbox:
            stream, piece = self._outbox.popleft()
            stream.put(piece)
