//! What a client that writes until its server dies must find afterwards.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::client::{Client, encode};
use super::random::Random;
use super::reply;

/// What one client knows of its keys: the last value sent, and the last acknowledged.
/// Values only grow, so the true state lies between the two.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) sent: BTreeMap<String, u64>,
    acknowledged: BTreeMap<String, u64>,
}

/// Values carry their number and a padding that depends on it: a mixed-up value is noticed.
fn padded(number: u64) -> String {
    format!("{number}:{}", "x".repeat((number % 300) as usize))
}

impl Ledger {
    /// Writes until the server dies. `number` is that of the last write, and `answered` counts replies.
    pub(crate) fn write(
        &mut self,
        name: usize,
        mut client: Client,
        random: &mut Random,
        number: &mut u64,
        answered: &AtomicU64,
    ) {
        loop {
            let depth = random.pick(&[&1, &1, &1, &4, &30]);
            let mut bytes = Vec::new();
            let mut batch = Vec::new();
            for _ in 0..*depth {
                *number += 1;
                let key = match random.below(3) {
                    0 => format!("counter:{name}"),
                    1 => format!("few:{name}:{}", random.below(20)),
                    _ => format!("many:{name}:{number}"),
                };
                let value = match key.starts_with("counter") {
                    true => {
                        bytes.extend(encode(&["INCR", &key]));
                        self.sent.get(&key).copied().unwrap_or(0) + 1
                    }
                    false => {
                        bytes.extend(encode(&["SET", &key, &padded(*number)]));
                        *number
                    }
                };
                self.sent.insert(key.clone(), value);
                batch.push((key, value));
            }
            if client.send(&bytes).is_err() {
                return;
            }
            for (key, value) in batch {
                match client.receive() {
                    Ok(reply) if reply == b"+OK\r\n" => {}
                    Ok(reply) if reply == format!(":{value}\r\n").as_bytes() => {}
                    Ok(reply) => panic!("{key}: {}", reply.escape_ascii()),
                    Err(_) => return,
                }
                self.acknowledged.insert(key, value);
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Checks every key and takes its value as the new truth.
    pub(crate) fn check(&mut self, client: &mut Client, round: &str) {
        let keys: Vec<String> = self.sent.keys().cloned().collect();
        for keys in keys.chunks(1000) {
            let mut command = vec!["MGET"];
            command.extend(keys.iter().map(String::as_str));
            let found = reply::parse(&client.call(&command));
            for (key, value) in keys.iter().zip(found.elements()) {
                self.check_key(key, value, round);
            }
        }
    }

    fn check_key(&mut self, key: &str, found: &reply::Reply, round: &str) {
        let number = match found {
            reply::Reply::Null(_) => None,
            text => {
                let text = text.string();
                let number = text.split(':').next().and_then(|digits| digits.parse().ok());
                let number: u64 = number.unwrap_or_else(|| panic!("{round}: {key} holds {text}"));
                assert!(key.starts_with("counter") || text == padded(number), "{round}: {key} holds {text}");
                Some(number)
            }
        };
        let (sent, acknowledged) = (self.sent[key], self.acknowledged.get(key).copied());
        assert!(
            number >= acknowledged && number <= Some(sent),
            "{round}: {key} holds {number:?}; acknowledged {acknowledged:?}, sent {sent}"
        );
        match number {
            Some(number) => {
                self.sent.insert(key.to_owned(), number);
                self.acknowledged.insert(key.to_owned(), number);
            }
            None => drop(self.sent.remove(key)),
        }
    }
}
