#!/usr/bin/env bash
# The wheel works without a clone. Usage: tests/wheel.sh PYTHON WHEEL
# A clean environment gets the wheel alone; the dependencies are seen through a path file instead of being
# installed a second time (several GB), except where CI_FULL_WHEEL=1 asks for it.
set -euo pipefail
python=$(readlink -f "$(dirname "$1")")/$(basename "$1")
wheel=$(readlink -f "$2")
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
"$python" -m venv clean
site=$(clean/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
if [ "${CI_FULL_WHEEL:-0}" = 1 ]; then
  clean/bin/python -m pip install --quiet --disable-pip-version-check "$wheel"
else
  clean/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "$wheel"
  "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$site/dependencies.pth"
fi
clean/bin/python - "$place" <<'PY'
import pathlib, sys
import wsss
where = pathlib.Path(wsss.__file__).resolve()
assert pathlib.Path(sys.argv[1]).resolve() in where.parents, f"wsss was imported from {where}, not from the wheel"
PY
clean/bin/wsss --version
clean/bin/wsss list recipes
clean/bin/wsss demo --out demo --quick
test -s demo/report/index.html
echo "wheel: ok"
