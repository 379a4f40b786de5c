"""Tables of the head alone: its time by batch, its GPU kernels, and how its rows are clustered."""

from __future__ import annotations

from benchmarks.markdown import NOT_MEASURED, Report, markdown


def batches(report: Report) -> str:
    """Milliseconds of heads by batch."""
    names = ("dense int8", "dense int4", "standard operators", "native")
    times = {(row["batch"], row["head"]): row["ms_p50"] for row in report["heads"]}
    rows = [
        (
            str(batch),
            *(f"{times[batch, name]:.2f}" for name in names),
            f"{times[batch, 'dense int8'] / times[batch, 'native']:.1f}",
        )
        for batch in sorted({batch for batch, _ in times})
    ]
    titles = ("dense int8", "dense int4", "two-stage, standard operators", "two-stage, native")
    shape = f"{report['vocab_size']:,} x {report['hidden_size']}"
    machine = f"{report['threads']} threads of {report['machine']['cpu_model']}, kernels {report['kernels']}"
    table = markdown(("batch", *titles, "int8 / native"), rows)
    return f"{shape}, milliseconds of the head, {machine}, medians.\n\n{table}"


def on_gpu(report: Report) -> str:
    """Microseconds of both heads on a GPU, by batch, and of the kernels."""
    said = (
        f"{report['gpu']}, a copy moves {report['copy_gb_s'] / 1e3:.1f} TB/s, PyTorch {report['torch']}, Triton "
        f"{report['triton']}, {report['dtype']}. Dense / two-stage in microseconds, and how many times as fast; "
        f"medians of {report['rounds']} rounds in turn."
    )
    batches = [point["batch"] for point in report["heads"][0]["points"]]
    rows = [
        (
            _head_name(head),
            *(f"{p['dense_us']:.0f} / {p['two_stage_us']:.0f}: {p['ratio_p50']:.2f}" for p in head["points"]),
        )
        for head in report["heads"]
    ]
    speed = markdown(("head, V x H, clusters opened", *(f"batch {batch}" for batch in batches)), rows)
    names = list(report["heads"][0]["points"][0]["kernels_us"])
    rows = [
        (
            head["head"],
            str(point["batch"]),
            *(f"{point['kernels_us'][name]:.1f}" for name in names),
            f"{point['clusters_opened']:,}",
            f"{point['host_us']['two_stage']:.0f} / {point['host_us']['dense']:.0f}",
        )
        for head in report["heads"]
        for point in head["points"]
        if point["batch"] in (1, 8)
    ]
    parts = markdown(("head", "batch", *names, "clusters read", "host, two-stage / dense"), rows)
    launch = (
        f"Each kernel alone, {report['one_launch_us']:.1f} of the microseconds being those of one launch; the clusters "
        "that the states of a batch open together; and microseconds that a call costs the host."
    )
    return "\n\n".join((said, speed, launch, parts))


def _head_name(head: Report) -> str:
    size = f"{head['vocab_size']:,} x {head['hidden_size']:,}"
    return f"{head['head']}, {size}, {head['num_probes']} of {head['num_clusters']:,}"


def kernels(report: Report) -> str:
    """Registers and shared memory of the GPU kernels, by target."""
    cells = {
        (item["build"], item["target"]): f"{item['registers']}, {item['shared_bytes']}" for item in report["kernels"]
    }
    targets = list(dict.fromkeys(target for _, target in cells))
    lines = [f"| kernel | {' | '.join(targets)} |", "| --- " * (len(targets) + 1) + "|"]
    lines += [
        f"| {build} | {' | '.join(cells[build, target] for target in targets)} |"
        for build in dict.fromkeys(build for build, _ in cells)
    ]
    return "\n".join(lines)


def clustering(report: Report) -> str:
    """Time, memory and containment of our clustering against spherical k-means."""
    rows = []
    for shape in report["shapes"]:
        for method in shape["methods"]:
            iterations, shares = method["iterations"], method["containment"] or {}
            rows.append(
                (
                    f"{shape['vocab_size']:,} x {shape['hidden_size']:,}",
                    method["method"] + (f", {iterations} iterations" if iterations else ""),
                    f"{method['num_clusters']:,} of {method['cluster_size']}",
                    f"{method['seconds']:.1f}",
                    f"{method['peak_over_rows']:.2f}",
                    *(f"{shares[probes]:.3f}" if probes in shares else NOT_MEASURED for probes in ("256", "512")),
                )
            )
    titles = ("rows", "method", "clusters", "seconds", "peak memory / rows", "containment@256", "containment@512")
    data = [f"{shape['vocab_size']:,} x {shape['hidden_size']:,} are {shape['data']}" for shape in report["shapes"]]
    machine = f"{report['threads']} threads of {report['machine']['cpu_model']}"
    return f"{markdown(titles, rows)}\n\n{'; '.join(data)}. {machine}."
