"""What all of our ONNX Runtime sessions have in common; what one needs beyond that it adds itself."""

import onnxruntime as ort

__all__ = ["make_options"]


def make_options(threads: int, *, prepack: bool = False) -> ort.SessionOptions:
    """Options of a session.

    Args:
        threads: Of one operator.
        prepack: Run as fast as it goes: lay out weights for speed, at the price of a second copy of them, and have
            idle threads spin. Without it weights are mapped, and idle threads sleep.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # Errors come as exceptions; warnings about the graph would only fill the log.
    options.log_severity_level = 3
    if not prepack:
        options.add_session_config_entry("session.disable_prepacking", "1")
        # Threads that wait for the next operator would take the cores of other workers meanwhile.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
