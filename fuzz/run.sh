#!/usr/bin/env bash
# Runs each fuzz target for SECONDS_EACH (default 600). Usage: fuzz/run.sh [TARGET...]
#
# Builds with the toolchain at hand, stable too: coverage comes from LLVM's own pass, which needs no nightly flag. There
# is no address sanitizer, which would need one; the code under test has no `unsafe` for it to find.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd .. && pwd)
seconds=${SECONDS_EACH:-600}
build=${FUZZ_TARGET_DIR:-$root/target/fuzz}
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(onnx_model oip_request upstream_response)

command -v c++ >/dev/null || { echo "fuzz: a C++ compiler is missing (Debian: apt-get install g++)" >&2; exit 1; }

export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Ccodegen-units=1"
host=$(rustc -vV | sed -n 's/^host: //p')
# With a target named, build scripts and macros are not instrumented.
cargo build --quiet --release --target "$host" --target-dir "$build/build" "${targets[@]/#/--bin=}"

for target in "${targets[@]}"; do
    corpus=$build/corpus/$target seeds=$build/seeds/$target found=$build/found/$target
    mkdir -p "$corpus" "$seeds" "$found"
    case $target in
    onnx_model)
        number=0
        while IFS= read -r file; do
            cp "$file" "$seeds/$((number += 1)).onnx"
        done < <(find "$root/tests/fixtures/onnx" "$root/examples" -name '*.onnx' -size -24k | sort)
        ;;
    oip_request)
        printf '%s' '{"id":"7","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2],[3,4e-1]]}],"outputs":[{"name":"y","parameters":{"binary_data":false}}]}' >"$seeds/nested.json"
        printf '%s' '{"inputs":[{"data":["aé","b"],"name":"t","shape":[2,1],"datatype":"BYTES"}],"parameters":{}}' >"$seeds/data-first.json"
        printf '%s' '{"inputs":[{"name":"i","shape":[3],"datatype":"INT64","data":[-1,0,9223372036854775807]}]}' >"$seeds/integers.json"
        printf '%s' '{"inputs":[{"name":"b","shape":[1,2,2],"datatype":"BOOL","data":[[[true,false],[false,true]]]}]}' >"$seeds/truths.json"
        printf '%s' '{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[null,-0.5]}]}' >"$seeds/missing.json"
        ;;
    upstream_response)
        post='POST /v2/models/m/infer HTTP/1.1\r\nhost: a\r\n'
        printf "${post}content-length: 5\r\n\r\nhelloGET /next?a=b HTTP/1.1\r\nhost: a\r\n\r\n" >"$seeds/request-length"
        printf "${post}transfer-encoding: chunked\r\n\r\n3;e=f\r\nabc\r\n0\r\nt: u\r\n\r\n" >"$seeds/request-chunked"
        printf 'PUT http://h:1/p HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\nx-forwarded-for: b\r\nconnection: x, close\r\nx: 1\r\ncontent-length: 2\r\n\r\n{}' >"$seeds/request-absolute"
        printf 'POST /p HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\nx' >"$seeds/request-old"
        printf "${post}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" >"$seeds/request-two-framings"
        printf 'HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\nserin-prediction: score=1\r\n\r\nhello' >"$seeds/answer-length"
        printf 'HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: x\r\nx: 1\r\n\r\n2\r\nab\r\n0\r\n\r\n' >"$seeds/answer-chunked"
        printf 'HTTP/1.0 500 Bad\r\ndate: now\r\n\r\nuntil the end' >"$seeds/answer-until-close"
        printf 'HTTP/1.1 304 No\r\ncontent-length: 7\r\netag: "a"\r\n\r\n' >"$seeds/answer-empty"
        printf '3;a="b"\r\nabc\r\n0a\r\n0123456789\r\n0\r\na: b\r\n\r\nrest' >"$seeds/chunks"
        ;;
    esac
    echo "fuzz: $target for $seconds s"
    "$build/build/$host/release/$target" "$corpus" "$seeds" -max_total_time="$seconds" -timeout=25 \
        -rss_limit_mb=2048 -malloc_limit_mb=512 -max_len=24576 -print_final_stats=1 -verbosity=0 \
        -artifact_prefix="$found/"
done
echo "fuzz: clean: ${targets[*]}"
