"""From what a step returned to what users get: text, ends, log probabilities, n answers as one.

Answers that nobody watches (no stop strings, no streaming) cost nothing until they end; their text
is made then, at once. A step costs as much as it has new tokens. Knows requests and text; knows no
scheduler, no model and no clock, and not where the core is.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.answer import Answer, CoreRequest
from engine.detokenizer import DecoderFactory
from engine.input_processor import ProcessedInput
from engine.logprobs_text import describe_logprobs
from engine.outputs import PositionLogprobs, RequestMetrics, RequestOutput
from workbench.outputs import ModelRunnerOutput
from workbench.sampling_params import RequestOutputKind


class StepTokens(Protocol):
    """What a step gave to the requests; see EngineCoreOutputs."""

    @property
    def finished(self) -> Sequence[CoreRequest]:
        """Requests that ended in the step."""
        ...

    def new_tokens(self) -> Iterator[tuple[CoreRequest, list[int]]]:
        """Requests whose output has grown, with what was added."""
        ...


@dataclass(slots=True)
class _Parent:
    """One request of the user and its answers, by index."""

    request_id: str
    source: ProcessedInput
    answers: list[Answer]
    num_unfinished: int
    prompt_logprobs: list[PositionLogprobs | None] | None = field(default=None)


class OutputProcessor:
    """Keeps the unfinished requests of the users.

    Args:
        make_decoder: Text from tokens; None: no text.
        tokenizer: For the text of single tokens beside log probabilities; None: without.
    """

    def __init__(self, make_decoder: DecoderFactory | None = None, tokenizer: Any = None) -> None:
        self._make_decoder = make_decoder
        self._tokenizer = tokenizer
        self._parents: dict[str, _Parent] = {}
        self._answers: dict[str, Answer] = {}
        self._watched: dict[str, Answer] = {}

    @property
    def num_unfinished_requests(self) -> int:
        """Requests of users with an answer that grows."""
        return len(self._parents)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._parents

    def has_any(self, request_id: str, requests: Sequence[CoreRequest]) -> bool:
        """Whether this id of a user, or that of one of these requests of the core, is taken."""
        return request_id in self._parents or any(r.request_id in self._answers for r in requests)

    def add_request(
        self, request_id: str, source: ProcessedInput, requests: Sequence[CoreRequest]
    ) -> None:
        """Take in a request of a user.

        Args:
            request_id: The user's.
            source: What was asked.
            requests: One an answer, in the order of their index.
        """
        make_decoder = self._make_decoder if source.params.detokenize else None
        answers = [
            Answer(index, request_id, request, source, make_decoder)
            for index, request in enumerate(requests)
        ]
        parent = _Parent(request_id, source, answers, len(answers))
        if source.params.prompt_logprobs is not None:
            parent.prompt_logprobs = [None] * len(source.prompt_token_ids)
        self._parents[request_id] = parent
        for answer in answers:
            self._answers[answer.request.request_id] = answer
            if answer.is_watched:
                self._watched[answer.request.request_id] = answer

    def process(
        self, model_output: ModelRunnerOutput | None, core_outputs: StepTokens
    ) -> tuple[list[RequestOutput], list[str]]:
        """Take in a step.

        Args:
            model_output: What the model returned, for its log probabilities; None if nothing did.
            core_outputs: What became of it.

        Returns:
            What the users get, and ids of requests of the core that ended by a stop string and
            must be aborted there.
        """
        if model_output is not None:
            self._take_logprobs(model_output)
        changed: dict[str, list[Answer]] = {}
        stopped = []
        watched = self._watched
        for request, _ in core_outputs.new_tokens() if watched else ():
            answer = watched.get(request.request_id)
            if answer is None or not answer.read():
                continue
            changed.setdefault(answer.parent_id, []).append(answer)
            if answer.is_finished:
                self._forget(answer)
                stopped.append(answer.request.request_id)
        for request in core_outputs.finished:
            ended = self._answers.get(request.request_id)
            if ended is not None:
                ended.end()
                self._forget(ended)
                answers = changed.setdefault(ended.parent_id, [])
                if ended not in answers:
                    answers.append(ended)
        return self._outputs(changed), stopped

    def abort_requests(self, request_ids: Iterable[str]) -> tuple[list[RequestOutput], list[str]]:
        """End requests of users; unknown ids are passed over.

        Returns:
            Their last outputs, and ids of requests of the core, which have been ended already or
            must be now.
        """
        changed: dict[str, list[Answer]] = {}
        core_ids = []
        for request_id in request_ids:
            parent = self._parents.get(request_id)
            for answer in parent.answers if parent is not None else ():
                if not answer.is_finished:
                    core_ids.append(answer.request.request_id)
                    answer.abort()
                    self._forget(answer)
                    changed.setdefault(request_id, []).append(answer)
        return self._outputs(changed), core_ids

    def clear(self) -> None:
        """Forget all requests: their core is gone."""
        self._parents.clear()
        self._answers.clear()
        self._watched.clear()

    def _forget(self, answer: Answer) -> None:
        core_id = answer.request.request_id
        del self._answers[core_id]
        self._watched.pop(core_id, None)
        self._parents[answer.parent_id].num_unfinished -= 1

    def _take_logprobs(self, model_output: ModelRunnerOutput) -> None:
        for core_id, logprobs in model_output.logprobs.items():
            answer = self._answers.get(core_id)
            if answer is not None:
                answer.logprobs += logprobs
        for core_id, run in model_output.prompt_logprobs.items():
            answer = self._answers.get(core_id)
            parent = None if answer is None else self._parents[answer.parent_id]
            if parent is not None and parent.prompt_logprobs is not None:
                told = describe_logprobs(run.tokens, self._token_texts(parent))
                # of logits that are not numbers there is nothing to tell
                parent.prompt_logprobs[run.start : run.start + len(told)] = [
                    position if tokens.rank else None
                    for position, tokens in zip(told, run.tokens, strict=True)
                ]

    def _token_texts(self, parent: _Parent) -> Any:
        return self._tokenizer if parent.source.params.detokenize else None

    def _outputs(self, changed: dict[str, list[Answer]]) -> list[RequestOutput]:
        outputs = []
        for request_id, answers in changed.items():
            parent = self._parents[request_id]
            is_finished = parent.num_unfinished == 0
            if parent.source.params.output_kind is RequestOutputKind.FINAL_ONLY:
                if not is_finished:
                    continue
                answers = parent.answers
            if is_finished:
                del self._parents[request_id]
            outputs.append(self._output(parent, answers, is_finished))
        return outputs

    def _output(
        self, parent: _Parent, answers: Sequence[Answer], is_finished: bool
    ) -> RequestOutput:
        tokenizer = self._token_texts(parent)
        return RequestOutput(
            request_id=parent.request_id,
            prompt=parent.source.prompt,
            prompt_token_ids=parent.source.prompt_token_ids,
            prompt_logprobs=parent.prompt_logprobs,
            outputs=[answer.output(tokenizer) for answer in sorted(answers, key=lambda a: a.index)],
            finished=is_finished,
            metrics=_metrics([a.request for a in parent.answers]) if is_finished else None,
            num_cached_tokens=parent.answers[0].request.num_cached_tokens,
        )


def _metrics(requests: Sequence[CoreRequest]) -> RequestMetrics:
    starts = [r.first_scheduled_time for r in requests if r.first_scheduled_time is not None]
    times = [r.token_times for r in requests if r.num_output_tokens]
    return RequestMetrics(
        arrival_time=requests[0].arrival_time,
        scheduled_ts=min(starts, default=None),
        first_token_ts=min((each[0] for each in times if each), default=None),
        last_token_ts=max((each[-1] for each in times if each), default=None),
        num_generation_tokens=sum(r.num_output_tokens for r in requests),
        num_preemptions=sum(r.num_preemptions for r in requests),
    )
