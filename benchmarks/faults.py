"""Plants faults in a copy of the code, one at a time, and shows that a default test goes red.

    python benchmarks/faults.py [NAME …]

runs, for each fault (or those whose name contains a NAME), the tests that should see it, and
prints the first one that fails. Writes ``results/faults.json`` and ``.md`` where all were planted.
About two minutes on two cores.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from _results import markdown_table, write

from probbnn.report.table import Markdown

_ROOT = Path(__file__).parents[1]


class Fault(NamedTuple):
    """A fault: in which file, what is replaced by what, and the tests that should see it."""

    path: str
    old: str
    new: str
    tests: str


_LAWS = "tests/samplers/test_stationary.py -k"
FAULTS = {
    "√2 dropped from the noise": Fault(
        "probbnn/samplers/psgld.py",
        "jnp.sqrt(2 * step_size * temperature * g)",
        "jnp.sqrt(step_size * temperature * g)",
        f"{_LAWS} psgld",
    ),
    "drift's sign flipped": Fault(
        "probbnn/samplers/psgld.py",
        "theta + step_size * d +",
        "theta - step_size * d +",
        f"{_LAWS} psgld",
    ),
    "N/B forgotten": Fault(
        "probbnn/posterior/base.py",
        "self.data_size / count * loglikelihood",
        "loglikelihood",
        f"{_LAWS} minibatch",
    ),
    "V fed by the mean gradient": Fault(
        "probbnn/samplers/psgld.py",
        "rms.update(state.second_moment, grad, step)",
        "rms.update(state.second_moment, jax.tree.map(lambda x: x / 5, grad), step)",
        f"{_LAWS} adapting",
    ),
    "G in place of √G in the noise": Fault(
        "probbnn/samplers/psgld.py",
        "jnp.sqrt(2 * step_size * temperature * g)",
        "jnp.sqrt(2 * step_size * temperature) * g",
        f"{_LAWS} psgld",
    ),
    "Γ's sign flipped": Fault(
        "probbnn/samplers/psgld.py",
        "-0.5 * g**2 * slope",
        "0.5 * g**2 * slope",
        "tests/samplers/test_psgld.py -k gamma",
    ),
    "temperature applied twice": Fault(
        "probbnn/samplers/base.py",
        "optax.constant_schedule(temperature)",
        "optax.constant_schedule(temperature**2)",
        f"{_LAWS} anisotropic",
    ),
    "preconditioner adapts after the freeze": Fault(
        "probbnn/samplers/preconditioners.py",
        "frozen = self.is_frozen(step)",
        "frozen = False",
        f"{_LAWS} frozen",
    ),
    "one key for minibatch and noise": Fault(
        "probbnn/inference/runner.py",
        "chains_key, stream_key = jax.random.split(rng_key)",
        "chains_key = stream_key = rng_key",
        "tests/inference/test_runner.py -k key",
    ),
    "chains share a minibatch": Fault(
        "probbnn/inference/runner.py",
        "jax.random.split(stream_key, num_chains)\n",
        "jnp.broadcast_to(stream_key, (num_chains,))\n",
        f"{_LAWS} correlated_only",
    ),
    "momentum redrawn at T = 1": Fault(
        "probbnn/samplers/sghmc.py",
        "jax.tree.map(move, position, state.momentum,",
        "jax.tree.map(move, position, normal_like(jax.random.fold_in(rng_key, 1), position),",
        "tests/samplers/test_sghmc.py",
    ),
    "prior counted once per minibatch example": Fault(
        "probbnn/posterior/flax.py",
        "return self.logprior_fn(position) + self.data_size / count",
        "return count * self.logprior_fn(position) + self.data_size / count",
        f"{_LAWS} minibatch",
    ),
    "mask ignored in the last batch": Fault(
        "probbnn/posterior/flax.py",
        "log_probs if minibatch.mask is None else jnp.where(minibatch.mask, log_probs, 0.0)",
        "log_probs",
        f"{_LAWS} minibatch",
    ),
    "control variate not recentred": Fault(
        "probbnn/posterior/flax.py",
        "jax.tree.map(jnp.subtract, grad, estimated_grad)",
        "grad",
        "tests/posterior/test_flax.py -k epoch",
    ),
    "noise while a cycle explores": Fault(
        "probbnn/samplers/base.py",
        "jnp.where(step_size.is_sampling(step), temperature, 0.0)",
        "temperature + 0 * step",
        "tests/samplers/test_schedules.py",
    ),
}


def main() -> None:
    """Plant the faults and write which test saw each."""
    wanted = sys.argv[1:]
    chosen = {
        name: fault
        for name, fault in FAULTS.items()
        if not wanted or any(part in name for part in wanted)
    }
    content: dict[str, Any] = {}
    for name, fault in chosen.items():
        content[name] = red = first_red_test(fault)
        print(f"{'RED  ' if red else 'GREEN'} {name}: {red}", flush=True)
    if chosen == FAULTS:
        rows = [
            [name, Markdown(f"`{red}`" if red else "**none**")] for name, red in content.items()
        ]
        page = "# Faults that the tests see\n\n" + markdown_table(
            ["fault planted", "first default test to go red"], rows
        )
        write("faults", "python benchmarks/faults.py", {"faults": content}, page)
    sys.exit(any(red is None for red in content.values()))


def first_red_test(fault: Fault) -> str | None:
    """The first test that fails with the fault planted."""
    with tempfile.TemporaryDirectory() as directory:
        for part in ("probbnn", "tests"):
            shutil.copytree(_ROOT / part, Path(directory, part))
        shutil.copy(_ROOT / "pyproject.toml", directory)
        path = Path(directory, fault.path)
        text = path.read_text(encoding="utf-8")
        if text.count(fault.old) != 1:
            raise ValueError(f"{fault.path} has {text.count(fault.old)} times {fault.old!r}")
        path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
        printed = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider"]
            + fault.tests.split(),
            cwd=directory,
            env={**os.environ, "PYTHONPATH": directory},
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    red = re.search(r"^FAILED (?:tests/)?(\S+?::.*?)(?: - .*)?$", printed, re.MULTILINE)
    return red.group(1) if red else None


if __name__ == "__main__":
    main()
