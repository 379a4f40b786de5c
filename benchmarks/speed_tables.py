"""Tables of whole models: tokens per second, memory and agreement."""

from __future__ import annotations

from benchmarks.markdown import Report, markdown


def demo(model: str, report: Report) -> str:
    """Speed and agreement of the heads over one body."""
    where = (
        f"{model}, {report['body_precision']} body, {report['threads']} threads of {report['machine']['cpu_model']}, "
        f"greedy; medians over {report['rounds']} interleaved rounds of {report['prompts']} prompts, "
        f"{report['new_tokens']} tokens each; {report['reduction']:.1f} x fewer rows scored."
    )
    rows = [
        (
            row["head"],
            f"{row['tokens_per_second_p50']:.0f}",
            f"{row['ratio_to_dense_int8']:.2f}",
            f"{row['agreement']:.3f}",
            f"{row['head_bytes_per_token'] / 1e6:.0f}",
            f"{row['peak_rss_bytes'] / 1e6:.0f}",
        )
        for row in report["rows"]
    ]
    titles = ("head", "tokens/s", "against dense int8", "agreement with fp32", "head MB a token", "peak memory, MB")
    return f"{where}\n\n{markdown(titles, rows)}"


def bench(model: str, report: list[Report]) -> str:
    """What ``flashhead-edge bench`` measured against llama.cpp."""
    first = report[0]
    where = (
        f"{model}, {first['threads']} threads of {first['cpu_model']}, batch {first['batch']}; "
        f"medians of {first['rounds']} rounds."
    )
    rows = [
        (
            row["head"],
            row["test"],
            *_speeds(row),
            f"{row['ratio_p50']:.2f}",
            "-" if row["head_ms_p50"] is None else f"{row['head_ms_p50']:.2f}",
            "-" if row["agreement"] is None else f"{row['agreement']:.3f}",
            f"{row['peak_rss_bytes'] / 1e6:.0f}",
        )
        for row in report
    ]
    titles = ("head", "test", "tokens/s", "min to max", "ratio", "head, ms a step", "agreement", "peak memory, MB")
    return f"{where}\n\n{markdown(titles, rows)}"


def bench_gpu(model: str, report: list[Report]) -> str:
    """What ``flashhead-edge bench --device cuda`` measured of decoding."""
    first = report[0]
    rows = [
        (
            row["head"],
            str(row["batch"]),
            f"{row['tokens_per_second_p50']:,.0f}",
            f"{row['ratio_p50']:.2f}",
            f"{row['head_ms_p50']:.2f}",
            f"{row['agreement']:.3f}",
            f"{row['energy_j_per_token']:.2f}",
        )
        for row in report
        if row["test"].startswith("tg")
    ]
    titles = ("head", "batch", "tokens/s", "ratio", "head, ms a step", "agreement", "joules a token")
    where = f"{model}, {first['gpu']}, {first['runtime']}; medians of {first['rounds']} rounds of {report[-1]['test']}."
    return f"{where}\n\n{markdown(titles, rows)}"


def runtimes(report: Report) -> str:
    """Speed and memory by runtime."""
    rows = [
        (row["model"], row["runtime"], f"{row['tokens_per_second_p50']:.0f}", f"{row['peak_rss_bytes'] / 1e6:.0f}")
        for row in report["rows"]
    ]
    where = f"{report['threads']} threads of {report['machine']['cpu_model']}, {report['rounds']} rounds in turn."
    return f"{where}\n\n{markdown(('model', 'runtime', 'tokens/s', 'peak memory, MB'), rows)}"


def cuda_text(report: Report) -> str:
    """Tokens per second on a GPU and on the processor beside it."""
    rows = [
        (
            row["model"],
            row["head"],
            row["place"],
            *_speeds(row),
            f"{row['agreement']:.3f}",
        )
        for row in report["rows"]
    ]
    library = "the native library" if report["native_library"] else "standard operators"
    where = (
        f"{report['gpu']}, ONNX Runtime {report['onnxruntime']}; processor: {report['threads']} threads of "
        f"{report['machine']['logical_cores']} cores, {library}. {report['new_tokens']} tokens, {report['rounds']} "
        "rounds in turn."
    )
    titles = ("model", "head", "on", "tokens/s", "min to max", "agreement")
    return f"{where}\n\n{markdown(titles, rows)}"


def starts(report: Report) -> str:
    """Seconds and memory of a process from its start to its first token, and memory of a longer text."""
    rows = [
        (
            row["model"],
            row["start"],
            f"{row['seconds_p50']:.2f}",
            f"{row['seconds_min']:.2f} to {row['seconds_max']:.2f}",
            f"{row['peak_rss_bytes'] / 1e6:.0f}",
            f"{row['peak_rss_bytes_long'] / 1e6:.0f}",
        )
        for row in report["rows"]
    ]
    where = (
        f"{report['threads']} threads of {report['machine']['cpu_model']}, files in the page cache; medians of "
        f"{report['rounds']} rounds in turn."
    )
    titles = ("model", "start", "seconds", "min to max", "peak, MB", f"peak with {report['new_tokens']} tokens, MB")
    return f"{where}\n\n{markdown(titles, rows)}"


def _speeds(row: Report) -> tuple[str, str]:
    """Tokens per second: the median, and the slowest and fastest round."""
    median, least, most = (f"{row[f'tokens_per_second_{part}']:.0f}" for part in ("p50", "min", "max"))
    return median, f"{least} to {most}"
