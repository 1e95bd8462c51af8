#!/usr/bin/env bash
# Makes a folder that runs on a GPU box without internet and without Node: the scripts, configs and docs, and in one archive
# Node, the built code, its dependencies as far as they are used, the engines with their libraries, and the programs that
# check and measure. At most 60 MiB.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage() {
  cat << 'USAGE'
usage: scripts/gpu/pack.sh [--verify] [--no-build] [FOLDER]

Makes a pack for boxes without internet in FOLDER (build/pack), replacing what is there.
  --verify    also run a copy in an empty environment: memory3 --help, doctor, a tiny training from warmup to evaluation,
              and the check on the emulated device, which is lent to the copy
  --no-build  take dist/ and build/native as they are

examples:
  scripts/gpu/pack.sh --verify
  scp -r build/pack gpu-box: && ssh gpu-box bash pack/scripts/gpu/check.sh
  pack/run doctor                         on the box: memory3 doctor
  pack/run run -c pack/configs/paper/2.4b.yaml
USAGE
}

LIMIT=60 # MiB
verify='' build=yes folder=build/pack
for argument in "$@"; do
  case $argument in
    --help | -h) usage && exit 0 ;;
    --verify) verify=yes ;;
    --no-build) build='' ;;
    -*) usage >&2 && exit 2 ;;
    *) folder=$argument ;;
  esac
done

say() { echo "pack: $*"; }
fail() { say "$*" >&2 && exit 1; }

[ "$(uname -sm)" = 'Linux x86_64' ] || fail "a pack holds programs for Linux on x86_64 and is made there"
for tool in tar xz strip objdump ldd npm; do
  command -v "$tool" > /dev/null || fail "$tool is missing (Debian: apt-get install xz-utils binutils)"
done
if [ -n "$build" ]; then
  bash scripts/build_native.sh
  npm run --silent build
fi
[ -f dist/cli/main.js ] || fail "dist/ is not there: npm run build"
[ -f build/native/memory3_native.node ] || fail "the native engine is not there: scripts/build_native.sh"
[ -f build/native/memory3_cuda.node ] || say "WARNING: memory3_cuda.node is not there (no nvcc 12 or newer): no GPU will be used"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pack=$work/pack
runtime=$work/runtime
mkdir -p "$pack" "$runtime"

# copy_files TARGET FOLDER FIND-EXPRESSION...: those files of a folder of the repository, at the same place in TARGET.
copy_files() {
  local to=$1 from=$2
  shift 2
  find "$from" -type f "$@" -print0 | tar -c --null --files-from=- | tar -x -C "$to"
}

# add_texts: what people read and change.
add_texts() {
  cp LICENSE "$pack/"
  copy_files "$pack" configs
  copy_files "$pack" docs -name '*.md'
  copy_files "$pack" scripts/gpu -name '*.sh' ! -name pack.sh ! -name inspect.sh
}

# add_code: what memory3 is, without types and maps.
add_code() {
  cp package.json "$runtime/"
  copy_files "$runtime" bin
  copy_files "$runtime" dist ! -name '*.map' ! -name '*.d.ts' ! -name '.*'
}

