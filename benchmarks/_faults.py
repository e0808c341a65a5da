"""The faults that `faults.py` plants, by what they spoil: text in a file, and tests that see it.

A default test holds every text to stand exactly once in its file: whoever changes such a line
changes the fault with it.
"""

from typing import NamedTuple

__all__ = ["FAULTS", "Fault"]


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
        "if name not in inside}",
        "if name in inside}",
        "tests/posterior/test_network.py",
    ),
    "a prior of one's own left out of NumPyro's model": Fault(
        "probbnn/posterior/numpyro_model.py",
        "partial(_logprior, target, structure, tuple(values)) if is_last else None",
        "None",
        "tests/posterior/test_numpyro_model.py -k own",
    ),
    "the last block counted twice": Fault(
        "probbnn/data/sources.py",
        "mask=start + jnp.arange(length) >= number * length",
        "mask=start + jnp.arange(length) >= 0",
        "tests/data/test_sources.py",
    ),
}


_DIAGNOSTICS = "probbnn/diagnostics"
_LIMITS_FILE = "tests/diagnostics/test_limits.py"
_KINDS = "tests/diagnostics/test_kinds.py"
FAULTS |= {
    # The same limits, tightened or loosened further: a limit is pinned from both sides.
    "R-hat limit 1.02": Fault(_MIXING, "MAX_RHAT = 1.01", "MAX_RHAT = 1.02", _LIMITS_FILE),
    "R-hat limit 1.005": Fault(_MIXING, "MAX_RHAT = 1.01", "MAX_RHAT = 1.005", _LIMITS_FILE),
    "ESS limit 500": Fault(_MIXING, "MIN_ESS = 400", "MIN_ESS = 500", _LIMITS_FILE),
    "90 % of the values are enough": Fault(
        _MIXING, "MIN_SHARE = 0.99", "MIN_SHARE = 0.9", _LIMITS_FILE
    ),
    "99.5 % of the values are needed": Fault(
        _MIXING, "MIN_SHARE = 0.99", "MIN_SHARE = 0.995", _LIMITS_FILE
    ),
    "worst R-hat 1.5": Fault(_MIXING, "WORST_RHAT = 1.05", "WORST_RHAT = 1.5", _LIMITS_FILE),
    "worst R-hat 1.03": Fault(_MIXING, "WORST_RHAT = 1.05", "WORST_RHAT = 1.03", _LIMITS_FILE),
    "worst ESS 100": Fault(_MIXING, "WORST_ESS = 200", "WORST_ESS = 100", _LIMITS_FILE),
    "worst ESS 300": Fault(_MIXING, "WORST_ESS = 200", "WORST_ESS = 300", _LIMITS_FILE),
    "drift 1.5": Fault(_VERDICT, "_MAX_DRIFT = 1.1", "_MAX_DRIFT = 1.5", _LIMITS_FILE),
    "drift 1.05": Fault(_VERDICT, "_MAX_DRIFT = 1.1", "_MAX_DRIFT = 1.05", _LIMITS_FILE),
    "cross-chain correlation 0.5": Fault(
        _VERDICT, "_MAX_CORRELATION = 0.1", "_MAX_CORRELATION = 0.5", _LIMITS_FILE
    ),
    "cross-chain correlation 0.05": Fault(
        _VERDICT, "_MAX_CORRELATION = 0.1", "_MAX_CORRELATION = 0.05", _LIMITS_FILE
    ),
    "three times what chance gives": Fault(
        _VERDICT, "4 * by_chance)", "3 * by_chance)", _LIMITS_FILE
    ),
    "spread 0.3": Fault(_VERDICT, "_MIN_SPREAD = 0.2", "_MIN_SPREAD = 0.3", _LIMITS_FILE),
    "a chain elsewhere from 3 standard errors": Fault(
        _VERDICT, "_MIN_DISTANCE = 5", "_MIN_DISTANCE = 3", _LIMITS_FILE
    ),
    "a chain elsewhere from 8 standard errors": Fault(
        _VERDICT, "_MIN_DISTANCE = 5", "_MIN_DISTANCE = 8", _LIMITS_FILE
    ),
    "divergences 0.5 %": Fault(
        _VERDICT, "_MAX_DIVERGENT = 0.01", "_MAX_DIVERGENT = 0.005", _LIMITS_FILE
    ),
    "some divergences 0.2 %": Fault(
        _VERDICT, "_SOME_DIVERGENT = 0.001", "_SOME_DIVERGENT = 0.002", _LIMITS_FILE
    ),
    "temperature tolerance 0.19": Fault(
        _TEMPERATURE, "TOLERANCE = 0.1\n", "TOLERANCE = 0.19\n", _LIMITS_FILE
    ),
    "temperature tolerance 0.05": Fault(
        _TEMPERATURE, "TOLERANCE = 0.1\n", "TOLERANCE = 0.05\n", _LIMITS_FILE
    ),
    "cold by the value, not the interval": Fault(
        _TEMPERATURE, " and measured.high < asked\n", "\n", _LIMITS_FILE
    ),
    "temperature's interval of one standard error": Fault(
        _TEMPERATURE,
        "        error = np.nan\n    mean = float(values.mean())\n"
        "    return Interval(mean, mean - 2 * error, mean + 2 * error)",
        "        error = np.nan\n    mean = float(values.mean())\n"
        "    return Interval(mean, mean - error, mean + error)",
        _LIMITS_FILE,
    ),
    "noise's interval of one standard error": Fault(
        _TEMPERATURE,
        "else np.nan\n    mean = float(values.mean())\n"
        "    return Interval(mean, mean - 2 * error, mean + 2 * error)",
        "else np.nan\n    mean = float(values.mean())\n"
        "    return Interval(mean, mean - error, mean + error)",
        _LIMITS_FILE,
    ),
    "layers' intervals not widened for their number": Fault(
        _TEMPERATURE, "_FALSE_ALARMS / max(1, len(layers))", "_FALSE_ALARMS", _LIMITS_FILE
    ),
    "layers' intervals widened for 5 %": Fault(
        _TEMPERATURE, "_FALSE_ALARMS = 0.005", "_FALSE_ALARMS = 0.05", _LIMITS_FILE
    ),
    "cold chains exclude noise": Fault(
        _TEMPERATURE, "            and not self.is_cold\n", "", _LIMITS_FILE
    ),
    "noise excluded by its value": Fault(
        _TEMPERATURE,
        "self.temperature * (1 + noise.low)",
        "self.temperature * (1 + noise.value)",
        _LIMITS_FILE,
    ),
    "a layer is hot by its value": Fault(
        _TEMPERATURE, "if x.low > limit}", "if x.value > limit}", _LIMITS_FILE
    ),
    "a layer is never cold": Fault(
        _TEMPERATURE, "if x.high < limit}", "if x.high < 0}", _LIMITS_FILE
    ),
    # What is said, and advised.
    "settled chains from R-hat 1.2": Fault(
        _VERDICT, "within < 1.05 and", "within < 1.2 and", _LIMITS_FILE
    ),
    "regions from R-hat 1.5": Fault(_VERDICT, "between > 1.1:", "between > 1.5:", _LIMITS_FILE),
    "half of the draws must be effective": Fault(
        _VERDICT, "c.num_chains * c.num_draws / 3", "c.num_chains * c.num_draws / 2", _LIMITS_FILE
    ),
    "keep one times as many": Fault(
        _VERDICT, "math.ceil(max(2, 1.2", "math.ceil(max(1, 0.1", f"{_KINDS} -k 'few or short'"
    ),
    "nobody is told that it would take too long": Fault(
        _VERDICT,
        "_MAX_TIMES = 20",
        "_MAX_TIMES = 2_000",
        "tests/diagnostics/test_verdict.py -k hundreds",
    ),
    "steps that would be too few": Fault(
        _VERDICT, "1.2 * enough / ess", "0.3 * enough / ess", f"{_KINDS} -k 'few or short'"
    ),
    "enough draws for the mean of R-hat": Fault(
        _MIXING, "scipy.stats.chi2.isf((1 - MIN_SHARE) / 2, freedom)", "freedom", _LIMITS_FILE
    ),
    "shared minibatches vouched for": Fault(
        _VERDICT,
        '    if settings.get("shared_minibatches"):',
        "    if False:",
        "tests/diagnostics/test_verdict.py -k vouched",
    ),
    "step size divided too little": Fault(
        _VERDICT, "2 * max(excesses) / tolerance", "max(excesses) / tolerance", _LIMITS_FILE
    ),
    "step size divided too little for the noise": Fault(
        _VERDICT, "1.5 * added / meters.max_noise", "0.5 * added / meters.max_noise", _LIMITS_FILE
    ),
    "a second opinion on converged runs": Fault(
        _VERDICT,
        'elif label != "converged" and convergence.disagreement',
        'elif label == "converged" and convergence.disagreement',
        _LIMITS_FILE,
    ),
    "divergences overruled by a bias": Fault(
        _VERDICT,
        "        _divergence(convergence)\n        or _bias(convergence, meters, settings)",
        "        _bias(convergence, meters, settings)\n        or _divergence(convergence)",
        "tests/diagnostics/test_verdict.py -k comes_first",
    ),
    # What is measured.
    "R-hat of the bulk alone": Fault(
        f"{_DIAGNOSTICS}/ranks.py",
        "np.fmax(statistic(_normal_scores(halves)), statistic(_normal_scores(folded)))",
        "statistic(_normal_scores(halves))",
        "tests/diagnostics/test_ranks.py",
    ),
    "R-hat of whole chains": Fault(
        f"{_DIAGNOSTICS}/ranks.py",
        "    halves = _split(values)\n",
        "    halves = values\n",
        "tests/diagnostics/test_ranks.py",
    ),
    "tail of 10 %": Fault(
        f"{_DIAGNOSTICS}/ranks.py", "[0.05, 0.95]", "[0.1, 0.9]", "tests/diagnostics/test_ranks.py"
    ),
    "upper tail alone": Fault(
        f"{_DIAGNOSTICS}/ranks.py",
        "np.minimum(*(of_quantile(block, q) for q in quantiles))",
        "of_quantile(block, quantiles[1])",
        "tests/diagnostics/test_ranks.py",
    ),
    "nested R-hat forgets the spread within groups": Fault(
        f"{_DIAGNOSTICS}/ranks.py",
        "(variances.mean(axis=1) + means.var(axis=1, ddof=1)).mean(axis=0)",
        "variances.mean(axis=1).mean(axis=0)",
        "tests/diagnostics/test_ranks.py tests/diagnostics/test_between_chains.py",
    ),
    "warm-up counted as drift": Fault(
        f"{_DIAGNOSTICS}/drift.py",
        "start = values.shape[1] // 2",
        "start = 0",
        "tests/diagnostics/test_drift.py",
    ),
    "drift without a trace's warm-up": Fault(
        f"{_DIAGNOSTICS}/drift.py",
        "start = max(start, settled)",
        "pass",
        "tests/diagnostics/test_drift.py",
    ),
    "a common trend is a correlation": Fault(
        f"{_DIAGNOSTICS}/between_chains.py",
        "    steps -= steps.mean(axis=1, keepdims=True)\n",
        "",
        "tests/diagnostics/test_between_chains.py",
    ),
    "correlation of levels, not of steps": Fault(
        f"{_DIAGNOSTICS}/between_chains.py",
        "steps = np.diff(values.astype(float), axis=1)",
        "steps = values.astype(float).copy()",
        "tests/diagnostics/test_between_chains.py",
    ),
    "distance without the others' errors": Fault(
        f"{_DIAGNOSTICS}/between_chains.py",
        "np.sqrt(variances + of_others)",
        "np.sqrt(variances)",
        "tests/diagnostics/test_between_chains.py",
    ),
    "distance without autocorrelation": Fault(
        f"{_DIAGNOSTICS}/between_chains.py",
        "np.square(ranks.mcse_mean(chain[None]))",
        "chain.var(axis=0) / len(chain)",
        f"tests/diagnostics/test_between_chains.py {_KINDS} -k 'between_chains or by_chance'",
    ),
    "spread in units of all chains": Fault(
        f"{_DIAGNOSTICS}/between_chains.py",
        "mask=~moving",
        "mask=False & moving",
        "tests/diagnostics/test_verdict.py -k stand_still",
    ),
    "disagreement twice as large": Fault(
        f"{_DIAGNOSTICS}/between_chains.py",
        "total_variation=0.5 * np.abs(means - others)",
        "total_variation=np.abs(means - others)",
        "tests/diagnostics/test_between_chains.py",
    ),
    "disagreement between two chains twice as large": Fault(
        f"{_DIAGNOSTICS}/between_chains.py",
        "[[0.5 * np.abs(a - b)",
        "[[1.0 * np.abs(a - b)",
        "tests/diagnostics/test_between_chains.py",
    ),
    "disagreement's interval of one standard error": Fault(
        f"{_DIAGNOSTICS}/between_chains.py",
        "scipy.stats.t.isf(0.025, num_chains - 1) * error",
        "error",
        "tests/diagnostics/test_between_chains.py",
    ),
    "disagreement's jackknife without its factor": Fault(
        f"{_DIAGNOSTICS}/between_chains.py",
        "pseudo = num_chains * value - (num_chains - 1) * without",
        "pseudo = without",
        "tests/diagnostics/test_between_chains.py",
    ),
    "running likelihood of one chain": Fault(
        f"{_DIAGNOSTICS}/held_out.py",
        "np.log(num_chains * np.arange",
        "np.log(1 * np.arange",
        "tests/diagnostics/test_held_out.py",
    ),
    "virial about the chain's own mean": Fault(
        _TEMPERATURE,
        "(mean.sum(axis=0) - mean[c]) / max(num_chains - 1, 1)",
        "mean[c]",
        "tests/diagnostics/test_temperature.py -k 'exact_draws or which_draws'",
    ),
    "layers' temperatures over all parameters": Fault(
        _TEMPERATURE,
        "sums[:, :, leaves].sum(axis=-1) / sizes[leaves].sum()",
        "sums[:, :, leaves].sum(axis=-1) / sizes.sum()",
        "tests/diagnostics/test_temperature.py -k 'exact_draws or each_layer'",
    ),
    "gradient noise not in units of T": Fault(
        _TEMPERATURE,
        "excess = _noise_excess(rng_key, target, draws, num_minibatches) / draws.temperature",
        "excess = _noise_excess(rng_key, target, draws, num_minibatches)",
        "tests/diagnostics/test_temperature.py",
    ),
    "temperature of 100 draws, however vague": Fault(
        _TEMPERATURE,
        "while num_draws is None and measured.size < most:",
        "while False:",
        f"{_KINDS} -k 'few_parameters or finer'",
    ),
    "non-finite draws uncounted": Fault(
        f"{_DIAGNOSTICS}/diagnosis.py",
        "bad = [~np.isfinite(found.values)",
        "bad = [np.isnan(found.values) & False",
        "tests/diagnostics/test_diagnosis.py",
    ),
    "function of other draws taken for the posterior's": Fault(
        f"{_DIAGNOSTICS}/trees.py",
        "return found if found.names and of_these_draws else None",
        "return found if found.names else None",
        "tests/diagnostics/test_trees.py",
    ),
    "log density judged as a parameter": Fault(
        f"{_DIAGNOSTICS}/trees.py",
        '_NO_PARAMETERS = {"log_density", "log_prior", "layer_norm"}',
        "_NO_PARAMETERS = set()",
        "tests/diagnostics/test_trees.py tests/diagnostics/test_diagnosis.py",
    ),
    "number of constant values with those that are not finite": Fault(
        _MIXING,
        "len(self.names) - self.num_varying - len(self.nonfinite)",
        "len(self.names) - self.num_varying",
        "tests/diagnostics/test_mixing.py",
    ),
}


