"""Who is measured. `EVERYONE` is the order in which they appear; the first needs no start, the rest one file each."""

from __future__ import annotations

from bench.peers.bare_relay import BareRelay
from bench.peers.chatgate import Chatgate
from bench.peers.direct import Direct
from bench.peers.litellm import LiteLLM
from bench.peers.nginx import Nginx
from bench.peers.peer import Peer
from bench.peers.portkey import Portkey
from bench.peers.tensorzero import TensorZero
from bench.peers.vllm_router import VLLMRouter

EVERYONE: tuple[type[Peer], ...] = (Direct, Nginx, BareRelay, Chatgate, VLLMRouter, TensorZero, Portkey, LiteLLM)
"""Everyone, in the order of tables; `direct` stands for no gateway at all."""

LEFT_OUT = {
    "Bifrost": "its npm package only downloads a binary from elsewhere when it is run",
    "new-api, one-api, Helicone, agentgateway": "they are in no package registry",
    "haproxy": "a second plain relay in C, which was found to cost what nginx costs",
    "rolter, smg, ferrogw": "more compiled gateways that install from wheels; two of their kind are measured",
}
"""Whom one would expect here and does not find, and why."""
