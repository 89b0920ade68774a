"""The part of repro.py that builds the module and turns it into a graph: weights, translation table, passes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from exporter.checkpoint import INDEX_SUFFIX
from exporter.repro_code import fill_in, import_modules, render_call
from exporter.spec import ExportSpec, ModelSpec, PassName

__all__ = ["render_build", "render_export", "unknown_passes"]

_GIVEN = """\
def build():
    # PUT YOUR MODULE HERE. The export was given a module that existed already, and how it was made is not
    # known. The spec says of it:
    $source
    raise NotImplementedError("return the module here")
"""

_BUILD = """\
def build():
    $imports

    random.seed($seed)
    np.random.seed($seed)
    torch.manual_seed($seed)
    module = $module
    $weights
    return module
"""

_READ_INDEX = """\
index = Path($path)
shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
state = {name: tensor for shard in shards for name, tensor in load_file(index.parent / shard).items()}
"""

_REQUIRE_HASH = """\
if hashlib.file_digest(Path($path).open("rb"), "sha256").hexdigest() != $wanted:
    raise ValueError("the weights have another sha256 than the declared one")
"""

_REQUIRE_LISTED_HASH = """\
listing = "".join(
    f"{hashlib.file_digest(file.open('rb'), 'sha256').hexdigest()}  {file.name}\\n"
    for file in (index, *(index.parent / shard for shard in shards))
)
if hashlib.sha256(listing.encode()).hexdigest() != $wanted:
    raise ValueError("the weights have another sha256 than the declared one")
"""

_FIT = '''\
def fit(module, state):
    """The state with narrower floats widened, and with every name of a tied tensor."""
    own = module.state_dict()
    for name in own.keys() & state.keys():
        found, wanted = state[name].dtype, own[name].dtype
        is_float = found.is_floating_point and wanted.is_floating_point
        if found != wanted and not (is_float and torch.promote_types(found, wanted) == wanted):
            raise TypeError(f"{name!r} is {found} in the file and {wanted} in the model")
        state[name] = state[name].to(wanted)
    names = {}
    for find in (module.named_parameters, module.named_buffers):
        for name, tensor in find(remove_duplicate=False):
            names.setdefault(id(tensor), []).append(name)
    for tied in names.values():
        given = [name for name in tied if name in state]
        if any(not torch.equal(state[given[0]], state[name]) for name in given[1:]):
            raise ValueError(f"{given} are one tensor in the model, and differ in the file")
        state.update({name: state[given[0]] for name in tied if given and name in own})
    return state
'''

_EXPORT = """\
def export(module):
    $imports
    args, kwargs = arguments(module, make_inputs(*EXAMPLE))
    # GRU and LSTM layers as loops: otherwise their time is fixed at the example's.
    with torch.no_grad(), register_gru_while_loop_decomposition(), register_lstm_while_loop_decomposition():
        program = torch.onnx.export(
            module,
            # Without keywords a last dict would be taken for them.
            (*args, {}) if args and not kwargs else args,
            kwargs=kwargs,
            dynamo=True,
            verbose=False,
            optimize=False,
            opset_version=OPSET,
            dynamic_shapes=DYNAMIC_SHAPES,
            $table
        )
    $separate
    $passes
    return program
