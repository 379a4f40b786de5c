#!/usr/bin/env bash
# The on-device install and the core of the runtime suite on emulated 64-bit ARM: a Debian 12 root with its Python 3.11, into
# which the package and its dependencies are installed from aarch64 wheels, offline. Needs root on Debian or a derivative
# (it installs debootstrap, qemu-user-static and g++-aarch64-linux-gnu where they are missing); all else lies in work/aarch64.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)
python=${PYTHON:-$repository/.venv/bin/python}
work=$repository/work/aarch64
root=$work/root
device=$root/device
registry=/proc/sys/fs/binfmt_misc
entry=flashhead-aarch64-$$

fail() {
  printf 'test-aarch64: %s\n  what to do: %s\n' "$1" "$2" >&2
  exit 1
}

# Mounts are made in a namespace of our own, so that nothing is left of them however we end.
enter_namespace() {
  [[ $EUID -eq 0 ]] || fail "needs root, for chroot, mount and binfmt_misc" "sudo make test-aarch64, or run it in a virtual machine"
  [[ ${FLASHHEAD_NAMESPACE:-} == own ]] && return
  unshare --mount true 2>/dev/null || fail "mounting is not permitted here (unshare --mount failed)" \
    "run it on a host or in a virtual machine; a container needs --privileged"
  FLASHHEAD_NAMESPACE=own exec unshare --mount -- "${BASH_SOURCE[0]}"
}

install_tools() {
  local missing=()
  command -v debootstrap >/dev/null || missing+=(debootstrap)
  command -v qemu-aarch64-static >/dev/null || missing+=(qemu-user-static)
  command -v aarch64-linux-gnu-g++ >/dev/null || missing+=(g++-aarch64-linux-gnu)
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null || fail "lacks ${missing[*]}, and there is no apt-get" "install them, or run it on Debian"
  echo "installing ${missing[*]}"
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}

# Programs that a program starts need the kernel's help: an emulator alone runs one. The flag F opens the emulator now, so
# that it is found from inside the root.
register_emulator() {
  local magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
  local mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
  [[ $(uname -m) == aarch64 ]] && return
  if [[ ! -e $registry/register ]]; then
    mount -t binfmt_misc binfmt_misc "$registry" 2>/dev/null ||
      fail "binfmt_misc cannot be mounted" "modprobe binfmt_misc; a container needs --privileged, and the module in its host"
  fi
  printf ':%s:M::%s:%s:%s:F' "$entry" "$magic" "$mask" "$(command -v qemu-aarch64-static)" >"$registry/register" ||
    fail "the kernel does not take an emulator (binfmt_misc)" "run it on a host or in a virtual machine"
  trap 'echo -1 >"$registry/$entry"' EXIT
}

# What Linux says of Cortex-A76 cores, as many as we have; QEMU_CPU below is the same core.
arm_cpuinfo() {
  local number
  for ((number = 0; number < $(nproc); number++)); do
    cat <<END
processor	: $number
BogoMIPS	: 108.00
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x4
CPU part	: 0xd0b
CPU revision	: 1

END
  done
}

debian_mirror() {
  # shellcheck disable=SC2016  # apt's own placeholder
  apt-get indextargets --format '$(SITE)' 'Origin: Debian' 'Label: Debian' | sed -n 1p
}

make_root() {
  local mirror=${MIRROR:-}
  if [[ ! -e $work/root.complete ]]; then
    [[ -n $mirror ]] || mirror=$(debian_mirror)
    [[ -n $mirror ]] || { apt-get -qq update && mirror=$(debian_mirror); }
    [[ -n $mirror ]] || fail "apt names no mirror of Debian" "apt-get update, or MIRROR=ADDRESS make test-aarch64"
    rm -rf "$root"
    mkdir -p "$root"
    debootstrap --arch=arm64 --variant=minbase --include=python3,python3-venv bookworm "$root" "$mirror" \
      >"$work/debootstrap.log" 2>&1 || {
      tail -n 20 "$work/debootstrap.log" >&2
      fail "the Debian root could not be made" "read $work/debootstrap.log; is $mirror reachable?"
    }
    touch "$work/root.complete"
  fi
  # ONNX Runtime reads the processor's features from all three, and the host's would be those of another architecture.
  arm_cpuinfo >"$work/cpuinfo"
  { mount -t proc proc "$root/proc" && mount -t sysfs -o ro sysfs "$root/sys" &&
    mount --bind "$work/cpuinfo" "$root/proc/cpuinfo"; } ||
    fail "/proc and /sys cannot be mounted in the root" "a container needs --privileged"
}

# The wheel as a device gets it, with the native library for NEON; built from a copy, where our own library is not replaced.
build_wheel() {
  rm -rf "$work/source" "$work/wheels"
  mkdir -p "$work/source" "$work/wheels"
  tar -C "$repository" -c --exclude=__pycache__ --exclude='*.so' flashhead_edge native pyproject.toml README.md LICENSE |
    tar -C "$work/source" -x
  (cd "$work/source" && CXX=aarch64-linux-gnu-g++ _PYTHON_HOST_PLATFORM=linux-aarch64 \
    "$python" -m build --wheel --no-isolation -o "$work/wheels" >"$work/wheel.log" 2>&1) ||
    fail "the wheel could not be built" "read $work/wheel.log"
  compgen -G "$work/wheels/*linux_aarch64.whl" >/dev/null ||
    fail "the wheel has no library for aarch64" "read $work/wheel.log for what the compiler said"
}

download_wheels() {
  local platforms=() tag
  for tag in manylinux_2_28 manylinux_2_27 manylinux2014 linux; do platforms+=(--platform "${tag}_aarch64"); done
  "$python" -m pip --disable-pip-version-check download -qq -d "$work/wheels" --only-binary=:all: --python-version 3.11 \
    "${platforms[@]}" -c "$repository/constraints.txt" pip pytest hypothesis onnx \
    "$(compgen -G "$work/wheels/flashhead_edge-*.whl")[cpu]"
}

# A bundle, and the texts that this machine makes of it; the device gets the tests, and none of the package's sources.
fill_device() {
  rm -rf "$device"
  mkdir "$device"
  (cd "$repository" && "$python" - "$device" <<'END'
import json, sys
from pathlib import Path
from flashhead_edge import Bundle, Generator
from tests.aarch64.commands import PROMPT, TOKENS
from tests.tiny_bundle import write_bundle

device = Path(sys.argv[1])
bundle = Bundle.open(write_bundle(device / "bundle"))
texts = {head: Generator(bundle, head=head).generate(PROMPT, max_new_tokens=TOKENS) for head in ("two-stage", "dense")}
(device / "expected.json").write_text(json.dumps({head: text.token_ids for head, text in texts.items()}))
END
  )
  cp -r "$repository/tests" "$repository/pyproject.toml" "$repository/constraints.txt" "$work/wheels" "$device"
}

timed() {
  local start=$SECONDS
  "$@"
  echo "$1: $((SECONDS - start)) s"
}

enter_namespace
mkdir -p "$work"
timed install_tools
register_emulator
timed make_root
timed build_wheel
timed download_wheels
timed fill_device
chroot "$root" /usr/bin/env -i QEMU_CPU=cortex-a76 PATH=/usr/bin:/bin HOME=/root LANG=C.UTF-8 bash /device/tests/aarch64/on_device.sh
echo "test-aarch64: passed in $SECONDS s"
