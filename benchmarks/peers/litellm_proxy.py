"""The proxy that many have in this place: LiteLLM with its cache in Redis, of the newest version
that `make endpoints` installs.
"""

from __future__ import annotations

import json
from pathlib import Path

from dev.service import Service
from dev.services import CHECKOUT, Services, free_ports

PROGRAM = CHECKOUT / ".dev" / "endpoints-venv" / "bin" / "litellm"

MODEL = "text-embedding-3-large"


def is_there() -> bool:
    return PROGRAM.exists()


def start(stack: Services, folder: Path) -> tuple[Service, str]:
    """Before the stack's own endpoint, with the stack's Redis and key; the process and its URL."""
    (port,) = free_ports(1)
    told = {
        "model_list": [
            {
                "model_name": MODEL,
                "litellm_params": {
                    "model": f"openai/{MODEL}",
                    "api_base": f"{stack.embeddings.url}/v1",
                    "api_key": "os.environ/OPENAI_API_KEY",
                },
            }
        ],
        "litellm_settings": {
            "cache": True,
            "cache_params": {
                "type": "redis",
                "host": "127.0.0.1",
                "port": stack.redis.port,
                "supported_call_types": ["embedding", "aembedding"],
            },
        },
    }
    config = folder / "litellm.yaml"
    # JSON is YAML.
    config.write_text(json.dumps(told))
    process = stack.spawn(
        "litellm",
        [str(PROGRAM), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)],
        # Nothing of it is fetched from elsewhere.
        env={
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_MASTER_KEY": stack.environment()["OPENAI_API_KEY"],
        },
    )
    return process, f"http://127.0.0.1:{port}"
