//! Any bytes that come as HTTP/1, from a client or from a replica, are read in one way or refused, and what is passed on is
//! read by others as it was read here. The properties are those of the gateway's own tests.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/serin-gateway/tests/messages/properties.rs"]
mod properties;

fuzz_target!(|bytes: &[u8]| {
    // Sizes of the pieces follow from the bytes, so that a seed is a message and nothing else.
    let mut state = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let sizes: [usize; 16] = std::array::from_fn(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = (state >> 33) as usize;
        // Mostly few bytes; of long inputs no more pieces than some hundred.
        1 + random % (1 << (random >> 8 & 7)) + bytes.len() / 256
    });
    properties::hold(bytes, &sizes);
    if bytes.len() <= 256 {
        properties::hold(bytes, &[1]);
    }
});
