//! `maxmemory-clients`: closes the largest clients when all of them together take too much memory.
//!
//! The worker that notices the growth closes them at once, before it executes anything else, and the timer looks ten
//! times a second, because the limit may have changed. Replicas, and clients with `CLIENT NO-EVICT on`, are counted but
//! stay.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::base::config::{ClientsLimit, Settings};
use crate::base::logging;
use crate::core::Server;
use crate::core::client::{ClientClass, ClientRecord};

/// How much memory all clients may take, in bytes; 0 for no limit.
fn limit(settings: &Settings) -> u64 {
    match settings.maxmemory_clients {
        ClientsLimit::Bytes(bytes) => bytes,
        ClientsLimit::Percent(percent) => {
            u64::try_from(u128::from(settings.maxmemory) * u128::from(percent) / 100).unwrap_or(u64::MAX)
        }
    }
}

/// Closes as many clients as necessary, the largest first, if the counted memory is above the limit.
pub fn run_if_needed(server: &Server) {
    let limit = limit(&server.config.settings());
    if limit > 0 && server.clients.total_memory() > limit {
        run(server, limit);
    }
}

/// The counted memory includes clients that are about to close. They are in no list, so this measures again.
#[cold]
fn run(server: &Server, limit: u64) {
    let mut clients: Vec<(u64, Arc<ClientRecord>)> =
        server.clients.list().into_iter().map(|client| (client.memory(), client)).collect();
    let mut total: u64 = clients.iter().map(|(bytes, _)| bytes).sum();
    if total <= limit {
        return;
    }
    clients.retain(|(_, client)| client.class() != ClientClass::Replica && !client.no_evict.load(Relaxed));
    clients.sort_by_key(|(bytes, client)| Reverse((*bytes, client.id)));
    for (bytes, client) in clients {
        if total <= limit {
            break;
        }
        total -= bytes;
        if server.close_client(client.id) {
            server.counters.evicted_clients.add(1);
            logging::notice(format_args!("Evicting client: id={} addr={} tot-mem={bytes}", client.id, client.peer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::Config;

    #[test]
    fn a_limit_is_bytes_or_a_part_of_maxmemory() {
        for (text, wanted) in [
            ("maxmemory 100mb", 0),
            ("maxmemory-clients 3mb", 3 << 20),
            ("maxmemory 100mb\nmaxmemory-clients 5%", 5 << 20),
            ("maxmemory-clients 5%", 0),
            ("maxmemory 18446744073709551615\nmaxmemory-clients 100%", u64::MAX),
        ] {
            assert_eq!(limit(&Config::from_text(text.as_bytes()).expect("valid").settings()), wanted, "{text}");
        }
    }
}
