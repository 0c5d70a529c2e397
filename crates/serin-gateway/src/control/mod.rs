//! The gateway's side of the wire to control: tables come, observations go. None of it is on the path of a request.

pub mod disk;
pub mod link;
pub mod observe;
pub mod publish;
pub mod routes;
