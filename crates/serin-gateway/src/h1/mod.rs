//! HTTP/1 as bytes: heads and bodies are read and written here, without any I/O.
//!
//! Strict where leniency would make two parties read one message differently (RFC 9112, sections 6, 7 and 11): a message with
//! two lengths, with a length and a coding, with an unknown coding, or with a malformed chunk is refused.

pub mod fields;
pub mod framing;
pub mod request;
pub mod response;
