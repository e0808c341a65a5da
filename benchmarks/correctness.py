"""Shows kernel by kernel that what is sampled is what should be.

    python benchmarks/correctness.py [--skip-digits]

runs the harness of ``tests/stationary.py`` on every kernel, compares the ways of correcting pSGLD's
preconditioner, reads the temperature meters on a regression whose answer is known, and samples
the posterior of the preset ``digits`` with SGLD, pSGLD and SGHMC beside two runs of NUTS. Writes
``results/correctness.json`` and ``.md`` and the tables of ``docs/correctness.md``.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _results import fill, markdown_table, write

import probbnn as pb
from probbnn import metrics
from probbnn.experiments.presets import find_preset

_ROOT = Path(__file__).parents[1]
sys.path.append(str(_ROOT / "tests"))
import stationary  # noqa: E402

_COMMAND = "python benchmarks/correctness.py"


def main() -> None:
    """Measure all sections, write the results and the document's tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--skip-digits", action="store_true", help="leave out the runs of NUTS, and write nothing"
    )
    arguments = parser.parse_args()
    sections = {"laws": stationary_distributions, "gamma": gamma, "meters": meters}
    if not arguments.skip_digits:
        sections["digits"] = digits
    content: dict[str, Any] = {}
    tables = {}
    for name, section in sections.items():
        content[name], tables[name] = section()
        print(f"\n{tables[name]}\n", flush=True)
    if arguments.skip_digits:
        return
    page = "\n\n".join(f"## {name}\n\n{table}" for name, table in tables.items())
    write("correctness", _COMMAND, content, f"# Correctness\n\n{page}")
    fill(_ROOT / "docs" / "correctness.md", tables)


# Closed forms


def stationary_distributions() -> tuple[list[dict[str, Any]], str]:
    """Every case of the tests: exact and measured moments."""
    content, rows = [], []
    for case in stationary.CASES:
        quantities = case.quantities()
        content.append({"case": str(case), "quantities": [q._asdict() for q in quantities]})
        variances = [q for q in quantities if q.name.startswith("variance")]
        worst = max(abs(q.measured - q.exact) / q.scale for q in quantities)
        rows.append(
            [
                case.entry.name,
                case.target.name,
                f"{case.temperature:g}",
                ", ".join(f"{q.exact:.4g}" for q in variances),
                ", ".join(f"{q.measured:.4g} ± {q.error:.1g}" for q in variances),
                f"{worst:.2%}",
                f"{case.tolerance + case.allowance:.0%}",
            ]
        )
        print(" | ".join(rows[-1]), flush=True)
    header = [
        *("kernel", "target", "T", "exact variances", "measured variances"),
        *("largest error of all moments", "tested to"),
    ]
    return content, markdown_table(header, rows)


# Γ


