"""LiteLLM's proxy, in Python."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

from bench.peers.packages import PythonPeer


class LiteLLM(PythonPeer):
    """LiteLLM's proxy, set up as its documentation says for production, without a database."""

    name = "litellm"
    title = "LiteLLM (Python)"
    setup = (
        "one worker, `LITELLM_MODE=PRODUCTION`, log at ERROR, spend and error logs off, no callbacks, no database, "
        "and no key, which spares it the check"
    )
    requirement = "litellm[proxy]==1.106.2"
    more_environment = MappingProxyType(
        {
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOG": "ERROR",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_TELEMETRY": "False",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        }
    )
    is_slow = True

    def command(self, port: int, upstream_port: int) -> Sequence[str | Path]:
        """Write config.yaml (JSON is YAML) and return how it is started."""
        target = {
            "model": "openai/mock",
            "api_base": f"http://127.0.0.1:{upstream_port}/v1",
            "api_key": "sk-test-bench",
        }
        configuration = {
            "model_list": [{"model_name": "mock", "litellm_params": target}],
            "general_settings": {"disable_spend_logs": True, "disable_error_logs": True},
            "litellm_settings": {"json_logs": True, "telemetry": False},
        }
        file = self.folder / f"config-{port}.yaml"
        file.write_text(json.dumps(configuration))
        server = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        return [self.program("python"), self.program("litellm"), "--config", file, *server]
