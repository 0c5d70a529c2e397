//! A request body of any bytes is refused or read; it never panics, and the reader takes as JSON what serde_json does.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serin_runtime::oip::json::{JsonError, Reader};
use serin_runtime::oip::{Request, read_request};
use serin_runtime::onnx::{Budget, DType, InputPort, Tensor};

fuzz_target!(|body: &[u8]| {
    let port = |name: &str, dtype, dims: &[Option<usize>]| InputPort {
        name: name.to_owned(),
        dtype,
        dims: Some(dims.to_vec()),
    };
    let ports = [
        port("x", DType::F32, &[None, Some(2)]),
        port("i", DType::I64, &[None]),
        port("b", DType::Bool, &[None, None, None]),
        port("t", DType::Str, &[None, Some(1)]),
    ];
    // One input alone too, so that a request need not name all to be read to its end.
    for ports in [&ports[..], &ports[..1], &ports[1..2], &ports[2..3], &ports[3..]] {
        let mut tensors = vec![Tensor::default(); ports.len()];
        let mut budget = Budget::new(1 << 20);
        let read = read_request(body, ports, &[], &mut tensors, &mut budget, &mut Request::default());
        if read.is_ok() {
            assert!(tensors.iter().all(|tensor| tensor.shape().elements() == tensor.data().len()));
        }
    }

    let ours = Reader::new(body).and_then(|mut reader| reader.skip().and_then(|()| reader.end()));
    let theirs = serde_json::from_slice::<serde_json::Value>(body);
    match (ours, theirs) {
        (Ok(()), Ok(_)) | (Err(_), Err(_)) => {}
        // A value that is skipped may be a number beyond any double, which serde_json refuses to hold.
        (Ok(()), Err(error)) => {
            let message = error.to_string();
            assert!(message.contains("out of range") || message.contains("recursion"), "{message}");
        }
        (Err(JsonError::Depth { .. }), Ok(_)) => {}
        (Err(error), Ok(_)) => panic!("refused what serde_json takes: {error}"),
    }
});
