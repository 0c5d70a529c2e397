//! The half of the gateway that speaks to replicas: HTTP/1.1 in the request's own task, without a task per connection.

pub mod conn;
pub mod exchange;
pub mod replica;
pub mod request;
