"""How near an output came to its limit: its error as a part of what the gate that it comes nearest to allows."""

from exporter.evidence import OutputParity
from exporter.result import ExportResult
from exporter.spec import Precision

__all__ = ["find_max_limit_share", "gates_elements", "limit_share"]


def limit_share(output: OutputParity, precision: Precision) -> float | None:
    """1 is the limit; None where the error is beyond any multiple, or was not taken or recorded."""
    if gates_elements(precision) and output.in_tolerances is None:
        # Whatever the other gate says.
        return None
    limit = precision.max_rel_l2
    shares = [output.in_tolerances, output.rel_l2 / limit if limit and output.rel_l2 is not None else None]
    return max((share for share in shares if share is not None), default=None)


def gates_elements(precision: Precision) -> bool:
    """Whether each element has a limit, not only the norm of an output."""
    return precision.rtol is not None or precision.atol is not None


def find_max_limit_share(result: ExportResult) -> float | None:
    """The largest over all outputs and cases; None where none is known."""
    shares = [limit_share(output, result.spec.precision) for case in result.cases for output in case.outputs]
    return max((share for share in shares if share is not None), default=None)
