//! What the tests share: a sample kind and a server that serves it.
#![allow(dead_code)]

pub mod http;
pub mod outside;

use kube::core::CustomResourceExt as _;
use kube::{Client, CustomResource};
use redb::backends::InMemoryBackend;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serin_apiserver::{ApiOptions, ApiServer, Store, StoreOptions};

/// A kind for tests, as controllers see it. Its definition is [`finch_definition`], which says more.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(group = "test.serin.dev", version = "v1", kind = "Finch", plural = "finches", namespaced)]
#[kube(status = "FinchStatus", derive = "Default", derive = "PartialEq")]
#[serde(rename_all = "camelCase")]
pub struct FinchSpec {
    pub model: Model,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_replicas: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    pub version: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FinchStatus {
    #[serde(default)]
    pub replicas: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
}

/// The definition of `finches.test.serin.dev`.
pub fn finch_definition() -> Value {
    assert_eq!(Finch::crd_name(), "finches.test.serin.dev");
    serde_saphyr::from_str(FINCH_DEFINITION).expect("the definition is YAML")
}

pub const FINCH_DEFINITION: &str = include_str!("../data/finch-definition.yaml");

pub fn options() -> ApiOptions {
    ApiOptions { definitions: vec![finch_definition()], ..ApiOptions::default() }
}

pub fn memory_store(options: StoreOptions) -> Store {
    Store::open_backend(InMemoryBackend::new(), options).expect("a store in memory opens")
}

/// A server over a store in memory that serves [`Finch`].
pub async fn server() -> ApiServer {
    ApiServer::start(memory_store(StoreOptions::default()), options()).await.expect("the server starts")
}

/// A client of a server, in process.
pub fn client(server: &ApiServer) -> Client {
    Client::new(server.router(), "default")
}

pub fn finch(name: &str, version: &str) -> Finch {
    Finch::new(name, FinchSpec { model: Model { version: version.into() }, ..FinchSpec::default() })
}
