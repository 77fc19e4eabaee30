"""Structured output on a tiny model, offline: every way of running gives the same valid answers."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from engine import LLM, SamplingParams
from engine.byte_tokenizer import byte_tokenizer
from engine.errors import InputError
from workbench.structured_outputs_params import StructuredOutputsParams

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    # more than the tokenizer has, as in real models
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
    "bos_token_id": 256,
    "eos_token_id": 257,
}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
quiet = {"use_tqdm": False}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer().save_pretrained(folder)
    return folder


def load(tokenizer: Path, **settings: Any) -> LLM:
    small = {"max_num_seqs": 8, "num_gpu_blocks_override": 100, "block_size": 8, "device": "cpu"}
    return LLM(CONFIG, tokenizer=tokenizer, load_format="dummy", **(small | settings))


@pytest.fixture(scope="module")
def llm(tokenizer: Path) -> LLM:
    return load(tokenizer)


def asking(**form: Any) -> SamplingParams:
    return SamplingParams(
        structured_outputs=StructuredOutputsParams(**form), max_tokens=60, seed=1, temperature=1.0
    )


def mixed_answers(llm: LLM) -> list[tuple[str, str | None]]:
    """Constrained and free answers side by side."""
    params = [
        asking(json=PERSON),
        SamplingParams(max_tokens=30, seed=2),
        asking(json={"type": "array", "items": PERSON, "minItems": 1}),
        asking(choice=["red", "green"]),
        asking(regex="[a-f]+"),
        asking(json_object=True).clone(temperature=0.0),
    ]
    outputs = llm.generate([f"prompt number {i}" for i in range(6)], params, **quiet)
    return [(each.outputs[0].text, each.outputs[0].finish_reason) for each in outputs]


@pytest.fixture(scope="module")
def expected(llm: LLM) -> list[tuple[str, str | None]]:
    return mixed_answers(llm)


def test_answers_have_their_form(expected: list[tuple[str, str | None]]) -> None:
    texts = [text for text, _ in expected]
    assert {reason for i, (_, reason) in enumerate(expected) if i not in (1, 4)} == {"stop"}
    assert set(json.loads(texts[0])) == {"name", "age"}
    assert all(set(each) == {"name", "age"} for each in json.loads(texts[2]))
    assert texts[3] in ("red", "green")
    assert re.fullmatch("[a-f]+", texts[4])
    assert isinstance(json.loads(texts[5]), dict)


@pytest.mark.parametrize(
    "settings",
    [
        {"async_scheduling": True},
        {"num_speculative_tokens": 3},
        {"num_speculative_tokens": 2, "async_scheduling": True},
        {"num_gpu_blocks_override": 14, "max_model_len": 100},
        {"num_gpu_blocks_override": 14, "max_model_len": 100, "async_scheduling": True},
        {"max_num_batched_tokens": 16, "enable_prefix_caching": False},
    ],
    ids=["async", "drafts", "async drafts", "preempted", "async preempted", "chunked"],
)
def test_however_it_runs_the_answers_are_the_same(
    settings: dict[str, Any], tokenizer: Path, expected: list[tuple[str, str | None]]
) -> None:
    llm = load(tokenizer, **settings)
    assert mixed_answers(llm) == expected
    if "num_gpu_blocks_override" in settings:
        assert llm.llm_engine.core.scheduler.num_preemptions
    llm.llm_engine.shutdown()


def test_n_answers_to_one_prompt_each_have_a_grammar(llm: LLM) -> None:
    (output,) = llm.generate("hi", asking(json=PERSON).clone(n=3), **quiet)
    texts = [answer.text for answer in output.outputs]
    assert len(set(texts)) == 3
    assert all(set(json.loads(text)) == {"name", "age"} for text in texts)


def test_chat_takes_a_form_too(llm: LLM) -> None:
    messages = [{"role": "user", "content": "yes or no?"}]
    (output,) = llm.chat(messages, asking(choice=["yes", "no"]), **quiet)
    assert output.outputs[0].text in ("yes", "no")
    assert (output.outputs[0].finish_reason, output.outputs[0].stop_reason) == ("stop", None)


def test_log_probabilities_are_those_of_the_model_itself(llm: LLM) -> None:
    (output,) = llm.generate("hi", asking(choice=["yes", "no"]).clone(logprobs=2), **quiet)
    answer = output.outputs[0]
    assert answer.logprobs is not None
    assert len(answer.logprobs) == len(answer.token_ids)
    chosen = [one[token] for one, token in zip(answer.logprobs, answer.token_ids, strict=True)]
    # among 300 tokens that are about as likely, not among the few that were allowed
    assert all(each.logprob < -3.0 for each in chosen)


def test_what_does_not_compile_fails_its_own_request_only(llm: LLM) -> None:
    bad, good = llm.generate(["a", "b"], [asking(regex="(("), asking(choice=["x"])], **quiet)
    assert bad.outputs[0].finish_reason == "error"
    assert "does not compile" in str(bad.outputs[0].stop_reason)
    assert good.outputs[0].text == "x"
    with pytest.raises(InputError, match="does not compile"):
        llm.generate("a", asking(json={"type": "colour"}), **quiet)


def test_a_form_and_other_wishes(llm: LLM) -> None:
    digits = asking(regex="[0-9]+")
    (output,) = llm.generate("a", digits.clone(min_tokens=15), **quiet)
    assert len(output.outputs[0].text) >= 15
    (output,) = llm.generate("a", digits.clone(ignore_eos=True), **quiet)
    assert (len(output.outputs[0].text), output.outputs[0].finish_reason) == (60, "length")
    seven = llm.get_tokenizer().encode("7", add_special_tokens=False)
    (output,) = llm.generate("a", digits.clone(allowed_token_ids=seven, max_tokens=5), **quiet)
    assert output.outputs[0].text == "77777"
    (output,) = llm.generate("a", digits.clone(allowed_token_ids=[256]), **quiet)
    assert output.outputs[0].finish_reason == "error"
    assert "structured_outputs" in str(output.outputs[0].stop_reason)


def test_without_a_tokenizer_there_is_no_form() -> None:
    llm = LLM(CONFIG, load_format="dummy", skip_tokenizer_init=True, num_gpu_blocks_override=50)
    with pytest.raises(InputError, match="structured_outputs need a tokenizer"):
        llm.generate([1, 2, 3], asking(choice=["x"]).clone(detokenize=False), **quiet)
