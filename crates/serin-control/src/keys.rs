//! Receipt keys: one Secret, made at the first start, followed for as long as control runs.

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use serin_api::hash::hex;
use serin_api::receipt::Signer;
use serin_api::wire::routes::ReceiptKey;
use serin_api::{RECEIPT_KEYS_SECRET, SYSTEM_NAMESPACE};

use crate::hub::{Hub, lock};

/// Reads the keys, making the first one where there is none, and hands them to gateways and to the checks of outcomes.
///
/// Entries of the Secret are named by key id (8 hex digits) and hold 64 hex digits. The last name in order signs; all check.
///
/// # Errors
/// What the API said.
pub async fn load(client: &Client, hub: &Hub) -> Result<(), kube::Error> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(SYSTEM_NAMESPACE.into()), ..Default::default() },
        ..Default::default()
    };
    ignore_existing(namespaces.create(&PostParams::default(), &namespace).await)?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    if secrets.get_opt(RECEIPT_KEYS_SECRET).await?.is_none() {
        ignore_existing(secrets.create(&PostParams::default(), &first_secret()).await)?;
    }
    let secret = secrets.get(RECEIPT_KEYS_SECRET).await?;
    let mut keys: Vec<ReceiptKey> = secret
        .data
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(id, value)| Some(ReceiptKey { id, secret: String::from_utf8(value.0).ok()?.trim().to_owned() }))
        .collect();
    keys.reverse();
    let signers: Vec<Signer> = keys.iter().filter_map(Signer::new).collect();
    if signers.is_empty() {
        tracing::error!(
            secret = RECEIPT_KEYS_SECRET,
            namespace = SYSTEM_NAMESPACE,
            "no usable receipt key; delete the Secret and restart control to get a new one"
        );
    }
    *lock(&hub.signers) = Arc::new(signers);
    hub.routes.set_keys(keys);
    Ok(())
}

fn first_secret() -> Secret {
    let mut random = [0u8; 36];
    // Without the system's randomness no key can be made, and nothing else on the machine works either.
    getrandom::fill(&mut random).expect("the system gives random bytes");
    let entry = (hex(&random[..4]), ByteString(hex(&random[4..]).into_bytes()));
    Secret {
        metadata: ObjectMeta { name: Some(RECEIPT_KEYS_SECRET.into()), ..Default::default() },
        data: Some([entry].into()),
        type_: Some("serin.dev/receipt-keys".into()),
        ..Default::default()
    }
}

fn ignore_existing<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(|_| ()),
    }
}
