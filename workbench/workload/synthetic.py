"""Seeded synthetic workloads: arrivals, lengths, sharing and attributes, each a part of its own.

Every concern draws from its own random stream, so changing one part leaves the others as they are.
"""

from dataclasses import replace
from enum import IntEnum

import numpy as np

from workbench.workload.arrivals import Arrivals
from workbench.workload.attributes import Clients, DeadlineSlack, Priorities
from workbench.workload.base import RequestColumns
from workbench.workload.bounds import check_instance, check_integer, check_number
from workbench.workload.lengths import Lengths
from workbench.workload.sessions import SessionPlan, SessionWorkload, place_sessions
from workbench.workload.sharing import NoSharing, Sharing


class Stream(IntEnum):
    """The random stream of each concern; the order is part of what a seed means."""

    ARRIVALS = 0
    PROMPTS = 1
    OUTPUTS = 2
    SHARING = 3
    THINKING = 4
    PRIORITIES = 5
    CLIENTS = 6
    DEADLINES = 7


def random_streams(seed: int) -> list[np.random.Generator]:
    """One independent generator a `Stream`."""
    check_integer("seed", seed, at_least=0)
    return [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(len(Stream))]


class SyntheticWorkload(SessionWorkload):
    """`num_requests` requests drawn from distributions; the same seed gives the same requests.

    `arrivals` places sessions (requests, unless `sharing` makes sessions of several turns);
    `rate_scale` divides its times, think times of a closed loop included. `output_lengths` may
    depend on what `prompt_lengths` drew. Priorities and clients are drawn a session, deadlines
    a request.
    """

    def __init__(
        self,
        *,
        arrivals: Arrivals,
        prompt_lengths: Lengths,
        output_lengths: Lengths,
        num_requests: int,
        seed: int,
        sharing: Sharing | None = None,
        rate_scale: float = 1.0,
        priorities: Priorities | None = None,
        clients: Clients | None = None,
        deadlines: DeadlineSlack | None = None,
    ) -> None:
        sharing = NoSharing() if sharing is None else sharing
        check_instance("arrivals", arrivals, Arrivals)
        check_instance("prompt_lengths", prompt_lengths, Lengths)
        check_instance("output_lengths", output_lengths, Lengths)
        check_instance("sharing", sharing, Sharing)
        n = check_integer("num_requests", num_requests, at_least=1)
        check_number("rate_scale", rate_scale, above=0)
        rngs = random_streams(seed)
        prompts = prompt_lengths.sample(n, rngs[Stream.PROMPTS])
        outputs = output_lengths.sample(n, rngs[Stream.OUTPUTS], prompts)
        plan = sharing.plan(prompts, outputs, rngs[Stream.SHARING], rngs[Stream.THINKING])
        starts, waits = place_sessions(plan, arrivals, rngs[Stream.ARRIVALS], rate_scale)
        columns = plan.columns(outputs)
        columns = _with_attributes(columns, plan, rngs, priorities, clients, deadlines)
        super().__init__(columns, plan.turns, starts, waits)


def _with_attributes(
    columns: RequestColumns,
    plan: SessionPlan,
    rngs: list[np.random.Generator],
    priorities: Priorities | None,
    clients: Clients | None,
    deadlines: DeadlineSlack | None,
) -> RequestColumns:
    sessions = plan.sessions
    num_sessions = int(sessions[-1]) + 1
    if priorities is not None:
        check_instance("priorities", priorities, Priorities)
        levels = priorities.sample(num_sessions, rngs[Stream.PRIORITIES])
        columns = replace(columns, priorities=levels[sessions])
    if clients is not None:
        check_instance("clients", clients, Clients)
        names = clients.sample(num_sessions, rngs[Stream.CLIENTS])
        columns = replace(columns, client_ids=[names[s] for s in sessions.tolist()])
    if deadlines is not None:
        check_instance("deadlines", deadlines, DeadlineSlack)
        slack = deadlines.sample(columns.num_output_tokens, rngs[Stream.DEADLINES])
        columns = replace(columns, deadlines=slack)
    return columns
