"""Engines behind `transport.core.engine.Engine`."""

from transport.config import TransportConfig
from transport.core.engine import Engine
from transport.identity import Identity
from transport.runtime.engines.rust import rust_engine
from transport.runtime.engines.settings import engine_settings


def make_engine(identity: Identity, listen: str, config: TransportConfig) -> Engine:
    """The engine that the configuration names; raises `OSError` or `native.errors.NativeError`."""
    if config.engine == "rust":
        return rust_engine(identity, listen, config)
    from transport.runtime.engines.aioquic import AioquicEngine

    return AioquicEngine(identity, listen, engine_settings(config))
