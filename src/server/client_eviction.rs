//! `maxmemory-clients`: closes the largest clients when all of them together take too much memory.
//!
//! It checks ten times a second, so clients can take more for a moment: each at most as much as
//! `client-query-buffer-limit` and `client-output-buffer-limit` allow. Replicas, and clients with `CLIENT NO-EVICT
//! on`, are counted but stay.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::base::config::{ClientsLimit, Settings};
use crate::base::logging;
use crate::core::Server;
use crate::core::client::{ClientClass, ClientRecord};

/// The clients that were told to close.
#[derive(Debug, Default)]
pub struct ClientEviction {
    /// Their ids, as long as they exist.
    closing: HashSet<u64>,
}

/// How much memory all clients may take, in bytes; 0 for no limit.
fn limit(settings: &Settings) -> u64 {
    match settings.maxmemory_clients {
        ClientsLimit::Bytes(bytes) => bytes,
        ClientsLimit::Percent(percent) => {
            u64::try_from(u128::from(settings.maxmemory) * u128::from(percent) / 100).unwrap_or(u64::MAX)
        }
    }
}

impl ClientEviction {
    /// Closes as many clients as necessary, the largest first.
    pub fn run(&mut self, server: &Server) {
        let limit = limit(&server.config.settings());
        if limit == 0 {
            return;
        }
        let mut clients: Vec<(u64, Arc<ClientRecord>)> =
            server.clients.list().into_iter().map(|client| (client.memory(), client)).collect();
        let there: HashSet<u64> = clients.iter().map(|(_, client)| client.id).collect();
        self.closing.retain(|id| there.contains(id));
        clients.retain(|(_, client)| !self.closing.contains(&client.id));
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
                self.closing.insert(client.id);
                server.counters.evicted_clients.add(1);
                logging::notice(format_args!("Evicting client: id={} addr={} tot-mem={bytes}", client.id, client.peer));
            }
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