_SAMPLERS = "probbnn/samplers"
_FULL_DATA = "tests/samplers/test_full_data.py -k"
_CLOSED_FORM = f"{_FULL_DATA} closed_form"
FAULTS |= {
    # Kernels, their warm-up and what they report.
    "one key for all leaves that are not float32": Fault(
        f"{_SAMPLERS}/noise.py",
        "keys = jax.random.split(rng_key, len(leaves))",
        "keys = [rng_key] * len(leaves)",
        "tests/samplers/test_psgld.py -k 'normals or dtypes'",
    ),
    "float32 noise for float64 parameters": Fault(
        f"{_SAMPLERS}/noise.py",
        "jax.random.normal(key, leaf.shape, leaf.dtype)",
        'jax.random.normal(key, leaf.shape, "float32").astype(leaf.dtype)',
        "tests/samplers/test_psgld.py tests/samplers/test_kernels.py -k 'normals or float64'",
    ),
    "noise of half the words": Fault(
        f"{_SAMPLERS}/noise.py",
        "_as_normal(words[end - leaf.size : end])",
        "_as_normal(words[: leaf.size])",
        "tests/samplers/test_psgld.py -k 'normals or dtypes'",
    ),
    "MCLMC's energy error of another order": Fault(
        f"{_SAMPLERS}/mclmc.py",
        "trust * (ratio / state.step_size**6)",
        "trust * (ratio / state.step_size**2)",
        "tests/samplers/test_adaptation.py -k tuned",
    ),
    "MCLMC's L of a whole autocorrelation length": Fault(
        f"{_SAMPLERS}/mclmc.py",
        "_L_FACTOR = 0.4",
        "_L_FACTOR = 1.0",
        "tests/samplers/test_adaptation.py -k tuned",
    ),
    "MCLMC's mass matrix of the second moment": Fault(
        f"{_SAMPLERS}/mclmc.py",
        "variance = moments[1] - jnp.square(moments[0])",
        "variance = moments[1]",
        "tests/samplers/test_adaptation.py -k tuned",
    ),
    "MCLMC's step forgets its momentum": Fault(
        f"{_SAMPLERS}/mclmc.py",
        "                state.inverse_mass_matrix,\n                state.L,",
        "                jnp.ones_like(state.inverse_mass_matrix),\n                state.L,",
        "tests/samplers/test_adaptation.py -k step_of_mclmc",
    ),
    "MCLMC takes one gradient a step": Fault(
        f"{_SAMPLERS}/mclmc.py",
        "num_gradients = state.num_gradients + 2",
        "num_gradients = state.num_gradients + 1",
        f"{_FULL_DATA} 'passes and mclmc'",
    ),
    "NUTS's trees as deep as they like": Fault(
        f"{_SAMPLERS}/nuts.py",
        "max_num_doublings=self.max_tree_depth,",
        "max_num_doublings=10,",
        f"{_FULL_DATA} 'starts_where and nuts'",
    ),
    "NUTS samples with the last step size of warm-up": Fault(
        f"{_SAMPLERS}/nuts.py",
        "step_size=final_steps(state.tuning.dual_averaging), tuning=()",
        "tuning=()",
        "tests/samplers/test_adaptation.py -k nuts",
    ),
    "NUTS's acceptance rate is not the one asked for": Fault(
        f"{_SAMPLERS}/nuts.py",
        "            self.target_acceptance_rate\n        )\n        init_mass",
        "            0.8\n        )\n        init_mass",
        "tests/samplers/test_adaptation.py",
    ),
    "NumPyro's NUTS starts elsewhere": Fault(
        f"{_SAMPLERS}/from_numpyro.py",
        "kernel.init(untyped(rng_key), num_warmup, model.params(position), (), {})",
        "kernel.init(untyped(rng_key), num_warmup, None, (), {})",
        f"{_FULL_DATA} 'starts_where and numpyro'",
    ),
    "NumPyro's log density with its sign": Fault(
        f"{_SAMPLERS}/from_numpyro.py",
        "logdensity=-state.potential_energy",
        "logdensity=state.potential_energy",
        f"{_FULL_DATA} log_density_beside",
    ),
    "HMCECS's centre of expansion not reached": Fault(
        f"{_SAMPLERS}/from_numpyro.py",
        "center = model.params(mode)",
        "center = model.params(position)",
        f"{_FULL_DATA} 'closed_form and hmcecs'",
    ),
    "HMCECS's MAP estimate from one step": Fault(
        f"{_SAMPLERS}/from_numpyro.py",
        "jnp.arange(self.map_steps))",
        "jnp.arange(1))",
        f"{_FULL_DATA} 'closed_form and hmcecs'",
    ),
    "HMCECS's exchange uncounted": Fault(
        f"{_SAMPLERS}/from_numpyro.py",
        "exchange = batch_size / self.num_blocks + batch_size",
        "exchange = batch_size",
        f"{_FULL_DATA} 'passes and hmcecs'",
    ),
    "SVI draws its median": Fault(
        f"{_SAMPLERS}/approximations.py",
        "family.sample_posterior(rng_key, state.fit)",
        "family.median(state.fit)",
        f"{_CLOSED_FORM}",
    ),
    "low-rank SVI is mean field": Fault(
        f"{_SAMPLERS}/approximations.py",
        '"low_rank": AutoLowRankMultivariateNormal,',
        '"low_rank": AutoNormal,',
        f"{_FULL_DATA} 'closed_form and svi_low_rank'",
    ),
    "Laplace's root transposed": Fault(
        f"{_SAMPLERS}/approximations.py",
        "flat + root @ jax",
        "flat + root.T @ jax",
        f"{_FULL_DATA} 'closed_form and laplace or last_layer_is_exact'",
    ),
    "Laplace around the origin": Fault(
        f"{_SAMPLERS}/approximations.py",
        "draw = flat + root",
        "draw = 0 * flat + root",
        f"{_FULL_DATA} 'closed_form and laplace'",
    ),
    "Laplace's diagonal is that of the covariance": Fault(
        f"{_SAMPLERS}/approximations.py",
        "hessian_fn=_hessian if is_last else _hessian_diagonal,",
        "hessian_fn=_hessian,",
        f"{_FULL_DATA} 'closed_form and laplace'",
    ),
    "Laplace of a saddle": Fault(
        f"{_SAMPLERS}/approximations.py",
        "jnp.where(jnp.all(jnp.diag(root) > 0), root, jnp.nan)",
        "root",
        f"{_FULL_DATA} saddle",
    ),
    "last layer by alphabet": Fault(
        "probbnn/posterior/last_layer.py",
        "(layer, other) in flow.before and (other, layer) not in flow.before",
        "other > layer",
        "tests/posterior/test_last_layer.py",
    ),
    "an optimiser descends the sum of the losses": Fault(
        f"{_SAMPLERS}/from_optax.py",
        "optax.tree.scale(-1 / data_size, grad)",
        "optax.tree.scale(-1.0, grad)",
        "tests/samplers/test_psgld.py -k rmsprop",
    ),
    "RMSprop's ε outside the root": Fault(
        f"{_SAMPLERS}/from_optax.py",
        "eps_in_sqrt=True",
        "eps_in_sqrt=False",
        "tests/samplers/test_psgld.py -k rmsprop",
    ),
    "SGNHT's thermostat reset": Fault(
        f"{_SAMPLERS}/from_blackjax.py",
        "SGNHTState(position, momentum, xi, state.step + 1), info",
        "SGNHTState(position, momentum, state.xi, state.step + 1), info",
        "tests/samplers/test_from_blackjax.py",
    ),
    "BlackJAX's SGHMC without temperature's refusal": Fault(
        f"{_SAMPLERS}/from_blackjax.py",
        "if self.temperature != 1:",
        "if False:",
        "tests/samplers/test_kernels.py -k outside",
    ),
    "BlackJAX's SGHMC takes one gradient a step": Fault(
        f"{_SAMPLERS}/from_blackjax.py",
        "gradients_per_step=self.num_integration_steps + 1,",
        "gradients_per_step=1,",
        "tests/inference/test_sample.py -k passes",
    ),
    "SGLD's default step ten times as large": Fault(
        f"{_SAMPLERS}/base.py",
        "MEAN_LOSS_RATE = 0.02",
        "MEAN_LOSS_RATE = 0.2",
        "tests/inference/test_sample.py -k default_step",
    ),
    "kinetic temperature of the sum": Fault(
        f"{_SAMPLERS}/base.py",
        "optax.tree.norm(momentum, squared=True) / size",
        "optax.tree.norm(momentum, squared=True)",
        "tests/samplers/test_sghmc.py",
    ),
    "SGHMC's default step as of another friction": Fault(
        f"{_SAMPLERS}/sghmc.py",
        "return 2 * self.friction / (2 - self.friction) * MEAN_LOSS_RATE / data_size",
        "return MEAN_LOSS_RATE / data_size",
        "tests/inference/test_sample.py -k default_step",
    ),
    "SGHMC's noise as of Euler's method": Fault(
        f"{_SAMPLERS}/sghmc.py",
        "jnp.sqrt(temperature * (1 - remaining**2))",
        "jnp.sqrt(temperature * 2 * friction)",
        "tests/samplers/test_sghmc.py",
    ),
    "SGHMC's noise gain without friction": Fault(
        f"{_SAMPLERS}/sghmc.py",
        "(2 - self.friction) / (4 * self.friction)",
        "0.5",
        f"{_STATIONARY} noise_gain",
    ),
    "cosine of a whole turn": Fault(
        f"{_SAMPLERS}/schedules.py",
        "jnp.cos(jnp.pi * done)",
        "jnp.cos(2 * jnp.pi * done)",
        "tests/samplers/test_schedules.py",
    ),
    "draws from a cycle's exploration": Fault(
        f"{_SAMPLERS}/schedules.py",
        "first = start + self._first_sampling_step",
        "first = start",
        "tests/samplers/test_schedules.py",
    ),
    "V's weight counted on after the freeze": Fault(
        f"{_SAMPLERS}/preconditioners.py",
        "            num_averaged = jnp.minimum(num_averaged, self.freeze_after)\n",
        "            pass\n",
        "tests/samplers/test_kernels.py -k update_equations",
    ),
    "no bias correction": Fault(
        f"{_SAMPLERS}/preconditioners.py",
        "return 1 - self.decay**num_averaged",
        "return 1.0",
        "tests/samplers/test_psgld.py -k first_step",
    ),
    "Γ at T = 1": Fault(
        f"{_SAMPLERS}/psgld.py",
        "weight = jnp.where(rms.is_frozen(step), 0.0, temperature)",
        "weight = jnp.where(rms.is_frozen(step), 0.0, 1.0)",
        f"{_STATIONARY} 'exact and gamma'",
    ),
    "Γ goes on after the freeze": Fault(
        f"{_SAMPLERS}/psgld.py",
        "weight = jnp.where(rms.is_frozen(step), 0.0, temperature)",
        "weight = temperature",
        "tests/samplers/test_psgld.py -k frozen",
    ),
    "probe with the noise's key": Fault(
        f"{_SAMPLERS}/psgld.py",
        "noise_key, probe_key = jax.random.split(rng_key)",
        "noise_key = probe_key = rng_key",
        "tests/samplers/test_psgld.py -k key",
    ),
    "SGLD's temperature not passed on": Fault(
        f"{_SAMPLERS}/from_blackjax.py",
        "lambda *_: grad, minibatch, h, t)\n        info = StepInfo",
        "lambda *_: grad, minibatch, h)\n        info = StepInfo",
        f"{_STATIONARY} 'sgld and anisotropic'",
    ),
}


