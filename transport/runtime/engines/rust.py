"""The default engine: quinn and rustls inside the extension."""

from native.quic import QuicEngine
from transport.config import TransportConfig
from transport.core.engine import Engine
from transport.identity import Identity
from transport.runtime.engines.settings import engine_settings


def rust_engine(identity: Identity, listen: str, config: TransportConfig) -> Engine:
    """Bind a socket; raises `OSError` or `native.errors.NativeError`."""
    return QuicEngine(identity.signer, listen, engine_settings(config))