"""

_SEPARATE = '''\
def separate_outputs(graph):
    """See that each output is a value of its own: not an input, an initializer or a second use of another."""
    seen = set()
    for place, value in enumerate(graph.outputs):
        if id(value) in seen or value.producer() is None:
            node = onnx_ir.node("Identity", [value])
            node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
            graph.append(node)
            graph.outputs[place] = node.outputs[0]
        seen.add(id(graph.outputs[place]))
'''

_RUN = "program.model = {}(program.model).model"
_REWRITE = "program.model = rewriter.rewrite(program.model{})"
_PASSES = {
    PassName.default: ["program.optimize()"],
    PassName.inline: [_RUN.format("common.InlinePass()")],
    PassName.fold_constants: ["optimizer.fold_constants_ir(program.model)"],
    PassName.rewrite: [_REWRITE.format("")],
    PassName.dead_code: [
        _RUN.format("common.RemoveUnusedNodesPass()"),
        _RUN.format("common.RemoveUnusedFunctionsPass()"),
        _RUN.format("common.RemoveUnusedOpsetsPass()"),
    ],
    PassName.identities: [_RUN.format("common.IdentityEliminationPass()")],
    PassName.cse: [_RUN.format("common.CommonSubexpressionEliminationPass()")],
    PassName.lift_constants: [
        _RUN.format("common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)"),
        _RUN.format("common.LiftSubgraphInitializersToMainGraphPass()"),
    ],
    PassName.deduplicate_initializers: [_RUN.format("common.DeduplicateInitializersPass()")],
    PassName.infer_shapes: [_RUN.format("common.ShapeInferencePass()")],
    PassName.fuse_conv_affine: [
        _REWRITE.format(", [rules.affine_conv_fusion_rule, rules.conv_affine_fusion_rule]"),
    ],
    PassName.fuse_hardswish: [_REWRITE.format(", list(rules.fuse_hardswish_rules())")],
    PassName.fuse_gemm: [
        "chosen = [",
        "    rules.transpose_ab_matmul_add_to_gemm_rule,",
        "    rules.transpose_a_matmul_add_to_gemm_rule,",
        "    rules.transpose_b_matmul_add_to_gemm_rule,",
        "    rules.matmul_add_to_gemm_rule,",
        "]",
        _REWRITE.format(", chosen"),
    ],
    PassName.remove_expand: [_REWRITE.format(", list(rules.expand_before_binary_op_rules)")],
}
_PASS_IMPORTS = {
    "common.": "from onnx_ir.passes import common",
    "optimizer.": "from onnxscript import optimizer",
    "rewriter.": "from onnxscript import rewriter",
    "rules.": "from onnxscript.rewriter.rules import common as rules",
}


def render_build(model: ModelSpec, *, is_given: bool) -> Iterator[str]:
    """The function that builds the module, and what it calls.

    Args:
        model: Of the spec.
        is_given: The module was handed over; a place is left for it.
    """
    if is_given:
        yield fill_in(_GIVEN, source=[f"#     {line}" for line in render_call(model.source).splitlines()])
        return
    yield fill_in(
        _BUILD,
        imports=import_modules(model.source),
        seed=str(model.seed),
        module=render_call(model.source, 1),
        weights=_load_weights(model),
    )
    if model.weights is not None:
        yield _FIT


def render_export(spec: ExportSpec, *, separate: bool) -> Iterator[str]:
    """The function that captures and optimizes, and what it calls.

    Args:
        spec: Of the export.
        separate: Outputs that are inputs, initializers or one another need nodes of their own.
    """
    table, imports = "", []
    if spec.export.custom_translation_table is not None:
        node = dict(spec.export.custom_translation_table)
        table, imports = f"custom_translation_table={render_call(node, 3)},", import_modules(node)
    passes = list(_render_passes(spec))
    text = "\n".join(passes)
    yield fill_in(
        _EXPORT,
        imports=[*imports, *(line for name, line in _PASS_IMPORTS.items() if name in text)],
        table=table,
        separate="separate_outputs(program.model.graph)" if separate else "",
        passes=passes,
    )
    if separate:
        yield _SEPARATE


def unknown_passes(spec: ExportSpec) -> list[str]:
    """The passes of the spec that cannot be rendered."""
    return [name for name in _pass_names(spec) if name not in _PASSES]


def _pass_names(spec: ExportSpec) -> Sequence[str]:
    optimize = spec.export.optimize
    names: list[str] = [optimize] if isinstance(optimize, str) else list(optimize)
    return [name for name in names if name != "none"]


def _render_passes(spec: ExportSpec) -> Iterator[str]:
    names = _pass_names(spec)
    if not names:
        yield "# Captured only: export.optimize names no passes."
    for name in names:
        if name in _PASSES:
            yield from _PASSES[PassName(name)]
        else:
            yield f"# Left out: the pass {name}."


def _load_weights(model: ModelSpec) -> Iterator[str]:
    path = model.weights
    if path is None:
        return
    wanted = repr((model.weights_sha256 or "").lower())
    if path.endswith(INDEX_SUFFIX):
        yield fill_in(_READ_INDEX, path=repr(path)).rstrip()
        if model.weights_sha256:
            yield fill_in(_REQUIRE_LISTED_HASH, wanted=wanted).rstrip()
    else:
        if model.weights_sha256:
            yield fill_in(_REQUIRE_HASH, path=repr(path), wanted=wanted).rstrip()
        if Path(path).suffix == ".safetensors":
            yield f"state = load_file({path!r})"
        else:
            yield f"state = torch.load({path!r}, map_location='cpu', weights_only=True)"
    yield "module.load_state_dict(fit(module, state))"
