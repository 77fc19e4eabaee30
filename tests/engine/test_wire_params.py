"""Sampling parameters on their way to the core and back."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.wire_params import params_from_wire, params_to_wire
from workbench.sampling_params import RequestOutputKind, SamplingParams
from workbench.structured_outputs_params import StructuredOutputsParams

IDS = st.lists(st.integers(0, 10**6), max_size=4)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "n": st.integers(1, 9),
        "temperature": st.floats(0, 9),
        "top_p": st.floats(0.1, 1.0),
        "top_k": st.integers(-1, 2**40),
        "seed": st.none() | st.integers(-(2**63), 2**64 - 1),
        "stop": st.lists(st.text("ab\n€", min_size=1), max_size=3),
        "stop_token_ids": IDS,
        "max_tokens": st.none() | st.integers(1, 10**6),
        "logprobs": st.none() | st.integers(-1, 20),
        "prompt_logprobs": st.none() | st.integers(-1, 20),
        "logit_bias": st.dictionaries(st.integers(0, 10**6), st.floats(-100, 100), max_size=3),
        "bad_words_token_ids": st.lists(
            st.lists(st.integers(0, 99), min_size=1, max_size=3), max_size=2
        ),
        "allowed_token_ids": st.none() | st.lists(st.integers(0, 99), min_size=1, max_size=3),
        "output_kind": st.sampled_from(RequestOutputKind),
        "ignore_eos": st.booleans(),
        "structured_outputs": st.sampled_from(
            [
                None,
                StructuredOutputsParams(choice=["a", "b"]),
                StructuredOutputsParams(json={"type": "object"}, wrap_up=False),
                StructuredOutputsParams(json_object=True),
            ]
        ),
    },
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(fields=FIELDS)
def test_parameters_come_back_as_they_were(fields: dict[str, object]) -> None:
    params = SamplingParams(**fields)
    data = msgspec.msgpack.encode(params_to_wire(params))
    back = params_from_wire(msgspec.msgpack.decode(data))
    assert back == params
    assert type(back.stop) is tuple
    assert type(back.bad_words_token_ids) is tuple
    assert all(type(word) is tuple for word in back.bad_words_token_ids)
    assert back.structured_outputs == params.structured_outputs
    # what was checked once can be changed and is checked again then
    assert back.clone() == params


def test_defaults_are_not_sent() -> None:
    assert params_to_wire(SamplingParams()) == {}
    assert params_to_wire(SamplingParams(seed=-1, stop=[])) == {}