# add_programs: bench/gpu compiled, beside dist/ instead of src/, and the peer.
add_programs() {
  local compiled=$work/compiled
  npx --no-install tsc -p tsconfig.json --noEmit false --noCheck --outDir "$compiled" --rootDir . --sourceMap false > "$work/tsc.log" ||
    { cat "$work/tsc.log" >&2 && fail "the programs of bench/gpu do not compile"; }
  mkdir -p "$runtime/bench/gpu"
  cp "$compiled"/bench/gpu/*.js bench/gpu/*.json "$runtime/bench/gpu/"
  sed -i 's|\.\./\.\./src/|../../dist/|g' "$runtime"/bench/gpu/*.js
  copy_files "$runtime" bench/peers/gpu -name '*.py'
}

# add_engines: the addons without symbols.
add_engines() {
  local addon
  mkdir -p "$runtime/build/native"
  for addon in build/native/memory3_native.node build/native/memory3_cuda.node; do
    if [ -f "$addon" ]; then strip --strip-unneeded -o "$runtime/$addon" "$addon"; fi
  done
}

# Packages that only compilers read.
NOT_RUN='@types|node-addon-api|node-api-headers|undici-types|core-js|regenerator-runtime'

# add_dependencies: what production needs. Of TensorFlow.js the bundles for Node alone, of tokenizers this platform's.
add_dependencies() {
  local path name main
  npm ls --omit=dev --all --parseable 2> /dev/null | sed 1d | sort -u > "$work/packages"
  while read -r path; do
    path=${path#"$PWD"/}
    name=${path##*node_modules/}
    if [ ! -d "$path" ] || [[ $path =~ node_modules/($NOT_RUN)(/|$) ]]; then continue; fi
    case $name in
      @tensorflow/*)
        main=$(node -p "require('./$path/package.json').main")
        copy_files "$runtime" "$path" \( -path "$path/package.json" -o -path "$path/$main" -o -path "$path/wasm-out/*.wasm" \)
        ;;
      tokenizers) copy_files "$runtime" "$path" \( -name '*.js' -o -name package.json -o -name '*.linux-x64-gnu.node' \) ;;
      *)
        copy_files "$runtime" "$path" ! -name '*.map' ! -name '*.ts' ! -name '*.cts' ! -name '*.mts' ! -name '*.md' ! -name '*.flow' \
          ! -path '*/zod/src/*' ! -path '*/apache-arrow/src/*' ! -path '*/Arrow.es*' ! -path "$path/node_modules/*"
        ;;
    esac
  done < "$work/packages"
}

# libraries_of FILE...: paths of the shared libraries that the files need, but for those of the C library.
libraries_of() {
  ldd "$@" 2> /dev/null | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p' | sort -u |
    grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux-x86-64)\.so' || true
}

# newest SYMBOLS FILE...: the newest version of these symbols that the files ask for.
newest() {
  local symbols=$1
  shift
  objdump -T "$@" | grep -oE "\\b${symbols}[0-9.]+" | sort -uV | tail -1
}

