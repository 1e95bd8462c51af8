#!/usr/bin/env bash
# Makes a folder that runs on a GPU box without internet and without Node: Node, the built code, its dependencies as far as
# they are used, the engines with their libraries, configs, and the programs that check and measure. At most 60 MiB.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage() {
  cat << 'USAGE'
usage: scripts/gpu/pack.sh [--verify] [--no-build] [FOLDER]

Makes a pack for boxes without internet in FOLDER (build/pack), replacing what is there.
  --verify    also unpack a copy in an empty environment and run memory3 --help, doctor and a tiny training there
  --no-build  take dist/ and build/native as they are

examples:
  scripts/gpu/pack.sh --verify
  scp -r build/pack gpu-box: && ssh gpu-box pack/scripts/gpu/check.sh
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
for tool in tar xz strip ldd npm; do
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
mkdir -p "$pack"

# copy_files FOLDER FIND-EXPRESSION...: those files of a folder of the repository, at the same place.
copy_files() {
  local from=$1
  shift
  find "$from" -type f "$@" -print0 | tar -c --null --files-from=- | tar -x -C "$pack"
}

# add_code: what memory3 is, without types and maps.
add_code() {
  cp package.json LICENSE "$pack/"
  copy_files bin
  copy_files configs
  copy_files dist ! -name '*.map' ! -name '*.d.ts'
  copy_files docs -name '*.md'
}

# add_programs: bench/gpu compiled, beside dist/ instead of src/.
add_programs() {
  local compiled=$work/compiled
  npx --no-install tsc -p tsconfig.json --noEmit false --noCheck --outDir "$compiled" --rootDir . --sourceMap false > "$work/tsc.log" ||
    { cat "$work/tsc.log" >&2 && fail "the programs of bench/gpu do not compile"; }
  mkdir -p "$pack/bench/gpu"
  cp "$compiled"/bench/gpu/*.js bench/gpu/*.json "$pack/bench/gpu/"
  sed -i 's|\.\./\.\./src/|../../dist/|g' "$pack"/bench/gpu/*.js
  copy_files bench/peers/gpu -name '*.py'
  copy_files scripts/gpu -name '*.sh' ! -name pack.sh
}

# add_engines: the addons without symbols.
add_engines() {
  local addon
  mkdir -p "$pack/build/native"
  for addon in build/native/memory3_*.node; do
    case $addon in *_emulated.node) continue ;; esac
    strip --strip-unneeded -o "$pack/$addon" "$addon"
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
        copy_files "$path" \( -path "$path/package.json" -o -path "$path/$main" -o -path "$path/wasm-out/*.wasm" \)
        ;;
      tokenizers) copy_files "$path" \( -name '*.js' -o -name package.json -o -name '*.linux-x64-gnu.node' \) ;;
      *)
        copy_files "$path" ! -name '*.map' ! -name '*.ts' ! -name '*.cts' ! -name '*.mts' ! -name '*.md' ! -name '*.flow' \
          ! -name 'LICENSE*' ! -path '*/zod/src/*' ! -path '*/apache-arrow/src/*' ! -path "$path/node_modules/*" ! -path '*/test/*' ! -path '*/bundles/*' \
          ! -path '*/docs/*' ! -path '*/Arrow.es*'
        ;;
    esac
  done < "$work/packages"
}

# libraries_of FILE...: paths of the shared libraries that the files need, but for those of the C library.
libraries_of() {
  ldd "$@" 2> /dev/null | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p' | sort -u |
    grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux-x86-64)\.so' || true
}

# add_runtime: Node and the libraries of the engines, in one archive.
add_runtime() {
  local runtime=$work/runtime library name
  mkdir -p "$runtime/lib/cxx"
  strip -o "$runtime/node" "$(readlink -f "$(command -v node)")"
  while read -r library; do
    name=$(basename "$library")
    case $name in
      libstdc++* | libgcc_s*) cp -L "$library" "$runtime/lib/cxx/$name" ;;
      *) cp -L "$library" "$runtime/lib/$name" && strip --strip-unneeded "$runtime/lib/$name" ;;
    esac
  done < <(libraries_of build/native/memory3_native.node "$(command -v node)" node_modules/tokenizers/*.linux-x64-gnu.node)
  tar -c -C "$runtime" . | xz -9 -T0 > "$pack/runtime.tar.xz"
}

# add_launcher: `run`, which is memory3.
add_launcher() {
  cat > "$pack/run" << 'LAUNCHER'
#!/usr/bin/env bash
# memory3 on a box without Node: run ARGUMENT... is memory3 ARGUMENT...
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/scripts/gpu/runtime.sh"
run_node "$root/bin/memory3.js" "$@"
LAUNCHER
  chmod +x "$pack/run" "$pack"/scripts/gpu/*.sh
}

# sizes: MiB of each part.
sizes() {
  local part
  say 'MiB  part'
  for part in "$pack"/runtime.tar.xz "$pack"/node_modules "$pack"/build "$pack"/dist "$pack"/bench "$pack"/docs "$pack"/configs; do
    printf 'pack: %5.1f  %s\n' "$(du -sk --apparent-size "$part" | awk '{print $1 / 1024}')" "$(basename "$part")"
  done
}

# try_out: the pack in a temporary folder, where no program is on the path but the few that it asks for.
try_out() {
  local box=$work/box program
  mkdir -p "$box/bin" "$box/texts"
  for program in bash env tar xz basename dirname mkdir mv rm id cksum tr uname cat; do
    ln -s "$(command -v "$program")" "$box/bin/$program"
  done
  cp -r "$folder" "$box/pack"
  local -a inside=(env -i "PATH=$box/bin" "HOME=$box" LANG=C.UTF-8)
  "${inside[@]}" "$box/pack/run" --help > "$work/help" || fail "memory3 --help failed"
  grep -q 'memory3 doctor' "$work/help" || fail "memory3 --help names no commands"
  "${inside[@]}" "$box/pack/run" doctor | tee "$work/doctor"
  grep -qi 'native' "$work/doctor" || fail "doctor does not name the native engine"
  local i
  for i in $(seq 80); do echo "The river number $i runs through the town of Nowhere-$i and ends in lake $((i * 7))."; echo; done > "$box/texts/a.txt"
  "${inside[@]}" "$box/pack/run" run -c "$box/pack/configs/tiny.yaml" --set "runsFolder=$box/runs" --set engine=native \
    --set "data.sources=[{path: $box/texts}]" --set "data.references=[{path: $box/texts}]" > "$work/run" 2>&1 ||
    { tail -20 "$work/run" >&2 && fail "the tiny training failed"; }
  "${inside[@]}" bash -c "source '$box/pack/scripts/gpu/runtime.sh' && run_program check --help" > "$work/list" ||
    fail "the check program does not start"
  say "verified: --help, doctor, a tiny training and the check program ran without Node and without the repository"
}

add_code
add_programs
add_engines
add_dependencies
add_runtime
add_launcher
sizes
total=$(du -sk --apparent-size "$pack" | awk '{printf "%.1f", $1 / 1024}')
rm -rf "$folder"
mkdir -p "$(dirname "$folder")"
cp -r "$pack" "$folder"
if [ -n "$verify" ]; then try_out; fi
say "$total MiB in $folder (limit $LIMIT)"
awk -v total="$total" -v limit=$LIMIT 'BEGIN { exit !(total <= limit) }' || fail "the pack is larger than $LIMIT MiB"
