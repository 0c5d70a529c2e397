//! The half of the gateway that speaks to clients.

pub mod h1;
pub mod h2;

/// First bytes of HTTP/2 with prior knowledge (RFC 9113, 3.4).
pub const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