_METRICS = "probbnn/metrics"
_STORE, _RESUME = "tests/inference/test_store.py", "tests/inference/test_resume.py"
FAULTS |= {
    # Metrics and their intervals.
    "bins closed on the left": Fault(
        f"{_METRICS}/calibration.py",
        "np.ceil((confidence - ROUNDING) * num_bins).astype(np.intp)",
        "np.floor(confidence * num_bins).astype(np.intp) + 1",
        "tests/metrics/test_calibration.py",
    ),
    "bins of equal mass split ties": Fault(
        f"{_METRICS}/calibration.py",
        "np.repeat(num_bins * middle_rank // len(confidence), sizes)",
        "np.arange(len(confidence))[::-1] * num_bins // len(confidence)",
        "tests/metrics/test_calibration.py",
    ),
    "calibration error unweighted": Fault(
        f"{_METRICS}/calibration.py",
        "np.average(np.abs(bins.accuracy - bins.confidence), weights=bins.counts)",
        "np.average(np.abs(bins.accuracy - bins.confidence))",
        "tests/metrics/test_calibration.py",
    ),
    "signed calibration error": Fault(
        f"{_METRICS}/calibration.py",
        "np.abs(bins.accuracy - bins.confidence)",
        "(bins.accuracy - bins.confidence)",
        "tests/metrics/test_calibration.py",
    ),
    "Brier's score of one class": Fault(
        f"{_METRICS}/calibration.py",
        "(probs - np.eye(probs.shape[1])[labels]) ** 2).sum(axis=1)",
        "(probs - np.eye(probs.shape[1])[labels]) ** 2).mean(axis=1)",
        "tests/metrics/test_calibration.py",
    ),
    "NLL's floor of float64": Fault(
        f"{_METRICS}/calibration.py",
        "NLL_FLOOR = float(np.finfo(np.float32).tiny)",
        "NLL_FLOOR = float(np.finfo(np.float64).tiny)",
        "tests/metrics/test_calibration.py",
    ),
    "intervals of 90 %": Fault(
        f"{_METRICS}/bootstrap.py",
        "[(1 - level) / 2, (1 + level) / 2]",
        "[(1 - level), level]",
        "tests/metrics/test_bootstrap.py",
    ),
    "value of a resample": Fault(
        f"{_METRICS}/bootstrap.py",
        "metrics(*(np.ones((1, size), np.intp) for size in sizes))",
        "metrics(*(2 * np.eye(1, size, dtype=np.intp) for size in sizes))",
        "tests/metrics/test_bootstrap.py",
    ),
    "samples apart resampled together": Fault(
        f"{_METRICS}/bootstrap.py",
        "*(len(sample) for sample in samples[: 1 if paired else None]),",
        "*(len(sample) for sample in samples[: 1 if paired or len(samples) > 1 else None]),",
        "tests/metrics/test_bootstrap.py",
    ),
    "a seed without effect": Fault(
        f"{_METRICS}/bootstrap.py",
        "np.random.default_rng(seed))",
        "np.random.default_rng())",
        "tests/metrics/test_bootstrap.py",
    ),
    "undefined resamples count": Fault(
        f"{_METRICS}/bootstrap.py",
        "bounds = np.nanquantile(",
        "bounds = np.quantile(",
        "tests/metrics/test_bootstrap.py",
    ),
    "errors of entropy cancel": Fault(
        f"{_METRICS}/fidelity.py",
        "np.abs(entropy(probs) - entropy(reference))",
        "entropy(probs) - entropy(reference)",
        "tests/metrics/test_fidelity.py",
    ),
    "total variation up to 2": Fault(
        f"{_METRICS}/fidelity.py",
        "return 0.5 * np.abs(probs - reference)",
        "return np.abs(probs - reference)",
        "tests/metrics/test_fidelity.py",
    ),
    "a tie counts in full": Fault(
        f"{_METRICS}/ood.py",
        "flagged.false_positives + flagged.above)",
        "2 * flagged.above)",
        "tests/metrics/test_ood.py",
    ),
    "false positives at 90 %": Fault(
        f"{_METRICS}/ood.py",
        "100 * flagged.true_positives >= 95 * num_out",
        "100 * flagged.true_positives >= 90 * num_out",
        "tests/metrics/test_ood.py",
    ),
    "precision of those in distribution": Fault(
        f"{_METRICS}/ood.py",
        "precision = flagged.true_positives / ",
        "precision = flagged.false_positives / ",
        "tests/metrics/test_ood.py",
    ),
    "both data sets resampled alike": Fault(
        f"{_METRICS}/ood.py",
        "drawn = sums_before(counts_in), sums_before(counts_out), counts_out",
        "drawn = sums_before(counts_in), sums_before(np.ones_like(counts_out)), counts_out",
        "tests/metrics/test_ood.py",
    ),
    "a threshold not to be passed by its like": Fault(
        f"{_METRICS}/selective.py",
        "passes = confidence >= thresholds[:, None] - ROUNDING",
        "passes = confidence > thresholds[:, None] + ROUNDING",
        "tests/metrics/test_selective.py",
    ),
    "ties in the order of the rows": Fault(
        f"{_METRICS}/selective.py",
        "return np.cumsum(np.repeat(errors / sizes, sizes))",
        "return np.cumsum(~correct[order]).astype(float)",
        "tests/metrics/test_selective.py",
    ),
    "an oracle that is always right": Fault(
        f"{_METRICS}/selective.py",
        "return max(_mean_risk(errors) - _mean_risk(oracle), 0.0)",
        "return max(_mean_risk(errors), 0.0)",
        "tests/metrics/test_selective.py",
    ),
    "generalised risk by the upper sum": Fault(
        f"{_METRICS}/selective.py",
        "np.trapezoid(np.append(0.0, errors))",
        "np.sum(errors)",
        "tests/metrics/test_selective.py",
    ),
    "probabilities that sum to 0.9": Fault(
        f"{_METRICS}/_inputs.py",
        "_ROW_SUM_TOLERANCE = 1e-3",
        "_ROW_SUM_TOLERANCE = 0.11",
        "tests/metrics/test_inputs.py tests/metrics/test_calibration.py",
    ),
    "labels of no class taken": Fault(
        f"{_METRICS}/_inputs.py",
        "unlabelled = np.count_nonzero(labels < 0)",
        "unlabelled = 0",
        "tests/metrics/test_inputs.py tests/metrics/test_evaluate.py",
    ),
    "resampled areas without ties": Fault(
        f"{_METRICS}/_resamples.py",
        "/ np.maximum(stop - start, 1)",
        "/ 1",
        "tests/metrics/test_evaluate.py",
    ),
    "resampled bins of equal mass one row off": Fault(
        f"{_METRICS}/_resamples.py",
        "bounds = np.where(middle <= limits, end, first)",
        "bounds = np.where(middle < limits, end, first)",
        "tests/metrics/test_evaluate.py",
    ),
    # The registry.
    "low-rank SVI under the name of the other": Fault(
        f"{_SAMPLERS}/registry.py",
        '"approximations.LowRankSVI"',
        '"approximations.SVI"',
        "tests/inference/test_sample.py -k registered",
    ),
    "an approximation taken for MCMC": Fault(
        f"{_SAMPLERS}/registry.py",
        '"approximations.Laplace",\n        "numpyro",\n        "approximation",',
        '"approximations.Laplace",\n        "numpyro",\n        "MCMC",',
        "tests/inference/test_sample.py -k registered",
    ),
    "a backend that is not the method's": Fault(
        f"{_SAMPLERS}/registry.py",
        '"nuts.NUTS", "blackjax", "MCMC"',
        '"nuts.NUTS", "numpyro", "MCMC"',
        "tests/inference/test_sample.py -k registered",
    ),
    # Minibatches.
    "every epoch alike": Fault(
        "probbnn/data/sources.py",
        "jax.random.fold_in(stream.rng_key, epoch)",
        "stream.rng_key",
        "tests/data/test_sources.py",
    ),
    "padding counts": Fault(
        "probbnn/data/sources.py",
        "mask = position * batch_size + jnp.arange(batch_size) < data_size",
        "mask = position * batch_size + jnp.arange(batch_size) >= 0",
        "tests/data/test_sources.py",
    ),
    "one order for ever": Fault(
        "probbnn/data/sources.py",
        "jax.lax.cond(position == 0, renew",
        "jax.lax.cond(step == 0, renew",
        "tests/data/test_sources.py",
    ),
    "targets of other examples": Fault(
        "probbnn/data/sources.py",
        "return jax.tree.map(lambda leaf: leaf[index], self._everything)",
        "return jax.tree.map(lambda leaf: leaf[index], self._everything)._replace("
        "targets=jnp.roll(self.targets, 1, axis=0)[index])",
        "tests/data/test_sources.py",
    ),
    "pixels of each image in an order of its own": Fault(
        "probbnn/data/shifts.py",
        "images.reshape(n, -1, channels)[:, order]",
        "rng.permuted(images.reshape(n, -1, channels), axis=1)",
        "tests/data/test_shifts.py",
    ),
    "noise with the labels of the images": Fault(
        "probbnn/data/shifts.py",
        "            labels = np.full(n, -1)\n",
        "",
        "tests/data/test_shifts.py",
    ),
    "stretched to another scale": Fault(
        "probbnn/data/shifts.py",
        "inputs=factor * regression.inputs",
        "inputs=regression.inputs",
        "tests/data",
    ),
    "random subsets that differ": Fault(
        "probbnn/subsample.py",
        "np.random.default_rng(0).choice",
        "np.random.default_rng().choice",
        "tests/test_datatree.py -k 'weights or 500'",
    ),
    "evenly spaced without the last": Fault(
        "probbnn/subsample.py",
        "np.linspace(0, size - 1, min(number, size))",
        "np.linspace(0, size - 1, min(number, size), endpoint=False)",
        "tests/diagnostics/test_temperature.py -k which_draws",
    ),
    "leaves of one name": Fault(
        "probbnn/tree.py",
        "        while candidate in taken:\n",
        "        while False:\n",
        "tests/test_datatree.py -k names",
    ),
    # Runner, plan, collectors and what is thinned.
    "one draw early": Fault(
        "probbnn/inference/plan.py",
        "np.arange(start + self.thinning, end + 1, self.thinning)",
        "np.arange(start, end + 1 - self.thinning, self.thinning)",
        "tests/inference/test_runner.py -k 'draws_are or chunks'",
    ),
    "draws from warm-up": Fault(
        "probbnn/inference/plan.py",
        "(max(start, self.num_warmup), end)",
        "(start, end)",
        "tests/samplers/test_schedules.py",
    ),
    "a chunk that runs over a phase's end": Fault(
        "probbnn/inference/plan.py",
        "return min(stop for stop in all_stops if stop > step)",
        "return self.num_steps",
        "tests/inference/test_runner.py",
    ),
    "all chains' first bad step is the last": Fault(
        _RUNNER,
        "before = nonfinite[nonfinite >= 0].min()",
        "before = nonfinite[nonfinite >= 0].max()",
        "tests/inference/test_runner.py",
    ),
    "the first bad step forgotten": Fault(
        _RUNNER,
        "first_bad = ~finite & (state.nonfinite_step < 0)",
        "first_bad = ~finite",
        "tests/inference/test_runner.py",
    ),
    "a bad last step unseen": Fault(
        _RUNNER,
        "bad = ~over_chains(_all_finite, (0,))(state.positions) & (state.nonfinite_step < 0)",
        "bad = state.nonfinite_step < -1",
        "tests/inference/test_runner.py -k last_step",
    ),
    "a gradient that is not finite unseen": Fault(
        _RUNNER,
        "            finite &= jnp.isfinite(info.grad_norm)\n",
        "            pass\n",
        "tests/inference/test_runner.py",
    ),
    "control variates cost nothing": Fault(
        _RUNNER,
        "(2 if run.target.has_control_variates else 1)",
        "1",
        "tests/inference/test_sample.py -k passes",
    ),
    "passes of one chain": Fault(
        _RUNNER,
        "return num_chains * gradients * run.plan",
        "return gradients * run.plan",
        "tests/inference/test_sample.py -k passes",
    ),
    "passes rounded down": Fault(
        _RUNNER,
        "steps_per_pass = -(-data_size // run.batch_size)",
        "steps_per_pass = data_size // run.batch_size",
        "tests/inference/test_sample.py -k passes",
    ),
    "statistics of an excluded chain": Fault(
        _RUNNER,
        "np.asarray(values)[where] for name, values in stats.items()",
        "np.asarray(values) for name, values in stats.items()",
        f"{_RESUME} -k left_out",
    ),
    "noise gain of all chains": Fault(
        _RUNNER,
        "jax.tree.map(lambda x: np.array(x)[where], jax.vmap(noise_gain)(state.kernel))",
        "jax.tree.map(np.array, jax.vmap(noise_gain)(state.kernel))",
        f"{_RESUME} -k left_out",
    ),
    "starts with the key of the first step": Fault(
        _RUNNER,
        "_INIT = 2**32 - 1",
        "_INIT = 0",
        "tests/inference/test_runner.py -k own",
    ),
    "the newest draws one place off": Fault(
        _COLLECTORS,
        "        at = clock.num_draws % self.size\n        return jax.tree.map",
        "        at = (clock.num_draws + 1) % self.size\n        return jax.tree.map",
        "tests/inference/test_runner.py -k draws_are",
    ),
    "sums that lose digits": Fault(
        _COLLECTORS,
        "lambda x, c: x - c, values, lost)",
        "lambda x, c: x, values, lost)",
        "tests/inference/test_collectors.py",
    ),
    "mean of logarithms": Fault(
        _COLLECTORS,
        "np.logaddexp.reduce(total, axis=0) - np.log(count.sum())",
        "np.mean(total, axis=0) - np.log(count.sum() / len(count))",
        "tests/inference/test_collectors.py",
    ),
    "every draw in a trace's thinning": Fault(
        "probbnn/inference/thinning.py",
        "is_kept = (number >> stage) << stage == number",
        "is_kept = number >= 0",
        "tests/inference/test_thinning.py",
    ),
    "thinning a stage late": Fault(
        "probbnn/inference/thinning.py",
        "stage = max(count - 1, 0) // capacity",
        "stage = max(count - 2, 0) // capacity",
        "tests/inference/test_thinning.py",
    ),
    # Files: the store, checkpoints, the directory and what is resumed.
    "a block written over the one before": Fault(
        "probbnn/inference/store.py",
        "array[:, start:stop] = _storable(leaf)",
        "array[:, : stop - start] = _storable(leaf)",
        _STORE,
    ),
    "memory that forgets what it held": Fault(
        "probbnn/inference/store.py",
        "            if held is not None:\n",
        "            if False:\n",
        _STORE,
    ),
    "another chain read": Fault(
        "probbnn/inference/store.py",
        "self._array[int(c), low:high]",
        "self._array[0, low:high]",
        _STORE,
    ),
    "half precision not read back": Fault(
        "probbnn/inference/store.py",
        "return values.astype(self.dtype, copy=False)",
        "return values",
        _STORE,
    ),
    "checksum not looked at": Fault(
        "probbnn/inference/checkpoint.py",
        'record.pop("checksum") != _checksum(leaves)',
        'record.pop("checksum") is None',
        "tests/inference/test_checkpoint.py",
    ),
    "checksum of the first array": Fault(
        "probbnn/inference/checkpoint.py",
        ".view(np.uint8).data, total)",
        ".view(np.uint8).data, 0) if not total else total",
        "tests/inference/test_checkpoint.py",
    ),
    "oldest checkpoint first": Fault(
        "probbnn/inference/checkpoint.py",
        "sorted(self._manager.all_steps(), reverse=True)",
        "sorted(self._manager.all_steps())",
        f"{_RESUME} -k 'longer or checkpoint'",
    ),
    "a damaged checkpoint kept": Fault(
        "probbnn/inference/checkpoint.py",
        "                self._manager.delete(bad)\n",
        "                pass\n",
        "tests/inference/test_checkpoint.py",
    ),
    "all checkpoints kept": Fault(
        "probbnn/inference/checkpoint.py",
        "_KEPT = 2",
        "_KEPT = 20",
        f"{_RESUME} -k bounded",
    ),
    "other data taken": Fault(
        "probbnn/inference/directory.py",
        '        "data": digest.hexdigest()[:16],\n',
        "",
        f"{_RESUME} -k other",
    ),
    "another prior taken": Fault(
        "probbnn/inference/directory.py",
        '        "prior": float(target.logprior_fn(position)),\n',
        "",
        f"{_RESUME} -k other",
    ),
    "any number is the same": Fault(
        "probbnn/inference/directory.py",
        "np.isclose(before, now, rtol=1e-4, atol=1e-4)",
        "np.isclose(before, now, rtol=1e4, atol=1e-4)",
        f"{_RESUME} -k other",
    ),
    "another version taken": Fault(
        "probbnn/inference/directory.py",
        "if changed and not force:",
        "if changed and force:",
        f"{_RESUME} -k version",
    ),
    "a lock that holds nobody off": Fault(
        "probbnn/inference/directory.py",
        "fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        f"{_RESUME} -k second_process",
    ),
    "a longer run from other draws": Fault(
        "probbnn/inference/resume.py",
        "phases = (*phases[:-1], (phases[-1][0], total))",
        "phases = (*phases, (old.num_steps, total))",
        f"{_RESUME} -k longer",
    ),
    "a schedule made longer": Fault(
        "probbnn/inference/resume.py",
        "if callable(schedule) and not isinstance(schedule, Cyclical):",
        "if False:",
        f"{_RESUME} -k schedule",
    ),
    "an optimiser made longer keeps its old end": Fault(
        "probbnn/inference/resume.py",
        "plan = Plan(total, total - 1, 1, stops=old.stops)",
        "plan = Plan(total, old.num_steps - 1, 1, stops=old.stops)",
        f"{_RESUME} -k optimiser",
    ),
    "a stopped run goes on": Fault(
        "probbnn/inference/resume.py",
        "            until = None\n",
        "            pass\n",
        f"{_RESUME} -k until",
    ),
    "the second half of the second half": Fault(
        "probbnn/inference/loop.py",
        "phases=((done, 2 * done),)",
        "phases=((done // 2, 2 * done),)",
        f"{_RESUME} -k look",
    ),
    "a status that says finished": Fault(
        "probbnn/inference/loop.py",
        'return "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"',
        'return "finished"',
        f"{_RESUME} -k signal",
    ),
    "no warning of chains left out": Fault(
        "probbnn/inference/loop.py",
        "    if draws.excluded:\n",
        "    if False:\n",
        f"{_RESUME} -k left_out",
    ),
    "half a file in place of a whole": Fault(
        "probbnn/files.py",
        'beside = path.with_name(f".{secrets.token_hex(8)}.part")',
        "beside = path",
        "tests/test_files.py",
    ),
    "a part of a file left behind": Fault(
        "probbnn/files.py",
        "beside.unlink(missing_ok=True)",
        "pass",
        "tests/test_files.py",
    ),
    "NaN in JSON as zero": Fault(
        "probbnn/files.py",
        "return value if math.isfinite(value) else None",
        "return value if math.isfinite(value) else 0.0",
        "tests/test_files.py",
    ),
    "a directory that holds something": Fault(
        "probbnn/files.py",
        "if directory.is_dir() and any(directory.iterdir()):",
        "if False:",
        "tests/test_files.py",
    ),
    # The ArviZ tree.
    "norms of layers squared": Fault(
        "probbnn/follow.py",
        "jnp.sqrt(sum(squares[i] for i in index))",
        "sum(squares[i] for i in index)",
        "tests/test_datatree.py",
    ),
    "weights of other leaves": Fault(
        "probbnn/follow.py",
        'np.searchsorted(offsets, numbers, "right") - 1',
        'np.searchsorted(offsets, numbers, "left") - 1',
        "tests/test_datatree.py",
    ),
    "log prior in place of the log density": Fault(
        "probbnn/follow.py",
        'looks["log_density"] = _Look(target.logdensity_fn)',
        'looks["log_density"] = _Look(target.logprior_fn)',
        "tests/test_datatree.py",
    ),
    "held-out targets of other examples": Fault(
        "probbnn/follow.py",
        "network.check_targets(targets, inputs)",
        "network.check_targets(targets[::-1], inputs)",
        "tests/test_datatree.py",
    ),
    "training examples of other numbers": Fault(
        "probbnn/follow.py",
        "training = target.data.gather(examples)",
        "training = target.data.gather(examples[::-1])",
        "tests/test_datatree.py",
    ),
    "probes in another order": Fault(
        "probbnn/follow.py",
        "lambda *parts: np.concatenate(parts), *self.probes.values()",
        "lambda *parts: np.concatenate(parts[::-1]), *self.probes.values()",
        "tests/test_datatree.py",
    ),
    "classes by number where they have names": Fault(
        "probbnn/datatree.py",
        'list(classes) if kind == "probability" and len(classes) == number',
        'list(classes) if kind == "output" and len(classes) == number',
        "tests/test_datatree.py",
    ),
    "a tree that forgets its temperature": Fault(
        "probbnn/datatree.py",
        '        tree.attrs["temperature"] = draws.temperature\n',
        "        pass\n",
        "tests/test_datatree.py",
    ),
    "what the meters measured left out": Fault(
        "probbnn/datatree.py",
        'groups["sample_stats"] |= measured',
        "pass",
        "tests/test_datatree.py",
    ),
    "passes left out of the tree": Fault(
        "probbnn/datatree.py",
        '(("step", draws.draw_steps), ("passes", draws.passes))',
        '(("step", draws.draw_steps),)',
        "tests/test_datatree.py",
    ),
    # Numbers of the report.
    "a share without its hundred": Fault(
        "probbnn/report/table.py",
        'number(share, "{:.1f} %".format, 100)',
        'number(share, "{:.1f} %".format, 1)',
        "tests/report/test_table.py",
    ),
    "bounds without the factor": Fault(
        "probbnn/report/table.py",
        "value, low, high = (number(x, spec, factor) for x in found)",
        "value, low, high = (number(x, spec, factor if x == found[0] else 1) for x in found)",
        "tests/report/test_table.py",
    ),
    "bounds the wrong way round": Fault(
        "probbnn/report/table.py",
        'f"{value} ({low}, {high})"',
        'f"{value} ({high}, {low})"',
        "tests/report/test_table.py",
    ),
    "infinity as a number": Fault(
        "probbnn/report/table.py",
        "if value is None or not math.isfinite(value):",
        "if value is None:",
        "tests/report/test_table.py",
    ),
    "yes and no as 1 and 0": Fault(
        "probbnn/report/table.py",
        'return "yes" if value else "no"',
        'return f"{value:d}"',
        "tests/report/test_table.py",
    ),
    "Markdown's signs in a cell": Fault(
        "probbnn/report/table.py",
        "{}\\[\\]<>|#~&])",
        "{}\\[\\]<>#~&])",
        "tests/report/test_table.py",
    ),
    "a method that samples nothing counts as not converged": Fault(
        "probbnn/report/verdicts.py",
        "        if entry.is_sampler\n",
        "",
        "tests/report/test_page.py -k 'diverged or side_by_side'",
    ),
    "a diverged method without a verdict": Fault(
        "probbnn/report/verdicts.py",
        'if found is None and entry.record.status == "diverged":',
        "if False:",
        "tests/report/test_page.py -k diverged",
    ),
}
