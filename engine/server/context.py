"""What every endpoint works with: the engine, the settings, what the server is called.

Knows names and ids; knows no endpoint.
"""

import hashlib
import time
import uuid
from dataclasses import dataclass, field

from starlette.requests import Request

from engine.async_llm import AsyncLLM, Prepared
from engine.input_processor import Prompt
from engine.server.errors import ApiError
from engine.server.logprobs import TokenTexts
from engine.server.request_context import REQUEST_ID_HEADER, current_request_id
from engine.server.sampling import Limits
from engine.server.schemas.sampling import SamplingFields
from engine.server.settings import ServerSettings
from engine.server.state import ServerState
from engine.server.token_facts import TokenFacts
from engine.server.version import version
from workbench.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True)
class AnswerId:
    """What an answer is called.

    Attributes:
        public: In the answer.
        internal: Of the engine's requests, unique even if two clients choose the same name.
        created: Unix time, seconds.
    """

    public: str
    internal: str
    created: int


@dataclass(frozen=True, slots=True)
class ServerContext:
    """The server around an engine.

    Attributes:
        llm: Answers.
        settings: Of the server.
        state: Its load.
        tokens: Facts of the tokenizer.
        created: Unix time at which it began, seconds.
    """

    llm: AsyncLLM
    settings: ServerSettings
    state: ServerState
    tokens: TokenFacts
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def limits(self) -> Limits:
        """What requests may ask for."""
        info, settings = self.llm.info, self.settings
        return Limits(
            info.max_model_len, info.vocab_size, settings.max_logprobs, settings.max_answers
        )

    @property
    def fingerprint(self) -> str:
        """Changes when answers to the same request may: program, model or world."""
        info = self.llm.info
        facts = f"{info.world} {info.model} {info.vocab_size} {sorted(info.facts.items())}"
        return f"workbench-{version()}-{hashlib.sha256(facts.encode()).hexdigest()[:8]}"

    def token_texts(self, *, as_ids: bool) -> TokenTexts:
        """What tokens look like in an answer."""
        return TokenTexts(self.tokens, as_ids)

    def check_model(self, name: str | None) -> None:
        """Refuse a model that is not served.

        Raises:
            ApiError: 404.
        """
        names = self.settings.served_model_names
        if name is not None and name not in names:
            known = ", ".join(names)
            reason = f"the model `{name[:200]}` does not exist: this server has {known}"
            raise ApiError(404, reason, "model")

    def answer_id(self, prefix: str, request: Request, body: SamplingFields) -> AnswerId:
        """A name by the client's X-Request-Id or request_id, else a new one."""
        has_header = REQUEST_ID_HEADER in request.headers
        chosen = None if has_header else body.request_id
        public = f"{prefix}-{chosen or current_request_id() or uuid.uuid4().hex}"
        is_theirs = has_header or chosen is not None
        internal = f"{public}-{uuid.uuid4().hex[:8]}" if is_theirs else public
        return AnswerId(public, internal, int(time.time()))

    def check_length(self, text: str, params: SamplingParams) -> None:
        """Refuse a text that is too long before megabytes of it are tokenized.

        Raises:
            ApiError: 400, with both numbers.
        """
        longest, room = self.tokens.max_chars, self.llm.info.max_model_len
        if longest is None or params.truncate_prompt_tokens is not None:
            return
        if len(text) > longest * room:
            raise ApiError(
                400,
                f"the prompt has {len(text)} characters, and max_model_len={room} tokens of at "
                f"most {longest} characters hold {longest * room}: shorten it, or set "
                "truncate_prompt_tokens",
                "prompt",
            )

    async def prepare(
        self, request_id: str, prompt: Prompt, params: SamplingParams, body: SamplingFields
    ) -> Prepared:
        """Check and tokenize one prompt.

        Raises:
            InputError, ApiError: It cannot be served.
        """
        return await self.llm.prepare(
            request_id,
            prompt,
            params,
            priority=body.priority or 0,
            client_id=(body.user or "default")[:256],
            session_id=body.session_id,
        )
