"""What a result says of the export as a whole."""

import resource
import subprocess
import sys
import time

import faulty_models

from exporter.conductor import run_export
from exporter.result import Step

BURN_S = 0.5


def burn():
    start = time.process_time()
    while time.process_time() - start < BURN_S:
        pass


def burn_in_a_child(step):
    if step is Step.build:
        code = f"import time\nwhile time.process_time() < {BURN_S}: pass"
        subprocess.run([sys.executable, "-c", code], check=True)


def cpu_s():
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def test_cpu_time_is_that_of_the_export_and_of_its_children_and_of_nothing_before(tmp_path):
    burn()
    before = cpu_s()
    module = faulty_models.Perceptron()
    result = run_export(faulty_models.make_spec(), tmp_path, module, threads=1, on_step=burn_in_a_child)
    assert result.failure is None
    assert BURN_S < result.cpu_s <= cpu_s() - before
