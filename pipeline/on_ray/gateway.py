"""The process between a batch and Ray: `python -m pipeline.on_ray.gateway`, for our own use.

Ray takes over the process that it connects: handlers of signals, threads, lines on the terminal, and an end of its
own choosing when the cluster is gone. So it gets one to itself. Whatever happens to that, the batch goes on, and with
its end ends all that runs for it: Ray's processes on this machine and, on others, the batch's tasks.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

from exporter.errors import ExitCode, ModelpressError
from exporter.lifeline import die_with_parent
from pipeline.executor import Pulse, Task
from pipeline.on_ray.cluster import Cluster
from pipeline.on_ray.demand import choose_threads, find_demand, require_room, whole
from pipeline.on_ray.messages import Done, Options, Ready, Refused, Require, Run, Stop
from pipeline.on_ray.round import Order, Round

__all__ = ["main"]


def main(handle: str, parent: str, folder: str) -> None:
    """Connect, then do as the batch says until it hangs up.

    Args:
        handle: The number of an inherited connection.
        parent: The batch's process id.
        folder: An empty folder of our own.
    """
    die_with_parent(int(parent))
    connection = Connection(int(handle))
    options: Options = connection.recv()
    cluster = None
    try:
        cluster = Cluster(options, Path(folder))
        connection.send(Ready())
        Gateway(connection, options, cluster).serve()
    except ModelpressError as error:
        connection.send(Refused(str(error), error.exit_code))
    except (EOFError, BrokenPipeError):
        # The batch has hung up.
        pass
    finally:
        if cluster is not None:
            cluster.close()


class Gateway:
    """Carries out a batch's commands.

    Args:
        connection: To the batch.
        options: Of its executor.
        cluster: To run exports on.
    """

    def __init__(self, connection: Connection, options: Options, cluster: Cluster) -> None:
        self._connection = connection
        self._options = options
        self._cluster = cluster
        self._streams = cluster.open_streams()

    def serve(self) -> None:
        """Answer commands until the batch hangs up, which raises EOFError."""
        while True:
            command = self._connection.recv()
            if isinstance(command, Require):
                self._require(command.tasks)
            elif isinstance(command, Run):
                self._run(command)
            elif isinstance(command, Stop):
                # The round had come to its end by itself.
                self._connection.send(Done())

    def _require(self, tasks: Sequence[Task]) -> None:
        try:
            orders, _ = self._plan(tasks)
            require_room({order.task.id: order.demand for order in orders}, self._cluster.list_nodes())
        except ModelpressError as error:
            self._connection.send(Refused(str(error), error.exit_code))
        else:
            self._connection.send(Ready())

    def _plan(self, tasks: Sequence[Task]) -> tuple[list[Order], int]:
        """What each export is to be given, and how many may be with Ray at a time."""
        nodes = self._cluster.list_nodes()
        most = self._options.workers or sum(node.num_cpus for node in nodes)
        threads = choose_threads(nodes, min(most, len(tasks)))
        slots = sum(node.num_cpus // threads for node in nodes)
        orders = [Order(task, find_demand(task, threads, nodes, self._options.budget_bytes)) for task in tasks]
        # As many again as find room wait with Ray, so that none of it is idle for long, and an autoscaler sees them.
        return orders, self._options.workers or 2 * max(1, slots)

    def _run(self, run: Run) -> None:
        orders, limit = self._plan(run.tasks)
        if run.alone:
            node = self._cluster.find_freest_node()
            orders = [Order(order.task, whole(node, order.demand)) if node else order for order in orders]
            limit = 1
        events = Round(
            self._streams,
            orders,
            limit,
            fits=lambda demand: any(map(demand.fits, self._cluster.list_nodes())),
            is_here=self._cluster.job.is_here,
            was_alone=run.alone,
        ).run()
        last = None
        with closing(events):
            for event in events:
                if event != last:
                    self._connection.send(event)
                last = event if isinstance(event, Pulse) else None
                if self._connection.poll():
                    self._connection.recv()
                    break
        self._connection.send(Done())


if __name__ == "__main__":
    main(*sys.argv[1:])
    # Skips what Ray registered to run at the interpreter's end.
    os._exit(ExitCode.OK)
