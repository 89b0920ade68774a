"""Makes a fork server, which imports this by its name, the parent of what its workers leave when they end.

Whatever sessions, groups and environments such processes have given themselves, they are found as its children.
"""

import warnings

from exporter.lifeline import adopt_orphans

__all__: list[str] = []

adopt_orphans()
# multiprocessing's server would say so of each child that it did not start itself.
warnings.filterwarnings("ignore", message="forkserver: waitpid returned unexpected pid")
