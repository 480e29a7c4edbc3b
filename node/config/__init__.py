"""Door of the configuration: one TOML file into one frozen model.

Layout: `schema.py` says what may be set, `locate.py` where a key stands in the file, `load.py`
merges file, environment and flags and reports every problem at once, `explain.py` shows the result
and its origins, `check.py` runs every check that needs no network.
"""

from node.config.load import Loaded, load_config
from node.config.schema import NodeConfig

__all__ = ["Loaded", "NodeConfig", "load_config"]
