"""One answer that grows: its tokens, its text, and how it ends.

Reads the request of the core that computes it, or its mirror, and stops by itself at a stop string.
Knows no other answer.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from engine.answer_text import AnswerText
from engine.detokenizer import DecoderFactory
from engine.input_processor import ProcessedInput
from engine.logprobs_text import describe_logprobs
from engine.outputs import CompletionOutput, PositionLogprobs
from workbench.request import RequestStatus
from workbench.sampling_params import RequestOutputKind
from workbench.token_logprobs import TokenLogprobs


class CoreRequest(Protocol):
    """What is read of a request of the core, wherever that is; see workbench.request."""

    @property
    def request_id(self) -> str: ...
    @property
    def status(self) -> RequestStatus: ...
    @property
    def finish_reason(self) -> str | None: ...
    @property
    def stop_reason(self) -> int | str | None: ...
    @property
    def output_token_ids(self) -> list[int]: ...
    @property
    def num_output_tokens(self) -> int: ...
    @property
    def num_cached_tokens(self) -> int: ...
    @property
    def num_preemptions(self) -> int: ...
    @property
    def arrival_time(self) -> float: ...
    @property
    def first_scheduled_time(self) -> float | None: ...
    @property
    def token_times(self) -> Sequence[float]: ...


class Answer:
    """One answer.

    Args:
        index: Its place among the n of its parent.
        parent_id: The user's request.
        request: The core's.
        source: What was asked.
        make_decoder: Text from tokens; None: no text.

    Attributes:
        logprobs: One a token, as they come; may run ahead of the tokens that are kept.
        finish_reason, stop_reason: As in CompletionOutput.
    """

    __slots__ = (
        "_cumulative_logprob",
        "_described",
        "_kind",
        "_num_told",
        "_source",
        "_text",
        "_token_ids",
        "finish_reason",
        "index",
        "logprobs",
        "parent_id",
        "request",
        "stop_reason",
    )

    def __init__(
        self,
        index: int,
        parent_id: str,
        request: CoreRequest,
        source: ProcessedInput,
        make_decoder: DecoderFactory | None,
    ) -> None:
        params = source.params
        self.index = index
        self.parent_id = parent_id
        self.request = request
        self.logprobs: list[TokenLogprobs] = []
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self._source = source
        self._kind = params.output_kind
        self._token_ids: list[int] = []
        self._num_told = 0
        self._described: list[PositionLogprobs] = []
        self._cumulative_logprob = 0.0
        self._text: AnswerText | None = None
        if make_decoder is not None:
            decoder = make_decoder(
                source.prompt_token_ids,
                params.skip_special_tokens,
                params.spaces_between_special_tokens,
            )
            self._text = AnswerText(
                decoder, params.stop or (), params.include_stop_str_in_output, params.min_tokens
            )

    @property
    def is_watched(self) -> bool:
        """Whether it must be read after every step."""
        has_stops = self._text is not None and bool(self._source.params.stop)
        return has_stops or self._kind is not RequestOutputKind.FINAL_ONLY

    @property
    def is_finished(self) -> bool:
        return self.finish_reason is not None

    def read(self) -> bool:
        """Take in the request's new tokens, and end at a stop string; whether there were any."""
        new = self.request.output_token_ids[len(self._token_ids) :]
        if not new:
            return False
        shown: Sequence[int] = new
        if (
            self.request.status is RequestStatus.FINISHED_STOPPED
            and self.request.stop_reason is not None  # None: a grammar is complete
            and not self._source.params.include_stop_str_in_output
        ):
            # the token that ends an answer is kept among its tokens and out of its text
            shown = new[:-1]
        num_taken, stop = len(shown), None
        if self._text is not None:
            num_taken, stop = self._text.append(shown)
        if stop is None:
            self._token_ids += new
        else:
            self._token_ids += new[:num_taken]
            self.finish_reason, self.stop_reason = "stop", stop
        return True

    def end(self) -> None:
        """The request has ended in the core: take in the rest, and how it ended."""
        self.read()
        if self.is_finished:
            return
        request = self.request
        self.finish_reason = request.finish_reason
        is_error = request.status is RequestStatus.FINISHED_ERROR
        if is_error or request.stop_reason != self._source.eos_token_id:
            self.stop_reason = request.stop_reason
        if self._text is not None:
            self._text.finish()

    def abort(self) -> None:
        """The user has ended it."""
        self.read()
        if not self.is_finished:
            self.finish_reason = "abort"
            if self._text is not None:
                self._text.finish()

    def output(self, tokenizer: Any) -> CompletionOutput:
        """What the user gets now: all of it, or with DELTA what is new.

        Args:
            tokenizer: For the text of tokens beside log probabilities, or None.
        """
        is_delta = self._kind is RequestOutputKind.DELTA
        first = self._num_told if is_delta else 0
        self._num_told = len(self._token_ids)
        text = ""
        if self._text is not None:
            show = self._text.new_text if is_delta else self._text.text
            text = show(self.is_finished)
        wants_logprobs = self._source.params.logprobs is not None
        if wants_logprobs:
            self._describe(tokenizer)
        return CompletionOutput(
            index=self.index,
            text=text,
            token_ids=self._token_ids[first:],
            cumulative_logprob=self._cumulative_logprob if wants_logprobs else None,
            logprobs=self._described[first:] if wants_logprobs else None,
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
        )

    def _describe(self, tokenizer: Any) -> None:
        """Make what users get of the log probabilities that have come with the tokens kept."""
        new = self.logprobs[len(self._described) : len(self._token_ids)]
        self._described += describe_logprobs(new, tokenizer)
        self._cumulative_logprob += sum(position.logprobs[0] for position in new)
