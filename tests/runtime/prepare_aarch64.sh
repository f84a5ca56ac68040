#!/usr/bin/env bash
# Lay out Debian's arm64 Python, numpy and Pillow, and the aarch64 onnxruntime wheel, in a folder.
# Usage: prepare_aarch64.sh FOLDER HOST_PYTHON; then FOLDER/python runs arm64 code under qemu-user.
# Nothing is installed on this machine: apt-get works on a state of its own.
set -euo pipefail
folder=$(realpath -m "$1")
host_python=$2
onnxruntime=1.23.2 # newest for JetPack 6; 1.32 crashes under qemu 7.2 while it loads
root=$folder/root
mkdir -p "$folder"/state/lists/partial "$folder"/cache/archives/partial "$root" "$folder"/wheels
: > "$folder/status"
options=(-q -o APT::Architecture=arm64 -o APT::Architectures=arm64
    -o APT::Install-Recommends=false -o APT::Sandbox::User=root
    -o "Dir::State=$folder/state" -o "Dir::State::status=$folder/status" -o "Dir::Cache=$folder/cache")
apt-get "${options[@]}" update
apt-get "${options[@]}" -y --download-only install python3 python3-numpy python3-pil libstdc++6
for package in "$folder"/cache/archives/*.deb; do
    dpkg-deb -x "$package" "$root"
done
python=$(basename "$(readlink -f "$root/usr/bin/python3")")
"$host_python" -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
    --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 \
    --python-version "${python#python}" --implementation cp \
    -d "$folder/wheels" "onnxruntime==$onnxruntime"
"$host_python" -m zipfile -e "$folder"/wheels/onnxruntime-*.whl "$folder/site"
libraries=$root/usr/lib/aarch64-linux-gnu
cat > "$folder/python" <<RUN
#!/usr/bin/env bash
export PYTHONHOME=$root/usr PYTHONPATH=$folder/site:$root/usr/lib/python3/dist-packages
exec qemu-aarch64-static -cpu cortex-a76 -L $root \
    -E LD_LIBRARY_PATH=$libraries:$libraries/blas:$libraries/lapack:$root/lib/aarch64-linux-gnu \
    $root/usr/bin/$python "\$@"
RUN
chmod +x "$folder/python"
