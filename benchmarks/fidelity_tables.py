"""Tables of how near heads come to the dense float32 head."""

from __future__ import annotations

from benchmarks.markdown import Report, markdown

STATES = ("teacher_forced", "own_continuations")


def agreement(report: Report) -> str:
    """Agreement with the dense fp32 head on held-out states."""
    shares = ("containment", "agreement", "dense_int8_agreement", "dense_int4_agreement")
    rows = [
        (
            model["model"],
            f"{model['reduction']:.2f}",
            kind.replace("_", " "),
            str(model[kind]["positions"]),
            *(f"{model[kind][name]:.4f}" for name in shares),
        )
        for model in report["models"]
        for kind in STATES
    ]
    titles = ("model", "reduction", "states", "positions", "containment", "two-stage", "dense int8", "dense int4")
    return markdown(titles, rows)


def distribution(report: Report) -> str:
    """The distribution over the whole vocabulary, against the dense head's."""
    rows = [
        (
            model["model"],
            kind.replace("_", " "),
            *(f"{model[kind]['total_variation_mean'][temperature]:.4f}" for temperature in ("0.5", "1.0", "1.5")),
            f"{model[kind]['perplexity_ratio']:.4f}",
            f"{model[kind]['following_logprob_error_p99']:.3f}",
            f"{model[kind]['clusters_scored_per_draw_bound_mean']['1.0']:.2f}",
        )
        for model in report["models"]
        for kind in STATES
    ]
    variation = [f"total variation, T = {temperature}" for temperature in ("0.5", "1", "1.5")]
    titles = ("model", "states", *variation, "perplexity ratio", "logprob error, p99", "clusters a draw, T = 1")
    tests = [test for model in report["models"] for test in model["draws"]]
    lowest, highest = (
        pick(test[key] for test in tests) for pick, key in ((min, "p_value"), (max, "reference_p_value"))
    )
    return (
        f"{markdown(titles, rows)}\n\nLikelihood-ratio tests of {report['draws']:,} draws at {len(tests)} states and "
        f"temperatures: p-values of ours are {lowest:.3f} or more; of drawing a cluster by the softmax of centroid "
        f"scores and then inside, {highest:.0e} or less."
    )
