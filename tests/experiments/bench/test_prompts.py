"""Token ids and texts of prompts."""

import json

import pytest

from experiments.bench.answer import Answer
from experiments.bench.prompts import PromptMaker, Vocabulary
from experiments.bench.request_body import CHAT, COMPLETIONS, RequestBody
from workbench.errors import ConfigError
from workbench.workload.base import WorkloadRequest

tokenizers = pytest.importorskip("tokenizers")


def item(name="r", prompt=20, output=4, **fields):
    return WorkloadRequest(name, 0.0, prompt, output, **fields)


@pytest.fixture
def word_folder(tmp_path):
    """A tokenizer of 40 words with their leading spaces, and of single bytes."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate(alphabet)}
    merges = []
    for a in "bcdf":
        vocab["Ġ" + a] = len(vocab)
        merges.append(("Ġ", a))
        for b in "aeioubcdfg":
            vocab[f"Ġ{a}{b}"] = len(vocab)
            merges.append((f"Ġ{a}", b))
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.fixture
def letter_folder(tmp_path):
    """A tokenizer that knows bytes only."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.models.BPE({letter: i for i, letter in enumerate(alphabet)}, [])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_ids_have_the_length_and_stay_in_the_vocabulary():
    maker = PromptMaker(Vocabulary.of_size(50), 0, as_text=False)
    prompt = maker.prompt(maker.numbers(item(prompt=500)))
    assert len(prompt) == 500
    assert min(prompt) >= 3
    assert max(prompt) < 50


def test_a_prompt_of_the_workload_itself_is_sent_as_it_is():
    maker = PromptMaker(Vocabulary.of_size(50), 0, as_text=False)
    assert maker.prompt(maker.numbers(item(prompt_token_ids=(0, 99, 7)))) == [0, 99, 7]


def test_the_same_seed_gives_the_same_prompts_and_two_prompts_differ():
    makers = [PromptMaker(Vocabulary.of_size(None), seed, False) for seed in (0, 0, 1)]
    first, same, other = ([m.prompt(m.numbers(item(prompt=64))) for _ in range(2)] for m in makers)
    assert first == same
    assert first[0] != first[1]
    assert first != other


@pytest.mark.parametrize("kind", ["word", "letter"])
def test_text_has_exactly_the_tokens_that_were_asked_for(kind, request):
    vocabulary = Vocabulary.of_tokenizer(str(request.getfixturevalue(f"{kind}_folder")))
    maker = PromptMaker(vocabulary, 0, as_text=True)
    for length in (1, 7, 300):
        text = maker.prompt(maker.numbers(item(prompt=length)))
        assert len(vocabulary.ids(text)) == length


def test_text_needs_a_tokenizer():
    with pytest.raises(ConfigError, match="--tokenizer"):
        PromptMaker(Vocabulary.of_size(None), 0, as_text=True)


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_no_tokenizer_there(folder, tmp_path):
    with pytest.raises(ConfigError, match="no file"):
        Vocabulary.of_tokenizer(str(tmp_path / folder))


def test_a_broken_tokenizer(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="is no tokenizer"):
        Vocabulary.of_tokenizer(str(tmp_path))


def turns():
    """Two turns of a conversation in blocks of 4 tokens."""
    first = item("0", 8, 4, hash_ids=(1, 2), hash_block_size=4, output_hash_ids=(3,))
    second = item("1", 14, 4, hash_ids=(1, 2, 3), hash_block_size=4, output_hash_ids=(4,))
    return first, second


def test_the_next_turn_repeats_the_answer():
    first, second = turns()
    maker = PromptMaker(Vocabulary.of_size(50), 0, as_text=False)
    numbers = maker.numbers(first)
    answer = Answer("0", 0.0, 1.0, token_ids=[60, 61, 62, 63])  # a model's own, beyond ours
    assert maker.learn(first, numbers, answer)
    following = maker.prompt(maker.numbers(second))
    assert following[:12] == [*maker.prompt(numbers), 60, 61, 62, 63]
    assert len(following) == 14


def test_an_answer_of_text_is_learned_with_a_tokenizer_and_not_without(letter_folder):
    first, second = turns()
    answer = Answer("0", 0.0, 1.0, text="abcd")
    blind = PromptMaker(Vocabulary.of_size(50), 0, as_text=False)
    assert not blind.learn(first, blind.numbers(first), answer)
    vocabulary = Vocabulary.of_tokenizer(str(letter_folder))
    maker = PromptMaker(vocabulary, 0, as_text=True)
    numbers = maker.numbers(first)
    assert maker.learn(first, numbers, answer)
    assert maker.prompt(maker.numbers(second))[8:12] == "abcd"


def test_bodies_of_both_endpoints():
    plain = RequestBody(
        endpoint=COMPLETIONS, model="m", with_token_ids=True, params={"temperature": 0.5}
    )
    body = json.loads(plain.of([1, 2], item(output=9, priority=3, client_id="me")))
    assert body == {
        "model": "m",
        "prompt": [1, 2],
        "max_tokens": 9,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "return_token_ids": True,
        "priority": 3,
        "user": "me",
        "temperature": 0.5,
    }
    chat = RequestBody(endpoint=CHAT, model="m", ignore_eos=False)
    body = json.loads(chat.of("hello", item(output=9)))
    assert body["messages"] == [{"role": "user", "content": "hello"}]
    assert body["max_completion_tokens"] == 9
    assert not {"ignore_eos", "priority", "user", "return_token_ids"} & set(body)
