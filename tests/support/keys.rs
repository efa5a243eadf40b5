//! A model of a few keys, for the checker of histories: the state is what the keys hold, a call is one command or one
//! transaction, and a reply is the exact bytes of RESP2.
//!
//! It knows the commands that the torture test sends, and no others. Times of expiry lie far ahead, so that nothing
//! expires meanwhile.

use std::collections::BTreeMap;

use super::linear::Model;

/// What one key holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Value {
    /// A string, and when it expires.
    Text(String, Option<u64>),
    /// A list.
    List(Vec<String>),
}

/// Some keys. A key without a value is not there.
pub(crate) type Keys = BTreeMap<String, Value>;

/// The commands of a transaction, or one command alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// Each with its arguments.
    pub(crate) commands: Vec<Vec<String>>,
    /// Whether they stand between MULTI and EXEC.
    pub(crate) transaction: bool,
}

impl Call {
    /// One command, its arguments divided by spaces.
    pub(crate) fn of(line: &str) -> Call {
        Call { commands: vec![words(line)], transaction: false }
    }

    /// A transaction, a line for each command.
    pub(crate) fn transaction(lines: &[String]) -> Call {
        Call { commands: lines.iter().map(|line| words(line)).collect(), transaction: true }
    }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// The model.
#[derive(Debug)]
pub(crate) struct KeysModel;

impl Model for KeysModel {
    type State = Keys;
    type Call = Call;
    type Reply = String;

    fn apply(state: &Keys, call: &Call) -> (Keys, String) {
        let mut keys = state.clone();
        let replies: String = call.commands.iter().map(|command| run(&mut keys, command)).collect();
        let reply = match call.transaction {
            true => format!("*{}\r\n{replies}", call.commands.len()),
            false => replies,
        };
        (keys, reply)
    }
}

fn run(keys: &mut Keys, command: &[String]) -> String {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    match words[..] {
        ["SET", key, value] => set(keys, key, value, None),
        ["SET", key, value, "PXAT", at] => set(keys, key, value, Some(at.parse().expect("a time"))),
        ["GET", key] => bulk(text(keys, key)),
        ["GETSET", key, value] => {
            let before = bulk(text(keys, key));
            set(keys, key, value, None);
            before
        }
        ["DEL", key] => integer(i64::from(keys.remove(key).is_some())),
        ["INCRBY", key, by] => increment(keys, key, by.parse().expect("a number")),
        ["PEXPIRETIME", key] => match keys.get(key) {
            None => integer(-2),
            Some(Value::Text(_, Some(at))) => format!(":{at}\r\n"),
            Some(_) => integer(-1),
        },
        ["RPUSH", key, element] => {
            let list = list(keys, key);
            list.push(element.to_owned());
            integer(list.len() as i64)
        }
        ["LPOP", key] => {
            let list = list(keys, key);
            let popped = (!list.is_empty()).then(|| list.remove(0));
            if list.is_empty() {
                keys.remove(key);
            }
            bulk(popped.as_deref())
        }
        ["LRANGE", key, "0", "-1"] => match keys.get(key) {
            Some(Value::List(list)) => {
                format!("*{}\r\n{}", list.len(), list.iter().map(|element| bulk(Some(element))).collect::<String>())
            }
            _ => "*0\r\n".to_owned(),
        },
        ["MGET", ref named @ ..] => {
            let values: String = named.iter().map(|key| bulk(text(keys, key))).collect();
            format!("*{}\r\n{values}", named.len())
        }
        ["MSET", ref pairs @ ..] => {
            for pair in pairs.chunks(2) {
                set(keys, pair[0], pair[1], None);
            }
            "+OK\r\n".to_owned()
        }
        // The one script that is sent: it adds to the first key and subtracts from the second.
        ["EVAL", _, "2", from, to, by] => {
            let by: i64 = by.parse().expect("a number");
            increment(keys, from, -by);
            increment(keys, to, by)
        }
        _ => panic!("the model does not know {command:?}"),
    }
}

fn set(keys: &mut Keys, key: &str, value: &str, at: Option<u64>) -> String {
    keys.insert(key.to_owned(), Value::Text(value.to_owned(), at));
    "+OK\r\n".to_owned()
}

fn text<'k>(keys: &'k Keys, key: &str) -> Option<&'k str> {
    match keys.get(key)? {
        Value::Text(text, _) => Some(text),
        Value::List(_) => panic!("{key} is a list"),
    }
}

fn list<'k>(keys: &'k mut Keys, key: &str) -> &'k mut Vec<String> {
    match keys.entry(key.to_owned()).or_insert(Value::List(Vec::new())) {
        Value::List(list) => list,
        Value::Text(..) => panic!("{key} is a string"),
    }
}

fn increment(keys: &mut Keys, key: &str, by: i64) -> String {
    let (before, at) = match keys.get(key) {
        Some(Value::Text(text, at)) => (text.parse().expect("a counter"), *at),
        _ => (0_i64, None),
    };
    keys.insert(key.to_owned(), Value::Text((before + by).to_string(), at));
    integer(before + by)
}

fn integer(number: i64) -> String {
    format!(":{number}\r\n")
}

fn bulk(text: Option<&str>) -> String {
    text.map_or("$-1\r\n".to_owned(), |text| format!("${}\r\n{text}\r\n", text.len()))
}
