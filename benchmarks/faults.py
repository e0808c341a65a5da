"""Plants faults in a copy of the code, one at a time, and shows that a default test goes red.

    python benchmarks/faults.py [NAME …]

runs, for each fault (or those whose name contains a NAME), the tests that should see it, and
prints the first one that fails. Writes ``results/faults.json`` and ``.md`` where all were planted.
About eight minutes on two cores.
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


_STATIONARY = "tests/samplers/test_stationary.py -k"
FAULTS = {
    "√2 dropped from the noise": Fault(
        "probbnn/samplers/psgld.py",
        "jnp.sqrt(2 * step_size * temperature * g)",
        "jnp.sqrt(step_size * temperature * g)",
        f"{_STATIONARY} psgld",
    ),
    "drift's sign flipped": Fault(
        "probbnn/samplers/psgld.py",
        "theta + step_size * d +",
        "theta - step_size * d +",
        f"{_STATIONARY} psgld",
    ),
    "N/B forgotten": Fault(
        "probbnn/posterior/base.py",
        "self.data_size / count * loglikelihood",
        "loglikelihood",
        f"{_STATIONARY} minibatch",
    ),
    "V fed by the mean gradient": Fault(
        "probbnn/samplers/psgld.py",
        "rms.update(state.second_moment, grad, step)",
        "rms.update(state.second_moment, jax.tree.map(lambda x: x / 5, grad), step)",
        f"{_STATIONARY} adapting",
    ),
    "G in place of √G in the noise": Fault(
        "probbnn/samplers/psgld.py",
        "jnp.sqrt(2 * step_size * temperature * g)",
        "jnp.sqrt(2 * step_size * temperature) * g",
        f"{_STATIONARY} psgld",
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
        f"{_STATIONARY} anisotropic",
    ),
    "preconditioner adapts after the freeze": Fault(
        "probbnn/samplers/preconditioners.py",
        "frozen = self.is_frozen(step)",
        "frozen = False",
        f"{_STATIONARY} frozen",
    ),
    "one key for minibatch and noise": Fault(
        "probbnn/inference/runner.py",
        "chains_key, stream_key = jax.random.split(rng_key)",
        "chains_key = stream_key = rng_key",
        "tests/inference/test_runner.py -k key",
    ),
    "chains share a minibatch": Fault(
        "probbnn/inference/runner.py",
        "jax.random.split(stream_key, num_chains)",
        "jnp.broadcast_to(stream_key, (num_chains,))",
        f"{_STATIONARY} correlated_only",
    ),
    "momentum redrawn at T = 1": Fault(
        "probbnn/samplers/sghmc.py",
        "jax.tree.map(move, position, state.momentum,",
        "jax.tree.map(move, position, normal_like(jax.random.fold_in(rng_key, 1), position),",
        "tests/samplers/test_sghmc.py",
    ),
    "prior counted once per minibatch example": Fault(
        "probbnn/posterior/base.py",
        "return self.logprior_fn(position) + self.data_size / count",
        "return count * self.logprior_fn(position) + self.data_size / count",
        f"{_STATIONARY} minibatch",
    ),
    "mask ignored in the last batch": Fault(
        "probbnn/posterior/flax.py",
        "log_probs if minibatch.mask is None else jnp.where(minibatch.mask, log_probs, 0.0)",
        "log_probs",
        f"{_STATIONARY} minibatch",
    ),
    "control variate not recentred": Fault(
        "probbnn/posterior/base.py",
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


_LIMITS = "tests/diagnostics/test_limits.py -k"
_VERDICT = "probbnn/diagnostics/verdict.py"
_MIXING = "probbnn/diagnostics/mixing.py"
_TEMPERATURE = "probbnn/diagnostics/temperature.py"
_RUNNER = "probbnn/inference/runner.py"
_COLLECTORS = "probbnn/inference/collectors.py"
FAULTS |= {
    # The limits of the verdict, loosened.
    "R-hat limit 1.05": Fault(
        _MIXING, "MAX_RHAT = 1.01", "MAX_RHAT = 1.05", f"{_LIMITS} r_hat_of_1_01"
    ),
    "ESS limit 100": Fault(_MIXING, "MIN_ESS = 400", "MIN_ESS = 100", f"{_LIMITS} ess_of_400"),
    "95 % of the values are enough": Fault(
        _MIXING, "MIN_SHARE = 0.99", "MIN_SHARE = 0.95", f"{_LIMITS} 99_percent"
    ),
    "worst R-hat 1.2": Fault(
        _MIXING, "WORST_RHAT = 1.05", "WORST_RHAT = 1.2", f"{_LIMITS} r_hat_above_1_05"
    ),
    "drift 1.2": Fault(_VERDICT, "_MAX_DRIFT = 1.1", "_MAX_DRIFT = 1.2", f"{_LIMITS} drift"),
    "drift ignored": Fault(
        _VERDICT, "meters.is_hot and not drifting", "meters.is_hot", f"{_LIMITS} drift"
    ),
    "cross-chain correlation 0.2": Fault(
        _VERDICT, "_MAX_CORRELATION = 0.1", "_MAX_CORRELATION = 0.2", f"{_LIMITS} together"
    ),
    "correlation by chance ignored": Fault(
        _VERDICT,
        "max(_MAX_CORRELATION, 4 * by_chance)",
        "_MAX_CORRELATION",
        f"{_LIMITS} together",
    ),
    "spread 0.1": Fault(_VERDICT, "_MIN_SPREAD = 0.2", "_MIN_SPREAD = 0.1", f"{_LIMITS} fifth"),
    "a chain elsewhere at half": Fault(
        _VERDICT, "< 0.25 * min(", "< 0.5 * min(", f"{_LIMITS} elsewhere"
    ),
    "divergences 2 %": Fault(
        _VERDICT, "_MAX_DIVERGENT = 0.01", "_MAX_DIVERGENT = 0.02", f"{_LIMITS} diverge"
    ),
    "temperature tolerance 0.2": Fault(
        _TEMPERATURE, "TOLERANCE = 0.1", "TOLERANCE = 0.2", f"{_LIMITS} beyond_a_tenth"
    ),
    "hot by the value, not the interval": Fault(
        _TEMPERATURE,
        " and measured.low > asked\n",
        "\n",
        f"{_LIMITS} beyond_a_tenth",
    ),
    "temperature known to 40 %": Fault(
        _TEMPERATURE,
        "<= 4 * self.tolerance * asked",
        "<= 8 * self.tolerance * asked",
        f"{_LIMITS} beyond_a_tenth",
    ),
    "meters' sentence: hot by the value": Fault(
        _TEMPERATURE,
        "if self.is_hot:\n            return",
        "if measured.value > asked * (1 + self.tolerance):\n            return",
        f"{_LIMITS} sentence",
    ),
    "minibatch noise 10 %": Fault(
        _TEMPERATURE,
        "return self.tolerance / 2",
        "return self.tolerance",
        f"{_LIMITS} noise_is_too_much",
    ),
    "minibatch noise however uncertain": Fault(
        _TEMPERATURE,
        "noise.low > self.max_noise / 2",
        "noise.low > 0",
        f"{_LIMITS} noise_is_too_much",
    ),
    "PSIS-LOO as of independent draws": Fault(
        "probbnn/diagnostics/held_out.py",
        "float(np.nan_to_num(min(efficiency, 1.0), nan=1.0))",
        "1.0",
        f"{_LIMITS} tail",
    ),
    # The runner, its collectors, and what warm-up tunes.
    "statistics of the step that led to a draw": Fault(
        _COLLECTORS,
        "if name in self.looks_ahead:",
        "if False:",
        "tests/inference/test_sample.py -k stats",
    ),
    "a step's key without its number": Fault(
        _RUNNER,
        "keys = over_chains(jax.random.fold_in, (0, None))(state.rng_key, clock.step)",
        "keys = state.rng_key",
        "tests/inference/test_runner.py -k key",
    ),
    "warm-up's tuning thrown away": Fault(
        "probbnn/samplers/nuts.py",
        "inverse_mass_matrix=mass_matrix.inverse_mass_matrix,\n                tuning",
        "tuning",
        "tests/samplers/test_adaptation.py -k nuts",
    ),
    "L and step size of MCLMC swapped": Fault(
        "probbnn/samplers/mclmc.py",
        "state.L,\n                state.step_size,\n            )",
        "state.step_size,\n                state.L,\n            )",
        "tests/samplers/test_adaptation.py -k step_of_mclmc",
    ),
    "settling forgotten": Fault(
        _RUNNER,
        "return _settle(run, state) if step + count * interval == run.plan.num_warmup else state",
        "return state",
        "tests/inference/test_runner.py -k settles",
    ),
    "variance of predictions over n - 1 chains": Fault(
        _COLLECTORS,
        "return squares.sum(axis=0) / size + between",
        "return squares.sum(axis=0) / size",
        "tests/inference/test_collectors.py",
    ),
    "one program for all settings": Fault(
        "probbnn/inference/sample.py",
        "key=(method if known is None else known, num_warmup, batch_size)",
        "key=()",
        "tests/inference/test_sample.py -k compiles",
    ),
    "frozen parameters sampled": Fault(
        "probbnn/posterior/network.py",
        "if path not in inside}",
        "if path in inside}",
        "tests/posterior/test_network.py",
    ),
    "a prior of one's own left out of NumPyro's model": Fault(
        "probbnn/posterior/numpyro_model.py",
        'numpyro.factor("prior", target.prior.log_prob(network, **prior))',
        "pass",
        "tests/posterior/test_numpyro_model.py -k own",
    ),
    "the last block counted twice": Fault(
        "probbnn/data/sources.py",
        "mask=start + jnp.arange(length) >= number * length",
        "mask=start + jnp.arange(length) >= 0",
        "tests/data/test_sources.py",
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
