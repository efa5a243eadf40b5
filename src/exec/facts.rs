//! Values that stay fixed while a command runs, from the settings and the clock.

use std::sync::atomic::Ordering::Relaxed;

use crate::base::clock;
use crate::base::config::{CompatibilityMode, Settings};
use crate::base::hash::HashSeed;
use crate::core::client::Client;
use crate::core::db::Facts;
use crate::core::hooks::{Hook, HookSet};
use crate::keyspace::access::{AccessClock, Lfu};
use crate::value::Limits;
use crate::value::hash::template;
use crate::value::stream::Window;

/// What a command may add beyond its arguments without asking for room, where there is a limit.
const GROWTH_FREE_BYTES: u64 = 64 * 1024;

/// The sizes at which collections change their form, as configured.
pub fn limits_of(settings: &Settings, seed: HashSeed) -> Limits {
    Limits {
        list_max_listpack_size: settings.list_max_listpack_size,
        hash_max_listpack_entries: settings.hash_max_listpack_entries,
        hash_max_listpack_value: settings.hash_max_listpack_value,
        hash_templates: template::Policy {
            entries_min: settings.hash_min_template_entries,
            entries_max: settings.hash_max_template_entries,
            sightings: template::SIGHTINGS,
        },
        set_max_intset_entries: settings.set_max_intset_entries,
        set_max_listpack_entries: settings.set_max_listpack_entries,
        set_max_listpack_value: settings.set_max_listpack_value,
        zset_max_listpack_entries: settings.zset_max_listpack_entries,
        zset_max_listpack_value: settings.zset_max_listpack_value,
        stream_node_max_bytes: settings.stream_node_max_bytes,
        stream_node_max_entries: settings.stream_node_max_entries,
        seed,
    }
}

pub(super) fn facts_of(settings: &Settings, limits: Limits, now: i64) -> Facts {
    let lfu = settings
        .maxmemory_policy
        .is_lfu()
        .then_some(Lfu { log_factor: settings.lfu_log_factor, decay_minutes: settings.lfu_decay_time_minutes });
    Facts {
        now,
        access: AccessClock { seconds: (now / 1000) as u64, lfu, lrm: settings.maxmemory_policy.is_lrm() },
        string_max_bytes: settings.proto_max_bulk_len,
        hll_sparse_max_bytes: settings.hll_sparse_max_bytes,
        limits,
        stream_window: Window { seconds: settings.stream_idmp_duration_s, ids_max: settings.stream_idmp_maxsize },
        cluster: settings.cluster_enabled,
        growth_max: if settings.maxmemory == 0 { u64::MAX } else { GROWTH_FREE_BYTES },
        replaying: false,
        no_touch: false,
        hides_expired: false,
        only_listens: false,
        flush_undo_ms: settings.flush_undo_seconds * 1000,
        as_valkey: settings.compatibility_mode == CompatibilityMode::Valkey,
        rdb_versions: settings.rdb_version_check,
    }
}

pub(super) fn facts_now(settings: &Settings, limits: Limits, client: &Client, hooks: HookSet) -> Facts {
    let observes = client.record.observes;
    let no_touch = observes || client.record.no_touch.load(Relaxed);
    // For an import source nothing expires. For others, what expires stays and is hidden.
    let replaying = settings.import_mode && client.record.import_source.load(Relaxed);
    let hides_expired = observes || settings.import_mode || hooks.has(Hook::Pause);
    Facts {
        no_touch,
        replaying,
        hides_expired,
        only_listens: client.only_listens(),
        ..facts_of(settings, limits, clock::now_ms())
    }
}
