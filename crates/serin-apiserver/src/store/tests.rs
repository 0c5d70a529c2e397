use redb::backends::InMemoryBackend;
use serde_json::json;

use super::*;

fn small() -> StoreOptions {
    StoreOptions { history_events: 8, history_bytes: 1 << 20, recent_events: 4 }
}
