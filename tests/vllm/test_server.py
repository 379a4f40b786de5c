"""The OpenAI server: two models at once on this machine's loopback, clients of both at the same time."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from decoding_cases import PROMPTS
from engines import ENVIRONMENT, engine, run

pytestmark = pytest.mark.vllm
NAMES = ["llama", "qwen3"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def request(port: int, path: str, body: dict | None = None, timeout: float = 120) -> dict:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(
        urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers), timeout=timeout
    ) as answer:
        return json.loads(answer.read() or b"{}")


def start(folder, name: str, model, options: dict) -> tuple[subprocess.Popen, int]:
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--model", str(model), "--served-model-name", name, "--dtype", "float32", "--enforce-eager"]
    command += ["--max-model-len", "128", "--max-num-seqs", "8", "--hf-overrides", json.dumps(options["hf_overrides"])]
    with (folder / f"{name}.txt").open("w") as log:
        env = os.environ | ENVIRONMENT | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
        return subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT), port


def wait(process: subprocess.Popen, port: int, log) -> None:
    end = time.monotonic() + 300
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()[-4000:]
        try:
            request(port, "/v1/models", timeout=5)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(1)
        else:
            return
    raise AssertionError(f"not ready: {log.read_text()[-4000:]}")


def bodies(name: str) -> tuple[list[dict], dict]:
    """Requests of clients at the same time, and one after them.

    The last is drawn: beside a grammar that is compiled late, vLLM 0.28 draws others, with the dense head too.
    """
    common = {"model": name, "max_tokens": 10, "temperature": 0}
    plain = [common | {"prompt": prompt} for prompt in PROMPTS]
    regex = [common | {"prompt": PROMPTS[0], "structured_outputs": {"regex": "[0-9]{3}-[a-f]{2}"}}]
    biased = [common | {"prompt": PROMPTS[1], "logit_bias": {"60": 50}, "logprobs": 2}]
    drawn = common | {"prompt": PROMPTS[2], "temperature": 1.0, "seed": 7}
    return plain + regex + biased, drawn


def expected_texts(folder, model) -> list[str]:
    greedy = {"temperature": 0.0, "max_tokens": 10}
    cases = {
        "plain": {"prompts": PROMPTS, "sampling": greedy},
        "regex": {"prompts": PROMPTS[:1], "sampling": greedy | {"structured": {"regex": "[0-9]{3}-[a-f]{2}"}}},
        "biased": {"prompts": PROMPTS[1:2], "sampling": greedy | {"logit_bias": {"60": 50}}},
        "drawn": {"prompts": PROMPTS[2:3], "sampling": greedy | {"temperature": 1.0, "seed": 7}},
    }
    outputs = run(folder, engine("dense", model.standard, cases, dtype=model.dtype)).outputs("dense")
    return [completion[0]["text"] for case in cases for completion in outputs[case]]


def test_two_servers_and_concurrent_clients(served, tmp_path):
    """Ten requests to each, all in flight together, and one more: the texts of dense vLLM; a chat is answered."""
    started = {}
    try:
        for name in NAMES:
            started[name] = start(tmp_path, name, served(name).published, served(name).all_opened)
        for name, (process, port) in started.items():
            wait(process, port, tmp_path / f"{name}.txt")
        with ThreadPoolExecutor(16) as clients:
            answers = {
                name: [clients.submit(request, port, "/v1/completions", body) for body in bodies(name)[0]]
                for name, (_, port) in started.items()
            }
            texts = {name: [a.result()["choices"][0]["text"] for a in own] for name, own in answers.items()}
        for name, (_, port) in started.items():
            texts[name].append(request(port, "/v1/completions", bodies(name)[1])["choices"][0]["text"])
            chat = {"model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
            assert request(port, "/v1/chat/completions", chat)["usage"]["completion_tokens"] <= 5
    finally:
        for process, _ in started.values():
            process.terminate()
        for process, _ in started.values():
            process.wait(60)
    for name in NAMES:
        (tmp_path / f"dense-{name}").mkdir()
        assert texts[name] == expected_texts(tmp_path / f"dense-{name}", served(name))
        log = (tmp_path / f"{name}.txt").read_text()
        assert f"Resolved architecture: FlashHead{'Llama' if name == 'llama' else 'Qwen3'}ForCausalLM" in log