# add_node: Node and the libraries of the engines.
add_node() {
  local library name
  local -a programs=("$runtime/node" "$runtime"/build/native/*.node "$runtime"/node_modules/tokenizers/*.node)
  mkdir -p "$runtime/lib/cxx"
  strip -o "$runtime/node" "$(readlink -f "$(command -v node)")"
  while read -r library; do
    name=$(basename "$library")
    case $name in
      libstdc++* | libgcc_s*) cp -L "$library" "$runtime/lib/cxx/$name" ;;
      *) cp -L "$library" "$runtime/lib/$name" && strip --strip-unneeded "$runtime/lib/$name" ;;
    esac
  done < <(libraries_of "${programs[@]}")
  newest GLIBCXX_ "${programs[@]}" > "$runtime/lib/cxx/version"
  say "wants glibc $(newest GLIBC_ "${programs[@]}" "$runtime"/lib/*.so*) with a C++ library of $(< "$runtime/lib/cxx/version")," \
    "else $(newest GLIBC_ "$runtime"/lib/cxx/*.so*)"
}

# add_archive: all that runs, and its checksum, by which the folder is called into which it is unpacked.
add_archive() {
  tar -c --sort=name --owner=0 --group=0 -C "$runtime" . | xz -T0 > "$pack/runtime.tar.xz"
  cksum < "$pack/runtime.tar.xz" | cut -d ' ' -f 1 > "$pack/runtime.sum"
}

# add_launcher: `run`, which is memory3.
add_launcher() {
  cat > "$pack/run" << 'LAUNCHER'
#!/usr/bin/env bash
# memory3 on a box without Node: run ARGUMENT... is memory3 ARGUMENT...
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/scripts/gpu/runtime.sh"
run_node "$code/bin/memory3.js" "$@"
LAUNCHER
  chmod +x "$pack/run" "$pack"/scripts/gpu/*.sh
}

# sizes: MiB of each part before compression.
sizes() {
  local part
  say 'MiB uncompressed'
  for part in node lib build node_modules dist bench; do
    printf 'pack: %6.1f  %s\n' "$(mebibytes "$runtime/$part")" "$part"
  done
}

# mebibytes FOLDER
mebibytes() { du -sk --apparent-size "$1" | awk '{printf "%.1f", $1 / 1024}'; }

# What the scripts of a pack call, but for python3 and nvidia-smi.
TOOLS='bash env basename dirname mkdir mv rm id uname cat grep sed tail cut tee timeout date'

# try_out: a copy of the pack in a temporary folder, where no other program is on the path.
try_out() {
  local box=$work/the\ box i
  local -a inside=(env -i "PATH=$box/bin" "HOME=$box" LANG=C.UTF-8)
  mkdir -p "$box/bin" "$box/texts"
  for i in $TOOLS tar xz; do ln -s "$(command -v "$i")" "$box/bin/$i"; done
  cp -r "$folder" "$box/pack"

  "${inside[@]}" "$box/pack/run" --help > "$work/help" || fail "memory3 --help failed"
  grep -q 'memory3 doctor' "$work/help" || fail "memory3 --help names no commands"
  "${inside[@]}" "$box/pack/run" doctor | tee "$work/doctor"
  grep -q 'native' "$work/doctor" || fail "doctor does not name the native engine"
  say "--help and doctor ran"

  for i in $(seq 80); do echo "The river number $i runs through the town of Nowhere-$i and ends in lake $((i * 7))."; echo; done > "$box/texts/a.txt"
  "${inside[@]}" "$box/pack/run" run -c "$box/pack/configs/tiny.yaml" --set "runsFolder=$box/runs" --set engine=native \
    --set "data.sources=[{path: '$box/texts'}]" --set "data.references=[{path: '$box/texts'}]" > "$work/run" 2>&1 ||
    { tail -20 "$work/run" >&2 && fail "the tiny training failed"; }
  say "a tiny training ran: $(tail -1 "$work/run")"

  if command -v python3 > /dev/null; then
    rm "$box/bin/xz" && ln -s "$(python3 -c 'import sys; print(sys.executable)')" "$box/bin/python3"
    "${inside[@]}" "MEMORY3_RUNTIME=$box/by python" "$box/pack/run" --version > /dev/null || fail "python3 does not unpack the pack"
    say "python3 unpacks it too, without xz"
  fi

  local emulated=$PWD/build/native/memory3_cuda_emulated.node
  [ -f "$emulated" ] || fail "$emulated is not there, the check cannot be tried: scripts/build_native.sh"
  "${inside[@]}" "MEMORY3_CUDA_ADDON=$emulated" "MEMORY3_CUDA_LIBS=$PWD/build/native/fake_cuda_libs" bash "$box/pack/scripts/gpu/check.sh" \
    --size small --shape tiny --steps 2 --parts training,errors,shape,resume --seconds 600 || fail "the check failed on the emulated device"
  say "the check ran on the emulated device"
  say "PASS: --help, doctor, a tiny training and the check ran in $box, without Node and without the repository"
}

add_texts
add_code
add_programs
add_engines
add_dependencies
add_node
add_archive
add_launcher
sizes
rm -rf "$folder"
mkdir -p "$(dirname "$folder")"
cp -r "$pack" "$folder"
total=$(mebibytes "$folder")
say "$total MiB in $folder (limit $LIMIT)"
awk -v total="$total" -v limit=$LIMIT 'BEGIN { exit !(total <= limit) }' || fail "the pack is larger than $LIMIT MiB"
if [ -n "$verify" ]; then try_out; fi
