from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from flashhead_edge.cli import main
from flashhead_edge.platforms.catalog import load_catalog
from flashhead_edge.profiling.record import read_profile
from tests.prediction.test_model_shapes import LLAMA

GEMMA = ("--vocab-size", 262_144, "--hidden-size", 640)
ORIN = ("--platform", "jetson-orin-nano-8gb")


def run(*arguments):
    return CliRunner().invoke(main, ["predict", *map(str, arguments)])


def predicted(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_json_of_one_platform_has_the_keys_of_a_profile(whole_bundle):
    profile = predicted(whole_bundle().path, *ORIN)
    assert profile.keys() >= {"platform", "measured", "stages", "memory", "energy_j_per_token"}
    assert (profile["platform"], profile["measured"]) == ("jetson-orin-nano-8gb", False)
    assert profile["model"]["num_clusters"] == whole_bundle().manifest.index.num_clusters


def test_options_change_the_bundles_head(whole_bundle):
    index = whole_bundle().manifest.index
    profile = predicted(whole_bundle().path, *ORIN, "--probes", 1, "--centroid-precision", "int4")
    assert (profile["model"]["num_probes"], profile["model"]["centroid_precision"]) == (1, "int4")
    assert profile["model"]["num_clusters"] == index.num_clusters
    assert profile["model"]["agreement"] is None
    other = predicted(whole_bundle().path, *ORIN, "--cluster-size", 4, "--probes", 2)
    assert other["model"]["cluster_size"] == 4 != index.cluster_size


def test_head_alone():
    profile = predicted(*GEMMA, *ORIN, "--cluster-size", 16, "--probes", 512, "--batch", 4)
    assert [stage["name"] for stage in profile["stages"]] == ["centroids", "top-k", "gather + dot", "host"]
    assert (profile["model"]["num_clusters"], profile["model"]["num_probes"]) == (16_384, 512)
    assert (profile["batch"], profile["positions"]) == (4, None)


def test_body_by_options():
    body = ("--body-weights", 100_000_000, "--num-layers", 18, "--num-kv-heads", 1, "--head-dim", 256)
    profile = predicted(*GEMMA, *body, *ORIN, "--context", 1000, "--body-precision", "int8")
    assert profile["memory"]["cache_bytes"] == 2 * 18 * 256 * 1000 * 2
    assert profile["model"]["body_precision"] == "int8"


def test_config(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA))
    body = predicted("--config", path, *ORIN)["stages"][0]
    assert body["name"] == "body"
    assert body["operations"] == 2 * (1_235_814_400 - 128_256 * 2048 - 33 * 2048)


def test_scaling_is_left_out_unless_asked_for(tmp_path):
    assert predicted(*GEMMA, *ORIN)["head_points"] == []
    file = tmp_path / "profile.json"
    assert run(*GEMMA, *ORIN, "--scaling", "--output", file).exit_code == 0
    varied = {point.varied for point in read_profile(file).head_points}
    assert varied == {"probes", "batch", "clusters", "vocabulary"}


def test_several_heads_and_platforms_are_a_list():
    heads = ("--head", "two-stage", "--head", "two-stage-portable", "--head", "dense-int8")
    profiles = predicted(*GEMMA, *heads, *ORIN, "--platform", "nvidia-l4")
    found = [(profile["platform"], profile["model"]["head"]) for profile in profiles]
    kinds = ["two-stage", "two-stage", "dense"]
    assert found == [(name, kind) for name in ("jetson-orin-nano-8gb", "nvidia-l4") for kind in kinds]
    fused, portable, dense = (profile["step_ms"] for profile in profiles[:3])
    assert fused < portable < dense


def test_all_platforms_says_which_are_left_out():
    result = run(*GEMMA, "--all-platforms", "--json")
    assert result.exit_code == 0
    known = {p.name for p in load_catalog().platforms.values() if p.memory_bandwidth_gb_s is not None}
    assert {profile["platform"] for profile in json.loads(result.stdout)} == known
    assert "x86-cpu-avx2" in result.stderr


def test_a_given_bandwidth_is_that_of_cpus():
    profiles = predicted(*GEMMA, "--all-platforms", "--bandwidth", 20)
    bandwidth = {profile["platform"]: profile["machine"]["bandwidth_gb_s"] for profile in profiles}
    assert bandwidth["x86-cpu-avx2"] == bandwidth["raspberry-pi-5"] == 20
    assert bandwidth["jetson-orin-nano-8gb"] == 68


def test_a_platform_of_the_users(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[platforms.my-board]\ntitle = "My board"\nfamily = "own"\nmemory_bandwidth_gb_s = 10\n'
        'sources = { memory_bandwidth_gb_s = "a stream test" }\n'
    )
    assert predicted(*GEMMA, "--file", path, "--platform", "my-board")["machine"]["bandwidth_gb_s"] == 10


def test_text_says_that_it_is_predicted():
    one, several = run(*GEMMA, *ORIN).stdout, run(*GEMMA, *ORIN, "--platform", "nvidia-l4").stdout
    assert "PREDICTED, not measured" in one
    assert "gather + dot" in one
    assert several.startswith("PREDICTED, nothing of this was measured")
    assert [line.split()[0] for line in several.splitlines()[3:]] == ["jetson-orin-nano-8gb", "nvidia-l4"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*ORIN,), "Give a bundle"),
        ((*GEMMA, "--config", "config.json", *ORIN), "Give a bundle"),
        ((*GEMMA,), "--all-platforms"),
        (("--vocab-size", 1000, *ORIN), "belong together"),
        ((*GEMMA, "--num-layers", 3, *ORIN), "belong together"),
        ((*GEMMA, "--platform", "jetson-orin-nano"), "jetson-orin-nano-8gb"),
        ((*GEMMA, "--platform", "x86-cpu-avx2"), "--bandwidth"),
        ((*GEMMA, *ORIN, "--head", "dense-int3"), "dense-int"),
        ((*GEMMA, *ORIN, "--probes", 0), "out of range"),
        ((*GEMMA, *ORIN, "--platform", "nvidia-l4", "--output", "profile.json"), "one profile"),
        ((*GEMMA, *ORIN, "--centroid-precision", "int3"), "no precision"),
        ((*GEMMA, *ORIN, "--head", "two-stage-portable", "--low-bit-rows", "int8"), "--head two-stage"),
    ],
)
def test_wrong_use(arguments, said):
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not result.stdout


def test_it_loads_no_heavy_package():
    heavy = ("torch", "transformers", "onnx", "onnxruntime", "tokenizers")
    code = (
        "import sys\nfrom flashhead_edge.cli import main\n"
        f"main({['predict', *map(str, GEMMA), *ORIN]!r}, standalone_mode=False)\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
