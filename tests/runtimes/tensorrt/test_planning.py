from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flashhead_edge.bundle import Bundle
from flashhead_edge.errors import OptionError
from flashhead_edge.platforms.catalog import find_platform
from flashhead_edge.runtimes.tensorrt.planning import BuildOptions, BuildPlan, plan_build
from flashhead_edge.runtimes.tensorrt.probe import Package
from tests.runtimes.tensorrt.test_target import NOTHING, ORIN, RTX, facts_of
from tests.tiny_engines import WIDTH, engine_bundle
from tests.tiny_heads import head_bundle, random_head, random_index

RTX_PACKAGE = Package("tensorrt-rtx", "1.7.1.116", ("8.6", "8.9"))
PACKAGES = {"tensorrt": Package("tensorrt", "10.3.0", None), "tensorrt-rtx": RTX_PACKAGE}


@pytest.fixture(autouse=True)
def both_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashhead_edge.runtimes.tensorrt.package_choice.is_installed", lambda backend: True)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return engine_bundle(tmp_path_factory.mktemp("bundles") / "bundle", dense=True)


def plan_for(bundle: Bundle, platform: str, given: dict[str, str] | None = None, **options: Any) -> BuildPlan:
    facts = facts_of(NOTHING if given is None else given)
    return plan_build(bundle, find_platform(platform), facts, BuildOptions(**options), ask=PACKAGES.__getitem__)


def test_ahead_of_time(bundle: Bundle) -> None:
    plan = plan_for(bundle, "geforce-rtx-4090")
    key, request = plan.key, plan.request
    assert (key.backend, key.tensorrt_version, key.compute_capability) == ("tensorrt-rtx", "1.7.1.116", "8.9")
    assert (key.gpu, key.cuda, request.on_device) == (None, None, False)
    assert (request.hidden_size, request.precisions) == (WIDTH, ("int8", "fp16"))
    assert request.workspace_bytes == key.workspace_bytes == 1 << 30
    assert Path(request.graph) == bundle.path.resolve() / "head.tensorrt.onnx"
    assert plan.folder == bundle.path / "engines"
    assert not plan.folder.exists()
    assert plan.built_on == {}


def test_on_the_device(bundle: Bundle) -> None:
    plan = plan_for(bundle, "jetson-orin-nano-8gb", ORIN)
    assert (plan.key.backend, plan.key.gpu, plan.key.cuda) == ("tensorrt", ORIN["JETSON_MODEL"], "12")
    assert plan.request.on_device
    assert plan.key.workspace_bytes == 1 << 28  # the board's own, not its family's
    assert plan.built_on == {"jetpack": "6.2", "power_mode": "15W"}


def test_a_workspace_counts_where_the_gpu_has_no_memory_of_its_own(bundle: Bundle) -> None:
    def difference(platform: str, given: dict[str, str]) -> int:
        sizes = (1 << 20, 1 << 30)
        one, two = (plan_for(bundle, platform, given, backend="tensorrt", workspace_bytes=size) for size in sizes)
        return two.memory_estimate - one.memory_estimate

    assert difference("jetson-orin-nano-8gb", ORIN) == (1 << 30) - (1 << 20)
    assert difference("geforce-rtx-4090", RTX) == 0


def test_the_profile_is_the_graphs_no_larger_than_the_platforms(bundle: Bundle) -> None:
    assert plan_for(bundle, "geforce-rtx-4090").key.batch == (1, 1, 4)
    assert plan_for(bundle, "jetson-orin-nano-8gb", ORIN).key.batch == (1, 1, 1)
    assert plan_for(bundle, "geforce-rtx-4090", batch=(1, 2, 8)).key.batch == (1, 2, 8)


def test_graphs_for_large_batches_keep_their_profile(tmp_path: Path) -> None:
    large = engine_bundle(tmp_path / "bundle", centroid_precision="fp16", max_batch=32)
    assert plan_for(large, "geforce-rtx-4090").key.batch == (1, 32, 32)


@pytest.mark.parametrize("batch", [(0, 1, 1), (2, 1, 4), (1, 4, 2), (1, 1, 9)])
def test_batches_that_do_not_fit(bundle: Bundle, batch: tuple[int, int, int]) -> None:
    with pytest.raises(OptionError, match="1 <= least <= tuned <= greatest <= 8"):
        plan_for(bundle, "geforce-rtx-4090", batch=batch)


def test_options_are_in_the_key(bundle: Bundle) -> None:
    plans = [
        plan_for(bundle, "geforce-rtx-4090"),
        plan_for(bundle, "geforce-rtx-4090", graph="dense"),
        plan_for(bundle, "geforce-rtx-4090", workspace_bytes=1 << 20),
        plan_for(bundle, "geforce-rtx-4090", optimization_level=0),
        plan_for(bundle, "geforce-rtx-4090", batch=(1, 1, 1)),
        plan_for(bundle, "geforce-rtx-3090"),
    ]
    assert len({plan.key.digest for plan in plans}) == len(plans)
    assert plans[3].request.optimization_level == 0
    elsewhere = plan_for(bundle, "geforce-rtx-4090", folder=Path("elsewhere"))
    assert (elsewhere.folder, elsewhere.key) == (Path("elsewhere"), plans[0].key)


def test_platforms_of_the_same_gpu_share_engines(bundle: Bundle) -> None:
    assert plan_for(bundle, "geforce-rtx-4090").key == plan_for(bundle, "geforce-rtx-4060").key


def test_weights_that_are_inputs_are_not_in_the_estimate(tmp_path: Path, bundle: Bundle) -> None:
    plan = plan_for(bundle, "geforce-rtx-4090")
    assert plan.weights_bytes > 1000 * WIDTH * 2
    inputs = plan_for(engine_bundle(tmp_path / "inputs", weight_inputs=True), "geforce-rtx-4090")
    assert inputs.weights_bytes == 0
    assert inputs.memory_estimate < plan.memory_estimate


@pytest.mark.parametrize(("graph", "option"), [("head", "--target tensorrt"), ("dense", "--tensorrt-dense fp16")])
def test_a_bundle_without_the_graph_says_how_to_export_it(tmp_path: Path, graph: str, option: str) -> None:
    head = random_head(64, 32)
    plain = head_bundle(tmp_path / "bundle", head, random_index(head, 8), 2)
    with pytest.raises(OptionError, match=option):
        plan_for(plain, "geforce-rtx-4090", graph=graph)
