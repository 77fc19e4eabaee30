"""From a workload's request to bytes on a connection, and from its end to what follows from it.

Knows prompts, bodies and connections. Bodies are made before the load as far as memory allows,
for making one takes longer than sending it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from experiments.bench.answer import Answer, read_answer
from experiments.bench.http import Exchange, HttpClient
from experiments.bench.prompts import PromptMaker
from experiments.bench.request_body import RequestBody
from experiments.bench.target import with_body
from workbench.workload.base import Workload, WorkloadRequest

PREPARED_BYTES = 64 << 20
RAW_BYTES = 256 << 20


@dataclass(slots=True)
class ServerSender:
    """Sends to one server.

    Attributes:
        client: The connections.
        head: Of every request, without its length.
        body: How bodies look.
        prompts: Makes the prompts.
        prefix: Begins every request id.
        answers: Those that have been read, by the workload's id.
        num_unlearned: Answers that a later turn should have repeated and whose tokens the server
            did not tell.
    """

    client: HttpClient
    head: str
    body: RequestBody
    prompts: PromptMaker
    prefix: str = "bench-"
    answers: dict[str, Answer] = field(default_factory=dict)
    num_unlearned: int = 0
    _prepared: dict[str, bytes] = field(default_factory=dict)
    _raw_bytes: int = 0

    def prepare(self, workload: Workload, most: int | None = None) -> None:
        """Make the requests that come anyway, in their order, up to a limit of memory."""
        left = PREPARED_BYTES
        for number, item in enumerate(workload.initial()):
            if left <= 0 or number == most:
                return
            if item.output_hash_ids:  # its tokens must be known when it has ended
                continue
            request = self._request(item, self.prompts.numbers(item))
            self._prepared[item.request_id] = request
            left -= len(request)

    def send(self, item: WorkloadRequest, on_end: Callable[[], None]) -> Exchange:
        request = self._prepared.pop(item.request_id, None)
        numbers: list[int] = []
        if request is None:
            numbers = self.prompts.numbers(item)
            request = self._request(item, numbers)

        def ended(exchange: Exchange) -> None:
            self._ended(item, numbers, exchange)
            on_end()

        exchange = Exchange(self.prefix + item.request_id, request, ended)
        self.client.send(exchange)
        return exchange

    def _request(self, item: WorkloadRequest, numbers: list[int]) -> bytes:
        head = self.head
        if item.session_id is not None:
            head += f"X-Session-Id: {item.session_id}\r\n"
        body = self.body.of(self.prompts.prompt(numbers), item)
        return with_body(head, body, self.prefix + item.request_id)

    def _ended(self, item: WorkloadRequest, numbers: list[int], exchange: Exchange) -> None:
        """Read the answer now if something depends on it or too much is waiting to be read."""
        self._raw_bytes += sum(map(len, exchange.pieces))
        if item.output_hash_ids:
            answer = self.answer(item, exchange)
            if answer.failure is None and not self.prompts.learn(item, numbers, answer):
                self.num_unlearned += 1
        elif self._raw_bytes > RAW_BYTES:
            self.answer(item, exchange)

    def answer(self, item: WorkloadRequest, exchange: Exchange) -> Answer:
        """The answer of a finished exchange; its bytes are let go of."""
        found = self.answers.get(item.request_id)
        if found is None:
            found = self.answers[item.request_id] = read_answer(exchange)
            exchange.times, exchange.pieces = [], []
        return found
