"""Requests that arrive within a few milliseconds go through the model together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Batcher(Generic[Question, Answer]):
    """Collects questions for `wait` seconds, or until there are `most`, and answers them by one call in a thread of its own.

    One thread, so that the model is never entered twice at once; while it works, the next batch gathers.

    Args:
        answer: several questions -> their answers, in the same order. An exception of it reaches everybody in the batch.
        wait: seconds that the first question of a batch waits for others.
        most: questions of a batch.
        observe: called with the size of each batch.
    """

    def __init__(
        self, answer: Callable[[Sequence[Question]], Sequence[Answer]], wait: float, most: int, observe: Callable[[int], None]
    ):
        self._answer, self._wait, self._most, self._observe = answer, wait, most, observe
        self._waiting: asyncio.Queue = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task: asyncio.Task | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def ask(self, question: Question) -> Answer:
        future = asyncio.get_running_loop().create_future()
        await self._waiting.put((question, future))
        return await future

    async def stop(self) -> None:
        """Answers what is waiting, then ends."""
        await self._waiting.join()
        if self._task:
            self._task.cancel()
        self._thread.shutdown()

    async def _run(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            deadline = asyncio.get_running_loop().time() + self._wait
            while len(batch) < self._most:
                left = deadline - asyncio.get_running_loop().time()
                try:
                    batch.append(self._waiting.get_nowait() if left <= 0 else await asyncio.wait_for(self._waiting.get(), left))
                except (TimeoutError, asyncio.QueueEmpty):
                    break
            await self._serve(batch)

    async def _serve(self, batch: list[tuple[Question, asyncio.Future]]) -> None:
        self._observe(len(batch))
        try:
            questions = [question for question, _ in batch]
            answers = await asyncio.get_running_loop().run_in_executor(self._thread, self._answer, questions)
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():  # whoever asked may have gone
                    future.set_result(answer)
        except Exception as error:  # it belongs to those who asked; the next batch must be served all the same
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        finally:
            for _ in batch:
                self._waiting.task_done()
