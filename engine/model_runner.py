"""Runs the model: a step's decisions in, sampled tokens out.

One flattened batch mixes chunks of prompts and decodes; logits are computed only where somebody
wants them. The token a request has just sampled stays on the device, where the next step finds it,
so that a step can be prepared and started before the host has seen the results of the one before.
This file knows no scheduling, no architecture and no text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.attention.backend import AttentionBackend, AttentionBatch
from engine.batch_inputs import BatchInputs
from engine.cuda_graph import CudaGraphs
from engine.grammar_mask import grammar_edit
from engine.input_batch import InputBatch
from engine.models.causal_lm import CausalLM
from engine.prompt_logprobs import PromptLogprobsBatch, PromptSpan, gather_in_parts
from engine.sampler import Sampler, SamplerOutput
from engine.sampling_batch import SamplingBatch
from engine.spec_decode.ngram import NgramProposer
from engine.step_result import (
    EMPTY_TOKEN,
    FAILED_TOKEN,
    Finished,
    PromptRows,
    StepResult,
    prompt_logprobs_of,
    sampled_logprobs,
    scheduler_places,
    why_failed,
)
from engine.swap_space import SwapSpace
from engine.transfer import Transfer
from engine.verification import Accepted, accept, drafts_before, kept_tokens, settle
from workbench.executor import Pending
from workbench.outputs import ModelRunnerOutput, SchedulerOutput
from workbench.sampling_params import SamplingParams
from workbench.structured_output import GrammarOutput

GREEDY = SamplingParams(temperature=0.0)


@dataclass(frozen=True, slots=True)
class _Forwarded:
    """A step between its forward pass and its sampling.

    Attributes:
        inputs: The step.
        logits: [N, vocab] float32; None where no row samples.
        sample_slots: [S] int64 on the device.
        prompt_rows: Prompt tokens with their log probabilities.
    """

    inputs: BatchInputs
    logits: Tensor | None
    sample_slots: Tensor
    prompt_rows: list[PromptRows]


class ModelRunner:
    """Executes steps in the order in which they are given.

    Args:
        model: The model.
        backend: Attention over its KV cache.
        input_batch: The requests in the batch.
        sampling_batch: How they sample.
        device: Of all of these.
        sampler: Chooses tokens.
        swap_space: Host copies of KV blocks, for preemption by swapping.
        proposer: Proposes draft tokens. Its drafts start from sampled tokens, so with a proposer
            every step waits for its own results.
        graphs: Captured decode steps.
    """

    def __init__(
        self,
        model: CausalLM,
        backend: AttentionBackend,
        input_batch: InputBatch,
        sampling_batch: SamplingBatch,
        device: torch.device,
        *,
        sampler: Sampler | None = None,
        swap_space: SwapSpace | None = None,
        proposer: NgramProposer | None = None,
        graphs: CudaGraphs | None = None,
    ) -> None:
        self.model = model
        self.backend = backend
        self.input_batch = input_batch
        self.sampling_batch = sampling_batch
        self._sampler = sampler or Sampler()
        self._swap_space = swap_space
        self._proposer = proposer
        self._graphs = graphs
        self._prompt_logprobs = PromptLogprobsBatch()
        self._transfer = Transfer(device)
        self._last_tokens = torch.zeros(
            len(input_batch.num_tokens), dtype=torch.int64, device=device
        )
        self._forwarded: _Forwarded | None = None

    @torch.inference_mode()
    def execute_model(self, output: SchedulerOutput) -> None:
        """Start a step: copies, changes of the batch, the forward pass, logits."""
        if output.swap_out or output.swap_in:
            assert self._swap_space is not None, "swapping was not configured"
            self._swap_space.copy(output.swap_out, output.swap_in)
        self._change_batch(output)
        self._forwarded = None
        if output.total_num_scheduled_tokens:
            self._forwarded = self._forward(self.input_batch.prepare(output))

    @torch.inference_mode()
    def sample_tokens(self, grammar_output: GrammarOutput | None) -> Pending:
        """Sample for the step started last; `result()` of what is returned gives its output.

        Args:
            grammar_output: What its rows may sample; None: anything.
        """
        step, self._forwarded = self._forwarded, None
        if step is None:
            return Finished(ModelRunnerOutput(sampled_token_ids=[]))
        inputs = step.inputs
        if step.logits is None:
            return StepResult(inputs, step.sample_slots, None, step.prompt_rows)
        plan = self.sampling_batch.plan(
            inputs.logits_slots, inputs.num_outputs, drafts_before(inputs)
        )
        if grammar_output is not None:
            slot_of = self.input_batch.slot_of
            plan = plan.after(grammar_edit(grammar_output, slot_of, inputs.logits_slots))
        sampled = self._sampler(step.logits, plan)
        if self._proposer is not None:
            return Finished(self._verify(step, sampled, self._proposer))
        self._last_tokens.index_copy_(0, step.sample_slots, sampled.token_ids)
        self.sampling_batch.record(step.sample_slots, sampled.token_ids)
        token_ids = sampled.token_ids.masked_fill(~sampled.is_valid, FAILED_TOKEN)
        if sampled.is_empty is not None:
            token_ids.masked_fill_(sampled.is_empty, EMPTY_TOKEN)
        return StepResult(inputs, token_ids, sampled.logprobs, step.prompt_rows)

    def _change_batch(self, output: SchedulerOutput) -> None:
        """Who left, who came, who got blocks."""
        batch = self.input_batch
        for gone in (output.finished_req_ids, output.preempted_req_ids):
            for request_id in gone:
                slot = batch.remove(request_id)
                if slot is not None:
                    self.sampling_batch.remove(slot)
                    self._prompt_logprobs.remove(slot)
        for new in output.scheduled_new_reqs:
            slot = batch.add(new)
            self.sampling_batch.add(
                slot,
                new.request_id,
                new.sampling_params or GREEDY,
                new.prompt_token_ids or (),
                new.output_token_ids,
            )
            self._prompt_logprobs.add(slot, new)
        if output.new_block_ids:
            batch.append_blocks(output.new_block_ids)
        for table in batch.block_tables:
            table.flush(self._transfer)

    def _forward(self, inputs: BatchInputs) -> _Forwarded:
        arrays = self._transfer.put(
            inputs.token_ids,
            inputs.positions,
            inputs.query_start_loc,
            inputs.seq_lens,
            inputs.rows.slots,
            inputs.sample_slots,
            inputs.logits_indices,
            inputs.device_tokens,
            inputs.device_slots,
            *inputs.slot_mappings,
        )
        token_ids, positions, starts, seq_lens, slots, sample_slots, wanted = arrays[:7]
        token_ids = self._fill_in(token_ids, *arrays[7:9])
        attention = self._attention_batch(inputs, positions, starts, seq_lens, slots, arrays[9:])
        hidden = self._hidden(token_ids, attention)
        spans = self._prompt_logprobs.plan(
            inputs, self.input_batch.token_ids, self.input_batch.num_prompt
        )
        logits = None
        if len(inputs.logits_indices):
            is_every = len(inputs.logits_indices) == inputs.num_tokens
            logits = self.model.compute_logits(hidden if is_every else hidden[wanted])
        prompt_rows = [self._prompt_rows(hidden, span) for span in spans]
        return _Forwarded(inputs, logits, sample_slots, prompt_rows)

    def _fill_in(self, token_ids: Tensor, where: Tensor, slots: Tensor) -> Tensor:
        """The token ids with those put in that only the device knows."""
        if len(where) == len(token_ids):
            return self._last_tokens[slots]
        if len(where):
            token_ids.index_copy_(0, where, self._last_tokens[slots])
        return token_ids

    def _attention_batch(
        self,
        inputs: BatchInputs,
        positions: Tensor,
        starts: Tensor,
        seq_lens: Tensor,
        slots: Tensor,
        slot_mappings: Sequence[Tensor],
    ) -> AttentionBatch:
        max_seq_len = int(inputs.seq_lens.max())
        width = -(-max_seq_len // self.backend.block_size)
        return AttentionBatch(
            num_tokens=inputs.num_tokens,
            num_rows=inputs.rows.num_rows,
            num_decode_rows=inputs.rows.num_decode_rows,
            max_query_len=int(inputs.rows.query_lens.max()),
            max_seq_len=max_seq_len,
            positions=positions,
            query_start_loc=starts,
            seq_lens=seq_lens,
            block_tables=tuple(table.rows(slots, width) for table in self.input_batch.block_tables),
            slot_mappings=tuple(slot_mappings),
            query_lens_cpu=inputs.rows.query_lens,
            seq_lens_cpu=inputs.seq_lens,
        )

    def _hidden(self, token_ids: Tensor, batch: AttentionBatch) -> Tensor:
        if self._graphs is not None and self._graphs.covers(batch):
            return self._graphs.run(token_ids, batch)
        return self.model(token_ids, batch.positions, self.backend.build(batch))

    def _prompt_rows(self, hidden: Tensor, span: PromptSpan) -> PromptRows:
        (next_ids,) = self._transfer.put(span.next_ids)
        hidden, count = hidden[span.tokens], span.num_logprobs
        logprobs = gather_in_parts(self.model.compute_logits, hidden, next_ids, count)
        return PromptRows(span.request_id, span.start, logprobs)

    def _verify(
        self, step: _Forwarded, sampled: SamplerOutput, proposer: NgramProposer
    ) -> ModelRunnerOutput:
        """Keep the drafts that the model agrees with, and propose the next ones."""
        inputs, batch = step.inputs, self.input_batch
        token_ids: list[int] = sampled.token_ids.tolist()
        accepted = accept(inputs, scheduler_places(inputs), token_ids, sampled.is_valid.tolist())
        settle(batch, accepted)
        kept = np.array(kept_tokens(accepted, len(token_ids), token_ids), dtype=np.int64)
        self.sampling_batch.record(*self._transfer.put(inputs.logits_slots, kept))
        rows: list[list[int]] = [[] for _ in range(inputs.rows.num_rows)]
        for row in accepted:
            if row.is_valid:
                rows[row.place] = row.token_ids
        output = ModelRunnerOutput(sampled_token_ids=rows)
        output.draft_token_ids = self._propose(accepted, proposer)
        output.failed = why_failed(accepted, sampled.is_empty)
        if sampled.logprobs is not None:
            output.logprobs = sampled_logprobs(sampled.logprobs, accepted)
        output.prompt_logprobs = prompt_logprobs_of(step.prompt_rows)
        return output

    def _propose(self, accepted: list[Accepted], proposer: NgramProposer) -> dict[str, list[int]]:
        drafts = {}
        for row in accepted:
            proposed = proposer.propose(self.input_batch.known_tokens(row.slot))
            self.input_batch.keep_drafts(row.slot, proposed)
            drafts[row.request_id] = proposed
        return drafts
