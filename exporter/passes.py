"""The graph passes that `export.optimize` can name, each one a pass of onnxscript or onnx_ir.

Not for judging what a pass did: check and parity look at the saved file, whatever was run.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import onnx_ir as ir
import torch
from onnx_ir.passes import common
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules import common as rules

from exporter.errors import StepError
from exporter.failures import describe_failure
from exporter.result import PassRecord, Step
from exporter.rotary_fusion import checked_rotary_fusion
from exporter.spec import PassName

__all__ = ["PASSES", "count_ops", "name_passes", "record_change", "run_passes"]

Program = torch.onnx.ONNXProgram


def name_passes(optimize: str | Sequence[str]) -> list[PassName]:
    """The passes that a value of `export.optimize` stands for, in order; none for `none`."""
    names = [optimize] if isinstance(optimize, str) else optimize
    return [PassName(name) for name in names if name != "none"]


def run_passes(program: Program, names: Sequence[PassName]) -> Iterator[PassRecord]:
    """Run each pass on the program, in place, and tell what it changed.

    Raises:
        StepError: A pass failed; the cause names it.
    """
    for name in names:
        before = _Counts(program.model)
        try:
            PASSES[name](program)
        except Exception as error:
            failure = describe_failure(Step.optimize, error)
            raise StepError(failure.kind, f"pass {name.value}: {failure.cause}", failure.hint) from error
        yield before.compare(name.value, _Counts(program.model))


def record_change(name: str, before: ir.Model, after: ir.Model) -> PassRecord:
    """What lies between two models, as the record of a pass of that name."""
    return _Counts(before).compare(name, _Counts(after))


def count_ops(model: ir.Model) -> Counter[str]:
    """Nodes by operator, those of subgraphs and functions too; a foreign domain stands before the operator."""
    nodes = [
        *model.graph.all_nodes(),
        *(node for function in model.functions.values() for node in function.all_nodes()),
    ]
    return Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in nodes)


class _Counts:
    def __init__(self, model: ir.Model) -> None:
        self.ops = count_ops(model)
        self.num_initializers = sum(len(graph.initializers) for graph in model.graphs())

    def compare(self, name: str, after: "_Counts") -> PassRecord:
        changes = {op: after.ops[op] - self.ops[op] for op in sorted(self.ops | after.ops)}
        return PassRecord(
            name=name,
            num_nodes_before=self.ops.total(),
            num_nodes_after=after.ops.total(),
            num_initializers_before=self.num_initializers,
            num_initializers_after=after.num_initializers,
            op_changes={op: change for op, change in changes.items() if change},
        )


def _apply(*passes: Callable[[], ir.passes.PassBase]) -> Callable[[Program], None]:
    def run(program: Program) -> None:
        for make in passes:
            program.model = make()(program.model).model

    return run


def _rewrite(*chosen: rewriter.RewriteRule) -> Callable[[Program], None]:
    """The given rules, or onnxscript's default set; what they leave unused is removed."""

    def run(program: Program) -> None:
        program.model = rewriter.rewrite(program.model, list(chosen) or None)

    return run


def _optimize_as_torch(program: Program) -> None:
    with checked_rotary_fusion():
        program.optimize()


PASSES: Mapping[PassName, Callable[[Program], object]] = {
    PassName.default: _optimize_as_torch,
    PassName.inline: _apply(common.InlinePass),
    PassName.fold_constants: lambda program: optimizer.fold_constants_ir(program.model),
    PassName.rewrite: _rewrite(),
    PassName.dead_code: _apply(
        common.RemoveUnusedNodesPass, common.RemoveUnusedFunctionsPass, common.RemoveUnusedOpsetsPass
    ),
    PassName.identities: _apply(common.IdentityEliminationPass),
    PassName.cse: _apply(common.CommonSubexpressionEliminationPass),
    PassName.lift_constants: _apply(
        lambda: common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass,
    ),
    PassName.deduplicate_initializers: _apply(common.DeduplicateInitializersPass),
    PassName.infer_shapes: _apply(common.ShapeInferencePass),
    PassName.fuse_conv_affine: _rewrite(rules.affine_conv_fusion_rule, rules.conv_affine_fusion_rule),
    PassName.fuse_hardswish: _rewrite(*rules.fuse_hardswish_rules()),
    PassName.fuse_gemm: _rewrite(
        rules.transpose_ab_matmul_add_to_gemm_rule,
        rules.transpose_a_matmul_add_to_gemm_rule,
        rules.transpose_b_matmul_add_to_gemm_rule,
        rules.matmul_add_to_gemm_rule,
    ),
    PassName.remove_expand: _rewrite(*rules.expand_before_binary_op_rules),
}