def gamma() -> tuple[list[dict[str, Any]], str]:
    """Variance over that of the target, for each way of treating an adaptive preconditioner."""
    step_size, damping, num_warmup = 1e-2, 1.0, 2_000
    target = stationary.gaussian("stretched", [[1.0, 5.0], [5.0, 100.0]], [0.0, 0.0])
    content, rows = [], []
    for decay in (0.9, 0.99):
        for label, settings, spoil in (
            ("none", {}, None),
            ("newest term alone (eq. 7 of the paper)", {"gamma": "exact"}, forget_slope),
            ("exact", {"gamma": "exact"}, None),
            ("Hutchinson", {"gamma": "hutchinson"}, None),
            ("none, frozen after warm-up", {"freeze_after": num_warmup // 2}, None),
        ):
            kernel = pb.psgld(target.estimator, step_size, decay=decay, damping=damping, **settings)
            if spoil is not None:
                kernel = spoil(kernel)
            sample = stationary.run(
                kernel,
                target,
                [1.0, 0.1],
                num_chains=1_000,
                num_warmup=num_warmup,
                thinning=100,
                num_draws=80,
            )
            ratios = [
                (q.measured / q.exact, q.error / q.exact)
                for q in stationary.compare(sample, target.moments(1.0))
                if q.name.startswith("variance")
            ]
            content.append({"decay": decay, "gamma": label, "ratios": ratios})
            rows.append([decay, label, *(f"{ratio:.3f} ± {error:.3f}" for ratio, error in ratios)])
            print(" | ".join(map(str, rows[-1])), flush=True)
    return content, markdown_table(["α", "Γ", "first coordinate", "second"], rows)


def forget_slope(kernel: pb.Kernel) -> pb.Kernel:
    """A pSGLD whose Γ knows the newest gradient only."""

    def step(rng_key: jax.Array, state: Any, minibatch: Any) -> Any:
        return kernel.step(
            rng_key, state._replace(slope=jax.tree.map(jnp.zeros_like, state.slope)), minibatch
        )

    return kernel._replace(step=step)


# The meters


def meters() -> tuple[list[dict[str, Any]], str]:
    """Runs on a conjugate regression, N = 1,000 in minibatches of 10: what the meters say."""
    import arviz as az

    rng = np.random.default_rng(0)
    x = rng.normal(size=(1_000, 3)).astype(np.float32)
    y = (x @ [1.0, -2.0, 0.5] + rng.normal(size=1_000)).astype(np.float32)
    target = pb.LogDensity(
        (lambda key, inputs: jnp.zeros(3), lambda theta, inputs: inputs @ theta),
        (x, y),
        likelihood=pb.Gaussian(1.0),
        prior_scale=10.0,
    )
    precision = x.T @ x + np.eye(3) / 100
    centered = target.with_control_variates(jnp.asarray(np.linalg.solve(precision, x.T @ y)))
    content, rows = [], []
    for label, density, method, settings in (
        ("sgld, h = 2e-4", target, "sgld", {"step_size": 2e-4}),
        ("the same, control variates", centered, "sgld", {"step_size": 2e-4}),
        ("sgld, h = 2e-6", target, "sgld", {"step_size": 2e-6}),
        ("sghmc, h = 1e-5", target, "sghmc", {"step_size": 1e-5, "preconditioner": None}),
        (
            "the same, control variates",
            centered,
            "sghmc",
            {"step_size": 1e-5, "preconditioner": None},
        ),
    ):
        draws = pb.sample(
            jax.random.key(0),
            density,
            method,
            num_chains=20,
            num_steps=40_000,
            thinning=20,
            batch_size=10,
            progress=False,
            **settings,
        )
        found = pb.measure_temperature(jax.random.key(1), density, draws, num_draws=2_000)
        covariance = np.mean([np.cov(chain.T) for chain in draws.positions], axis=0)
        ratio = np.trace(precision @ covariance) / 3
        r_hat = max(float(az.rhat(draws.positions[..., i])) for i in range(3))
        content.append({"run": label, "variance": ratio, "r_hat": r_hat, **found.to_dict()})
        rows.append(
            [
                label,
                f"{ratio:.2f}",
                f"{1 + found.gradient_noise.value:.2f}",
                str(found.configurational),
                "–" if found.kinetic is None else str(found.kinetic),
                f"{r_hat:.3f}",
                found.verdict,
            ]
        )
    header = [
        *("run", "true T (variance / posterior's)", "1 + gradient-noise ratio"),
        *("configurational T", "kinetic T", "R-hat", "verdict"),
    ]
    return content, markdown_table(header, rows)


# The digits posterior


_NUM_CHAINS, _NUM_STEPS = 4, 100_000
_NUTS_WARMUP, _NUTS_DRAWS = 300, 500
_SAMPLERS = ("sgld", "psgld", "sghmc")


def digits() -> tuple[list[dict[str, Any]], str]:
    """Posterior predictives of the stochastic-gradient samplers beside those of NUTS."""
    preset = find_preset("digits").load()
    test = preset.test
    target = pb.LogDensity(preset.module, preset.train, prior_scale=preset.prior_scale)

    runs = {f"NUTS, run {seed + 1}": nuts(jax.random.key(seed), target) for seed in (0, 1)}
    for name in _SAMPLERS:
        step_size = preset.methods[name].settings["step_size"]
        draws = pb.sample(
            jax.random.key(2),
            target,
            name,
            num_chains=_NUM_CHAINS,
            num_steps=_NUM_STEPS,
            num_warmup=_NUM_STEPS // 5,
            thinning=_NUM_STEPS // 500,
            batch_size=preset.batch_size,
            step_size=step_size,
            progress=False,
        )
        runs[f"{name}, h = {step_size:g}"] = draws
    content, rows, reference = [], [], None
    for label, draws in runs.items():
        probs = pb.predict(target, draws, test.images).probs
        reference = probs if reference is None else reference
        agreement = metrics.agreement(probs, reference)
        variation = metrics.total_variation(probs, reference)
        found = pb.measure_temperature(jax.random.key(3), target, draws)
        evaluation = pb.evaluate(probs, test.labels)
        content.append(
            {
                "run": label,
                "agreement": agreement,
                "total_variation": variation,
                "error": evaluation.error.value,
                "nll": evaluation.nll.value,
                "seconds": draws.seconds,
                **found.to_dict(),
            }
        )
        noise = "–" if found.gradient_noise is None else f"{found.gradient_noise.value:.3f}"
        rows.append(
            [
                label,
                *(("–", "–") if probs is reference else (f"{agreement:.3f}", f"{variation:.4f}")),
                f"{evaluation.error.value:.1%}",
                f"{evaluation.nll.value:.4f}",
                str(found.configurational),
                noise,
                "–" if found.kinetic is None else f"{found.kinetic.value:.3f}",
                f"{draws.seconds:.0f}",
            ]
        )
        print(" | ".join(rows[-1]), flush=True)
    header = [
        *("run", "agreement", "total variation", "error", "NLL"),
        *("configurational T", "gradient noise / T", "kinetic T", "seconds"),
    ]
    return content, markdown_table(header, rows)


def nuts(rng_key: jax.Array, target: pb.LogDensity) -> pb.Draws:
    """BlackJAX's NUTS on all the data, from the module's initialiser."""
    return pb.sample(
        rng_key,
        target,
        "nuts",
        num_chains=_NUM_CHAINS,
        num_steps=_NUTS_WARMUP + _NUTS_DRAWS,
        num_warmup=_NUTS_WARMUP,
        thinning=1,
        progress=False,
    )


if __name__ == "__main__":
    main()
