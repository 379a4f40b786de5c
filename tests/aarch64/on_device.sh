#!/usr/bin/env bash
# Runs inside the emulated device, started by run.sh: installs the package as a device's owner would, then tests it.
set -euo pipefail
cd /device

install() {
  venv/bin/python "$(compgen -G 'wheels/pip-*.whl')/pip" install -q --no-compile --no-index --find-links wheels -c constraints.txt "$@"
}

python3 -m venv --without-pip venv
install 'flashhead-edge[cpu]'
venv/bin/python tests/aarch64/commands.py bundle expected.json

install pytest hypothesis onnx
# What needs neither PyTorch nor OpenVINO, and does not measure time.
venv/bin/python -m pytest -q -p no:cacheprovider -k 'not openvino and not torch' \
  tests/runtimes/test_{head_suite,reference,onnxruntime,session,decoder}.py \
  tests/native/test_{native,native_head,low_bit_rows,attention,products,embedding}.py \
  tests/test_{bundle,generator,batch,exact_rows,quantize}.py tests/cli/test_{inspect,doctor}.py
